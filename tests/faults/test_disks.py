"""Saves on real file systems: full, without inodes, read-only, immutable, and with the power cut at any system call."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time

import pytest
from disks import DROP_JOURNAL, FLUSH_JOURNAL, Ext4, run, tmpfs
from files import environment, run_python
from writers import litter, prune, record_files, sealed

from globidx.disk.files import atomic
from globidx.disk.records import folder as records
from globidx.errors import SaveError

pytestmark = pytest.mark.slow

SAVE = """
import sys
from pathlib import Path
from globidx.core.records import record
from globidx.disk.records import folder as records
folder = Path(sys.argv[1])
made = record.build(number=records.next_number(folder), token="c0ffee000000", step=1, time="", states={}, extras={})
try:
    records.publish(folder, made, durable=True)
except records.SaveError as error:
    print(error.__cause__.errno, error.state)
"""


def save(folder, size=0):
    """Save one more record, of at least ``size`` bytes."""
    note = "x" * (size // 40)
    path = records.publish(folder, sealed(records.next_number(folder), note), durable=True)
    prune(folder, 2)
    return path


@pytest.mark.parametrize("limit", ["size=64k", "nr_inodes=6,size=1m"])
def test_a_full_disk_keeps_what_is_there_and_recovers(tmp_path, limit):
    """Without free bytes or inodes nothing is written or left behind; once there is room, the next save works."""
    with tmpfs(tmp_path / "disk", limit) as folder:
        save(folder), save(folder)
        # Somebody else fills the disk.
        for index in range(6):
            try:
                (folder / f"filler-{index}").write_bytes(b"x" * 60_000)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                break
        before = sorted(os.listdir(folder))
        with pytest.raises(SaveError, match=r"not written: No space left on device") as caught:
            save(folder, size=8000)
        assert caught.value.state == "not written" and sorted(os.listdir(folder)) == before
        for name in record_files(folder):
            records.read_record(folder / name)
        for filler in folder.glob("filler-*"):
            filler.unlink()
        assert records.read_record(save(folder, size=8000))["number"] == 2


def test_what_killed_writers_left_makes_room(tmp_path):
    """A disk that is full of our own stale temporary files has room for a save: they are removed first."""
    with tmpfs(tmp_path / "disk", "size=64k") as folder:
        save(folder)
        for _ in range(20):
            path = folder / atomic.temporary_name("record-00000000-c0ffee000000.json")
            try:
                path.write_bytes(b"x" * 4000)
            except OSError:
                pass
            os.utime(path, (time.time() - 200_000,) * 2)
        assert records.read_record(save(folder, size=8000))["number"] == 1
        assert litter(folder, record_files(folder)) == [] and len(os.listdir(folder)) == 2


def test_a_read_only_folder_is_refused_and_unchanged(tmp_path):
    """A read-only mount refuses root as well: EROFS, nothing is written."""
    save(tmp_path)
    before = os.listdir(tmp_path)
    run("unshare", "-m", "true")
    script = (
        'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 77; exec "$2" -c "$3" "$1"'
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", tmp_path, sys.executable, SAVE],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    if done.returncode == 77:
        pytest.skip(f"cannot mount read-only here: {done.stderr}")
    assert done.stdout == f"{errno.EROFS} not written\n", done.stderr
    assert os.listdir(tmp_path) == before


def test_an_immutable_folder_is_refused_and_unchanged(tmp_path):
    """An immutable folder refuses root as well (EPERM): nothing is written, and pruning it is no error."""
    folder = tmp_path / "run"
    folder.mkdir()
    save(folder), save(folder)
    before = os.listdir(folder)
    run("chattr", "+i", folder)
    try:
        assert run_python(SAVE, folder).stdout == f"{errno.EPERM} not written\n"
        prune(folder, 1)
    finally:
        subprocess.run(["chattr", "-i", folder], env=environment(), check=True)
    assert os.listdir(folder) == before


def saved_with_a_cut(folder, disk, at, how, monkeypatch):
    """Save, with the power cut before the ``at``-th system call or after the last; "written", or the error's state."""
    calls = iter(range(100))

    def cutting(name):
        real = getattr(os, name)

        def call(*arguments, **options):
            if next(calls) == at:
                disk.cut(how)
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("open", "write", "fsync", "replace", "close"):
            patch.setattr(os, name, cutting(name))
        try:
            records.publish(folder, sealed(1), durable=True)
            outcome = "written"
        except SaveError as error:
            outcome = error.state
    if next(calls) <= at:
        disk.cut(how)
    return outcome


def numbers_on(disk):
    """The numbers of the records on a disk, all of which must be whole."""
    return [records.read_record(path)["number"] for path in records.list_records(disk.folder)]


@pytest.mark.parametrize("options", ["", "noauto_da_alloc"])
@pytest.mark.parametrize("how", [FLUSH_JOURNAL, DROP_JOURNAL])
def test_a_power_cut_leaves_the_old_record_or_the_new(tmp_path, monkeypatch, options, how):
    """The power of a real ext4 is cut before each system call of a save and after the last: all records are whole, the
    new one is among them if save() returned, and the next save works.
    """
    outcomes = set()
    disk = Ext4(tmp_path, options)
    for at in range(20):
        with disk.mounted():
            for name in record_files(disk.folder):
                (disk.folder / name).unlink()
            records.publish(disk.folder, sealed(0), durable=True)
            os.sync()
            outcome = saved_with_a_cut(disk.folder, disk, at, how, monkeypatch)
        with disk.mounted():
            numbers = numbers_on(disk)
            allowed = {"not written": [[0]], "written": [[0, 1]]}.get(outcome, [[0], [0, 1]])
            assert numbers in allowed, f"save() ended as {outcome!r}, the disk has {numbers}"
            assert litter(disk.folder, [*record_files(disk.folder), "lost+found"]) == []
            records.publish(disk.folder, sealed(records.next_number(disk.folder)), durable=True)
        outcomes.add(outcome)
        if outcome == "written":
            break
    assert outcomes >= {"not written", "written"}


@pytest.mark.parametrize("mistake", ["no fsync", "no fsync of the folder"])
def test_a_power_cut_finds_a_missing_fsync(tmp_path, monkeypatch, mistake):
    """Without one of the two fsyncs, the record that save() returned is empty or missing after a power cut."""
    disk, real = Ext4(tmp_path, "noauto_da_alloc"), os.fsync

    def without(descriptor):
        if mistake == "no fsync of the folder" and not os.path.isdir(f"/proc/self/fd/{descriptor}"):
            real(descriptor)

    with disk.mounted():
        records.publish(disk.folder, sealed(0), durable=True)
        os.sync()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", without)
            path = records.publish(disk.folder, sealed(1), durable=True)
        disk.cut(FLUSH_JOURNAL if mistake == "no fsync" else DROP_JOURNAL)
    with disk.mounted():
        there = disk.folder / path.name
        assert there.read_bytes() == b"" if mistake == "no fsync" else not there.exists()
