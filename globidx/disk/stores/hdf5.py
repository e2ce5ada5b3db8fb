"""HDF5 files: the only module that imports h5py."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path
from typing import Any

import h5py
from h5py import h5a, h5d, h5f, h5s
from numpy.typing import NDArray

from globidx.core.layout import Layout
from globidx.core.table import Entry
from globidx.disk import layouts
from globidx.disk.layouts import Field
from globidx.disk.stores import (
    Audit,
    NotPlainError,
    array_info,
    item_first,
    make_entry,
    packing_of,
    slab,
)
from globidx.disk.stores.hdf5fast import ChunkedSource, ContiguousSource
from globidx.errors import MissingChunkError

Described = tuple[tuple[int, ...], Any, tuple[int, ...] | None, list[Any]]


def scan(path: str, layout: Layout, axis: int) -> Entry:
    """The file's datasets of ``layout``."""
    return _scan_plain(path, layout, axis) or _scan(path, layout, axis)


def _scan_plain(path: str, layout: Layout, axis: int) -> Entry | None:
    """The entry of a file with datasets of these names and nothing unusual about them, or None.

    By HDF5's own functions: the objects that h5py makes around them cost as much again.
    """
    if layout.keys is None or layout.rule is not None:
        return None
    try:
        file = h5f.open(os.fsencode(path), h5f.ACC_RDONLY)
    except (OSError, ValueError):
        return None
    try:
        found = [_plain(file, path, key) for key in layout.keys]
    except (KeyError, OSError, RuntimeError, UnicodeError):
        return None
    finally:
        file.close()
    arrays, told = [], list[object]()
    for key, dataset in zip(layout.keys, found, strict=True):
        if dataset is None:
            return None
        field, ((shape, dtype, chunks, filters), packing) = Field(key, key, layout.form), dataset
        arrays.append(array_info(field, shape, dtype, chunks, axis, length=layout.length, packing=packing))
        told.append((shape, dtype.str, chunks, filters, [packing] if packing else []))
    return make_entry("hdf5", arrays, repr(told).encode())


def _plain(file: Any, path: str, key: str) -> tuple[Described, str] | None:
    """A dataset whose data lie in this very file, and its packing; None for another."""
    dataset = h5d.open(file, key.encode())
    made = dataset.get_create_plist()
    if h5f.get_name(dataset) != os.fsencode(path) or made.get_layout() == h5d.VIRTUAL or made.get_external_count():
        return None
    is_packed = h5a.exists(dataset, b"scale_factor") or h5a.exists(dataset, b"add_offset")
    return _described(dataset), packing_of(h5py.Dataset(dataset).attrs.get) if is_packed else ""


def _scan(path: str, layout: Layout, axis: int) -> Entry:
    with h5py.File(path, "r") as file:
        for key in layout.keys or ():
            _linked(path, file, key)
        fields = layouts.find(file, layout, lambda: _datasets(file))
        arrays, told, is_foreign = [], [], False
        shape: tuple[int, ...]
        for field in fields:
            dataset = file[field.path]
            if field.form == "csr":
                group, dataset = dataset, dataset["data"]
                rows = len(group["indptr"]) - 1
                shape, chunks = (rows, layouts.sparse_shape(group)[1]), None
            else:
                shape, chunks = dataset.shape or (), dataset.chunks
            packing = "" if field.form == "csr" else packing_of(dataset.attrs.get)
            arrays.append(
                array_info(field, shape, dataset.dtype, chunks, axis, length=layout.length, packing=packing)
            )
            sources = _sources(path, file, field.path, dataset)
            is_foreign |= bool(sources)
            _, dtype, stored, filters = _described(dataset.id)
            told.append((shape, dtype.str, stored, filters, [*sources, packing] if packing else sources))
    return make_entry("hdf5", arrays, repr(told).encode(), is_foreign=is_foreign)


def _described(dataset: Any) -> Described:
    """Shape, dtype, chunks and filters of a dataset."""
    made = dataset.get_create_plist()
    chunks = made.get_chunk() if made.get_layout() == h5d.CHUNKED else None
    filters = [made.get_filter(number)[:3] for number in range(made.get_nfilters())]
    return dataset.shape or (), dataset.dtype, chunks, filters


