"""Layouts: which arrays of a known kind of files hold the samples, by name instead of by key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from globidx.core import validate

#: Layouts that are only the names of their arrays.
_KEYS = {"cxi": ("entry_1/data_1/data",), "peaknet": ("images", "labels")}
#: Layouts whose arrays are looked up in each file.
FOLLOWED = ("nexus", "anndata", "ome")
NAMES = ("auto", *_KEYS, *FOLLOWED, "tokens:LENGTH")


@dataclass(frozen=True)
class Layout:
    """Which arrays to read from each file: ``keys``, or the only one; or those that ``rule`` finds.

    A ``length`` above 0 cuts a one-dimensional array into sequences of that many tokens; the rest
    at the end of a file is left out. ``allow_external`` says whether arrays may have data in files
    outside the folder of their file.
    """

    keys: tuple[str, ...] | None = None
    rule: str | None = None
    length: int = 0
    allow_external: bool = field(default=False, repr=False)

    @property
    def form(self) -> str:
        """What an item is, unless a rule says otherwise."""
        return "tokens" if self.length else "plain"

    def along(self, axis: int) -> Layout:
        """Return this layout; ValueError if its items cannot be along ``axis``."""
        if axis and (self.length or self.rule == "anndata"):
            raise ValueError(
                f"layout {self.rule or f'tokens:{self.length}'!r} has its items along axis 0, not {axis}"
            )
        return self


def parse(layout: Any, key: Any) -> Layout:
    """Return the layout that a user named; ValueError for an unknown name, or a key that it does not allow.

    >>> parse(None, "images")
    Layout(keys=('images',), rule=None, length=0)
    >>> parse("tokens:1024", None)
    Layout(keys=None, rule=None, length=1024)
    >>> parse("imagenet", None)
    Traceback (most recent call last):
    ...
    ValueError: layout must be one of auto, cxi, peaknet, nexus, anndata, ome, tokens:LENGTH, got 'imagenet'
    """
    keys = _keys(key)
    name = "auto" if layout is None else layout
    if name == "auto":
        return Layout(keys)
    if isinstance(name, str) and name.split(":")[0] == "tokens":
        length = name.partition(":")[2]
        if (
            not (length.isascii() and length.isdigit())
            or not 1 <= int(length[:20]) <= validate.INT64_MAX
        ):
            raise ValueError(
                f"layout {name!r} does not give the length of a sequence; write tokens:LENGTH, such as tokens:1024"
            )
        if keys is not None and len(keys) > 1:
            raise ValueError(
                f"layout {name!r} cuts one array, but key names {len(keys)}: {keys}; pass one name"
            )
        return Layout(keys, length=int(length))
    if name not in NAMES:
        raise ValueError(f"layout must be one of {', '.join(NAMES)}, got {layout!r}")
    if name == "anndata":
        return Layout(keys or ("X",), rule=name)
    if keys is not None:
        raise ValueError(
            f"layout {name!r} has its own arrays, so that key={key!r} has no use; leave key out"
        )
    return Layout(rule=name) if name in FOLLOWED else Layout(_KEYS[name])


def _keys(key: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if key is None:
        return None
    if not isinstance(key, Iterable):
        raise TypeError(f"key must be a str or a sequence of str, got {key!r}")
    keys = (key,) if isinstance(key, str) else tuple(key)
    if not keys or not all(isinstance(name, str) and name.strip("/") for name in keys):
        raise ValueError(f"key must name an array, or several, got {key!r}")
    keys = tuple("/".join(part for part in name.split("/") if part) for name in keys)
    if any(part in (".", "..") for name in keys for part in name.split("/")):
        raise ValueError(
            f"key must name an array inside the file, without '.' and '..', got {key!r}"
        )
    if len(set(keys)) < len(keys):
        raise ValueError(f"key names an array twice: {key!r}")
    return keys
