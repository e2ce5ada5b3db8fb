"""Finding the arrays of a layout in one file.

The rules are the same for zarr groups and HDF5 groups, which look alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from globidx.core.index.layout import Layout
from globidx.disk.stores import anndata
from globidx.disk.stores.nodes import get as _get
from globidx.disk.stores.nodes import is_array
from globidx.disk.stores.nodes import text as _text

#: The most ``default`` attributes that are followed; NeXus files have two.
_DEPTH = 32


class Field(NamedTuple):
    """An array to read: its name in the index, and its path in this file.

    ``form`` says how its rows make items, and ``axis`` where they lie. ``names`` is the path of the
    names that its codes or columns have.
    """

    name: str
    path: str
    form: str
    axis: int = 0
    names: str = ""


def find(
    root: Any, layout: Layout, axis: int, arrays: Callable[[], Mapping[str, Sequence[int]]]
) -> list[Field]:
    """The fields of ``layout`` in the file whose root group is ``root``.

    ``arrays()`` lists all arrays, with shapes.

    ValueError names what is missing or ambiguous.
    """
    if layout.rule == "nexus":
        return [Field("data", _nexus(root), "plain", axis)]
    if layout.rule == "ome":
        return [Field("image", _ome(root), "plain", axis)]
    if layout.rule == "anndata":
        found = [(key, anndata.element(root, key)) for key in layout.keys or ()]
        return [Field(key, one.path, one.form, axis, one.names) for key, one in found]
    keys = layout.keys
    if keys is None or not all(is_array(_get(root, key)) for key in keys):
        keys = _choose(keys, arrays())
    if layout.keys is None:
        return [Field(key, key, layout.form, axis) for key in keys]
    return list(fields_of(layout, axis))


@lru_cache(64)
def fields_of(layout: Layout, axis: int) -> tuple[Field, ...]:
    """The fields of a layout that names its keys, each at its key: the same for all files."""
    return tuple(
        Field(name, key, layout.form_along(along), along)
        for name, key, along in layout.fields(axis)
    )


def _choose(keys: Sequence[str] | None, present: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """The arrays to use: those asked for, or the only one; ValueError names what there is."""
    if keys is None and len(present) == 1:
        return tuple(present)
    names = sorted(present)
    # a file may hold thousands of arrays
    listed = ", ".join(f"{name!r} of {tuple(present[name])}" for name in names[:20])
    available = (
        listed + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    ) or "none at all"
    if keys is None:
        raise ValueError(
            f"it holds {len(names)} arrays ({available}); choose with key= (--key), one or several of equal length"
        )
    missing = next(key for key in keys if key not in present)
    similar = get_close_matches(missing, names, 1)
    hint = f" (did you mean {similar[0]!r}?)" if similar else ""
    is_group = any(name.startswith(f"{missing}/") for name in names)
    group = f"; {missing!r} is a group: name an array in it" if is_group else ""
    raise ValueError(f"it has no array {missing!r}{hint}; there is {available}{group}")


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
    """The full resolution of an OME-Zarr image.

    https://ngff.openmicroscopy.org, versions 0.4 (``multiscales``) and 0.5 (below ``ome``).
    """
    attributes = dict(root.attrs)
    within = attributes.get("ome")
    scales = (within if isinstance(within, dict) else attributes).get("multiscales")
    try:
        path: Any = scales[0]["datasets"][0]["path"]  # type: ignore[index]
    except (TypeError, LookupError):
        raise ValueError(
            "it has no multiscales attribute with a dataset in it, so it is no OME-Zarr image"
        ) from None
    if not isinstance(path, str) or not is_array(_get(root, path)):
        raise ValueError(
            f"its multiscales attribute names {path!r} as level 0, which is no array in it"
        )
    return path.strip("/")
