"""Train on detector images as peaknet and maxie do: stores that a list names, FSDP, a full state that rank 0 saves.

python examples/recipes/peaknet.py
"""

import csv
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import zarr
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import binary_cross_entropy_with_logits

from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler

GRAD_ACCUM_STEPS, EPOCHS = 2, 2
FULL = StateDictOptions(full_state_dict=True, cpu_offload=True, broadcast_from_rank0=True)


def write_stores(folder: Path) -> None:
    """Images and labels in each store, and a list of the stores."""
    random = np.random.default_rng(0)
    with open(folder / "train.csv", "w", newline="") as file:
        for run, events in enumerate((17, 9, 30, 22, 30)):
            path = folder / f"r{run:04}.zarr"
            images, store = random.gamma(1, 10, (events, 8, 8)).astype("f4"), zarr.create_group(path)
            store.create_array("images", data=images, chunks=(10, 8, 8))
            store.create_array("labels", data=images > 20, chunks=(10, 8, 8))
            csv.writer(file).writerow([path])


def normalised(sample: dict) -> dict:
    """Their InstanceNorm, and a label for each pixel."""
    image = sample["images"]
    return {"image": (image - image.mean()) / image.std(), "label": sample["labels"].float()}


def save(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, training_state: dict) -> None:
    state = (*get_state_dict(model, optimizer, options=FULL), training_state)
    if dist.get_rank() == 0:
        torch.save(state, path)


def train(folder: Path, stop_at: int) -> None:
    with open(folder / "train.csv", newline="") as file:
        index = GlobalIndexManager([line[0] for line in csv.reader(file)], key=["images", "labels"])
    dataset = FileCacheDataset(index, with_id=True, transform=normalised)
    sampler = ResumableDistributedSampler(dataset, seed=0)  # once, over all stores; was: one for each segment
    loader = DataLoader(dataset, batch_size=4, sampler=sampler)

    torch.manual_seed(0)
    model = fully_shard(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 64)))
    optimizer, checkpoint = torch.optim.AdamW(model.parameters()), folder / "checkpoint.pt"
    if checkpoint.exists():
        weights, moments, training_state = torch.load(checkpoint, weights_only=True)
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments, options=FULL)
        sampler.load_state_dict(training_state["sampler"])

    iteration = 0
    for epoch in range(sampler.epoch, EPOCHS):
        sampler.set_epoch(epoch)
        for number, (batch, ids) in enumerate(loader, loader.start + 1):
            loss = binary_cross_entropy_with_logits(model(batch["image"]), batch["label"].flatten(1))
            (loss / GRAD_ACCUM_STEPS).backward()
            with open(folder / "trained.txt", "a") as file:
                print(*(f"{epoch} {id}" for id in ids.tolist()), sep="\n", file=file)
            if number % GRAD_ACCUM_STEPS == 0 or number == len(loader):
                optimizer.step()
                optimizer.zero_grad()
                iteration += 1
                if iteration == stop_at:  # theirs saves every so many iterations, and goes on until it is killed
                    save(checkpoint, model, optimizer, {"sampler": sampler.state_dict()})  # was: epoch, seg, end_idx
                    return


def job(rank: int, ranks: int, folder: Path, stop_at: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/{ranks}", rank=rank, world_size=ranks)
    train(folder, stop_at)
    dist.monitored_barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        write_stores(Path(name))
        for ranks, stop_at in ((2, 3), (3, 0)):
            mp.start_processes(job, (ranks, Path(name), stop_at), ranks, start_method="fork")
            trained = Counter(Path(name, "trained.txt").read_text().splitlines())
            print(f"{ranks} ranks end with {trained.total()} images")
        assert trained == Counter(f"{epoch} {id}" for epoch in range(EPOCHS) for id in range(108))
        print("each was trained on once in each of 2 epochs")
