"""Whoever looks at the files, processes on this machine or workers of a cluster, one index comes out."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.util import find_spec

import numpy as np
import pytest
from files import numbers, settled_manager, write_hdf5, write_zarr

from globidx import GlobalIndexManager
from globidx.errors import BadFilesError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A hundred and ten files of both kinds: several batches."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(110):
        write, suffix = (write_hdf5, "h5") if number % 2 else (write_zarr, "zarr")
        write(folder / f"{number:03d}.{suffix}", numbers(number % 5, start=number), key="x")
    return folder


@pytest.fixture(scope="module")
def oracle(folder):
    """(name, length) of every file, counted by hand."""
    return [(f"{number:03d}.{'h5' if number % 2 else 'zarr'}", number % 5) for number in range(110)]


class Watched:
    """An executor that hands everything on, and notes where the work was done."""

    def __init__(self, executor):
        self.executor, self.pids = executor, set()

    def map(self, work, *arguments):
        """What any executor's ``map`` does."""
        for pid, result in self.executor.map(_Located(work), *arguments):
            self.pids.add(pid)
            yield result


class _Located:
    def __init__(self, work):
        self.work = work

    def __call__(self, *arguments):
        return os.getpid(), self.work(*arguments)


def found_by(executor, folder, cache):
    """The index, and how many processes had a hand in it."""
    watched = Watched(executor)
    manager = GlobalIndexManager(folder, key="x", cache_dir=cache, executor=watched)
    return manager, watched.pids


def processes(method):
    """A pool of two, whose processes are started in this way."""
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method))


POOLS = {
    "threads": lambda: ThreadPoolExecutor(3),
    "spawn": lambda: processes("spawn"),
    "forkserver": lambda: processes("forkserver"),
}


@pytest.mark.parametrize("make", POOLS.values(), ids=POOLS)
def test_every_pool_of_the_standard_library_comes_to_the_same_index(folder, oracle, tmp_path, make):
    """The files of many batches, in their order, with lengths and fingerprint as without a pool."""
    alone = GlobalIndexManager(folder, key="x", cache_dir=tmp_path / "alone")
    assert [
        (os.path.basename(path), n)
        for path, n in zip(alone.paths, alone.lengths.tolist(), strict=True)
    ] == oracle
    with make() as pool:
        manager, pids = found_by(pool, folder, tmp_path / "shared")
    assert manager.fingerprint == alone.fingerprint and manager.paths == alone.paths
    assert pids and (os.getpid() in pids) == isinstance(pool, ThreadPoolExecutor)
    for column in ("lengths", "kinds", "chunk_lengths", "digests"):
        np.testing.assert_array_equal(
            getattr(manager.now.table, column), getattr(alone.now.table, column)
        )


@pytest.mark.parametrize("make", POOLS.values(), ids=POOLS)
def test_bad_files_that_a_pool_met_are_all_told(folder, tmp_path, make):
    """One error names them in the order of the files, whoever came across them."""
    files = [f"{folder}/{name}" for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    bad = []
    for number in (3, 70, 100):
        path = tmp_path / f"bad{number}.h5"
        path.write_bytes(b"no HDF5")
        files.insert(number, str(path))
        bad.append(str(path))
    with make() as pool, pytest.raises(BadFilesError) as caught:
        GlobalIndexManager(files, key="x", cache_dir=tmp_path, executor=pool)
    assert [path for path, _ in caught.value.failures] == bad


def test_what_was_found_before_a_pool_broke_is_not_lost(folder, tmp_path):
    """A worker that dies is an error; the next build looks only at what nobody had looked at."""
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
        pytest.raises(BrokenProcessPool),
    ):
        settled_manager(folder, key="x", cache_dir=tmp_path, executor=_Breaking(pool))
    asked = []
    manager = settled_manager(
        folder, key="x", cache_dir=tmp_path, progress=lambda done, files: asked.append(files)
    )
    assert manager.num_files == 110 and set(asked) == {110 - 64}


class _Breaking:
    """The first batch is done here, and then its worker is gone."""

    def __init__(self, pool):
        self.pool = pool

    def map(self, work, *batches):
        """One result, and then what a pool does whose worker died."""
        yield work(*(next(iter(column)) for column in batches))
        yield self.pool.submit(os._exit, 1).result()


@pytest.mark.slow
def test_a_dask_cluster_builds_the_index(folder, oracle, tmp_path):
    """``Client.get_executor()`` of a real scheduler with two worker processes."""
    pytest.importorskip("distributed")
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)
        ) as cluster,
        Client(cluster) as client,
        client.get_executor() as pool,
    ):
        manager, pids = found_by(pool, folder, tmp_path / "cache")
        assert pids and pids <= set(client.run(os.getpid).values()) and os.getpid() not in pids
    assert [
        (os.path.basename(path), n)
        for path, n in zip(manager.paths, manager.lengths.tolist(), strict=True)
    ] == oracle


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mpi4py") is None, reason="mpi4py is not installed")
def test_mpi_ranks_build_the_index(folder, oracle, tmp_path):
    """mpi4py's pool, started by ``python -m mpi4py.futures`` or, as here, by spawning."""
    from mpi4py.futures import MPIPoolExecutor

    with MPIPoolExecutor(2) as pool:
        manager, pids = found_by(pool, folder, tmp_path / "cache")
    assert pids and os.getpid() not in pids
    assert [
        (os.path.basename(path), n)
        for path, n in zip(manager.paths, manager.lengths.tolist(), strict=True)
    ] == oracle
