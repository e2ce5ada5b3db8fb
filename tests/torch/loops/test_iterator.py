"""Iterators of a sampler: each has a position of its own, and one of before hands out no stale ids."""

import itertools
import json

import pytest

from globidx import ResumableDistributedSampler, errors


def alone(n=10, **arguments):
    """A sampler over range(n) that is the only rank, in the ids' own order unless told otherwise."""
    return ResumableDistributedSampler(range(n), 1, 0, **{"shuffle": False} | arguments)


def test_throw_away_iterators_cost_nothing():
    """Position lives in the iterator: however many are started and dropped, the next one starts from what is committed."""
    sampler = alone()
    for drawn in range(4):
        list(itertools.islice(sampler, drawn))
    assert list(sampler) == list(range(10))
    sampler.commit(3)
    list(itertools.islice(sampler, 5))
    assert list(sampler) == list(range(3, 10))


def test_two_iterators_at_once_do_not_disturb_each_other():
    """Each has a position of its own."""
    sampler = alone()
    one, other = iter(sampler), iter(sampler)
    assert [next(one), next(other), next(one), next(other)] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "move",
    [
        lambda s: s.set_epoch(1),
        lambda s: s.load_state_dict(s.state_dict()),
        lambda s: s.reset(),
        lambda s: s.finish_epoch(),
        lambda s: (list(s), s.commit(1000)),
    ],
)
@pytest.mark.parametrize("drawn", [0, 1, 127, 128, 129, 999])
def test_an_iterator_of_before_raises_when_its_sampler_moved_on(move, drawn):
    """Rather than hand out stale ids, wherever in a block it stands."""
    sampler = alone(1000)
    stream = iter(sampler)
    list(itertools.islice(stream, drawn))
    move(sampler)
    with pytest.raises(errors.StaleIteratorError, match="before its sampler"):
        next(stream)


def test_an_iterator_at_its_end_just_ends():
    """The loader's last look at a pass whose ids were all committed is no mistake."""
    sampler = alone(3)
    stream = iter(sampler)
    assert list(itertools.islice(stream, 3)) == [0, 1, 2]
    sampler.commit(3)
    assert list(stream) == []


def test_an_iterator_tells_the_record_of_what_it_issued():
    """torchdata's StatefulDataLoader publishes it with the batch: exact there, at any point of a block, and it loads."""
    sampler = alone(1000)
    stream = iter(sampler)
    for issued in (0, 1, 2, 127, 128, 129, 500, 999):
        list(itertools.islice(stream, issued - stream._cursor.issued))
        state = stream.state_dict()
        assert (state["committed"], state["remaining"]) == (issued, 1000 - issued)
        resumed = alone(1000)
        fresh = iter(resumed)
        fresh.load_state_dict(json.loads(json.dumps(state)))
        assert next(fresh) == issued
        assert resumed.state_dict()["committed"] == issued
    list(stream)
    assert (stream.state_dict()["epoch"], stream.state_dict()["committed"]) == (1, 0)


def test_an_iterator_of_before_has_nothing_to_tell():
    """Its issued ids are not the new pass's: it speaks with the sampler's own record."""
    sampler = alone(10)
    stream = iter(sampler)
    next(stream)
    sampler.set_epoch(1)
    assert stream.state_dict() == sampler.state_dict()
    assert (stream.state_dict()["epoch"], stream.state_dict()["committed"]) == (1, 0)
