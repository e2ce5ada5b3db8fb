"""A folder and a zip file of it answer alike, key by key."""

from __future__ import annotations

import os
import shutil

import pytest
import zarr
from files import numbers, open_descriptors

from globidx.disk.stores.zarr.containers import MOST_METADATA, Folder
from globidx.disk.stores.zips.local import Zip

KEYS = [
    "zarr.json",
    "a/zarr.json",
    "a/b/x/zarr.json",
    "a/b/x/c/0/0",
    "a/b/x/c/1/0",
    "a/b/x/c/7/0",
    "a",
    "a/b/x/c",
    "empty",
    "large",
    "none/zarr.json",
    "a/zarr.json/more",
]


@pytest.fixture
def both(tmp_path):
    """A store with groups, and besides a file without bytes and a large one."""
    group = zarr.create_group(tmp_path / "s")
    group.create_array("a/b/x", data=numbers(8), chunks=(4, 3))
    group.create_array("a/y", data=numbers(4), chunks=(4, 3))
    (tmp_path / "s/empty").touch()
    (tmp_path / "s/large").write_bytes(bytes(range(256)) * (MOST_METADATA // 256 + 1))
    shutil.make_archive(str(tmp_path / "s"), "zip", tmp_path / "s")
    return Folder(str(tmp_path / "s")), Zip(str(tmp_path / "s.zip"))


@pytest.mark.parametrize("key", KEYS)
def test_a_key_has_the_same_bytes_in_both(both, key):
    """Whole and in parts, up to a limit; what has none is absent in both."""
    folder, packed = both
    whole = folder.read(key, 2**30)
    assert whole == packed.read(key, 2**30)
    assert folder.has(key) == packed.has(key) == (whole is not None)
    if whole is None:
        assert folder.open(key) is packed.open(key) is None
        return
    data, size = whole
    assert len(data) == size
    assert folder.read(key, size - 1) == packed.read(key, size - 1) == (b"", size)
    if size < MOST_METADATA:
        assert folder.load(key) == packed.load(key) == data
    for container in both:
        opened = container.open(key)
        assert opened.size == size
        for start, stop in ((0, size), (0, 3), (size // 2, size), (size - 2, size + 5)):
            assert opened.read(stop - start, start) == data[start:stop]
        opened.close()


def test_both_have_the_same_groups(both):
    """Folders of chunks, which hold no metadata, are none that anybody asks for."""
    folder, packed = both
    for path in ("", "a", "a/b", "none", "zarr.json"):
        assert sorted(packed.groups(path)) == sorted(folder.groups(path)), path
    assert packed.groups("a/b/x") == []


def test_a_version_is_another_one_when_the_bytes_were_written_anew(both):
    """What is remembered of a shard is not that of an older one."""
    folder, _ = both
    key = "a/b/x/c/0/0"
    seen = []
    for text in (b"one", b"three"):
        with open(f"{folder.path}/{key}", "wb") as file:
            file.write(text)
        opened = folder.open(key)
        seen.append(opened.version)
        opened.close()
    assert seen[0] != seen[1]


def test_a_pipe_is_absent_and_not_waited_for(both):
    """And no descriptor of it stays open."""
    folder, _ = both
    os.mkfifo(f"{folder.path}/pipe")
    before = open_descriptors()
    assert folder.read("pipe", 10) is folder.open("pipe") is None and not folder.has("pipe")
    assert open_descriptors() == before
