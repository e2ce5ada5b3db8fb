"""An index goes to workers as the name of a file, and is there what it was here."""

from __future__ import annotations

import os
import pickle
import shutil
import sys

import numpy as np
import pytest
from files import numbers, run_python, settled_manager, write_hdf5, write_zarr

from globidx.core.index.table import Entry
from globidx.disk.stores import base as stores
from globidx.disk.stores.zarr import fast_scan

SMALL, LARGE = 10, 10_000


@pytest.fixture
def many(tmp_path, monkeypatch):
    """Folders with ten and ten thousand empty files that are taken for stores of 5 items."""
    real = stores.scan(
        write_hdf5(tmp_path / "one.h5", numbers(5)),
        settled_manager(tmp_path / "one.h5").layout,
        0,
    )
    shutil.rmtree(tmp_path, ignore_errors=True)
    monkeypatch.setattr(stores, "scan", lambda *_: Entry(real.kind, 5, real.arrays, real.digest))
    folders = []
    for count in (SMALL, LARGE):
        folder = tmp_path / f"{count:05}"
        folder.mkdir(parents=True)
        for number in range(count):
            os.close(os.open(folder / f"{number:06}.h5", os.O_CREAT))
        folders.append(folder)
    return folders


def asked(how, folder):
    return {
        "folder": folder,
        "glob": folder / "*.h5",
        "list": sorted(folder.glob("*.h5")),
        "list file": folder / "files",
    }[how]


@pytest.mark.parametrize("how", ["folder", "glob", "list", "list file"])
def test_a_pickle_does_not_grow_with_the_files(many, how):
    """Ten files or ten thousand: the same bytes but for a few, however they were named; and it is the index."""
    sizes = []
    for folder in many:
        (folder / "files").write_text("\n".join(path.name for path in sorted(folder.glob("*.h5"))))
        manager = settled_manager(asked(how, folder))
        data = pickle.dumps(manager)
        sizes.append(len(data))
        copy = pickle.loads(data)
        assert copy.fingerprint == manager.fingerprint and copy.index == manager.index
        assert copy.locate(7) == manager.locate(7) and copy.now.entry(9) == manager.now.entry(9)
        assert pickle.dumps(copy) == data
    assert max(sizes) - min(sizes) < 32 and max(sizes) < 2000


def test_without_a_cache_the_content_goes_along(many):
    """Where none can be written, the pickle is the index itself, and nothing else is needed to read it."""
    for folder in many:
        manager = settled_manager(folder, cache_dir=folder / "000001.h5")
        data = pickle.dumps(manager)
        fingerprint = manager.fingerprint
        assert len(data) > 24 * manager.num_files
        assert pickle.loads(data).fingerprint == fingerprint


@pytest.fixture
def folder(tmp_path):
    """Two files with 3 and 4 items."""
    write_hdf5(tmp_path / "a.h5", numbers(3))
    write_zarr(tmp_path / "b.zarr", numbers(4), key="x")
    return tmp_path


def test_a_cache_that_was_replaced_between_is_a_clear_error(folder):
    """Another index of these files is there by now: the message says what happened, and what to do."""
    data = pickle.dumps(settled_manager(folder))
    write_hdf5(folder / "a.h5", numbers(5))
    settled_manager(folder)
    with pytest.raises(ValueError, match="it was written anew.*build the GlobalIndexManager again"):
        pickle.loads(data)


@pytest.mark.parametrize("damage", ["deleted", "torn", "directory"])
def test_a_cache_that_is_gone_between_is_a_clear_error(folder, damage):
    """Deleted or damaged: never an index of something else."""
    manager = settled_manager(folder)
    data = pickle.dumps(manager)
    whole = manager.cache_path.read_bytes()
    manager.cache_path.unlink()
    if damage == "torn":
        manager.cache_path.write_bytes(whole[:-9])
    elif damage == "directory":
        manager.cache_path.mkdir()
    with pytest.raises(
        ValueError, match="cannot be mapped in this process.*build the GlobalIndexManager again"
    ):
        pickle.loads(data)
    assert pickle.loads(pickle.dumps(manager)).fingerprint == manager.fingerprint  # now by content


def test_a_cache_that_was_written_anew_with_the_same_ids_is_as_good(folder):
    """Other ranks write it again with other stamps while this one's workers start: they read it all the same."""
    manager = settled_manager(folder)
    data = pickle.dumps(manager)
    before = manager.cache_path.read_bytes()
    for path in (folder / "a.h5", folder / "b.zarr/x/zarr.json"):
        os.utime(path, ns=(10**18, 10**18))
    settled_manager(folder)
    assert manager.cache_path.read_bytes() != before
    copy = pickle.loads(data)
    assert copy.fingerprint == manager.fingerprint and copy.locate(6) == manager.locate(6)
    assert len(pickle.dumps(copy)) == len(data)


def test_a_large_cache_is_mapped_and_stays_what_it_was(folder, monkeypatch):
    """Replaced by rename under a mapping, the mapped index still answers as before; a reader of the new file sees the new."""
    from globidx.disk.index import cache as index_cache

    monkeypatch.setattr(index_cache, "_MAPPED_FROM", 1)
    manager = settled_manager(folder)
    again = settled_manager(folder)  # from the mapped cache
    copy = pickle.loads(pickle.dumps(again))
    name = os.fspath(manager.cache_path)
    with open("/proc/self/maps") as maps:
        assert sum(name in line for line in maps) >= 2
    expected = [manager.locate(id) for id in range(7)]
    write_hdf5(folder / "a.h5", numbers(9))
    assert len(settled_manager(folder)) == 13
    for old in (manager, again, copy):
        assert [old.locate(id) for id in range(7)] == expected and old.now.entry(1).length == 4
    again.refresh()
    assert len(again) == 13 and not np.asarray(again.lengths).flags.writeable


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_workers_of_any_kind_read_right(folder, method):
    """Two loader workers that map the cache give every sample its own item."""
    import torch

    from globidx import FileCacheDataset

    dataset = FileCacheDataset(settled_manager(folder, key="x"))
    expected = [dataset[id].tolist() for id in range(7)]
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=2, num_workers=2, multiprocessing_context=method
    )
    assert [item for batch in loader for item in batch.tolist()] == expected
    assert expected == [*numbers(3).tolist(), *numbers(4).tolist()]


@pytest.mark.parametrize("masked", ["torch", "h5py", "zarr", "tqdm", "fsspec"])
def test_what_is_not_installed_is_not_missed_until_it_is_needed(folder, masked):
    """Without torch, tqdm or fsspec all is as ever; without h5py or zarr the files that need it are named, with the package."""
    code = f"""
import sys
sys.modules[{masked!r}] = None
from globidx.cli import main
sys.exit(main(["index", "build", sys.argv[1], "--key", "x", "--workers", "1"]))
"""
    done = run_python(code, folder, check=False)
    if masked in ("torch", "tqdm", "fsspec", "zarr"):  # plain zarr metadata is read without zarr
        assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith(
            "7 samples in 2 files"
        )
    else:
        assert (
            done.returncode == 1 and "1 file cannot be indexed" in done.stderr and done.stdout == ""
        )
        assert (
            f"a.h5: ModuleNotFoundError: import of {masked}" in done.stderr
            and "Traceback" not in done.stderr
        )
    if masked == "fsspec":
        done = run_python(code, "memory://x", check=False)
        assert done.returncode == 1 and done.stderr.startswith(
            "globidx: reading memory://x needs fsspec: pip install"
        )
    assert sys.modules[fast_scan.__name__] is fast_scan
