"""Finding the sequences inside one file.

The rules are the same for zarr and HDF5, whose groups look alike.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from globidx.core.index.episodes import Episodes, Missing
from globidx.core.index.layout import Layout
from globidx.core.index.patterns import Pattern, matches, natural
from globidx.core.index.table import ArrayInfo
from globidx.core.values import dtypes
from globidx.core.values.packing import Packing
from globidx.core.windows.sequences import Sequences
from globidx.disk.stores.base import Contents
from globidx.disk.stores.find_arrays import Field, fields_of, in_compound, together
from globidx.disk.stores.index_entries import Inside, array_info, counted_axis, require_aligned
from globidx.errors import MissingChunkError

#: Why matches of which each says something else are not decoded.
_SEVERAL = "matches of one file differ in _FillValue, scale_factor or add_offset"
#: Names of matches that an error lists.
_FEW = 5
#: Groups in groups that are looked into.
_DEPTH = 64


class Described(NamedTuple):
    """What the metadata of an array say of it, and in ``spelled`` all that identifies them."""

    shape: tuple[int, ...]
    dtype: Any
    chunks: tuple[int, ...] | None
    packing: str
    spelled: object


class Tree(Protocol):
    """The groups and arrays of an open file."""

    def groups(self, path: str) -> Iterable[str]:
        """The names of all that is in the group at ``path``; nothing where there is no group."""

    def describe(self, path: str) -> Described | None:
        """The array at ``path``; None where there is none."""

    def read(self, path: str) -> NDArray[Any]:
        """All of the array at ``path``, which is small; ValueError where there is none."""

    def attributes(self, path: str) -> Mapping[str, Any]:
        """The attributes of the group at ``path``."""


def unwritten(error: MissingChunkError) -> str:
    """The message for an array that tells sequences, and is not there in full: what it says would be invented."""
    what = str(error).partition(";")[0]
    return f"{what}; restore it, or write it anew, chunks of fill values too (zarr: write_empty_chunks=True)"


def inside(
    arrays: Sequence[tuple[ArrayInfo, int]],
    shapes: Sequence[Sequence[int]],
    layout: Layout,
    read: Callable[[str], NDArray[Any]],
) -> Inside:
    """The sequences of a file, by ``layout.inner``.

    Its aligned ``arrays``, of these ``shapes``, were found.

    ``read(path)`` is all of a small array. ValueError where arrays and sequences do not fit.
    """
    inner, rows = layout.inner, arrays[0][1]
    episodes = None
    if inner.whole:
        rows = _rows_of_whole([length for _, length in arrays])
    else:
        require_aligned(arrays)
    if inner.kind == "axis":
        episodes = _stacked(arrays, shapes)
        rows = int(episodes.lengths.sum())
    elif inner.kind in ("ends", "runs"):
        found = _runs(inner.arrays, read, rows)
        episodes = Episodes.of(found.starts, found.lengths, arrays=len(arrays))
    if episodes is not None and inner.only is not None:
        names = [str(number) for number in range(len(episodes))]
        episodes = replace(episodes, listed=_listed(read(inner.only), names, inner.only))
    missing = None
    if inner.missing is not None:
        missing = Missing.of(_missing(read(inner.missing), rows, inner.missing))
    return Inside(rows, inner, episodes, missing)


def _rows_of_whole(lengths: Sequence[int]) -> int:
    """How many rows a group has whose arrays are of any length: those of the first that has some.

    One that is empty beside others, no bonds beside atoms, must not hide the group.
    """
    return next(filter(None, lengths), 0)


def _stacked(arrays: Sequence[tuple[ArrayInfo, int]], shapes: Sequence[Sequence[int]]) -> Episodes:
    """One sequence for each place along axis 0, which all arrays that have such an axis must have alike."""
    stacked = {
        info.name: int(shape[0])
        for (info, _), shape in zip(arrays, shapes, strict=True)
        if info.form == "stacked"
    }
    counts = set(stacked.values())
    if len(counts) > 1:
        told = ", ".join(f"{name!r} has {count}" for name, count in stacked.items())
        raise ValueError(f"its arrays have different numbers of sequences along axis 0: {told}")
    count, rows = counts.pop(), arrays[0][1]
    chunk_lengths = np.tile([info.chunk_length for info, _ in arrays], (count, 1))
    return Episodes.of(
        np.arange(count) * rows,
        np.full(count, rows),
        chunk_lengths=chunk_lengths if count else None,
        arrays=len(arrays),
    )


def _runs(paths: tuple[str, ...], read: Callable[[str], NDArray[Any]], rows: int) -> Sequences:
    """The runs of rows that arrays of the file tell; ValueError names the arrays."""
    named = " and ".join(map(repr, paths))
    try:
        first, *others = [read(path) for path in paths]
        if not others:
            return Sequences.of_ends(first, rows)
        return Sequences.of_runs(first, others[0], rows)
    except ValueError as error:
        raise ValueError(f"its sequences by {named} do not fit: {error}") from None


def arrays_like(tree: Tree, pattern: str) -> list[str]:
    """The arrays with an axis whose paths match ``pattern``, in natural order."""
    like = Pattern(pattern)
    names = sorted(set(matches(like, tree.groups)), key=natural) if like.stars else [""]
    found = {path: tree.describe(path) for path in map(like.path, names)}
    return [path for path, one in found.items() if one is not None and one.shape]


def contents(tree: Tree, pattern: str) -> Contents | None:
    """All that lies in the first group that ``pattern`` matches; None where it matches arrays.

    "" is the file itself. ValueError where it matches nothing, or nothing lies in it.
    """
    like = Pattern(pattern)
    names = sorted(set(matches(like, tree.groups)), key=natural) if like.stars else [""]
    for path in map(like.path, names):
        if tree.describe(path) is not None:
            return None
        arrays = list(_below(tree, path, ""))
        if arrays:
            given = tree.attributes(path)
            return Contents(arrays, [name for name, value in given.items() if _can_give(value)])
    where = f"what key {pattern!r} matches" if pattern else "it"
    raise ValueError(f"there is no array in {where}")


def _below(
    tree: Tree, group: str, path: str, known: Container[str] = (), depth: int = 0
) -> Iterator[str]:
    """The arrays in a group and the groups in it, by their paths from ``group`` on.

    Those at ``known`` paths are left out, and not looked at.
    """
    # a link may lead back up
    if depth > _DEPTH:
        return
    for name in sorted(tree.groups(_joined(group, path)), key=natural):
        inside = _joined(path, name)
        if inside in known:
            continue
        if tree.describe(_joined(group, inside)) is not None:
            yield inside
        else:
            yield from _below(tree, group, inside, known, depth + 1)


class Everything:
    """Checks that groups, of which all arrays are asked for, hold none that is no field.

    The fields are the arrays of the first group: what another one has beside them would be left
    out without a word. A key that names arrays leaves out others on purpose.
    """

    def __init__(self, tree: Tree, layout: Layout) -> None:
        self._tree, self._groups = tree, layout.everything
        above = f"{self._groups}/" if self._groups else ""
        self._known = {key.removeprefix(above) for key in layout.keys or ()}

    def require(self, name: str = "") -> None:
        """ValueError where the group of this name, or the file, has another array."""
        if self._groups is None:
            return
        group = Pattern(self._groups).path(name)
        if name and self._tree.describe(group) is not None:
            # an array between the groups
            return
        other = next(_below(self._tree, group, "", self._known), None)
        if other is not None:
            what = f"match {name!r}" if name else "it"
            raise ValueError(
                f"{what} has the array {_joined(group, other)!r}, which the first group or file has not, so that "
                f"it would be left out: name the arrays of a sample in key=, such as "
                f"{_joined(self._groups, min(self._known))!r}"
            )


def _joined(path: str, name: str) -> str:
    return "/".join(part for part in (path, name) if part)


def _can_give(value: Any) -> bool:
    """Whether an attribute is numbers or text, and no reference or nothing."""
    if isinstance(value, (str, bytes)):
        return True
    try:
        array = np.asarray(value)
    except ValueError:
        return False
    if array.dtype.kind == "O":
        return bool(array.size) and all(isinstance(one, (str, bytes)) for one in array.flat)
    return array.dtype.kind in "biufcSU"


def matched(
    tree: Tree, layout: Layout, axis: int
) -> tuple[list[tuple[ArrayInfo, int]], Inside, list[object]]:
    """The arrays of each match of the keys of ``layout``, as one aligned set; their rows.

    And what identifies both.

    Raises
    ------
    ValueError
        If nothing matches, a match lacks an array that others have, or arrays of matches differ in
        more than their length.
    """
    fields: Sequence[Field] = fields_of(layout, axis)
    patterns = [Pattern(field.path) for field in fields]
    columns = [_Column(field) for field in fields]
    names, lengths, chunks = list[str](), list[int](), list[list[int]]()
    everything = Everything(tree, layout)
    without: list[str] = []
    for name in sorted(set(matches(patterns[0], tree.groups)), key=natural):
        found = [tree.describe(pattern.path(name)) for pattern in patterns]
        if not names and None in found:
            # members of compound arrays: what one match tells holds for all
            fields = _in_compounds(fields, name, tree)
            patterns = [Pattern(field.path) for field in fields]
            columns = [_Column(field) for field in fields]
            found = [tree.describe(pattern.path(name)) for pattern in patterns]
        everything.require(name)
        if all(one is None for one in found):
            # a group that has none of the arrays is something else, and no incomplete match
            without.append(name)
            continue
        counts = set[int]()
        for column, pattern, one in zip(columns, patterns, found, strict=True):
            if one is None:
                raise ValueError(
                    f"match {name!r} has no array {pattern.path(name)!r}, while it has "
                    f"{_present(patterns, name, found)!r}; each match must have all keys"
                )
            counts.add(column.add(one, pattern.path(name)))
        if layout.inner.whole:
            counts = {_rows_of_whole([column.rows for column in columns])}
        if len(counts) > 1:
            told = ", ".join(f"{column.field.name!r} has {column.rows}" for column in columns)
            raise ValueError(f"arrays of match {name!r} are not aligned: {told} rows")
        names.append(name)
        lengths.append(counts.pop())
        chunks.append([column.chunk for column in columns])
    if not names:
        near = f"; of {', '.join(without[:_FEW])} none has it" if without else ""
        raise ValueError(f"nothing in it matches key {patterns[0].key!r}{near}")
    inner, rows = layout.inner, np.array(lengths, np.int64)
    starts = np.cumsum(rows) - rows
    listed = None if inner.only is None else _listed(tree.read(inner.only), names, inner.only)
    missing = None
    if inner.missing is not None:
        missing = Missing.of(
            np.concatenate(list(_missing_of_each(tree, inner.missing, names, rows)))
        )
    episodes = Episodes.of(
        starts, rows, listed=listed, chunk_lengths=chunks, names=names, arrays=len(columns)
    )
    identity = [column.first for column in columns] + [names, lengths, chunks]
    infos = [(column.info, int(rows.sum())) for column in columns]
    return infos, Inside(int(rows.sum()), inner, episodes, missing), identity


def _in_compounds(fields: Sequence[Field], name: str, tree: Tree) -> list[Field]:
    """Fields whose keys lead to members of arrays, in the match ``name``, with these parted."""

    def dtype_of(path: str) -> Any:
        one = tree.describe(path)
        return None if one is None else one.dtype

    parted = []
    for field in fields:
        found = in_compound(field._replace(path=Pattern(field.path).path(name)), dtype_of)
        member = "" if found is None else found.member
        above = field.path.removesuffix(f"/{member}")
        parted.append(field._replace(path=above, member=member) if member else field)
    return together(parted)


class _Column:
    """One key's arrays, match after match: all of one shape, but for their length, and dtype."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.rows = self.chunk = 0
        self.info: ArrayInfo
        self.first: object = None
        self._like: tuple[object, ...] = ()
        self._packing = ""

    def add(self, one: Described, path: str) -> int:
        """How many rows the array at ``path`` has.

        ValueError where it does not go with those before.
        """
        axis = counted_axis(self.field.axis, len(one.shape))
        if self.field.form == "whole":
            return self._add_whole(one)
        # numpy takes dtypes for equal that differ in their metadata
        dtype = one.dtype if one.dtype.kind in "biufc" else dtypes.spelled(one.dtype)
        is_loose = self.field.form == "loose"
        sides = () if is_loose else (one.shape[:axis], one.shape[axis + 1 :])
        alike = (sides, dtype, one.packing)
        # of many thousand groups nearly all are alike, and cost this comparison
        if alike != self._like or not 0 <= axis < len(one.shape):
            info, _ = array_info(
                self.field._replace(path=path),
                one.shape,
                one.dtype,
                one.chunks,
                packing=one.packing,
            )
            if self._like:
                self._require_alike(info, path)
            else:
                self.first, self._packing = one.spelled, info.packing
                # the pattern stands for the paths of all matches
                self.info = replace(info, path=self.field.path)
            self._like = alike
        self.rows = int(one.shape[axis])
        self.chunk = int(one.chunks[axis]) if one.chunks else 0
        return self.rows

    def _add_whole(self, one: Described) -> int:
        """How many rows an array has that is given as it is, whatever that is."""
        info, self.rows = array_info(self.field, one.shape, one.dtype, one.chunks)
        if self.first is None:
            self.info, self.first = info, one.spelled
        return self.rows

    def _require_alike(self, info: ArrayInfo, path: str) -> None:
        """ValueError where a row of another match is another thing than one of the first."""
        first = replace(self.info, packing=self._packing)
        if _meaning(info) != _meaning(first):
            raise ValueError(
                f"array {path!r} holds {_row(info)}, while that of the first match holds {_row(first)}"
            )
        if info.packing != first.packing:
            # as stored numbers they are alike; as values they would differ in dtype, or in a mask
            self.info = replace(first, packing=Packing(problem=_SEVERAL).spelled)


