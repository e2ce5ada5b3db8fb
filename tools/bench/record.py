"""What a record costs: time of a save, size on disk, and how soon a lost rank is told of.

python tools/bench/record.py [--folder RUN] [--quick] [--json PATH]

Each time stands beside a bare ``open, write, fsync, close`` of the same bytes, taken right after it in one process: on
a shared disk, where a flush takes 2 ms now and 20 ms then, only the ratio of such neighbours means anything.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch.distributed as dist
from claims import at_most
from measure import count, seconds, table

from globidx import CheckpointManager, ResumableDistributedSampler, errors, merge_states
from globidx.core.records import record
from globidx.disk.files.atomic import write_atomic

SAMPLES = 10**7
TIMEOUT = 5.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    parser.add_argument("--quick", action="store_true", help="few repeats: says little")
    parser.add_argument("--json", type=Path, help="where to write the figures to")
    parser.add_argument(
        "--one-rank", action="store_true", help="leave out what takes several processes"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        times = save_times(Path(folder), repeats=10 if arguments.quick else 200)
        ranks = (
            {}
            if arguments.one_rank
            else rank_times(Path(folder, "ranks"), repeats=5 if arguments.quick else 50)
        )
    sizes = record_sizes()
    beside = (
        [name, seconds(row["seconds"]), f"{row['of_bare']:.2f}"] for name, row in times.items()
    )
    print(table([["one rank", "median", "of a bare write"], *beside]), "\n")
    print(
        table([["ranks", "median"], *([name, seconds(value)] for name, value in ranks.items())]),
        "\n",
    )
    print(
        table([["record", "bytes"], *([name, count(size)] for name, size in sizes.items())]), "\n"
    )
    verdicts = dict(claims(times, ranks, sizes))
    for claim, verdict in verdicts.items():
        print(f"{claim}: {verdict}")
    if arguments.json:
        found = {"one rank": times, "ranks": ranks, "bytes": sizes, "claims": verdicts}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


def claims(times: dict, ranks: dict, sizes: dict) -> Iterator[tuple[str, str]]:
    """Each promise and its verdict."""
    save = times["save"]["of_bare"]
    yield (
        "a save at world size 1 takes <= 3x a bare fsync'd write of the same bytes",
        at_most(3, save),
    )
    killed, stopped = (
        max((v for k, v in ranks.items() if how in k), default=None)
        for how in ("killed", "stopped")
    )
    yield "a killed rank is told of in <= 2 s", at_most(2, killed)
    yield f"a stopped rank is told of within timeout={TIMEOUT:g} s", at_most(TIMEOUT, stopped)
    lock_step = max(v for k, v in sizes.items() if "lock-step" in k)
    yield "a record of ranks in lock-step has <= 4 kB at any world size", at_most(4000, lock_step)
    yield (
        "one of 1024 uneven ranks has <= 64 kB",
        at_most(64_000, max(v for k, v in sizes.items() if "uneven" in k)),
    )


# -- time at world size 1


def save_times(folder: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds of a save and of its parts, and of each's ratio to the bare write of as many bytes after it."""
    sampler = ResumableDistributedSampler(range(SAMPLES), 1, 0)
    kept = CheckpointManager(folder / "durable", sampler)
    loose = CheckpointManager(folder / "loose", sampler, durable=False)
    background = CheckpointManager(folder / "background", sampler)
    kept.save(0)
    data = os.urandom(next((folder / "durable").glob("record-*")).stat().st_size)
    works = {
        "save": kept.save,
        "save, durable=False": loose.save,
        "save(blocking=False), until it returns": lambda step: background.save(
            step, blocking=False
        ),
        "two fsyncs and a rename, of one's own": lambda step: write_atomic(
            folder / f"whole-{step}", data
        ),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for step in range(repeats + 5):
        sampler.commit(32)
        for name, work in works.items():
            spent = _timed(work, step)
            background.wait()
            taken[name].append(
                (
                    spent,
                    _timed(
                        lambda step, n=name: _bare(folder / f"bare-{n[:12]}-{step}", data), step
                    ),
                )
            )
    bare = statistics.median(bare for pairs in taken.values() for _, bare in pairs[5:])
    return {"bare write": {"seconds": bare, "of_bare": 1.0}} | {
        name: {
            "seconds": statistics.median(spent for spent, _ in pairs[5:]),
            "of_bare": statistics.median(spent / bare for spent, bare in pairs[5:]),
        }
        for name, pairs in taken.items()
    }


def _timed(work: Callable[[int], object], step: int) -> float:
    started = time.perf_counter()
    work(step)
    return time.perf_counter() - started


def _bare(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.write(descriptor, data)
    os.fsync(descriptor)
    os.close(descriptor)


# -- real ranks


def rank_times(folder: Path, repeats: int) -> dict[str, float]:
    """Seconds of a save over real gloo ranks, and until the last of them has been told of a lost one."""
    found = {}
    for ranks in (2, 4):
        found[f"save, {ranks} ranks"] = statistics.median(
            _over(ranks, folder / str(ranks), repeats, None, None)[0]
        )
    for how in (signal.SIGKILL, signal.SIGSTOP):
        name = {signal.SIGKILL: "killed", signal.SIGSTOP: "stopped"}[how]
        for lost in (0, 2):
            told = _over(4, folder / f"{name}-{lost}", 1, lost, how)
            found[f"4 ranks, rank {lost} {name}: until the last is told"] = max(
                value for [value] in told.values()
            )
    return found


def _over(
    ranks: int, folder: Path, repeats: int, lost: int | None, how: int | None
) -> dict[int, list[float]]:
    spawn = multiprocessing.get_context("spawn")
    results = spawn.SimpleQueue()
    folder.mkdir(parents=True)
    store = dist.TCPStore(
        "localhost", 0, is_master=True, wait_for_workers=False
    )  # as torchrun's, in no rank
    work = (ranks, store.port, folder, repeats, lost, how, results)
    processes = [spawn.Process(target=_rank, args=(rank, *work)) for rank in range(ranks)]
    for process in processes:
        process.start()
    found = dict(results.get() for _ in range(ranks - (lost is not None)))
    for process in processes:
        process.kill()
        process.join()
    return found


def _rank(
    rank: int,
    ranks: int,
    port: int,
    folder: Path,
    repeats: int,
    lost: int | None,
    how: int,
    results,
) -> None:
    store = dist.TCPStore("localhost", port, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    sampler = ResumableDistributedSampler(range(SAMPLES))
    manager = CheckpointManager(
        folder / "run", sampler, timeout=60 if how != signal.SIGSTOP else TIMEOUT
    )
    manager.restore()
    manager.save(0)
    taken = []
    for step in range(repeats):
        sampler.commit(32)
        dist.barrier()
        if rank == lost:
            os.kill(os.getpid(), how)
        started = time.perf_counter()
        try:
            manager.save(step)
        except errors.LostRankError as error:
            if error.ranks != (lost,):
                raise
        taken.append(time.perf_counter() - started)
    results.put((rank, taken))
    time.sleep(60)  # until it is killed: an exit would close connections, and hide who tells whom


# -- size


def record_sizes() -> dict[str, int]:
    """Bytes of whole records of one sampler."""
    dice = random.Random(0)
    sizes = {}
    for ranks in (1, 8, 1024, 10**5):
        sampler = ResumableDistributedSampler(range(10**12), ranks, 0)
        sampler.commit(12_345)
        sizes[f"{ranks} ranks in lock-step"] = _size(sampler.state_dict())
    for legs in (1, 3):
        state = None
        for _ in range(legs):
            states = []
            for rank in range(1024):
                sampler = ResumableDistributedSampler(range(10**12), 1024, rank)
                if state is not None:
                    sampler.load_state_dict(state)
                sampler.commit(dice.randrange(10**6))
                states.append(sampler.state_dict())
            state = merge_states(states)
        sizes[f"1024 uneven ranks, {legs} {'leg' if legs == 1 else 'legs'}"] = _size(state)
    return sizes


def _size(state: dict) -> int:
    sealed = record.build(
        number=1,
        token="0" * 12,
        step=10**6,
        time="2026-11-20T09:30:00+00:00",
        states={"sampler": state},
        extras={},
    )
    return len(record.encode(sealed))


if __name__ == "__main__":
    main()
