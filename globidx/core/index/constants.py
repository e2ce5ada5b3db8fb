"""Constants: what belongs to a sequence or a file as a whole.

They are given with each of its samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from globidx.core.index.layout import Layout, require_apart
from globidx.core.index.patterns import Pattern, has_stars

#: What ends the path of an array that has an entry for each sequence of its file.
_EACH = "[*]"


@dataclass(frozen=True)
class Constant:
    """One constant: an array, an attribute, or an entry of an array.

    Parameters
    ----------
    name : str
        Its name in a sample; slashes nest.
    path : str
        The array or group in the file, with the stars of the keys where it belongs to a match; ""
        is the root of the file.
    attribute : str, optional
        The attribute there; None for the array itself.
    is_entry : bool
        Whether the array has an entry for each sequence of the file, which is what is given.

    Examples
    --------
    >>> Constant.parse("text", "data/*@instruction")
    Constant(name='text', path='data/*', attribute='instruction', is_entry=False)
    >>> Constant.parse("label", "labels[*]").is_entry
    True
    """

    name: str
    path: str
    attribute: str | None = None
    is_entry: bool = False

    @classmethod
    def parse(cls, name: str, spelled: str) -> Constant:
        """The constant as a user spells it.

        Parameters
        ----------
        name : str
            Its name in a sample.
        spelled : str
            ``path``, ``path@attribute``, ``@attribute`` of the file, or ``path[*]``.

        Returns
        -------
        Constant
            What is named.

        Raises
        ------
        ValueError
            If it names nothing.
        """
        path, at, attribute = spelled.partition("@")
        is_entry = path.endswith(_EACH)
        path = "/".join(part for part in path.removesuffix(_EACH).split("/") if part)
        if (at and not attribute) or not (path or attribute) or (is_entry and at):
            raise ValueError(
                f"constant {name!r} must be 'path', 'path@attribute', '@attribute' or 'path[*]', got {spelled!r}"
            )
        return cls(name, path, attribute or None, is_entry)

    @property
    def is_of_match(self) -> bool:
        """Whether each match of the keys has its own."""
        return has_stars(self.path)

    def path_in(self, match: str) -> str:
        """Where it lies for a match.

        Parameters
        ----------
        match : str
            The name of the match: what the stars stand for, joined by slashes.

        Returns
        -------
        str
            The path in the file.
        """
        return Pattern(self.path).path(match) if self.is_of_match else self.path

    def __str__(self) -> str:
        return (
            self.path
            + ("" if self.attribute is None else f"@{self.attribute}")
            + (_EACH if self.is_entry else "")
        )


def parse_constants(constants: Any, layout: Layout) -> tuple[Constant, ...]:
    """The constants that a user asked for.

    Raises
    ------
    TypeError, ValueError
        If they are no mapping of names to paths, or match groups that the keys do not.
    """
    if constants is None:
        return ()
    if not isinstance(constants, Mapping) or not all(
        isinstance(text, str) for pair in constants.items() for text in pair
    ):
        raise TypeError(f"constants must be a dict of names to paths, got {constants!r:.80}")
    parsed = tuple(Constant.parse(name, spelled) for name, spelled in constants.items())
    require_apart([one.name for one in parsed], "constants")
    for one in parsed:
        if one.is_entry and (one.is_of_match or layout.inner.kind == "file"):
            raise ValueError(
                f"constant {one.name!r} is {str(one)!r}, an entry for each sequence inside a file: it takes one array "
                "of the file, and sequences='match', 'axis' or the name of an array of ends"
            )
        if not one.is_of_match:
            continue
        if layout.inner.kind != "match":
            raise ValueError(
                f"constant {one.name!r} is {str(one)!r}, which matches groups; that goes with sequences='match'"
            )
        stars = Pattern((layout.keys or ("",))[0]).stars
        # one name of a match must tell the paths of its fields and of its constants
        if Pattern(one.path).stars != stars:
            raise ValueError(
                f"constant {one.name!r} is {str(one)!r}, but the keys match {stars}; use the same parts with a star"
            )
    return parsed
