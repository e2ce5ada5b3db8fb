"""Train a policy as UMI's workspace does: Accelerate, a replay buffer, a payload that the main process pickles.

python examples/recipes/diffusion_policy.py
"""

import os
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import zarr
from accelerate import Accelerator

from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler, Window
from globidx.integrations.accelerate import prepare

HORIZON, N_OBS_STEPS, NUM_EPOCHS = 16, 2, 2


def write_buffer(path: Path) -> None:
    random, lengths = np.random.default_rng(0), range(12, 40, 2)
    buffer = zarr.create_group(path, zarr_format=2)
    for name, width in {"state": 5, "action": 2}.items():
        rows = random.random((sum(lengths), width), np.float32)
        buffer.create_array(f"data/{name}", data=rows, chunks=(64, width))
    buffer.create_array("meta/episode_ends", data=np.cumsum(lengths))


class Workspace:
    """What a payload has: states of models and optimizers, and the attributes that ``include_keys`` names."""

    include_keys = ("global_step", "record")  # was: "global_step", "epoch"

    def __init__(self):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(N_OBS_STEPS * 5, HORIZON * 2)
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.global_step, self.record = 0, None

    def save_checkpoint(self, path: Path, model: torch.nn.Module) -> None:
        states = {"model": model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({"state_dicts": states, **{key: getattr(self, key) for key in self.include_keys}}, path)

    def load_checkpoint(self, path: Path) -> None:
        payload = torch.load(path)
        for key, state in payload.pop("state_dicts").items():
            getattr(self, key).load_state_dict(state)
        vars(self).update(payload)

    def run(self, folder: Path, stop_at: int) -> None:
        accelerator, latest = Accelerator(cpu=True), folder / "latest.ckpt"
        if latest.exists():
            self.load_checkpoint(latest)
        window = Window({"obs/state": range(N_OBS_STEPS), "action": range(HORIZON)}, pad="edge", before=1, after=7)
        key = {"obs/state": "data/state", "action": "data/action"}
        buffer = GlobalIndexManager(folder / "pusht.zarr", key=key, sequences="meta/episode_ends", window=window)
        dataset = FileCacheDataset(buffer, with_id=True)
        sampler = ResumableDistributedSampler(dataset, seed=42)
        if self.record is not None:
            sampler.load_state_dict(self.record)
        loader = prepare(accelerator, DataLoader(dataset, batch_size=15, sampler=sampler))
        self.model, self.optimizer = accelerator.prepare(self.model, self.optimizer)
        for epoch in range(sampler.epoch, NUM_EPOCHS):
            for batch, ids in loader:
                loss = self.model(batch["obs"]["state"].flatten(1)) - batch["action"].flatten(1)
                accelerator.backward(loss.square().mean())
                self.optimizer.step()
                self.optimizer.zero_grad()
                with open(folder / "trained.txt", "a") as file:
                    print(*(f"{epoch} {id}" for id in ids.tolist()), sep="\n", file=file)
                self.global_step += 1
                if self.global_step == stop_at:
                    self.record = sampler.state_dict()
                    if accelerator.is_main_process:  # they save at the end of epochs; this is in the middle of one
                        self.save_checkpoint(latest, accelerator.unwrap_model(self.model))
                    return


def job(rank: int, ranks: int, folder: Path, stop_at: int) -> None:
    os.environ |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{ranks}", "LOCAL_WORLD_SIZE": f"{ranks}"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/{ranks}", rank=rank, world_size=ranks)
    Workspace().run(folder, stop_at)
    dist.monitored_barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        write_buffer(Path(name, "pusht.zarr"))
        for ranks, stop_at in ((2, 4), (3, 0)):
            mp.start_processes(job, (ranks, Path(name), stop_at), ranks, start_method="fork")
            trained = Counter(Path(name, "trained.txt").read_text().splitlines())
            print(f"{ranks} ranks end with {trained.total()} windows")
        assert trained == Counter(f"{epoch} {id}" for epoch in range(NUM_EPOCHS) for id in range(252))
        print("each was trained on once in each of 2 epochs")
