"""What ``index.py`` measures, one figure of one contestant in a process of its own, printed as JSON.

python tools/bench/indexwork.py scan FOLDER KEY|- PROCESSES ROUNDS        cold builds, and plain loops over the files
python tools/bench/indexwork.py refresh FOLDER KEY|- folder|list ROUNDS   refreshes, and os.stat over these files
python tools/bench/indexwork.py save|load CACHE                           time and memory of the cache of many files
python tools/bench/indexwork.py workers CACHE fork|spawn COUNT            memory that workers of a loader add
python tools/bench/indexwork.py locate FILES ROUNDS                       ids to places, and the bare searches
python tools/bench/indexwork.py cold FOLDER PROCESSES yes|no              processes that all build; whether locks lock

What is compared takes turns in one process, and the least of the rounds is told: what the machine can when it is let.
"""

import fcntl
import json
import multiprocessing
import os
import pickle
import random
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from measure import forget_peak, memory

BATCHES = (32, 256, 4096, 65536)
LOCATES = 10_000


def scan(folder: str, key: str, processes: str, rounds: str) -> dict:
    """Seconds from nothing to the number of samples: ours with the cache written, and the loop that people write."""
    paths = stores(folder)
    plain = {".h5": h5py_loop, ".zarr": zarr_loop}[Path(paths[0]).suffix]
    samples = plain(
        paths, key
    )  # imports, and zarr's thread with its loop, are not what is compared

    def ours(executor: Executor | None) -> None:
        assert len(build(folder, key, tempfile.mkdtemp(dir=caches), executor)) == samples

    with pool(int(processes)) as executor, tempfile.TemporaryDirectory() as caches:
        works = {"plain": lambda: plain(paths, key), "ours": lambda: ours(None)}
        if executor is not None:
            works["shared"] = lambda: ours(executor)
        taken = [[timed(work) for work in works.values()] for _ in range(int(rounds))]
    wall, cpu = np.min(taken, axis=0).T.tolist()
    return {
        "files": len(paths),
        "wall": dict(zip(works, wall, strict=True)),
        "cpu": dict(zip(works, cpu, strict=True)),
    }


def stores(folder: str) -> list[str]:
    """The files of a folder that holds nothing else."""
    return sorted(
        os.path.join(folder, name) for name in os.listdir(folder) if not name.startswith(".")
    )


def build(files: Any, key: str, cache: str, executor: Executor | None = None) -> Any:
    """The index over files."""
    from globidx import GlobalIndexManager

    return GlobalIndexManager(
        files, key=None if key == "-" else key, cache_dir=cache, executor=executor
    )


def zarr_loop(paths: list[str], key: str) -> int:
    """What people write."""
    import zarr

    return sum(
        zarr.open_array(path if key == "-" else f"{path}/{key}", mode="r").shape[0]
        for path in paths
    )


def h5py_loop(paths: list[str], key: str) -> int:
    """What people write."""
    import h5py

    total = 0
    for path in paths:
        with h5py.File(path, "r") as file:
            dataset = file[key]
            total += (
                dataset.shape[0] if dataset.dtype and dataset.ndim else 0
            )  # all that an index has to know
    return total


def pool(processes: int) -> Any:
    """Processes that have started and imported what they need; none for one."""
    if processes == 1:
        return nullcontext()
    executor = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    list(executor.map(warm, range(processes * 4)))
    return executor


def warm(_: int) -> None:
    """Import, and stay busy for long enough that the other processes are started, too."""
    import_module("globidx.disk.stores.hdf5.library")

    until = perf_counter() + 0.2
    while perf_counter() < until:
        pass


