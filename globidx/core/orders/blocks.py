"""Global batches of one group each: how the members of groups are laid out over positions.

A *leg* is a stretch of the epoch at one global batch size. In it every group's members are cut into
blocks of that size, and the blocks of all groups are shuffled. What fills no block comes last, or is
filled up, or is left out. When the batch size changes, the members whose blocks were not begun are
cut anew: that is the next leg. Members of a leg are counted from 0 among those that its beginning
left over, so a leg maps its members to those of the leg before it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core.orders.permutation import Permutation

Indices = NDArray[np.int64]

#: What becomes of members that fill no block.
Rest = Literal["merge", "pad", "drop"]


class Cut(NamedTuple):
    """Where a leg begins, its global batch size, and the length of a shorter first block.

    The first block is shorter where positions of the leg before remain: together they are a batch.
    ``end`` is the length of the epoch that is cut so; it depends on which blocks are gone by then.
    """

    start: int
    batch: int
    lead: int
    end: int


class Leg:
    """The blocks of one leg.

    Parameters
    ----------
    cut : Cut
        Where it begins, and the size of its blocks.
    sizes : numpy.ndarray
        How many members each group has left, int64.
    rest : Rest
        What becomes of those that fill no block.
    seed, epoch, number : int
        What the shuffle of the blocks is keyed by.
    """

    def __init__(
        self, cut: Cut, sizes: Indices, rest: Rest, *, seed: int, epoch: int, number: int
    ) -> None:
        self._batch, self._rest = cut.batch, rest
        #: How many groups there are.
        self.groups = len(sizes)
        # the shorter first block is one of the largest group
        self._leader = int(np.argmax(sizes))
        self._led = np.zeros_like(sizes)
        self._led[self._leader] = min(cut.lead, int(sizes[self._leader]))
        #: Its first position.
        self.start = cut.start
        self._body = cut.start + int(self._led[self._leader])
        self._members = sizes - self._led
        up = cut.batch - 1 if rest == "pad" else 0
        self._blocks = (self._members + up) // cut.batch
        self._block_starts = _starts(self._blocks)
        self._rests = np.maximum(self._members - self._blocks * cut.batch, 0)
        self._rest_starts = _starts(self._rests)
        self._tail = self._body + int(self._block_starts[-1]) * cut.batch
        #: The position after its last.
        self.end = self._tail + (int(self._rest_starts[-1]) if rest == "merge" else 0)
        key = f"grouped.1 {number}"
        self._shuffle = _permutation(self._block_starts, seed, epoch, f"{key} blocks")
        self._stir = _permutation(self._rest_starts, seed, epoch, f"{key} rest")

    # -- positions and members

    def forward(self, positions: Indices) -> tuple[Indices, Indices]:
        """Return the group of each position, and which of its members it has."""
        groups, members = np.empty_like(positions), np.empty_like(positions)
        led, tail = positions < self._body, positions >= self._tail
        groups[led], members[led] = self._leader, positions[led] - self.start
        body = ~(led | tail)
        blocks, offsets = np.divmod(positions[body] - self._body, self._batch)
        groups[body], block = self._block(blocks)
        within = block * self._batch + offsets
        # a block that is filled up begins with the group's members again
        members[body] = within % np.maximum(self._members, 1)[groups[body]]
        stirred = self._stir.forward(positions[tail] - self._tail)
        groups[tail] = _owner(self._rest_starts, stirred)
        members[tail] = (
            self._blocks[groups[tail]] * self._batch + stirred - self._rest_starts[groups[tail]]
        )
        return groups, members + np.where(led, 0, self._led[groups])

    def inverse(self, groups: Indices, members: Indices) -> Indices:
        """Return the first position of members of groups; -1 for one that is left out."""
        within = members - self._led[groups]
        block, offset = np.divmod(within, self._batch)
        inside = (within >= 0) & (block < self._blocks[groups])
        positions = np.full_like(members, -1)
        slots = self._block_starts[groups[inside]] + block[inside]
        positions[inside] = self._body + self._shuffle.inverse(slots) * self._batch + offset[inside]
        led = within < 0
        positions[led] = self.start + members[led]
        rest = ~(led | inside)
        if self._rest == "merge" and rest.any():
            of = groups[rest]
            stirred = self._rest_starts[of] + within[rest] - self._blocks[of] * self._batch
            positions[rest] = self._tail + self._stir.inverse(stirred)
        return positions

    def repeats(self, group: int, member: int) -> Indices:
        """Return the positions at which a member comes again, in a block that is filled up."""
        have = int(self._members[group])
        within = member - int(self._led[group])
        if self._rest != "pad" or within < 0:
            return np.empty(0, np.int64)
        again = np.arange(have + within, int(self._blocks[group]) * self._batch, have)
        slots = self._block_starts[group] + again // self._batch
        positions: Indices = (
            self._body + self._shuffle.inverse(slots) * self._batch + again % self._batch
        )
        return positions

    # -- the next leg

    def begun(self, position: int) -> int:
        """Return the position after the last block that is begun before ``position``."""
        blocks = -(-max(0, position - self._body) // self._batch)
        return self._body + blocks * self._batch

    def has_blocks_after(self, position: int) -> bool:
        """Return whether a block begins at ``position`` or later."""
        return self.begun(position) < self._tail

    def has_cut(self, position: int) -> bool:
        """Return whether a block begins at ``position``."""
        return self.has_blocks_after(position) and self.begun(position) == position

    def left(self, position: int) -> Indices:
        """Return how many members of each group come at ``position``, where a block begins, or later."""
        groups, blocks = self._taken(position)
        taken = np.minimum(self._batch, self._members[groups] - blocks * self._batch)
        gone = np.bincount(groups, taken, len(self._members)).astype(np.int64)
        left: Indices = self._members - gone
        return left

    def remainder(self, position: int) -> Remainder:
        """Return which members come at ``position`` or later."""
        return Remainder(self._batch, self._led, *self._taken(position))

    def _taken(self, position: int) -> tuple[Indices, Indices]:
        return self._block(np.arange((position - self._body) // self._batch))

    def _block(self, slots: Indices) -> tuple[Indices, Indices]:
        shuffled = self._shuffle.forward(slots)
        groups = _owner(self._block_starts, shuffled)
        return groups, shuffled - self._block_starts[groups]


class Remainder:
    """From the members of a leg to those of the leg before it, some of whose blocks are gone."""

    def __init__(self, batch: int, led: Indices, groups: Indices, blocks: Indices) -> None:
        self._batch, self._led = batch, led
        order = np.lexsort((blocks, groups))
        groups, blocks = groups[order], blocks[order]
        self._starts = np.searchsorted(groups, np.arange(len(led) + 1))
        # group and block as one number, which ascends
        self._span = int(blocks.max(initial=0)) + 2
        self._gone = groups * self._span + blocks
        self._before = self._gone - (np.arange(len(groups)) - self._starts[groups])

    def forward(self, groups: Indices, members: Indices) -> Indices:
        """Return which members of the leg before these are."""
        blocks = np.minimum(members // self._batch, self._span - 1)
        skipped = np.searchsorted(self._before, groups * self._span + blocks, side="right")
        skipped -= self._starts[groups]
        before: Indices = members + skipped * self._batch + self._led[groups]
        return before

    def inverse(self, groups: Indices, members: Indices) -> Indices:
        """Return which members of the next leg those of the leg before it are; all are left."""
        within = members - self._led[groups]
        blocks = np.minimum(within // self._batch, self._span - 1)
        skipped = np.searchsorted(self._gone, groups * self._span + blocks)
        skipped -= self._starts[groups]
        after: Indices = within - skipped * self._batch
        return after


def _starts(counts: Indices) -> Indices:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _owner(starts: Indices, at: Indices) -> Indices:
    owners: Indices = np.searchsorted(starts, at, side="right") - 1
    return owners


def _permutation(starts: Indices, seed: int, epoch: int, purpose: str) -> Permutation:
    return Permutation(max(1, int(starts[-1])), seed=seed, epoch=epoch, purpose=purpose)
