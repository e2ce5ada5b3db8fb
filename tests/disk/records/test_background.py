"""Saving in the background: the content is fixed when save returns, and no failure is lost."""

import shutil
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from files import run_python
from processes import run_ranks

from globidx import CheckpointManager, ResumableDistributedSampler, errors, read_record
from globidx.disk.records.folder import list_records


class Held:
    """A manager whose writes wait until they are let go."""

    def __init__(self, folder, sampler, **arguments):
        self.manager = CheckpointManager(folder, sampler, **arguments)
        self.let_go = threading.Event()
        self._write = self.manager._lineage.write
        self.manager._lineage.write = self.write

    def write(self, *arguments, **options):
        assert self.let_go.wait(60)
        self._write(*arguments, **options)


def sampler_of(n=100):
    return ResumableDistributedSampler(range(n), 1, 0)


def test_what_comes_after_the_call_does_not_leak_in(tmp_path):
    """The id is known at once; the record holds what was committed when save was called, and so does state_dict."""
    sampler = sampler_of()
    held = Held(tmp_path, sampler)
    sampler.commit(5)
    id = held.manager.save(1, extras := {"loss": [1]}, blocking=False)
    assert list_records(tmp_path) == []
    assert held.manager.state_dict()["id"] == id
    sampler.commit(7)
    extras["loss"].append(2)
    held.let_go.set()
    held.manager.wait()
    record = read_record(tmp_path / f"record-{id}.json")
    assert record["states"]["sampler"]["committed"] == 5
    assert record["extras"] == {"loss": [1]}


def test_a_save_waits_for_the_one_before(tmp_path):
    """Records are written in the sequence of their steps, and pruned as always."""
    sampler = sampler_of()
    held = Held(tmp_path, sampler, keep_last=2)
    held.manager.save(0, blocking=False)
    threading.Timer(0.1, held.let_go.set).start()
    for step in range(1, 5):
        sampler.commit(1)
        held.manager.save(step, blocking=step % 2 == 0)
    assert [read_record(path)["step"] for path in list_records(tmp_path)] == [3, 4]


@pytest.mark.parametrize("call", ["save", "restore", "wait"])
def test_a_failure_is_raised_by_the_next_call_and_only_once(tmp_path, call):
    """It names the record and says whether it is there; then saving works again."""
    run = tmp_path / "run"
    held = Held(run, sampler_of())
    id = held.manager.save(1, blocking=False)
    shutil.rmtree(run)
    held.let_go.set()
    with pytest.raises(
        errors.SaveError, match=f"record {id}, saved with blocking=False before, has failed"
    ) as caught:
        getattr(held.manager, call)(*[2] * (call == "save"))
    assert caught.value.state == "not written"
    held.manager.wait()
    second = held.manager.save(2)
    assert CheckpointManager(run, sampler_of()).restore()["id"] == second


def test_a_write_that_hangs_is_told_of(tmp_path):
    """The next call gives up within its timeout, and the one after it gets through."""
    held = Held(tmp_path, sampler_of(), timeout=1)
    held.manager.save(1, blocking=False)
    with pytest.raises(errors.SaveError, match="is still being written"):
        held.manager.save(2)
    held.let_go.set()
    held.manager.wait()
    held.manager.save(2)
    assert len(list_records(tmp_path)) == 2


def test_what_cannot_be_a_record_is_refused_at_once(tmp_path):
    """Not in the background."""
    deep = {}
    for _ in range(40):
        deep = {"a": deep}
    with pytest.raises(errors.RecordCorruptError):
        CheckpointManager(tmp_path, sampler_of()).save(1, deep, blocking=False)


EXIT = """
import logging, shutil, sys, threading, time
from globidx import CheckpointManager, ResumableDistributedSampler
logging.basicConfig()
manager = CheckpointManager(sys.argv[1], ResumableDistributedSampler(range(9), 1, 0))
write = manager._lineage.write
def late(*arguments, **options):
    threading.main_thread().join()
    {do}
    write(*arguments, **options)
manager._lineage.write = late
print(manager.save(1, blocking=False))
"""


