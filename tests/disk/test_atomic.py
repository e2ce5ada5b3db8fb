"""One way to write: the old file or the new one, at every instant."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from files import environment, run_python

from globidx.disk.atomic import TEMPORARY_SUFFIX, write_atomic

OLD, NEW = b"old" * 100, b"new!" * 5000

# Writes NEW over the file, and dies by SIGKILL right before or after the n-th call of one of the system's functions.
KILLED = """
import os, signal, sys
from pathlib import Path
from globidx.disk import atomic
path, name, when, durable = sys.argv[1:]
real = getattr(os, name)
def deadly(*arguments, **options):
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
    assert len(temporary_files(tmp_path)) == (0 if (call, when) in {("open", "before"), ("replace", "after")} else 1)
    write_atomic(path, NEW)  # what the killed writer left is in nobody's way
    assert path.read_bytes() == NEW


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_bytes_are_on_disk_before_the_name_and_the_name_before_the_return(tmp_path):
    """The system sees: write, fsync of the file, rename, fsync of the folder, in this sequence."""
    log = tmp_path / "log"
    code = (
        "import sys; from pathlib import Path; from globidx.disk.atomic import *; write_atomic(Path(sys.argv[1]), b'x')"
    )
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
    lines = [line.split(None, 1)[1] for line in log.read_text().splitlines() if str(tmp_path) in line]
    assert [line.split("(")[0] for line in lines] == ["write", "fsync", "rename", "fsync"]
    assert TEMPORARY_SUFFIX in lines[1] and TEMPORARY_SUFFIX in lines[2] and f"<{tmp_path}>" in lines[3]


@pytest.mark.parametrize("call", ["open", "write", "fsync", "close", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_an_error_of_the_system_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, call, number):
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
        with pytest.raises(OSError) as error:
            write_atomic(path, NEW)
    assert error.value.errno == number
    assert path.read_bytes() == OLD and os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path):
    """On a file system of 16 kB, 20 kB do not fit: the error is ENOSPC and the old file stands alone."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("cannot mount here")
    try:
        path = tmp_path / "file"
        path.write_bytes(OLD)
        with pytest.raises(OSError) as error:
            write_atomic(path, NEW)
        assert error.value.errno == errno.ENOSPC
        assert path.read_bytes() == OLD and os.listdir(tmp_path) == ["file"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_file_over_the_limit_leaves_the_old_file_and_no_other(tmp_path):
    """A limit on file sizes makes a short write and then EFBIG: nothing of it is ever published."""
    (tmp_path / "file").write_bytes(OLD)
    code = """
import resource, signal, sys
from pathlib import Path
from globidx.disk.atomic import write_atomic
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
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[: next(turns) % 1000 + 1]))
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
