"""HDF5 files: what they hold, and reading them by h5py."""

from __future__ import annotations

import atexit
import math
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5f, h5fd, h5l, h5s
from numpy.typing import NDArray

from globidx.core.index.layout import Layout
from globidx.core.index.table import SPARSE, Entry
from globidx.core.values import dtypes
from globidx.disk.files.living import Living
from globidx.disk.index import stamps
from globidx.disk.stores import anndata, find_arrays, find_sequences
from globidx.disk.stores.base import (
    Audit,
    Contents,
    NotPlainError,
    Stored,
    item_first,
    slab,
)
from globidx.disk.stores.find_arrays import Field
from globidx.disk.stores.hdf5 import external, swmr
from globidx.disk.stores.hdf5.chunk_table import grid_of, table_of
from globidx.disk.stores.hdf5.external import Target
from globidx.disk.stores.hdf5.fast import ChunkedSource, ContiguousSource
from globidx.disk.stores.hdf5.filters import require_filters
from globidx.disk.stores.hdf5.presence import Presence
from globidx.disk.stores.hdf5.ranges import RangeFile
from globidx.disk.stores.hdf5.tree import Description, Hdf5Tree, description, packing_in
from globidx.disk.stores.index_entries import array_info, make_entry, parts_of

#: Datasets that a file keeps open: one of a hundred thousand groups would keep as many.
_MOST_DATASETS = 1024
_NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"


def scan(path: str | RangeFile, layout: Layout, axis: int) -> Entry:
    """The file's datasets of ``layout``."""
    plain = None if isinstance(path, RangeFile) else _scan_plain(path, layout, axis)
    return plain or _scan(path, layout, axis)


def _scan_plain(path: str, layout: Layout, axis: int) -> Entry | None:
    """The entry of a file with datasets of these names and nothing unusual about them, or None.

    By HDF5's own functions: the objects that h5py makes around them cost as much again.
    """
    if not layout.is_plain:
        return None
    if _driver(path) != "sec2":
        return None
    try:
        file = h5f.open(os.fsencode(path), h5f.ACC_RDONLY)
    except (OSError, ValueError):
        return None
    try:
        fields = find_arrays.fields_of(layout, axis)
        datasets = [_plain(file, field.path) for field in fields]
    except (KeyError, OSError, RuntimeError, UnicodeError):
        return None
    finally:
        file.close()
    arrays, digested = [], list[object]()
    for field, dataset in zip(fields, datasets, strict=True):
        if dataset is None:
            return None
        (shape, dtype, chunks, filters), packing = dataset
        arrays.append(
            array_info(field, shape, dtype, chunks, length=layout.length, packing=packing)
        )
        digested.append((shape, dtypes.told(dtype), chunks, filters, [packing] if packing else []))
    return make_entry("hdf5", arrays, repr(digested).encode())


def _plain(file: Any, key: str) -> tuple[Description, str] | None:
    """A dataset whose data lie in this very file, and its packing; None for another."""
    if not external.is_plain_path(file, key):
        return None
    dataset = h5d.open(file, key.encode())
    plist = dataset.get_create_plist()
    if plist.get_layout() == h5d.VIRTUAL or plist.get_external_count():
        return None
    require_filters(plist, key)
    described = description(dataset, plist)
    return described, packing_in(dataset, described[1])


