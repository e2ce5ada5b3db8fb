"""Train on cells of AnnData files as with annbatch's Loader: chunks of neighbours, sparse batches, columns of obs.

python examples/recipes/annbatch.py
"""

import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import zarr

from globidx import (
    CheckpointManager,
    DataLoader,
    FileCacheDataset,
    GlobalIndexManager,
    ResumableDistributedSampler,
    orders,
)

GENES, EPOCHS = 50, 2


def write_cells(path: Path, types: list[str], cells: int) -> None:
    """A store as anndata writes it: sparse counts by row, in chunks and shards, and a column of categories."""
    random = np.random.default_rng(cells)
    counts = random.poisson(0.2, (cells, GENES)).astype("f4")
    rows, columns = np.nonzero(counts)
    store = zarr.create_group(path)
    matrix = store.create_group("X", attributes={"encoding-type": "csr_matrix", "shape": [cells, GENES]})
    matrix.create_array("indptr", data=np.searchsorted(rows, np.arange(cells + 1)))
    for name, data in {"indices": columns, "data": counts[rows, columns]}.items():
        matrix.create_array(name, data=data, chunks=(64,), shards=(256,))
    column = store.create_group("obs/cell_type", attributes={"encoding-type": "categorical"})
    column.create_array("codes", data=random.permutation(np.arange(cells) % len(types)).astype("i1"))
    column.create_array("categories", data=np.array(types, np.dtypes.StringDType()))


def train(folder: Path, stop_at: int) -> None:
    index = GlobalIndexManager(folder / "cells", layout="anndata", key=("X", "obs/cell_type"))
    types = index.categories["obs/cell_type"]
    dataset = FileCacheDataset(index, sparse="row", with_id=True)
    # 8 stored chunks are shuffled together; theirs has chunk_size and preload_nchunks for that
    sampler = ResumableDistributedSampler(dataset, seed=0, order=orders.ChunkShuffle(window=8))
    loader = DataLoader(dataset, batch_size=10, sampler=sampler)

    torch.manual_seed(0)
    model, weights = torch.zeros(GENES, len(types), requires_grad=True), folder / "weights.pt"
    manager = CheckpointManager(folder / "run", sampler)
    step = 0
    if record := manager.restore():
        step = record["step"]
        model.data = torch.load(weights)

    for epoch in range(sampler.epoch, EPOCHS):
        sampler.set_epoch(epoch)
        for batch, ids in loader:
            loss = torch.nn.functional.cross_entropy(batch["X"] @ model, batch["obs/cell_type"])
            (gradient,) = torch.autograd.grad(loss, model)
            dist.all_reduce(gradient)
            model.data -= 0.1 * gradient
            with open(folder / "trained.txt", "a") as file:
                print(*(f"{epoch} {id}" for id in ids.tolist()), sep="\n", file=file)
            step += 1
            if step == stop_at:
                if dist.get_rank() == 0:
                    torch.save(model.data, weights)
                manager.save(step)
                return
    if dist.get_rank() == 0:
        print(types, batch["X"].layout)


def job(rank: int, ranks: int, folder: Path, stop_at: int) -> None:
    warnings.filterwarnings("ignore", message="Sparse CSR")
    dist.init_process_group("gloo", init_method=f"file://{folder}/{ranks}", rank=rank, world_size=ranks)
    train(folder, stop_at)
    dist.monitored_barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        write_cells(Path(name, "cells", "a.zarr"), ["B cell", "T cell"], 160)
        write_cells(Path(name, "cells", "b.zarr"), ["NK cell", "B cell"], 80)
        for ranks, stop_at in ((2, 6), (3, 0)):
            mp.start_processes(job, (ranks, Path(name), stop_at), ranks, start_method="fork")
            trained = Counter(Path(name, "trained.txt").read_text().splitlines())
            print(f"{ranks} ranks end with {trained.total()} cells")
        assert trained == Counter(f"{epoch} {id}" for epoch in range(EPOCHS) for id in range(240))
        print("each was trained on once in each of 2 epochs")
