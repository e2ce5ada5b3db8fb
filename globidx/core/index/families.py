"""Families of files that many projects train on, each known by one word: their arrays, and what a sequence is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from globidx.core.index.patterns import Pattern, natural


@dataclass(frozen=True)
class Family:
    """How the files of a family are laid out.

    Parameters
    ----------
    sequences : str
        What a sequence is, as ``GlobalIndexManager`` takes it.
    arrays : tuple of str
        Patterns of arrays, those that a file has of them; below ``match`` where there is one.
    match : str
        The groups that are sequences, as a pattern; "" if the file's own arrays are meant. With the
        pattern "" in ``arrays``, what matches are the arrays themselves.
    above : str
        What fields leave out of the path of their array.
    varies : tuple of str
        Attributes that must be true of an array; others are constants.
    own : str
        The field's name where what matches is the array itself.

    Examples
    --------
    >>> FAMILIES["robomimic"].match, FAMILIES["diffusion-policy"].sequences
    ('data/*', 'meta/episode_ends')
    """

    sequences: str
    arrays: tuple[str, ...]
    match: str = ""
    above: str = ""
    varies: tuple[str, ...] = ()
    own: str = ""

    def keys(self, arrays: Callable[[str], list[str]]) -> dict[str, str]:
        """The keys of its fields, by name.

        ``arrays(pattern)`` lists arrays of a file, in natural order.

        ValueError where the file has none of them.
        """
        listed = [
            self._parted(path)
            for pattern in self.arrays
            for path in arrays(f"{self.match}/{pattern}".strip("/"))
        ]
        # one match tells for all: what others lack is an error when they are scanned
        first = min((group for _, group in listed), key=natural, default="")
        within = self.match or self.above
        found = {
            name or self.own: f"{within}/{name}".strip("/")
            for name, group in listed
            if group == first
        }
        if not found:
            below = f" below {self.match}" if self.match else ""
            raise ValueError(
                "its arrays are not those of this layout, which has "
                + (self.match if self.own else ", ".join(self.arrays) + below)
            )
        return found

    def _parted(self, path: str) -> tuple[str, str]:
        """The name of the field at ``path``, and the match that it is of."""
        if not self.match:
            return path.removeprefix(f"{self.above}/"), ""
        depth = len(Pattern(self.match).parts)
        parts = path.split("/")
        return "/".join(parts[depth:]), "/".join(parts[:depth])


#: By the word that ``layout=`` takes.
FAMILIES = {
    "aloha": Family(
        "file", ("action", "observations/qpos", "observations/qvel", "observations/images/*")
    ),
    "diffusion-policy": Family("meta/episode_ends", ("data/*",), above="data"),
    # a master file links to the files that the detector filled, one behind the other
    "eiger": Family("match", ("",), match="entry/data/data_*", own="data"),
    "robomimic": Family(
        "match",
        ("obs/*", "next_obs/*", "actions", "rewards", "dones", "states"),
        match="data/*",
    ),
    "the-well": Family(
        "axis",
        ("t0_fields/*", "t1_fields/*", "t2_fields/*"),
        varies=("sample_varying", "time_varying"),
    ),
}
