"""All pairs of (ranks, workers): what is saved on one and resumed on the other misses and repeats nothing.

``python -m pytest -s tests/torch/streams/test_every_pair.py`` prints how much that is.
"""

import itertools
from collections import Counter

import pytest
from simulated_workers import batches

from globidx import merge_states
from globidx.stream import GlobalStream, ShardStream

GRID = list(itertools.product((1, 2, 3), (0, 1, 2, 4)))
#: Batches that each rank has had when all are saved: none, few, and differently many.
SAVES = ((0, 0, 0), (1, 1, 1), (4, 1, 3), (0, 6, 2), (5, 5, 5))
SAMPLES = 103
LENGTHS = {f"part-{number}": 2 + 5 * number % 13 for number in range(17)}


def samples(ranks, rank, *, infinite):
    """A stream of ids."""
    return GlobalStream(range(SAMPLES), ranks, rank, tail="exact", seed=5, infinite=infinite)


def rows(ranks, rank, *, infinite):
    """A stream of the rows of shards."""
    numbers = list(LENGTHS)

    def rows_of(name):
        return range(100 * numbers.index(name), 100 * numbers.index(name) + LENGTHS[name])

    return ShardStream(numbers, rows_of, ranks, rank, seed=5, infinite=infinite)


def read(stream, *, workers, batch_size, most):
    """(epoch, id) of at most so many batches, each committed; of one epoch at most."""
    seen, first = [], stream.epoch
    for batch in itertools.islice(batches(stream, workers=workers, batch_size=batch_size), most):
        if isinstance(stream, ShardStream):
            seen += [(int(place[0]), row) for row, place in batch]
            stream.commit([place for _, place in batch])
        else:
            seen += [(first, id) for id in batch]
            stream.commit(len(batch))
        if most is None and stream.epoch > first:
            break
    return seen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "infinite", "expected"),
    [
        (samples, False, SAMPLES),
        (rows, False, sum(LENGTHS.values())),
        (rows, True, sum(LENGTHS.values())),
    ],
    ids=["samples", "rows", "rows without end"],
)
def test_every_pair_misses_and_repeats_nothing(make, infinite, expected):
    """144 pairs, each saved at one of five places, with batches of other sizes afterwards."""
    missing = repeated = 0
    pairs = itertools.product(GRID, GRID)
    for (first, second), save in zip(pairs, itertools.cycle(SAVES), strict=False):
        seen, states = Counter(), None
        for (ranks, workers), size, steps in ((first, 3, save), (second, 4, (None,) * 3)):
            streams = [make(ranks, rank, infinite=infinite) for rank in range(ranks)]
            for stream, most in zip(streams, steps, strict=False):
                if states:
                    stream.load_state_dict(states)
                seen.update(read(stream, workers=workers, batch_size=size, most=most))
            merge = merge_states if make is samples else ShardStream.merge_states
            states = merge([stream.state_dict() for stream in streams])
        of_first = {id for epoch, id in seen if epoch == 0}
        missing += expected - len(of_first)
        repeated += sum(count - 1 for count in seen.values())
    print(f"\n{len(GRID) ** 2} pairs: {missing} missing, {repeated} repeated")
    assert (missing, repeated) == (0, 0)
