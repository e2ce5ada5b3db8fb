"""Stores: zarr and HDF5 files behind one small interface.

A store module offers ``scan`` (what a file holds, from its metadata alone) and ``open_store`` (a
``Store`` to read items from). zarr and h5py are each imported in their own module, when a file of
that kind is first met.
"""

from __future__ import annotations

import json
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from globidx.core.index.layout import Layout
from globidx.core.index.table import Entry, Stamp
from globidx.disk.files import forks
from globidx.disk.files.blocks import BlockCache
from globidx.disk.files.paths import is_remote, split_zip
from globidx.disk.local_cache.pages import Pages
from globidx.disk.remote.addresses import split
from globidx.disk.remote.line import Line, for_scans
from globidx.disk.stores.index_entries import stamp_of_version
from globidx.errors import GlobidxError

HDF5_SUFFIXES = frozenset(
    {".h5", ".hdf5", ".hdf", ".he5", ".h5ad", ".h5mu", ".nxs", ".cxi", ".nwb", ".loom"}
)
#: Files that are HDF5 or of an older format; their first bytes decide.
MIXED_SUFFIXES = frozenset({".nc", ".nc4", ".mat"})
ZARR_MARKERS = ("zarr.json", ".zarray", ".zgroup")
#: What zarr, h5py and the codecs raise over broken files, while these are indexed or read; zarr's
#: parser alone raises five of them, and the decompressors have errors of their own that are no
#: OSError.
UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    ImportError,
    ArithmeticError,
    EOFError,
    SystemError,
    zlib.error,
    lzma.LZMAError,
)
#: Rows ``[start, stop)`` of an array, and the row of the result where they belong.
Span = tuple[int, int, int]
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")
#: What to do with an N5 container.
FROM_N5 = (
    "copy it to zarr, by zarr-python 2 (zarr.N5Store, zarr.copy_all) or tensorstore (driver n5)"
)
_OTHER_FORMATS = {b"CDF": "netCDF 3", b"MATLAB 5": "MATLAB 5"}


class Store(Protocol):
    """An open file. Not shared between processes; closed once, by its owner."""

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
        """Items ``[start, stop)`` of one array, the item axis first, in native byte order.

        Items lie along ``axis``, by default the one that the file was opened with; with a
        ``place``, they are those at this place along axis 0. ``beside`` are stretches of all other
        axes, by default all of these. The caller owns the result.

        MissingChunkError where the store has no data for them, unless ``fill`` (by default as the
        file was opened); any OSError or ValueError where it cannot be read.
        """

    def describe(self, array: str) -> Stored:
        """Shape, dtype in native byte order, and chunks of an array."""

    def all(self, array: str, *, fill: bool | None = None) -> NDArray[Any]:
        """All of an array as it is stored, in native byte order; MissingChunkError as ``read``."""

    def value(self, path: str, attribute: str | None) -> Any:
        """An attribute of the node at ``path``, or all of the array there.

        KeyError where there is none.
        """

    def close(self) -> None:
        """Release the file; reading afterwards is an error."""