def _meaning(info: ArrayInfo) -> tuple[object, ...]:
    """What a row is, and what its stored numbers mean."""
    return info.item_shape, info.dtype, Packing.parse(info.packing).meaning


def _row(info: ArrayInfo) -> str:
    """What a row of an array is, in words."""
    packed = f" packed by {Packing.parse(info.packing)}" if info.packing else ""
    return f"{info.item_shape} {info.dtype}{packed} a row"


def _present(patterns: Sequence[Pattern], name: str, found: Sequence[Described | None]) -> str:
    return next(
        pattern.path(name) for pattern, one in zip(patterns, found, strict=True) if one is not None
    )


def _missing_of_each(
    tree: Tree, key: str, names: Sequence[str], lengths: NDArray[np.int64]
) -> Iterator[NDArray[np.int64]]:
    """The missing rows of each match, counted over the rows of all.

    Of one array for all where ``key`` has no star.
    """
    if "*" not in key:
        yield _missing(tree.read(key), int(lengths.sum()), key)
        return
    pattern, start = Pattern(key), 0
    for name, rows in zip(names, lengths.tolist(), strict=True):
        path = pattern.path(name)
        yield start + _missing(tree.read(path), rows, path)
        start += rows


def _missing(values: NDArray[Any], rows: int, path: str) -> NDArray[np.int64]:
    """The rows that an array says are missing: those where it is True, or those that it lists."""
    flat = values.reshape(-1)
    if flat.dtype.kind == "b":
        if len(flat) != rows:
            raise ValueError(
                f"missing={path!r} has {len(flat)} flags for {rows} rows; there must be one a row"
            )
        return np.flatnonzero(flat)
    if flat.dtype.kind not in "iu":
        raise ValueError(f"missing={path!r} has dtype {values.dtype}; it must hold flags or rows")
    numbers = flat.astype(np.int64)
    outside = (numbers < 0) | (numbers >= rows)
    if outside.any():
        raise ValueError(f"missing={path!r} lists row {numbers[outside][0]} of {rows} rows")
    return numbers


def _listed(values: NDArray[Any], names: Sequence[str], path: str) -> NDArray[np.bool_]:
    """Which of the sequences an array lists: by a flag each, by numbers, or by names."""
    flat = values.reshape(-1)
    if flat.dtype.kind == "b":
        if len(flat) != len(names):
            raise ValueError(f"only={path!r} has {len(flat)} flags for {len(names)} sequences")
        return flat
    listed = np.zeros(len(names), bool)
    if flat.dtype.kind in "iu":
        numbers = flat.astype(np.int64)
        outside = (numbers < 0) | (numbers >= len(names))
        if outside.any():
            raise ValueError(f"only={path!r} lists sequence {numbers[outside][0]} of {len(names)}")
        listed[numbers] = True
        return listed
    wanted = {one.decode() if isinstance(one, bytes) else str(one) for one in flat.tolist()}
    # a misspelt name would leave a sequence out without a word
    if unknown := wanted - set(names):
        raise ValueError(f"only={path!r} lists {min(unknown)!r}, which is no sequence of the file")
    listed[:] = [name in wanted for name in names]
    return listed