def audit(path: str | Path, array: str) -> Audit:
    """What is there of a dataset."""
    with h5py.File(path, "r") as file:
        dataset = file[array]
        if dataset.chunks is None:
            return Audit(dataset.shape, 1, int(not _is_whole(dataset)), has_checksums=False)
        grid = math.prod(-(-size // unit) for size, unit in zip(dataset.shape, dataset.chunks, strict=True))
        checked = dataset.fletcher32 or dataset.compression == "gzip"
        return Audit(dataset.shape, grid, grid - dataset.id.get_num_chunks(), has_checksums=bool(checked))


def open_store(path: str | Path, axis: int, *, on_missing: str) -> Hdf5Store:
    """An open file; it holds one file descriptor."""
    return Hdf5Store(path, axis, fill=on_missing == "fill")


class Hdf5Store:
    """Datasets of one open HDF5 file."""

    def __init__(self, path: str | Path, axis: int, *, fill: bool) -> None:
        self._file = h5py.File(path, "r", rdcc_nbytes=0)  # whole chunks are asked for, and kept once, decoded
        self._axis = axis
        self._fill = fill
        self._datasets: dict[str, tuple[h5py.Dataset, bool]] = {}

    def read(self, array: str, start: int, stop: int) -> NDArray[Any]:
        """Items ``[start, stop)``, by one plain slice: h5py's fancy indexing costs a hundred times more."""
        dataset, whole = self._datasets.get(array) or self._open(array)
        if not whole:
            _refuse_missing(dataset, self._axis, start, stop)
        return item_first(dataset[slab(self._axis, start, stop)], self._axis)

    def source(self, array: str) -> ChunkedSource | ContiguousSource:
        """A way to a dataset's rows around the library's filters; NotPlainError where there is none."""
        dataset = self._file[array]
        if not isinstance(dataset, h5py.Dataset):
            raise NotPlainError("a group")
        if not h5py.h5t.py_create(dataset.dtype, logical=True).equal(dataset.id.get_type()):
            raise NotPlainError("numbers of an unusual form")
        if dataset.chunks is not None:
            return ChunkedSource(dataset, self._axis)
        if self._axis:
            raise NotPlainError("contiguous data with items along a later axis")
        file = h5py.h5i.get_file_id(dataset.id)  # a link may lead to another file
        if file.get_intent() != h5py.h5f.ACC_RDONLY:
            raise NotPlainError("a file that this process also writes: part of it may be in memory only")
        return ContiguousSource(dataset, file)

    def close(self) -> None:
        """Close the file."""
        self._datasets.clear()
        self._file.close()

    def _open(self, array: str) -> tuple[h5py.Dataset, bool]:
        dataset = self._file[array]
        self._datasets[array] = found = dataset, self._fill or _is_whole(dataset)
        return found


def _datasets(file: h5py.File) -> dict[str, tuple[int, ...]]:
    """Every dataset with an axis, and its shape."""
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape:
            found[name] = item.shape

    file.visititems(note)
    return found


def _linked(path: str, file: h5py.File, name: str) -> list[str]:
    """Files that external links on the way to ``name`` lead to; ValueError where one of them is not there."""
    parts, found = name.split("/"), []
    for end in range(1, len(parts) + 1):
        link = file.get("/".join(parts[:end]), getlink=True)
        if isinstance(link, h5py.ExternalLink):
            _refuse_lost(name, link.filename, path)
            found.append(link.filename)
    return found


def _sources(path: str, file: h5py.File, name: str, dataset: h5py.Dataset) -> list[str]:
    """Other files that a dataset takes its data from: by an external link, a virtual layout, or raw external storage.

    ValueError where one of them is not there: HDF5 would read fill values without a word.
    """
    sources = [stored[0] for stored in dataset.external or ()]
    if dataset.is_virtual:
        sources += [source.file_name for source in dataset.virtual_sources() if source.file_name != "."]
    for source in sources:
        _refuse_lost(name, source, dataset.file.filename)  # behind a link, names count from the file that it leads to
    return sorted({*sources, *_linked(path, file, name)})


def _refuse_lost(name: str, source: str, beside: str) -> None:
    if "%" not in source and not os.path.exists(os.path.join(os.path.dirname(beside), source)):
        raise ValueError(f"dataset {name!r} takes data from {source!r}, which is not there")


def _is_whole(dataset: h5py.Dataset) -> bool:
    """Whether every chunk was written: HDF5, like zarr, invents fill values for those that were not."""
    if dataset.size == 0:
        return True
    if dataset.is_virtual or dataset.external:
        return _is_elsewhere(dataset, 0, 0, dataset.shape[0])
    if dataset.chunks is None:
        return bool(dataset.id.get_storage_size() > 0)
    grid = 1
    for size, chunk in zip(dataset.shape, dataset.chunks, strict=True):
        grid *= -(-size // chunk)
    return bool(dataset.id.get_num_chunks() == grid)


def _refuse_missing(dataset: h5py.Dataset, axis: int, start: int, stop: int) -> None:
    chunks = dataset.chunks
    if dataset.is_virtual or dataset.external:
        if _is_elsewhere(dataset, axis, start, stop):
            return
        raise MissingChunkError(_missing(dataset, "what other files should hold"))
    if chunks is None:
        raise MissingChunkError(_missing(dataset, "its data"))
    spans = [range(0, size, chunk) for size, chunk in zip(dataset.shape, chunks, strict=True)]
    end = min(stop, dataset.shape[axis])  # a damaged indptr may ask for far more than there is
    spans[axis] = range(start - start % chunks[axis], end, chunks[axis])
    for corner in itertools.product(*spans):
        if dataset.id.get_chunk_info_by_coord(corner).byte_offset is None:
            raise MissingChunkError(_missing(dataset, f"the chunk at {corner}"))


def _is_elsewhere(dataset: h5py.Dataset, axis: int, start: int, stop: int) -> bool:
    """Whether the other files that a dataset takes its data from hold all of these rows."""
    if dataset.external:
        row = dataset.nbytes // dataset.shape[0]
        return bool(_bytes_elsewhere(dataset) >= (dataset.nbytes if axis else stop * row))
    corner, sizes = [0] * dataset.ndim, list(dataset.shape)
    corner[axis], sizes[axis] = start, stop - start
    mapped = 0
    for source in dataset.virtual_sources():
        space = source.vspace.copy()
        try:
            space.select_hyperslab(tuple(corner), tuple(sizes), op=h5s.SELECT_AND)
        except (ValueError, RuntimeError, TypeError):
            return True  # a mapping without an end, of which HDF5 tells no more
        points = space.get_select_npoints()
        mapped += points if points and _has_source(dataset.file.filename, source) else 0
    return bool(mapped >= math.prod(sizes))


def _bytes_elsewhere(dataset: h5py.Dataset) -> int:
    """How many bytes raw files hold without a gap: HDF5 reads zeros behind the end of one."""
    folder, held = os.path.dirname(dataset.file.filename), 0
    for name, offset, size in dataset.external:
        wanted = min(size, dataset.nbytes - held)
        there = max(0, min(wanted, os.path.getsize(os.path.join(folder, name)) - offset))
        held += there
        if there < wanted:
            break
    return held


def _has_source(path: str, source: Any) -> bool:
    """Whether the dataset behind a part of a virtual one is there, as large as it is taken to be, and whole."""
    if "%" in source.file_name or "%" in source.dset_name:
        return True
    name = path if source.file_name == "." else os.path.join(os.path.dirname(path), source.file_name)
    try:
        with h5py.File(name, "r") as file:
            dataset = file[source.dset_name]
            return _fits(dataset, source) and _is_whole(dataset)
    except (OSError, KeyError, ValueError):
        return False


def _fits(dataset: h5py.Dataset, source: Any) -> bool:
    """Whether a dataset is as large as what a virtual one takes of it."""
    try:
        if source.src_space.get_select_type() == h5s.SEL_ALL:  # HDF5 does not keep how much that was
            return bool(dataset.size == source.vspace.get_select_npoints())
        _, last = source.src_space.get_select_bounds()
    except RuntimeError:  # all that there is, however much it becomes
        return True
    return len(last) == dataset.ndim and all(end < size for end, size in zip(last, dataset.shape, strict=True))


def _missing(dataset: h5py.Dataset, what: str) -> str:
    return (
        f"{what} of dataset {dataset.name} was never written, and HDF5 would read fill value {dataset.fillvalue!r}; "
        "if that is what the writer meant, pass on_missing='fill'"
    )
