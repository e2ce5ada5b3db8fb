"""FIFOs in zarr stores.

zarr opens what is named as metadata or as a chunk, and would wait for a writer for ever.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Sequence

from globidx.disk.stores.base import ZARR_MARKERS

_METADATA = (*ZARR_MARKERS, ".zattrs", ".zmetadata")


def refuse_pipes(path: str, keys: Sequence[str] | None) -> None:
    """ValueError where metadata of a node is no regular file.

    Looked at are the nodes on the way to ``keys``, or all.
    """
    ways = (key.strip("/").split("/") for key in keys or ())
    named = sorted({"/".join(way[:end]) for way in ways for end in range(len(way) + 1)})
    for node in named if keys is not None else _nodes(path):
        for marker in _METADATA:
            refuse_pipe(os.path.join(path, node, marker))


def refuse_pipe(path: str) -> None:
    """ValueError where a file is there that can be waited for."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ValueError(f"{path} is no regular file; it is not opened")


def _nodes(path: str, node: str = "") -> Iterator[str]:
    """The folders that may be nodes, each before its content; folders in an array are none."""
    yield node
    folder = os.path.join(path, node)
    if os.path.exists(f"{folder}/.zarray") or _is_array(f"{folder}/zarr.json"):
        return
    with os.scandir(folder) as listing:
        # links are not followed, for they may lead in a circle
        names = sorted(entry.name for entry in listing if entry.is_dir(follow_symlinks=False))
    for name in names:
        yield from _nodes(path, os.path.join(node, name))


def _is_array(marker: str) -> bool:
    try:
        with open(marker, "rb") as file:
            metadata = json.load(file)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(metadata, dict) and metadata.get("node_type") == "array"
