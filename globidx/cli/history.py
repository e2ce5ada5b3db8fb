"""A record as text: for each sampler a progress bar, its history as a table, and what remains."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from globidx.cli.terminal.output import printable
from globidx.core.orders.base import Order
from globidx.core.orders.plain import Sequential, Shuffle
from globidx.core.progress.remaining import Remaining
from globidx.core.progress.segments import Progress, Segment, Skip, Taken
from globidx.core.progress.state import FORMAT, SamplerState

_WIDTH = 30
# the most ranges or counts of a list that are shown
_FEW = 8
_ORDERS: dict[str, Order] = {order.algorithm: order for order in (Sequential(), Shuffle())}


def lines(record: Mapping[str, Any]) -> Iterator[str]:
    """What ``record show`` prints."""
    yield f"record   {record['id']}"
    yield f"step     {record['step']}"
    yield f"time     {word(record['time'])}"
    for name, state in record["states"].items():
        yield ""
        if state.get("format") == FORMAT:
            yield from _sampler(word(name), state)
        else:
            yield f"{word(name)}: {json.dumps(state)[:200]}"
    if record["extras"]:
        yield ""
        yield f"extras: {json.dumps(record['extras'])[:200]}"


def word(value: Any) -> str:
    """A value of the record on one line, shortened and escaped."""
    return printable(f"{value!s:.256}")


def arrangement_of(state: SamplerState) -> Any:
    """The order of the state's epoch.

    None if it needs more than the record holds (weights, torch).
    """
    order = _ORDERS.get(str(state.order.get("algorithm")))
    # another version of the algorithm, or other parameters, would be other ids
    if order is None or order.describe() != dict(state.order):
        return None
    return order.bind(state.dataset.num_samples, seed=state.seed, epoch=state.epoch)


def remaining_of(state: SamplerState, progress: Progress) -> Remaining | None:
    """The positions that remain.

    None where ids were left out of an order that cannot be computed here.
    """
    arrangement = arrangement_of(state)
    # without skips the positions that remain do not depend on the order
    if arrangement is None and progress.left_out.pairs:
        return None
    return Remaining(progress, arrangement.occurrences if arrangement is not None else np.asarray)


def _sampler(name: str, state: Mapping[str, Any]) -> Iterator[str]:
    value = SamplerState.from_dict(state)
    done, order = value.closed(), value.order
    total = done.committed + done.remaining
    filled = _WIDTH * done.committed // total if total else 0
    left_out = f", {done.skipped} left out" if done.skipped else ""
    yield (
        f"{name}: epoch {value.epoch}  [{'#' * filled:.<{_WIDTH}}]  {done.committed} of {total}, "
        f"{done.remaining} remaining{left_out}"
    )
    yield f"  order      {word(order.get('algorithm'))} (version {word(order.get('version'))}), seed {value.seed}"
    files = f" in {value.dataset.num_files} files" if value.dataset.num_files is not None else ""
    print_of = value.dataset.fingerprint
    yield (
        f"  dataset    {value.dataset.num_samples} samples{files}, "
        f"{'no fingerprint' if print_of is None else f'fingerprint {word(print_of)}'}"
    )
    yield f"  tail       {value.tail}; a rank has been through {done.per_rank} positions of this epoch at most"
    yield from _table(done)
    yield f"  remaining  {_positions(value, done)}"
    if value.skip.pairs:
        yield f"  skip       ids {_pairs(value.skip.pairs)} (from the next segment on)"
    if value.quarantined.pairs:
        yield f"  replaced   ids {_pairs(value.quarantined.pairs)} (could not be read)"


def _table(done: Progress) -> Iterator[str]:
    """The layers of an epoch's history, a row each."""
    if not done.history:
        return
    rows = [("segment", "ranks", "committed", "remaining", "")]
    left = done.length
    segment = 0
    for layer in done.history:
        if isinstance(layer, Skip):
            left -= layer.positions
            rows.append(
                (
                    "",
                    "",
                    "",
                    str(left),
                    f"{layer.positions} left out: ids {_pairs(layer.ids.pairs)}",
                )
            )
        else:
            left, segment = left - layer.committed, segment + 1
            ranks = (
                str(layer.world_size)
                if isinstance(layer, Segment) and not layer.is_prefix
                else "any"
            )
            rows.append((str(segment), ranks, str(layer.committed), str(left), _counts(layer)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        yield (
            "  "
            + "  ".join(
                [*(cell.rjust(w) for cell, w in zip(row, widths, strict=False)), row[4]]
            ).rstrip()
        )


def _counts(layer: Segment | Taken) -> str:
    if isinstance(layer, Taken):
        return f"of the remaining: {_pairs(layer.indices.pairs)}"
    if layer.is_prefix:
        return f"the first {layer.committed}"
    shown = " ".join(map(str, layer.counts[:_FEW]))
    more = f" ... ({min(layer.counts)} to {max(layer.counts)})" if layer.world_size > _FEW else ""
    return f"by rank {shown}{more}"


def _positions(state: SamplerState, done: Progress) -> str:
    """Which positions remain: the first ranges of them, and what the last one reaches."""
    remaining = remaining_of(state, done)
    if not done.remaining:
        return "nothing"
    if remaining is None:
        return f"{done.remaining} positions, of an order that only its own run can compute"
    # a stretch from the beginning and the last position: all of 10^12 would take minutes
    some = remaining.forward(np.arange(min(done.remaining, 2**12), dtype=np.int64))
    breaks = np.flatnonzero(np.diff(some) != 1) + 1
    starts = [0, *breaks.tolist()]
    pairs = [
        (int(some[a]), int(some[b - 1]) + 1)
        for a, b in zip(starts, [*starts[1:], len(some)], strict=True)
    ]
    rest = done.remaining - len(some)
    last = int(remaining.forward(np.array([done.remaining - 1], np.int64))[0]) + 1
    # nothing but one more range
    if last - pairs[-1][1] == rest:
        pairs[-1], rest = (pairs[-1][0], last), 0
    return f"positions {_pairs(pairs)}" + (f" and {rest} more" if rest else "")


def _pairs(pairs: Sequence[tuple[int, int]]) -> str:
    shown = ", ".join(
        f"{start}" if stop == start + 1 else f"[{start}, {stop})" for start, stop in pairs[:_FEW]
    )
    return shown + (f" and {len(pairs) - _FEW} more ranges" if len(pairs) > _FEW else "")
