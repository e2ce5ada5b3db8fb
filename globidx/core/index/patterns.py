"""Patterns: keys with ``*``, ``**`` and braces, which match many groups of one file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from globidx.core.cached import cached_property

#: Groups that are looked into for ``**``; no file nests deeper but by a circle of links.
_DEPTH = 64
_RUNS = re.compile(r"([^\[\]]+)\[([^\[\],:]*)(?:([,:])([^\[\],:]+))?\]")
_LOOSE = "[...]"
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Pattern:
    """A key whose parts with ``*`` match one group each.

    Its part ``**`` matches any depth of groups.

    A *match* is named by the groups that the parts with a star stand for, joined by slashes. All
    keys of an index have the same parts with stars, so that one name tells the paths of all.

    >>> pattern = Pattern("data/demo_*/obs/image")
    >>> pattern.stars, pattern.stem, pattern.path("demo_3"), pattern.field
    (('demo_*',), ('data', 'demo_*'), 'data/demo_3/obs/image', 'obs/image')
    >>> Pattern("**/x").path("a/b")
    'a/b/x'
    """

    key: str

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The key between its slashes."""
        return tuple(self.key.split("/"))

    @cached_property
    def stars(self) -> tuple[str, ...]:
        """The parts that match."""
        return tuple(part for part in self.parts if "*" in part)

    @cached_property
    def stem(self) -> tuple[str, ...]:
        """The parts up to the last one that matches."""
        last = max((index for index, part in enumerate(self.parts) if "*" in part), default=-1)
        return self.parts[: last + 1]

    @property
    def field(self) -> str:
        """What stands behind the last part that matches: the name of a field without another."""
        return "/".join(self.parts[len(self.stem) :])

    @cached_property
    def _between(self) -> list[str]:
        """The text before, between and behind the parts that match."""
        return "/".join("\0" if "*" in part else part for part in self.parts).split("\0")

    def path(self, name: str) -> str:
        """The path of what the match of that name has at this key."""
        between = self._between
        if len(between) == 2 and name:
            return between[0] + name + between[1]
        bound = [*self._bound(name), ""]
        path = "".join(text + group for text, group in zip(between, bound, strict=True))
        # ** may stand for no group at all
        return path.replace("//", "/").strip("/")

    def _bound(self, name: str) -> list[str]:
        """What each part with a star stands for."""
        groups, stars = name.split("/"), self.stars
        if not stars:
            return []
        if "**" not in stars:
            return groups
        # there is one ** at most: what the parts before and behind it do not take is its own
        at = stars.index("**")
        behind = len(stars) - at - 1
        stop = len(groups) - behind
        return [*groups[:at], "/".join(groups[at:stop]), *groups[stop:]]


def has_stars(key: str) -> bool:
    """Whether a key matches many arrays of a file."""
    return "*" in key


class Runs(NamedTuple):
    """An array whose rows lie in runs, and the arrays that tell the runs.

    Parameters
    ----------
    array : str
        The array of rows.
    tell : tuple of str
        The one or two arrays that tell where each run begins and ends.
    by : {"offsets", "ends", "lengths", "stops"}
        What they hold: the offset of each run and of the end of all; the end of each, where the
        next one begins; starts and lengths; or starts and ends.
    """

    array: str
    tell: tuple[str, ...]
    by: Literal["offsets", "ends", "lengths", "stops"]

    def count(self, entries: int) -> int:
        """How many runs so many entries tell."""
        return entries - (self.by == "offsets")


def runs_of(key: str) -> Runs | None:
    """The runs that a key names; None for other keys. With a colon it is written as Python's slices are.

    >>> runs_of("tokens[offsets]")
    Runs(array='tokens', tell=('offsets',), by='offsets')
    >>> runs_of("data/x[start,length]").by, runs_of("x[start:stop]").by, runs_of("x[:ends]").by
    ('lengths', 'stops', 'ends')
    >>> runs_of("labels[*]"), runs_of("x[start:]")
    (None, None)
    """
    found = _RUNS.fullmatch(key)
    if found is None or found[2] in ("*", "..."):
        return None
    array, first, sign, last = found.groups()
    tell = tuple(part.strip().strip("/") for part in (first, last) if part)
    if sign == ":":
        return Runs(array, tell, "stops" if first else "ends")
    if not first:
        return None
    return Runs(array, tell, "lengths" if last else "offsets")


