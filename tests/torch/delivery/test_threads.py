"""Batches that threads read: what processes would deliver, in one process, and nothing waits for a thread for ever."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref

import numpy as np
import pytest
import torch
import torch.utils.data
from files import environment, numbers, write_hdf5, write_zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import reading
from oracle import Epoch

from globidx import (
    DataLoader,
    FileCacheDataset,
    GlobalIndexManager,
    MapDataset,
    PreemptionGuard,
    ResumableDistributedSampler,
    errors,
    merge_states,
)
from globidx.orders import ChunkShuffle, Shuffle
from globidx.stream import GlobalStream
from globidx.testing import strategies
from globidx.torch.delivery.threads import ReadingThread, Task, Team
from tests.torch.test_loader import Ids

#: A test fails, and does not hang.
SECONDS = 20


def loader_of(dataset, batch=4, *, threads=2, sampler=None, **options):
    """A loader with threads, over a sampler that keeps the sequence of ids."""
    sampler = sampler or ResumableDistributedSampler(dataset, 1, 0, shuffle=False)
    return DataLoader(
        dataset, batch, sampler=sampler, num_workers=threads, workers="threads", **options
    )


def readers():
    """The threads that read now."""
    return [thread for thread in threading.enumerate() if isinstance(thread, ReadingThread)]


def ended(threads):
    """Whether these threads end by themselves."""
    end = time.monotonic() + SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """Every test lets go of its loops, and then their threads end."""
    yield
    if readers():
        gc.collect()
    assert ended(readers())


# -- the laws


@settings(max_examples=30)
@given(
    n=strategies.lengths(),
    legs=strategies.histories(),
    last=strategies.world_sizes(),
    seed=st.integers(0, 99),
    threads=st.integers(1, 3),
)
def test_each_id_is_committed_once_however_often_the_run_is_killed(n, legs, last, seed, threads):
    """Legs of (world size, batch size, progress of each rank) by loops over threads, each left and resumed, read one epoch."""
    epoch = Epoch(Shuffle().bind(n, seed=seed, epoch=0).take(range(n)).tolist())
    record = None
    for leg in [*legs, strategies.Leg(last, 3, (1.0,) * last)]:
        states, counts = [], []
        for rank in range(leg.world_size):
            sampler = ResumableDistributedSampler(range(n), leg.world_size, rank, seed=seed)
            if record is not None:
                sampler.load_state_dict(record)
            expected = list(sampler)
            wanted, had = leg.ids(rank, len(expected)), []
            for batch in loader_of(range(n), leg.batch_size, threads=threads, sampler=sampler):
                had += batch.tolist()
                assert had == expected[: len(had)]
                # the last batch of a pass counts, however the loop is left
                if len(had) > wanted and len(had) < len(expected):
                    del had[-len(batch) :]
                    break
            counts.append(len(had))
            states.append(sampler.state_dict())
        real = [len(hand) for hand in epoch.real(leg.world_size)]
        epoch.commit(leg.world_size, [min(*pair) for pair in zip(counts, real, strict=True)])
        record = merge_states(states)
        if record["epoch"]:
            break
        assert record["remaining"] == len(epoch.left)
    assert record["epoch"] == 1 and sorted(epoch.committed) == list(range(n))


class Drawn(ResumableDistributedSampler):
    """Notes in which thread ids are drawn, and how many were."""

    def __iter__(self):
        self.threads, self.count = set(), 0
        for id in super().__iter__():
            self.threads.add(threading.get_ident())
            self.count += 1
            yield id


@pytest.mark.parametrize("prefetch", [1, 3])
def test_ids_are_drawn_in_the_loop_s_thread_when_torch_draws_them(prefetch):
    """So many batches in advance at the beginning, and one more with each that is delivered, as for processes."""
    moments = {}
    for how in (2, "threads"):
        sampler = Drawn(range(64), 1, 0)
        loader = DataLoader(range(64), 4, sampler=sampler, prefetch_factor=prefetch, **reading(how))
        stream = iter(loader)
        moments[how] = [sampler.count] + [sampler.count for _ in stream]
        assert sampler.threads == {threading.get_ident()}
    assert moments["threads"] == moments[2]
    assert moments[2][:2] == [8 * prefetch, 8 * prefetch + 4]


def test_generators_of_the_process_are_as_with_processes():
    """The loop's own random numbers do not depend on what reads."""
    after = []
    for how in (2, "threads"):
        torch.manual_seed(5)
        list(torch_order(DataLoader(range(9), 2, shuffle=True, **reading(how)), after))
    assert after[0] == after[1]


