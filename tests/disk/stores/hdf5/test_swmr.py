"""Files that a real process is writing while they are indexed and read here."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
from files import environment, settled_manager, write_hdf5

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.errors import BadFilesError, ReadError

#: Writes what it is told to, a line each, and answers when that is in the file.
WRITER = """
import os, sys
import h5py, numpy as np

path, mode, options = sys.argv[1], sys.argv[2], eval(sys.argv[3])
file = h5py.File(path, "w", libver="latest", **options.pop("file", {}))
for name in ("x", "g/y"):
    file.create_dataset(name, (0, 3), "i4", maxshape=(None, 3), chunks=(4, 3), **options)
file.attrs["run"] = 7
if mode == "swmr":
    file.swmr_mode = True
file.flush()
print("open", flush=True)
for line in sys.stdin:
    if line == "leave\\n":
        os._exit(0)
    for name in ("x", "g/y"):
        dataset, count = file[name], int(line)
        start = len(dataset)
        dataset.resize(start + count, 0)
        dataset[start:] = np.arange(3 * start, 3 * (start + count)).reshape(count, 3)
        dataset.flush()
    print(len(dataset), flush=True)
file.close()
print("closed", flush=True)
"""


class Writer:
    """The other end of the pipes."""

    def __init__(self, process):
        self.process = process

    def answer(self):
        return self.process.stdout.readline().strip()

    def append(self, rows):
        self.process.stdin.write(f"{rows}\n")
        self.process.stdin.flush()
        return int(self.answer())

    def close(self):
        self.process.stdin.close()
        assert self.answer() == "closed"
        self.process.wait()

    def leave(self):
        """End without closing the file."""
        self.process.stdin.write("leave\n")
        self.process.stdin.close()
        self.process.wait()


@contextmanager
def writing(path, mode="swmr", **options):
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), mode, repr(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        writer = Writer(process)
        try:
            assert writer.answer() == "open"
            yield writer
        finally:
            process.kill()


def rows(dataset):
    return np.stack([np.asarray(dataset[id]) for id in range(len(dataset))])


def expected(count):
    return np.arange(3 * count).reshape(count, 3)


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "gzip"}, {"file": {"userblock_size": 512}}],
    ids=["raw", "gzip", "user-block"],
)
@pytest.mark.parametrize("key", ["x", "g/y"])
def test_a_file_is_read_while_it_is_written(tmp_path, options, key):
    """Indexed at 6 rows, read while it grows to 9, and 9 after a refresh: values of the writer at each step."""
    path = tmp_path / "a.h5"
    with writing(path, **options) as writer:
        writer.append(6)
        manager = settled_manager(path, key=key, cache_dir=tmp_path / "cache")
        dataset = FileCacheDataset(manager)
        np.testing.assert_array_equal(rows(dataset), expected(6))
        writer.append(3)
        np.testing.assert_array_equal(rows(dataset), expected(6))
        assert manager.refresh().grown == ("a.h5",) and len(manager) == 9
        np.testing.assert_array_equal(rows(dataset), expected(9))
        writer.append(4)
        assert manager.refresh().grown == ("a.h5",) and len(manager) == 13
        np.testing.assert_array_equal(rows(dataset), expected(13))
        assert not manager.refresh()
        writer.close()
        manager.refresh()
        np.testing.assert_array_equal(rows(dataset), expected(13))


def test_readers_of_one_process_see_it_each_at_its_own_time(tmp_path):
    """Three datasets with the file open, refreshed and read in turn: each has its rows, whatever the others opened."""
    path = tmp_path / "a.h5"
    with writing(path, compression="gzip") as writer:
        count = writer.append(5)
        managers = [
            settled_manager(path, key="x", cache_dir=tmp_path / f"cache{n}") for n in range(3)
        ]
        datasets = [FileCacheDataset(manager) for manager in managers]
        for turn in range(7):
            for dataset, manager in zip(datasets, managers, strict=True):
                np.testing.assert_array_equal(rows(dataset), expected(len(manager)))
            count = writer.append(3)
            grown = managers[turn % 3]
            grown.refresh()
            assert len(grown) == count


def test_a_reader_that_opens_the_file_later_reads_what_was_indexed(tmp_path):
    """A worker that starts when the file has grown: more rows are no other rows."""
    path = tmp_path / "a.h5"
    with writing(path) as writer:
        writer.append(6)
        manager = settled_manager(path, key="x", cache_dir=tmp_path / "cache")
        writer.append(3)
        np.testing.assert_array_equal(rows(FileCacheDataset(manager)), expected(6))
        writer.close()
    with pytest.raises(ReadError, match="it had 6 items, has 9"):
        FileCacheDataset(manager)[0]


def test_sequences_and_constants_of_a_file_that_is_written(tmp_path):
    """Groups that keys match, and attributes, are read as those of any file."""
    path = tmp_path / "a.h5"
    with writing(path) as writer:
        writer.append(6)
        manager = settled_manager(
            path,
            key="*/y",
            sequences="match",
            window=range(2),
            constants={"run": "@run"},
            cache_dir=tmp_path / "cache",
        )
        for count in (5, 8):
            dataset = FileCacheDataset(manager)
            assert len(manager) == count
            for id, sample in enumerate(dataset):
                np.testing.assert_array_equal(sample["y"], expected(9)[id : id + 2])
                assert sample["run"] == 7
            writer.append(3)
            manager.refresh()


def test_it_is_left_to_the_library(tmp_path):
    """Its chunks may move while they are looked up; ``explain`` says why."""
    path = tmp_path / "a.h5"
    with writing(path) as writer:
        writer.append(6)
        manager = GlobalIndexManager(path, key="x", cache_dir=tmp_path / "cache")
        assert "another process is writing" in str(FileCacheDataset(manager).explain())


def test_a_writer_without_swmr_keeps_readers_out(tmp_path):
    """The error says how both can have the file."""
    path = tmp_path / "a.h5"
    with (
        writing(path, "plain"),
        pytest.raises(BadFilesError, match=r"a\.h5: another process has it open.*swmr_mode"),
    ):
        GlobalIndexManager(path, key="x")


@pytest.mark.parametrize("mode", ["swmr", "plain"])
def test_a_writer_that_died(tmp_path, mode):
    """What it left in SWMR mode is read; what it left otherwise is refused, with the tool that mends it."""
    path = tmp_path / "a.h5"
    with writing(path, mode) as writer:
        writer.append(6)
        writer.leave()
    if mode == "swmr":
        manager = GlobalIndexManager(path, key="x")
        np.testing.assert_array_equal(rows(FileCacheDataset(manager)), expected(6))
    else:
        with pytest.raises(BadFilesError, match=r"open for writing.*h5clear -s FILE"):
            GlobalIndexManager(path, key="x")


def test_other_damage_keeps_its_error(tmp_path):
    """A file that was cut is not one that is written."""
    path = write_hdf5(tmp_path / "a.h5", np.arange(9000))
    with open(path, "r+b") as file:
        file.truncate(3000)
    with pytest.raises(BadFilesError, match="truncated"):
        GlobalIndexManager(path, key="x")
    with h5py.File(tmp_path / "b.h5", "w", libver="latest") as file:
        file["x"] = np.arange(9)
    with open(tmp_path / "b.h5", "r+b") as file:
        file.truncate(11)
    with pytest.raises(BadFilesError, match=r"b\.h5: OSError"):
        GlobalIndexManager(tmp_path / "b.h5", key="x")
