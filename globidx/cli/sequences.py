"""What a window takes of sequences, and what it leaves out, as JSON values and in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from globidx.core.windows.anchors import Window
    from globidx.core.windows.sampling import Samples

#: The most runs of rows that are written out.
_FEW = 8
#: Bins of the lengths, and the width of the longest bar.
_BINS = 8
_WIDTH = 30


def summary(samples: Samples | None) -> dict[str, Any]:
    """Sequences, window, and what is left out, as JSON values; each None where items are samples."""
    if samples is None:
        return {"sequences": None, "window": None, "left_out": None}
    lengths, window = samples.index.sequences.lengths, samples.window
    anchors = window.count(lengths)
    return {
        "sequences": {
            "found": samples.num_found,
            "used": len(lengths),
            "shortest": int(lengths.min()) if len(lengths) else None,
            "longest": int(lengths.max()) if len(lengths) else None,
            "lengths": [one._asdict() for one in histogram(lengths)],
        },
        "window": window.describe(),
        "left_out": {
            "sequences_not_listed": samples.num_found - len(lengths),
            "sequences_too_short": int((anchors == 0).sum()),
            "rows_missing": samples.num_missing,
            "samples_of_missing_rows": int(anchors.sum()) - len(samples.index),
        },
    }


def lines(value: Mapping[str, Any], window: Window) -> Iterator[str]:
    """What ``summary`` found, for people."""
    sequences, left_out = value["sequences"], value["left_out"]
    yield f"sequences    {sequences['used']} of {sequences['found']}"
    if sequences["lengths"]:
        yield from _labelled("lengths", bars([Bin(**one) for one in sequences["lengths"]]))
    yield from _labelled("window", _in_words(window))
    yield from _labelled("left out", _left_out(left_out))


def rows_in_words(rows: Iterable[int]) -> str:
    """Rows as runs, in their sequence; of very many runs the first.

    >>> rows_in_words([0, 0, 1, 2, 3]), rows_in_words([-1, 0]), rows_in_words([4])
    ('rows 0, 0 to 3', 'rows -1, 0', 'row 4')
    """
    runs: list[list[int]] = []
    for row in rows:
        if runs and row == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], row]
        else:
            runs.append([row])
    # two rows are no shorter as a run
    apart = [
        " to ".join(map(str, run)) if run[-1] - run[0] > 1 else ", ".join(map(str, run))
        for run in runs
    ]
    more = f" and {len(runs) - _FEW} more runs" if len(runs) > _FEW else ""
    noun = "row" if len(runs) == 1 and len(runs[0]) == 1 else "rows"
    return f"{noun} {', '.join(apart[:_FEW])}{more}"


class Bin(NamedTuple):
    """How many values lie in ``[low, high]``, both of which may occur."""

    low: int
    high: int
    size: int


def histogram(values: NDArray[np.int64], most: int = _BINS) -> list[Bin]:
    """At most ``most`` bins of non-negative values, each about as wide by ratio; nothing of no values.

    Zero has no ratio to anything, so it is a bin of its own.

    >>> for one in histogram(np.array([0, 1, 2, 3, 40]), most=4):
    ...     print(*one)
    0 0 1
    1 2 2
    3 11 1
    12 40 1
    """
    if not len(values):
        return []
    zeros = int(np.count_nonzero(values == 0))
    rest = values[values > 0]
    bins = [Bin(0, 0, zeros)] if zeros else []
    if len(rest):
        edges = _edges(int(rest.min()), int(rest.max()) + 1, most - len(bins))
        below = np.searchsorted(np.sort(rest), edges)
        for low, stop, count in zip(edges, edges[1:], np.diff(below).tolist(), strict=False):
            bins.append(Bin(low, stop - 1, count))
    return bins


def _edges(low: int, stop: int, most: int) -> list[int]:
    """Integers from ``low`` to ``stop`` that cut what is between into at most ``most`` bins."""
    inner = np.rint(np.geomspace(low, stop, most + 1)[1:-1])
    return [low, *sorted({int(edge) for edge in inner if low < edge < stop}), stop]


def bars(bins: Sequence[Bin]) -> Iterator[str]:
    r"""A line for each bin: its bounds, its count, and a bar.

    >>> print(*bars([Bin(0, 9, 3), Bin(10, 99, 30)]), sep="\n")
     0 to  9   3  ###
    10 to 99  30  ##############################
    """
    digits = max(len(str(one.high)) for one in bins)
    width = max(len(str(one.size)) for one in bins)
    most = max(one.size for one in bins)
    for low, high, count in bins:
        # a bin that is not empty has a bar
        bar = "#" * -(-_WIDTH * count // most)
        upto = f" to {high:{digits}}" if high > low else " " * (4 + digits)
        yield f"{low:{digits}}{upto}  {count:{width}}  {bar}".rstrip()


def _labelled(label: str, words: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(words):
        yield f"{'' if number else label:<13}{line}"


def _in_words(window: Window) -> Iterator[str]:
    if window.is_whole:
        yield "all rows of a sequence"
        return
    for name in window.offsets if isinstance(window.offsets, Mapping) else [""]:
        offsets = window.of(name)
        rows = [offsets] if isinstance(offsets, int) else offsets
        yield f"{rows_in_words(rows)}{f' of {name}' if name else ''}, counted from the anchor"
    every = "every anchor" if window.stride == 1 else f"one anchor in {window.stride}"
    if window.pad is None:
        yield f"{every}, windows inside their sequence"
    else:
        yield f"{every}, {window.pad} padding: up to {window.before} rows before a sequence and {window.after} after it"


def _left_out(counts: Mapping[str, int]) -> Sequence[str]:
    told = []
    if counts["sequences_not_listed"]:
        told.append(f"{counts['sequences_not_listed']} sequences that --only does not list")
    if counts["sequences_too_short"]:
        told.append(f"{counts['sequences_too_short']} sequences that are shorter than the window")
    if counts["rows_missing"]:
        told.append(
            f"{counts['samples_of_missing_rows']} samples whose windows touch one of "
            f"{counts['rows_missing']} missing rows"
        )
    return told
