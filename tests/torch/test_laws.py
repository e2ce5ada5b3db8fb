"""The four laws: exactly once, one order, elastic determinism, O(1). Real samplers and records against the naive oracle."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import Epoch

from globidx import ResumableDistributedSampler, merge_states
from globidx.orders import Sequential, Shuffle, Weighted
from globidx.testing import strategies

TAILS = ("pad", "drop", "exact")
ORDERS = [Shuffle(), Sequential()]


def ranks_of(n, world_size, record=None, **arguments):
    """One sampler a rank, as after a start on ``world_size`` ranks from ``record``."""
    samplers = [
        ResumableDistributedSampler(range(n), world_size, rank, **arguments)
        for rank in range(world_size)
    ]
    for sampler in samplers:
        if record is not None:
            sampler.load_state_dict(json.loads(json.dumps(record)))
    return samplers


@given(
    n=strategies.lengths(),
    legs=strategies.histories(),
    last=strategies.world_sizes(),
    seed=st.integers(0, 99),
    tail=st.sampled_from(TAILS),
)
def test_each_id_is_committed_once_however_often_the_run_is_killed(n, legs, last, seed, tail):
    """Legs of (world size, batch size, progress of each rank), each killed and resumed, and a last one to the end, read one epoch."""
    epoch = Epoch(Shuffle().bind(n, seed=seed, epoch=0).take(range(n)).tolist())
    record, arguments = None, {"seed": seed, "tail": tail}
    for leg in [*legs, strategies.Leg(last, 3, (1.0,) * last)]:
        world_size, batch = leg.world_size, leg.batch_size
        samplers = ranks_of(n, world_size, record, **arguments)
        streams = [list(sampler) for sampler in samplers]
        if epoch.left and samplers[0].epoch == 0:
            assert streams == epoch.deal(world_size, tail)
        counts = []
        for rank, (sampler, stream) in enumerate(zip(samplers, streams, strict=True)):
            count = leg.ids(rank, len(stream))
            for first in range(0, count, batch):
                sampler.commit(min(batch, count - first))
            counts.append(count)
            if not stream and tail == "drop":
                sampler.finish_epoch()  # fewer ids than ranks, all dropped: a pass of nothing, which no commit can end
        record = merge_states([sampler.state_dict() for sampler in samplers])
        if record["epoch"] == 1:
            dropped = len(epoch.left) % world_size if tail == "drop" else 0
            epoch.commit(world_size, counts)
            assert len(epoch.left) == dropped
            assert record["committed"] == 0
            break
        epoch.commit(
            world_size,
            [min(c, len(hand)) for c, hand in zip(counts, epoch.real(world_size), strict=True)],
        )
        assert record["remaining"] == len(epoch.left)
    assert record["epoch"] == 1
    assert len(set(epoch.committed)) == len(epoch.committed) == n - len(epoch.left)


@given(
    n=st.integers(1, 90),
    legs=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 20)), max_size=4),
    tail=st.sampled_from(TAILS),
)
def test_lock_step_state_is_the_same_on_every_rank_and_needs_no_merge(n, legs, tail):
    """In lock-step rank 0's state_dict alone resumes the run, and equals what every other rank says."""
    epoch, record = Epoch(list(range(n))), None
    for world_size, rounds in legs:
        samplers = ranks_of(n, world_size, record, shuffle=False, tail=tail)
        hands = epoch.deal(world_size, tail)
        rounds = min(rounds, min(map(len, epoch.real(world_size))) - 1)
        if rounds < 1:
            continue
        assert [list(sampler) for sampler in samplers] == hands
        for sampler in samplers:
            sampler.commit(rounds)
        states = [sampler.state_dict() for sampler in samplers]
        assert all(state == states[0] for state in states)
        epoch.commit(world_size, [rounds] * world_size)
        record = states[0]
        assert record["remaining"] == samplers[0].remaining == len(epoch.left)


@given(
    n=st.integers(1, 200),
    worlds=st.lists(st.sampled_from([1, 2, 3, 4, 6, 12]), min_size=1, max_size=5),
    steps=st.lists(st.integers(0, 5), min_size=5, max_size=5),
    seed=st.integers(0, 99),
)
def test_global_batches_are_the_same_on_every_world_size(n, worlds, steps, seed):
    """While world size x batch size stays 12, global batch number s is one set of ids, also across resumes in mid-epoch."""
    order = Shuffle().bind(n, seed=seed, epoch=0).take(range(n)).tolist()
    expected = [set(order[first : first + 12]) for first in range(0, n, 12)]
    record, step = None, 0
    for world_size, stretch in zip(worlds, steps, strict=False):
        batch = 12 // world_size
        samplers = ranks_of(n, world_size, record, seed=seed, tail="exact")
        if samplers[0].epoch:
            break
        streams = [list(sampler) for sampler in samplers]
        for _ in range(stretch):
            if step == len(expected):
                break
            got = [stream[:batch] for stream in streams]
            streams = [stream[batch:] for stream in streams]
            assert {id for ids in got for id in ids} == expected[step]
            for sampler, ids in zip(samplers, got, strict=True):
                sampler.commit(len(ids))
            step += 1
        record = merge_states([sampler.state_dict() for sampler in samplers])


