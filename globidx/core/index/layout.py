"""Layouts: which arrays of a known kind of files hold the samples, by name instead of by key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from globidx.core import validate
from globidx.core.cached import cached_property
from globidx.core.index.families import FAMILIES
from globidx.core.index.patterns import (
    Pattern,
    expanded,
    has_stars,
    require_alike,
    without_brackets,
)

#: Layouts that are only the names of their arrays.
_KEYS = {"cxi": ("entry_1/data_1/data",), "peaknet": ("images", "labels")}
#: Layouts whose arrays are looked up in each file.
FOLLOWED = ("nexus", "anndata", "ome")
NAMES = ("auto", *_KEYS, *FOLLOWED, *FAMILIES, "tokens:LENGTH")


@dataclass(frozen=True)
class Inner:
    """Where the sequences inside a file are, and which of its rows are missing.

    Attributes
    ----------
    kind : {"file", "match", "axis", "ends", "runs"}
        What a sequence is: the file, each group that the keys match, each place along the first
        axis, or runs of rows that ``arrays`` tell by their ends, or by their starts and lengths.
    arrays : tuple of str
        The array of ends, or those of starts and of lengths.
    only : str, optional
        An array that lists the names of the sequences to use.
    missing : str, optional
        An array that tells the rows that are missing.
    whole : bool
        Whether each array of a match, or of a file, is given as it is: of its own shape, single
        values too.
    """

    kind: str = "file"
    arrays: tuple[str, ...] = ()
    only: str | None = None
    missing: str | None = None
    whole: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether the arrays of samples alone tell all."""
        # by parts: it is asked for each file
        return self.kind == "file" and self.only is None and self.missing is None and not self.whole


#: A file whose rows are samples, or one sequence.
PLAIN = Inner()


@dataclass(frozen=True)
class Layout:
    """Which arrays to read from each file: ``keys``, or the only one; or those that ``rule`` finds.

    A ``length`` above 0 cuts a one-dimensional array into sequences of that many tokens; the rest
    at the end of a file is left out. ``names`` are those of the fields, if not the keys. ``axes``
    say for each key along which axis its rows lie, unless that is the same for all. ``inner`` says
    where sequences are. ``everything`` is the key of the groups of which ``keys`` are all arrays,
    "" for the file itself; None where keys were named one by one. ``allow_external`` says whether
    arrays may have data in files outside the folder of their file. ``storage_options`` are
    fsspec's, for files by URL.
    """

    keys: tuple[str, ...] | None = None
    rule: str | None = None
    length: int = 0
    names: tuple[str, ...] | None = None
    axes: tuple[int, ...] = ()
    inner: Inner = PLAIN
    everything: str | None = None
    allow_external: bool = field(default=False, repr=False)
    # neither is part of what an index is over, and these may be secret
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)

    @property
    def form(self) -> str:
        """What an item is, unless a rule says otherwise."""
        if self.inner.kind == "axis":
            return "stacked"
        if self.inner.whole:
            return "whole"
        return "tokens" if self.length else "plain"

    @property
    def is_direct(self) -> bool:
        """Whether there is nothing to look for in a file: the arrays are named, or it is one itself."""
        return self.rule is None and self.inner.is_plain

    @property
    def is_plain(self) -> bool:
        """Whether the keys are paths of arrays, and there is nothing else to look at in a file."""
        return self.keys is not None and self.is_direct

    def form_along(self, axis: int) -> str:
        """What an item of a field is whose rows lie along ``axis``."""
        # beside arrays of many sequences, one that is the same for all of them
        return "plain" if self.inner.kind == "axis" and not axis else self.form

    @cached_property
    def field_names(self) -> tuple[str, ...]:
        """The names of the fields: those given, or the keys without what they say of rows."""
        if self.names is not None:
            return self.names
        keys = self.keys or ()
        short = tuple(map(without_brackets, keys))
        return short if len(set(short)) == len(short) else keys

    def fields(self, axis: int) -> list[tuple[str, str, int]]:
        """Name, key and axis of each field, ``axis`` where it has none of its own.

        It is for keys that are known.
        """
        keys = self.keys or ()
        return list(zip(self.field_names, keys, self.axes or (axis,) * len(keys), strict=True))

    def along(self, axis: int | Mapping[str, int]) -> tuple[Layout, int]:
        """This layout with its rows along ``axis``, which is one for all or by field.

        All others get an axis as well. Below 0 it counts from the end of each array's own axes.

        Raises
        ------
        TypeError, ValueError
            If rows cannot lie along an axis, or a field has no such name.
        """
        stacked = self.inner.kind == "axis"
        if not isinstance(axis, Mapping):
            along = validate.integer(axis, "axis", low=-64, high=63)
            if stacked and along:
                raise ValueError(
                    f"axis={along} has no use: with sequences='axis' sequences lie along axis 0, and rows along axis 1"
                )
            return self._along(along + stacked), along + stacked
        names = self.field_names
        if unknown := [name for name in axis if name not in names]:
            raise ValueError(f"axis names {unknown[0]!r}, which is no field; there is {names}")
        given = {
            name: validate.integer(one, f"axis of {name!r}", low=-64, high=63)
            for name, one in axis.items()
        }
        axes = tuple(given.get(name, int(stacked)) for name in names)
        if stacked and not any(axes):
            raise ValueError(
                "with sequences='axis', axis 0 is that of the sequences, and rows lie along another; axis=0 is for a "
                "field that has no such axis, beside others that have"
            )
        layout = replace(self, axes=axes if len(set(axes)) > 1 else ())
        return layout._along(max(axes)), axes[0]

    def _along(self, axis: int) -> Layout:
        if axis and (self.length or self.rule == "anndata"):
            raise ValueError(
                f"layout {self.rule or f'tokens:{self.length}'!r} has its items along axis 0, not {axis}"
            )
        return self


