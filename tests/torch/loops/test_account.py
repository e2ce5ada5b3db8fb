"""The account of a sampler answers what a record would say, and leaves no trace of having been asked."""

from itertools import islice

import pytest

from globidx import DataLoader, ResumableDistributedSampler


def sampler_of(**arguments):
    return ResumableDistributedSampler(range(20), 2, 0, seed=4, **arguments)


def drawn(sampler, count):
    """An iterator that has issued so many ids."""
    stream = iter(sampler)
    for _ in range(count):
        next(stream)
    return stream


@pytest.mark.parametrize("issued", [0, 1, 7, 10])
def test_what_an_iterator_issued_counts_while_it_is_asked(issued):
    """The answer is that of a sampler which has committed as many; before and after, that of one which has none."""
    sampler, other = sampler_of(), sampler_of()
    fresh = sampler.state_dict()
    stream = drawn(sampler, issued)
    if issued:
        other.commit(issued)
    with sampler._ledger.as_issued_by(stream._cursor):
        assert sampler.state_dict() == other.state_dict()
        assert sampler.remaining == other.remaining
    assert sampler._ledger.including_held().to_dict() == fresh


def test_an_answer_that_fails_leaves_the_next_as_it_was():
    """A subclass whose own state_dict raises is asked again, and not as the iterator any more."""
    sampler = sampler_of()
    fresh = sampler.state_dict()
    stream = drawn(sampler, 3)
    with pytest.raises(KeyError), sampler._ledger.as_issued_by(stream._cursor):
        raise KeyError
    assert sampler._ledger.including_held().to_dict() == fresh


def test_an_iterator_of_an_earlier_pass_says_what_the_sampler_says():
    """What it issued was of another epoch, and counts no more."""
    sampler = sampler_of()
    stream = drawn(sampler, 3)
    sampler.set_epoch(1)
    with sampler._ledger.as_issued_by(stream._cursor):
        assert sampler.state_dict()["epoch"] == 1
        assert sampler.remaining == 20


def test_a_held_batch_is_in_every_answer_and_in_no_count():
    """While the loop works on it, it is done to a record, and still to be committed to the ledger."""
    sampler = sampler_of()
    loader = DataLoader(range(20), batch_size=4, sampler=sampler)
    for number, _ in enumerate(loader):
        ledger = sampler._ledger
        before = 4 * number
        assert (ledger.held_ids, ledger.done) == (min(4, 10 - before), before)
        assert ledger.left_to_deliver == 10 - before
        # the last one ends the epoch, of which 20 remain then
        assert sampler.remaining == (20 - 2 * (before + 4) if number < 2 else 20)
        assert (ledger.epoch, ledger.was_read) == (0, True)
    assert (sampler.epoch, sampler._ledger.held_ids) == (1, 0)


def test_a_batch_that_is_not_trained_on_yet_can_be_left_out():
    """The state without the held batch is the record of what was trained on before it."""
    sampler = ResumableDistributedSampler(range(20), 1, 0, seed=4)
    expected = [sampler.state_dict()]
    for _ in DataLoader(range(20), 6, sampler=sampler):
        assert sampler._ledger.without_held().to_dict() == expected.pop()
        expected.append(sampler.state_dict())


def test_coming_ids_are_those_that_are_drawn_next_and_are_not_drawn_by_that():
    """After any commits, on any rank; whoever asks changes nothing."""
    for world, rank, done in ((1, 0, 0), (3, 2, 4), (2, 1, 9)):
        sampler = ResumableDistributedSampler(range(3000), world, rank, seed=2)
        drawn = list(islice(iter(sampler), done))
        sampler.commit(len(drawn))
        before = sampler.state_dict()
        coming = list(sampler._ledger.coming())
        assert sampler.state_dict() == before
        assert coming == list(iter(sampler))
