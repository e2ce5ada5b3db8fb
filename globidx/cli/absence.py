"""Absent chunks as ``globidx index info --absent`` shows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from globidx.disk.index.absent import choice

if TYPE_CHECKING:
    from globidx.disk.index.absent import Extent

#: Arrays, and files of each, that are listed for people; JSON lists all of them.
_MOST_ARRAYS = 10
_MOST_FILES = 3


def as_json(found: Extent) -> dict[str, Any]:
    """What is absent, as JSON values: by array, and by file where there is any."""
    arrays = [
        {
            "name": one.array,
            "chunks": one.of,
            "absent": one.chunks,
            "rows": one.rows,
            "fill_values": list(one.fills),
            "files": [
                {"path": path, "chunks": of, "absent": absent} for path, absent, of in one.files
            ],
        }
        for one in found.arrays
    ]
    return {
        "chunks": sum(one.of for one in found.arrays),
        "absent": sum(one.chunks for one in found.arrays),
        "arrays": arrays,
        "not_looked_at": [list(pair) for pair in found.unknown],
        "choice": choice(one.array for one in found.lacking) if found.lacking else None,
    }


def in_lines(found: Extent) -> Iterator[str]:
    """What is absent, for people."""
    lacking, whole = found.lacking, len(found.arrays) - len(found.lacking)
    for one in lacking[:_MOST_ARRAYS]:
        yield f"absent       {one}"
        for path, absent, of in one.files[:_MOST_FILES]:
            yield f"             {absent} of {of} in {path}"
        if len(one.files) > _MOST_FILES:
            yield f"             and in {len(one.files) - _MOST_FILES} more files"
    if len(lacking) > _MOST_ARRAYS:
        yield f"             {len(lacking) - _MOST_ARRAYS} more arrays lack chunks"
    if whole:
        chunks = sum(one.of for one in found.arrays if not one.chunks)
        others = "other " if lacking else ""
        yield f"absent       none of {chunks} chunks of {whole} {others}array{'s' * (whole != 1)}"
    if lacking:
        yield f"             to read fill values: {choice(one.array for one in lacking)}"
    for path, reason in found.unknown[:_MOST_FILES]:
        yield f"problem      {path}: {reason}"
    if len(found.unknown) > _MOST_FILES:
        yield f"and {len(found.unknown) - _MOST_FILES} more files that cannot be looked at"