def parse(layout: Any, key: Any) -> Layout:
    """Return the layout that a user named.

    ValueError for an unknown name, or a key that it does not allow.

    >>> parse(None, "images").keys, parse("tokens:1024", None).length
    (('images',), 1024)
    >>> parse(None, {"obs/image": "data/*/obs/agentview_image"}).names
    ('obs/image',)
    >>> parse("imagenet", None)
    Traceback (most recent call last):
    ...
    ValueError: layout must be one of auto, cxi, peaknet, nexus, anndata, ome, aloha, diffusion-policy, eiger, \
robomimic, the-well, tokens:LENGTH, got 'imagenet'
    """
    keys, names = _keys(key)
    name = "auto" if layout is None else layout
    if name == "auto":
        return Layout(keys, names=names)
    if names is not None:
        raise ValueError(
            f"layout {layout!r} names its fields itself; give key as a name or a list of names"
        )
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
    if name not in NAMES or name in FAMILIES:
        raise ValueError(f"layout must be one of {', '.join(NAMES)}, got {layout!r}")
    if name == "anndata":
        return Layout(keys or ("X",), rule=name)
    if keys is not None:
        raise ValueError(
            f"layout {name!r} has its own arrays, so that key={key!r} has no use; leave key out"
        )
    return Layout(rule=name) if name in FOLLOWED else Layout(_KEYS[name])


def in_sequences(
    layout: Layout,
    sequences: Any,
    *,
    only: str | None = None,
    missing: str | None = None,
    whole: bool = False,
) -> Layout:
    """Return the layout whose rows lie in ``sequences``, as a user names them.

    With ``whole``, a sample is a sequence; then arrays of a match or file need not be aligned.

    Raises
    ------
    TypeError, ValueError
        If there are no such sequences, or the layout has none.

    Examples
    --------
    >>> in_sequences(parse(None, "data/*/actions"), "match").names
    ('actions',)
    >>> in_sequences(parse(None, "images"), "meta/episode_ends").inner.arrays
    ('meta/episode_ends',)
    """
    kind, arrays = _kind(sequences)
    keys = layout.keys or ()
    starred = [key for key in keys if has_stars(key)]
    if kind == "match":
        if len(starred) < max(1, len(keys)) or layout.rule is not None:
            plain = next((key for key in keys if key not in starred), None)
            raise ValueError(
                f"sequences='match' takes a sequence for each group that the keys match, and "
                f"{'there is no key' if plain is None else f'key {plain!r} has no *'}: write data/*/name"
            )
        require_alike(keys)
        if layout.names is None:
            layout = replace(layout, names=_behind_stars(keys))
    elif starred:
        raise ValueError(
            f"key {starred[0]!r} has a *, which matches groups of a file: pass sequences='match'"
        )
    if kind != "file" and layout.length:
        raise ValueError(
            f"layout 'tokens:{layout.length}' cuts files into sequences itself; leave sequences out"
        )
    if only is not None and kind == "file" and sequences != "row":
        raise ValueError(
            f"only={only!r} names an array that lists sequences inside a file; with sequences={sequences!r} "
            "give a list of names or a function of a name"
        )
    # rows of one array are cut for each sequence of a chain; those that a rule finds are aligned
    is_apart = whole and sequences in ("file", "match") and not (layout.rule or layout.length)
    return replace(
        layout,
        inner=Inner(kind, arrays, _path(only, "only"), _path(missing, "missing"), is_apart),
    )


