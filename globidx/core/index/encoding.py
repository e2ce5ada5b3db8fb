"""An index table as the bytes of a cache file: a JSON header and columns that can be mapped.

Format: the line ``globidx.index``, a line with the length of the header, the header, and at
multiples of 64 bytes the columns in little-endian order, named with shape and offset in the
header, which also has a BLAKE2b digest of itself and of them all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core.index import episodes as inner
from globidx.core.index.categories import Categories
from globidx.core.index.episodes import Episodes, Missing
from globidx.core.index.layout import Inner
from globidx.core.index.names import Names
from globidx.core.index.table import DIGEST_SIZE, KINDS, PER_FILE, ArrayInfo, Table
from globidx.core.json import schema, strict
from globidx.core.values import dtypes
from globidx.core.values.packing import Packing
from globidx.errors import RecordError

FORMAT, VERSION = "globidx.index", 1
_MAGIC = b"globidx.index\n"
_ALIGNMENT = 64
_COLUMNS = {
    "names": "|u1",
    "name_ends": "<i8",
    "lengths": "<i8",
    "kinds": "|u1",
    "chunk_lengths": "<i8",
    "digests": "|u1",
    "stamps": "<i8",
    "paths": "|u1",
    "path_ends": "<i8",
    "packings": "|u1",
    "packing_ends": "<i8",
}
#: Those of an index whose files hold sequences, or lack rows.
_EPISODES = {
    "episode_counts": "<i8",
    "episode_starts": "<i8",
    "episode_lengths": "<i8",
    "episode_listed": "|b1",
    "episode_chunk_lengths": "<i8",
    "episode_names": "|u1",
    "episode_name_ends": "<i8",
}
_MISSING = {"missing_counts": "<i8", "missing_rows": "<i8"}
#: Those of an index whose codes or columns have names.
_CATEGORIES = {"category_numbers": "<i8", "category_texts": "|u1", "category_text_ends": "<i8"}
_INNER = _EPISODES | _MISSING | _CATEGORIES


def encode(table: Table) -> bytes:
    """Return the bytes of a cache file."""
    return b"".join(parts(table))


def parts(table: Table) -> list[bytes | memoryview]:
    """Return the bytes of a cache file in parts, the header first; columns are not copied."""
    columns = dict(zip(("names", "name_ends"), table.names.arrays(), strict=True))
    columns |= dict(zip(("paths", "path_ends"), table.paths.arrays(), strict=True))
    columns |= dict(zip(("packings", "packing_ends"), table.packings.arrays(), strict=True))
    columns |= {name: getattr(table, name) for name in PER_FILE}
    columns |= _inner_columns(table)
    body: list[bytes | memoryview] = []
    offsets, size = {}, 0
    for name, dtype in (_COLUMNS | _INNER).items():
        if name not in columns:
            continue
        column = np.ascontiguousarray(columns[name], dtype)
        # columns are mapped as they are, so each begins where its values are aligned
        padding = b"\0" * (-size % _ALIGNMENT)
        size += len(padding)
        offsets[name] = {"shape": list(column.shape), "offset": size}
        size += column.nbytes
        body += [padding, column.reshape(-1).view(np.uint8).data]
    header = {
        "format": FORMAT,
        "version": VERSION,
        "arrays": [
            {
                "name": a.name,
                "item_shape": list(a.item_shape),
                "dtype": a.dtype,
                "path": a.path,
                "form": a.form,
                "packing": a.packing,
                "axis": a.axis,
                "member": a.member,
            }
            for a in table.arrays
        ],
        "inner": {**asdict(table.inner), "arrays": list(table.inner.arrays)},
        "columns": offsets,
        "bytes": size,
    }
    # a cache is not synchronised, so a torn one must be noticed
    header["blake2b"] = _digest(header, body)
    text = json.dumps(header, separators=(",", ":")).encode() + b"\n"
    start = _MAGIC + b"%d\n" % len(text) + text
    return [start + b"\0" * (-len(start) % _ALIGNMENT), *body]


def _inner_columns(table: Table) -> dict[str, NDArray[Any]]:
    """The columns of sequences inside files, missing rows and categories, where there are such."""
    columns: dict[str, NDArray[Any]] = {}
    if table.episodes is not None:
        names = ("counts", *inner.COLUMNS)
        columns |= {f"episode_{name}": getattr(table.episodes, name) for name in names}
        blob, ends = table.episodes.names.arrays()
        columns |= {"episode_names": blob, "episode_name_ends": ends}
    if table.missing is not None:
        columns |= {"missing_counts": table.missing.counts, "missing_rows": table.missing.rows}
    if table.categories is not None:
        blob, ends = table.categories.texts.arrays()
        columns |= {"category_numbers": table.categories.numbers}
        columns |= {"category_texts": blob, "category_text_ends": ends}
    return columns


def digest(data: memoryview | bytes) -> str:
    """Return the digest in the header of a cache file."""
    digest: str = _header(memoryview(data))[0]["blake2b"]
    return digest


def decode(data: memoryview | bytes, *, verified: str | None = None) -> Table:
    """Return the table in ``data``, whose columns are views of ``data``.

    ValueError if it is not a whole cache file.

    ``verified`` is the digest of a file that was verified before: if it is still that of the
    header, nothing else is read. RecordVersionError if a later version of globidx wrote the file.
    """
    view = memoryview(data)
    header, start = _header(view)
    body = view[start : start + header["bytes"]]
    if len(body) != header["bytes"] or len(view) != start + header["bytes"]:
        raise ValueError(f"it has {len(view)} bytes, but its header says {start + header['bytes']}")
    if verified != header["blake2b"] and _digest(header, [body]) != header["blake2b"]:
        raise ValueError("it does not match its digest")
    present = header["columns"]
    if _COLUMNS.keys() - present or present.keys() - (_COLUMNS | _INNER):
        raise ValueError(
            f"its columns are not those of an index: {', '.join(sorted(present))[:200]}"
        )
    columns = {
        name: _column(body, present[name], dtype)
        for name, dtype in (_COLUMNS | _INNER).items()
        if name in present
    }
    episodes, missing = _episodes(columns), _missing(columns)
    categories = _categories(columns)
    arrays = tuple(
        ArrayInfo(**{**a, "item_shape": tuple(a["item_shape"])}, chunk_length=0)
        for a in header["arrays"]
    )
    for info in arrays:
        dtypes.parse(info.dtype)
        Packing.parse(info.packing)
    files = len(columns["lengths"])
    if any(len(columns[name]) != files for name in ("name_ends", *PER_FILE)):
        raise ValueError("its columns differ in length")
    names = Names(columns.pop("names"), columns.pop("name_ends"))
    paths = Names(columns.pop("paths"), columns.pop("path_ends"))
    packings = Names(columns.pop("packings"), columns.pop("packing_ends"))
    if any(len(each) not in (0, files * len(arrays)) for each in (paths, packings)):
        raise ValueError("its paths and packings are not one for each array and file")
    inside = header["inner"]
    table = Table(
        names=names,
        arrays=arrays,
        paths=paths,
        packings=packings,
        inner=Inner(**{**inside, "arrays": tuple(inside["arrays"])}),
        episodes=episodes,
        missing=missing,
        categories=categories,
        **columns,
    )
    if verified != header["blake2b"]:
        _refuse_odd(table)
    return table


def _episodes(columns: dict[str, NDArray[Any]]) -> Episodes | None:
    """The sequences inside files, out of ``columns``; None where there are none of theirs."""
    own = {name: columns.pop(name) for name in _EPISODES if name in columns}
    if not own:
        return None
    if len(own) < len(_EPISODES):
        raise ValueError("it has only some of the columns of sequences")
    return Episodes(
        names=Names(own["episode_names"], own["episode_name_ends"]),
        **{name: own[f"episode_{name}"] for name in ("counts", *inner.COLUMNS)},
    )


def _missing(columns: dict[str, NDArray[Any]]) -> Missing | None:
    own = [columns.pop(name) for name in _MISSING if name in columns]
    if len(own) == 1:
        raise ValueError("it has only some of the columns of missing rows")
    return Missing(*own) if own else None


def _categories(columns: dict[str, NDArray[Any]]) -> Categories | None:
    own = [columns.pop(name) for name in _CATEGORIES if name in columns]
    if not own:
        return None
    if len(own) < len(_CATEGORIES):
        raise ValueError("it has only some of the columns of categories")
    return Categories(own[0], Names(*own[1:]))


def _refuse_odd_categories(table: Table) -> None:
    """ValueError if an array has names that are not there."""
    if table.categories is None:
        return
    numbers, texts = table.categories.numbers, table.categories.texts
    if numbers.shape != (len(table), len(table.arrays)):
        raise ValueError("its categories are not one list for each array and file")
    if numbers.min() < -1 or numbers.max() >= len(texts):
        raise ValueError("it has categories that are not there")


def _refuse_odd_inner(table: Table) -> None:
    """ValueError if sequences and missing rows do not fit the files that they are said to be in."""
    files = len(table)
    if table.episodes is not None:
        some = table.episodes
        total = int(some.counts.sum()) if some.counts.shape == (files,) else -1
        apart = len(some.chunk_lengths) != 0
        if (
            any(getattr(some, name).shape != (total,) for name in ("starts", "lengths", "listed"))
            or some.chunk_lengths.shape != (total * apart, len(table.arrays))
            or len(some.names) not in (0, total)
            or some.counts.min() < 0
        ):
            raise ValueError("its columns of sequences are not as long as it has sequences")
        rows = table.lengths[some.files]
        # compared in this sequence, no sum can leave int64
        outside = (some.starts < 0) | (some.lengths < 0) | (some.lengths > rows)
        if (outside | (some.starts > rows - some.lengths)).any():
            raise ValueError("it has sequences that leave their files")
    if table.missing is not None:
        counts, rows = table.missing.counts, table.missing.rows
        if counts.shape != (files,) or rows.shape != (int(counts.sum()),) or counts.min() < 0:
            raise ValueError("its columns of missing rows are not as long as it says")
        if (rows < 0).any() or (rows >= np.repeat(table.lengths, counts)).any():
            raise ValueError("it lacks rows that no file has")


def _refuse_odd(table: Table) -> None:
    """ValueError if columns have a right digest, but values that no index has."""
    files, width = len(table), len(table.arrays)
    shapes = {name: getattr(table, name).shape for name in PER_FILE}
    wanted = {
        "chunk_lengths": (files, width),
        "digests": (files, DIGEST_SIZE),
        "stamps": (files, width, 4),
    }
    if shapes != wanted | {"lengths": (files,), "kinds": (files,)}:
        raise ValueError("its columns are not as wide as it has arrays")
    if (
        files == 0
        or table.lengths.min() < 0
        or table.chunk_lengths.min() < 0
        or table.kinds.max() >= len(KINDS)
    ):
        raise ValueError("its columns have values that no file can have")
    _refuse_odd_inner(table)
    _refuse_odd_categories(table)
    inner_names = [] if table.episodes is None else [table.episodes.names]
    inner_names += [] if table.categories is None else [table.categories.texts]
    for names in (table.names, table.paths, table.packings, *inner_names):
        blob, ends = names.arrays()
        if blob.ndim != 1 or ends.ndim != 1:
            raise ValueError("its names are not one-dimensional")
        # each name ends in a zero byte, which no name can hold
        zeros = np.flatnonzero(blob == 0) + 1
        if not np.array_equal(zeros, ends) or (len(ends) and ends[-1] != len(blob)):
            raise ValueError("its names do not end where it says")


def _header(view: memoryview) -> tuple[dict[str, Any], int]:
    start = bytes(view[:64])
    if not start.startswith(_MAGIC) or b"\n" not in start[len(_MAGIC) :]:
        raise ValueError("it does not begin like an index cache")
    digits = start[len(_MAGIC) :].split(b"\n")[0]
    if not digits.isdigit():
        raise ValueError("its header has no length")
    first = len(_MAGIC) + len(digits) + 1
    end = first + int(digits)
    parsed = strict.parse(bytes(view[first:end]))
    try:
        schema.header(parsed, "index cache", FORMAT, VERSION)
        fields = schema.fields(parsed, "index cache", _HEADER)
    except RecordError as error:
        if type(error) is not RecordError:
            raise
        raise ValueError(str(error)) from None
    return fields, end + -end % _ALIGNMENT


def _digest(header: dict[str, Any], body: Iterable[bytes | memoryview]) -> str:
    hashed = strict.canonical({name: header[name] for name in _HEADER if name != "blake2b"})
    digest = hashlib.blake2b(hashed, digest_size=32)
    for part in body:
        digest.update(part)
    return digest.hexdigest()


def _column(body: memoryview, column: dict[str, Any], dtype: str) -> NDArray[Any]:
    count = prod(column["shape"])
    end = column["offset"] + count * np.dtype(dtype).itemsize
    if end > len(body):
        raise ValueError("a column ends beyond the file")
    return np.frombuffer(body, dtype, count, column["offset"]).reshape(column["shape"])


_SIZE = schema.Integer(0, 2**48)


def _flag(value: Any, where: str) -> bool:
    if type(value) is not bool:
        raise RecordError(f"{where} must be true or false, got {value!r:.80}")
    return value


_HEADER = {
    "arrays": schema.List(
        schema.Fields(
            name=schema.Text(4096),
            item_shape=schema.List(_SIZE),
            dtype=schema.Text(2**16),
            path=schema.Text(4096),
            form=schema.Text(16),
            packing=schema.Text(4096),
            axis=schema.Integer(0, 64),
            member=schema.Text(4096),
        ),
        at_least=1,
    ),
    "inner": schema.Fields(
        kind=schema.Text(16),
        arrays=schema.List(schema.Text(4096)),
        only=schema.Optional(schema.Text(4096)),
        missing=schema.Optional(schema.Text(4096)),
        whole=_flag,
    ),
    "columns": schema.Json(schema.Fields(shape=schema.List(_SIZE, at_least=1), offset=_SIZE)),
    "bytes": _SIZE,
    "blake2b": schema.Text(64),
}
