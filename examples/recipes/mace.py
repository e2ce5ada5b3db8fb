"""Train on atomistic configurations as mace does: DDP, a validation behind each epoch, files that rank 0 saves.

python examples/recipes/mace.py
"""

import os
import tempfile
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler, collate

EPOCHS, OF_ATOMS = 2, collate.concat(["atomic_numbers", "positions"])


def write_configurations(path: Path, count: int) -> None:
    """Groups ``config_batch_0/config_k``, as each process of their preprocessing writes them."""
    with h5py.File(path, "w") as file:
        for number in range(count):
            group, atoms = file.create_group(f"config_batch_0/config_{number}"), 2 + number % 5
            group["atomic_numbers"], group["properties/energy"] = np.arange(atoms), -3.2 * atoms
            group["positions"] = np.random.default_rng(number).normal(size=(atoms, 3))


def open_configurations(folder: Path) -> FileCacheDataset:
    key = "config_batch_*/config_*"
    return FileCacheDataset(GlobalIndexManager(folder, key=key, sequences="match", window="all"), with_id=True)


def error(model: torch.nn.Module, batch: dict) -> torch.Tensor:
    """Energies are sums over the atoms of a graph."""
    energies = batch["properties"]["energy"]
    graph = torch.arange(len(energies)).repeat_interleave(batch["offsets"]["positions"].diff())
    return (energies.index_add(0, graph, -model(batch["atomic_numbers"])[:, 0])).square()


def train(rank: int, folder: Path, stop_at: int) -> None:
    train_set, valid_set = open_configurations(folder / "train"), open_configurations(folder / "valid")
    train_sampler = ResumableDistributedSampler(train_set, seed=123)
    train_loader = DataLoader(train_set, 6, sampler=train_sampler, collate_fn=OF_ATOMS)
    valid_sampler = ResumableDistributedSampler(valid_set, shuffle=False, tail="exact")
    valid_loader = DataLoader(valid_set, 6, sampler=valid_sampler, collate_fn=OF_ATOMS)

    torch.manual_seed(0)
    model, running = torch.nn.Embedding(9, 1, dtype=torch.float64), folder / "mace_running.pt"
    state = {"model": model, "optimizer": torch.optim.Adam(model.parameters(), lr=0.1)}
    if running.exists():  # was: the newest of mace_epoch-*.pt, whose epoch is trained on once more
        checkpoint = torch.load(running)
        train_sampler.load_state_dict(checkpoint["sampler"])
        for name, one in state.items():
            one.load_state_dict(checkpoint[name])

    steps, ddp = 0, torch.nn.parallel.DistributedDataParallel(model)
    for epoch in range(train_sampler.epoch, EPOCHS):  # was: start_epoch
        train_sampler.set_epoch(epoch)
        for batch, ids in train_loader:
            state["optimizer"].zero_grad()
            error(ddp, batch).mean().backward()
            state["optimizer"].step()
            with open(folder / "trained.txt", "a") as file:
                print(*(f"{epoch} {id}" for id in ids.tolist()), sep="\n", file=file)
            steps += 1
            if steps == stop_at:  # theirs goes on
                if rank == 0:
                    checkpoint = {name: one.state_dict() for name, one in state.items()}
                    torch.save({**checkpoint, "sampler": train_sampler.state_dict()}, f"{running}.new")
                    os.replace(f"{running}.new", running)
                return
        errors = torch.cat([error(model, batch).detach() for batch, _ in valid_loader])
        total = torch.stack([errors.sum(), torch.ones_like(errors).sum()])
        dist.all_reduce(total)
        if rank == 0:
            print(f"epoch {epoch}: validated on {total[1]:.0f} configurations")


def job(rank: int, ranks: int, folder: Path, stop_at: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/{ranks}", rank=rank, world_size=ranks)
    train(rank, folder, stop_at)
    dist.monitored_barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        for path, count in (("train/0.h5", 50), ("train/1.h5", 40), ("valid/0.h5", 13)):
            Path(name, path).parent.mkdir(exist_ok=True)
            write_configurations(Path(name, path), count)
        for ranks, stop_at in ((2, 4), (3, 0)):
            mp.start_processes(job, (ranks, Path(name), stop_at), ranks, start_method="fork")
            trained = Counter(Path(name, "trained.txt").read_text().splitlines())
            print(f"{ranks} ranks end with {trained.total()} configurations")
        assert trained == Counter(f"{epoch} {id}" for epoch in range(EPOCHS) for id in range(90))
        print("each was trained on once in each of 2 epochs")
