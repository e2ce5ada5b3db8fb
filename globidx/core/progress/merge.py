"""Merging: the states of all ranks as one record, or an error that names who disagrees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import reduce
from operator import or_
from typing import Any

from globidx.core.progress import partition
from globidx.core.progress.limits import bounded
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.regrouped import beyond
from globidx.core.progress.segments import Progress
from globidx.core.progress.state import SamplerState
from globidx.errors import RecordError, RecordMismatchError


def merge_states(
    states: Sequence[Mapping[str, Any]] | Mapping[int, Mapping[str, Any]],
) -> dict[str, Any]:
    """Merge the ``state_dict()``s of all ranks into one record.

    The ranks may have progressed by different amounts.

    Parameters
    ----------
    states : sequence or mapping
        The state of every rank, in rank order, or as ``{rank: state}``: a state does not say whose
        it is.

    Returns
    -------
    dict
        A record that ``load_state_dict`` takes on any world size.

    Raises
    ------
    globidx.errors.RecordError
        If a rank's state is missing, or can be no state of that rank.
    globidx.errors.RecordMismatchError
        If one rank disagrees with the others; names the rank and the field.

    Examples
    --------
    >>> from globidx import ResumableDistributedSampler
    >>> ranks = [ResumableDistributedSampler(range(10), 2, rank, shuffle=False) for rank in (0, 1)]
    >>> ranks[0].commit(3)                              # 0, 2, 4
    >>> ranks[1].commit(1)                              # 1
    >>> record = merge_states({rank: sampler.state_dict() for rank, sampler in enumerate(ranks)})
    >>> alone = ResumableDistributedSampler(range(10), 1, 0, shuffle=False)
    >>> alone.load_state_dict(record)
    >>> list(alone)
    [3, 5, 6, 7, 8, 9]
    """
    ranks = [SamplerState.from_dict(state) for state in _in_rank_order(states)]
    if not ranks:
        raise RecordError("merge_states needs the state of every rank, got none")
    # compared first: with another number of states all that follows would name the wrong rank
    _agree("world size", [rank.world_size for rank in ranks])
    if len(ranks) != ranks[0].world_size:
        raise RecordError(
            f"merge_states got {len(ranks)} states, but they were taken at world size {ranks[0].world_size}; "
            "pass the state of every rank, in rank order"
        )
    for rank, state in enumerate(ranks):
        _refuse_impossible(state, rank)
    for name, value in _RUN.items():
        _agree(name, [value(rank) for rank in ranks])
    # A rank whose share is done may not have noticed yet that the epoch is over.
    done = [_has_done_its_share(state, rank, ranks) for rank, state in enumerate(ranks)]
    ranks = [rank.after_epoch() if over else rank for rank, over in zip(ranks, done, strict=True)]
    idle = [
        over or _is_idle(state, rank)
        for rank, (state, over) in enumerate(zip(ranks, done, strict=True))
    ]
    # The epoch that is merged is the first that any rank with samples in it has not left.
    epoch = min(
        rank.epoch for rank, nothing in zip(ranks, idle, strict=True) if not nothing or all(idle)
    )
    ended = [_has_finished(rank, epoch) for rank in ranks]
    # a rank that has ended the epoch has a say in how it began, even if it was dealt nothing
    idle = [nothing and not done for nothing, done in zip(idle, ended, strict=True)]
    running = [not nothing and not done for nothing, done in zip(idle, ended, strict=True)]
    for name, value in _EPOCH.items():
        _agree(
            name, [value(rank) if runs else None for rank, runs in zip(ranks, running, strict=True)]
        )
    first = _agreed_start(ranks, running, begun=any(ended))
    begun = [
        rank.trail if done else first.left_behind() for rank, done in zip(ranks, ended, strict=True)
    ]
    # A digest does not say what differs, so the dataset is compared first. Appended files alone
    # change no digest.
    if len(set(begun)) > 1:
        _agree(
            "dataset",
            [
                None if nothing else asdict(rank.dataset)
                for rank, nothing in zip(ranks, idle, strict=True)
            ],
        )
    _agree("segments", begun)
    return _merged(first, ranks, ended).to_dict()


def _in_rank_order(
    states: Sequence[Mapping[str, Any]] | Mapping[Any, Any],
) -> Sequence[Mapping[str, Any]]:
    if not isinstance(states, Mapping):
        return states
    if "format" in states:
        raise RecordError(
            "merge_states got one state; pass those of all ranks, as a list in rank order or as {rank: state}"
        )
    if sorted(states) != list(range(len(states))):
        raise RecordError(
            f"merge_states got the states of ranks {sorted(states)}; pass those of all ranks [0, {len(states)})"
        )
    return [states[rank] for rank in range(len(states))]


def _refuse_impossible(state: SamplerState, rank: int) -> None:
    """RecordError if a state has more committed than its rank was dealt.

    It is then the state of another rank.
    """
    most = state.stream_length(rank)
    last = state.runs.pairs[-1][1] if state.committed else 0
    if last > most:
        raise RecordError(
            f"the state given for rank {rank} has {last} ids committed, but this rank was dealt {most}; it "
            "is another rank's: pass the states in rank order, or as {rank: state}"
        )


def _agreed_start(
    ranks: Sequence[SamplerState], running: Sequence[bool], *, begun: bool
) -> SamplerState:
    """Return the state of a rank that has committed ids of the epoch.

    These ranks must agree on its start.

    A rank that has committed nothing may still plan the epoch again. If no rank has, and none has
    ended it, all may.
    """
    binds = [
        runs and bool(r.committed or r.progress.committed)
        for r, runs in zip(ranks, running, strict=True)
    ]
    _agree(
        "order",
        [dict(rank.order) if bound else None for rank, bound in zip(ranks, binds, strict=True)],
    )
    _agree(
        "segments",
        [rank.progress if bound else None for rank, bound in zip(ranks, binds, strict=True)],
    )
    if any(binds):
        return ranks[binds.index(True)]
    first = ranks[running.index(True)] if any(running) else min(ranks, key=lambda rank: rank.epoch)
    return first if begun else replace(first, progress=Progress(first.progress.length))


def _merged(
    first: SamplerState, ranks: Sequence[SamplerState], ended: Sequence[bool]
) -> SamplerState:
    remaining, world_size = first.progress.remaining, first.world_size
    runs = []
    for rank, (state, done) in enumerate(zip(ranks, ended, strict=True)):
        share = partition.share(remaining, rank=rank, world_size=world_size)
        # what such a rank had committed is not in its state any more: it was all of its stream
        whole = partition.stream_length(
            remaining, rank=rank, world_size=world_size, tail=first.tail
        )
        # padding is delivered, but is never progress
        runs.append((Ranges.of(range(whole)) if done else state.runs).below(share))
    counts = [run.pairs[0][1] if run.pairs and not run.pairs[0][0] else 0 for run in runs]
    progress = first.progress.extend(counts).take(beyond(runs, counts))
    per_rank = first.progress.per_rank + max(run.size for run in runs)
    # One rank may have listed ids that the others have not.
    skip = bounded(reduce(or_, (rank.skip for rank in ranks)), "the ranks together would leave out")
    quarantined = bounded(
        reduce(or_, (rank.quarantined for rank in ranks)), "the ranks together would quarantine"
    )
    merged = replace(
        first,
        progress=replace(progress, per_rank=per_rank),
        committed=0,
        taken=None,
        skip=skip,
        quarantined=quarantined,
    )
    # the end of an epoch is written as the start of the next one
    return merged.next_epoch() if progress.committed and not progress.remaining else merged


def _is_idle(state: SamplerState, rank: int) -> bool:
    """True if this rank had no samples in the epoch while others did, so that it may lag behind."""
    # only with an exact tail: else ranks without samples are padded, or all ranks have none
    remaining = state.progress.remaining
    share = partition.share(remaining, rank=rank, world_size=state.world_size)
    return state.tail == "exact" and remaining > 0 and not state.committed and not share


def _has_done_its_share(state: SamplerState, rank: int, ranks: Sequence[SamplerState]) -> bool:
    """Whether this rank has completed its share of an epoch that another rank has left.

    It is then at the start of the next epoch, of which it has committed nothing yet.
    """
    if state.tail != "exact" or not state.committed or state.committed < state.stream_length(rank):
        return False
    ahead = [other for other in ranks if other.epoch > state.epoch]
    return any(
        other.epoch > state.epoch + 1 or other.committed or other.progress.committed
        for other in ahead
    )


def _has_finished(rank: SamplerState, epoch: int) -> bool:
    """Return whether a rank is at the start of the next epoch because it completed ``epoch``."""
    return (
        rank.epoch == epoch + 1
        and rank.finished_epoch == epoch
        and not rank.progress.committed
        and not rank.committed
    )


def _agree(name: str, values: Sequence[Any]) -> None:
    """RecordMismatchError naming the rank that disagrees, if any.

    A rank with None need not agree.
    """
    reprs = [repr(value) for value in values if value is not None]
    if len(set(reprs)) <= 1:
        return
    # the odd one out is named, and not whichever is compared second
    usual = Counter(reprs).most_common(1)[0][0]
    rank, value = next(
        (rank, v) for rank, v in enumerate(values) if v is not None and repr(v) != usual
    )
    raise RecordMismatchError(
        f"rank {rank} disagrees on {name}: it has {value!r}, the others {usual}; "
        "every rank must build its sampler over the same dataset, with the same arguments, restore the same "
        "record, and be in the same epoch",
        field=name,
    )


_Value = Callable[[SamplerState], Any]
_RUN: dict[str, _Value] = {
    # the plan may differ between ranks of which some have not begun
    "order": lambda s: {key: value for key, value in s.order.items() if key != "plan"},
    "seed": lambda s: s.seed,
    "tail": lambda s: s.tail,
}
_EPOCH: dict[str, _Value] = {
    # Compared between running ranks only: a rank that has ended the epoch is in the next one,
    # which may have more files.
    "dataset": lambda s: asdict(s.dataset),
    "epoch": lambda s: s.epoch,
    # an epoch of which nothing is committed is planned again, and may then have another length
    "length": lambda s: s.progress.length if s.committed or s.progress.committed else None,
    "earlier epochs": lambda s: s.trail,
}