def torch_order(loader, after):
    """The batches of a loader; what was delivered, and the next random number, are added to ``after``."""
    after.append(([batch.tolist() for batch in loader], torch.rand(()).item()))
    return after


@pytest.fixture(params=["zarr", "hdf5"])
def files(request, tmp_path):
    """The index of two files in chunks, one item after the other 1, 2, 3, ..."""
    for number in range(2):
        data = numbers(40, (8, 8), "i4", start=1 + 64 * 40 * number)
        if request.param == "zarr":
            write_zarr(tmp_path / f"{number}.zarr", data, chunk=8)
        else:
            write_hdf5(tmp_path / f"{number}.h5", data, chunk=8, compression="gzip")
    return GlobalIndexManager(tmp_path)


@pytest.mark.parametrize("cache", ["process", "shared"])
def test_files_are_read_once_by_all_threads(files, cache):
    """Each epoch of a chunk shuffle gives every sample as it is stored, and decodes each chunk once."""
    dataset = FileCacheDataset(files, with_id=True, cache=cache)
    sampler = ResumableDistributedSampler(dataset, 1, 0, order=ChunkShuffle(window=3))
    loader = loader_of(dataset, 6, threads=4, sampler=sampler)
    for _ in range(2):
        dataset.counters(reset=True)
        dataset.close()
        seen = []
        for items, ids in loader:
            expected = 1 + 64 * ids[:, None] + torch.arange(64)
            assert torch.equal(items.reshape(len(ids), 64), expected.to(torch.int32))
            seen += ids.tolist()
        assert sorted(seen) == list(range(80))
        assert dataset.counters().decodes == 10
    # they share a cache, so the epoch is planned as for one worker
    assert sampler.state_dict()["order"]["plan"]["workers"] == 1


# -- errors


class Bad(Ids):
    """Sample 9 raises an error that cannot be made anew from its message."""

    class Broken(Exception):
        def __init__(self, code, *, hint):
            super().__init__(f"code {code}")
            self.code = code
            self.add_note(hint)

    def __getitem__(self, id):
        if id == 9:
            raise self.Broken(7, hint="read the manual")
        return id


def test_an_error_is_the_dataset_s_own_with_its_traceback():
    """Same object, attributes and notes, after the batches before it; another loop begins with the failed batch."""
    loader = loader_of(Bad(20))
    seen = []
    with pytest.raises(Bad.Broken, match="code 7") as caught:
        for batch in loader:
            seen += batch.tolist()
    assert seen == list(range(8))
    assert (caught.value.code, caught.value.__notes__) == (7, ["read the manual"])
    told = "".join(traceback.format_exception(caught.value))
    assert "in __getitem__" in told and "raise self.Broken" in told
    sampler = ResumableDistributedSampler(range(20), 1, 0, shuffle=False)
    sampler.load_state_dict(loader.sampler.state_dict())
    with pytest.raises(Bad.Broken):
        next(iter(loader_of(Bad(20), sampler=sampler)))
    sampler.skip(9)
    sampler.load_state_dict(sampler.state_dict())
    rest = loader_of(Bad(20), sampler=sampler)
    assert [id for batch in rest for id in batch.tolist()] == [8, *range(10, 20)]


