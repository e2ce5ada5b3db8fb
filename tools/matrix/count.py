"""What became of the samples: missing, repeated, or read again as padding."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from matrix.leg import BATCH, EPOCHS, SAMPLES, SAVED_EPOCH, SAVED_STEP

#: A leg: what each rank read, step by step, with the epoch.
Leg = Sequence[Sequence[tuple[int, Sequence[int]]]]


class Count(NamedTuple):
    """Samples that an epoch did not read, reads that were one too many, and such reads that are padding."""

    missing: int
    repeated: int
    padding: int = 0

    def __str__(self) -> str:
        return f"{self.missing} / {self.repeated}" + (f" + {self.padding}" if self.padding else "")


def in_epoch(leg: Leg, epoch: int) -> list[list[Sequence[int]]]:
    """The steps of each rank in one epoch."""
    return [[ids for one, ids in rank if one == epoch] for rank in leg]


def count(before: Sequence[int], ranks: Sequence[Sequence[Sequence[int]]], padding: int) -> Count:
    """The count of an epoch of which ``before`` was read, and after it what the ``ranks`` read, step by step.

    Of what the ranks' last steps read again, up to ``padding`` reads are padding.

    >>> SAMPLES
    203
    >>> whole = list(range(203))
    >>> print(count(whole[:3], [[whole[3:]]], padding=0))
    0 / 0
    >>> print(count(whole[:3], [[whole[4:]]], padding=0))
    1 / 0
    >>> print(count(whole[:3], [[whole[2:]]], padding=0), count(whole[:3], [[whole[3:], [0]]], padding=1))
    0 / 1 0 / 0 + 1
    """
    times = Counter(before)
    times.update(id for steps in ranks for ids in steps for id in ids)
    again = times.total() - len(times)
    last = Counter(id for steps in ranks if steps for id in steps[-1])
    again_in_last = sum(min(reads, times[id] - 1) for id, reads in last.items())
    padded = min(padding, again_in_last)
    return Count(SAMPLES - len(times), again - padded, padded)


def of_the_resumed_epoch(first: Leg, second: Leg, padding: int) -> Count:
    """The count of the epoch that was saved; what the second leg reads of those before it is read again."""
    before = [id for steps in in_epoch(first, SAVED_EPOCH) for ids in steps for id in ids]
    found = count(before, in_epoch(second, SAVED_EPOCH), padding)
    over = sum(len(ids) for rank in second for epoch, ids in rank if epoch < SAVED_EPOCH)
    return found._replace(repeated=found.repeated + over)


def of_later_epochs(second: Leg, padding: int) -> list[Count]:
    """The counts of the epochs after it, equal ones once."""
    counts = [
        count([], in_epoch(second, epoch), padding) for epoch in range(SAVED_EPOCH + 1, EPOCHS)
    ]
    return list(dict.fromkeys(counts))


def exact(saved: int, resumed: int) -> tuple[Count, list[Count]]:
    """The counts of a run that was saved and resumed on so many ranks, if nothing is lost or repeated.

    Ranks read equally many samples, so what is left of an epoch is padded to a multiple of them, and no more.

    >>> print(*exact(2, 3)[1], *exact(3, 2)[1], exact(3, 1)[0], exact(3, 2)[0], sep=", ")
    0 / 0 + 1, 0 / 0 + 1, 0 / 0, 0 / 0
    """
    left = SAMPLES - saved * BATCH * SAVED_STEP
    return Count(0, 0, -left % resumed), [Count(0, 0, -SAMPLES % resumed)]
