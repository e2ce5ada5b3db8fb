"""The cache file where it cannot be written, read or trusted, and among users who share a folder."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from files import environment, numbers, run_python, settled_manager, write_hdf5, write_zarr
from processes import REPOSITORY, clean_environment

from globidx import GlobalIndexManager
from globidx.core.index import encoding
from globidx.disk.files.atomic import temporary_name
from globidx.disk.index import cache as index_cache
from globidx.disk.stores import base as stores

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
LOOK = "import sys; from globidx import GlobalIndexManager; print(len(GlobalIndexManager(sys.argv[1])))"
# The same, and how many files were opened.
COUNT = """
import os, sys
from globidx.disk.stores import base as stores
real, seen = stores.scan, []
stores.scan = lambda *given: seen.append(1) or real(*given)
from globidx.disk.index.manager import GlobalIndexManager
manager = GlobalIndexManager(sys.argv[1], settled_after=0)
print(len(manager), len(seen), manager.cache_path)
"""


@pytest.fixture
def folder(tmp_path):
    """Two files with 3 and 4 items."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_hdf5(folder / "a.h5", numbers(3))
    write_zarr(folder / "b.zarr", numbers(4), key="x")
    return folder


@contextmanager
def mounted(*arguments):
    """A mount for a while; the test is skipped where that is not allowed."""
    if subprocess.run(
        ["mount", *map(str, arguments)], env=environment(), capture_output=True
    ).returncode:
        pytest.skip("cannot mount here")
    try:
        yield
    finally:
        subprocess.run(["umount", arguments[-1]], env=environment(), check=True)


def litter(folder):
    return [name for name in os.listdir(folder) if name.endswith("globidx-tmp")]


@as_root
@pytest.mark.parametrize(
    "size", ["size=64k,nr_inodes=3", "size=8k,nr_inodes=100"], ids=["no inodes", "no bytes"]
)
def test_a_full_disk_keeps_the_old_cache_and_the_index(folder, tmp_path, caplog, size):
    """ENOSPC on a file or on bytes: the error is a line in the log, nothing is left behind, the index is in memory."""
    cache = tmp_path / "cache"
    cache.mkdir()
    with mounted("-t", "tmpfs", "-o", size, "none", cache):
        if "8k" in size:  # two pages: one for the lock's signature, one for a cache
            (cache / "filler").write_bytes(bytes(8192))
        else:
            for name in ("x", "y"):
                (cache / name).touch()
        manager = settled_manager(folder, cache_dir=cache)
        assert len(manager) == 7 and "cannot be written, going on without" in caplog.text
        assert (
            "No space left" in caplog.text
            and litter(cache) == []
            and not manager.cache_path.exists()
        )
        if "8k" in size:
            (cache / "filler").unlink()
            old = settled_manager(folder, cache_dir=cache).cache_path.read_bytes()
            assert len(old) < 4096
            write_hdf5(folder / "a.h5", numbers(5))
            again = settled_manager(folder, cache_dir=cache)  # two of them do not fit
            assert len(again) == 9 and again.cache_path.read_bytes() == old and litter(cache) == []


@pytest.mark.parametrize("call", ["write", "rename", "close"])
@pytest.mark.parametrize("error", ["EIO", "EDQUOT", "ENOSPC"])
def test_a_disk_that_fails_under_the_cache_costs_nothing_but_the_cache(folder, call, error):
    """The error comes back once, is not tried again, and is a line in the log; the index is printed."""
    code = f"""
import os, sys
from globidx.disk.files import atomic
real, failed = os.{"replace" if call == "rename" else call}, []
from globidx import GlobalIndexManager
def failing(*given, **options):
    target = os.readlink(f"/proc/self/fd/{{given[0]}}") if isinstance(given[0], int) else str(given[0])
    if target.endswith("globidx-tmp") and not failed:
        failed.append(1)
        if "{call}" == "close":
            real(*given)
        raise OSError({errno.__dict__[error]}, "injected")
    return real(*given, **options)
os.{"replace" if call == "rename" else call} = failing
print(len(GlobalIndexManager(sys.argv[1])), len(failed))
"""
    done = run_python(code, folder)
    assert done.stdout == "7 1\n" and done.stderr.count("cannot be written, going on without") == 1
    assert "injected" in done.stderr and litter(folder) == []


def test_a_file_size_limit_costs_the_cache_only(folder):
    """RLIMIT_FSIZE: a short write, then EFBIG."""
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n" + LOOK
    done = run_python(code, folder)
    assert done.stdout == "7\n" and "File too large" in done.stderr
    assert not [name for name in os.listdir(folder) if name.endswith((".index", "globidx-tmp"))]


