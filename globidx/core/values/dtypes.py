"""The dtypes of arrays as an index spells them: those of numpy, and what numpy has no name for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Kind = Literal["number", "time", "small", "text", "bytes", "ragged", "any", "compound", "other"]

#: Floats that numpy does not have, by their bytes; kept in memory as unsigned integers.
SMALL = {
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
}
#: Arrays of any dtype and shape, one by one.
ANY = "any"
_RAGGED = "ragged "
_OBJECT = np.dtype(object)
#: MATLAB's complex numbers in HDF5.
_COMPLEX = ("real", "imag")
_NO_MEMBERS: Mapping[str, Member] = {}


class Dtype(NamedTuple):
    """A dtype by its spelling in an index.

    Parameters
    ----------
    name : str
        A name of numpy's (``float32``, ``datetime64[ns]``), ``bfloat16`` and the like, ``text``,
        ``bytes``, ``ragged`` and the dtype of the array that each element is, ``any`` where each
        element is an array of a dtype and shape of its own, or the members of a compound dtype as a
        JSON object.
    kind : str
        What the elements are.
    memory : numpy.dtype
        How they are kept in memory: in native byte order, without padding.
    members : mapping of str to Member
        Those of a compound dtype.
    element : Dtype, optional
        Of a ragged one, the dtype inside.

    Examples
    --------
    >>> parse("float32").kind, parse("ragged int8").element.name, parse('{"pt": "float32"}').memory
    ('number', 'int8', dtype([('pt', '<f4')]))
    """

    name: str
    kind: Kind
    memory: np.dtype[Any]
    members: Mapping[str, Member] = _NO_MEMBERS
    element: Dtype | None = None

    @property
    def nothing(self) -> Any:
        """What stands where there is no element: zero, no text, an empty array.

        >>> parse("text").nothing, parse("float32").nothing
        ('', np.float32(0.0))
        """
        if self.kind == "text":
            return ""
        if self.kind == "bytes":
            return b""
        if self.element is not None:
            return np.empty(0, self.element.memory)
        return np.zeros((), self.memory)[()]

    def path_to(self, member: str) -> tuple[str, ...] | None:
        """The names that lead to ``member``, nested ones joined by a slash; None where it is none.

        >>> parse('{"vertex": {"x": "float32"}}').path_to("vertex/x")
        ('vertex', 'x')
        """
        if not member:
            return ()
        # a name may hold a slash itself
        for name in sorted(self.members, key=len, reverse=True):
            if member == name or member.startswith(f"{name}/"):
                below = self.members[name].dtype.path_to(member[len(name) + 1 :])
                if below is not None:
                    return (name, *below)
        return None

    def at(self, path: Iterable[str]) -> Member:
        """The member at the end of these names, with the axes that lie on the way."""
        found, shape = self, list[int]()
        for name in path:
            member = found.members[name]
            found = member.dtype
            shape += member.shape
        return Member(found, tuple(shape))

    def leaves(self) -> list[tuple[str, ...]]:
        """The names that lead to each member which is not compound itself.

        >>> parse('{"pt": "float32", "vertex": {"x": "float32", "y": "float32"}}').leaves()
        [('pt',), ('vertex', 'x'), ('vertex', 'y')]
        """
        if self.kind != "compound":
            return [()]
        return [
            (name, *below)
            for name, member in self.members.items()
            for below in member.dtype.leaves()
        ]

    def only(self, paths: Iterable[tuple[str, ...]]) -> Dtype:
        """The same compound dtype with these members alone, in the sequence of ``paths``.

        So it is one dtype, whatever else is in a file and wherever the members lie in it.

        >>> parse('{"pt": "float32", "n": "int8", "eta": "float32"}').only([("eta",), ("pt",)]).name
        '{"eta": "float32", "pt": "float32"}'
        """
        wanted = list(paths)
        if () in wanted or self.kind != "compound":
            return self
        kept = {}
        for name in dict.fromkeys(path[0] for path in wanted):
            inside = [path[1:] for path in wanted if path[0] == name]
            member = self.members[name]
            kept[name] = Member(member.dtype.only(inside), member.shape)
        return parse(_compound_name(kept))


class Held(NamedTuple):
    """An element of dtype ``any``: an array, and what its elements are."""

    values: NDArray[Any]
    dtype: Dtype


class Member(NamedTuple):
    """A member of a compound dtype: its dtype, and the shape of it that each element has."""

    dtype: Dtype
    shape: tuple[int, ...]


@lru_cache(512)
def parse(name: str) -> Dtype:
    """The dtype of this spelling; ValueError where it is none.

    >>> parse("bfloat16").memory, parse("opaque[7]").kind
    (dtype('uint16'), 'other')
    """
    try:
        return _parsed(name)
    except RecursionError:
        raise ValueError(f"{name:.40}... is nested too deeply for a dtype") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{name!r:.80} is no dtype: {error}") from None


def _parsed(name: str) -> Dtype:
    if name in SMALL:
        return Dtype(name, "small", np.dtype(f"u{SMALL[name]}"))
    if name in ("text", "bytes"):
        return Dtype(name, "text" if name == "text" else "bytes", _OBJECT)
    if name == ANY:
        return Dtype(name, "any", _OBJECT)
    if name.startswith(_RAGGED):
        return Dtype(name, "ragged", _OBJECT, element=parse(name.removeprefix(_RAGGED)))
    if name.startswith("{"):
        return _compound(name, json.loads(name))
    if name.startswith(("opaque[", "reference", "object")):
        return Dtype(name, "other", _OBJECT)
    try:
        memory = np.dtype(name)
    except TypeError:
        raise ValueError(f"{name!r} is no dtype") from None
    # numpy knows other spellings of these, and other dtypes
    if memory.kind not in "biufcmM" or memory.name != name:
        raise ValueError(f"{name!r} is no dtype as an index spells it")
    return Dtype(name, "time" if memory.kind in "mM" else "number", memory)


def ragged(name: str) -> str:
    """The spelling of a dtype whose elements are arrays of ``name``, each of its own shape."""
    return _RAGGED + name


def spelled(dtype: np.dtype[Any]) -> str:
    """The spelling of a numpy dtype; what numpy cannot say is in its metadata, as h5py leaves it.

    Fixed text and bytes are spelled as those of any length: files of one kind differ in it.

    >>> spelled(np.dtype(">f4")), spelled(np.dtype("S7")), spelled(np.dtype("M8[D]"))
    ('float32', 'bytes', 'datetime64[D]')
    >>> spelled(np.dtype([("p", "<f4", (3,)), ("n", "i1")]))
    '{"p": ["float32", [3]], "n": "int8"}'
    """
    metadata = dtype.metadata
    if metadata and dtype.names is None:
        return _told(dtype, metadata)
    if dtype.kind in "biufcmM":
        return _native_name(dtype)
    if dtype.name in SMALL:
        return dtype.name
    if dtype.kind in "UT":
        return "text"
    if dtype.kind == "S":
        return "bytes"
    if dtype.names is None:
        return f"opaque[{dtype.itemsize}]" if dtype.kind == "V" else "object"
    if as_complex(dtype) is not dtype:
        return _native_name(as_complex(dtype))
    members = {}
    for name in dtype.names:
        base, shape = dtype[name].base, dtype[name].shape
        members[name] = Member(parse(spelled(base)), shape)
    return _compound_name(members)


def _told(dtype: np.dtype[Any], metadata: Mapping[str, Any]) -> str:
    """The spelling of a dtype with metadata."""
    if "small" in metadata:
        return str(metadata["small"])
    if "ref" in metadata:
        return "reference"
    if "vlen" in metadata:
        inside = metadata["vlen"]
        if inside is str or inside is bytes:
            return "text" if inside is str else "bytes"
        return ragged(spelled(np.dtype(inside)))
    if dtype.kind == "S":
        return "text" if metadata.get("h5py_encoding") == "utf-8" else "bytes"
    # flags and names of numbers, which the numbers do not need
    return spelled(np.dtype(dtype.str))


def told(dtype: np.dtype[Any]) -> str:
    """What tells a dtype from others, byte order included where it is one of numbers."""
    return dtype.str if dtype.kind in "biufc" and not dtype.metadata else spelled(dtype)


def as_complex(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The complex dtype of the same bytes as a pair of floats ``real`` and ``imag``; others as they are.

    >>> as_complex(np.dtype([("real", "<f8"), ("imag", "<f8")]))
    dtype('complex128')
    """
    if dtype.names != _COMPLEX or dtype.itemsize not in (8, 16):
        return dtype
    assert dtype.fields is not None, "it has two members"
    (real, first), (imag, _) = (dtype.fields[name][:2] for name in _COMPLEX)
    if real != imag or first or real.kind != "f" or 2 * real.itemsize != dtype.itemsize:
        return dtype
    return np.dtype(f"{real.byteorder}c{dtype.itemsize}")


