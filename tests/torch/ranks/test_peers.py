"""Ranks that build one index together: the same one, each file looked at by one of them, or nothing by anybody."""

import os

import pytest
from files import numbers, settled_manager, write_hdf5, write_zarr
from processes import run_ranks

from globidx import GlobalIndexManager, RankPeers
from globidx.disk.stores import base as stores


def build(rank, world_size, folder, cache):
    """This rank's index, and the names of the files that it opened."""
    real, opened = stores.scan, []

    def counted(path, *given, **named):
        opened.append(os.path.basename(path))
        return real(path, *given, **named)

    stores.scan = counted
    manager = settled_manager(
        folder, key="x", cache_dir=f"{cache}{rank}", peers=RankPeers(timeout=60)
    )
    first = manager.fingerprint, manager.lengths.tolist(), opened.copy()
    opened.clear()
    manager.refresh(peers=RankPeers(timeout=60))
    return *first, opened, manager.fingerprint


@pytest.mark.slow
def test_ranks_split_the_files_and_have_the_same_index(tmp_path):
    """Three ranks, each with a cache of its own: every file is opened once by one of them, and all know all files."""
    (tmp_path / "data").mkdir()
    for number in range(7):
        write, suffix = (write_zarr, "zarr") if number % 2 else (write_hdf5, "h5")
        write(tmp_path / f"data/{number}.{suffix}", numbers(number + 1), key="x")
    alone = GlobalIndexManager(tmp_path / "data", key="x", cache_dir=tmp_path / "alone")
    told = run_ranks(3, build, tmp_path / "data", tmp_path / "cache")
    assert (
        {fingerprint for fingerprint, *_ in told}
        == {alone.fingerprint}
        == {again for *_, again in told}
    )
    assert all(lengths == [1, 2, 3, 4, 5, 6, 7] for _, lengths, *_ in told)
    opened = [names for _, _, names, *_ in told]
    assert sorted(name for names in opened for name in names) == sorted(
        os.path.basename(path) for path in alone.paths
    )
    assert all(len(names) in (2, 3) for names in opened)
    assert [names for *_, names, _ in told] == [
        [],
        [],
        [],
    ]  # what all found, each has kept in its cache


def refused(rank, world_size, folders):
    """The error that building raises here."""
    try:
        GlobalIndexManager(
            folders[rank], cache_dir=f"{folders[rank]}-cache", peers=RankPeers(timeout=60)
        )
    except Exception as error:  # noqa: BLE001 - the test compares it over ranks
        return type(error).__name__, str(error)
    return None


@pytest.mark.slow
@pytest.mark.parametrize("what", ["fewer", "none", "damaged"])
def test_what_one_rank_cannot_have_no_rank_has(tmp_path, what):
    """A rank that sees fewer files (a late mount), none at all, or a damaged one: every rank raises, nobody waits."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for number in range(4):
            write_hdf5(tmp_path / f"{name}/{number}.h5", numbers(3))
    last = tmp_path / "two/3.h5"
    shared = tmp_path / "one"
    if what == "damaged":
        (shared / "3.h5").write_bytes(b"\x89HDF\r\n\x1a\n but no more")
        told = run_ranks(2, refused, [shared, shared])
        assert [name for name, _ in told] == ["BadFilesError"] * 2 and told[0] == told[1]
    else:
        for path in [last] if what == "fewer" else (tmp_path / "two").iterdir():
            path.unlink()
        told = run_ranks(2, refused, [shared, tmp_path / "two"])
        assert [name for name, _ in told] == ["NoFilesError"] * 2
        assert all("rank 1" in text or "rank 0 sees 4 files" in text for _, text in told)
