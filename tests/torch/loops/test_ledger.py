"""Training loops have manners of their own: whatever theirs, each pass is a whole one, and what counts is what they had."""

import copy
import itertools
import logging
import pickle
import subprocess
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loops import LEN_LIMITED, by_next, done, made
from processes import clean_environment, torchrun

from globidx import CheckpointManager, DataLoader, ResumableDistributedSampler, merge_states
from globidx.orders import ChunkShuffle


@pytest.mark.parametrize("take", LEN_LIMITED)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("come_back", ["iter", "set_epoch", "same epoch", "settle"])
def test_a_loop_that_takes_len_batches_reads_whole_epochs(take, workers, drop_last, come_back):
    """It never asks for one more; the pass is over all the same, whichever way the loop comes back."""
    sampler = ResumableDistributedSampler(range(41), 1, 0, seed=3)
    loader = DataLoader(
        range(41), batch_size=4, sampler=sampler, num_workers=workers, drop_last=drop_last
    )
    passes = []
    for epoch in range(3):
        if come_back == "set_epoch":
            sampler.set_epoch(epoch)
        elif come_back == "same epoch":
            sampler.set_epoch(0)
        passes.append([id for batch in take(loader) for id in batch.tolist()])
        assert done(sampler)[0] == (1 if come_back == "same epoch" else epoch + 1)
        if come_back == "settle":
            sampler._ledger.settle()
            assert sampler.epoch == epoch + 1
    assert [len(set(ids)) for ids in passes] == [40 if drop_last else 41] * 3
    assert len({tuple(ids) for ids in passes}) == (1 if come_back == "same epoch" else 3)


def test_a_save_after_len_batches_is_of_the_next_epoch(tmp_path):
    """Nothing of it is given again after a resume."""
    sampler, loader = made()
    by_next(loader)
    CheckpointManager(tmp_path, sampler).save(11)
    resumed, loader = made()
    CheckpointManager(tmp_path, resumed).restore()
    assert (resumed.epoch, sum(map(len, loader))) == (1, 41)


@pytest.mark.parametrize("take", LEN_LIMITED)
def test_the_epoch_of_a_loop_that_takes_len_batches_is_the_next(take):
    """``while sampler.epoch < n: sampler.set_epoch(sampler.epoch)`` comes to an end; in a for's body nothing has moved."""
    sampler, loader = made()
    epochs = []
    while sampler.epoch < 3:
        epochs.append(sampler.epoch)
        sampler.set_epoch(sampler.epoch)
        assert sum(map(len, take(loader))) == 41
    assert epochs == [0, 1, 2]
    assert [sampler.epoch for _ in loader] == [3] * 11


# what a loop holds


def test_a_loop_that_is_gone_on_with_counts_what_it_had_before():
    """Stretches of one iterator, saves between them: nothing is lost and nothing counted twice."""
    sampler, loader = made()
    stream, had = iter(loader), []
    while True:
        stretch = [id for batch in itertools.islice(stream, 3) for id in batch.tolist()]
        if not stretch:
            break
        had += stretch
        sampler._ledger.settle()
        assert done(sampler)[1] <= len(had) % 41
    assert had == list(range(41))
    assert done(sampler) == (1, 0)


def test_a_batch_that_nobody_settled_is_told_of_once(caplog):
    """At the next save, with how many samples it had; and it is given again."""
    sampler, loader = made()
    for number, _ in enumerate(loader):
        if number == 2:
            break
    with caplog.at_level(logging.INFO, logger="globidx"):
        sampler._ledger.settle()
        sampler._ledger.settle()
    assert [record.args for record in caplog.records] == [(4,)]
    assert next(iter(loader)).tolist() == [8, 9, 10, 11]


# queries


QUERIES = {
    "state_dict": lambda s, loader: s.state_dict(),
    "remaining": lambda s, loader: s.remaining,
    "len": lambda s, loader: len(s),
    "len of the loader": lambda s, loader: len(loader),
    "start": lambda s, loader: loader.start,
    "steps": lambda s, loader: (loader.steps_per_epoch, loader.steps_left(5)),
    "repr": lambda s, loader: (repr(s), repr(loader)),
    "equality": lambda s, loader: s == loader.sampler,
    "properties": lambda s, loader: [
        getattr(s, name) for name, value in vars(type(s)).items() if isinstance(value, property)
    ],
    "pickle": lambda s, loader: list(pickle.loads(pickle.dumps(s))),
    "deepcopy": lambda s, loader: copy.deepcopy(s).state_dict(),
    "throw-away iterator": lambda s, loader: list(itertools.islice(s, 3)),
}


