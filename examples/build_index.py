"""Build an index over files and ask it where things are.

python examples/build_index.py [FILES [KEY]]
"""

import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import zarr

from globidx import FileCacheDataset, GlobalIndexManager


def write_files(folder: Path) -> None:
    """One zarr store and one HDF5 file, each with an array named images."""
    zarr.create_group(folder / "a.zarr").create_array("images", data=np.ones((3, 4, 4), np.uint16))
    with h5py.File(folder / "b.h5", "w") as file:
        file["images"] = np.full((5, 4, 4), 2, np.uint16)


def show(files: str, key: str) -> None:
    manager = GlobalIndexManager(files, key=key)
    print(f"{len(manager)} samples in {manager.num_files} files, fingerprint {manager.fingerprint}")
    last = manager.locate(len(manager) - 1)
    print(f"the last one is item {last.item} of {Path(last.path).name}")
    numbers, items = manager.locate_many(range(len(manager)))
    print("files", numbers.tolist())
    print("items", items.tolist())
    print("read ", FileCacheDataset(manager)[0].shape)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) == 1:
            write_files(Path(folder))
        show(sys.argv[1] if len(sys.argv) > 1 else folder, sys.argv[2] if len(sys.argv) > 2 else "images")
