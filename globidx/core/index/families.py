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
        The groups that are sequences, as a pattern; "" if the file's own arrays are meant.
    above : str
        What fields leave out of the path of their array.
    varies : tuple of str
        Attributes that must be true of an array; others are constants.

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

    def keys(self, arrays: Callable[[str], list[str]]) -> dict[str, str]:
        """The keys of its fields, by name.

        ``arrays(pattern)`` lists arrays of a file, in natural order.

        ValueError where the file has none of them.
        """
        listed = [
            self._parted(path)
            for pattern in self.arrays
            for path in arrays(f"{self.match}/{pattern}" if self.match else pattern)
        ]
        # one match tells for all: what others lack is an error when they are scanned
        first = min((group for _, group in listed), key=natural, default="")
        within = self.match or self.above
        found = {name: f"{within}/{name}".lstrip("/") for name, group in listed if group == first}
        if not found:
            raise ValueError(
                f"its arrays are not those of this layout, which has {', '.join(self.arrays)}"
                + (f" below {self.match}" if self.match else "")
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
