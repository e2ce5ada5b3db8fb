"""Locks that are held, broken, odd or gone: the work goes on, and nobody waits for ever."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from globidx.disk.files.lock import work_lock


def test_one_process_takes_a_lock_twice_without_waiting_for_ever(tmp_path, caplog):
    """Inside itself it cannot be had again: the inner work goes on without, the outer goes on with it."""
    path = tmp_path / "x.lock"
    with work_lock(path, timeout=30) as outer:
        with work_lock(path, timeout=0.1) as inner:
            assert (outer, inner) == (True, False)
        assert "without the lock" in caplog.text
    with work_lock(path, timeout=30) as again:
        assert again


def _link(target):
    return lambda path: path.symlink_to(target)


ODD = {
    "directory": Path.mkdir,
    "dangling link": _link("nowhere"),
    "looping link": lambda path: path.symlink_to(path.name),
    "link to a file": lambda path: (
        path.with_name("victim").write_text("data"),
        path.symlink_to("victim"),
    ),
    "pipe": os.mkfifo,
    "device": _link("/dev/null"),
}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_thing_for_a_lock_is_done_without_at_once(tmp_path, what, caplog):
    """Neither followed nor waited for: a line names it, and what it points at is not touched."""
    path = tmp_path / "x.lock"
    ODD[what](path)
    with work_lock(path, timeout=60) as had:
        assert not had
    assert f"going on without the lock {path}: " in caplog.text
    assert not (tmp_path / "nowhere").exists()
    if what == "link to a file":
        assert (tmp_path / "victim").read_text() == "data"


@pytest.mark.parametrize(
    "place", ["/proc/x.lock", "/proc/self/x/y.lock", "/dev/null/x.lock", "/sys/x.lock"]
)
def test_a_lock_where_nothing_can_be_made_is_done_without(place, caplog):
    """No folder can be made, or no file in it: at once, not at the end of the timeout, nor never."""
    with work_lock(Path(place), timeout=3600) as had:
        assert not had
    assert "going on without the lock" in caplog.text


def test_the_holder_that_is_named_is_escaped_and_short(tmp_path, caplog):
    """A lock file holds whatever somebody wrote into it."""
    path = tmp_path / "x.lock"
    with work_lock(path, timeout=30):
        for said in (b"\x1b[31mred", b"\0\n\n", b""):
            path.write_bytes(said)
            with work_lock(path, timeout=0):
                pass
    assert caplog.text.count("it is held by a process that left no name") == 3