def loose(key: str) -> str | None:
    """The array in a key whose items may have any shape; None for other keys.

    >>> loose("data/images[...]"), loose("data/images")
    ('data/images', None)
    """
    return key.removesuffix(_LOOSE) if key.endswith(_LOOSE) else None


def without_brackets(key: str) -> str:
    """A key without what it says of the rows of its array: the name of its field.

    >>> without_brackets("tokens[offsets]"), without_brackets("images[...]")
    ('tokens', 'images')
    """
    runs = runs_of(key)
    return loose(key) or (runs.array if runs else key)


def expanded(key: str) -> list[str]:
    """The keys that a key with braces stands for.

    >>> expanded("data/*/{obs/{image,wrist},actions}")
    ['data/*/obs/image', 'data/*/obs/wrist', 'data/*/actions']
    """
    start = key.find("{")
    stop = _closing(key, start)
    if stop < 0:
        return [key]
    choices = (key[:start] + part + key[stop + 1 :] for part in _choices(key[start + 1 : stop]))
    return list(dict.fromkeys(one for choice in choices for one in expanded(choice)))


def _closing(text: str, start: int) -> int:
    """Where the brace at ``start`` is closed; -1 if it is not, or there is none."""
    depth = 0
    for index in range(start, len(text)) if start >= 0 else ():
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if not depth:
            return index
    return -1


def _choices(text: str) -> list[str]:
    """The parts of ``text`` between commas that stand in no braces of their own."""
    parts, depth = [""], 0
    for character in text:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def require_alike(keys: Iterable[str]) -> None:
    """ValueError if keys do not match the same groups, or match in a way that no name can tell."""
    first, *others = (Pattern(key) for key in keys)
    for other in others:
        if other.stars != first.stars:
            raise ValueError(
                f"keys {first.key!r} and {other.key!r} match different groups; all keys must have the same parts "
                "with a star, in the same sequence"
            )
    if first.stars.count("**") > 1:
        raise ValueError(f"key {first.key!r} has ** twice; one can say where groups begin")
    if any("**" in part and part != "**" for part in first.stars):
        raise ValueError(
            f"key {first.key!r} has ** beside other text; it stands alone between slashes"
        )


def matches(pattern: Pattern, groups: Callable[[str], Iterable[str]]) -> Iterator[str]:
    """The names of the groups that the stem of ``pattern`` matches, in the sequence of ``groups``.

    ``groups(path)`` lists what a group holds; nothing for what is no group.
    """
    yield from _matches("", pattern.stem, groups, "", 0)


def _matches(
    path: str,
    parts: tuple[str, ...],
    groups: Callable[[str], Iterable[str]],
    name: str,
    depth: int,
) -> Iterator[str]:
    if not parts:
        yield name
        return
    part, rest = parts[0], parts[1:]
    if "*" not in part:
        yield from _matches(_join(path, part), rest, groups, name, depth)
        return
    if part == "**":
        # no group at all is a match of ** as well
        yield from _matches(path, rest, groups, name, depth)
        if depth < _DEPTH:
            for child in groups(path):
                below = _join(path, child)
                yield from _matches(below, parts, groups, _join(name, child), depth + 1)
        return
    # DOTALL, because a name may hold a line break
    fits = re.compile(".*".join(map(re.escape, part.split("*"))), re.DOTALL).fullmatch
    for child in groups(path):
        if fits(child):
            yield from _matches(_join(path, child), rest, groups, _join(name, child), depth)


def natural(name: str) -> tuple[list[str | int], str]:
    """A sort key that orders numbers in names by value.

    Examples
    --------
    >>> sorted(["demo_10", "demo_2", "demo_1"], key=natural)
    ['demo_1', 'demo_2', 'demo_10']
    """
    # the parts alternate, text first, so that text meets text and a number meets a number
    parts: list[str | int] = list(_DIGITS.split(name))
    parts[1::2] = map(int, parts[1::2])
    # equal values written differently still have an order
    return parts, name


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name