def _scan(path: str | RangeFile, layout: Layout, axis: int) -> Entry:
    with _opened(path) as file:
        allow = layout.allow_external
        if layout.inner.kind == "match":
            return _scan_matches(file, layout, axis)
        parts = [part for key in layout.keys or () for part in parts_of(key, "ragged")]
        for key in parts:
            # its errors about links are the clearest
            external.follow_links(file, key, allow=allow)
        fields = find_arrays.find(
            external.GuardedGroup(file, allow=allow), layout, axis, lambda: _datasets(file)
        )
        arrays, shapes = [], []
        described = []
        targets = list[Target]()
        shape: tuple[int, ...]
        for field in fields:
            sources = _sources(file, field, allow)
            dataset: Any
            if field.form in SPARSE:
                group = file[field.path]
                dataset = group["data"]
                stored_as = description(dataset.id)
                shape, dtype, chunks = anndata.matrix_shape(group, field.form), stored_as[1], None
            elif field.form == "ragged":
                dataset, shape, dtype, chunks = find_arrays.described_runs(file, field.path)
                stored_as = description(dataset.id)
            else:
                dataset = file[field.path]
                stored_as = description(dataset.id)
                shape, dtype, chunks = stored_as[:3]
            packing = "" if field.form in SPARSE else packing_in(dataset.id, dataset.dtype)
            dtype = anndata.given_dtype(field.form, dtype)
            arrays.append(
                array_info(field, shape, dtype, chunks, length=layout.length, packing=packing)
            )
            shapes.append(shape)
            require_filters(dataset.id.get_create_plist(), field.path)
            targets += sources
            _, own, stored, filters = stored_as
            # names alone, so that a file may be moved together with its sources
            names = sorted({os.path.basename(target.file) for target in sources})
            described.append(
                (
                    shape,
                    dtypes.told(own),
                    stored,
                    filters,
                    [*names, packing] if packing else names,
                )
            )
        tree = Hdf5Tree(file, allow=allow)
        find_sequences.Everything(tree, layout).require()
        inside = find_sequences.inside(arrays, shapes, layout, tree.read)
        categories = anndata.names_at([field.names for field in fields], tree.read)
        targets += tree.targets
    return make_entry(
        "hdf5",
        arrays,
        repr(described).encode(),
        sources=tuple(dict.fromkeys(targets)),
        inside=inside,
        categories=categories,
    )


def _scan_matches(file: h5py.File, layout: Layout, axis: int) -> Entry:
    """The file's groups that the keys of ``layout`` match."""
    tree = Hdf5Tree(file, allow=layout.allow_external)
    arrays, inside, identity = find_sequences.matched(tree, layout, axis)
    sources = tuple(dict.fromkeys(tree.targets))
    return make_entry("hdf5", arrays, repr(identity).encode(), sources=sources, inside=inside)


def _sources(file: Any, field: Field, allow: bool) -> list[Target]:
    """All that the data of a field take from other files, looked at before any of it is opened."""
    targets = list[Target]()
    for part in parts_of(field.path, field.form):
        targets += external.follow_links(file, part, allow=allow)
        targets += external.sources(file[part], allow=allow)
    return targets


def arrays_like(
    path: str | RangeFile, pattern: str, varies: Sequence[str], *, allow_external: bool
) -> list[str]:
    """The datasets whose paths match ``pattern``, and of which all attributes ``varies`` are true."""
    with _opened(path) as file:
        listed = find_sequences.arrays_like(Hdf5Tree(file, allow=allow_external), pattern)
        return [one for one in listed if all(file[one].attrs.get(name, True) for name in varies)]


def available(path: str | RangeFile, *, allow_external: bool) -> dict[str, str]:
    """What an AnnData file has a row of for each observation, by key."""
    with _opened(path) as file:
        return anndata.available(external.GuardedGroup(file, allow=allow_external))


def contents(path: str | RangeFile, pattern: str, *, allow_external: bool) -> Contents | None:
    """All that lies in the first group that ``pattern`` matches; None where it matches datasets."""
    with _opened(path) as file:
        return find_sequences.contents(Hdf5Tree(file, allow=allow_external), pattern)


@contextmanager
def auditor(
    path: str | Path | RangeFile, *, allow_external: bool, step: Callable[[], None]
) -> Iterator[Callable[[str, int], Audit]]:
    """What is there of datasets of a file, which is open meanwhile."""
    if not isinstance(path, RangeFile) and not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path} is no regular file; it is not opened")
    with _opened(path) as file:
        yield partial(_audit, file, allow_external, step)


