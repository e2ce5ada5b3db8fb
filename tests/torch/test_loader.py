"""The loader counts what the training loop has had: no more, no less."""

import gc
import os
import random
import signal
import sys
import threading

import numpy as np
import pytest
import torch
from forking import Fork
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import HOW, reading
from torch.utils.data import BatchSampler, RandomSampler
from torch.utils.data._utils import signal_handling

from globidx import DataLoader, ResumableDistributedSampler, errors


class Ids(torch.utils.data.Dataset):
    """Sample ``id`` is ``id``; reading ``bomb`` kills the worker that reads it."""

    def __init__(self, n, bomb=None):
        self.n, self.bomb = n, bomb

    def __len__(self):
        return self.n

    def __getitem__(self, id):
        if id == self.bomb:
            os.kill(os.getpid(), signal.SIGKILL)
        return id


def made(
    n=20,
    batch_size=4,
    workers=0,
    *,
    record=None,
    rank=0,
    world=1,
    dataset=None,
    sampler_arguments=None,
    **arguments,
):
    """(sampler, loader) over range(n) in order."""
    sampler = ResumableDistributedSampler(
        Ids(n), world, rank, **{"shuffle": False} | (sampler_arguments or {})
    )
    if record:
        sampler.load_state_dict(record)
    arguments |= {**reading(workers), "batch_size": batch_size}
    if "batch_sampler" in arguments:
        del arguments["batch_size"]
        arguments["batch_sampler"] = arguments["batch_sampler"](sampler)
    else:
        arguments["sampler"] = sampler
    return sampler, DataLoader(dataset or Ids(n), **arguments)


def so_far(sampler):
    """(epoch, ids committed in it)."""
    state = sampler.state_dict()
    return state["epoch"], state["committed"]


@pytest.mark.parametrize("workers", HOW)
def test_what_is_counted_is_what_the_loop_holds_or_has_had(workers):
    """Prefetching draws far ahead; state asked for in the loop counts the batch the loop holds."""
    sampler, loader = made(100, 4, workers)
    for number, batch in enumerate(loader, 1):
        assert batch.tolist() == list(range(4 * number - 4, 4 * number))
        assert so_far(sampler) == ((0, 4 * number) if number < 25 else (1, 0))
    assert number == 25
    assert so_far(sampler) == (1, 0)


@pytest.mark.parametrize("workers", HOW)
def test_a_peek_costs_nothing(workers):
    """The first batch, looked at and dropped, comes again."""
    sampler, loader = made(20, 4, workers)
    assert next(iter(loader)).tolist() == [0, 1, 2, 3]
    gc.collect()
    assert so_far(sampler) == (0, 0)
    assert [b.tolist()[0] for b in loader] == [0, 4, 8, 12, 16]


@pytest.mark.parametrize("workers", HOW)
def test_after_a_break_the_batch_nobody_asked_about_comes_again(workers):
    """Batches the loop came back from are counted; the one it left with is not, whoever asked for state meanwhile."""
    sampler, loader = made(20, 4, workers)
    for batch in loader:
        if batch[0] == 8:
            break
    assert so_far(sampler) == (0, 8)
    for batch in loader:
        assert batch[0] == 8
        assert so_far(sampler) == (0, 12)
        break
    assert so_far(sampler) == (0, 8)
    assert [b.tolist()[0] for b in loader] == [8, 12, 16]


def test_an_exception_in_the_loop_leaves_the_batch_uncounted():
    """As a break does."""
    sampler, loader = made(20, 4)
    with pytest.raises(ZeroDivisionError):
        for batch in loader:
            1 / (batch[0].item() - 8)
    assert so_far(sampler) == (0, 8)


def test_state_is_counted_once_however_often_it_is_asked_for():
    """Frameworks call state_dict at any moment."""
    sampler, loader = made(20, 4)
    stream = iter(loader)
    next(stream)
    assert [so_far(sampler) for _ in range(3)] == [(0, 4)] * 3
    next(stream)
    assert (sampler.remaining, so_far(sampler)) == (12, (0, 8))


@pytest.mark.parametrize("workers", HOW)
@pytest.mark.parametrize("batch", [1, 3, 7, 20, 50])
def test_batches_that_do_not_divide_are_counted_by_their_ids(workers, batch):
    """The last batch is smaller, on every rank; padding is not counted."""
    trained = []
    for rank in range(3):
        sampler, loader = made(20, batch, workers, rank=rank, world=3)
        for ids in loader:
            trained += ids.tolist()
        assert so_far(sampler) == (1, 0)
    assert set(trained) == set(range(20))
    assert len(trained) == 21


