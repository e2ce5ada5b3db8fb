"""One way to write: the old file or the new one, at every instant."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from files import environment, run_python

from globidx.disk.files import atomic
from globidx.disk.files.atomic import (
    TEMPORARY_SUFFIX,
    is_temporary,
    make_directory,
    sweep,
    temporary_name,
    write_atomic,
)
from globidx.errors import WriteError

OLD, NEW = b"old" * 100, b"new!" * 5000

# Writes NEW over the file, and dies by SIGKILL right before or after the n-th call of one of the system's functions.
KILLED = """
import os, signal, sys
from pathlib import Path
from globidx.disk.files import atomic
path, name, when, durable = sys.argv[1:]
real = getattr(os, name)
def deadly(*arguments, **options):
    if name == "open" and Path(arguments[0]) == Path(path).parent:
        return real(*arguments, **options)
    if when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    if when == "torn":
        real(arguments[0], bytes(arguments[1])[:7])
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, name, deadly)
atomic.write_atomic(Path(path), b"new!" * 5000, durable=durable == "durable")
"""


def temporary_files(folder):
    return [name for name in os.listdir(folder) if name.endswith(TEMPORARY_SUFFIX)]


@pytest.mark.parametrize(
    ("call", "when", "expected"),
    [
        ("open", "before", OLD),
        ("open", "after", OLD),
        ("write", "before", OLD),
        ("write", "torn", OLD),
        ("write", "after", OLD),
        ("fsync", "before", OLD),
        ("fsync", "after", OLD),
        ("replace", "before", OLD),
        ("replace", "after", NEW),
    ],
)
def test_a_writer_killed_at_any_call_leaves_the_old_file_or_the_new(tmp_path, call, when, expected):
    """SIGKILL before, in or after each system call: the file is whole, old until the rename and new from it on."""
    path = tmp_path / "file"
    path.write_bytes(OLD)
    done = run_python(KILLED, path, call, when, "durable", check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert path.read_bytes() == expected
    assert len(temporary_files(tmp_path)) == (
        0 if (call, when) in {("open", "before"), ("replace", "after")} else 1
    )
    write_atomic(path, NEW)  # what the killed writer left is in nobody's way
    assert path.read_bytes() == NEW


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_bytes_are_on_disk_before_the_name_and_the_name_before_the_return(tmp_path):
    """The system sees: write, fsync of the file, rename, fsync of the folder, in this sequence."""
    log = tmp_path / "log"
    code = "import sys; from pathlib import Path; from globidx.disk.files.atomic import *; write_atomic(Path(sys.argv[1]), b'x')"
    try:
        subprocess.run(
            [
                "strace",
                "-f",
                "-y",
                "-o",
                log,
                "-e",
                "trace=write,fsync,rename,renameat,renameat2",
                sys.executable,
                "-c",
                code,
                tmp_path / "target",
            ],
            check=True,
            env=environment({"PYTHONDONTWRITEBYTECODE": "1"}),
            timeout=60,
        )
    except subprocess.CalledProcessError:
        pytest.skip("strace may not trace here")
    lines = [
        line.split(None, 1)[1] for line in log.read_text().splitlines() if str(tmp_path) in line
    ]
    assert [line.split("(")[0].removesuffix("at") for line in lines] == [
        "write",
        "fsync",
        "rename",
        "fsync",
    ]
    assert (
        TEMPORARY_SUFFIX in lines[1]
        and TEMPORARY_SUFFIX in lines[2]
        and f"<{tmp_path}>" in lines[3]
    )


@pytest.mark.parametrize("call", ["open", "write", "fsync", "close", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_an_error_of_the_system_leaves_the_old_file_and_no_other(
    tmp_path, monkeypatch, call, number
):
    """ENOSPC, EIO or EDQUOT from any call comes out as itself; the old file stands, nothing lies beside it."""
    path = tmp_path / "file"
    path.write_bytes(OLD)
    real = getattr(os, call)

    def failing(*arguments, **options):
        if call == "close":
            real(*arguments)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(WriteError, match=f"file: not written: {os.strerror(number)}") as error:
            write_atomic(path, NEW)
    assert (error.value.errno, error.value.state) == (number, "not written")
    assert path.read_bytes() == OLD and os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path):
    """On a file system of 16 kB, 20 kB do not fit: the error is ENOSPC and the old file stands alone."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", tmp_path]
    if subprocess.run(mount, env=environment(), capture_output=True).returncode:
        pytest.skip("cannot mount here")
    try:
        path = tmp_path / "file"
        path.write_bytes(OLD)
        with pytest.raises(OSError, match="No space left on device") as error:
            write_atomic(path, NEW)
        assert error.value.errno == errno.ENOSPC
        assert path.read_bytes() == OLD and os.listdir(tmp_path) == ["file"]
    finally:
        subprocess.run(["umount", tmp_path], env=environment(), check=True)