class Stored(NamedTuple):
    """Shape, dtype in native byte order, and chunks of an array; None where it is not chunked."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None


class Audit(NamedTuple):
    """The shape of an array, its chunks or shards, and how many of these are absent.

    Also whether each has a checksum, how many rows lie in absent chunks (None if that is not
    known), and the fill value that is read for these, in words.
    """

    shape: tuple[int, ...]
    chunks: int
    absent: int
    has_checksums: bool
    rows: int | None = None
    fill: str = ""


class Looking(NamedTuple):
    """How chunks are looked for.

    With ``sizes``, files without bytes count as absent, as they do for a reader, at the price of a
    stat a chunk. ``step`` is called now and then; what it raises ends the audit, and must be none of
    ``UNREADABLE``.
    """

    sizes: bool = True
    step: Callable[[], None] = lambda: None


class Contents(NamedTuple):
    """What lies in a group: its arrays by their paths in it, and the attributes that can be given."""

    arrays: list[str]
    attributes: list[str]


class UnknownKindError(GlobidxError, ValueError):
    """A path is neither a zarr store nor an HDF5 file."""


class OtherFormatError(UnknownKindError):
    """A file is of a known format that is not read here, and so no HDF5 file that was cut."""


class NotPlainError(ValueError):
    """A fast path does not understand this array, so its library reads it.

    The message says the unusual part.
    """


def format_of(path: Path) -> str:
    """The store module for a path, by its content: ``"zarr"`` or ``"hdf5"``.

    OSError where the path cannot be looked at, UnknownKindError for anything else.
    """
    if path.is_dir():
        if any((path / marker).is_file() for marker in ZARR_MARKERS) or is_elsewhere(str(path)):
            return "zarr"
        if is_n5(path):
            raise OtherFormatError(f"an N5 container, which is no zarr store; {FROM_N5}")
        raise UnknownKindError(f"a directory without {', '.join(ZARR_MARKERS)} is no zarr store")
    if not path.is_file():
        if "@" in path.name and is_elsewhere(str(path)):
            return "zarr"
        # FileNotFoundError, PermissionError, a loop of links: the system's error is the clearest
        path.stat()
        raise UnknownKindError("neither a regular file nor a directory")
    if _has_suffix(str(path)):
        return "hdf5"
    if is_zip(path):
        _module("zips.local").require_store(os.fspath(path))
        return "zarr"
    if superblock_at(path) is not None:
        return "hdf5"
    if is_elsewhere(str(path)):
        return "zarr"
    with path.open("rb") as file:
        signature = file.read(8)
    for magic, name in _OTHER_FORMATS.items():
        if signature.startswith(magic):
            raise OtherFormatError(
                f"a file of {name}, which is no HDF5: convert it to a newer format of its kind"
            )
    raise UnknownKindError(
        "neither a zarr store (a directory or a zip file) nor an HDF5 file (by signature)"
    )


def is_n5(path: Path) -> bool:
    """Whether a folder is an N5 container, or an array in one."""
    marker = path / "attributes.json"
    try:
        # a FIFO of that name would be waited for
        told = json.loads(marker.read_bytes()) if marker.is_file() else None
    except (OSError, ValueError, RecursionError):
        told = None
    is_told = isinstance(told, dict) and ("n5" in told or {"dataType", "blockSize"} <= told.keys())
    return is_told or (path.suffix.lower() == ".n5" and path.is_dir())


def is_elsewhere(path: str) -> str | None:
    """The kind of a zarr store that is neither a folder of keys nor a zip file of them; None otherwise.

    That is a set of references to other files, or an icechunk repository.
    """
    if os.path.isfile(path):
        return "references" if _module("zarr.references").is_json(path) else None
    if _module("zarr.repository").is_repository(path):
        return "icechunk"
    return "parquet" if _module("zarr.references").is_parquet(path) else None


def stamp_of_snapshot(path: str) -> Stamp:
    """The stamp of the snapshot that the name of an icechunk repository means now."""
    stamp: Stamp = _module("zarr.repository").stamp(path)
    return stamp


def is_zip(path: Path) -> bool:
    """Whether a file is a zip file, by its signature."""
    with path.open("rb") as file:
        return file.read(4) in _ZIP_SIGNATURES


def scan(
    path: str, layout: Layout, axis: int, far: Any = None, pages: Pages | None = None
) -> Entry:
    """What the file holds, from its metadata: the arrays of ``layout``.

    ``far`` is what holds the keys of a store by URL, where there is such already, and otherwise
    ``pages`` those of ``far_container``. Errors say what is wrong, not where.
    """
    if is_remote(path):
        far = far or far_container(path, for_scans(layout.storage_options), pages=pages)
        found: Entry | None
        if is_hdf5_by_url(path):
            found = _module("hdf5.library").scan(far, layout, axis)
        else:
            found = _module("zarr.fast_scan").scan(far, layout, axis)
        if found is None:
            found = _module("zarr.library").scan(path, layout, axis, far)
        # no stamp proves anything of it; an object with a version is told from another one
        version = getattr(far, "version", "")
        known = (stamp_of_version(version),) if version else found.stamps
        return replace(found, is_foreign=True, stamps=known)
    # a file of a usual suffix is not opened only to see what it is
    name = "hdf5" if _has_suffix(path) and stat.S_ISREG(os.stat(path).st_mode) else None
    if name is None:
        fast = _module("zarr.fast_scan")
        plain: Entry | None = fast.scan(container_of(path, "zarr"), layout, axis)
        if plain is None:
            name = format_of(Path(path))
            if name == "zarr" and os.path.isfile(path) and is_zip(Path(path)):
                plain = fast.scan(container_of(path, "zip"), layout, axis)
        if plain is not None:
            return plain
    entry: Entry = _module(f"{name}.library").scan(path, layout, axis)
    return entry


def is_hdf5_by_url(path: str) -> bool:
    """Whether a URL is that of an HDF5 file, by its suffix."""
    parts = split(path)
    return is_remote(path) and _has_suffix(
        path if parts is None else parts[2], HDF5_SUFFIXES | MIXED_SUFFIXES
    )


def is_file_by_url(path: str) -> bool:
    """Whether a URL is that of one file and no folder, by its suffix."""
    zipped = split_zip(path)
    return is_hdf5_by_url(path) or (zipped is not None and zipped[0] == path)


def zip_by_url(path: str, options: Mapping[str, Any] | None) -> tuple[str, str | None] | None:
    """The zip file by URL in which a store lies, and its folder there; None where it lies in none.

    Nor where the options say how fsspec is to look into it.
    """
    is_told = "zip" in (options or {}) and path.startswith("zip://")
    return None if is_told else split_zip(path)


def far_container(
    path: str, line: Line, inflated: BlockCache | None = None, pages: Pages | None = None
) -> Any:
    """What holds the keys of a zarr store by URL, or the bytes of an HDF5 file.

    ``inflated`` is that of ``container_of``; ``pages`` keep metadata of HDF5 and zip files.
    """
    if is_hdf5_by_url(path):
        return _module("hdf5.ranges").RangeFile(*line.at(path), pages)
    zipped = zip_by_url(path, line.options)
    if zipped is None:
        return _module("zarr.far").Far(path, *line.at(path))
    file, root = zipped
    local = file.removeprefix("file://")
    if not is_remote(local):
        return _module("zips.local").Zip(local, inflated, root)
    return _module("zips.far_zip").FarZip(path, *line.at(file), root, inflated, pages)


def container_of(path: str, kind: str, inflated: BlockCache | None = None) -> Any:
    """What holds the keys of a zarr store of this ``kind``; ``inflated`` keeps shards that were deflated."""
    if kind.startswith("zip"):
        return _module("zips.local").Zip(path, inflated)
    return _module("zarr.containers").Folder(path)


def open_store(
    path: str | Path,
    kind: str,
    axis: int,
    *,
    on_missing: str,
    allow_external: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    far: Any = None,
) -> Store:
    """Open a file that was scanned as ``kind``, with the options that it was scanned with.

    ``far`` holds the bytes of an HDF5 file by URL, or the keys of a zarr store, where there is such
    already.
    """
    if kind == "hdf5":
        library = _module("hdf5.library")
        hdf5: Store = library.open_store(
            far or _by_scans(path, storage_options),
            axis,
            on_missing=on_missing,
            allow_external=allow_external,
        )
        return hdf5
    store: Store = _module("zarr.library").open_store(
        path,
        axis,
        on_missing=on_missing,
        allow_external=allow_external,
        storage_options=storage_options,
        far=far,
    )
    return store


def _library_of(
    path: str, allow_external: bool, storage_options: Mapping[str, Any] | None
) -> tuple[Any, Any, dict[str, Any]]:
    """The module that opens a file by its library, what it opens, and the options that it takes."""
    far = "hdf5" if is_hdf5_by_url(path) else "zarr"
    kind = far if is_remote(path) else format_of(Path(path))
    access: dict[str, Any] = {"allow_external": allow_external}
    if kind == "zarr":
        return _module("zarr.library"), path, access | {"storage_options": storage_options}
    return _module("hdf5.library"), _by_scans(path, storage_options), access


def _by_scans(path: str | Path, storage_options: Mapping[str, Any] | None) -> Any:
    """What h5py opens: a path, or the bytes of a URL."""
    if not is_remote(os.fspath(path)):
        return path
    return far_container(os.fspath(path), for_scans(storage_options))


def arrays_like(
    path: str,
    pattern: str,
    varies: Sequence[str] = (),
    *,
    allow_external: bool,
    storage_options: Mapping[str, Any] | None = None,
) -> list[str]:
    """The arrays of a file whose paths match ``pattern``, and of which all attributes ``varies`` are true.

    In natural order. Errors say what is wrong, not where.
    """
    library, place, access = _library_of(path, allow_external, storage_options)
    listed: list[str] = library.arrays_like(place, pattern, varies, **access)
    return listed


def available(
    path: str, *, allow_external: bool, storage_options: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """What an AnnData file has a row of for each observation, by key, and how it is stored."""
    library, place, access = _library_of(path, allow_external, storage_options)
    listed: dict[str, str] = library.available(place, **access)
    return listed


def ome_pattern(
    path: str, *, allow_external: bool = False, storage_options: Mapping[str, Any] | None = None
) -> str | None:
    """The key of the images of an OME-Zarr file that holds many; None for any other file."""
    is_local = not is_remote(path)
    if is_local and format_of(Path(path)) != "zarr":
        return None
    pattern: str | None
    if is_local and is_elsewhere(path) is None:
        container = container_of(path, "zarr" if os.path.isdir(path) else "zip")
        pattern = _module("zarr.fast_scan").ome_pattern(container)
    else:
        pattern = _module("zarr.library").ome_pattern(
            path, allow_external=allow_external, storage_options=storage_options
        )
    return pattern


def contents(
    path: str,
    pattern: str,
    *,
    allow_external: bool,
    storage_options: Mapping[str, Any] | None = None,
) -> Contents | None:
    """All that lies in the first group of a file that ``pattern`` matches; None where it matches arrays.

    Errors say what is wrong, not where.
    """
    library, place, access = _library_of(path, allow_external, storage_options)
    found: Contents | None = library.contents(place, pattern, **access)
    return found


def audit(
    path: str | Path,
    kind: str,
    array: str,
    axis: int = 0,
    *,
    allow_external: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Audit:
    """What is there of an array, without reading it; rows lie along ``axis``."""
    access: dict[str, Any] = {
        "allow_external": allow_external,
        "storage_options": storage_options,
    }
    with auditor(path, kind, **access) as look:
        return look(array, axis)


@contextmanager
def auditor(
    path: str | Path,
    kind: str,
    *,
    allow_external: bool = False,
    storage_options: Any = None,
    looking: Looking | None = None,
) -> Iterator[Callable[[str, int], Audit]]:
    """``audit`` for many arrays of a file, which is opened once."""
    how = looking or Looking()
    if kind == "hdf5":
        library = _module("hdf5.library")
        place = _by_scans(path, storage_options)
        with library.auditor(place, allow_external=allow_external, step=how.step) as look:
            yield look
    else:
        access = {"allow_external": allow_external, "storage_options": storage_options}
        yield partial(_audit_zarr, os.fspath(path), kind, how, access)


def _audit_zarr(
    path: str, kind: str, looking: Looking, access: dict[str, Any], array: str, axis: int
) -> Audit:
    try:
        plain: Audit = _module("zarr.presence").audit(path, kind, array, axis, looking)
        return plain
    except NotPlainError:
        other: Audit = _module("zarr.library").audit(path, array, axis, looking, **access)
        return other


def is_being_written(path: str, kind: str) -> bool:
    """Whether another process writes a file in a way that lets others read it meanwhile."""
    return kind == "hdf5" and not is_remote(path) and bool(_module("hdf5.swmr").is_written(path))


def is_same_array(path: str, kind: str, array: str, dataset: str) -> bool:
    """Whether ``dataset``, which another file takes from this one, is its ``array``.

    Names do not matter.

    An empty name is all of the file.
    """
    return kind == "hdf5" and (
        not dataset or bool(_module("hdf5.library").is_same(path, array, dataset))
    )


def refuse_fork() -> None:
    """ReadError where zarr is set to what does not survive a fork."""
    _module("zarr.library").refuse_fork()


def item_first(block: NDArray[Any], axis: int) -> NDArray[Any]:
    """``block`` with ``axis`` moved to the front.

    It is in native byte order, contiguous, writable and no view.
    """
    moved = np.moveaxis(block, axis, 0) if axis else block
    # text of any length has no byte order
    dtype = moved.dtype if moved.dtype.kind == "T" else moved.dtype.newbyteorder("=")
    return np.require(moved, dtype, ["C", "W", "O"])


def slab(
    axis: int, start: int, stop: int, place: int | None = None, beside: Sequence[slice] = ()
) -> tuple[slice, ...]:
    """The selection of items ``[start, stop)`` along ``axis`` of an array.

    With a ``place``, at that one along axis 0; ``beside`` is along the axes that are left.

    >>> slab(1, 4, 6, beside=[slice(0, 3), slice(2, 5)])
    (slice(0, 3, None), slice(4, 6, None), slice(2, 5, None))
    >>> slab(2, 4, 6, place=7)
    (slice(7, 8, None), slice(None, None, None), slice(4, 6, None))
    """
    at = [] if place is None else [slice(place, place + 1)]
    others = [*at, *(beside or [slice(None)] * (axis - len(at)))]
    return (*others[:axis], slice(start, stop), *others[axis:])


def chunks_of(box: Sequence[slice], shape: Sequence[int], units: Sequence[int]) -> list[range]:
    """Along each axis of an array of ``shape`` in chunks of ``units``, the chunks that a box touches.

    >>> chunks_of([slice(None), slice(3, 9)], (4, 8, 5), (2, 4, 5))
    [range(0, 2), range(0, 2), range(0, 1)]
    """
    spans = [range(-(-size // unit)) for size, unit in zip(shape, units, strict=True)]
    for axis, one in enumerate(box):
        if one.start is not None:
            # a damaged indptr may ask for far more than there is
            end = min(spans[axis].stop, -(-one.stop // units[axis]))
            spans[axis] = range(one.start // units[axis], end)
    return spans


@cache
def _module(name: str) -> Any:
    return forks.import_module(f"globidx.disk.stores.{name}")


def _has_suffix(path: str, suffixes: frozenset[str] = HDF5_SUFFIXES) -> bool:
    return os.path.splitext(path)[1].lower() in suffixes


def superblock_at(path: Path) -> int | None:
    """Where HDF5's data begin in a file; None if it is no HDF5 file."""
    size, offset = path.stat().st_size, 0
    with path.open("rb") as file:
        # HDF5 allows a user block before it: 512 bytes, or twice as many, and so on
        while offset < size:
            file.seek(offset)
            if file.read(8) == _HDF5_SIGNATURE:
                return offset
            offset = max(512, 2 * offset)
    return None
