"""Cells of AnnData files: sparse counts beside cell types whose codes differ from file to file.

python examples/anndata_cells.py ['cells/*.h5ad']
"""

import sys
import tempfile
import warnings
from pathlib import Path

import h5py
import numpy as np

import globidx
from globidx import FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler


def write(path, codes, categories, genes=200, seed=0):
    """An h5ad file, as anndata writes it: X by row, and a column of categories."""
    counts = np.random.default_rng(seed).poisson(0.05, (len(codes), genes)).astype("f4")
    rows, columns = np.nonzero(counts)
    with h5py.File(path, "w") as file:
        matrix = file.create_group("X")
        matrix.attrs.update({"encoding-type": "csr_matrix", "shape": counts.shape})
        matrix["indptr"] = np.searchsorted(rows, np.arange(len(codes) + 1))
        matrix["indices"], matrix["data"] = columns, counts[rows, columns]
        column = file.create_group("obs/cell_type")
        column.attrs["encoding-type"] = "categorical"
        column["codes"], column["categories"] = np.array(codes, "i1"), categories
        file["obs/donor_age"] = np.full(len(codes), 30 + seed)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        folder = tempfile.TemporaryDirectory()
        write(Path(folder.name, "a.h5ad"), [0, 1] * 20, ["B cell", "T cell"], seed=1)
        write(Path(folder.name, "b.h5ad"), [0, 1] * 10, ["NK cell", "B cell"], seed=2)
    files = sys.argv[1] if len(sys.argv) > 1 else folder.name
    key = ("X", "obs/cell_type", "obs/donor_age")
    index = GlobalIndexManager(files, layout="anndata", key=key)
    print(f"{len(index)} cells in {index.num_files} files: {index.categories['obs/cell_type']}")

    # the genes that are not 0, and one torch.sparse_csr tensor of them a batch
    warnings.filterwarnings("ignore", message="Sparse CSR")
    dataset = FileCacheDataset(index, sparse="row")
    sampler = ResumableDistributedSampler(dataset, seed=7)
    loader = globidx.DataLoader(dataset, batch_size=20, sampler=sampler)
    for batch in loader:
        types = batch["obs/cell_type"].bincount(minlength=3).tolist()
        print(batch["X"].layout, tuple(batch["X"].shape), "cells of each type", types)
