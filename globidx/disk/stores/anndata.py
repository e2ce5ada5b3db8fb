"""The matrices and columns of AnnData files that have a row for each observation.

The same rules serve zarr groups and HDF5 groups:
https://anndata.readthedocs.io/en/latest/fileformat-prose.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np

from globidx.core.index.categories import spelled
from globidx.disk.stores.nodes import get, is_array, text

#: Groups without a row for each observation, and what they have instead.
_OTHERS = {
    "uns": "holds what belongs to the whole file; read it by constants=",
    "var": "has a row for each variable (a column of X); var_names of the index has their names",
    "varm": "has a row for each variable (a column of X)",
    "varp": "has a row for each variable (a column of X)",
    "obsp": "pairs observations, of which each file has another number",
}
_MATRICES = ("csr_matrix", "csc_matrix")


class Element(NamedTuple):
    """What can be read by a key: how it is stored, where, and where the names of its codes or columns are."""

    form: str
    path: str
    names: str = ""


def element(root: Any, key: str) -> Element:
    """What lies at a key below the root group; ValueError where it has no rows that can be read."""
    top, _, rest = key.partition("/")
    if top in _OTHERS:
        raise ValueError(f"its {key!r} is no field of samples: {top} {_OTHERS[top]}")
    path = _index_of(root, top) if key == "obs/_index" else key
    node = get(root, path)
    if node is None:
        raise ValueError(_missing(root, key))
    if is_array(node):
        if getattr(node.dtype, "names", None) and not rest:
            raise ValueError(
                f"its {key!r} is one compound array, as anndata before 0.7 wrote it: write the file "
                "anew with a later anndata"
            )
        labels = _old_categories(root, path)
        return (
            Element("codes", path, labels)
            if labels
            else Element("plain", path, _columns(root, key))
        )
    kind = encoding(node)
    if kind in _MATRICES:
        return Element(kind[:3], path, _columns(root, key))
    if kind == "categorical":
        return Element("codes", f"{path}/codes", f"{path}/categories")
    if kind == "nullable-string-array" and key == "obs/_index":
        # no observation lacks its name
        return Element("plain", f"{path}/values")
    raise ValueError(_refusal(node, kind, key))


def names_at(paths: Sequence[str], read: Callable[[str], Any]) -> tuple[str, ...]:
    """The names at each of the paths, "" where a path is, as ``Categories`` takes them; none for no path."""
    texts = {path: spelled(read(path)) for path in dict.fromkeys(paths) if path}
    return tuple(texts.get(path, "") for path in paths) if texts else ()


def available(root: Any) -> dict[str, str]:
    """All keys that can be read, and what lies there, in words."""
    listed = {}
    for key in _keys(root):
        try:
            one = element(root, key)
        except ValueError as error:
            listed[key] = f"cannot be read: {error}"
        else:
            listed[key] = _in_words(root, one)
    return listed


def encoding(node: Any) -> str:
    """How a group is encoded; older files say so of sparse matrices alone."""
    kind = text(node.attrs.get("encoding-type"))
    sparse = text(node.attrs.get("h5sparse_format"))
    return kind or (f"{sparse}_matrix" if sparse else "group")


def matrix_shape(group: Any, form: str) -> tuple[int, int]:
    """The rows and columns of a sparse matrix; those along which it is stored are counted by ``indptr``."""
    shape = group.attrs.get("shape", group.attrs.get("h5sparse_shape"))
    if shape is None or len(shape) != 2:
        raise ValueError(f"its sparse matrix has no shape attribute of two numbers, but {shape}")
    rows, columns = int(shape[0]), int(shape[1])
    count = int(group["indptr"].shape[0]) - 1
    if form == "csr":
        return count, columns
    if count != columns:
        raise ValueError(
            f"its sparse matrix has {columns} columns by its shape attribute, and {count} by its indptr"
        )
    return rows, columns


def given_dtype(form: str, stored: Any) -> Any:
    """The dtype of what is read: codes of joined categories may be larger than those of any file."""
    return np.dtype(np.int64) if form == "codes" and np.dtype(stored).kind in "iu" else stored


def _keys(root: Any) -> Iterator[str]:
    for key in ("X", "raw/X"):
        if get(root, key) is not None:
            yield key
    for group in ("layers", "obs", "obsm"):
        node = get(root, group)
        if node is not None and not is_array(node):
            index = text(node.attrs.get("_index")) if group == "obs" else None
            names = sorted(name for name in node if name != "__categories")
            yield from (f"{group}/{'_index' if name == index else name}" for name in names)


def _in_words(root: Any, one: Element) -> str:
    if one.form in ("csr", "csc"):
        group = get(root, one.path)
        return f"{one.form}_matrix of {matrix_shape(group, one.form)} {group['data'].dtype}"
    array = get(root, one.path)
    if one.form == "codes":
        return f"categorical, {get(root, one.names).shape[0]} categories"
    dtype = "text" if getattr(array.dtype, "kind", "T") in "OSTU" else array.dtype
    return f"array of {tuple(array.shape)} {dtype}"


def _missing(root: Any, key: str) -> str:
    names = list(_keys(root))
    if not names:
        return f"it has no {key!r}, so it is no AnnData file with such a matrix"
    similar = get_close_matches(key, names, 1)
    hint = f" (did you mean {similar[0]!r}?)" if similar else ""
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"it has no {key!r}{hint}; there is {', '.join(map(repr, names[:20]))}{more}"


def _refusal(node: Any, kind: str, key: str) -> str:
    """Why a group cannot be read as rows, and what to name instead."""
    if kind.startswith("nullable-"):
        return (
            f"its {key!r} is a {kind} column, whose values may be missing: name {key + '/values'!r} and "
            f"{key + '/mask'!r} (True where one is missing)"
        )
    names = ", ".join(repr(f"{key}/{name}") for name in sorted(node)[:20])
    inside = (
        f"; name one of {names}" if kind in ("dataframe", "dict", "raw", "group") and names else ""
    )
    return (
        f"its {key!r} is stored as {kind}; rows can be read of arrays, csr_matrix, csc_matrix and "
        f"categorical{inside}"
    )


def _index_of(root: Any, group: str) -> str:
    """Where the names of the rows of a data frame are."""
    node = get(root, group)
    named = None if node is None or is_array(node) else text(node.attrs.get("_index"))
    return f"{group}/{named or '_index'}"


def _columns(root: Any, key: str) -> str:
    """Where the names of the columns of a matrix are: those of ``var``; "" where there are none."""
    if key not in ("X", "raw/X") and not key.startswith("layers/"):
        return ""
    path = _index_of(root, "raw/var" if key == "raw/X" else "var")
    node = get(root, path)
    if node is not None and not is_array(node):
        path, node = f"{path}/values", get(node, "values")
    return path if is_array(node) else ""


def _old_categories(root: Any, path: str) -> str:
    """Where the categories of a column are in a file of anndata 0.7; "" where it has none."""
    group, _, name = path.rpartition("/")
    labels = f"{group}/__categories/{name}"
    return labels if group and is_array(get(root, labels)) else ""