def _audit(file: h5py.File, allow: bool, step: Callable[[], None], array: str, axis: int) -> Audit:
    step()
    external.follow_links(file, array, allow=allow)
    dataset = file[array]
    fill = str(dataset.fillvalue)
    if dataset.chunks is None:
        is_whole = Presence(dataset, 0, allow=allow, step=step).is_whole
        # of a virtual dataset, any part may be there
        is_apart = dataset.is_virtual or dataset.external or not dataset.shape
        rows = None if is_apart else dataset.shape[axis]
        return Audit(dataset.shape, 1, int(not is_whole), False, 0 if is_whole else rows, fill)
    # zlib streams end in an Adler-32 of what they hold
    checked = bool(dataset.fletcher32 or dataset.compression == "gzip")
    absent = math.prod(grid_of(dataset)) - dataset.id.get_num_chunks()
    rows = _rows_without(dataset, axis) if absent else 0
    return Audit(dataset.shape, math.prod(grid_of(dataset)), absent, checked, rows, fill)


def _rows_without(dataset: Any, axis: int) -> int | None:
    """How many rows lie in chunks that were never written; None where the library lists wrong places."""
    table = table_of(dataset)
    if table is None:
        return None
    length, size = dataset.chunks[axis], dataset.shape[axis]
    each = math.prod(table.grid) // table.grid[axis]
    places, counts = np.unique(table.places(axis), return_counts=True)
    whole = places[counts == each]
    return int(size - np.minimum(length, size - whole * length).sum())


def is_same(path: str, one: str, other: str) -> bool:
    """Whether two names in a file are of one dataset; NeXus files link each to several places."""
    if one.strip("/") == other.strip("/"):
        return True
    with _opened(path) as file:
        if external.follow_links(file, one, allow=True) or external.follow_links(
            file, other, allow=True
        ):
            return False
        try:
            return bool(file[one] == file[other])
        except KeyError:
            return False


def open_store(
    path: str | Path | RangeFile, axis: int, *, on_missing: str, allow_external: bool = False
) -> Hdf5Store:
    """An open file; it holds one file descriptor, if it is a local one."""
    return Hdf5Store(path, axis, fill=on_missing == "fill", allow=allow_external)


