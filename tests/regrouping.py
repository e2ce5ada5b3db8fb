"""Batch samplers that regroup the ids of their sampler, as users write them."""

from __future__ import annotations

import random
from itertools import islice

from torch.utils.data import BatchSampler


def length_of(id):
    """The length of a sample, as far as batch samplers group by it."""
    return id * 7919 % 1009


class Buckets(BatchSampler):
    """Batches of one kind of sample each; what is left of a kind is a smaller batch at the end."""

    def __iter__(self):
        waiting = {}
        for id in self.sampler:
            waiting.setdefault(length_of(id) % 3, []).append(id)
            if len(waiting[length_of(id) % 3]) == self.batch_size:
                yield waiting.pop(length_of(id) % 3)
        if not self.drop_last:
            yield from waiting.values()


class Sorted(BatchSampler):
    """Batches of similar length, from windows of five batches."""

    def __iter__(self):
        ids = iter(self.sampler)
        while window := sorted(islice(ids, 5 * self.batch_size), key=length_of):
            for first in range(0, len(window), self.batch_size):
                yield window[first : first + self.batch_size]


class Alternating(BatchSampler):
    """One batch from each of two sources in turn, as long as both have any."""

    def __iter__(self):
        sources = ([], [])
        for id in self.sampler:
            sources[id % 2].append(id)
            while all(len(some) >= self.batch_size for some in sources):
                for some in sources:
                    yield [some.pop(0) for _ in range(self.batch_size)]
        for some in sources:
            while some:
                yield [some.pop(0) for _ in range(min(len(some), self.batch_size))]


class Shuffling(BatchSampler):
    """Batches of any size from a buffer of any size, in an order that nothing but a seed explains."""

    seed = 5

    def __iter__(self):
        dice, ids, buffer = random.Random(self.seed), iter(self.sampler), []
        while some := [*buffer, *islice(ids, dice.randint(1, 4 * self.batch_size))]:
            dice.shuffle(some)
            size = dice.randint(1, self.batch_size)
            yield some[:size]
            buffer = some[size:]


class InOrder(BatchSampler):
    """Batches of 1, 2, 3, ... ids, in order."""

    def __iter__(self):
        ids, size = iter(self.sampler), 1
        while batch := list(islice(ids, size)):
            yield batch
            size += 1


ALL = [Buckets, Sorted, Alternating, Shuffling, InOrder]
