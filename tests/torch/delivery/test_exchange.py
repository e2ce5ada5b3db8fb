"""Batches of real workers in slots: the same as without, whoever holds them, whoever is killed."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from processes import clean_environment

from globidx import (
    DataLoader,
    FileCacheDataset,
    GlobalIndexManager,
    ResumableDistributedSampler,
)
from globidx.torch.delivery.slots import FREE

FORK = multiprocessing.get_context("fork")


class Numbered(torch.utils.data.Dataset):
    """Sample ``id`` is full of it; ``bomb`` kills its worker, and ``length`` gives its length."""

    def __init__(self, n=1200, bomb=None, length=None):
        self.n, self.bomb, self.length = n, bomb, length

    def __len__(self):
        return self.n

    def __getitem__(self, id):
        if id == self.bomb:
            os.kill(os.getpid(), signal.SIGKILL)
        length = 64 if self.length is None else self.length(id)
        return {"x": torch.full((length, 16), id, dtype=torch.int32), "id": id, "name": str(id)}


def constant_in_batch(id):
    """Another length for each batch of 4, up and down."""
    return 1 + 37 * (id // 4) % 101


def loader(dataset=None, workers=2, method="fork", **arguments):
    dataset = dataset or Numbered()
    arguments = {"batch_size": 4} | arguments
    return DataLoader(dataset, num_workers=workers, multiprocessing_context=method, **arguments)


def is_right(batch, number, size=4):
    """Whether a batch is the ``number``-th of an order that is not shuffled."""
    ids = list(range(number * size, number * size + size))
    return (
        batch["id"].tolist() == ids
        and batch["name"] == [str(id) for id in ids]
        and batch["x"].eq(torch.tensor(ids).view(-1, 1, 1)).all().item()
    )


def exchange(batches):
    return batches._globidx_slots


def counts(batches):
    """(batches in slots, others)."""
    found = exchange(batches)._lender.file.counts.tolist()
    return sum(found[0::3]), sum(found[1::3])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_what_is_held_never_changes_while_hundreds_of_batches_come(method):
    """Tensors, views, arrays and storages of many batches, some held to the end: each batch is right as it comes, and stays."""
    kept, recent = {}, deque(maxlen=3)
    views = (
        lambda x: x,
        lambda x: x[1:, ::3],
        lambda x: x.numpy()[2],
        lambda x: np.from_dlpack(x)[:, 1],
        lambda x: torch.frombuffer(x.numpy(), dtype=torch.int32),
    )
    batches = iter(loader(method=method, slots=12))
    for number, batch in enumerate(batches):
        assert is_right(batch, number)
        recent.append((number, batch))
        if number % 40 == 0:
            view = views[number // 40 % len(views)](batch["x"])
            kept[number] = view, np.array(view.tolist())
        assert all(is_right(one, when) for when, one in recent)
        assert all((view.tolist() == before).all() for view, before in kept.values())
    assert number == 299
    assert counts(batches) == (300, 0)
    del batch, batches
    recent.clear()
    gc.collect()
    assert all((view.tolist() == before).all() for view, before in kept.values())


def test_a_loop_that_keeps_all_batches_gets_them_as_torch_sends_them():
    """When no slot is free nobody waits, and nothing is written over."""
    batches = iter(loader(slots=3))
    kept = list(batches)
    assert all(is_right(batch, number) for number, batch in enumerate(kept))
    assert counts(batches) == (6, 294)


def test_batches_of_other_shapes_come_in_slots_too():
    """Slots grow to the longest."""
    batches = iter(loader(Numbered(400, length=constant_in_batch)))
    assert [is_right(batch, number) for number, batch in enumerate(batches)] == [True] * 100
    assert counts(batches) == (100, 0)


def test_memory_does_not_grow_over_a_thousand_batches():
    """Neither that of the slots, nor of either process, nor descriptors, nor addresses."""
    batches, seen = iter(loader(Numbered(4400))), []
    for number, batch in enumerate(batches):
        assert is_right(batch, number)
        if number in (100, 1099):
            file = exchange(batches)._lender.file
            with open("/proc/self/maps") as lines:
                mapped = sum("globidx-slots" in line for line in lines)
            opened = len(os.listdir("/proc/self/fd"))
            seen.append((os.fstat(file._fd).st_blocks, mapped, opened))
    assert seen[0] == seen[1]
    # 2 x 4 slots of 5 pages, and the page before them
    assert seen[0][0] * 512 <= (2 * 4 * 5 + 1) * 4096


def test_a_loop_that_was_left_loses_no_slot():
    """Persistent workers go on; what was on its way is given back, and the batch that is kept stays."""
    data = loader(persistent_workers=True)
    kept = []
    for turn in range(6):
        batches = iter(data)
        for number, batch in enumerate(batches):
            assert is_right(batch, number)
            if number == 5 + turn:
                break
        if turn == 2:
            kept.append((number, batch))
    del batch
    batches = iter(data)
    assert all(is_right(one, number) for number, one in enumerate(batches))
    in_slots, others = counts(batches)
    # a batch or two while a pass ends and the next begins: its workers read ahead meanwhile
    assert others <= 6
    assert in_slots > 300
    assert all(is_right(one, number) for number, one in kept)
    assert len(exchange(batches).held) == 1
    states = list(exchange(batches)._lender.file.states)
    assert states.count(FREE) == len(states) - 1


def test_passes_follow_each_other_and_each_has_its_own_memory():
    """Batches of passes that ended stay as they are; all else of these is gone."""
    data, kept = loader(Numbered(80)), []
    for _ in range(4):
        kept += [batch for number, batch in enumerate(data) if number == 7]
    gc.collect()
    assert all(is_right(batch, 7) for batch in kept)
    with open("/proc/self/maps") as lines:
        mapped = [line for line in lines if "globidx-slots" in line]
    # of each pass one slot and the page of states
    assert len(mapped) <= 2 * len(kept), mapped
    # the loader can still tell of its last pass
    assert "20 batches were sent in slots, 0 as" in data.explain()
    kept.clear()
    del mapped, data
    with open("/proc/self/maps") as lines:
        assert not [line for line in lines if "globidx-slots" in line]


def test_two_loaders_at_once_do_not_mix():
    """One in the loop of the other, and one in a thread."""
    failed = []

    def in_a_thread():
        failed.extend(
            number for number, one in enumerate(loader(workers=1)) if not is_right(one, number)
        )

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    outer = loader(Numbered(60))
    for number, batch in enumerate(outer):
        for inner_number, inner in enumerate(loader(Numbered(16), workers=1)):
            assert is_right(inner, inner_number)
        assert is_right(batch, number)
    thread.join()
    assert failed == []


BOMBED = """
from torch.utils.data._utils import signal_handling
from tests.torch.delivery.test_exchange import loader, Numbered, is_right
kept = []
try:
    for batch in loader(Numbered(bomb=101), slots=40):
        kept.append(batch)