def test_an_error_does_not_keep_the_loop_s_batches_alive():
    """What raised is forgotten with the exception, without the garbage collector."""
    kept = []

    class Big:
        pass

    class Data(Ids):
        def __getitem__(self, id):
            held = Big()
            kept.append(weakref.ref(held))
            raise OSError(f"sample {id} is bad")

    gc.disable()
    try:
        with pytest.raises(OSError, match="sample 0 is bad") as caught:
            next(iter(loader_of(Data(4), 4, threads=1)))
        del caught
        assert ended(readers())
        assert [one() for one in kept] == [None]
    finally:
        gc.enable()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_would_end_a_thread_reaches_the_loop(error):
    """A worker process would die; here nobody would be told."""

    class Exits(Ids):
        def __getitem__(self, id):
            raise error

    with pytest.raises(error):
        next(iter(loader_of(Exits(4))))


def test_each_thread_begins_with_the_worker_init_fn():
    """Called once in each, with its number; what it raises is raised in the loop."""
    begun, both = {}, threading.Barrier(2, timeout=SECONDS)

    def begin(number):
        both.wait()
        begun[number] = threading.current_thread(), torch.utils.data.get_worker_info()

    list(loader_of(range(20), worker_init_fn=begin))
    assert sorted(begun) == [0, 1]
    assert len({thread for thread, _ in begun.values()}) == 2
    assert all(isinstance(thread, ReadingThread) for thread, _ in begun.values())
    assert [info for _, info in begun.values()] == [None, None]

    def fail(number):
        raise OSError(f"no device {number}")

    with pytest.raises(OSError, match="no device"):
        list(loader_of(range(20), worker_init_fn=fail))


# -- threads that hang, and threads that end


class Hangs(Ids):
    """Reading from id 8 on waits until it is ``let_go``; ``reached`` says that it waits."""

    def __init__(self, n):
        super().__init__(n)
        self.reached, self.let_go = threading.Event(), threading.Event()

    def __getitem__(self, id):
        if id >= 8:
            self.reached.set()
            self.let_go.wait(SECONDS)
        return id


def test_a_read_that_hangs_ends_in_the_timeout():
    """The batches before it come; after the error the thread is left behind, and another loop reads what is left."""
    dataset = Hangs(20)
    loader = loader_of(dataset, timeout=0.3)
    seen = []
    with pytest.raises(RuntimeError, match=r"timed out after 0\.3 seconds"):
        for batch in loader:
            seen += batch.tolist()
    assert seen == list(range(8))
    hung = readers()
    dataset.let_go.set()
    assert ended(hung)
    assert [id for batch in loader for id in batch.tolist()] == list(range(8, 20))


@pytest.mark.parametrize("persistent", [False, True])
def test_threads_end_with_their_loop_and_not_before(persistent):
    """Also where one hangs: nobody waits for it, and it ends when it comes back."""
    dataset = Hangs(20)
    loader = loader_of(dataset, persistent_workers=persistent)
    stream = iter(loader)
    next(stream)
    assert dataset.reached.wait(SECONDS)
    threads = readers()
    assert len(threads) == 2
    del stream
    if persistent:
        assert all(thread.is_alive() for thread in threads)
        del loader
    # whose iterator is part of no cycle
    dataset.let_go.set()
    assert ended(threads)


def test_threads_end_with_the_pass_unless_they_are_persistent():
    """Those that are kept read the next pass, also after a break; what was read for the one before is dropped."""
    dataset = Ids(40)
    loader = loader_of(dataset)
    for _ in range(2):
        before = set(readers())
        stream = iter(loader)
        assert not before & set(readers())
        list(stream)
        assert ended(readers())
    loader = loader_of(dataset, persistent_workers=True)
    for batch in loader:
        first = set(readers())
        if batch[0] == 8:
            break
    rest = [id for batch in loader for id in batch.tolist()]
    assert set(readers()) == first and len(first) == 2
    assert rest == list(range(8, 40))
    del loader, batch


