"""A run of mace's own ``train`` that stops after some steps; what each step had is written line by line.

``python mace_job.py MACE FOLDER STOP_AT`` under torchrun, with the package in MACE.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from stubs import bare

import globidx

EPOCHS, BATCH, EVERY = 2, 6, 4

sys.path.insert(0, sys.argv[1])
_UNUSED = ("e3nn", "e3nn.io", "torch_ema", "ase", "ase.data", "ase.io", "mace.data.atomic_data")
_PLOTS = ("mace.cli", "mace.cli.visualise_train")
with bare("mace", "mace.data", "mace.tools", absent=_UNUSED + _PLOTS):
    from mace.tools import checkpoint, default_keys, train, utils

    # what mace.data takes from mace.tools itself
    vars(sys.modules["mace.tools"]).update(vars(utils) | vars(default_keys))
    from mace.data.hdf5_dataset import HDF5Dataset
    from mace.tools.torch_geometric.data import Data
    from mace.tools.torch_geometric.dataloader import Collater


class Graph:
    """Graphs of what a file has, without the neighbours that mace looks for."""

    @staticmethod
    def from_config(config, **options):
        del options
        return Data(
            atoms=torch.tensor(len(config.positions)),
            energy=torch.tensor(config.properties["energy"]),
            id=torch.tensor(int(config.properties["id"])),
        )


class Model(torch.nn.Module):
    """An energy for each atom."""

    def __init__(self):
        super().__init__()
        self.energy = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.seen = []

    def forward(self, batch, training, **computed):
        del computed
        if training:
            self.seen.append(batch["id"].tolist())
        return {"atoms": self.energy * batch["atoms"]}


class Stopped(Exception):  # noqa: N818
    """What a time limit does."""


def main(folder, stop_at):
    dist.init_process_group("gloo")
    rank = dist.get_rank()

    def opened(name):
        return HDF5Dataset(folder / name, r_max=5.0, z_table=None, atomic_dataclass=Graph)

    def loss_fn(pred, ref):
        return (pred["atoms"] - ref.energy).square().mean()

    train_set = opened("train.h5")
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    # as the page has it in run_train.py
    sampler = globidx.ResumableDistributedSampler(train_set, seed=123)
    loader = globidx.DataLoader(
        train_set, BATCH, sampler=sampler, collate_fn=Collater([None], [None])
    )
    state = checkpoint.CheckpointState(model, optimizer, scheduler)
    running = checkpoint.Running(folder / "run_running.pt", state, sampler, EVERY)
    start_epoch = sampler.epoch if running.load("cpu") else 0

    epochs = []

    def step(*_):
        epochs.append(sampler.epoch)
        if len(epochs) == stop_at + 1:
            raise Stopped

    model.register_forward_pre_hook(
        lambda _, args, kwargs: step() if kwargs["training"] else None, with_kwargs=True
    )
    try:
        train.train(
            model=model,
            loss_fn=loss_fn,
            train_loader=loader,
            valid_loaders={
                "Default": torch.utils.data.DataLoader(
                    opened("valid.h5"), BATCH, collate_fn=Collater([None], [None])
                )
            },
            optimizer=optimizer,
            lr_scheduler=scheduler,
            start_epoch=start_epoch,
            max_num_epochs=EPOCHS,
            patience=100,
            checkpoint_handler=checkpoint.CheckpointHandler(str(folder / "best"), "run"),
            logger=utils.MetricsLogger(str(folder), f"log-{rank}"),
            eval_interval=1,
            output_args=dict.fromkeys(("forces", "virials", "stress"), False),
            device="cpu",
            log_errors="TotalRMSE",
            distributed=True,
            distributed_model=torch.nn.parallel.DistributedDataParallel(model),
            train_sampler=sampler,
            rank=rank,
            running=running,
        )
    except Stopped:
        epochs.pop()
    lines = [json.dumps(line) for line in zip(epochs, model.seen, strict=False)]
    (folder / f"seen-{dist.get_world_size()}-{rank}.jsonl").write_text("\n".join(lines))
    dist.monitored_barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[2]), int(sys.argv[3]))
