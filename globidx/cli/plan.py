"""The samples that each rank would get if a record were resumed, from a sampler's state alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from globidx.cli.history import arrangement_of, remaining_of, word
from globidx.core.progress import partition
from globidx.core.progress.partition import TAILS, Tail
from globidx.core.progress.segments import Progress
from globidx.core.progress.state import FORMAT, SamplerState
from globidx.core.progress.view import EpochView
from globidx.errors import RecordError


@dataclass(frozen=True)
class Share:
    """One rank's part of the rest of an epoch.

    How many samples, how many of them padding, in how many batches, and between which positions.
    """

    rank: int
    samples: int
    padding: int
    batches: int
    last_batch: int
    first_position: int | None
    last_position: int | None


@dataclass(frozen=True)
class Plan:
    """All ranks' parts of what remains of an epoch.

    >>> from globidx import ResumableDistributedSampler
    >>> sampler = ResumableDistributedSampler(range(11), 2, 0, shuffle=False)
    >>> sampler.commit(2)                                   # 2 ranks have 2 each; 7 remain
    >>> state = SamplerState.from_dict(sampler.state_dict())
    >>> plan = Plan.of(state, world_size=3, batch_size=2, tail="pad")
    >>> [(s.samples, s.padding, s.batches, s.last_batch) for s in plan.shares]
    [(3, 0, 2, 1), (3, 1, 2, 1), (3, 1, 2, 1)]
    >>> [(s.first_position, s.last_position) for s in plan.shares]
    [(4, 10), (5, 8), (6, 9)]
    """

    epoch: int
    remaining: int
    num_samples: int
    world_size: int
    batch_size: int
    tail: Tail
    shares: tuple[Share, ...]

    @classmethod
    def of(cls, state: SamplerState, *, world_size: int, batch_size: int, tail: Tail) -> Plan:
        """The plan for a sampler's state.

        RecordError where its order cannot be computed here and ids are left out.
        """
        epoch, progress = _resumed(state)
        positions = remaining_of(replace(state, epoch=epoch), progress)
        if positions is None:
            raise _unknown(state)
        left, shares = progress.remaining, []
        dealt = [
            partition.share(left, rank=rank, world_size=world_size) for rank in range(world_size)
        ]
        lengths = [
            partition.stream_length(left, rank=r, world_size=world_size, tail=tail)
            for r in range(world_size)
        ]
        # what is dealt beyond a dropped tail is not read; what is read beyond the deal is padding
        real = np.minimum(dealt, lengths)
        ranks = np.arange(world_size, dtype=np.int64)[real > 0]
        # only ranks that have any: the positions of the others would be those of nobody
        first = dict(zip(ranks.tolist(), positions.forward(ranks).tolist(), strict=True))
        last_indices = ranks + (real[ranks] - 1) * world_size
        last = dict(zip(ranks.tolist(), positions.forward(last_indices).tolist(), strict=True))
        for rank, samples in enumerate(lengths):
            batches = -(-samples // batch_size)
            last_batch = samples - (batches - 1) * batch_size if batches else 0
            padding = samples - int(real[rank])
            shares.append(
                Share(rank, samples, padding, batches, last_batch, first.get(rank), last.get(rank))
            )
        return cls(
            epoch, left, state.dataset.num_samples, world_size, batch_size, tail, tuple(shares)
        )

    def as_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        value = asdict(self)
        return value | {
            "shares": list(value["shares"]),
            "tails": {tail: self._tail(tail) for tail in TAILS},
        }

    def lines(self, id: str, name: str) -> Iterator[str]:
        """The plan for people."""
        yield f"record {id}, {word(name)}: epoch {self.epoch}, {self.remaining} remaining"
        yield f"{self.world_size} ranks x batches of {self.batch_size}"
        rows: list[tuple[Any, ...]] = [
            ("tail", "samples/rank", "batches/rank", "padding", "left over")
        ]
        for tail in TAILS:
            of = self._tail(tail)
            mark = "*" if tail == self.tail else ""
            rows.append(
                (
                    f"{tail}{mark}",
                    _span(of["samples"]),
                    _span(of["batches"]),
                    of["padding"],
                    of["left_over"],
                )
            )
        yield from ("", *_table(rows), "")
        rows = [
            (
                "rank",
                "samples",
                "padding",
                "batches",
                "last batch",
                "first position",
                "last position",
            )
        ]
        rows += [
            tuple("-" if cell is None else cell for cell in asdict(share).values())
            for share in self.shares
        ]
        yield from _table(rows)

    def _tail(self, tail: Tail) -> dict[str, Any]:
        """What another tail would mean, over all ranks.

        The fewest and the most samples and batches of a rank, and what is left over.
        """
        lengths = [
            partition.stream_length(
                self.remaining, rank=rank, world_size=self.world_size, tail=tail
            )
            # ranks are dealt in turn, so the first has the most and the last the fewest
            for rank in (0, self.world_size - 1)
        ]
        batches = [-(-length // self.batch_size) for length in lengths]
        whole = lengths[0] * self.world_size
        return {
            "samples": sorted(lengths),
            "batches": sorted(batches),
            "padding": max(0, whole - self.remaining) if tail == "pad" else 0,
            "left_over": self.remaining - whole if tail == "drop" else 0,
        }


def sampler_of(record: Mapping[str, Any], name: str | None) -> tuple[str, SamplerState]:
    """The sampler of that name in a record, or its only one.

    RecordError lists them if the name is missing or unknown.
    """
    states = {
        key: state for key, state in record["states"].items() if state.get("format") == FORMAT
    }
    if name is None and len(states) == 1:
        (name,) = states
    if name is None or name not in states:
        other = "" if name is None else f", not {name!r}"
        raise RecordError(
            f"the record holds the samplers {sorted(states)}{other}; pick one with --sampler"
        )
    return name, SamplerState.from_dict(states[name])


def _resumed(state: SamplerState) -> tuple[int, Progress]:
    """The epoch and progress with which samplers go on from a state.

    Ids on its skip list are left out from here on.
    """
    state.refuse_single_rank()
    epoch, progress = state.resumed()
    # As `Tracker.load` does: what was skipped in an epoch that runs is left out from its next
    # segment.
    more = (state.skip - progress.left_out).below(state.dataset.num_samples)
    if more.pairs:
        arrangement = arrangement_of(replace(state, epoch=epoch))
        if arrangement is None:
            raise _unknown(state)
        progress = progress.skip(more, EpochView(arrangement, progress).positions_left(more))
    return epoch, progress


def _unknown(state: SamplerState) -> RecordError:
    return RecordError(
        f"ids are left out of the order {state.order.get('algorithm')!a}, which only its own run can compute; "
        "ask the sampler itself, after load_state_dict"
    )


def _span(ends: list[int]) -> str:
    fewest, most = ends
    return f"{fewest}" if fewest == most else f"{fewest} to {most}"


def _table(rows: list[tuple[Any, ...]]) -> Iterator[str]:
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
