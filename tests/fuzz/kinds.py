"""Random arrays of every dtype that h5py and zarr write, and their values as the library that wrote them reads them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numcodecs
import numpy as np
import torch
import zarr
from numpy.random import Generator
from numpy.typing import NDArray

NUMBERS = "? i1 u1 i2 u2 i4 u4 i8 u8 f2 f4 f8 c8 c16".split()
SMALL = {"bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1}
LETTERS = [*"ab zZ0é漢😀\n", "e\u0301"]


class World(NamedTuple):
    """A file with one array; ``rows`` are its items as its library reads them, the item axis first."""

    path: str
    key: str | None
    axis: int
    rows: Any
    told: str


# -- dtypes and values


def number(rng: Generator) -> np.dtype[Any]:
    """A dtype of numbers, of either byte order."""
    return np.dtype(rng.choice(["<", ">"]) + str(rng.choice(NUMBERS)))


def time(rng: Generator) -> np.dtype[Any]:
    unit = str(rng.choice(["D", "h", "s", "ms", "ns", "10us", "Y"]))
    return np.dtype(f"{rng.choice(['<', '>'])}{rng.choice(['M8', 'm8'])}[{unit}]")


def hdf5_dtype(rng: Generator, depth: int = 0) -> np.dtype[Any]:
    """Any dtype of HDF5's, compound ones of compound ones included."""
    kinds = ["number"] * 4 + ["enum", "fixed", "utf-8", "text", "ascii", "ragged", "subarray"]
    kinds += ["compound"] * 4 + ["complex", "longdouble", "time", "opaque", "reference"]
    kind = str(rng.choice(kinds))
    if kind == "enum":
        return np.dtype(h5py.enum_dtype({"a": 0, "b": 1, "c": 100}, str(rng.choice(["i1", ">u2"]))))
    if kind == "fixed":
        return np.dtype(f"S{rng.integers(1, 9)}")
    if kind == "utf-8":
        return np.dtype(h5py.string_dtype("utf-8", int(rng.integers(1, 9))))
    if kind in ("text", "ascii"):
        return np.dtype(h5py.string_dtype("utf-8" if kind == "text" else "ascii"))
    if kind == "ragged" and depth < 3:
        inside = hdf5_dtype(rng, 3) if rng.random() < 0.5 else number(rng)
        return np.dtype(h5py.vlen_dtype(inside))
    if kind == "subarray" and 0 < depth < 3:
        return np.dtype((hdf5_dtype(rng, depth + 1), tuple(rng.integers(1, 4, rng.integers(1, 3)))))
    if kind == "compound" and depth < 3:
        return compound(rng, [hdf5_dtype(rng, depth + 1) for _ in range(rng.integers(1, 5))])
    if kind == "complex":
        part = f"{rng.choice(['<', '>'])}{rng.choice(['f4', 'f8'])}"
        return np.dtype([("real", part), ("imag", part)])
    if kind == "longdouble" and rng.random() < 0.5:
        return np.dtype(rng.choice(["g", "G"]))
    if kind == "time":
        return np.dtype(h5py.opaque_dtype(time(rng)))
    if kind == "opaque" and rng.random() < 0.3:
        return np.dtype("V5")
    if kind == "reference" and rng.random() < 0.3:
        return np.dtype(h5py.ref_dtype)
    return number(rng)


def zarr_dtype(rng: Generator, zarr_format: int, depth: int = 0) -> np.dtype[Any]:
    """Any dtype that zarr-python writes in this format; those of objects are made by name elsewhere."""
    kind = str(rng.choice(["number"] * 4 + ["fixed", "text", "time", "opaque"] + ["compound"] * 2))
    if kind == "fixed":
        return np.dtype(f"S{rng.integers(1, 9)}")
    if kind == "text":
        return np.dtype(f"{rng.choice(['<', '>'])}U{rng.integers(1, 6)}")
    if kind == "time":
        return time(rng)
    if kind == "opaque" and rng.random() < 0.3:
        return np.dtype("V3")
    if kind == "compound" and depth < 2:
        members = [zarr_dtype(rng, zarr_format, depth + 1) for _ in range(rng.integers(1, 4))]
        if zarr_format == 3:
            # its one codec of bytes knows one byte order for all members
            members = [one.newbyteorder("<") for one in members]
        elif any(one.names for one in members):
            # of zarr 2, zarr-python opens no nested ones
            return number(rng)
        return np.dtype([(f"m{place}", one) for place, one in enumerate(members)])
    return number(rng)


