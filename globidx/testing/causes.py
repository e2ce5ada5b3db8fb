"""What is wrong with an epoch, in words, and what probably caused it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from globidx.testing.loops import Part, Share

_MOST = 5


def wrong(expected: Counter[int], came: Counter[int]) -> str:
    """How what came differs from what was expected; "" if it does not.

    >>> wrong(Counter(range(4)), Counter([0, 1, 1, 3]))
    'of 4 samples, 1 was lost (2), 1 was repeated (1)'
    """
    lost, repeated = expected - came, came - expected
    if not lost and not repeated:
        return ""
    found = [_of(lost, "lost"), _of(repeated, "repeated")]
    return f"of {expected.total()} samples, {', '.join(filter(None, found))}"


def _of(ids: Counter[int], word: str) -> str:
    if not ids:
        return ""
    return f"{ids.total()} {'was' if ids.total() == 1 else 'were'} {word} ({listed(ids)})"


def listed(ids: Iterable[int]) -> str:
    """The first few of some ids.

    >>> listed({9, 1, 2, 3, 4, 5})
    '1, 2, 3, 4, 5, ...'
    """
    ordered = sorted(ids)
    return ", ".join(map(str, ordered[:_MOST])) + (", ..." if len(ordered) > _MOST else "")


def cause(parts: Iterable[Part]) -> str:
    """What a loader did to the ids of its sampler, by the first rank where it did; "" if nothing."""
    for part in parts:
        for rank, share in enumerate(part.shares):
            if found := _of_share(share, part.ended):
                return f"Rank {rank} of {part.world_size}: {found}"
    return ""


def _of_share(share: Share, ended: bool) -> str:
    handed = Counter(id for batch in share.batches for id in batch)
    drawn, total = Counter(share.stream), handed.total()
    if is_cut(share):
        if not ended or total == len(share.stream):
            return ""
        return (
            f"its loop ended {len(share.stream) - total} ids before its sampler did. A loader or "
            "batch sampler with drop_last=True, or a loop or wrapper that stops early, loses them"
        )
    if foreign := handed.keys() - drawn.keys():
        return (
            f"its batches hold ids that its sampler did not draw ({listed(foreign)}). The loader does "
            "not read by this sampler, or ids= does not return sample ids"
        )
    if twice := handed - drawn:
        return (
            f"its loader hands out ids more often than its sampler draws them ({listed(twice)}). A "
            "batch sampler or wrapper repeats them"
        )
    if ended and total < len(share.stream):
        return (
            f"its loader leaves out {len(share.stream) - total} ids amid the others "
            f"({listed(drawn - handed)}). A filter, a collate function or a wrapper drops them"
        )
    return (
        "its batches come in another sequence than its sampler's ids. A batch sampler or wrapper "
        "reorders them (a shuffle buffer, batches sorted by length), so what was trained on is no "
        "prefix of the epoch and cannot be resumed; choose the order by order= of the sampler, or regroup "
        "ids in the batch sampler of a globidx.DataLoader, which records what each batch held"
    )


def is_cut(share: Share) -> bool:
    """Whether batches are the stream cut into pieces, from its beginning; within one any sequence will do.

    >>> is_cut(Share([5, 1, 3], [], [[1, 5]])), is_cut(Share([5, 1, 3], [], [[3]]))
    (True, False)
    """
    start = 0
    for batch in share.batches:
        if Counter(share.stream[start : start + len(batch)]) != Counter(batch):
            return False
        start += len(batch)
    return True


def offset(more: int, batch: int) -> str:
    """What a record says wrongly if it leaves ``more`` ids to do than were; "" for none.

    >>> offset(0, 6)
    ''
    >>> offset(6, 6)[:52]
    'The record is 1 global batch behind the training loo'
    """
    if not more:
        return ""
    batches = f"{abs(more) / batch:.3g} global batch{'' if abs(more) == batch else 'es'}"
    if more > 0:
        return (
            f"The record is {batches} behind the training loop: it was made before the last batch "
            "counted. Make it after the loop was handed the batch (or, by hand, after commit)"
        )
    return (
        f"The record is {batches} ahead of the training loop: it counts batches that the loop was "
        "not handed, such as those that workers prefetched. Commit a batch once it is trained on"
    )