def test_the_cache_is_written_once_and_not_again(folder, monkeypatch):
    """A build writes it once; a look at what did not change writes nothing, and takes no lock."""
    real, written = index_cache.write_atomic, []
    monkeypatch.setattr(
        index_cache,
        "write_atomic",
        lambda path, *rest, **more: written.append(path) or real(path, *rest, **more),
    )
    manager = settled_manager(folder)
    assert written == [manager.cache_path]
    manager.cache_path.with_suffix(".lock").unlink()
    manager.refresh()
    settled_manager(folder)
    assert len(written) == 1 and not manager.cache_path.with_suffix(".lock").exists()


def test_what_killed_writers_left_is_swept_when_it_is_old(folder):
    """What is provably ours, a day old; younger ones stay, and anything else, however alike its name."""
    cache = settled_manager(folder).cache_path
    names = {
        temporary_name(cache.name): (90_000, False),
        temporary_name(cache.name): (3600, True),
        f".{cache.name}.0123456789ab.globidx-tmp": (90_000, True),
        ".other.index.0123456789ab.globidx-tmp": (90_000, True),
        f".{cache.name}.0123456789ab.tmp": (90_000, True),
    }
    now = os.stat(cache).st_mtime
    for name, (age, _) in names.items():
        (folder / name).touch()
        os.utime(folder / name, (now - age, now - age))
    write_hdf5(folder / "a.h5", numbers(5))
    settled_manager(folder)
    assert [name for name in names if (folder / name).exists()] == [
        name for name, (_, stays) in names.items() if stays
    ]


# -- other users


