"""One cache a node: how often chunks are decoded, and what it costs to find one decoded.

python tools/bench/shared_cache.py [--items 8192] [--repeats 5] [--folder PATH]

"decodes": an order is planned for 4 ranks x 2 workers, and each leg goes on with other ranks where the last one
stopped. All ranks step together. "a hit": what a batch pays for one row of a chunk that is kept, in each cache, beside
a copy of the whole chunk that is checked by its CRC-32C.
"""

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import google_crc32c
import numpy as np
import read_data
from measure import fresh_process, table
from read_contestants import ITEM, files
from read_data import CHUNK

LAYOUT, LANES, WINDOW, BATCH = "zarr3 chunk 16", (4, 2), 4, 48
LEGS = ((4, 0.3), (3, 0.4), (2, 1.0))
BLOCKS = (100, 1_000, 10_000)
FORK = multiprocessing.get_context("fork")


def shared(folder: Path, items: int, repeats: int) -> None:
    """Both tables."""
    read_data.write(folder, LAYOUT, items)
    rows = [["decodes a chunk", *(f"{ranks} ranks" for ranks, _ in LEGS)]]
    rows += [
        [f'cache="{cache}"', *(f"{leg:.2f}" for leg in decodes(folder, items, cache))]
        for cache in ("process", "shared")
    ]
    print(table(rows))
    costs = fresh_process(Path(__file__), "--measure", repeats)
    rows = [["us for one row, of blocks:", *(f"{blocks:,}" for blocks in BLOCKS)]]
    rows += [[name, *(f"{cost:.1f}" for cost in costs[name])] for name in costs]
    print(f"\n{table(rows)}\n")


def decodes(folder: Path, items: int, cache: str) -> list[float]:
    """Decodes a chunk of each leg."""
    import globidx

    record, found, done = None, [], 0
    for ranks, until in LEGS:
        steps = None if until == 1.0 else (int(until * items) - done) // BATCH
        together, answers = FORK.Barrier(ranks), FORK.Queue()
        processes = [
            FORK.Process(
                target=one_rank,
                args=(folder, cache, rank, ranks, record, steps, together, answers),
            )
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        said = sorted((answers.get() for _ in processes), key=lambda one: one[0])
        for process in processes:
            process.join()
        chunks = len({id // CHUNK for _, ids, _, _ in said for id in ids})
        done += sum(len(ids) for _, ids, _, _ in said)
        found.append(sum(count for *_, count in said) / chunks)
        record = globidx.merge_states([state for _, _, state, _ in said])
    return found


def one_rank(
    folder: Path,
    cache: str,
    rank: int,
    ranks: int,
    record: Any,
    steps: int | None,
    together: Any,
    answers: Any,
) -> None:
    """A rank of a leg, with two workers; it says which ids it was given and how many chunks it decoded."""
    import globidx

    in_flight = LANES[0] * LANES[1] * WINDOW * CHUNK * ITEM
    # a process has two windows of the lane that it was planned for, and a node those of all lanes
    own = 2 * in_flight // (LANES[0] * LANES[1])
    dataset = globidx.FileCacheDataset(
        globidx.GlobalIndexManager(files(folder, LAYOUT)),
        cache=cache,
        cache_bytes=2 * in_flight if cache == "shared" else own,
        with_id=True,
    )
    order = globidx.orders.ChunkShuffle(window=WINDOW, lanes=LANES, batch=BATCH)
    sampler = globidx.ResumableDistributedSampler(dataset, ranks, rank, tail="exact", order=order)
    if record is not None:
        sampler.load_state_dict(record)
    loader = globidx.DataLoader(dataset, BATCH // ranks, sampler=sampler, num_workers=2)
    given, state = [], None
    for step, (_, ids) in enumerate(loader, 1):
        given += ids.tolist()
        together.wait()
        if step == steps:
            state = sampler.state_dict()
            break
    answers.put((rank, given, state or sampler.state_dict(), dataset.counters().decodes))
    together.wait()


def hits(repeats: int) -> dict[str, list[float]]:
    """Microseconds for a row of a block, by cache and number of blocks."""
    return {
        name: [best(make(blocks), blocks, repeats) for blocks in BLOCKS]
        for name, make in {
            "process": in_process,
            "shared": in_shared,
            "shared, a copy checked by CRC-32C": copied,
        }.items()
    }


def best(take: Callable[[int], object], blocks: int, repeats: int) -> float:
    """The least that one of many random look-ups took on average."""
    numbers = [random.randrange(blocks) for _ in range(5_000)]
    times = []
    for _ in range(repeats):
        start = perf_counter()
        for number in numbers:
            take(number)
        times.append((perf_counter() - start) / len(numbers) * 1e6)
    return min(times)


#: A row of 2 KiB, 16 in a block.
ROW, ROWS = 1024, 16


def in_process(blocks: int) -> Callable[[int], object]:
    """The cache of a process."""
    from globidx.core.reading.planning import Run
    from globidx.disk.files.blocks import BlockCache

    cache, rows, look = BlockCache(2**40), np.empty((1, ROW), "u2"), object()
    for number in range(blocks):
        cache.put((look, number, 0, 0, None), np.zeros((ROWS, ROW), "u2"))
    return lambda number: cache.take((look, number, 0, 0, None), [Run(0, 0, 3, 4, 0)], rows)


def filled(blocks: int) -> Any:
    """The cache of a node, with that many blocks, whose keys are made as those of chunks are."""
    from globidx.disk.files.shared_blocks import SharedBlocks

    cache = SharedBlocks(f"bench {os.getpid()} {blocks}", blocks * ROWS * ROW * 2)
    for number in range(blocks):
        cache.put(key_of(number), np.zeros((ROWS, ROW), "u2"))
    if cache.why_not or not all(cache.has(key_of(number)) for number in range(blocks)):
        sys.exit(f"{blocks} blocks are not kept by all processes: {cache.why_not}")
    return cache


def key_of(number: int) -> bytes:
    """A key, as long to make as that of a chunk."""
    import hashlib

    return hashlib.blake2b(number.to_bytes(8, "little"), key=b"k" * 32, digest_size=16).digest()


def in_shared(blocks: int) -> Callable[[int], object]:
    """The cache of a node, of which a row is taken under its generation."""
    from globidx.core.reading.planning import Run

    cache, rows = filled(blocks), np.empty((1, ROW), "u2")
    return lambda number: cache.take(key_of(number), [Run(0, 0, 3, 4, 0)], rows)


def copied(blocks: int) -> Callable[[int], object]:
    """The same if the whole block is copied, and its checksum computed."""
    cache, rows = filled(blocks), np.empty((1, ROW), "u2")

    def take(number: int) -> None:
        block = cache.get(key_of(number), "u2", (ROW,))
        google_crc32c.value(block)
        rows[...] = block[3:4]

    return take


def main() -> None:
    """Read the options; the data goes into a temporary folder unless one is given, where it is found again."""
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(hits(int(sys.argv[2]))))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=8192, help="a multiple of 1024")
    parser.add_argument("--repeats", type=int, default=5, help="rounds a figure is the best of")
    parser.add_argument("--folder", type=Path, help="where to keep the data")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{options.items} items, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
        shared(folder, options.items, options.repeats)


if __name__ == "__main__":
    main()
