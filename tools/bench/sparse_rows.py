"""Rows of a sparse matrix in an h5ad file: dense, as indices and values, and by scipy and h5py.

    python tools/bench/sparse_rows.py [--rows 2000] [--columns 30000] [--full 0.05]

Batches of 64 random rows, each row read once. The file is in the page cache. The last column is what
the samples of all rows take in memory. scipy and anndata are used where they are installed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch

from globidx import FileCacheDataset, GlobalIndexManager

BATCH = 64


def write(
    path: Path, form: str, rows: int, columns: int, full: float, compression: str | None
) -> None:
    """A matrix as anndata writes it, of uniformly random entries."""
    rng = np.random.default_rng(0)
    height, width = (rows, columns) if form == "csr" else (columns, rows)
    counts = rng.binomial(width, full, height)
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs["encoding-type"] = f"{form}_matrix"
        group.attrs["shape"] = np.array([rows, columns])
        indices = [np.sort(rng.choice(width, count, replace=False)) for count in counts]
        parts = {
            "indptr": np.concatenate([[0], np.cumsum(counts)]).astype("i4"),
            "indices": np.concatenate(indices).astype("i4"),
            "data": rng.integers(1, 9, int(counts.sum())).astype("f4"),
        }
        for name, values in parts.items():
            group.create_dataset(name, data=values, maxshape=(None,), compression=compression)


def batches(rows: int) -> list[list[int]]:
    """All rows in random batches."""
    order = np.random.default_rng(1).permutation(rows).tolist()
    return [order[start : start + BATCH] for start in range(0, rows, BATCH)]


def by_globidx(path: Path, rows: int, sparse: str) -> Iterator[int]:
    """Bytes of the samples of each batch."""
    dataset = FileCacheDataset(GlobalIndexManager(str(path), layout="anndata"), sparse=sparse)
    for batch in batches(rows):
        samples = dataset.__getitems__(batch)
        parts = samples if sparse == "dense" else [part for row in samples for part in row[:2]]
        yield sum(part.nbytes for part in parts)


def as_csr(path: Path, rows: int) -> Iterator[int]:
    """Bytes of one ``torch.sparse_csr`` tensor of each batch."""
    dataset = FileCacheDataset(GlobalIndexManager(str(path), layout="anndata"), sparse="row")
    for batch in batches(rows):
        samples = dataset.__getitems__(batch)
        ends = torch.tensor([0, *(len(row.indices) for row in samples)]).cumsum(0)
        indices = torch.cat([row.indices for row in samples])
        values = torch.cat([row.values for row in samples])
        size = (len(samples), samples[0].size)
        made = torch.sparse_csr_tensor(ends, indices, values, size)
        yield sum(part.nbytes for part in (ends, indices, made.values()))


def by_anndata(path: Path, rows: int) -> Iterator[int]:
    """The same rows by anndata's class for matrices on disk, sparse as scipy has them."""
    from anndata.io import sparse_dataset

    with h5py.File(path) as file:
        matrix = sparse_dataset(file["X"])
        for batch in batches(rows):
            some = matrix[sorted(batch)]
            yield some.data.nbytes + some.indices.nbytes + some.indptr.nbytes


def by_scipy(path: Path, rows: int) -> Iterator[int]:
    """The whole matrix in memory, as scanpy reads it, and rows of it made dense."""
    import scipy.sparse

    with h5py.File(path) as file:
        group = file["X"]
        kind = getattr(scipy.sparse, group.attrs["encoding-type"])
        parts = [group[name][:] for name in ("data", "indices", "indptr")]
        matrix = kind(tuple(parts), group.attrs["shape"]).tocsr()
    for batch in batches(rows):
        yield matrix[batch].toarray().nbytes


def timed(read: Callable[[], Iterator[int]]) -> tuple[float, int]:
    """The best of three passes, in seconds, and the bytes of all samples."""
    best, nbytes = float("inf"), 0
    for _ in range(3):
        start = time.perf_counter()
        nbytes = sum(read())
        best = min(best, time.perf_counter() - start)
    return best, nbytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--columns", type=int, default=30000)
    parser.add_argument("--full", type=float, default=0.05)
    args = parser.parse_args()
    print(f"{args.rows} rows of {args.columns}, {args.full:.0%} full, batches of {BATCH}")
    with tempfile.TemporaryDirectory() as folder:
        for form in ("csr", "csc"):
            for compression in (None, "gzip"):
                path = Path(folder, f"{form}-{compression}.h5ad")
                write(path, form, args.rows, args.columns, args.full, compression)
                ways: dict[str, Callable[[Path, int], Iterator[int]]] = {
                    "dense": partial(by_globidx, sparse="dense"),
                    "row": partial(by_globidx, sparse="row"),
                    "row, torch.sparse_csr": as_csr,
                    "anndata on disk": by_anndata,
                    "scipy in memory": by_scipy,
                }
                for name, way in ways.items():
                    try:
                        seconds, nbytes = timed(partial(way, path, args.rows))
                    except ImportError as error:
                        print(f"{form} {compression or 'raw':5} {name:22} {error}")
                        continue
                    rate = f"{args.rows / seconds:9.0f} rows/s"
                    print(
                        f"{form} {compression or 'raw':5} {name:22} {rate} {nbytes / 2**20:8.1f} MiB"
                    )


if __name__ == "__main__":
    main()
