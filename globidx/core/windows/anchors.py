"""Windows: samples as anchors in sequences of rows, and the offsets around an anchor.

A field takes the rows at some of the offsets.

A sequence of ``L`` rows has the anchors ``first, first + stride, first + 2 stride, ...`` up to ``last``, where ``lo``
and ``hi`` are the least and the greatest of all offsets::

    first = -lo - before        last = L - 1 - hi + after        (before = after = 0 without padding)

So the number of anchors of each sequence is arithmetic, and sample ids are prefix sums over sequences: memory is
O(sequences + runs of missing rows), however many windows there are. Anchors whose window touches a missing row are
gaps in this numbering.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate
from globidx.core.index.index import GlobalIndex
from globidx.core.progress.gaps import Gaps

Numbers = NDArray[np.int64]
Offsets = int | tuple[int, ...]
#: Offsets that take the whole sequence as one sample.
ALL = "all"

#: Offsets are bounded, so that no arithmetic on anchors can leave int64.
_FARTHEST = 2**40

PADS = (None, "edge", "zero")


@dataclass(frozen=True)
class Window:
    """Which rows around an anchor make up a sample.

    Parameters
    ----------
    offsets : int, iterable of int, dict of these by field, or "all"
        Rows relative to the anchor: an int (the field has no extra axis), or a range or iterable of ints (a new
        leading axis). A mapping gives each field offsets of its own. ``"all"`` takes each sequence as one sample.
    stride : int, default 1
        Only every ``stride``-th anchor of a sequence is a sample, counted from its first.
    pad : {None, "edge", "zero"}
        What stands for rows beyond the ends of a sequence: ``None`` (windows must lie inside), ``"edge"`` (the first or
        the last row again) or ``"zero"``.
    before, after : int, optional
        With padding, how many rows a window may reach beyond the first and the last row. By default so many that every
        row is an anchor: ``max(0, -lo)`` and ``max(0, hi)``.
    mask : bool, default False
        Whether a sample has a bool field ``mask`` as well, False on rows that padding made.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, out of bounds, or has no effect (``before`` without ``pad``).

    Examples
    --------
    >>> window = Window({"image": (-1, 0), "action": range(4)}, pad="edge")
    >>> window.lo, window.hi, window.before, window.after
    (-1, 3, 1, 3)
    >>> window.count(np.array([10, 1, 0])).tolist()
    [10, 1, 0]
    >>> Window(range(4), stride=2).count(np.array([10, 3])).tolist()
    [4, 0]
    """

    offsets: Offsets | Mapping[str, Offsets] | str
    stride: int = field(default=1, kw_only=True)
    pad: str | None = field(default=None, kw_only=True)
    before: int | None = field(default=None, kw_only=True)
    after: int | None = field(default=None, kw_only=True)
    mask: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.is_whole:
            self._set_whole()
            return
        if isinstance(self.offsets, Mapping):
            if not self.offsets:
                raise ValueError(
                    "offsets name no field; give at least one, or offsets for all fields"
                )
            parsed: Any = {
                name: _offsets(given, f" of {name!r}") for name, given in self.offsets.items()
            }
        else:
            parsed = _offsets(self.offsets, "")
        if self.pad not in PADS:
            raise ValueError(f"pad must be one of None, 'edge', 'zero', got {self.pad!r}")
        if self.pad is None and (self.before or self.after):
            raise ValueError(
                "before and after are for padded windows; give pad='edge' or pad='zero' as well"
            )
        if not isinstance(self.mask, bool):
            raise TypeError(f"mask must be True or False, got {self.mask!r}")
        self._set(
            offsets=parsed, stride=validate.integer(self.stride, "stride", low=1, high=_FARTHEST)
        )
        padded = self.pad is not None
        for name, default in (("before", -self.lo), ("after", self.hi)):
            given = getattr(self, name)
            reach = (
                max(0, default) if given is None else validate.integer(given, name, high=_FARTHEST)
            )
            self._set(**{name: reach if padded else 0})

    def _set_whole(self) -> None:
        """The window of whole sequences, which nothing else can be said of."""
        if self.stride != 1 or self.pad or self.before or self.after or self.mask:
            raise ValueError(
                "window='all' takes each sequence as one sample; stride, pad, before, after and mask have no use there"
            )
        self._set(before=0, after=0)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def is_whole(self) -> bool:
        """Whether each sequence is one sample."""
        return isinstance(self.offsets, str) and self.offsets == ALL

    @property
    def lo(self) -> int:
        """The least of all offsets."""
        return min(self._all())

    @property
    def hi(self) -> int:
        """The greatest of all offsets."""
        return max(self._all())

    @property
    def first(self) -> int:
        """The first anchor of a sequence; negative where padding or positive offsets allow it."""
        return -self.lo - (self.before or 0)

    @property
    def span(self) -> int:
        """From how many rows that follow one another a sample takes its own."""
        return self.hi - self.lo + 1

    def of(self, name: str) -> Offsets:
        """The offsets of a field.

        Parameters
        ----------
        name : str
            The field; any name where all fields have the same offsets.

        Returns
        -------
        int or tuple of int
            Rows relative to the anchor.

        Raises
        ------
        KeyError
            If offsets are given by field, and none for this one.
        """
        if isinstance(self.offsets, Mapping):
            return self.offsets[name]
        assert not isinstance(self.offsets, str), "rows of whole sequences have no offsets"
        return self.offsets

    def describe(self) -> dict[str, Any]:
        """The window as JSON values: the same of windows that take the same rows.

        Returns
        -------
        dict
            Its offsets, stride and padding.
        """
        offsets = self.offsets
        if isinstance(offsets, Mapping):
            offsets = dict(sorted(offsets.items()))
        return {
            "offsets": offsets,
            "stride": self.stride,
            "pad": self.pad,
            "before": self.before,
            "after": self.after,
        }

    def count(self, lengths: Numbers) -> Numbers:
        """How many anchors sequences have; one without rows has none.

        Parameters
        ----------
        lengths : ndarray of int64
            How many rows each sequence has.

        Returns
        -------
        ndarray of int64
            How many samples each has, if no row is missing.
        """
        if self.is_whole:
            return (lengths > 0).astype(np.int64)
        last = lengths - 1 - self.hi + (self.after or 0)
        return np.where(lengths > 0, np.maximum((last - self.first) // self.stride + 1, 0), 0)

    def rows(
        self, offsets: Offsets, anchors: Numbers, lengths: Numbers
    ) -> tuple[Numbers, NDArray[np.bool_]]:
        """The rows that offsets take around anchors.

        Parameters
        ----------
        offsets : int or tuple of int
            Rows relative to the anchor.
        anchors : ndarray of int64
            Rows of sequences; they may lie beyond the ends, as padding allows.
        lengths : ndarray of int64
            How many rows the sequence of each anchor has, at least 1.

        Returns
        -------
        rows : ndarray of int64, anchors x offsets
            Those beyond an end are the first or the last row.
        inside : ndarray of bool, anchors x offsets
            False where padding stands for the row.

        Examples
        --------
        >>> rows, inside = Window((-1, 0, 1), pad="edge").rows((-1, 0, 1), np.array([0, 4]), np.array([5, 5]))
        >>> rows.tolist(), inside.tolist()
        ([[0, 0, 1], [3, 4, 4]], [[False, True, True], [True, True, False]])
        """
        reached = anchors[:, None] + np.atleast_1d(np.asarray(offsets, np.int64))
        rows = np.clip(reached, 0, lengths[:, None] - 1)
        return rows, rows == reached

    def touched(
        self, sequences: Numbers, missing: Numbers, lengths: Numbers
    ) -> tuple[Numbers, Numbers, Numbers]:
        """Which anchors read rows that are missing, as runs.

        Anchors are counted from the first of their sequence.

        Parameters
        ----------
        sequences, missing
            Sequence and row of each missing row.
        lengths
            Rows of every sequence.

        Returns
        -------
        sequences, starts, stops : int64 arrays
            Anchors ``[starts[i], stops[i])`` of ``sequences[i]``; runs may be empty and may overlap.
        """
        if self.is_whole:
            return sequences, np.zeros_like(sequences), np.ones_like(sequences)
        own, counts = lengths[sequences], self.count(lengths)[sequences]
        runs = Gaps.of(np.array(self._all(), np.int64))
        lows, highs = runs.starts, runs.ends - 1
        # anchors t with t + o == row for some o of a run [low, high] of offsets
        least = missing[:, None] - highs
        most = missing[:, None] - lows
        if self.pad == "edge":  # the rows at the ends stand for all beyond them
            least[missing == 0] = -(2**62)
            most[missing == own - 1] = 2**62
        starts = np.clip(-((self.first - least) // self.stride), 0, counts[:, None])
        stops = np.clip((most - self.first) // self.stride + 1, 0, counts[:, None])
        return np.repeat(sequences, len(lows)), starts.ravel(), stops.ravel()

    def _all(self) -> list[int]:
        """All offsets of all fields, distinct and ascending."""
        if isinstance(self.offsets, str):
            return [0]
        given = self.offsets.values() if isinstance(self.offsets, Mapping) else [self.offsets]
        return sorted(
            {one for some in given for one in ([some] if isinstance(some, int) else some)}
        )


class Anchors:
    """Sample ids over the anchors of a window in sequences of the given lengths: a frozen value.

    Parameters
    ----------
    lengths
        Rows of each sequence, zero allowed.
    window
        Which rows make up a sample.
    missing
        Sequence numbers and rows of rows that are not there: two int64 arrays of one length. Anchors whose window
        touches one have no sample id.

    Examples
    --------
    >>> anchors = Anchors([5, 1, 4], Window(range(2)))
    >>> len(anchors), [anchors.locate(id) for id in range(len(anchors))]
    (7, [(0, 0), (0, 1), (0, 2), (0, 3), (2, 0), (2, 1), (2, 2)])
    >>> anchors.sample_id(2, 1)
    5
    >>> gappy = Anchors([5], Window(range(2)), missing=(np.array([0]), np.array([2])))
    >>> [gappy.locate(id) for id in range(len(gappy))]
    [(0, 0), (0, 3)]
    """

    __slots__ = ("_gaps", "_grid", "_len", "lengths", "window")

    def __init__(
        self,
        lengths: Iterable[int] | Numbers,
        window: Window,
        *,
        missing: tuple[Numbers, Numbers] | None = None,
    ) -> None:
        rows = GlobalIndex(lengths)  # checks them
        self.lengths, self.window = rows.lengths, window
        self._grid = GlobalIndex.sharing(window.count(rows.lengths))
        self._gaps = Gaps.of(np.empty(0, np.int64)) if missing is None else self._touched(*missing)
        self._len = len(self._grid) - self._gaps.size

    def _touched(self, sequences: Numbers, rows: Numbers) -> Gaps:
        if len(sequences) != len(rows):
            raise ValueError(
                f"missing names {len(sequences)} sequences and {len(rows)} rows; they must be as many"
            )
        sequences = validate.integers(sequences, "missing sequence", len(self.lengths))
        rows = validate.int64s(rows, "missing row")
        _require_inside(rows, "missing row", self.lengths[sequences])
        owners, starts, stops = self.window.touched(sequences, rows, self.lengths)
        first = self._grid.offsets[owners]
        return Gaps.united(first + starts, first + stops)

    def __len__(self) -> int:
        return self._len

    def __repr__(self) -> str:
        return f"Anchors({len(self)} samples in {len(self.lengths)} sequences)"

    @property
    def counts(self) -> Numbers:
        """How many samples each sequence has, int64."""
        return np.diff(self._gaps.below(self._grid.offsets))

    def locate(self, sample_id: int) -> tuple[int, int]:
        """Sequence number and anchor of one sample id; IndexError outside ``[0, len)``."""
        id = validate.sample_id(sample_id, self._len)
        sequence, step = self._grid.locate(
            int(self._gaps.forward(np.array([id]))[0]) if len(self._gaps) else id
        )
        return sequence, self.window.first + self.window.stride * step

    def locate_many(self, sample_ids: Any) -> tuple[Numbers, Numbers]:
        """Sequences and anchors of many sample ids: two int64 arrays as long as ``sample_ids``."""
        ids = validate.integers(sample_ids, "sample id", self._len)
        sequences, steps = self._grid.locate_many(
            self._gaps.forward(ids) if len(self._gaps) else ids
        )
        return sequences, self.window.first + self.window.stride * steps

    def sample_id(self, sequence: int, anchor: int) -> int:
        """The id of an anchor, the inverse of ``locate``.

        Raises
        ------
        IndexError
            If the sequence does not exist, or has no such anchor: it lies between two strides, its window leaves the
            sequence, or touches a missing row.
        """
        number = validate.integer(sequence, "sequence number", low=-(2**64), high=2**64)
        if not 0 <= number < len(self.lengths):
            raise IndexError(f"sequence number {number} is outside [0, {len(self.lengths)})")
        at = validate.integer(anchor, "anchor", low=-(2**64), high=2**64)
        step, rest = divmod(at - self.window.first, self.window.stride)
        if rest or not 0 <= step < self._grid.lengths[number]:
            raise IndexError(
                f"sequence {number} of {self.lengths[number]} rows has no anchor {at}: it has "
                f"{self._grid.lengths[number]}, from {self.window.first} on, {self.window.stride} apart"
            )
        gone, ids = self._gaps.inverse(np.array([self._grid.sample_id(number, step)]))
        if gone[0]:
            raise IndexError(
                f"the window of anchor {at} of sequence {number} touches a missing row"
            )
        return int(ids[0])

    def gaps_before(self, num_samples: int) -> Gaps:
        """The anchors without an id among those of the first samples."""
        return self._gaps.before(num_samples)

    def sample_ids(self, sequences: Numbers, anchors: Numbers) -> Numbers:
        """The ids of many anchors, -1 where there is none.

        It is the vectorised inverse of ``locate_many``.
        """
        steps, rest = np.divmod(anchors - self.window.first, self.window.stride)
        known = (rest == 0) & (steps >= 0) & (steps < self._grid.lengths[sequences])
        gone, ids = self._gaps.inverse(self._grid.offsets[sequences] + steps)
        return np.where(known & ~gone, ids, -1)


def _offsets(given: Any, of: str) -> Offsets:
    if isinstance(given, (str, bytes)) or not (
        isinstance(given, Iterable) or hasattr(given, "__index__")
    ):
        whole = "; 'all' is for all fields alike" if of else ", or 'all'"
        raise TypeError(f"offsets{of} must be an int or several{whole}, got {given!r}")
    if not isinstance(given, Iterable):
        return validate.integer(given, f"offset{of}", low=-_FARTHEST, high=_FARTHEST)
    several = tuple(
        validate.integer(one, f"offset{of}", low=-_FARTHEST, high=_FARTHEST) for one in given
    )
    if not several:
        raise ValueError(f"offsets{of} are empty; a field takes at least one row")
    return several


def _require_inside(values: Numbers, what: str, limits: Numbers) -> None:
    wrong = np.flatnonzero((values < 0) | (values >= limits))
    if len(wrong):
        raise IndexError(f"{what} {values[wrong[0]]} is outside [0, {limits[wrong[0]]})")