@st.composite
def histories(draw):
    """What happens to a run, and between any two events some queries."""
    events = st.sampled_from(
        ["next", "next", "next", "break", "set_epoch", "settle", "skip", "reload"]
    )
    queries = st.lists(st.sampled_from(list(QUERIES)), max_size=3)
    return draw(st.lists(st.tuples(queries, events), max_size=12))


def play(history, *, asked, order, n, world):
    """All ids delivered, and all states a save would see, of a run with or without the queries."""
    made_order = {"order": ChunkShuffle(window=2, chunk=3)} if order == "chunks" else {}
    sampler, loader = made(n, 3, world=world, shuffle=order != "sequential", **made_order)
    stream, seen, record = None, [], None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "epoch . was read to its end")  # by a throw-away iterator
        for queries, event in history:
            for query in queries if asked else ():
                QUERIES[query](sampler, loader)
            if event == "next":
                stream = stream or iter(loader)
                batch = next(stream, None)
                stream = stream if batch is not None else None
                seen.append(None if batch is None else batch.tolist())
            elif event == "break":
                stream = None
            elif event == "set_epoch":
                sampler.set_epoch(sampler.epoch + 1)
                stream = None
            elif event == "skip":
                sampler.skip(n // 2)
            elif event == "settle":
                sampler._ledger.settle()
                record = sampler.state_dict()
                seen.append(record)
            elif record is not None:
                sampler.load_state_dict(record)
                stream = None
        sampler._ledger.settle()
        return [*seen, sampler.state_dict(), list(sampler)]


@given(
    history=histories(),
    order=st.sampled_from(["shuffle", "sequential", "chunks"]),
    n=st.integers(1, 30),
    world=st.integers(1, 3),
)
def test_queries_change_nothing(history, order, n, world):
    """Every property, len, repr, ==, copies and state_dict, in any sequence at any moment: no later id or state differs."""
    arguments = {"order": order, "n": n, "world": world}
    assert play(history, asked=True, **arguments) == play(history, asked=False, **arguments)


RANK_0_LOOKS = """
import datetime, torch, torch.distributed as dist, globidx
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
rank = dist.get_rank()
sampler = globidx.ResumableDistributedSampler(range(48), seed=1)
loader = globidx.DataLoader(range(48), batch_size=4, sampler=sampler)
steps = 0
for number, batch in enumerate(loader):
    steps += 1
    if number == 2:
        if rank == 0:
            sampler.state_dict(), sampler.remaining
        break
for batch in loader:
    steps += 1
both = torch.zeros(2, dtype=torch.int64)
both[rank] = steps
dist.all_reduce(both)
assert both[0] == both[1], both
dist.monitored_barrier()  # as the examples end
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_a_look_of_rank_0_and_a_break_leave_the_ranks_in_step(tmp_path):
    """Everybody saves on rank 0 alone; the collectives of later steps must meet."""
    script = tmp_path / "look.py"
    script.write_text(RANK_0_LOOKS)
    subprocess.run(torchrun(2, script), env=clean_environment(), check=True, timeout=120)


# loaders that do not report


@pytest.mark.parametrize("tail", ["pad", "drop", "exact"])
def test_a_rank_that_a_plain_loader_deals_nothing_goes_on_with_the_others(tail):
    """41 of 43 done, resumed on 4 ranks: the pass after is a whole epoch, on every rank."""
    first = ResumableDistributedSampler(range(43), 1, 0, tail=tail)
    first.commit(41)
    ranks = [ResumableDistributedSampler(range(43), 4, rank, tail=tail) for rank in range(4)]
    for sampler in ranks:
        sampler.load_state_dict(first.state_dict())
    passes = []
    for _ in range(3):
        taken = []
        for sampler in ranks:
            for batch in torch.utils.data.DataLoader(range(43), batch_size=4, sampler=sampler):
                taken += batch.tolist()
                sampler.commit(len(batch))
        passes.append(len(set(taken)))
        record = merge_states([sampler.state_dict() for sampler in ranks])
    whole = 40 if tail == "drop" else 43
    assert passes == [0 if tail == "drop" else 2, whole, whole]
    assert (record["epoch"], record["committed"]) == (3, 0)


# loaders of other datasets


def test_a_loader_over_another_dataset_than_its_samplers_is_refused():
    """Ids of one would be looked up in the other; both lengths are named."""
    sampler = ResumableDistributedSampler(range(20), 1, 0)
    with pytest.raises(ValueError, match="dataset has 7 samples, its sampler's has 20"):
        DataLoader(range(7), sampler=sampler)