def put(out: NDArray[Any], block: NDArray[Any]) -> None:
    """Fill ``out`` with the elements of ``block``, members by their names.

    numpy's own assignment goes by their places, which differ where only some members are kept.
    """
    if out.dtype.names is None:
        if block.dtype != out.dtype:
            block = block.view(as_complex(block.dtype))
            if block.dtype.name in SMALL or _lacks_unit(block.dtype):
                # h5py forgets the unit of times within rows of their own lengths
                block = block.view(out.dtype.newbyteorder(block.dtype.byteorder))
        out[...] = block
        return
    for name in out.dtype.names:
        put(out[name], block[name])


def as_dtype(block: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The elements of ``block`` as ``put`` writes them to an array of ``dtype``."""
    if block.dtype == dtype:
        return block
    out = np.empty(block.shape, dtype)
    put(out, block)
    return out


def _lacks_unit(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "mM" and np.datetime_data(dtype)[0] == "generic"


def plain(values: NDArray[Any], dtype: Dtype) -> Any:
    """Elements as Python and numpy have them: str, bytes, arrays that are no other's; lists of these.

    >>> plain(np.array([b"ab", b"c"], object), parse("text"))
    ['ab', 'c']
    """
    if values.dtype != _OBJECT:
        return values
    if values.ndim:
        return [plain(one, dtype) for one in _apart(values)]
    value: Any = values[()]
    if isinstance(value, Held):
        return plain(value.values, value.dtype)
    if dtype.element is not None:
        return plain(owned(value, dtype.element), dtype.element)
    if dtype.kind == "text" and isinstance(value, bytes):
        # as Python does with the names of files: whatever the bytes are, they can be had back
        return value.decode("utf-8", "surrogateescape")
    return value.tobytes() if isinstance(value, np.void) else value


def owned(values: NDArray[Any], dtype: Dtype) -> NDArray[Any]:
    """A copy of what a library gave, kept as ``dtype`` is in memory."""
    copied: NDArray[Any] = np.empty(values.shape, dtype.memory)
    put(copied, values)
    return copied


def _apart(values: NDArray[Any]) -> list[NDArray[Any]]:
    return [values[place, ...] for place in range(len(values))]


def _compound_name(members: Mapping[str, Member]) -> str:
    spellings = {
        name: [_json(member.dtype), list(member.shape)] if member.shape else _json(member.dtype)
        for name, member in members.items()
    }
    return json.dumps(spellings, ensure_ascii=False)


def _json(dtype: Dtype) -> Any:
    return json.loads(dtype.name) if dtype.kind == "compound" else dtype.name


def _compound(name: str, spelling: Mapping[str, Any]) -> Dtype:
    members = {key: _member(one) for key, one in spelling.items()}
    memory = np.dtype([(key, one.dtype.memory, one.shape) for key, one in members.items()])
    # numpy names what has no name
    if not members or memory.names != tuple(members):
        raise ValueError(f"{name:.80} is no compound dtype: its members need names")
    return Dtype(name, "compound", memory, members)


def _member(spelling: Any) -> Member:
    inside, shape = spelling if isinstance(spelling, list) else (spelling, [])
    if isinstance(inside, dict):
        inside = json.dumps(inside, ensure_ascii=False)
    is_shape = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    if not isinstance(inside, str) or not is_shape:
        raise ValueError(f"{spelling!r:.80} is no member of a compound dtype")
    return Member(parse(inside), tuple(shape))


@lru_cache(64)
def _native_name(dtype: np.dtype[Any]) -> str:
    """The name of a dtype in native byte order; it is kept, for numpy takes its time over it."""
    return dtype.newbyteorder("=").name