def test_a_delivered_batch_lives_no_longer_than_the_loop_holds_it():
    """Neither a thread that waits nor the iterator keeps it."""
    stream = iter(loader_of(Ids(8), 4, threads=1))
    batch = next(stream)
    held = weakref.ref(batch)
    next(stream)
    del batch
    assert held() is None


SCRIPT = """
import sys, threading, globidx
from globidx import ResumableDistributedSampler

class Data:
    def __len__(self):
        return 400
    def __getitem__(self, id):
        if id == 50 and how != "busy":
            print("stuck", flush=True)
            threading.Event().wait()
        if id > 50:
            sum(range(20000))                            # never done when the interpreter exits
        return id

how = sys.argv[1]
data = Data()
loader = globidx.DataLoader(data, 4, sampler=ResumableDistributedSampler(data, 1, 0, shuffle=False), num_workers=2,
                            workers="threads", prefetch_factor=40, persistent_workers=how == "raises")
stream = iter(loader)
for step, batch in enumerate(stream):
    if step == 3:
        break
if how == "interrupted":
    for batch in stream:
        pass
if how == "raises":
    raise SystemExit(3)
if how == "left":
    del stream
print("end", flush=True)
"""


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=pytest.mark.slow) for how in ("left", "busy")] + ["raises"]
)
def test_the_interpreter_exits_whatever_threads_do(tmp_path, how):
    """A thread that hangs, or is in the midst of its work, neither keeps the process nor makes it crash."""
    script = tmp_path / "loop.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, how],
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (3 if how == "raises" else 0, "")
    assert ("end" in done.stdout) == (how != "raises")


def test_ctrl_c_reaches_the_loop_that_waits_for_a_thread(tmp_path):
    """And ends the process, though the thread hangs."""
    script = tmp_path / "loop.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, script, "interrupted"],
        env=environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "stuck\n"
        process.send_signal(signal.SIGINT)
        said, errors_said = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT
    assert "end" not in said and errors_said.endswith("KeyboardInterrupt\n")


def test_a_guard_hears_a_signal_while_threads_read():
    """Sent by a thread, say: the handler runs in the main thread, and all batches come."""

    class Signals(Ids):
        def __getitem__(self, id):
            if id == 9:
                signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            return id

    with PreemptionGuard([signal.SIGUSR1]) as guard:
        seen = [id for batch in loader_of(Signals(40)) for id in batch.tolist()]
        assert guard.should_stop() and guard.received == signal.SIGUSR1
    assert seen == list(range(40))


# -- forks


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_worker_processes_that_start_while_threads_read(files):
    """A validation loader of processes in the midst of a pass: its children are forked with all locks free."""
    dataset = FileCacheDataset(files, cache_bytes=2**14, max_open_files=1)
    ids = [id for _ in range(12) for id in range(80)]
    random.Random(0).shuffle(ids)
    train = torch.utils.data.Subset(dataset, ids)
    seen = 0
    for batch in loader_of(train, 6, threads=3, prefetch_factor=20):
        seen += len(batch)
        if seen % 240 == 0:
            workers = DataLoader(dataset, 20, num_workers=2, timeout=SECONDS)
            read = torch.cat(list(workers)).reshape(80, 64)
            assert torch.equal(read, torch.arange(1, 80 * 64 + 1).reshape(80, 64).int())
    assert seen == len(ids)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("persistent", [False, True])
