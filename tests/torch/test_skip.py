"""Skipped ids are left out from the next segment on, and nothing else moves."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx import DataLoader, ResumableDistributedSampler, errors, merge_states
from globidx.orders import Shuffle


def ranks_of(n, world, record=None, **arguments):
    """One sampler a rank."""
    made = [
        ResumableDistributedSampler(range(n), world, rank, tail="exact", **arguments)
        for rank in range(world)
    ]
    for sampler in made:
        if record:
            sampler.load_state_dict(json.loads(json.dumps(record)))
    return made


def test_it_takes_effect_from_the_next_segment_on():
    """Not in the running pass; after a resume, and in the epochs that follow."""
    sampler = ResumableDistributedSampler(range(10), 1, 0, shuffle=False)
    sampler.commit(2)
    sampler.skip([1, 4, (7, 9)])
    assert list(sampler) == [2, 3, 4, 5, 6, 7, 8, 9]
    resumed = ResumableDistributedSampler(range(10), 1, 0, shuffle=False)
    resumed.load_state_dict(sampler.state_dict())
    assert list(resumed) == [2, 3, 5, 6, 9]
    assert len(resumed) == 2 + 5
    state = resumed.state_dict()
    assert (state["committed"], state["skipped"], state["remaining"]) == (2, 3, 5)
    assert state["skip"] == [[1, 2], [4, 5], [7, 9]]
    resumed.commit(5)
    assert (resumed.epoch, list(resumed)) == (1, [0, 2, 3, 5, 6, 9])
    resumed.set_epoch(4)
    assert list(resumed) == [0, 2, 3, 5, 6, 9]
    assert resumed.skipped.pairs == ((1, 2), (4, 5), (7, 9))


def test_the_order_does_not_shift():
    """Under shuffle, what is read is the same sequence without the skipped ids."""
    whole = list(ResumableDistributedSampler(range(100), 1, 0, seed=3))
    sampler = ResumableDistributedSampler(range(100), 1, 0, seed=3)
    sampler.skip(range(20, 40))
    sampler.reset()
    assert list(sampler) == [id for id in whole if not 20 <= id < 40]


def test_lists_of_the_ranks_are_united_by_a_merge():
    """Only one rank may have met the bad sample."""
    ranks = ranks_of(30, 3)
    for rank in ranks:
        rank.commit(2)
    ranks[1].skip(7)
    ranks[2].skip([7, 8])
    record = merge_states([rank.state_dict() for rank in ranks])
    assert record["skip"] == [[7, 9]]
    order = Shuffle().bind(30, seed=0, epoch=0).take(range(30)).tolist()
    left = sorted(id for rank in ranks_of(30, 2, record) for id in rank)
    assert left == sorted(id for id in order[6:] if id not in (7, 8))


def test_ranks_that_began_an_epoch_with_different_lists_are_refused_at_a_merge():
    """They have dealt different cards; better told than trained on."""
    ranks = ranks_of(30, 2)
    ranks[0].skip(3)
    for rank in ranks:
        rank.set_epoch(1)
        rank.commit(2)
    with pytest.raises(errors.RecordMismatchError, match="disagrees on segments"):
        merge_states([rank.state_dict() for rank in ranks])


@given(seed=st.integers(0, 10**6), n=st.integers(1, 60))
def test_every_id_is_committed_once_or_left_out(seed, n):
    """Random kills, resizes, uneven ranks and skips at random moments, against a list: nothing lost, nothing shifted."""
    dice = random.Random(seed)
    left = Shuffle().bind(n, seed=1, epoch=0).take(range(n)).tolist()
    committed, skipped, record, pending = [], set(), None, set()
    for _ in range(6):
        world = dice.randint(1, 5)
        ranks = ranks_of(n, world, record, seed=1)
        if ranks[0].epoch:
            break
        if record is not None:
            skipped |= {id for id in left if id in pending}
            left = [id for id in left if id not in pending]
        hands = [left[rank::world] for rank in range(world)]
        assert [list(rank) for rank in ranks] == hands
        even = dice.random() < 0.4
        common = dice.randint(0, max(map(len, hands)))
        counts = [min(len(hand), common if even else dice.randint(0, len(hand))) for hand in hands]
        for rank, count in zip(ranks, counts, strict=True):
            rank.commit(count)
        taken = [id for hand, count in zip(hands, counts, strict=True) for id in hand[:count]]
        committed += taken
        left = [id for id in left if id not in set(taken)]
        if dice.random() < 0.6:
            bad = [dice.randrange(n) for _ in range(dice.randint(1, 4))]
            dice.choice(ranks).skip(bad)
            pending |= set(bad)
        record = merge_states([rank.state_dict() for rank in ranks])
        if record["epoch"] == 0 and record["committed"]:
            assert (record["committed"], record["skipped"], record["remaining"]) == (
                len(committed),
                len(skipped),
                len(left),
            )
    assert len(set(committed)) == len(committed)
    assert not set(committed) & skipped
    assert sorted([*committed, *skipped, *left]) == list(range(n))


def test_a_peek_does_not_make_a_rank_miss_a_skip():
    """Both ranks list the same in mid-epoch; that one of them had looked at a batch before changes nothing."""
    ranks = [ResumableDistributedSampler(range(12), 2, rank, shuffle=False) for rank in (0, 1)]
    loaders = [DataLoader(range(12), batch_size=2, sampler=rank) for rank in ranks]
    next(iter(loaders[0]))
    for rank in ranks:
        rank.skip([0])
    trained = [id for batch in loaders[1] for id in batch.tolist()]
    for batch in loaders[0]:
        trained += batch.tolist()
        record = merge_states([rank.state_dict() for rank in ranks])
        if len(trained) > 8:
            break
    alone = ResumableDistributedSampler(range(12), 1, 0, shuffle=False)
    alone.load_state_dict(record)
    rest = list(alone)
    assert sorted({*trained, *rest} - {0}) == list(range(1, 12))
    assert len(trained) + len(rest) - 12 <= 1  # padding


def test_a_skip_on_one_rank_before_a_save_between_epochs_is_united():
    """Nothing of the new epoch was dealt yet, so it begins with the list of all."""
    ranks = [ResumableDistributedSampler(range(12), 2, rank, shuffle=False) for rank in (0, 1)]
    ranks[1].skip(3)
    for rank in ranks:
        rank.commit(6)
    record = merge_states([rank.state_dict() for rank in ranks])
    assert (record["epoch"], record["skip"]) == (1, [[3, 4]])
    alone = ResumableDistributedSampler(range(12), 1, 0, shuffle=False)
    alone.load_state_dict(record)
    assert 3 not in list(alone)


def test_a_rank_that_ended_the_epoch_tells_how_it_was_begun():
    """The other has committed nothing yet, but both left the same id out."""
    ranks = [ResumableDistributedSampler(range(13), 2, rank, shuffle=False) for rank in (0, 1)]
    for rank in ranks:
        rank.skip(0)
        rank.reset()
        assert len(list(rank)) == 6
    ranks[0].commit(6)
    record = merge_states([rank.state_dict() for rank in ranks])
    assert (record["epoch"], record["committed"], record["skipped"], record["remaining"]) == (
        0,
        6,
        1,
        6,
    )
    alone = ResumableDistributedSampler(range(13), 1, 0, shuffle=False)
    alone.load_state_dict(record)
    assert list(alone) == [2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize("finish", [False, True])
def test_an_epoch_that_ranks_dealt_differently_is_refused_also_when_it_is_over(finish):
    """One rank left an id out, the other did not: no merge may take what they did for an epoch, however late it comes."""
    ranks = [ResumableDistributedSampler(range(12), 2, rank, shuffle=False) for rank in (0, 1)]
    ranks[1].skip(0)
    for rank in ranks:
        rank.commit(6)
    assert len(list(ranks[0])) + len(list(ranks[1])) == 12
    ranks[1].commit(6)
    ranks[0].commit(6 if finish else 2)
    with pytest.raises(errors.RecordMismatchError, match="disagrees on (segments|earlier epochs)"):
        merge_states([rank.state_dict() for rank in ranks])


def test_everything_skipped_is_an_empty_epoch():
    """Nothing remains, nothing is padded."""
    sampler = ResumableDistributedSampler(range(4), 2, 0)
    sampler.skip(range(4))
    sampler.set_epoch(1)
    assert (list(sampler), len(sampler), sampler.remaining) == ([], 0, 0)


@pytest.mark.parametrize("bad", [10, -1, 1.5, [3, 99], range(8, 12)])
def test_ids_that_are_none_cannot_be_skipped(bad):
    """Outside the dataset, or no integers: nothing changes."""
    sampler = ResumableDistributedSampler(range(10), 1, 0)
    with pytest.raises((IndexError, TypeError, ValueError)):
        sampler.skip(bad)
    assert sampler.state_dict()["skip"] == []
