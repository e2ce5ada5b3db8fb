"""Many builders at once, and locks that are held, broken, odd or gone: the index is right, and nobody waits for ever."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from files import environment, numbers, run_python, settled_manager, write_hdf5, write_zarr

from globidx import GlobalIndexManager
from globidx.core.index import encoding
from globidx.disk.files.lock import work_lock
from globidx.disk.stores import base as stores

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# Waits for a line, so that all start together; builds, writes down each file it opens, and says what it found.
BUILDER = """
import os, sys
from globidx.disk.stores import base as stores
from globidx.disk.index.manager import GlobalIndexManager
folder, opened, lock, timeout = sys.argv[1:]
if lock == "none":
    import fcntl
    fcntl.flock = lambda *_: None
log = os.open(opened, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
scan = stores.scan
def counted(path, *rest):
    os.write(log, os.fsencode(path) + b"\\n")
    return scan(path, *rest)
stores.scan = counted
print("ready", flush=True)
sys.stdin.readline()
manager = GlobalIndexManager(folder, lock_timeout=float(timeout), settled_after=0)
print(manager.fingerprint, len(manager), flush=True)
"""

# Takes the lock as a builder does, and goes on holding it until told.
HOLDER = """
import sys
from globidx.disk.stores import base as stores
from globidx.disk.index.manager import GlobalIndexManager
def stuck(*_):
    print("holding", flush=True)
    sys.stdin.readline()
    raise SystemExit
stores.scan = stuck
GlobalIndexManager(sys.argv[1])
"""


def start(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    )


def build_at_once(count, folder, opened, lock="flock", timeout=300):
    """What each of ``count`` builders said that were let go together."""
    builders = [start(BUILDER, folder, opened, lock, timeout) for _ in range(count)]
    try:
        for builder in builders:
            assert builder.stdout.readline() == "ready\n"
        for builder in builders:
            builder.stdin.write("go\n")
            builder.stdin.flush()
        told = [builder.communicate(timeout=300)[0] for builder in builders]
    finally:
        for builder in builders:
            builder.kill()
    assert [builder.returncode for builder in builders] == [0] * count
    return told


@pytest.fixture
def folder(tmp_path):
    """Two files with 3 and 4 items."""
    (tmp_path / "data").mkdir()
    write_hdf5(tmp_path / "data/a.h5", numbers(3))
    write_zarr(tmp_path / "data/b.zarr", numbers(4), key="x")
    return tmp_path / "data"


@pytest.fixture
def holder(folder):
    """A builder that holds the lock of ``folder``."""
    process = start(HOLDER, folder)
    assert process.stdout.readline() == "holding\n"
    yield process
    process.kill()
    process.communicate()


def lock_of(folder):
    """The lock file of ``folder``'s index."""
    return next(path for path in folder.iterdir() if path.name.endswith(".lock"))


# -- many at once


@pytest.mark.slow
def test_sixty_four_cold_builders_open_each_file_about_once(tmp_path):
    """Where locks hold, one does the work and the others read it: one content, and no file opened twice."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(20):
        write_hdf5(folder / f"{number:02}.h5", numbers(number))
    told = build_at_once(64, folder, tmp_path / "opened")
    manager = GlobalIndexManager(folder)
    assert set(told) == {f"{manager.fingerprint} {sum(range(20))}\n"}
    opened = (tmp_path / "opened").read_text().split()
    assert sorted(opened) == sorted(manager.paths)
    assert sorted(name for name in os.listdir(folder) if name.startswith(".")) == sorted(
        [manager.cache_path.name, manager.cache_path.with_suffix(".lock").name]
    )


@pytest.mark.parametrize("lock", ["none", "flock"])
def test_builders_whose_lock_may_not_lock_agree(tmp_path, lock):
    """flock that succeeds for everybody costs work and nothing else: the content and the cache are whole."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(12):
        (write_hdf5 if number % 2 else write_zarr)(
            folder / f"{number}.{'h5' if number % 2 else 'zarr'}", numbers(number), key="x"
        )
    told = build_at_once(6, folder, tmp_path / "opened", lock)
    manager = GlobalIndexManager(folder)
    assert set(told) == {f"{manager.fingerprint} {sum(range(12))}\n"}
    opened = (tmp_path / "opened").read_text().split()
    assert set(opened) == set(manager.paths) and (lock == "none" or len(opened) == 12)
    assert len(encoding.decode(manager.cache_path.read_bytes())) == 12
    assert not [name for name in os.listdir(folder) if name.endswith("globidx-tmp")]


@pytest.mark.parametrize("error", ["ENOLCK", "ENOSYS", "EOPNOTSUPP", "EIO"])
def test_a_file_system_without_locks_is_done_without(folder, error):
    """Whatever flock answers, every time: one line in the log, the index is right, and the cache is written."""
    code = "import sys; from globidx import GlobalIndexManager; print(len(GlobalIndexManager(sys.argv[1], lock_timeout=30)))"
    env = environment({"HDF5_USE_FILE_LOCKING": "FALSE"})  # its own locks are the data's matter
    strace = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=flock",
        "-e",
        f"inject=flock:error={error}",
    ]
    done = subprocess.run(
        [*strace, sys.executable, "-c", code, folder],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "7\n", done.stderr
    assert done.stderr.count("going on without the lock") == 1 and done.stderr.count("\n") == 1
    assert sorted(
        re.sub(r"-\w{16}", "", p.name) for p in folder.iterdir() if p.suffix == ".index"
    ) == [".globidx.index"]


# -- held locks


def test_a_stopped_holder_is_waited_for_no_longer_than_told(folder, holder, caplog):
    """SIGSTOP with the lock: the others build for themselves after their timeout; the log names lock and holder."""
    holder.send_signal(signal.SIGSTOP)
    assert len(GlobalIndexManager(folder, lock_timeout=0.1)) == 7
    (record,) = caplog.records
    said = record.getMessage()
    assert (
        str(lock_of(folder)) in said
        and f"process {holder.pid} on " in said
        and "after 0.1 seconds" in said
    )
    holder.send_signal(signal.SIGCONT)


def test_a_lock_file_that_is_deleted_while_held_locks_nobody_out(folder, holder, caplog):
    """Somebody tidies up: there are two holders now, and both are right."""
    lock_of(folder).unlink()
    assert len(GlobalIndexManager(folder, lock_timeout=30)) == 7 and not caplog.records


def test_a_killed_holders_children_hold_nothing(folder):
    """A builder with forked workers is killed: the workers live on, and the next builder proceeds at once."""
    code = r"""
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from globidx.disk.stores import base as stores
from globidx.disk.index.spec import IndexSpec
def stuck(*_):
    os.write(1, b"%d\n" % os.getpid())  # at once: two of them write to one pipe
    time.sleep(600)
stores.scan = stuck
workers = ProcessPoolExecutor(2, mp_context=get_context("fork"))
IndexSpec.of(sys.argv[1]).build(batch=1, executor=workers).run()
"""
    builder = start(code, folder)
    workers = [int(builder.stdout.readline()) for _ in range(2)]
    try:
        assert builder.pid not in workers
        builder.kill()
        builder.wait()
        assert all(os.path.exists(f"/proc/{pid}") for pid in workers)
        with work_lock(lock_of(folder), timeout=30) as had:
            assert had
        assert len(GlobalIndexManager(folder, lock_timeout=30)) == 7
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        builder.stdout.close()
        builder.stdin.close()


def test_threads_of_one_process_build_one_index(folder, monkeypatch):
    """Eight at once, over one cold cache: no deadlock, one content, each file opened once."""
    real, seen, found = stores.scan, [], []

    def counted(path, *rest):
        seen.append(path)
        return real(path, *rest)

    monkeypatch.setattr(stores, "scan", counted)
    gate = threading.Barrier(8)

    def build():
        gate.wait(60)
        found.append(settled_manager(folder, lock_timeout=60).fingerprint)

    threads = [threading.Thread(target=build) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(found) == 8 and len(set(found)) == 1
    assert sorted(seen) == sorted(settled_manager(folder).paths)


@pytest.mark.parametrize("timeout", [-1, -0.5, float("nan"), float("inf")])
def test_no_wait_is_for_ever(folder, timeout):
    """A timeout that never ends is refused by name."""
    with pytest.raises(ValueError, match="lock_timeout must be a number of seconds from 0 on"):
        GlobalIndexManager(folder, lock_timeout=timeout)


# -- files that do not stand still


def test_a_file_that_changes_while_it_is_looked_at_is_looked_at_again(folder, monkeypatch):
    """Once more, so that stamp and content fit; one that never stands still proves nothing, and is opened next time."""
    real, seen, growing = stores.scan, [], [3]

    def growing_scan(path, *rest):
        entry = real(path, *rest)
        seen.append(os.path.basename(path))
        if path.endswith("a.h5") and growing[0]:
            growing[0] -= 1
            write_hdf5(path, numbers(entry.length + 1))
        return entry

    monkeypatch.setattr(stores, "scan", growing_scan)
    settled_manager(folder)
    assert seen == ["a.h5", "a.h5", "b.zarr"]
    assert settled_manager(folder).lengths.tolist() == [6, 4]
    assert seen[3:] == ["a.h5", "a.h5"]
    assert settled_manager(folder).lengths.tolist() == [6, 4] and len(seen) == 5


@pytest.mark.parametrize("timed", [False, True])
def test_a_file_that_vanishes_while_it_is_looked_at_is_a_named_error(folder, monkeypatch, timed):
    """Between the scan and its stamp, or before: BadFilesError with its name."""
    from globidx.errors import BadFilesError

    real = stores.scan

    def vanishing(path, *rest):
        entry = None if timed else real(path, *rest)
        if path.endswith("a.h5"):
            os.unlink(path)
        return entry or real(path, *rest)

    monkeypatch.setattr(stores, "scan", vanishing)
    with pytest.raises(BadFilesError, match=r"a\.h5: FileNotFoundError"):
        GlobalIndexManager(folder)


def test_a_writer_that_holds_an_hdf5_file_is_a_named_error(folder):
    """HDF5's own lock says that somebody writes: the file is named, and what to do, nothing is switched off."""
    code = """
import sys, h5py
file = h5py.File(sys.argv[1], "r+")
print("writing", flush=True)
sys.stdin.readline()
"""
    writer = start(code, folder / "a.h5")
    assert writer.stdout.readline() == "writing\n"
    looked = "import sys; from globidx import GlobalIndexManager; GlobalIndexManager(sys.argv[1])"
    done = run_python(looked, folder, check=False, env={"HDF5_USE_FILE_LOCKING": "TRUE"})
    writer.communicate("done\n", timeout=60)
    assert done.returncode == 1 and "BadFilesError: 1 file cannot be indexed" in done.stderr
    assert "a.h5: " in done.stderr and "locks keep readers out" in done.stderr
    assert len(GlobalIndexManager(folder)) == 7


def test_an_executor_of_one_start_method_or_another_finds_the_same(folder):
    """Processes that were spawned or come from a fork server build what this process builds."""
    expected = GlobalIndexManager(folder).fingerprint
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        for number in range(70):  # more than one batch, so that the executor is used
            write_hdf5(folder / f"more{number:02}.h5", numbers(1))
        manager = GlobalIndexManager(folder, executor=executor)
    assert len(manager) == 77 and manager.fingerprint != expected
    assert (
        manager.fingerprint == GlobalIndexManager(folder, cache_dir=folder / ".other").fingerprint
    )


def test_the_clock_of_the_file_system_is_waited_for_when_it_must_be(tmp_path):
    """For real: a file is opened at each look until it is two seconds old, and then no more."""
    path = write_hdf5(tmp_path / "a.h5", numbers(3))
    code = """
import sys
from globidx.disk.stores import base as stores
from globidx import GlobalIndexManager
real, seen = stores.scan, []
stores.scan = lambda *given: seen.append(1) or real(*given)
GlobalIndexManager(sys.argv[1])
print(len(seen))
"""
    deadline = time.monotonic() + 60
    opened = [run_python(code, path).stdout for _ in range(2)]
    while opened[-1] != "0\n" and time.monotonic() < deadline:
        opened.append(run_python(code, path).stdout)
    assert opened[0] == "1\n" and opened[-1] == "0\n"
    assert run_python(code, path).stdout == "0\n"


def test_a_file_that_is_gone_when_it_is_first_read_is_named(folder):
    """With the sample id; the other files are read on."""
    from globidx import FileCacheDataset
    from globidx.errors import ReadError

    dataset = FileCacheDataset(GlobalIndexManager(folder, key="x"))
    (folder / "a.h5").unlink()
    with pytest.raises(ReadError, match=r"a\.h5") as error:
        dataset[2]
    assert "2" in str(error.value)
    assert dataset[3].tolist() == numbers(4)[0].tolist()