def _kind(sequences: Any) -> tuple[str, tuple[str, ...]]:
    if sequences in ("row", "file", "chain"):
        return "file", ()
    if sequences in ("match", "axis"):
        return sequences, ()
    if isinstance(sequences, str) and sequences.strip("/"):
        return "ends", (_clean(sequences),)
    if (
        isinstance(sequences, (tuple, list))
        and len(sequences) == 2
        and all(isinstance(one, str) and one.strip("/") for one in sequences)
    ):
        return "runs", tuple(map(_clean, sequences))
    raise ValueError(
        "sequences must be 'row', 'file', 'chain', 'match', 'axis', the name of an array of ends, or those of an array "
        f"of starts and one of lengths, got {sequences!r}"
    )


def _path(key: str | None, what: str) -> str | None:
    if key is not None and not key.strip("/"):
        raise ValueError(f"{what} must name an array, got {key!r}")
    return None if key is None else _clean(key)


def _clean(key: str) -> str:
    return "/".join(part for part in key.split("/") if part)


def _behind_stars(keys: Sequence[str]) -> tuple[str, ...]:
    """Names for the fields of keys that match: what stands behind the last star."""
    names = tuple(Pattern(key).field or key for key in keys)
    if len(set(names)) < len(names):
        raise ValueError(
            f"keys {keys} give fields the same name; name them: key={{'image': 'data/*/image', ...}}"
        )
    return names


def _keys(key: Any) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """The keys that a user gave, without braces, and the names of their fields if he gave those."""
    if key is None:
        return None, None
    if isinstance(key, Mapping):
        names, keys = _renamed(key)
    elif isinstance(key, Iterable):
        names, keys = None, [key] if isinstance(key, str) else list(key)
    else:
        raise TypeError(f"key must be a str, a sequence of str or a mapping to str, got {key!r}")
    if not keys or not all(isinstance(name, str) and name.strip("/") for name in keys):
        raise ValueError(f"key must name an array, or several, got {key!r}")
    spelled = keys if names is not None else [one for name in keys for one in expanded(name)]
    paths = tuple(map(_clean, spelled))
    if any(part in (".", "..") for name in paths for part in name.split("/")):
        raise ValueError(
            f"key must name an array inside the file, without '.' and '..', got {key!r}"
        )
    if len(set(paths)) < len(paths) and names is None:
        raise ValueError(f"key names an array twice: {key!r}")
    return paths, names


def _renamed(key: Mapping[Any, Any]) -> tuple[tuple[str, ...], list[Any]]:
    """Names and keys of fields, braces on both sides expanded alike.

    One name for several arrays is that of the dict that has them, by what their braces hold.

    >>> _renamed({"jet": "jets/{pt,eta}"})
    (('jet/pt', 'jet/eta'), ['jets/pt', 'jets/eta'])
    """
    names, keys = list[str](), list[Any]()
    for name, path in key.items():
        if not isinstance(name, str) or not name.strip("/"):
            raise ValueError(f"key must give each field a name, got {name!r}")
        several = expanded(path) if isinstance(path, str) else [path]
        called = expanded(_clean(name))
        if len(called) == 1 < len(several):
            before = path.index("{")
            called = [f"{called[0]}/{_clean(one[before:])}" for one in several]
        if len(several) != len(called):
            raise ValueError(
                f"key gives {len(called)} names for {len(several)} arrays: {name!r} for {path!r}; use the same braces"
            )
        names += called
        keys += several
    require_apart(names, "key")
    return tuple(names), keys


def require_apart(names: Sequence[str], what: str) -> None:
    """ValueError if two names cannot both be in one nested dict.

    They are the same, or one is inside the other.
    """
    for name in sorted(names):
        if names.count(name) > 1:
            raise ValueError(f"{what} names {name!r} twice")
        inside = next((one for one in names if one.startswith(name + "/")), None)
        if inside is not None:
            raise ValueError(f"{what} names both {name!r} and {inside!r}, which lies inside it")
