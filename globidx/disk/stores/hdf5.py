"""HDF5 files: the only module that imports h5py."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from globidx.core.table import Entry
from globidx.disk.stores import array_info, choose_keys, item_first, make_entry, slab
from globidx.errors import MissingChunkError


def scan(path: Path, keys: Sequence[str] | None, axis: int) -> Entry:
    """The file's datasets named by ``keys``, or its only one."""
    wanted = [key.strip("/") for key in keys] if keys is not None else None
    with h5py.File(path, "r") as file:
        datasets = {key: file.get(key) for key in wanted or ()}
        if wanted is None or not all(isinstance(item, h5py.Dataset) for item in datasets.values()):
            datasets = {}
            file.visititems(lambda name, item: _note(datasets, name, item))
        names = choose_keys(wanted, list(datasets))
        chosen = [datasets[name] for name in names]
        arrays = [array_info(n, d.shape or (), d.dtype, d.chunks, axis) for n, d in zip(names, chosen, strict=True)]
        metadata = repr([(d.shape, d.dtype.str, d.chunks, d.compression, d.compression_opts) for d in chosen])
    return make_entry("hdf5", arrays, metadata.encode())


def open_store(path: Path, axis: int, *, on_missing: str) -> Hdf5Store:
    """An open file; it holds one file descriptor."""
    return Hdf5Store(path, axis, fill=on_missing == "fill")


class Hdf5Store:
    """Datasets of one open HDF5 file."""

    def __init__(self, path: Path, axis: int, *, fill: bool) -> None:
        self._file = h5py.File(path, "r")
        self._axis = axis
        self._fill = fill
        self._datasets: dict[str, tuple[h5py.Dataset, bool]] = {}

    def read(self, array: str, start: int, stop: int) -> NDArray[Any]:
        """Items ``[start, stop)``, by one plain slice: h5py's fancy indexing costs a hundred times more."""
        dataset, whole = self._datasets.get(array) or self._open(array)
        if not whole:
            _refuse_missing(dataset, self._axis, start, stop)
        return item_first(dataset[slab(self._axis, start, stop)], self._axis)

    def close(self) -> None:
        """Close the file."""
        self._datasets.clear()
        self._file.close()

    def _open(self, array: str) -> tuple[h5py.Dataset, bool]:
        dataset = self._file[array]
        self._datasets[array] = found = dataset, self._fill or _is_whole(dataset)
        return found


def _note(datasets: dict[str, Any], name: str, item: Any) -> None:
    if isinstance(item, h5py.Dataset) and item.shape:
        datasets[name] = item


def _is_whole(dataset: h5py.Dataset) -> bool:
    """Whether every chunk was written: HDF5, like zarr, invents fill values for those that were not."""
    if dataset.size == 0 or dataset.is_virtual or dataset.external:
        return True
    if dataset.chunks is None:
        return bool(dataset.id.get_storage_size() > 0)
    grid = 1
    for size, chunk in zip(dataset.shape, dataset.chunks, strict=True):
        grid *= -(-size // chunk)
    return bool(dataset.id.get_num_chunks() == grid)


def _refuse_missing(dataset: h5py.Dataset, axis: int, start: int, stop: int) -> None:
    chunks = dataset.chunks
    if chunks is None:
        raise MissingChunkError(_missing(dataset, "its data"))
    spans = [range(0, size, chunk) for size, chunk in zip(dataset.shape, chunks, strict=True)]
    spans[axis] = range(start - start % chunks[axis], stop, chunks[axis])
    for corner in itertools.product(*spans):
        if dataset.id.get_chunk_info_by_coord(corner).byte_offset is None:
            raise MissingChunkError(_missing(dataset, f"the chunk at {corner}"))


def _missing(dataset: h5py.Dataset, what: str) -> str:
    return (
        f"{what} of dataset {dataset.name} was never written, and HDF5 would read fill value {dataset.fillvalue!r}; "
        "if that is what the writer meant, pass on_missing='fill'"
    )
