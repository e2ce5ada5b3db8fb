"""A loop over PhysicsNeMo's DataLoader, whose thread reads ahead, with a record: killed on 2 ranks, resumed on 3.

python examples/recipes/physicsnemo.py
"""

import queue
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import zarr

import globidx

NUM_EPOCHS, BATCH_SIZE, PREFETCH_FACTOR = 2, 2, 2


def write_runs(folder: Path) -> None:
    """A zarr store for each car, with as many points as it has, and what holds for all of them as attributes."""
    random = np.random.default_rng(0)
    for number in range(39):
        run = zarr.open_group(folder / f"run_{number}.zarr", mode="w")
        points = 30 + 7 * number % 11
        run.create_array("surface_mesh_centers", data=random.random((points, 3), np.float32))
        run.create_array("surface_fields", data=random.random((points, 4), np.float32))
        run.attrs["stream_velocity"] = 30.0 + number


class DataLoader:
    """``physicsnemo.datapipes.DataLoader``: a thread draws ids and submits them, and each batch is read one ahead."""

    def __init__(self, dataset, batch_size, sampler) -> None:
        self.dataset, self.batch_size, self.sampler = dataset, batch_size, sampler

    def set_epoch(self, epoch: int) -> None:
        self.sampler.set_epoch(epoch)

    def __iter__(self):
        pool, ready = ThreadPoolExecutor(2), queue.Queue()
        slots = threading.Semaphore(PREFETCH_FACTOR * self.batch_size)

        def pump() -> None:
            for id in self.sampler:
                slots.acquire()
                ready.put(pool.submit(self.dataset.__getitem__, id))
            ready.put(None)

        threading.Thread(target=pump, daemon=True).start()
        batch, following = [], None
        while (future := ready.get()) is not None:
            batch.append(future.result())
            slots.release()
            if len(batch) == self.batch_size:
                if following is not None:
                    yield following
                batch, following = [], batch
        yield from [batch for batch in (following, batch) if batch]


def main(folder: Path, rank: int, ranks: int, stop_after: int | None = None) -> Counter:
    """How often each (epoch, id) was trained on."""
    runs = globidx.GlobalIndexManager(
        f"{folder}/run_*.zarr",
        key=["surface_mesh_centers", "surface_fields"],
        sequences="file",
        window="all",
        constants={"stream_velocity": "@stream_velocity"},
    )
    dataset = globidx.FileCacheDataset(runs, with_id=True)
    sampler = globidx.ResumableDistributedSampler(dataset, ranks, rank, seed=7)
    loader, trained, checkpoint = DataLoader(dataset, BATCH_SIZE, sampler), Counter(), folder / "checkpoint.0.pt"
    if stop_after is None:
        sampler.load_state_dict(torch.load(checkpoint)["metadata"]["sampler"])
    for epoch in range(sampler.epoch, NUM_EPOCHS):
        loader.set_epoch(epoch)
        for step, batch in enumerate(loader, 1):
            trained.update((epoch, id) for _sample, id in batch)
            sampler.commit(len(batch))  # what the thread has drawn ahead does not count
            if step == stop_after:
                if rank == 0:
                    torch.save({"metadata": {"sampler": sampler.state_dict()}}, checkpoint)
                return trained
    return trained


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        write_runs(Path(name))
        first = sum((main(Path(name), rank, 2, stop_after=3) for rank in range(2)), Counter())
        rest = sum((main(Path(name), rank, 3) for rank in range(3)), Counter())
    print(f"epoch 0: {first.total()} runs on 2 ranks, {sum(epoch == 0 for epoch, _ in rest)} on 3")
    assert first + rest == Counter((epoch, id) for epoch in (0, 1) for id in range(39))
    print("39 runs, each trained on once in epoch 0 and once in epoch 1")
