"""What the codes of a column mean: its categories, which may differ from file to file.

Code 0 may be a B cell in one file and a T cell in the next one. So categories of all files are
joined in the order of the files, and codes are those of the join: what is appended changes none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core.cached import cached_property
from globidx.core.index.names import Names

Category = str | int | float | bool


def spelled(values: Any) -> str:
    """Categories, or other names, as a table keeps them: a list in JSON.

    >>> spelled(np.array([b"B", b"T"], object)), spelled(np.array([1, 2]))
    ('["B", "T"]', '[1, 2]')
    """
    listed = np.asarray(values).tolist()
    names = [one.decode("utf-8", "replace") if isinstance(one, bytes) else one for one in listed]
    return json.dumps(names)


class _Join(NamedTuple):
    """The names of an array in all files, and the code among them of each code of each list."""

    names: tuple[Category, ...]
    codes: dict[int, NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Categories:
    """The names that codes, or the columns of a matrix, have in each file.

    Most files have the same ones, and each list is kept once.

    Attributes
    ----------
    numbers : ndarray of int64
        Which of ``texts`` belongs to an array of a file, files x arrays; -1 where none does.
    texts : Names
        Distinct lists in JSON.

    Examples
    --------
    >>> both = Categories.of([('["B", "T"]', ""), ('["NK", "B"]', "")])
    >>> both.joined_names(0), both.codes(1, 0).tolist()
    (('B', 'T', 'NK'), [2, 0])
    """

    numbers: NDArray[np.int64]
    texts: Names

    @classmethod
    def of(cls, files: Sequence[Sequence[str]]) -> Categories | None:
        """Those of some files: a list in JSON for each array, "" for none. None where no file has any."""
        if not any(text for texts in files for text in texts):
            return None
        known: dict[str, int] = {"": -1}
        numbers = [[known.setdefault(text, len(known) - 1) for text in texts] for texts in files]
        return cls(np.array(numbers, np.int64), Names.of(list(known)[1:]))

    @classmethod
    def joined(cls, parts: Sequence[Categories | None]) -> Categories | None:
        """Those of files one after the other; None where those of a part are not known."""
        if any(part is None for part in parts):
            return None
        known: dict[str, int] = {}
        numbers = []
        for part in parts:
            assert part is not None, "looked at above"
            places = [known.setdefault(text, len(known)) for text in part.texts]
            numbers.append(np.array([*places, -1], np.int64)[part.numbers])
        return cls(np.concatenate(numbers), Names.of(known))

    def take(self, files: NDArray[np.int64]) -> Categories:
        """Those of these files, in that sequence."""
        return Categories(self.numbers[files], self.texts)

    def joined_names(self, column: int) -> tuple[Category, ...]:
        """The names of an array in all files: those of the first file, then what others add."""
        return self._join(column).names

    def codes(self, file: int, column: int) -> NDArray[np.int64] | None:
        """The joined code of each code of an array in a file; None where it has no names."""
        number = int(self.numbers[file, column])
        return None if number < 0 else self._join(column).codes[number]

    def odd_ones(self, column: int) -> tuple[int, list[int]]:
        """The first file with names of an array, and those whose names of it are other ones.

        >>> Categories.of([('["a"]',), ('["b"]',), ("",)]).odd_ones(0)
        (0, [1])
        """
        numbers = self.numbers[:, column]
        named = np.flatnonzero(numbers >= 0)
        others = named[numbers[named] != numbers[named[:1]]]
        return int(named[:1].sum()), others.tolist()

    def names_in(self, file: int, column: int) -> list[Category]:
        """The names of an array in one file."""
        number = int(self.numbers[file, column])
        return [] if number < 0 else self._names(number)

    def _names(self, number: int) -> list[Category]:
        names: list[Category] = json.loads(self.texts[number])
        return names

    @cached_property
    def _joins(self) -> dict[int, _Join]:
        """What was joined so far, by array: that of genes is long, and seldom asked for."""
        return {}

    def _join(self, column: int) -> _Join:
        join = self._joins.get(column)
        if join is None:
            numbers, firsts = np.unique(self.numbers[:, column], return_index=True)
            known: dict[Category, int] = {}
            codes = {}
            for number in numbers[np.argsort(firsts)].tolist():
                if number >= 0:
                    listed = [known.setdefault(name, len(known)) for name in self._names(number)]
                    codes[number] = np.array(listed, np.int64)
            join = self._joins[column] = _Join(tuple(known), codes)
        return join
