"""What the index keeps of a file: its arrays, checked and measured, and whether they fit together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from globidx.core import validate
from globidx.core.index.episodes import Episodes, Missing
from globidx.core.index.layout import PLAIN, Inner
from globidx.core.index.patterns import runs_of
from globidx.core.index.table import DIGEST_SIZE, SPARSE, ArrayInfo, Entry, Stamp
from globidx.core.values import dtypes
from globidx.core.values.packing import Packing
from globidx.disk.stores.find_arrays import Field


class Inside(NamedTuple):
    """The rows of a file, the sequences of them, and those that are missing."""

    length: int
    inner: Inner
    episodes: Episodes | None
    missing: Missing | None


def array_info(
    field: Field,
    shape: Sequence[int],
    dtype: Any,
    chunks: Sequence[int] | None,
    *,
    length: int = 0,
    packing: str = "",
) -> tuple[ArrayInfo, int]:
    """An array as the index keeps it, and its item count.

    ValueError for what no sample can be made of.

    ``length`` is how many rows a sequence of tokens has, ``packing`` what ``packing_of`` returns
    for its attributes.
    """
    label = f"array {field.path!r}" if field.path else "the array"
    axis, rows = counted_axis(field.axis, len(shape)), tuple(shape)
    # each row of an array of arrays has axes of its own behind those of the array
    shape = (*shape, *dtype.shape)
    chunks = (*chunks, *dtype.shape) if chunks else chunks
    dtype_name = dtypes.spelled(dtype.base)
    if field.members:
        compound = dtypes.parse(dtype_name)
        dtype_name = compound.only(compound.path_to(one) or () for one in field.members).name
    if field.form == "whole":
        # of any shape: a file or a match is one sample, and the first field counts the rows
        count = int(rows[axis]) if 0 <= axis < len(rows) else 1
        return ArrayInfo(
            field.name, (), dtypes.ANY, 0, field.path, "whole", "", max(axis, 0)
        ), count
    _require_axis(label, rows, field)
    along = axis
    # a damaged file may claim any size, and what no int64 holds cannot be indexed
    if max([*shape, *(chunks or ())], default=0) > validate.INT64_MAX or (
        chunks and min(chunks) < 1
    ):
        raise ValueError(
            f"{label} claims shape {tuple(shape)} in chunks of {tuple(chunks or ())}, which nothing can hold"
        )
    if field.form == "tokens" and len(shape) != 1:
        raise ValueError(
            f"{label} has shape {tuple(shape)}; sequences of tokens are cut from one-dimensional arrays"
        )
    if field.form == "loose":
        item = tuple(int(size) for dimension, size in enumerate(shape) if dimension != axis)
        if not all(item):
            raise ValueError(f"{label} has shape {shape}, whose items hold nothing")
        shape, chunks, axis = shape[axis : axis + 1], chunks and chunks[axis : axis + 1], 0
        dtype_name = dtypes.ragged(dtype_name)
    ahead = 0 if field.form == "stacked" else axis
    item_shape = tuple(
        int(size) for dimension, size in enumerate(shape) if dimension not in (ahead, axis)
    )
    count = int(shape[axis])
    if field.form == "tokens":
        item_shape, count = (length,), count // length
    chunk = int(chunks[axis]) if chunks else 0
    return ArrayInfo(
        field.name,
        item_shape,
        dtype_name,
        chunk,
        field.path,
        field.form,
        packing,
        along,
        field.member,
    ), count


def counted_axis(axis: int, ndim: int) -> int:
    """An axis counted from the front, where it may be counted from the end.

    >>> counted_axis(-1, 3), counted_axis(1, 3)
    (2, 1)
    """
    return axis + ndim if axis < 0 else axis


def _require_axis(label: str, shape: Sequence[int], field: Field) -> None:
    """ValueError where the items of a field cannot lie along the axis that it has."""
    if not shape:
        raise ValueError(
            f"{label} is a single value, with no axis of items; choose another with key= (--key)"
        )
    first, end = int(field.form == "stacked"), len(shape)
    if first <= counted_axis(field.axis, end) < end:
        return
    if first:
        raise ValueError(
            f"{label} has shape {tuple(shape)}, and no axis {field.axis} of rows beside axis 0, that of the sequences"
        )
    raise ValueError(
        f"{label} has shape {tuple(shape)}, and no axis {field.axis}; axis must be in [0, {end}), or in [-{end}, 0) "
        "counted from the end"
    )


def parts_of(path: str, form: str) -> tuple[str, ...]:
    """The stored arrays behind an array: a sparse matrix has three, one in runs those that tell them.

    >>> parts_of("X", "csr"), parts_of("x[offsets]", "ragged")
    (('X/indptr', 'X/indices', 'X/data'), ('offsets', 'x'))
    """
    if form in SPARSE:
        return tuple(f"{path}/{name}" for name in ("indptr", "indices", "data"))
    runs = runs_of(path) if form == "ragged" else None
    return (path,) if runs is None else (*runs.tell, runs.array)


def packing_of(attribute: Callable[[str], Any], dtype: Any, own: Any = None) -> str:
    """How stored numbers make values, by the conventions of netCDF, as ``Packing`` spells it.

    ``own`` is the fill value of the array itself, where it counts as ``_FillValue``.

    >>> packing_of({"scale_factor": 0.5}.get, np.dtype("int16"))
    'scale_factor float 0.5'
    """
    # floats that numpy does not have are integers here, and what is no dtype of numpy's no number
    if not isinstance(dtype, np.dtype) or "small" in (dtype.metadata or ()):
        return ""
    return Packing.of(attribute, dtype, own=own).spelled


def stamp_of_version(version: str, time: int = 0) -> Stamp:
    """The stamp of an object with versions: a digest of that for a size, and a ``time`` for both.

    >>> stamp_of_version("etag") == stamp_of_version("etag"), stamp_of_version("etag")[1:]
    (True, (0, 0, 0))
    """
    digest = hashlib.blake2b(version.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1, time, time, 0


def make_entry(
    kind: str,
    arrays: Sequence[tuple[ArrayInfo, int]],
    metadata: bytes,
    *,
    is_foreign: bool = False,
    sources: tuple[tuple[str, str], ...] = (),
    inside: Inside | None = None,
    categories: tuple[str, ...] = (),
) -> Entry:
    """The entry of a file whose arrays were found; ValueError where they are not aligned.

    ``inside`` are the sequences in it, if the layout has such, ``categories`` the names of codes and
    columns.
    """
    if inside is None or not inside.inner.whole:
        require_aligned(arrays)
    digest = hashlib.blake2b(metadata, digest_size=DIGEST_SIZE)
    within = inside or Inside(arrays[0][1], PLAIN, None, None)
    if within.episodes is not None:
        some = within.episodes
        digest.update(some.starts.tobytes() + some.lengths.tobytes() + some.listed.tobytes())
    if within.missing is not None:
        digest.update(within.missing.rows.tobytes())
    return Entry(
        kind,
        within.length,
        tuple(info for info, _ in arrays),
        digest.digest(),
        is_foreign=is_foreign or bool(sources),
        sources=sources,
        inner=within.inner,
        episodes=within.episodes,
        missing=within.missing,
        categories=categories,
    )


def require_aligned(arrays: Sequence[tuple[ArrayInfo, int]]) -> None:
    """ValueError, with the counts, where arrays have different numbers of items."""
    if len({length for _, length in arrays}) > 1:
        lengths_by_name = ", ".join(f"{info.name!r} has {length} items" for info, length in arrays)
        raise ValueError(
            f"its arrays are not aligned: {lengths_by_name}; name arrays of equal length in key="
        )
