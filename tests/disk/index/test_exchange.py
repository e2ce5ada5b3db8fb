"""Ranks that look at one share each: together they know what one would, and who sees other files is named."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from files import numbers, settled_manager, write_hdf5, write_zarr

from globidx.disk.stores import base as stores
from globidx.errors import BadFilesError, NoFilesError


class Ranks:
    """Peers that are threads: each is told what all of them worked out."""

    def __init__(self, world_size, spoil=None):
        self.parts, self.barrier, self.spoil = [b""] * world_size, Barrier(world_size), spoil

    def build(self, files, **options):
        """What each rank's manager is, or the error that it raised."""
        with ThreadPoolExecutor(len(self.parts)) as threads:
            return list(
                threads.map(lambda rank: self._one(rank, files, options), range(len(self.parts)))
            )

    def _one(self, rank, files, options):
        try:
            given = files[rank] if isinstance(files, list) else files
            return settled_manager(given, peers=Peer(self, rank), **options)
        except Exception as error:  # noqa: BLE001 - the test compares it over ranks
            return error


class Peer:
    """One of them."""

    def __init__(self, ranks, rank):
        self.ranks, self.rank, self.world_size = ranks, rank, len(ranks.parts)

    def gather(self, work):
        done = work()
        self.ranks.parts[self.rank] = (
            self.ranks.spoil(self.rank, done) if self.ranks.spoil else done
        )
        self.ranks.barrier.wait(60)
        told = list(self.ranks.parts)
        self.ranks.barrier.wait(
            60
        )  # the next round must not begin before all have heard of this one
        return told


@pytest.fixture
def folder(tmp_path):
    """Seven files of both kinds."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(7):
        write = write_hdf5 if number % 2 else write_zarr
        write(folder / f"{number}.{'h5' if number % 2 else 'zarr'}", numbers(number), key="x")
    return folder


@pytest.mark.parametrize("world_size", [1, 2, 3, 9])
def test_every_rank_has_the_index_that_one_would_build(folder, tmp_path, monkeypatch, world_size):
    """However many there are, more than files among them; each file is opened once by all together."""
    alone = settled_manager(folder, cache_dir=tmp_path / "alone")
    real, seen = stores.scan, []
    monkeypatch.setattr(
        stores, "scan", lambda path, *rest: (seen.append(path), real(path, *rest))[1]
    )
    for manager in Ranks(world_size).build(folder):
        assert (
            manager.fingerprint == alone.fingerprint
            and manager.lengths.tolist() == alone.lengths.tolist()
        )
        assert manager.cache_path.read_bytes() == alone.cache_path.read_bytes()
    assert sorted(seen) == list(alone.paths)
    seen.clear()
    Ranks(world_size).build(folder)
    assert seen == []


def test_bad_files_of_any_share_are_told_by_every_rank(folder):
    """One list, the same for all; left out where that was asked for."""
    (folder / "6.zarr/x/zarr.json").write_text("{}")
    errors = Ranks(3).build(folder)
    assert {type(error) for error in errors} == {BadFilesError} and len(
        {str(error) for error in errors}
    ) == 1
    managers = Ranks(3).build(folder, on_bad="skip")
    assert {len(manager) for manager in managers} == {15} and len(
        {manager.skipped for manager in managers}
    ) == 1


def test_a_rank_that_sees_other_files_is_named(folder, tmp_path):
    """A mount that is late on one host: every other rank names it, with both counts."""
    other = tmp_path / "other"
    other.mkdir()
    write_hdf5(other / "1.h5", numbers(1))
    first, second, third = Ranks(3).build([folder, other, folder])
    for error in (first, third):
        assert isinstance(error, NoFilesError)
        assert f"rank 1 sees 1 files below {other}, this 7 below {folder}" in str(error)
    assert isinstance(second, NoFilesError) and "rank 0 sees 7 files" in str(second)


@pytest.mark.parametrize("spoil", ["pickle", "cut off", "flipped", "empty"])
def test_what_a_broken_rank_sends_is_refused_not_run(folder, spoil, monkeypatch):
    """Nothing of it is unpickled, and nothing of it becomes an index."""
    monkeypatch.setattr("pickle.loads", None)

    def spoiled(rank, data):
        if rank != 1 or not data:  # the first round only says that the files were found
            return data
        header, _, body = data.partition(b"\n")
        flipped = bytearray(body)
        flipped[-1] ^= 1
        return {
            "pickle": b"\x80\x04\x95\n.",
            "cut off": data[: -len(body) // 2],
            "flipped": b"\n".join([header, bytes(flipped)]),
            "empty": json.dumps({}).encode() + b"\n",
        }[spoil]

    found = Ranks(2, spoiled).build(folder)
    assert all(isinstance(error, (ValueError, KeyError)) for error in found), found