@given(
    n=st.integers(0, 40),
    world_size=st.integers(1, 9),
    tail=st.sampled_from(TAILS),
    order=st.sampled_from(ORDERS),
)
def test_sizes_are_what_is_handed_out(n, world_size, tail, order):
    """len, num_samples and total_size are exact on every rank, padding is the end of a stream, and num_valid says where it begins."""
    epoch = Epoch(order.bind(n, seed=0, epoch=0).take(range(n)).tolist())
    hands, real = epoch.deal(world_size, tail), epoch.real(world_size)
    for rank, sampler in enumerate(ranks_of(n, world_size, tail=tail, order=order)):
        ids = list(sampler)
        assert ids == hands[rank]
        assert len(sampler) == sampler.num_samples == len(ids)
        assert sampler.total_size == sum(map(len, hands))
        assert ids[: sampler.num_valid] == real[rank][: len(ids)]
        assert sampler.num_valid == min(len(ids), len(real[rank]))


@given(
    n=st.integers(1, 60),
    world_size=st.integers(1, 6),
    drop_last=st.booleans(),
    shuffle=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_untouched_it_is_torchs_distributed_sampler(n, world_size, drop_last, shuffle, epoch):
    """With TorchShuffle (or no shuffle) every rank's ids and sizes are those of torch's own sampler."""
    from torch.utils.data.distributed import DistributedSampler

    from globidx.orders import TorchShuffle

    for rank in range(world_size):
        theirs = DistributedSampler(range(n), world_size, rank, shuffle, 5, drop_last)
        ours = ResumableDistributedSampler(
            range(n),
            world_size,
            rank,
            shuffle,
            5,
            drop_last,
            order=TorchShuffle() if shuffle else None,
        )
        assert isinstance(ours, DistributedSampler)
        theirs.set_epoch(epoch)
        ours.set_epoch(epoch)
        assert list(ours) == list(theirs)
        assert (len(ours), ours.num_samples, ours.total_size) == (
            len(theirs),
            theirs.num_samples,
            theirs.total_size,
        )
        for name in ("rank", "num_replicas", "epoch", "shuffle", "seed", "drop_last", "dataset"):
            assert getattr(ours, name) == getattr(theirs, name)


@given(
    n=st.integers(1, 50),
    first=st.integers(1, 4),
    second=st.integers(1, 4),
    epochs=st.integers(1, 4),
    data=st.data(),
)
def test_several_epochs_each_read_every_id_once(n, first, second, epochs, data):
    """Kills in any epoch, and passes that follow each other without set_epoch, never mix epochs."""
    record, world_size = None, first
    for epoch in range(epochs):
        oracle = Epoch(Shuffle().bind(n, seed=3, epoch=epoch).take(range(n)).tolist())
        for leg in range(2):
            samplers = ranks_of(n, world_size, record, seed=3)
            if leg and samplers[0].epoch > epoch:
                break
            assert {sampler.epoch for sampler in samplers} == {epoch}
            streams = [list(sampler) for sampler in samplers]
            assert streams == oracle.deal(world_size, "pad")
            counts = [len(s) if leg else data.draw(st.integers(0, len(s))) for s in streams]
            for sampler, count in zip(samplers, counts, strict=True):
                sampler.commit(count)
            record = merge_states([sampler.state_dict() for sampler in samplers])
            real = oracle.real(world_size)
            oracle.commit(
                world_size, [min(c, len(hand)) for c, hand in zip(counts, real, strict=True)]
            )
            world_size = second
        assert sorted(oracle.committed) == list(range(n))


@pytest.mark.parametrize("n", [10**3, 10**12, 2**62])
def test_no_array_of_the_epochs_length_exists(n):
    """Construction, resuming in the middle and the first ids take the same small memory at any size."""

    class Samples:
        def __len__(self):
            return n

    ResumableDistributedSampler(Samples(), 8, 3)  # imports
    tracemalloc.start()
    sampler = ResumableDistributedSampler(Samples(), 8, 3)
    sampler.commit(n // 16)
    resumed = ResumableDistributedSampler(Samples(), 6, 3)
    resumed.load_state_dict(sampler.state_dict())
    stream = iter(resumed)
    assert len({next(stream) for _ in range(50)}) == 50
    assert len(json.dumps(resumed.state_dict())) < 700
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_the_lengths_of_an_order_that_draws_count_draws():
    """20 draws of 7 samples over 4 ranks: ``len``, ``num_samples`` and ``total_size`` speak of positions."""
    sampler = ResumableDistributedSampler(range(7), 4, 1, order=Weighted([1.0] * 7, num_samples=20))
    assert (len(sampler), sampler.num_samples, sampler.total_size) == (5, 5, 20)