@pytest.mark.parametrize("workers", HOW)
def test_drop_last_of_the_loader_ends_the_epoch(workers):
    """Its leftover would never be delivered: when the last batch is handed out, the epoch is done."""
    sampler, loader = made(20, 6, workers, drop_last=True)
    states = [so_far(sampler) for _ in loader]
    assert states == [(0, 6), (0, 12), (1, 0)]
    assert so_far(sampler) == (1, 0)
    assert len(list(loader)) == 3
    assert so_far(sampler) == (2, 0)


def test_a_batch_size_of_none_counts_ids():
    """Without automatic batching every delivery is one id."""
    sampler, loader = made(5, None)
    assert [so_far(sampler) for _ in loader] == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 0)]


@pytest.mark.parametrize("workers", HOW)
def test_a_batch_sampler_around_it_is_counted(workers):
    """torch's own, given as batch_sampler=."""
    sampler, loader = made(
        20, workers=workers, batch_sampler=lambda s: BatchSampler(s, 6, drop_last=False)
    )
    assert loader._resumable is sampler
    assert [so_far(sampler) for _ in loader] == [(0, 6), (0, 12), (0, 18), (1, 0)]


class Growing(BatchSampler):
    """Batches of 1, 2, 3, ... ids, in order."""

    def __iter__(self):
        batch, size = [], 1
        for id in self.sampler:
            batch.append(id)
            if len(batch) == size:
                yield batch
                batch, size = [], size + 1
        yield batch


class Arrays(BatchSampler):
    """Batches as arrays and tensors: legal, says torch."""

    def __iter__(self):
        for number, batch in enumerate(super().__iter__()):
            yield np.array(batch) if number % 2 else torch.tensor(batch)


def test_batch_samplers_that_only_cut_are_counted():
    """Variable sizes are fine, and so are arrays; test_batch_samplers has those that regroup."""
    sampler, loader = made(20, batch_sampler=lambda s: Growing(s, 1, False))
    assert [so_far(sampler)[1] for _ in loader][:4] == [1, 3, 6, 10]
    sampler, loader = made(20, batch_sampler=lambda s: Arrays(s, 8, False))
    assert [so_far(sampler)[1] for _ in loader] == [8, 16, 0]


class Backwards(ResumableDistributedSampler):
    """A subclass that changes the sequence."""

    def __iter__(self):
        return reversed(list(super().__iter__()))


class Logging(ResumableDistributedSampler):
    """A subclass that does not."""

    def __iter__(self):
        yield from super().__iter__()


def test_subclasses_may_change_the_sequence():
    """What their batches held is recorded; those that only look on are counted."""
    sampler = Backwards(Ids(20), 1, 0, shuffle=False)
    stream = iter(DataLoader(Ids(20), 4, sampler=sampler))
    assert next(stream).tolist() == [19, 18, 17, 16]
    resumed = ResumableDistributedSampler(Ids(20), 1, 0, shuffle=False)
    resumed.load_state_dict(sampler.state_dict())
    assert list(resumed) == list(range(16))
    sampler = Logging(Ids(20), 1, 0, shuffle=False)
    assert [so_far(sampler)[1] for _ in DataLoader(Ids(20), 4, sampler=sampler)] == [
        4,
        8,
        12,
        16,
        0,
    ]


class Broken(Ids):
    """Sample 9 cannot be read."""

    def __getitem__(self, id):
        if id == 9:
            raise ValueError("sample 9 is bad")
        return id


@pytest.mark.parametrize("workers", HOW)
def test_a_failed_batch_is_not_passed_over_in_silence(workers):
    """torch goes on with the batch after it; counted as a prefix, that would lose the failed one. A new loop begins with it."""
    sampler, loader = made(20, 4, workers, dataset=Broken(20))
    stream = iter(loader)
    assert len(stream) == 5
    assert [next(stream).tolist()[0] for _ in range(2)] == [0, 4]
    with pytest.raises(ValueError, match="sample 9 is bad"):
        next(stream)
    with pytest.raises(errors.CommitError, match="last batch failed"):
        next(stream)
    del stream
    assert so_far(sampler) == (0, 8)
    sampler.skip(9)
    resumed, loader = made(20, 4, workers, dataset=Broken(20), record=sampler.state_dict())
    assert [id for batch in loader for id in batch.tolist()] == [8, *range(10, 20)]
    assert so_far(resumed) == (1, 0)