def test_a_forked_child_is_told_that_it_has_no_threads(persistent):
    """Its parent's loop fails there at once and not never; a loop of its own has threads of its own."""
    sampler = ResumableDistributedSampler(range(40), 1, 0, shuffle=False)
    loader = loader_of(range(40), sampler=sampler, persistent_workers=persistent, prefetch_factor=1)
    stream = iter(loader)
    next(stream)
    child = os.fork()
    if not child:
        signal.alarm(SECONDS)
        code = 1
        try:
            with pytest.raises(RuntimeError, match="forked"):
                for _ in stream:
                    pass
            sampler.reset()
            ids = [id for batch in loader for id in batch.tolist()]
            code = 0 if ids == list(range(40)) else 2
        except BaseException:  # noqa: BLE001 - nothing of pytest may run in a child
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert [id for batch in stream for id in batch.tolist()] == list(range(4, 40))
    del loader, stream


# -- what is refused


def test_a_loader_says_what_reads():
    """In its repr, too; an unknown word is refused."""
    loader = loader_of(range(8))
    assert loader.workers == "threads" and "num_workers=2, workers='threads'" in repr(loader)
    assert DataLoader(range(8)).workers == "processes"
    with pytest.raises(ValueError, match="workers must be one of processes, threads, got 'thread'"):
        DataLoader(range(8), workers="thread")


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(range(3))


def test_what_threads_cannot_share_is_refused(files):
    """An iterator, a start method, and generators that are seeded for the process; without threads there is no reason."""
    with pytest.raises(TypeError, match="Endless, an IterableDataset, has one iterator a worker"):
        DataLoader(Endless(), num_workers=1, workers="threads")
    with pytest.raises(ValueError, match="multiprocessing_context= says how processes start"):
        DataLoader(range(8), num_workers=1, workers="threads", multiprocessing_context="spawn")
    seeding = FileCacheDataset(files, transform=torch.neg, seed_transforms=True)
    for dataset in (
        seeding,
        MapDataset(range(3), transform=lambda one: one, seed_transforms=True),
        torch.utils.data.ConcatDataset([range(3), torch.utils.data.Subset(seeding, [1])]),
    ):
        with pytest.raises(ValueError, match="seed_transforms=True seeds the generators"):
            DataLoader(dataset, num_workers=1, workers="threads")
        assert DataLoader(dataset, workers="threads").num_workers == 0
    assert len(list(DataLoader(Endless(), workers="threads"))) == 3


def test_a_stream_of_a_map_style_dataset_is_read_by_threads():
    """As the dataset and the sampler that it is."""
    stream = GlobalStream(range(20), shuffle=False)
    batches = DataLoader(stream, 4, num_workers=2, workers="threads")
    assert [id for batch in batches for id in batch.tolist()] == list(range(20))


def test_other_loaders_of_the_package_take_threads(files):
    """A sampler of torch's, no batches, and samples that are replaced."""
    assert [int(id) for id in loader_of(range(7), None)] == list(range(7))
    dataset = FileCacheDataset(files)
    expected = np.arange(1, 80 * 64 + 1).reshape(80, 8, 8)
    batches = DataLoader(dataset, 7, num_workers=3, workers="threads")
    np.testing.assert_array_equal(torch.cat(list(batches)).numpy(), expected)


# -- the team itself


def test_a_team_reads_in_the_sequence_of_what_it_is_given():
    """A task that was not begun when the team is closed is left out, and one that runs is ended."""
    begin, go_on = threading.Event(), threading.Event()

    def read(ids):
        begin.set()
        assert go_on.wait(SECONDS)
        return sum(ids)

    team = Team(1, read)
    tasks = [team.give([number]) for number in range(3)]
    assert begin.wait(SECONDS)
    team.close()
    go_on.set()
    assert ended(readers())
    assert isinstance(tasks[0], Task) and tasks[0].result() == 0
    assert [task.done.is_set() for task in tasks] == [True, False, False]
    assert not team.is_alive


def test_stop_iteration_of_a_thread_is_an_error():
    """It would end the pass without a word."""
    loader = loader_of(Ids(40), collate_fn=lambda samples: next(iter(())))
    with pytest.raises(errors.EarlyStopError, match="raised StopIteration"):
        list(loader)
