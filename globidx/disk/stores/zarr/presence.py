"""Which chunks of a zarr array are there: by one listing of each folder, not one question a chunk."""

from __future__ import annotations

import itertools
import json
import math
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from operator import ge
from typing import Any, NamedTuple

from globidx.disk.files.paths import is_remote
from globidx.disk.stores.base import Audit, Looking, NotPlainError, container_of
from globidx.disk.stores.zarr.containers import Container, key_of
from globidx.disk.stores.zarr.fast import ZarrSource, metadata_of
from globidx.disk.stores.zarr.metadata import ArrayMetadata, parse_array
from globidx.disk.stores.zarr.pipes import refuse_pipe

#: Entries of a folder between two steps: on a slow file server each takes a millisecond.
_OFTEN = 64
_CHECKED = (
    "crc32c",
    "crc32",
    "adler32",
    "fletcher32",
    "jenkins_lookup3",
    "gzip",
    "zlib",
    "bz2",
    "lzma",
)


class ChunkFiles(NamedTuple):
    """The files of an array's chunks, or shards: how many along each axis, and how they are named.

    A name is ``prefix`` and the grid coordinates, joined by ``separator``.
    """

    grid: tuple[int, ...]
    prefix: str
    separator: str


def audit(path: str, kind: str, array: str, axis: int, looking: Looking) -> Audit:
    """What is there of a plain array of a store in a folder or zip file, without zarr.

    NotPlainError where zarr must be asked.
    """
    is_zip = kind.startswith("zip")
    if is_remote(path) or not (is_zip or (kind.startswith("zarr") and os.path.isdir(path))):
        raise NotPlainError("no store in a folder or zip file")
    folder, container = os.path.join(path, array), container_of(path, kind)
    marker = "zarr.json" if kind.endswith("3") else ".zarray"
    if not is_zip:
        # a FIFO must not be waited for
        refuse_pipe(os.path.join(folder, marker))
    document = metadata_of(container, key_of(array, marker))
    plain = parse_array(document)
    if not plain.shape:
        raise NotPlainError("a single value")
    has_checksums, fill = _described(document)
    units = plain.sharding.shape if plain.sharding else plain.chunks
    files = ChunkFiles(grid_of(plain.shape, units), plain.prefix, plain.separator)
    places = local_places(folder, files, looking)
    if is_zip:
        has_checksums = has_checksums or plain.sharding is None
        places = _members(container, array, plain, files.grid, looking)
    if plain.sharding:
        source = ZarrSource(container, array, axis, marker)
        counts = in_shards(source, places, axis, looking.step)
    else:
        counts = Counter(place[axis] for place in places)
    return counted(plain.shape, plain.chunks, counts, axis, has_checksums, fill)


def _members(
    container: Container,
    array: str,
    plain: ArrayMetadata,
    grid: Sequence[int],
    looking: Looking,
) -> Iterator[tuple[int, ...]]:
    """The grid coordinates of the chunks, or shards, that are members of a zip file."""
    for place in itertools.product(*map(range, grid)):
        looking.step()
        if container.has(key_of(array, plain.key(place))):
            yield place


def counted(
    shape: Sequence[int],
    chunks: Sequence[int],
    counts: Counter[int],
    axis: int,
    has_checksums: bool,
    fill: str,
) -> Audit:
    """The audit of an array of which ``counts`` chunks are there at each place along ``axis``."""
    grid = grid_of(shape, chunks)
    total, length, size = math.prod(grid), chunks[axis], shape[axis]
    each = total // grid[axis] if total else 0
    whole = sum(min(length, size - row * length) for row, count in counts.items() if count == each)
    absent = total - counts.total()
    return Audit(tuple(shape), total, absent, has_checksums, size - whole if absent else 0, fill)


def grid_of(shape: Sequence[int], units: Sequence[int]) -> tuple[int, ...]:
    """How many chunks, or shards, there should be along each axis."""
    return tuple(-(-size // unit) for size, unit in zip(shape, units, strict=True))


def local_places(folder: str, files: ChunkFiles, looking: Looking) -> Iterator[tuple[int, ...]]:
    """The grid coordinates of the chunk files that are there."""
    inner, _, prefix = files.prefix.rpartition("/")
    is_deep = files.separator == "/"
    levels = [(size,) for size in files.grid] if is_deep else [files.grid]
    return _listed(os.path.join(folder, inner), levels, prefix, files.separator, looking)


def _listed(
    folder: str,
    levels: Sequence[tuple[int, ...]],
    prefix: str,
    separator: str,
    looking: Looking,
) -> Iterator[tuple[int, ...]]:
    looking.step()
    try:
        listing = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with listing:
        for number, entry in enumerate(listing):
            if number % _OFTEN == _OFTEN - 1:
                looking.step()
            place = place_of(entry.name, prefix, separator, levels[0])
            if place is None:
                continue
            if len(levels) > 1:
                for inner in _listed(entry.path, levels[1:], "", separator, looking):
                    yield place + inner
            elif _has_bytes(entry) if looking.sizes else entry.is_file():
                yield place


def place_of(
    name: str, prefix: str, separator: str, sizes: Sequence[int]
) -> tuple[int, ...] | None:
    """The grid coordinates that a name spells; None where it is the name of no chunk.

    >>> place_of("c.0.12", "c.", ".", (2, 20)), place_of("c.0.12", "c.", ".", (2, 12))
    ((0, 12), None)
    """
    try:
        place = tuple(map(int, name[len(prefix) :].split(separator)))
    except ValueError:
        return None
    # 007 is not how a chunk is spelled
    is_chunk = name == prefix + separator.join(map(str, place)) and len(place) == len(sizes)
    return place if is_chunk and min(place) >= 0 and not any(map(ge, place, sizes)) else None


def in_shards(
    source: ZarrSource, shards: Iterator[tuple[int, ...]], axis: int, step: Callable[[], None]
) -> Counter[int]:
    """How many chunks are there at each place along ``axis``, by the indexes of these shards."""
    counts = Counter[int]()
    for shard in shards:
        step()
        corner, present = source.in_shard(shard)
        others = tuple(other for other in range(present.ndim) if other != axis)
        for row, count in enumerate(present.sum(axis=others).tolist(), corner[axis]):
            counts[row] += count
    return counts


@lru_cache(maxsize=64)
def _described(document: bytes) -> tuple[bool, str]:
    metadata = json.loads(document)
    return has_checksums(metadata), str(metadata.get("fill_value"))


def has_checksums(metadata: Any) -> bool:
    """Whether anything in an array's metadata is a codec that notices a changed chunk.

    A sharding codec has a checksum in its index only, so what counts are the codecs of its inner
    chunks.
    """
    codecs = [
        *(metadata.get("filters") or ()),
        metadata.get("compressor"),
        *(metadata.get("codecs") or ()),
    ]
    for codec in filter(None, codecs):
        name, settings = codec.get("id", codec.get("name")), codec.get("configuration", codec)
        if name in _CHECKED:
            return True
        if name == "zstd" and settings.get("checksum"):
            return True
        if name == "sharding_indexed" and has_checksums({"codecs": settings.get("codecs")}):
            return True
    return False


def _has_bytes(entry: os.DirEntry[str]) -> bool:
    try:
        status = entry.stat()
    except OSError:
        # a link that leads nowhere, or a file that went meanwhile
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0