def refresh(folder: str, key: str, how: str, rounds: str) -> dict:
    """Seconds of a refresh where nothing changed, and of os.stat over the files that hold the metadata, in turns."""
    paths = stores(folder)
    inside = {".h5": "", ".zarr": "/zarr.json" if key == "-" else f"/{key}/zarr.json"}[
        Path(paths[0]).suffix
    ]
    files = [path + inside for path in paths]
    times: dict[str, list[float]] = {"stat": [], "refresh": []}
    with tempfile.TemporaryDirectory() as cache:
        manager = build(folder if how == "folder" else paths, key, cache)
        for _ in range(int(rounds) + 1):
            times["stat"].append(timed(lambda: [os.stat(file) for file in files])[0])
            times["refresh"].append(timed(manager.refresh)[0])
    return {"files": len(files)} | {what: min(taken[1:]) for what, taken in times.items()}


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and seconds that this process had a processor."""
    started, ran = perf_counter(), process_time()
    work()
    return perf_counter() - started, process_time() - ran


def loaded(path: str) -> Any:
    """The index that a cache file holds, as a process has it that found all files unchanged."""
    from globidx.disk.index.cache import IndexCache
    from globidx.disk.index.snapshot import Snapshot

    cache = IndexCache(Path(path))
    table = cache.load()
    indexed = Snapshot("/data", table, (), cache.path, cache.digest_of(table))
    len(indexed.index)
    return indexed


def load(path: str) -> dict:
    """Seconds and memory from the cache file to the index, and the bytes of its pickle."""
    from globidx.disk.index import cache as index_cache  # noqa: F401

    before = owned()
    started = perf_counter()
    index = loaded(path)
    seconds = perf_counter() - started
    for number in range(0, len(index.table), 7):  # every page of the names
        assert index.paths[number]
    after = owned()
    return {
        "files": len(index.table),
        "seconds": seconds,
        "private": after["private"] - before["private"],
        "anonymous": after["anonymous"] - before["anonymous"],
        "pickle": len(pickle.dumps(index)),
    }


def save(path: str) -> dict:
    """Seconds and memory of writing the cache file anew."""
    from globidx.disk.index.cache import IndexCache

    table = loaded(path).table
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
        cache = IndexCache(Path(folder, "x.index"))
        forget_peak()
        before = memory("VmRSS")
        seconds, _ = timed(lambda: cache.save(table))
        mapped = os.path.getsize(
            path
        )  # what is read comes in from the mapped file, and is no memory of its own
        return {
            "seconds": seconds,
            "extra": max(0, memory("VmHWM") - before - mapped),
            "bytes": mapped,
        }


def owned() -> dict[str, int]:
    """Bytes that only this process has: all of them, and those behind which there is no file."""
    lines = [line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]]
    kib = {name.rstrip(":"): int(value) for name, value, *_ in lines}
    return {
        "private": (kib["Private_Clean"] + kib["Private_Dirty"]) * 1024,
        "anonymous": kib["Anonymous"] * 1024,
    }


def workers(path: str, start: str, count: str) -> dict:
    """Bytes that each of ``count`` workers adds by asking for places, more than one that has only imported the same."""
    index = loaded(path)
    idle, busy = (in_workers(what, start, int(count)) for what in (None, index))
    added = [max(each["private"] for each in busy) - min(each["private"] for each in idle)]
    return {
        "files": len(index.table),
        "added": max(added),
        "idle": max(each["private"] for each in idle),
    }


def in_workers(index: Any, start: str, count: int) -> list[dict]:
    """What each of several workers owns, while all of them are there."""
    context = multiprocessing.get_context(start)
    barrier, queue = context.Barrier(count), context.Queue()
    processes = [
        context.Process(target=worker, args=(index, barrier, queue, seed)) for seed in range(count)
    ]
    for process in processes:
        process.start()
    told = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    return told


def worker(index: Any, barrier: Any, queue: Any, seed: int) -> None:
    """Ask for places, and say what that cost."""
    import globidx.disk.index.snapshot  # noqa: F401

    dice = random.Random(seed)
    if index is not None:
        for _ in range(LOCATES):
            index.locate(dice.randrange(len(index.index)))
    barrier.wait()
    found = owned()
    barrier.wait()
    queue.put(found)


def locate(files: str, rounds: str) -> dict:
    """Seconds of ``locate_many`` and of ``np.searchsorted`` by batch size, and of ``locate`` and of ``bisect``."""
    from globidx import GlobalIndex

    dice = np.random.default_rng(7)
    index = GlobalIndex(dice.integers(0, 1000, int(files)))
    offsets, numbers = index.offsets, index.offsets.tolist()
    many = {}
    for size in BATCHES:
        batches = [dice.integers(0, len(index), size) for _ in range(max(4, 2048 // size))]
        searches = (lambda ids: np.searchsorted(offsets, ids, side="right"), index.locate_many)
        many[str(size)] = [seconds / size for seconds in in_turns(searches, batches, int(rounds))]
    ids = dice.integers(0, len(index), 2048).tolist()
    one = in_turns((lambda id: bisect_right(numbers, id), index.locate), ids, int(rounds))
    return {"files": int(files), "many": many, "one": one}


def in_turns(
    searches: Sequence[Callable[[Any], object]], questions: list, rounds: int
) -> list[float]:
    """Seconds a question of each search, the least of rounds that take turns: what the machine lets through."""

    def through(search: Callable[[Any], object]) -> float:
        started = perf_counter()
        for question in questions:
            search(question)
        return (perf_counter() - started) / len(questions)

    return np.min(
        [[through(search) for search in searches] for _ in range(rounds)], axis=0
    ).tolist()


def cold(folder: str, processes: str, locks: str) -> dict:
    """How often files were opened by processes that all begin at once with no cache, and how many contents came out."""
    from globidx.disk.stores import base as module

    context, count = multiprocessing.get_context("fork"), int(processes)
    barrier, queue = context.Barrier(count), context.Queue()
    if locks == "no":
        fcntl.flock = lambda *_: None  # as on some parallel file systems: it succeeds for everybody
    with tempfile.TemporaryDirectory() as cache:
        arguments = (folder, cache, module, barrier, queue)
        children = [context.Process(target=builder, args=arguments) for _ in range(count)]
        started = perf_counter()
        for child in children:
            child.start()
        told = [queue.get(timeout=300) for _ in children]
        seconds = perf_counter() - started
        for child in children:
            child.join()
    contents = {content for content, _ in told}
    opened = sum(scans for _, scans in told)
    return {
        "files": len(stores(folder)),
        "opened": opened,
        "contents": len(contents),
        "seconds": seconds,
    }


def builder(folder: str, cache: str, module: Any, barrier: Any, queue: Any) -> None:
    """Build when all others do, and say what came out and how many files were opened for it."""
    scan, scans = module.scan, []

    def counted(*arguments: Any) -> Any:
        scans.append(1)
        return scan(*arguments)

    module.scan = counted
    barrier.wait()
    manager = build(folder, "-", cache)
    queue.put(
        (f"{manager.fingerprint} {list(manager.paths)} {manager.lengths.tolist()}", len(scans))
    )


WORK = {work.__name__: work for work in (scan, refresh, save, load, workers, locate, cold)}

if __name__ == "__main__":
    print(json.dumps(WORK[sys.argv[1]](*sys.argv[2:])))