class Hdf5Store:
    """Datasets of one open HDF5 file."""

    def __init__(self, path: str | Path | RangeFile, axis: int, *, fill: bool, allow: bool) -> None:
        self._path = path
        #: Arrays that HDF5 itself must read.
        self._only_whole = set[str]()
        self._open_file()
        self._axis = axis
        self._fill = fill
        self._allow = allow
        self._datasets: dict[tuple[str, int], tuple[h5py.Dataset, Presence]] = {}
        self._opened_by = os.getpid()
        _open_stores.add(self)

    def read(
        self,
        array: str,
        start: int,
        stop: int,
        *,
        axis: int | None = None,
        place: int | None = None,
        fill: bool | None = None,
        beside: Sequence[slice] = (),
    ) -> NDArray[Any]:
        """Items ``[start, stop)``, by one plain slice.

        h5py's fancy indexing costs a hundred times more.
        """
        along = self._axis if axis is None else axis
        dataset, presence = self._datasets.get((array, along)) or self._open(array, along)
        if array in self._only_whole and isinstance(self._path, RangeFile):
            self._path.keep_all()
        box = slab(along, start, stop, place, beside)
        presence.require(box, fill=self._fill if fill is None else fill)
        block = dataset[box]
        return item_first(block, along) if place is None else item_first(block[0], along - 1)

    def source(
        self,
        array: str,
        axis: int | None = None,
        *,
        is_stacked: bool = False,
        memory: np.dtype[Any] | None = None,
    ) -> ChunkedSource | ContiguousSource:
        """A way to a dataset's rows around the library's filters, to give them as ``memory``.

        NotPlainError where there is none.
        """
        along = self._axis if axis is None else axis
        try:
            return self._plain_source(array, along, is_stacked, memory)
        except NotPlainError as error:
            if not isinstance(self._path, RangeFile):
                raise
            self._only_whole.add(array)
            raise NotPlainError(f"{error}; {self._path.how_whole}") from None

    def _plain_source(
        self, array: str, along: int, is_stacked: bool, memory: np.dtype[Any] | None
    ) -> ChunkedSource | ContiguousSource:
        dataset = self._dataset(array)
        if not isinstance(dataset, h5py.Dataset):
            raise NotPlainError("a group")
        if dataset.dtype.hasobject or dataset.dtype.kind not in "biufcV" or dataset.dtype.subdtype:
            raise NotPlainError("elements that are no numbers")
        if not h5py.h5t.py_create(dataset.dtype, logical=True).equal(dataset.id.get_type()):
            raise NotPlainError("numbers of an unusual form")
        if dataset.chunks is not None:
            return ChunkedSource(dataset, along, memory)
        if memory is not None and dataset.dtype.kind == "V" and dataset.dtype != memory:
            raise NotPlainError("contiguous data of another form than in memory")
        if along != is_stacked:
            raise NotPlainError("contiguous data with items along a later axis")
        return ContiguousSource(dataset, is_stacked=is_stacked)

    def describe(self, array: str) -> Stored:
        """Shape, dtype and chunks of a dataset."""
        dataset = self._dataset(array)
        return Stored(dataset.shape, dataset.dtype.newbyteorder("="), dataset.chunks)

    def all(self, array: str, *, fill: bool | None = None) -> NDArray[Any]:
        """All of an array."""
        plain = self._all_plain(array)
        if plain is not None:
            return plain
        dataset = self._dataset(array)
        fills = self._fill if fill is None else fill
        Presence(dataset, 0, allow=self._allow).require_all(fill=fills)
        # of a single value h5py gives no array
        held = np.empty(dataset.shape, dataset.dtype)
        held[...] = dataset[()]
        return item_first(held, 0)

    def _all_plain(self, array: str) -> NDArray[Any] | None:
        """All of a dataset that lies in the file in one piece; None for another.

        By HDF5's own functions: the objects that h5py makes around them cost as much again, and a
        group of small datasets is read by a thousand of them a second.
        """
        if not external.is_plain_path(self._file.id, array):
            return None
        try:
            dataset = h5d.open(self._file.id, array.encode())
        except (KeyError, UnicodeError):
            return None
        plist = dataset.get_create_plist()
        layout = plist.get_layout()
        if layout == h5d.CONTIGUOUS:
            is_written = dataset.get_offset() is not None and not plist.get_external_count()
        else:
            is_written = layout == h5d.COMPACT
        shape, dtype = dataset.shape, dataset.dtype
        if not is_written or shape is None or dtype.subdtype is not None:
            return None
        held = np.empty(shape, dtype)
        dataset.read(h5s.ALL, h5s.ALL, held)
        return item_first(held, 0)

    def value(self, path: str, attribute: str | None) -> Any:
        """An attribute, or all of an array, as h5py gives it; KeyError where there is none."""
        node = self._file if not path else self._dataset(path)
        if attribute is not None:
            return node.attrs[attribute]
        if not isinstance(node, h5py.Dataset):
            raise KeyError(f"{path!r} is a group")
        Presence(node, 0, allow=self._allow).require_all(fill=self._fill)
        return node.asstr()[()] if h5py.check_string_dtype(node.dtype) else node[()]

    @property
    def is_open(self) -> bool:
        """Whether the file is open."""
        return bool(self._file)

    def reopen(self) -> None:
        """Open the file anew: as it is now."""
        self._open_file()

    def close(self) -> None:
        """Close the file."""
        self._datasets.clear()
        self._file.close()

    def _open_file(self) -> None:
        self.status = None if isinstance(self._path, RangeFile) else os.stat(self._path)
        # whole chunks are asked for, and kept once, decoded
        self._file = _opened(self._path, rdcc_nbytes=0)
        self.driver = _name_of_driver(self._file)

    def _open(self, array: str, axis: int) -> tuple[h5py.Dataset, Presence]:
        dataset = self._dataset(array)
        require_filters(dataset.id.get_create_plist(), array)
        if len(self._datasets) >= _MOST_DATASETS:
            self._datasets.clear()
        self._datasets[array, axis] = pair = dataset, Presence(dataset, axis, allow=self._allow)
        return pair

    def _dataset(self, array: str) -> Any:
        external.follow_links(self._file, array, allow=self._allow)
        return self._file[array]