def compound(rng: Generator, members: list[np.dtype[Any]]) -> np.dtype[Any]:
    """A compound dtype, packed or aligned, or with gaps of any size."""
    names = [f"{rng.choice(['pt', 'eta', 'a b', 'é'])}{place}" for place in range(len(members))]
    how = rng.choice(["packed", "aligned", "gaps"])
    if how == "gaps":
        offsets, end = [], 0
        for one in members:
            offsets.append(end + int(rng.integers(0, 4)))
            end = offsets[-1] + one.itemsize
        size = end + int(rng.integers(0, 4))
        return np.dtype(
            {"names": names, "formats": members, "offsets": offsets, "itemsize": max(1, size)}
        )
    aligned = how == "aligned" and not any(one.hasobject for one in members)
    return np.dtype(list(zip(names, members, strict=True)), align=aligned)


def leaf_kinds(dtype: np.dtype[Any]) -> Iterator[np.dtype[Any]]:
    """The dtypes of all members, those inside of ragged ones included."""
    base = dtype.base
    inside = h5py.check_vlen_dtype(base)
    if base.names is not None:
        for name in base.names:
            yield from leaf_kinds(base[name])
    elif isinstance(inside, np.dtype):
        yield from leaf_kinds(inside)
    elif inside is not None and inside not in (str, bytes):
        yield from leaf_kinds(np.dtype(inside))
    else:
        yield base


def refused(dtype: np.dtype[Any]) -> str:
    """The first part of a dtype that no tensor can have, "" where there is none."""
    for leaf in leaf_kinds(dtype):
        if h5py.check_ref_dtype(leaf):
            return "reference"
        if leaf.kind == "V":
            return "opaque"
        if leaf.kind in "fc" and leaf.itemsize in (16, 32) and leaf.type is not np.complex128:
            return leaf.newbyteorder("=").name
    return ""


def text(rng: Generator) -> str:
    return "".join(rng.choice(LETTERS, rng.integers(0, 6)))


def values(rng: Generator, dtype: np.dtype[Any], shape: tuple[int, ...], file: Any = None) -> Any:
    """Random values; of numbers, any bits at all."""
    out: NDArray[Any] = np.zeros(shape, dtype.base)
    inside = h5py.check_string_dtype(dtype) or h5py.check_vlen_dtype(dtype)
    if dtype.names is not None:
        for name in dtype.names:
            # the axes of a member that is an array stand behind
            out[name] = values(rng, dtype[name].base, out[name].shape, file)
    elif dtype.kind in "SUO":
        for place in np.ndindex(out.shape):
            out[place] = one(rng, dtype, inside, file)
    elif dtype.kind == "b":
        out[...] = rng.random(out.shape) < 0.5
    elif h5py.check_enum_dtype(dtype):
        out[...] = rng.choice([0, 1, 100], out.shape)
    elif dtype.kind in "fc" and dtype.itemsize in (16, 32) and dtype.type is not np.complex128:
        out[...] = rng.normal(size=out.shape)
    elif not dtype.itemsize:
        return out
    else:
        # with its metadata, which say to HDF5 how times are written
        out = np.frombuffer(rng.bytes(out.nbytes), np.uint8).view(dtype).reshape(out.shape)
    return out