def test_a_file_over_the_limit_leaves_the_old_file_and_no_other(tmp_path):
    """A limit on file sizes makes a short write and then EFBIG: nothing of it is ever published."""
    (tmp_path / "file").write_bytes(OLD)
    code = """
import resource, signal, sys
from pathlib import Path
from globidx.disk.files.atomic import write_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    write_atomic(Path(sys.argv[1]), b"new!" * 5000)
except OSError as error:
    print(error.errno)
"""
    assert run_python(code, tmp_path / "file").stdout == f"{errno.EFBIG}\n"
    assert (tmp_path / "file").read_bytes() == OLD and os.listdir(tmp_path) == ["file"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_short_writes_are_carried_on(tmp_path, monkeypatch):
    """A system that takes one to a thousand bytes at a time ends with all of them."""
    real = os.write
    turns = iter(range(1, 1_000_000, 137))
    monkeypatch.setattr(
        os, "write", lambda descriptor, data: real(descriptor, data[: next(turns) % 1000 + 1])
    )
    write_atomic(tmp_path / "file", NEW)
    monkeypatch.undo()
    assert (tmp_path / "file").read_bytes() == NEW


def test_without_durable_nothing_is_synced(tmp_path, monkeypatch):
    """What may be lost is written without waiting for the disk."""
    calls = []
    monkeypatch.setattr(os, "fsync", calls.append)
    write_atomic(tmp_path / "file", NEW, durable=False)
    assert not calls and (tmp_path / "file").read_bytes() == NEW
    write_atomic(tmp_path / "file", OLD)
    assert len(calls) == 2


def test_the_new_file_has_ordinary_permissions(tmp_path):
    """Others may read it as far as the umask lets them."""
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "file", OLD)
    finally:
        os.umask(before)
    assert Path(tmp_path, "file").stat().st_mode & 0o777 == 0o640


def test_an_empty_file_can_be_written(tmp_path):
    """No bytes are a content as well."""
    write_atomic(tmp_path / "file", b"")
    assert (tmp_path / "file").read_bytes() == b""


def test_a_failed_fsync_of_the_folder_leaves_the_new_file_and_says_so(tmp_path, monkeypatch):
    """The rename has happened: written, durability unknown; and fsync is asked once, not until it agrees."""
    path, calls = tmp_path / "file", []
    path.write_bytes(OLD)
    real = os.fsync

    def failing(descriptor):
        calls.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        if calls[-1]:
            raise OSError(errno.EIO, "I/O error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(WriteError, match="file: written, durability unknown: I/O error") as caught:
        write_atomic(path, NEW)
    assert caught.value.state == "written, durability unknown" and calls == [False, True]
    assert path.read_bytes() == NEW and os.listdir(tmp_path) == ["file"]


def test_a_rename_that_was_done_and_reported_as_failed_is_told_as_written(tmp_path, monkeypatch):
    """As NFS does where the first answer was lost."""
    real = os.replace

    def failing(*arguments, **options):
        real(*arguments, **options)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(WriteError) as caught:
        write_atomic(tmp_path / "file", NEW)
    assert caught.value.state == "written, durability unknown"
    assert (tmp_path / "file").read_bytes() == NEW and os.listdir(tmp_path) == ["file"]


def test_a_write_error_survives_pickling(tmp_path):
    """Out of a worker or another thread it comes with its errno and state."""
    with pytest.raises(WriteError) as caught:
        write_atomic(tmp_path / "gone" / "file", NEW)
    for error in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):
        assert (error.errno, error.state, str(error)) == (
            errno.ENOENT,
            "not written",
            str(caught.value),
        )
    assert str(WriteError("one string")) == "one string" and WriteError("x").errno is None


