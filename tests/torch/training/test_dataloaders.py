"""The pair of loaders: training of equal length on all ranks, validation exact, plain where there is one process."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import globidx
from globidx import ResumableDistributedSampler, orders


def on_ranks(ranks, *arguments, **options):
    """The pair of each rank, as torchrun's environment says before there is a process group."""
    pairs = []
    for rank in range(ranks):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RANK", str(rank))
            patch.setenv("WORLD_SIZE", str(ranks))
            pair = globidx.dataloaders(*arguments, **options)
            pairs.append([[batch.tolist() for batch in loader] for loader in pair])
    return pairs


@settings(max_examples=30, deadline=None)
@given(
    train=st.integers(12, 60),
    val=st.integers(1, 30),
    ranks=st.integers(1, 4),
    batch=st.integers(1, 5),
    tail=st.sampled_from(["pad", "drop"]),
)
def test_ranks_train_on_as_many_batches_and_validate_on_each_sample_once(
    train, val, ranks, batch, tail
):
    """On any number of ranks; the oracle counts ids."""
    pairs = on_ranks(
        ranks, list(range(train)), list(range(val)), batch_size=batch, val_batch_size=3, tail=tail
    )
    assert len({tuple(map(len, trained)) for trained, _ in pairs}) == 1
    trained = [id for batches, _ in pairs for one in batches for id in one]
    spare = train % ranks
    assert len(trained) == (train - spare if tail == "drop" else train + -train % ranks)
    assert len(set(trained)) == (train - spare if tail == "drop" else train)
    validated = sorted(id for _, batches in pairs for one in batches for id in one)
    assert validated == list(range(val))
    assert all(len(one) <= 3 for _, batches in pairs for one in batches)


def test_one_process_validates_by_a_plain_loader_and_trains_by_one_that_resumes():
    """A validation that was left early begins anew; what one process trained, two go on with."""
    train, val = globidx.dataloaders(range(20), range(10), batch_size=4, seed=3)
    assert isinstance(val.sampler, torch.utils.data.SequentialSampler)
    for _ in range(2):
        assert next(iter(val)).tolist() == [0, 1, 2, 3]
    batches = iter(train)
    done = [*next(batches).tolist(), *next(batches).tolist()]
    state = train.sampler.state_dict()
    rest = []
    for rank in range(2):
        sampler = ResumableDistributedSampler(range(20), 2, rank, seed=3)
        sampler.load_state_dict(state)
        rest += list(sampler)
    assert sorted(done + rest) == list(range(20))


def test_training_data_is_shuffled_anew_in_each_epoch_by_seed_or_in_an_order_of_ones_own():
    """Two seeds, two epochs, and no shuffle where that is asked for."""
    read = [
        [
            id
            for batch in globidx.dataloaders(range(50), [0], batch_size=5, seed=seed)[0]
            for id in batch.tolist()
        ]
        for seed in (1, 1, 2)
    ]
    assert read[0] == read[1] != read[2] and sorted(read[0]) == list(range(50)) != read[0]
    train = globidx.dataloaders(range(50), [0], batch_size=50).train
    assert next(iter(train)).tolist() != next(iter(train)).tolist()
    plain = globidx.dataloaders(range(50), [0], batch_size=50, order=orders.Sequential()).train
    assert next(iter(plain)).tolist() == list(range(50))


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"shuffle": False}, r"no shuffle=: train is shuffled and val is not; order="),
        ({"drop_last": True}, r"no drop_last=: val would lose samples; tail='drop'"),
        ({"sampler": None}, r"no sampler=: make a globidx.DataLoader of your own"),
        ({"tail": "exact"}, r"tail='exact' would give ranks different numbers of training steps"),
        ({"tail": "odd"}, r"tail must be one of"),
    ],
)
def test_what_would_break_the_promise_is_refused(option, said):
    """With what to write instead."""
    with pytest.raises((TypeError, ValueError), match=said):
        globidx.dataloaders(range(10), range(10), batch_size=2, **option)


def test_options_go_to_both():
    """Workers, collate functions."""
    train, val = globidx.dataloaders(range(10), range(10), batch_size=2, collate_fn=tuple)
    assert isinstance(next(iter(train)), tuple) and next(iter(val)) == (0, 1)
