"""Decoding of what arrays hold: a function of a user's, called once for each distinct row of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from globidx.core.values.dtypes import Dtype, plain
from globidx.disk.index.snapshot import Snapshot


class Decode(Protocol):
    """What makes values out of rows, which are in memory already."""

    @property
    def nothing(self) -> Any:
        """What stands where no row is."""

    def __call__(self, rows: NDArray[Any], files: NDArray[np.int64], now: Snapshot) -> NDArray[Any]:
        """A value for each of ``rows``; ``files`` says which file of ``now`` each is of.

        UndecodableError where there is none.
        """


class UndecodableError(Exception):
    """The row at ``place`` has no value, for this reason."""

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(reason)
        self.place = place


class ByRow(NamedTuple):
    """Decodes ``field``, whose elements are of ``dtype``, by a function of one row.

    The function gets bytes, str or an array, and returns whatever a sample shall have.
    """

    field: str
    dtype: Dtype
    function: Callable[[Any], Any]

    @property
    def nothing(self) -> None:
        """What stands where no row is."""

    def __call__(self, rows: NDArray[Any], files: NDArray[np.int64], now: Snapshot) -> NDArray[Any]:
        """What the function returns for each row, as objects."""
        del files, now  # a row is all that it needs
        values = np.empty(len(rows), object)
        for place in range(len(rows)):
            row = plain(rows[place, ...], self.dtype)
            try:
                values[place] = self.function(row)
            # it is a stranger's code, and whatever it raises, the sample has to be named
            except Exception as error:
                raise UndecodableError(
                    place,
                    f"decode of field {self.field!r} raised {type(error).__name__}: {error}",
                ) from error
        return values