def test_a_process_that_exits_waits_for_the_write(tmp_path):
    """The record is there."""
    id = run_python(EXIT.format(do="pass"), tmp_path).stdout.strip()
    assert read_record(tmp_path / f"record-{id}.json")["step"] == 1


def test_a_write_that_fails_while_the_process_exits_is_in_the_log(tmp_path):
    """Nobody is left to raise it to."""
    done = run_python(EXIT.format(do="shutil.rmtree(sys.argv[1])"), tmp_path / "run")
    assert (
        f"ERROR:globidx:record {done.stdout.strip()}, saved with blocking=False, has failed"
        in done.stderr
    )


def fail_behind_the_back(rank, world_size, folder):
    """The folder goes away under rank 0's write; all ranks hear of it, with training collectives in between."""
    import torch
    import torch.distributed as dist

    held = Held(folder, ResumableDistributedSampler(range(50)), timeout=60)
    ids = [held.manager.save(1, blocking=False)]
    dist.all_reduce(torch.ones(3))
    if rank == 0:
        shutil.rmtree(folder)
        held.let_go.set()
    try:
        held.manager.save(2)
    except errors.SaveError as error:
        ids.append(held.manager.save(3, blocking=False))
        held.manager.wait()
        return str(error), error.state, ids


@pytest.mark.slow
def test_a_failure_in_the_background_reaches_every_rank(tmp_path):
    """Though only rank 0 writes; and saving does not get into the way of the job's own collectives."""
    one, other = run_ranks(2, fail_behind_the_back, tmp_path / "run")
    assert one == other
    assert "has failed" in one[0]
    assert one[1] == "not written"
    assert len(set(one[2])) == 2


NO_THREADS = """
import os, resource, sys, threading
from globidx import CheckpointManager, ResumableDistributedSampler
sampler = ResumableDistributedSampler(range(1000), 1, 0)
manager = CheckpointManager(sys.argv[1], sampler)
manager.save(0)
manager.save(0, blocking=False)
manager.wait()
if os.getuid() == 0:  # whom no limit binds
    os.setgid(65534)
    os.setuid(65534)
before = resource.getrlimit(resource.RLIMIT_NPROC)
resource.setrlimit(resource.RLIMIT_NPROC, (1, before[1]))
try:
    threading.Thread(target=print).start()
except RuntimeError as error:
    print("none can be started")
sampler.commit(3)
print(manager.save(1, blocking=False))
resource.setrlimit(resource.RLIMIT_NPROC, (before[1], before[1]))
print(manager.save(2), manager.save(3, blocking=False), CheckpointManager(sys.argv[1], sampler).save(4))
print(manager.restore()["step"])
"""


@pytest.fixture
def anybodys_folder():
    """A folder that every user may write into; those of tests lie below one that only its owner may enter."""
    with TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


def test_where_no_thread_can_be_started_the_write_is_in_the_foreground(anybodys_folder):
    """The record is there, and this manager and others go on; a line in the log says so."""
    run = anybodys_folder
    done = run_python(NO_THREADS, run)
    limited, id, others, step = done.stdout.splitlines()
    assert limited == "none can be started"
    assert read_record(run / f"record-{others.split()[0]}.json")["step"] == 2
    assert step == "4"
    assert (
        f"record {id}, saved with blocking=False, is written in the foreground: can't start new thread"
        in done.stderr
    )


def test_a_write_in_the_foreground_that_fails_is_raised_at_once(tmp_path, monkeypatch):
    """As that of a save that blocks; the next save works."""
    manager = CheckpointManager(tmp_path / "run", sampler_of())
    manager.save(0)
    limit = threading.Thread.start

    def refused(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").write_text("no folder")
    with pytest.raises(errors.SaveError) as caught:
        manager.save(1, blocking=False)
    assert caught.value.state == "not written"
    monkeypatch.setattr(threading.Thread, "start", limit)
    (tmp_path / "run").unlink()
    assert manager.save(2)