def as_nobody(code, *arguments, env=None):
    """Run as a user who owns nothing, with this interpreter's packages; skipped where that cannot be."""
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    path = os.pathsep.join([str(REPOSITORY), packages])
    command = [*NOBODY, sys.executable, "-c", code, *map(str, arguments)]
    settings = clean_environment(
        **{"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
    )
    if subprocess.run(
        [*NOBODY, sys.executable, "-c", "import numpy, h5py, globidx"],
        env=settings,
        capture_output=True,
    ).returncode:
        pytest.skip("another user cannot run this Python")
    return subprocess.run(
        command, env=settings, capture_output=True, text=True, timeout=120, cwd="/"
    )


@pytest.fixture
def shared():
    """A folder with two files that everybody can reach and only its owner can write to."""
    folder = Path(os.path.realpath(tempfile.gettempdir())) / f"globidx-shared-{os.getpid()}"
    folder.mkdir(mode=0o755)
    write_hdf5(folder / "a.h5", numbers(3))
    write_zarr(folder / "b.zarr", numbers(4), key="x")
    subprocess.run(["chmod", "-R", "a+rX", folder], env=environment(), check=True)
    yield folder
    shutil.rmtree(folder)


@as_root
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_cache_of_its_owner_serves_other_users(shared, umask):
    """Readers who cannot write beside the data use what its owner left there, if they may read it; else their own."""
    before = os.umask(umask)
    try:
        run_python(COUNT, shared)
    finally:
        os.umask(before)
    home = shared / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    done = as_nobody(COUNT, shared, env={"HOME": str(home), "XDG_CACHE_HOME": None})
    samples, opened, cache = done.stdout.split()
    assert samples == "7" and cache.startswith(str(home))
    assert (opened == "0") == (umask == 0o022) and ("cannot be read" in done.stderr) == (
        umask == 0o077
    )
    done = as_nobody(COUNT, shared, env={"HOME": str(home), "XDG_CACHE_HOME": None})
    assert done.stdout.split()[:2] == ["7", "0"]


@as_root
def test_a_lock_of_another_user_is_done_without(shared):
    """In a folder that all can write to, somebody else's lock file may not be opened: the work is done all the same."""
    run_python(COUNT, shared)
    subprocess.run(["chmod", "a+rwx", shared], env=environment(), check=True)
    lock = next(path for path in shared.iterdir() if path.suffix == ".lock")
    lock.chmod(0o600)
    next(path for path in shared.iterdir() if path.suffix == ".index").unlink()
    done = as_nobody(COUNT, shared)
    assert done.stdout.split()[:2] == ["7", "2"], done.stderr
    assert "going on without the lock" in done.stderr and "Permission denied" in done.stderr
    assert run_python(COUNT, shared).stdout.split()[:2] == [
        "7",
        "0",
    ]  # and its owner uses the other's cache


@as_root
def test_a_user_without_a_home_has_an_index(shared):
    """No HOME, or one that cannot be written to: a line in the log at most, never an error."""
    for env in ({"HOME": None}, {"HOME": "/nonexistent"}, {"HOME": "/proc"}, {"HOME": ""}):
        done = as_nobody(COUNT, shared, env={"XDG_CACHE_HOME": None, **env})
        assert done.stdout.split()[:2] == ["7", "2"], (env, done.stderr)
        assert "Traceback" not in done.stderr and "cannot be written" in done.stderr


@as_root
def test_files_that_one_user_may_not_read_are_named(shared):
    """Permission denied on one of three: that one, in the system's words; on its folder: the folder."""
    write_hdf5(shared / "secret.h5", numbers(2))
    (shared / "secret.h5").chmod(0o600)
    done = as_nobody(COUNT, shared, env={"GLOBIDX_CACHE_DIR": "/nonexistent"})
    assert done.returncode == 1 and "1 file cannot be indexed" in done.stderr
    assert "secret.h5: PermissionError" in done.stderr
    (shared / "secret.h5").unlink()
    (shared / "closed").mkdir(mode=0o700)
    done = as_nobody(COUNT, shared, env={"GLOBIDX_CACHE_DIR": "/nonexistent"})
    assert done.returncode == 1 and "PermissionError" in done.stderr and "closed" in done.stderr


@as_root
def test_an_immutable_folder_gets_no_cache_and_is_indexed(folder, tmp_path):
    """``chattr +i`` stops even root."""
    cache = tmp_path / "cache"
    cache.mkdir()
    if subprocess.run(["chattr", "+i", cache], env=environment(), capture_output=True).returncode:
        pytest.skip("this file system has no such attribute")
    try:
        done = run_python(COUNT, folder, env={"GLOBIDX_CACHE_DIR": str(cache)})
        assert done.stdout.split()[:2] == ["7", "2"] and "not permitted" in done.stderr
    finally:
        subprocess.run(["chattr", "-i", cache], env=environment(), check=True)


# -- what stands in it


def test_a_newer_cache_is_left_alone_by_every_writer(folder, monkeypatch, caplog):
    """Not by a build, a refresh, or one that is interrupted is it overwritten."""
    cache = settled_manager(folder).cache_path
    newer = cache.read_bytes().replace(b'"version":1', b'"version":7')
    cache.write_bytes(newer)
    manager = settled_manager(folder)
    manager.refresh()
    monkeypatch.setattr(stores, "scan", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        settled_manager(folder)
    assert cache.read_bytes() == newer and "left alone" in caplog.text and "version" in caplog.text


def test_a_cache_knows_only_the_files_it_names(folder):
    """The cache of other files under the right name proves nothing, whatever it says of theirs."""
    manager = settled_manager(folder)
    other = folder.parent / "other"
    other.mkdir()
    write_hdf5(other / "a.h5", numbers(9))
    write_hdf5(other / "c.h5", numbers(2))
    foreign = settled_manager(other)
    shutil.copy(foreign.cache_path, manager.cache_path)
    again = settled_manager(folder)
    assert again.lengths.tolist() == [3, 4] and again.fingerprint == manager.fingerprint
    assert list(encoding.decode(again.cache_path.read_bytes()).names) == ["a.h5", "b.zarr"]


@pytest.mark.parametrize("large", [False, True])
def test_a_cache_cut_off_is_read_as_damaged_not_as_an_index(folder, monkeypatch, caplog, large):
    """Read or mapped: any length of it is refused, with a line, and built anew."""
    monkeypatch.setattr(index_cache, "_MAPPED_FROM", 1 if large else 2**30)
    cache = settled_manager(folder).cache_path
    whole = cache.read_bytes()
    for length in (0, 1, 13, 14, 40, 64, 500, len(whole) - 1):
        cache.write_bytes(whole[:length])
        caplog.clear()
        assert settled_manager(folder).lengths.tolist() == [3, 4]
        assert "damaged and will be written anew" in caplog.text and cache.read_bytes() == whole


def test_a_pipe_or_device_for_a_cache_is_not_waited_for(folder, caplog):
    """Whatever stands there instead of a file is a line in the log."""
    cache = GlobalIndexManager(folder).cache_path
    for make in (
        os.mkfifo,
        lambda path: os.symlink("/dev/zero", path),
        lambda path: os.symlink(path.name, path),
    ):
        cache.unlink()
        make(cache)
        caplog.clear()
        assert (
            len(GlobalIndexManager(folder)) == 7
            and "cannot be read, building without it" in caplog.text
        )
