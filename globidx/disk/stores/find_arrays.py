"""Finding the arrays of a layout in one file.

The rules are the same for zarr groups and HDF5 groups, which look alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from globidx.core.index.layout import Layout
from globidx.core.index.patterns import Runs, loose, runs_of
from globidx.core.values import dtypes
from globidx.disk.stores import anndata, ome
from globidx.disk.stores.nodes import get as _get
from globidx.disk.stores.nodes import is_array
from globidx.disk.stores.nodes import text as _text

#: The shape of each array by its path; of one that cannot be opened, the reason.
Shapes = Mapping[str, Sequence[int] | str]
#: The most ``default`` attributes that are followed; NeXus files have two.
_DEPTH = 32


class Field(NamedTuple):
    """An array to read: its name in the index, and its path in this file.

    ``form`` says how its rows make items, and ``axis`` where they lie. ``member`` is that of a
    compound array which is meant, and ``members`` all that are read with it. ``names`` is the path
    of the names that its codes or columns have.
    """

    name: str
    path: str
    form: str
    axis: int = 0
    member: str = ""
    members: tuple[str, ...] = ()
    names: str = ""


def find(root: Any, layout: Layout, axis: int, arrays: Callable[[], Shapes]) -> list[Field]:
    """The fields of ``layout`` in the file whose root group is ``root``.

    ``arrays()`` lists all arrays, with shapes, or the reason where one cannot be opened.

    ValueError names what is missing or ambiguous.
    """
    if layout.rule == "nexus":
        return [Field("data", _nexus(root), "plain", axis)]
    if layout.rule == "ome":
        return [Field("image", _ome(root), "plain", axis)]
    if layout.rule == "anndata":
        found = [(key, anndata.element(root, key)) for key in layout.keys or ()]
        return [Field(key, one.path, one.form, axis, names=one.names) for key, one in found]
    if layout.keys is None:
        return [Field(key, key, layout.form, axis) for key in _choose(None, arrays())]
    fields = [
        in_runs(root, field) or in_compound(field, partial(_dtype, root))
        for field in fields_of(layout, axis)
    ]
    absent = [key for key, field in zip(layout.keys, fields, strict=True) if field is None]
    if absent:
        _choose(absent, arrays())
    return together([field for field in fields if field is not None])


@lru_cache(64)
def fields_of(layout: Layout, axis: int) -> tuple[Field, ...]:
    """The fields of a layout that names its keys, each at its key: the same for all files."""
    return tuple(
        Field(name, loose(key) or key, "loose" if loose(key) else layout.form_along(along), along)
        for name, key, along in layout.fields(axis)
    )


def in_runs(root: Any, field: Field) -> Field | None:
    """The field of an array whose rows lie in runs that other arrays tell; None for another.

    ValueError where they tell no runs.
    """
    runs = runs_of(field.path)
    if runs is None or is_array(_get(root, field.path)):
        return None
    found = {one: _get(root, one) for one in (runs.array, *runs.tell)}
    for one, array in found.items():
        if not is_array(array):
            raise ValueError(f"key {field.path!r} names {one!r}, which is no array in it")
    tell = [found[one] for one in runs.tell]
    for one, array in zip(runs.tell, tell, strict=True):
        if len(array.shape) != 1 or array.dtype.kind not in "iu":
            raise ValueError(
                f"key {field.path!r} names {one!r} for runs, which has shape {tuple(array.shape)} and dtype "
                f"{array.dtype}; it must hold a row of whole numbers"
            )
    if len({array.shape[0] for array in tell}) > 1:
        raise ValueError(
            f"{' and '.join(map(repr, runs.tell))} differ in length, so that they tell no runs"
        )
    if runs.by == "offsets":
        _require_offsets(tell[0], runs)
    if field.axis:
        raise ValueError(f"key {field.path!r} has its runs along axis 0, not {field.axis}")
    return field._replace(form="ragged")


def _require_offsets(array: Any, runs: Runs) -> None:
    """ValueError where an array has no offsets but ends: the first run would be lost without a word."""
    name = runs.tell[0]
    if not array.shape[0]:
        raise ValueError(f"{name!r} is empty; offsets of n runs have n + 1 entries")
    first = int(array[0])
    is_of_nwb = _text(array.attrs.get("neurodata_type")) == "VectorIndex"
    if first > 0 or is_of_nwb:
        why = "is a VectorIndex of NWB, which holds" if is_of_nwb else f"begins with {first}, as do"
        raise ValueError(
            f"{name!r} {why} the ends of runs, while offsets begin with 0: "
            f"for ends write key='{runs.array}[:{name}]'"
        )


def described_runs(
    root: Any, path: str
) -> tuple[Any, tuple[int, ...], Any, tuple[int, ...] | None]:
    """The array behind a field in runs; shape, dtype and chunks of the array of its rows.

    Chunks are as many runs as a chunk of the array holds on average.
    """
    runs = runs_of(path)
    assert runs is not None, "only fields in runs are described so"
    array = root[runs.array]
    count = runs.count(int(root[runs.tell[0]].shape[0]))
    chunks = None
    if array.chunks and array.shape[0]:
        chunks = (max(1, array.chunks[0] * count // array.shape[0]),)
    return array, (count,), np.dtype(object, metadata={"vlen": array.dtype}), chunks


def in_compound(field: Field, dtype_of: Callable[[str], Any]) -> Field | None:
    """The field with its path parted into that of an array and a member, where an array is above it.

    ``dtype_of(path)`` is the dtype of an array, and None where there is none, as is the result.

    ValueError where an array has no such member.
    """
    path, member = field.path, ""
    while path:
        dtype = dtype_of(path)
        if dtype is not None:
            if not member:
                return field
            compound = dtypes.parse(dtypes.spelled(dtype.base))
            if not compound.members:
                # what lies below an array of zarr are its chunks
                return None
            if compound.path_to(member) is None:
                members = ", ".join(map(repr, compound.members))
                raise ValueError(
                    f"its array {path!r} has no member {member!r}; of {compound.name:.60}, members are {members}"
                )
            return field._replace(path=path, member=member)
        path, _, last = path.rpartition("/")
        member = f"{last}/{member}".rstrip("/")
    return None


def together(fields: Sequence[Field]) -> list[Field]:
    """The fields, those that are members of one array with all that are read of it."""
    if not any(field.member for field in fields):
        return list(fields)
    wanted: dict[str, list[str]] = {}
    for field in fields:
        wanted.setdefault(field.path, []).append(field.member)
    return [field._replace(members=tuple(wanted[field.path])) for field in fields]


def _dtype(root: Any, path: str) -> Any:
    node = _get(root, path)
    try:
        return node.dtype if is_array(node) else None
    except TypeError as error:
        raise ValueError(f"array {path!r} cannot be read by h5py: {error}") from None


def _choose(keys: Sequence[str] | None, present: Shapes) -> tuple[str, ...]:
    """The arrays to use: those asked for, or the only one; ValueError names what there is."""
    if keys is None and len(present) == 1:
        return tuple(present)
    names = sorted(present)
    # a file may hold thousands of arrays
    listed = ", ".join(_listed(name, present[name]) for name in names[:20])
    available = (
        listed + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    ) or "none at all"
    if keys is None:
        raise ValueError(
            f"it holds {len(names)} arrays ({available}); choose with key= (--key), one or several of equal length"
        )
    for key in keys:
        reason = present.get(key)
        if isinstance(reason, str):
            raise ValueError(f"its array {key!r} cannot be opened: {reason}")
    missing = next(key for key in keys if key not in present)
    similar = get_close_matches(missing, names, 1)
    hint = f" (did you mean {similar[0]!r}?)" if similar else ""
    is_group = any(name.startswith(f"{missing}/") for name in names)
    group = f"; {missing!r} is a group: name an array in it" if is_group else ""
    raise ValueError(f"it has no array {missing!r}{hint}; there is {available}{group}")


def _listed(name: str, shape: Sequence[int] | str) -> str:
    return f"{name!r} " + (
        f"that cannot be opened ({shape})" if isinstance(shape, str) else f"of {tuple(shape)}"
    )


def _nexus(root: Any) -> str:
    """The signal of the default plot.

    ``default`` attributes are followed to a group that has a ``signal``.

    https://manual.nexusformat.org/datarules.html
    """
    node, path = root, ""
    # attributes may lead in a circle
    for _ in range(_DEPTH):
        signal = _text(node.attrs.get("signal")) or _old_signal(node)
        if signal is not None:
            if not is_array(_get(node, signal)):
                raise ValueError(
                    f"its group {path or '/'} names {signal!r} as signal, which is no array in it"
                )
            return f"{path}/{signal}".strip("/")
        default = _text(node.attrs.get("default")) or _only_entry(node)
        if default is None:
            raise ValueError(
                f"its group {path or '/'} has neither a default nor a signal attribute; choose with key= (--key)"
            )
        node, path = _get(node, default), f"{path}/{default}"
        if node is None or is_array(node):
            raise ValueError(f"its default attribute leads to {path}, which is no group in it")
    raise ValueError(f"its default attributes lead on for more than {_DEPTH} groups")


def _only_entry(node: Any) -> str | None:
    """The one NXentry, or NXdata, that a file without ``default`` can mean."""
    for kind in ("NXentry", "NXdata"):
        named = [name for name in node if _class(_get(node, name)) == kind]
        if len(named) == 1:
            return str(named[0])
    return None


def _old_signal(node: Any) -> str | None:
    """Before 2014 the signal was the dataset with the attribute ``signal=1``."""
    if _class(node) != "NXdata":
        return None
    arrays = ((name, _get(node, name)) for name in node)
    marked = (
        name for name, array in arrays if is_array(array) and _is_one(array.attrs.get("signal"))
    )
    return next(map(str, marked), None)


def _is_one(value: Any) -> bool:
    """Whether an attribute is 1: a number, or text, which older writers left."""
    text = _text(value)
    if text is not None:
        return text.strip() == "1"
    return (
        isinstance(value, (int, float, np.number, np.ndarray))
        and np.size(value) == 1
        and bool(np.all(value == 1))
    )


def _class(node: Any) -> str | None:
    return None if node is None or is_array(node) else _text(node.attrs.get("NX_class"))


def _ome(root: Any) -> str:
    """The full resolution of an OME-Zarr image."""
    path = ome.level_0(dict(root.attrs))
    if path is None:
        several = ome_pattern(root)
        if several is not None:
            raise ValueError(
                "it holds many OME-Zarr images, where other files are one each: index it by itself, or all of its "
                f"kind, with layout='ome' (key={several!r}, sequences='match')"
            )
        raise ValueError(
            "it has no multiscales attribute with a dataset in it, so it is no OME-Zarr image"
        )
    if not is_array(_get(root, path)):
        raise ValueError(
            f"its multiscales attribute names {path!r} as level 0, which is no array in it"
        )
    return path


def ome_pattern(root: Any) -> str | None:
    """The key of all images of a file that holds many; None for another file."""

    def attributes(path: str) -> Mapping[str, Any]:
        node = _get(root, path) if path else root
        return {} if node is None else dict(node.attrs)

    return ome.key_of(attributes, lambda path: is_array(_get(root, path)))