_open_stores = Living[Hdf5Store]()


def _driver(path: str | Path) -> str:
    """The driver of HDF5's that reads a file as it is now, by preference the usual one.

    Within a process, HDF5 answers a second open from the metadata of the first. If the file grew in
    place since (which its locks prevent where there are any), that is the old length. To HDF5, a
    file opened by another driver is another file, and each one opened by ``fileobj`` is.
    """
    stale = {store.driver for store in _stale(path)}
    return next((driver for driver in ("sec2", "stdio") if driver not in stale), "fileobj")


def _stale(path: str | Path) -> list[Hdf5Store]:
    """The open stores of a file that changed since they opened it."""
    stores = list(_open_stores)
    if not stores:
        return []
    now = os.stat(path)
    return [
        store
        for store in stores
        if store.status is not None
        and os.path.samestat(store.status, now)
        and stamps.stamp(store.status) != stamps.stamp(now)
        and store.is_open
    ]


def _opened(path: str | Path | RangeFile, **options: Any) -> h5py.File:
    """The file as it is now, by h5py."""
    if isinstance(path, RangeFile):
        return h5py.File(path, "r", **options)
    driver = _driver(path)
    try:
        if driver == "fileobj":
            # closed with the last reference, which HDF5 has
            return h5py.File(open(path, "rb"), "r", **options)
        return h5py.File(path, "r", driver=driver, **options)
    except OSError as error:
        if not swmr.is_written(path):
            raise swmr.refusal(path, error) from error
    return _opened_live(path, **options)


def _opened_live(path: str | Path, **options: Any) -> h5py.File:
    """A file that another process is writing, as it is now."""
    stale = _stale(path)
    left = set(swmr.DRIVERS).difference(store.driver for store in stale)
    if not left:
        # all that have it open go on with the file as it is now: rows are only added to it
        for store in stale:
            store.close()
        for store in stale:
            store.reopen()
        left = set(swmr.DRIVERS)
    driver = min(left, key=swmr.DRIVERS.index)
    return h5py.File(path, "r", swmr=True, driver=driver, **options)


def _name_of_driver(file: h5py.File) -> str:
    names = {h5fd.SEC2: "sec2", h5fd.STDIO: "stdio", h5fd.LOG: swmr.DRIVERS[1]}
    return names.get(file.id.get_access_plist().get_driver(), "fileobj")


@atexit.register
def _close_stores() -> None:
    """Close what is open when the process exits, before HDF5 does.

    When it ends, HDF5 (2.0) closes property lists in any order. One of a virtual dataset then
    closes those of its sources, which may be gone: a segmentation fault. Workers that are spawned
    exit with their files open.
    """
    for store in list(_open_stores):
        # a forked process leaves its parent's files alone
        if store._opened_by == os.getpid():
            store.close()


def _datasets(file: h5py.File) -> dict[str, tuple[int, ...]]:
    """Every dataset with an axis, and its shape; ValueError where others' are all that there is."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape and not _is_dimension(item):
            shapes[name] = item.shape

    file.visititems(note)
    if not shapes and (linked := _linked(file)):
        raise ValueError(
            f"all of its arrays are in other files: it has {len(linked)} links to such, the first of them "
            f"{linked[0]!r}; choose with key= (--key), or layout='eiger' for a master file of that detector"
        )
    return shapes


def _is_dimension(dataset: h5py.Dataset) -> bool:
    """Whether a dataset stands for a dimension of netCDF that has no values, and holds none itself.

    https://docs.unidata.ucar.edu/netcdf-c/current/file_format_specifications.html
    """
    name = dataset.attrs.get("NAME", b"") if "CLASS" in dataset.attrs else b""
    return bytes(name).startswith(_NO_VARIABLE) if isinstance(name, bytes) else False


def _linked(file: h5py.File) -> list[str]:
    """The names of links to other files."""
    names: list[str] = []

    def note(name: bytes, info: Any) -> None:
        if info.type == h5l.TYPE_EXTERNAL:
            names.append(os.fsdecode(name))

    file.id.links.visit(note, info=True)
    return names