class Part(Ids):
    """A dataset that grows; its workers have it as it was."""

    num_files = 1

    @property
    def fingerprint(self):
        return f"{self.n}"

    def fingerprint_of(self, num_files):
        return f"{4 * num_files}"

    def __getitem__(self, id):
        return range(self.n)[id]


@pytest.mark.slow
def test_persistent_workers_are_renewed_when_the_dataset_grew():
    """They hold the old one."""
    dataset = Part(4)
    sampler = ResumableDistributedSampler(dataset, 1, 0, shuffle=False)
    loader = DataLoader(
        dataset, batch_size=2, sampler=sampler, num_workers=1, persistent_workers=True
    )
    assert len(list(loader)) == 2
    dataset.n, dataset.num_files = 8, 2
    assert [id for batch in loader for id in batch.tolist()] == list(range(8))


@pytest.mark.slow
def test_state_asked_for_in_other_threads_loses_no_commit(monkeypatch):
    """A checkpointing thread polls while the loop goes on."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):
            sampler, loader = made(200, 4)
            stop = threading.Event()

            def poll(sampler=sampler, stop=stop):
                while not stop.is_set():
                    sampler.state_dict()

            threads = [threading.Thread(target=poll) for _ in range(3)]
            for thread in threads:
                thread.start()
            had = sum(len(batch) for batch, _ in zip(loader, range(45), strict=False))
            done = so_far(sampler)
            stop.set()
            for thread in threads:
                thread.join()
            assert done[0] == 0
            assert had <= done[1] <= had + 4
    finally:
        sys.setswitchinterval(interval)


def test_out_of_order_delivery_is_refused():
    """in_order=False would make counts of batches meaningless."""
    with pytest.raises(ValueError, match="in_order=False"):
        made(20, 4, 2, in_order=False)


def test_other_samplers_are_left_to_torch():
    """Without ours it is torch's DataLoader."""
    loader = DataLoader(Ids(10), batch_size=4, shuffle=True, in_order=False)
    assert loader._resumable is None
    assert sorted(id for batch in loader for id in batch.tolist()) == list(range(10))
    assert len(list(DataLoader(Ids(10), sampler=RandomSampler(Ids(10))))) == 10


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [False, True])
def test_passes_follow_each_other_with_workers(persistent):
    """Epochs, breaks and peeks with (persistent) workers: each epoch is read whole."""
    sampler, loader = made(
        40, 4, 2, persistent_workers=persistent, sampler_arguments={"shuffle": True}
    )
    for epoch in range(3):
        sampler.set_epoch(epoch)
        next(iter(loader))
        first = []
        for batch in loader:
            if len(first) == 20:
                break
            first += batch.tolist()
        assert so_far(sampler) == (epoch, 20)
        rest = [id for batch in loader for id in batch.tolist()]
        assert sorted(first + rest) == list(range(40))


@pytest.mark.parametrize("workers", HOW)
@pytest.mark.parametrize(
    ("move", "why"),
    [
        (lambda s: s.set_epoch(5), "its sampler was set to epoch 5"),
        (lambda s: s.load_state_dict(s.state_dict()), "its sampler was loaded with a record"),
        (lambda s: s.reset(), "its sampler was reset"),
        (lambda s: s.finish_epoch(), "its sampler finished epoch 0"),
    ],
)
def test_a_loop_of_before_raises_when_its_sampler_moved_on(workers, move, why):
    """Also where workers had already fetched everything: stale batches are not delivered, and nothing is committed."""
    sampler, loader = made(20, 4, workers)
    stream = iter(loader)
    next(stream)
    move(sampler)
    before = so_far(sampler)
    with pytest.raises(errors.StaleIteratorError, match=f"^{why} since this loop began, so"):
        next(stream)
    assert so_far(sampler) == before


def test_only_the_newest_loop_counts():
    """A second loop starts from what is committed; the first one, gone on with, raises instead of counting twice."""
    sampler, loader = made(20, 4)
    outer = iter(loader)
    next(outer)
    assert next(iter(loader)).tolist() == [0, 1, 2, 3]
    inner = iter(loader)
    next(inner)
    with pytest.raises(
        errors.StaleIteratorError,
        match="^another loop over its loader began since this loop began, so",
    ):
        next(outer)
    next(inner)
    assert so_far(sampler) == (0, 8)


