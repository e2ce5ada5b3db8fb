"""Which samples a user asks for: sequences, a window, and what to leave out.

It is checked once for every look.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate
from globidx.core.index.layout import Layout, in_sequences
from globidx.core.index.names import Names
from globidx.core.index.patterns import natural
from globidx.core.index.table import Table
from globidx.core.windows.anchors import ALL, Window
from globidx.core.windows.sampling import Sampling
from globidx.core.windows.sequence_table import SequenceTable
from globidx.core.windows.sequences import sides
from globidx.disk.files.paths import Paths, is_remote

ChainBy = str | Callable[[str], Any] | None


@dataclass(frozen=True)
class Side:
    """One side of a split of the sequences; ``depth`` splits came before it."""

    fraction: float
    seed: int
    is_first: bool
    depth: int = 0

    def mask(self, names: Iterable[bytes]) -> NDArray[np.bool_]:
        """Which sequences of these names are on it."""
        first = sides(names, self.fraction, self.seed, depth=self.depth)
        return first if self.is_first else ~first


@dataclass(frozen=True)
class SampleSpec:
    """Windows over sequences, as a user asks for them.

    ``only`` is a list of names or a function of a name, ``missing`` rows that are not there,
    ``chain_by`` what files of a chain have in common, and ``split`` the sides of splits, one inside
    the other.
    """

    sequences: str
    window: Window
    only: frozenset[str] | Callable[[str], Any] | None = None
    missing: tuple[int, ...] | None = None
    chain_by: ChainBy = None
    split: tuple[Side, ...] = ()

    @classmethod
    def of(
        cls,
        layout: Layout,
        *,
        sequences: Any = "row",
        window: Any = None,
        only: Any = None,
        missing: Any = None,
        chain_by: ChainBy = None,
    ) -> tuple[Layout, SampleSpec | None]:
        """The layout whose files have these sequences, and what to take of them.

        None where a row is a sample.

        Raises
        ------
        TypeError, ValueError
            If an option is of another kind, or has no use beside another.
        """
        if isinstance(sequences, str) and sequences == "row":
            others = {"window": window, "only": only, "missing": missing, "chain_by": chain_by}
            for name, given in others.items():
                if given is not None:
                    raise ValueError(
                        f"{name}={given!r:.80} is about sequences, and with sequences='row' each row is one: pass "
                        "sequences='file', 'chain', 'match', 'axis' or the name of an array of ends"
                    )
            return in_sequences(layout, sequences), None
        in_files = {
            name: given
            for name, given in (("only", only), ("missing", missing))
            if isinstance(given, str)
        }
        is_whole = window == ALL if isinstance(window, str) else getattr(window, "is_whole", False)
        layout = in_sequences(layout, sequences, **in_files, whole=is_whole)
        if chain_by is not None and sequences != "chain":
            raise ValueError(f"chain_by is for sequences='chain', got sequences={sequences!r}")
        return layout, cls(
            sequences if isinstance(sequences, str) else "runs",
            window_of(window, layout),
            _only(only),
            _missing(missing),
            _chain_by(chain_by),
        )

    def sampling(self, table: Table, paths: Paths, named: Any) -> Sampling:
        """What to take of the files of ``table``; ``named`` is how the user named them."""
        require_fields(self.window, [info.name for info in table.arrays])
        in_order = isinstance(named, str) and not os.path.isfile(named)
        # a list is taken as it was given
        order = _natural_order(table) if in_order else None
        chains = self._chains(table, paths) if self.sequences == "chain" else None
        missing = None if self.missing is None else self._missing_rows(sum(table.lengths.tolist()))
        taken = Sampling(self.window, order, chains, None, missing)
        listed = table.episodes is None or table.episodes.listed.all()
        if listed and self.only is None and not self.split:
            # all of them, whatever they are called
            return taken
        by_path = self.sequences != "chain" or self.chain_by == "parent"
        mask = self._mask(taken.found(table), _above(paths, named) if by_path else b"")
        return taken if mask.all() else replace(taken, kept=np.flatnonzero(mask))

    def __getstate__(self) -> dict[str, Any]:
        """Functions stay where they are: only a scan calls them, and few can be pickled."""
        return {
            name: _left_behind if callable(value) else value for name, value in vars(self).items()
        }

    def on_side(self, side: Side) -> SampleSpec:
        """The samples of one side of a split alone."""
        return replace(self, split=(*self.split, side))

    def _mask(self, found: SequenceTable, above: bytes) -> NDArray[np.bool_]:
        """Which of all sequences to use."""
        mask = found.listed
        if isinstance(self.only, frozenset):
            names = list(found.names)
            # a misspelt name would leave a sequence out without a word
            if unknown := self.only.difference(names):
                raise ValueError(
                    f"only names {min(unknown)!r}, which is none of the {len(names)} sequences {found.names!r}"
                )
            mask = mask & np.array([name in self.only for name in names], bool)
        elif self.only is not None:
            mask = mask & np.array([bool(self.only(name)) for name in found.names], bool)
        if self.split:
            # the folder of a chain may be the deepest that holds all files
            spelled = [(above + name).rstrip(b"/") for name in found.spelled()]
            for side in self.split:
                mask = mask & side.mask(spelled)
        return mask

    def _chains(self, table: Table, paths: Paths) -> list[str]:
        if self.chain_by is None:
            return [""] * len(table)
        if self.chain_by == "parent":
            return [os.path.dirname(name) for name in table.names]
        assert callable(self.chain_by), "checked when it was given"
        return [str(self.chain_by(path)) for path in paths]

    def _missing_rows(self, rows: int) -> NDArray[np.int64]:
        numbers = np.array(self.missing, np.int64)
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < rows:
            wrong = numbers[(numbers < 0) | (numbers >= rows)][0]
            raise ValueError(f"missing lists row {wrong}, but there are {rows} rows in all files")
        return np.unique(numbers)


def window_of(window: Any, layout: Layout) -> Window:
    """The window that a user gave: a ``Window``, offsets, ``"all"``, or None for single rows."""
    made = window if isinstance(window, Window) else Window(0 if window is None else window)
    names = layout.field_names
    if names:
        require_fields(made, names)
    if made.mask and "mask" in layout.field_names:
        raise ValueError(
            "window has mask=True, but a field is called 'mask' already; rename it in key"
        )
    return made


def require_fields(window: Window, names: Sequence[str]) -> None:
    """ValueError where a window has offsets by field, and the fields have other names."""
    if not isinstance(window.offsets, Mapping) or set(window.offsets) == set(names):
        return
    absent = [name for name in names if name not in window.offsets]
    unknown = [name for name in window.offsets if name not in names]
    what = f"none for field {absent[0]!r}" if absent else f"some for {unknown[0]!r}"
    raise ValueError(f"window has offsets by field, but {what}; the fields are {tuple(names)}")


def _only(only: Any) -> frozenset[str] | Callable[[str], Any] | None:
    if only is None or isinstance(only, str):
        return None
    if callable(only):
        return only  # type: ignore[no-any-return]
    names = list(only) if isinstance(only, Iterable) else [only]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"only must be the name of an array, a list of names or a function of a name, got {only!r:.80}"
        )
    return frozenset(names)


def _missing(missing: Any) -> tuple[int, ...] | None:
    if missing is None or isinstance(missing, str):
        return None
    if not isinstance(missing, (Iterable, np.ndarray)):
        raise TypeError(
            f"missing must be the name of an array or a list of rows, got {missing!r:.80}"
        )
    return tuple(validate.integer(row, "missing row") for row in missing)


def _chain_by(chain_by: Any) -> ChainBy:
    if chain_by is None or chain_by == "parent" or callable(chain_by):
        return chain_by  # type: ignore[no-any-return]
    raise ValueError(f"chain_by must be 'parent' or a function of a path, got {chain_by!r:.80}")


def _natural_order(table: Table) -> NDArray[np.int64] | None:
    """The files with numbers in their names ordered by value; None where they are already."""
    if _are_numbered_alike(table.names):
        return None
    names = list(table.names)
    order = sorted(range(len(names)), key=lambda row: natural(names[row]))
    return None if order == list(range(len(names))) else np.array(order, np.int64)


def _are_numbered_alike(names: Names) -> bool:
    """Whether names differ in digits alone, at the same places: sorted by bytes, they are sorted by value.

    So most of a million files need not be sorted anew.
    """
    blob, ends = names.arrays()
    width = int(ends[0]) if len(ends) else 1
    if len(blob) != width * len(ends) or (np.diff(ends) != width).any():
        return False
    letters = blob.reshape(-1, width)
    are_digits = (letters >= ord("0")) & (letters <= ord("9"))
    masked = np.where(are_digits, ord("0"), letters)
    return bool((masked == masked[:1]).all())


def _above(paths: Paths, named: Any) -> bytes:
    """The folders between what the user named and the deepest that holds all files.

    With them, the name of a sequence stays when files elsewhere are added.
    """
    if not isinstance(named, str) or is_remote(named):
        return b""
    fixed = re.split(r"[*?\[]", named, maxsplit=1)[0]
    root = named if os.path.isdir(named) else os.path.dirname(fixed)
    between = os.path.relpath(paths.root, root)
    return b"" if between.startswith(".") else os.fsencode(between) + b"/"


def _left_behind(name: str) -> Any:
    """What stands for a function in another process."""
    raise TypeError(
        f"only= or chain_by= is a function, which does not travel with a pickled index, so that {name!r} cannot be "
        "judged here; refresh the index in the process that made it"
    )
