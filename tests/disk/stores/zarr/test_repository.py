"""icechunk repositories are read at one snapshot, and a commit is a change."""

from __future__ import annotations

import multiprocessing
import os

import numpy as np
import pytest
import zarr
from files import numbers, run_python, settled_manager
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.disk.reading import verify
from globidx.errors import BadFilesError, MissingChunkError, ReadError

icechunk = pytest.importorskip("icechunk")


class Repository:
    """A repository in ``folder`` with one array ``x``."""

    def __init__(self, folder, data, **options):
        self.path = str(folder)
        self.repository = icechunk.Repository.create(icechunk.local_filesystem_storage(self.path))
        self.commit(lambda root: root.create_array("x", data=data, chunks=(4, 3), **options))

    def commit(self, change):
        """The id of the snapshot after ``change(group)``."""
        session = self.repository.writable_session("main")
        change(zarr.open_group(session.store))
        return session.commit("a change")

    def items(self, **where):
        """All of ``x`` as zarr-python gives it."""
        store = self.repository.readonly_session(**where).store
        return zarr.open_group(store, mode="r")["x"][:]


def samples(manager):
    dataset = FileCacheDataset(manager)
    return np.stack([dataset[id].numpy() for id in range(len(dataset))])


@settings(max_examples=10, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 999)), min_size=1, max_size=4))
def test_each_version_is_what_zarr_reads_there(tmp_path_factory, changes):
    """The tip of a branch, a tag, and each snapshot by its id, after any commits."""
    folder = tmp_path_factory.mktemp("icechunk")
    made = Repository(folder / "repo", numbers(10))
    made.repository.create_tag("v1", snapshot_id=made.repository.lookup_branch("main"))
    snapshots = []
    for item, value in changes:
        snapshots.append(made.commit(lambda root, at=item, to=value: root["x"].__setitem__(at, to)))
    named = {"": {"branch": "main"}, "@branch.main": {"branch": "main"}, "@tag.v1": {"tag": "v1"}}
    named |= {f"@{snapshot}": {"snapshot_id": snapshot} for snapshot in snapshots}
    for version, where in named.items():
        manager = GlobalIndexManager(made.path + version, key="x", cache_dir=folder)
        np.testing.assert_array_equal(samples(manager), made.items(**where))


def test_a_commit_is_a_change(tmp_path):
    """A refresh tells it, and what was indexed before is not read as something else."""
    made = Repository(tmp_path / "repo", numbers(10))
    manager = settled_manager(made.path, key="x", cache_dir=tmp_path)
    assert not manager.refresh()
    made.commit(lambda root: root["x"].__setitem__(0, 7))
    with pytest.raises(ReadError, match="changed since it was indexed"):
        FileCacheDataset(manager)[1]
    assert manager.refresh().replaced == ("repo",)
    np.testing.assert_array_equal(FileCacheDataset(manager)[0], [7, 7, 7])
    made.commit(lambda root: root["x"].resize((12, 3)))
    assert manager.refresh().grown == ("repo",)


def test_a_commit_during_the_scan_is_seen_by_the_next_look(tmp_path, monkeypatch):
    """The stamp is that of the snapshot that was scanned, not of the one after."""
    from globidx.disk.stores import base as stores

    made = Repository(tmp_path / "repo", numbers(10))
    real = stores.scan

    def scan(*arguments):
        entry = real(*arguments)
        monkeypatch.undo()
        made.commit(lambda root: root["x"].resize((12, 3)))
        return entry

    monkeypatch.setattr(stores, "scan", scan)
    manager = GlobalIndexManager(made.path, key="x", cache_dir=tmp_path)
    assert len(manager) == 10
    assert manager.refresh().grown == ("repo",) and len(manager) == 12


def test_repositories_are_found_in_a_folder(tmp_path):
    """Beside other stores, each at its branch main."""
    for name in ("b", "a"):
        Repository(tmp_path / "data" / name, numbers(5))
    zarr.create_group(tmp_path / "data/c.zarr").create_array("x", data=numbers(2), chunks=(1, 3))
    manager = GlobalIndexManager(tmp_path / "data", key="x")
    assert [os.path.basename(path) for path in manager.paths] == ["a", "b", "c.zarr"]
    assert manager.lengths.tolist() == [5, 5, 2]


def test_an_absent_chunk_is_an_error_or_is_filled(tmp_path):
    """As in a folder; the check counts it."""
    made = Repository(tmp_path / "repo", numbers(10), fill_value=0)
    made.commit(lambda root: root["x"].__setitem__(slice(4, 8), 0))
    manager = GlobalIndexManager(made.path, key="x", cache_dir=tmp_path)
    with pytest.raises(MissingChunkError, match="is not in the store"):
        FileCacheDataset(manager)[5]
    np.testing.assert_array_equal(FileCacheDataset(manager, on_missing="fill")[5], [0, 0, 0])
    [[report]] = verify.check(manager.now, decode=True, executor=None)
    assert (report.chunks, report.absent, report.unreadable) == (3, 1, ())


@pytest.mark.parametrize("version", ["@tag.none", "@branch.none", "@NOSUCHSNAPSHOT"])
def test_a_version_that_is_not_there_is_named(tmp_path, version):
    """A misspelt one is no other one."""
    made = Repository(tmp_path / "repo", numbers(3))
    with pytest.raises(BadFilesError, match=f"its version '{version[1:]}' cannot be opened"):
        GlobalIndexManager(made.path + version, key="x", cache_dir=tmp_path)


def _read(dataset, queue):
    try:
        queue.put(dataset[3].numpy())
    except ReadError as error:
        queue.put(str(error))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_it_where_they_are_not_forked(tmp_path, start):
    """In a forked process icechunk would wait for ever: it is refused, with what to do."""
    made = Repository(tmp_path / "repo", numbers(10))
    dataset = FileCacheDataset(GlobalIndexManager(made.path, key="x", cache_dir=tmp_path))
    context = multiprocessing.get_context(start)
    queue = context.Queue()
    worker = context.Process(target=_read, args=(dataset, queue), daemon=True)
    worker.start()
    found = queue.get(timeout=60)
    worker.join()
    if start == "fork":
        assert "hangs in forked processes; start workers with" in found
    else:
        np.testing.assert_array_equal(found, numbers(10)[3])


def test_without_icechunk_the_error_says_what_to_install(tmp_path):
    """Nothing else of the folder is touched."""
    made = Repository(tmp_path / "repo", numbers(3))
    code = (
        "import sys; sys.modules['icechunk'] = None\n"
        "from globidx import GlobalIndexManager\n"
        "try: GlobalIndexManager(sys.argv[1], key='x')\n"
        "except Exception as error: print(error)"
    )
    assert "pip install '.[icechunk]'" in run_python(code, made.path).stdout