except RuntimeError as error:
    # or else torch reports it once more, at any time, when the other worker ends
    signal_handling._error_if_any_worker_fails = lambda: None
    print(error)
print(len(kept) >= 20 and all(is_right(batch, number) for number, batch in enumerate(kept)))
"""


def test_a_killed_worker_is_an_error_that_says_so():
    """And the batches that had come are still what they were."""
    done = subprocess.run(
        [sys.executable, "-c", BOMBED],
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    error, last = done.stdout.splitlines()
    assert "killed by signal: Killed" in error or "exited unexpectedly" in error
    assert last == "True"


KILLED = """
import sys, os
from tests.torch.delivery.test_exchange import loader, Numbered
if __name__ == "__main__":
    batches = iter(loader(Numbered(10**6), prefetch_factor=8))
    kept = [next(batches) for _ in range(4)]
    print(*(worker.pid for worker in batches._workers), flush=True)
    for batch in batches:
        pass
"""


@pytest.mark.slow
def test_a_main_process_that_is_killed_leaves_nothing(tmp_path):
    """In the middle of batches: its workers end, and with them the memory, which has no name anywhere."""
    script = tmp_path / "loop.py"
    script.write_text(KILLED)
    command = [sys.executable, script]
    with subprocess.Popen(
        command, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as main:
        workers = main.stdout.readline().split()
        parts = Path(f"/proc/{main.pid}/maps").read_text().splitlines()
        main.kill()
        # the workers have its output: it ends with the last of them
        assert main.stdout.read() == ""
    assert len(workers) == 2
    shared = {part.split(maxsplit=5)[5] for part in parts if " rw-s " in part}
    assert shared == {"/memfd:globidx-slots (deleted)"} | {
        name for name in shared if name.startswith("/dev/shm/sem.")
    }


def sees(pipe, batch, number):
    """In a forked child: whether the batch is right, before and after its parent went on."""
    pipe.send(is_right(batch, number))
    pipe.recv()
    pipe.send(is_right(batch, number))


def test_a_forked_child_keeps_the_batch_that_its_parent_held():
    """While its parent leaves it and goes through hundreds of others."""
    batches = iter(loader())
    batch, pipe = next(batches), FORK.Pipe()
    child = FORK.Process(target=sees, args=(pipe[1], batch, 0), daemon=True)
    child.start()
    assert pipe[0].recv() is True
    del batch
    assert all(is_right(batch, number) for number, batch in enumerate(batches, 1))
    pipe[0].send("went on")
    assert pipe[0].poll(60)
    assert pipe[0].recv() is True
    child.join()
    assert child.exitcode == 0


def send_back(queue, back):
    tensor = queue.get()
    back.put(tensor.sum().item())
    queue.get()
    back.put(tensor.sum().item())


def test_a_tensor_that_is_sent_on_to_a_process_is_a_copy():
    """By torch.multiprocessing: the receiver's stays as it is, whatever comes in its slot."""
    context = torch.multiprocessing.get_context("spawn")
    queue, back = context.Queue(), context.Queue()
    other = context.Process(target=send_back, args=(queue, back), daemon=True)
    other.start()
    batches = iter(loader())
    for _ in range(5):
        batch = next(batches)
    expected = batch["x"].sum().item()
    queue.put(batch["x"])
    assert back.get(timeout=60) == expected
    del batch
    assert all(is_right(one, number) for number, one in enumerate(batches, 5))
    queue.put(None)
    assert back.get(timeout=60) == expected
    other.join()