def test_commit_and_the_loader_do_not_both_count():
    """A leftover commit() in the loop would count every batch twice."""
    sampler, loader = made(20, 4)
    with pytest.raises(errors.CommitError, match="commits by itself"):
        for batch in loader:
            sampler.commit(len(batch))


@pytest.mark.slow
def test_a_killed_worker_is_an_error_and_costs_only_what_was_not_delivered(monkeypatch):
    """The error reaches the loop, progress is what it had, and a new loader goes on."""
    # Batches of numpy come through the pipe. For tensors torch also opens a connection to the worker,
    # and then its death may be an error of that.
    sampler, loader = made(40, 4, 2, dataset=Ids(40, bomb=22), collate_fn=np.array)
    trained = []
    with pytest.raises((RuntimeError, ConnectionError)):
        try:
            for batch in loader:
                trained += batch.tolist()
        finally:
            # Torch's signal handler reports the death once more when the other worker ends,
            # wherever this process is by then: in pytest, say.
            monkeypatch.setattr(signal_handling, "_error_if_any_worker_fails", lambda: None)
    epoch, done = so_far(sampler)
    assert (epoch, trained[:done]) == (0, list(range(done)))
    assert len(trained) - done in (0, 4)
    _, loader = made(40, 4, 2, record=sampler.state_dict())
    assert [id for batch in loader for id in batch.tolist()] == list(range(done, 40))


@settings(max_examples=60)
@given(
    n=st.integers(1, 60),
    seed=st.integers(0, 10**6),
    tail=st.sampled_from(["pad", "drop", "exact"]),
    drop_last=st.booleans(),
)
def test_any_mix_of_batches_ranks_and_stops_reads_each_id_once(n, seed, tail, drop_last):
    """Random legs of real loaders, saved at random moments and resumed: committed ids are each epoch's, once."""
    dice = random.Random(seed)
    record, committed = None, []
    while True:
        world, batch = dice.randint(1, 4), dice.randint(1, 9)
        last = dice.random() < 0.3
        pairs = [
            made(
                n,
                batch,
                record=record,
                rank=rank,
                world=world,
                drop_last=drop_last,
                sampler_arguments={"tail": tail, "shuffle": True},
            )
            for rank in range(world)
        ]
        stop = 10**9 if last else dice.randint(0, 5)
        kept = []
        for sampler, loader in pairs:
            stream = list(sampler)
            real = stream[: sampler.num_valid - len(sampler) + len(stream)]
            had = 0
            for number, ids in enumerate(loader):
                if number == stop:
                    break
                had += len(ids)
            kept.append(real[:had])
        if last:
            committed += [id for ids in kept for id in ids]
            assert all(so_far(sampler) == (1, 0) for sampler, _ in pairs)
            break
        if len({tuple(so_far(sampler)) for sampler, _ in pairs}) > 1 or so_far(pairs[0][0])[0]:
            break  # the ranks' last batches differ: that is merge_states' matter
        committed += [id for ids in kept for id in ids]
        record = pairs[0][0].state_dict()
    assert len(committed) == len(set(committed))
    if last and tail != "drop" and not drop_last:
        assert sorted(committed) == list(range(n))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_no_other_thread_forks_while_a_loop_begins():
    """A worker that is forked while this one draws its seed has torch's generator locked, and never begins."""
    children = []

    def fork():
        child = os.fork()
        if not child:
            os._exit(0)
        children.append(child)

    class Watched(torch.utils.data.SequentialSampler):
        def __iter__(self):
            # here the loop begins, its seed drawn and its workers forked
            Fork.watch()
            thread.start()
            assert Fork.begun.wait(30)
            # one that did not wait would be done long before
            assert not Fork.done.wait(0.5)
            return super().__iter__()

    thread = threading.Thread(target=fork)
    dataset = Ids(8)
    loader = DataLoader(dataset, 4, sampler=Watched(dataset), num_workers=1)
    assert torch.cat(list(loader)).tolist() == list(range(8))
    thread.join(30)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_loops_that_begin_at_once_fork_their_workers_in_turn():
    """Each holds off the forks of the others while it begins, and forks itself: none waits for one that waits."""
    read, begin = [], threading.Barrier(3)

    def loop():
        loader = DataLoader(Ids(8), 4, num_workers=2)
        begin.wait(30)
        read.extend(torch.cat(list(loader)).tolist() for _ in range(3))

    threads = [threading.Thread(target=loop, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert read == [list(range(8))] * 9