def one(rng: Generator, dtype: np.dtype[Any], inside: Any, file: Any) -> Any:
    """One object, or text or bytes of a fixed size."""
    if h5py.check_ref_dtype(dtype):
        return file.ref
    word = text(rng)
    if dtype.kind == "U":
        return word[: dtype.itemsize // 4]
    if dtype.kind == "S":
        if inside is not None and inside.encoding == "utf-8":
            # cut anywhere: writers do
            return word.encode()[: dtype.itemsize].rstrip(b"\0")
        return rng.bytes(int(rng.integers(0, dtype.itemsize + 1))).rstrip(b"\0")
    if isinstance(inside, h5py.h5t.string_info):
        return word if inside.encoding == "utf-8" else word.encode("ascii", "ignore")
    length = (int(rng.integers(0, 4)),)
    return values(rng, np.dtype(inside), length, file)


# -- files


def grid(rng: Generator) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """A shape, chunks and an axis."""
    dimensions = int(rng.integers(1, 4))
    axis = int(rng.integers(0, dimensions))
    shape = [int(size) for size in rng.integers(0 if rng.random() < 0.1 else 1, 6, dimensions)]
    shape[axis] += int(rng.integers(1, 6))
    chunks = tuple(int(rng.integers(1, size + 1)) if size else 1 for size in shape)
    return tuple(shape), chunks, axis


def hdf5(rng: Generator, path: Path) -> World:
    """A dataset of an HDF5 file."""
    shape, chunks, axis = grid(rng)
    dtype = hdf5_dtype(rng)
    options: dict[str, Any] = {}
    if rng.random() < 0.7 and 0 not in shape:
        options["chunks"] = chunks
        options["maxshape"] = tuple(None if rng.random() < 0.3 else size for size in shape)
        options["compression"] = rng.choice([None, "gzip", "lzf"])
        options["shuffle"] = bool(rng.random() < 0.5)
        options["fletcher32"] = bool(rng.random() < 0.3 and not dtype.hasobject)
        if h5py.check_string_dtype(dtype) and rng.random() < 0.3:
            options["fillvalue"] = b"no"[: dtype.itemsize]
    key = str(rng.choice(["x", "deep/er/x", "a b"]))
    libver = str(rng.choice(["earliest", "latest"]))
    with h5py.File(path, "w", libver=libver) as file:
        dataset = file.create_dataset(key, shape, dtype=dtype, **options)
        if 0 not in shape:
            if rng.random() < 0.15 and "chunks" in options:
                # the rest is fill value
                rows = tuple(slice(0, size // 2) for size in shape)
                size = dataset[rows].shape
                if 0 not in size:
                    dataset[rows] = values(rng, dtype, size, file)
            else:
                dataset[...] = values(rng, dtype, shape, file)
    with h5py.File(path, "r") as file:
        stored = file[key][...]
        read_as = file[key].dtype
    told = f"{dtype} {shape} {options} {libver} axis {axis}"
    tagged = np.moveaxis(stored, axis, 0)
    return World(str(path), key, axis, Rows(tagged, read_as), told)


def zarr_array(rng: Generator, path: Path) -> World:
    """An array of a zarr store."""
    shape, chunks, axis = grid(rng)
    zarr_format = int(rng.integers(2, 4))
    dtype: Any = zarr_dtype(rng, zarr_format)
    kind = rng.random()
    if kind < 0.15:
        dtype = "string"
    elif kind < 0.25:
        dtype = zarr.dtype.VariableLengthBytes()
    is_object = not isinstance(dtype, np.dtype)
    options: dict[str, Any] = {"zarr_format": zarr_format, "chunks": chunks}
    if zarr_format == 3:
        options["compressors"] = codecs3(rng)
        if rng.random() < 0.3 and 0 not in shape:
            options["shards"] = tuple(size * int(rng.integers(1, 4)) for size in chunks)
        if not is_object and rng.random() < 0.3:
            order = tuple(int(place) for place in rng.permutation(len(shape)))
            options["filters"] = [zarr.codecs.TransposeCodec(order=order)]
    else:
        options["compressors"] = codecs2(rng)
        options["order"] = str(rng.choice(["C", "F"]))
        if not is_object and dtype.kind in "iuf" and rng.random() < 0.3:
            options["filters"] = [numcodecs.Delta(dtype=dtype.str)]
    if dtype == "string" or (not is_object and dtype.kind in "US"):
        options["fill_value"] = ["", "n"][int(rng.integers(2))]
    key = None if rng.random() < 0.3 else str(rng.choice(["x", "deep/er/x"]))
    if key is not None:
        zarr.create_group(path, zarr_format=zarr_format)
    # some data types of zarr 3 have no specification yet
    with warnings.catch_warnings(action="ignore"):
        array = zarr.create_array(path, name=key, shape=shape, dtype=dtype, **options)
        if 0 not in shape:
            data = _zarr_values(rng, dtype, shape)
            if rng.random() < 0.15:
                array[: shape[0] // 2] = data[: shape[0] // 2]
            else:
                array[...] = data
        stored = np.asarray(zarr.open_array(path / (key or ""), mode="r")[...])
    told = f"{dtype} {shape} {options} axis {axis}"
    read_as = np.dtype(object, metadata={"vlen": bytes}) if stored.dtype == object else stored.dtype
    return World(str(path), key, axis, Rows(np.moveaxis(stored, axis, 0), read_as), told)


def _zarr_values(rng: Generator, dtype: Any, shape: tuple[int, ...]) -> Any:
    if isinstance(dtype, np.dtype):
        return values(rng, dtype, shape)
    out = np.empty(shape, object)
    for place in np.ndindex(shape):
        out[place] = text(rng) if dtype == "string" else rng.bytes(int(rng.integers(0, 9)))
    return out


def small_floats(rng: Generator, path: Path) -> World:
    """An array of floats that zarr-python cannot write: unsigned integers, whose metadata are edited."""
    shape, chunks, axis = grid(rng)
    name = str(rng.choice(list(SMALL)))
    options: dict[str, Any] = {"chunks": chunks, "compressors": codecs3(rng)}
    options["serializer"] = zarr.codecs.BytesCodec(endian=str(rng.choice(["little", "big"])))
    if rng.random() < 0.4 and 0 not in shape:
        options["shards"] = tuple(size * int(rng.integers(1, 4)) for size in chunks)
    if rng.random() < 0.3:
        order = tuple(int(place) for place in rng.permutation(len(shape)))
        options["filters"] = [zarr.codecs.TransposeCodec(order=order)]
    key = str(rng.choice(["x", "deep/er/x"]))
    dtype = np.dtype(f"u{SMALL[name]}")
    # zeros would be left out, as they are fill value
    raw = values(rng, dtype, shape) | 1
    zarr.create_group(path)
    array = zarr.create_array(path, name=key, shape=shape, dtype=dtype, **options)
    if raw.size:
        array[...] = raw
    metadata = path / key / "zarr.json"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"data_type": name}))
    rows = np.ascontiguousarray(np.moveaxis(raw, axis, 0))
    floats = torch.from_numpy(rows.view(f"i{dtype.itemsize}")).view(getattr(torch, name))
    return World(str(path), key, axis, floats, f"{name} {shape} {options} axis {axis}")


def codecs3(rng: Generator) -> Any:
    """Compressors of zarr 3."""
    kinds = [
        None,
        zarr.codecs.GzipCodec(level=1),
        zarr.codecs.ZstdCodec(level=1),
        zarr.codecs.BloscCodec(cname="lz4"),
        zarr.codecs.BloscCodec(cname="zstd", shuffle="bitshuffle"),
        (zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()),
    ]
    return kinds[int(rng.integers(len(kinds)))]


def codecs2(rng: Generator) -> Any:
    """Compressors of zarr 2."""
    kinds = [
        None,
        numcodecs.Zlib(1),
        numcodecs.GZip(1),
        numcodecs.BZ2(1),
        numcodecs.LZ4(),
        numcodecs.LZMA(),
        numcodecs.Zstd(1),
        numcodecs.Blosc("lz4", shuffle=int(rng.integers(0, 3))),
    ]
    return kinds[int(rng.integers(len(kinds)))]


# -- what a sample gets


class Rows(NamedTuple):
    """Rows as numpy has them, and their dtype as the library tells it, with what numpy cannot say."""

    array: NDArray[Any]
    dtype: np.dtype[Any]


def member(rows: Rows, name: str) -> Rows:
    """One member of compound rows."""
    return Rows(rows.array[name], rows.dtype[name].base)


def sample(rows: Any, places: Any, pad: str | None) -> Any:
    """What a sample gets of the rows at ``places``, one number or a list of them; beyond the ends by ``pad``."""
    if isinstance(rows, Rows) and rows.dtype.names is not None and not is_complex(rows.dtype):
        return {name: sample(member(rows, name), places, pad) for name in rows.dtype.names}
    if isinstance(places, int):
        return value(rows, places, pad)
    taken = [value(rows, place, pad) for place in places]
    return (
        torch.stack(taken) if isinstance(taken[0], torch.Tensor) and not is_ragged(rows) else taken
    )


def value(rows: Any, place: int, pad: str | None) -> Any:
    """One row."""
    length = len(rows.array if isinstance(rows, Rows) else rows)
    inside = 0 <= place < length
    place = min(max(place, 0), length - 1)
    if isinstance(rows, torch.Tensor):
        return rows[place] if inside or pad == "edge" else torch.zeros_like(rows[place])
    return plain(rows.array[place, ...], rows.dtype, filled=inside or pad == "edge")


def plain(row: NDArray[Any], dtype: np.dtype[Any], *, filled: bool = True) -> Any:
    """A row as torch or Python has it; ``filled`` is False where nothing is."""
    inside = h5py.check_vlen_dtype(dtype)
    info = h5py.check_string_dtype(dtype)
    if dtype.names is not None and not is_complex(dtype):
        return {name: plain(row[name], dtype[name].base, filled=filled) for name in dtype.names}
    if dtype.kind in "SUTO":
        if row.ndim:
            return [
                plain(part, dtype, filled=filled) for part in (row[i, ...] for i in range(len(row)))
            ]
        found: Any = row[()]
        if isinstance(inside, np.dtype) or (inside is not None and inside not in (str, bytes)):
            inside = np.dtype(inside)
            return plain(np.asarray(found) if filled else np.empty(0, inside), inside)
        is_text = dtype.kind in "UT" or (info is not None and info.encoding == "utf-8")
        if not filled:
            return "" if is_text else b""
        if is_text and isinstance(found, bytes):
            return found.decode("utf-8", "surrogateescape")
        return str(found) if is_text else bytes(found)
    if is_complex(dtype):
        row = row["real"] + 1j * row["imag"] if not row.size else _as_complex(row)
    native = np.array(row, row.dtype.newbyteorder("="), order="C")
    if native.dtype.kind in "mM":
        native = native.view("i8")
    tensor = torch.from_numpy(native)
    return tensor if filled else torch.zeros_like(tensor)


def _as_complex(row: NDArray[Any]) -> NDArray[Any]:
    out = np.empty(row.shape, f"c{2 * row.dtype['real'].itemsize}")
    out.real, out.imag = row["real"], row["imag"]
    return out


def is_complex(dtype: np.dtype[Any]) -> bool:
    """Whether it is MATLAB's way to write complex numbers."""
    return dtype.names == ("real", "imag") and dtype["real"].kind == "f"


def is_ragged(rows: Any) -> bool:
    """Whether each element is an array of its own shape."""
    return isinstance(rows, Rows) and rows.dtype.kind == "O"


def same(given: Any, wanted: Any) -> bool:
    """Whether two samples are equal to the last bit."""
    if isinstance(wanted, dict):
        return (
            isinstance(given, dict)
            and list(given) == list(wanted)
            and all(same(given[name], wanted[name]) for name in wanted)
        )
    if isinstance(wanted, list):
        return (
            isinstance(given, list) and len(given) == len(wanted) and all(map(same, given, wanted))
        )
    if isinstance(wanted, torch.Tensor):
        return (
            isinstance(given, torch.Tensor)
            and given.dtype == wanted.dtype
            and given.shape == wanted.shape
            and _bits(given) == _bits(wanted)
        )
    return type(given) is type(wanted) and bool(given == wanted)


def _bits(tensor: torch.Tensor) -> bytes:
    # one element may have any stride, and is contiguous all the same
    packed = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)
    return packed.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