def test_nobody_elses_file_is_written_to(tmp_path, monkeypatch):
    """Whatever stands where the temporary file should be, a file, a link, a folder or a FIFO, stays as it is."""
    (tmp_path / "theirs").write_bytes(OLD)
    temporary = tmp_path / atomic.temporary_name("file")
    monkeypatch.setattr(atomic, "temporary_name", lambda _: temporary.name)
    for make in (
        lambda: os.link(tmp_path / "theirs", temporary),
        lambda: os.symlink("theirs", temporary),
        lambda: os.symlink("not there yet", temporary),
        lambda: os.mkdir(temporary),
        lambda: os.mkfifo(temporary),
    ):
        make()
        with pytest.raises(WriteError, match="not written: File exists"):
            write_atomic(tmp_path / "file", NEW)
        assert sorted(os.listdir(tmp_path)) == sorted([temporary.name, "theirs"])
        assert (tmp_path / "theirs").read_bytes() == OLD
        os.rmdir(
            temporary
        ) if temporary.is_dir() and not temporary.is_symlink() else temporary.unlink()


def test_a_link_is_replaced_not_followed_and_a_folder_is_refused(tmp_path):
    """What the target's name leads to stays as it is."""
    (tmp_path / "theirs").write_bytes(OLD)
    (tmp_path / "file").symlink_to("theirs")
    write_atomic(tmp_path / "file", NEW)
    assert (tmp_path / "theirs").read_bytes() == OLD and not (tmp_path / "file").is_symlink()
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match="not written: Is a directory"):
        write_atomic(tmp_path / "folder", NEW)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "theirs"]


def aged(path, seconds):
    """Set a file's time back."""
    os.utime(path, (time.time() - seconds,) * 2, follow_symlinks=False)


def test_only_our_own_old_temporary_files_are_swept(tmp_path):
    """Not a young one; not a folder, a link or a FIFO of such a name; not a name that only looks alike."""
    ours, young, link, fifo = (tmp_path / temporary_name("a.json") for _ in range(4))
    name = temporary_name("a.json")
    alike = [
        name[:-1],
        f"x{name}",
        name.replace("a.json", "b.json"),
        name.replace(TEMPORARY_SUFFIX, ".globidx-tmp2"),
        ".a.json.tmp",
        f".a.json{TEMPORARY_SUFFIX}",
        f".a.json.{'0' * 20}{TEMPORARY_SUFFIX}",
        name.upper(),
    ]
    for path in (ours, young, *(tmp_path / each for each in alike)):
        path.write_bytes(b"half")
    folder = tmp_path / temporary_name("folder")
    folder.mkdir()
    link.symlink_to("a.json")
    os.mkfifo(fifo)
    for path in tmp_path.iterdir():
        aged(path, 2 * 86_400 if path != young else 3600)
    before = set(os.listdir(tmp_path))
    assert sweep(tmp_path) == 1
    assert before - set(os.listdir(tmp_path)) == {ours.name}
    assert is_temporary(ours.name) and not any(map(is_temporary, alike))


def test_ten_thousand_stale_files_are_swept_a_thousand_at_a_time(tmp_path):
    """No save waits for all of them; ten are enough to clear up."""
    for _ in range(10_000):
        path = tmp_path / temporary_name("record-00000000-0123456789ab.json")
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        aged(path, 2 * 86_400)
    assert [sweep(tmp_path) for _ in range(11)] == [1000] * 10 + [0]
    assert os.listdir(tmp_path) == []


def test_sweeping_is_never_an_error(tmp_path, monkeypatch):
    """A folder that is not there, a file that cannot be removed."""
    assert sweep(tmp_path / "gone") == 0
    path = tmp_path / temporary_name("x")
    path.write_bytes(b"")
    aged(path, 2 * 86_400)
    monkeypatch.setattr(
        os, "unlink", lambda *_, **__: (_ for _ in ()).throw(PermissionError(errno.EPERM, "no"))
    )
    assert sweep(tmp_path) == 0 and path.exists()


def test_new_folders_are_synced_into_those_above(tmp_path, monkeypatch):
    """A record in a folder that a power cut takes away would be lost with it."""
    synced, real = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda d: (synced.append(os.readlink(f"/proc/self/fd/{d}")), real(d))
    )
    make_directory(tmp_path / "a" / "b")
    assert synced == [str(tmp_path), str(tmp_path / "a")]
    make_directory(tmp_path / "a" / "b")
    assert len(synced) == 2
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(NotADirectoryError):
            make_directory(path)