class Ids(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from (torch.full((100,), n) for n in range(50))


def test_iterable_datasets_and_single_samples_come_in_slots():
    """Whatever a worker's collate function makes."""
    batches = iter(DataLoader(Ids(), 5, num_workers=1))
    assert [batch[:, 0].tolist() for batch in batches] == [
        list(range(n, n + 5)) for n in range(0, 50, 5)
    ]
    assert counts(batches) == (10, 0)
    batches = iter(DataLoader(Ids(), batch_size=None, num_workers=1))
    assert [int(one[0]) for one in batches] == list(range(50))
    assert counts(batches) == (50, 0)


def fails(samples):
    raise ValueError("cannot collate this")


def test_an_error_of_the_collate_function_is_the_users():
    """And the loader's own function is back afterwards."""
    data = loader(collate_fn=fails)
    batches = iter(data)
    with pytest.raises(ValueError, match="cannot collate this"):
        next(batches)
    assert data.collate_fn is fails
    # the error keeps it alive, and torch's takes ten seconds to end as garbage
    batches._shutdown_workers()


LIMITED = """
import logging, resource
from tests.torch.delivery.test_exchange import loader, Numbered, is_right
logging.basicConfig(format="%(message)s")
# files of a process may not be larger than this, and that of slots is
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
batches = loader(Numbered(200))
assert all(is_right(batch, number) for number, batch in enumerate(batches))
print(batches.explain())
"""


def test_where_there_is_no_such_memory_one_line_says_so_and_torch_sends_batches():
    """Found out before the workers start."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], env=clean_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "no shared memory for slots" in line]
    assert len(lines) == 1
    assert "File too large" in lines[0]
    assert done.stdout == "2 workers; batches travel as torch sends them (no slots)\n"


def test_slots_say_what_they_are():
    """Their number and size, and how batches came."""
    data = loader(Numbered(200))
    assert "slots=4" in repr(data)
    assert data.explain() == "2 workers; batches travel in shared memory: 2 x 4 slots"
    batches = iter(data)
    deque(batches, maxlen=1)
    assert data.explain() == (
        "2 workers; batches travel in shared memory: 2 x 4 slots of at most 0.0 MiB; 50 batches "
        "were sent in slots, 0 as torch sends them"
    )
    assert loader(slots=0).explain() == "2 workers; batches travel as torch sends them (no slots)"
    assert list(loader(Numbered(8), slots=0))[1]["id"].tolist() == [4, 5, 6, 7]
    assert "slots" not in repr(DataLoader(Numbered()))
    with pytest.raises(ValueError, match="slots"):
        loader(slots=-1)


def test_there_is_a_most_of_slots_that_works():
    """More are refused by a sentence where the loader is made, and not by an overflow where its loop begins."""
    batches = iter(loader(Numbered(8), slots=2**16))
    assert all(is_right(batch, number) for number, batch in enumerate(batches))
    assert counts(batches) == (2, 0)
    for many in (2**16 + 1, 10**9):
        with pytest.raises(ValueError, match=rf"slots must be in \[0, 2\*\*16\], got {many}"):
            loader(slots=many)
    assert "slots=65536" in repr(loader(prefetch_factor=10**9))


def test_the_default_is_two_more_than_what_is_prefetched():
    """A loop that keeps none but the newest batch never runs out of slots, on any number of workers."""
    for workers, prefetch in ((1, 1), (1, 2), (2, 4)):
        batches = iter(loader(Numbered(400), workers, prefetch_factor=prefetch))
        assert all(is_right(batch, number) for number, batch in enumerate(batches))
        assert counts(batches) == (100, 0)


@pytest.mark.parametrize("transform", [None, lambda sample: {"y": sample["x"].float() + 1}])
def test_a_dataset_over_files_reads_into_slots(transform, tmp_path):
    """The same batches as in one process; and what no transform changes is read to where the loop gets it."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(600 * 50, dtype="i4").reshape(600, 50)
        file["label"] = np.arange(600, dtype="i8")
    dataset = FileCacheDataset(GlobalIndexManager([path], key=["x", "label"]), transform=transform)

    def batches(workers):
        sampler = ResumableDistributedSampler(dataset, 1, 0, seed=1)
        return DataLoader(dataset, 10, sampler=sampler, num_workers=workers)

    expected, data = list(batches(0)), batches(1)
    stream = iter(data)
    for number, batch in enumerate(stream):
        assert batch.keys() == expected[number].keys()
        assert all(torch.equal(batch[key], expected[number][key]) for key in batch)
    assert number == 59
    assert "60 batches were sent in slots, 0 as" in data.explain()


def test_what_is_committed_is_the_same_in_slots():
    """The sampler's record after each batch, with and without."""

    def states(slots):
        data = Numbered(100)
        sampler = ResumableDistributedSampler(data, 1, 0, seed=3)
        batches = loader(data, sampler=sampler, slots=slots)
        return [(batch["id"].tolist(), sampler.state_dict()["committed"]) for batch in batches]

    assert states(None) == states(0)
