"""``globidx estimate`` says from the index alone what reading really costs."""

import json

import numpy as np
import pytest
from decoding import decodes_per_chunk
from files import numbers, run_python, write_hdf5, write_zarr

from globidx import FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler
from globidx.cli import main
from globidx.core.index.table import ArrayInfo, Entry, Table
from globidx.core.orders.lanes import Lanes
from globidx.core.reading.estimate import estimate
from globidx.orders import ChunkShuffle, Sequential, Shuffle

ORDERS = {"shuffle": Shuffle(), "chunk-shuffle": ChunkShuffle(4), "sequential": Sequential()}


@pytest.fixture(scope="module")
def manager(tmp_path_factory):
    """12 files of 70 to 130 items of 64 bytes in chunks of 8 or 10, one without chunks, one in chunks of 1."""
    folder = tmp_path_factory.mktemp("files")
    for number in range(12):
        data = numbers(70 + number * 37 % 61, (32,), start=1 + 1000 * number)
        chunk = {10: None, 11: 1}.get(number, 10 if number % 3 else 8)
        if number % 2 or chunk is None:
            write_hdf5(folder / f"{number:02}.h5", data, chunk=chunk)
        else:
            write_zarr(folder / f"{number:02}.zarr", data, key="x", chunk=chunk, compressors=None)
    return GlobalIndexManager(folder, key="x")


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize(("ranks", "workers", "batch"), [(1, 0, 16), (4, 2, 8), (3, 1, 5)])
@pytest.mark.parametrize("cache", [64 * 12, 64 * 40, 2**20])
def test_it_agrees_with_a_real_run(manager, name, ranks, workers, batch, cache):
    """Within 5 %: every worker of every rank reads its batches of real files through a dataset of its own."""
    counts = {"decodes": 0, "bytes_read": 0, "bytes_useful": 0}
    files = []
    for rank in range(ranks):
        sampler = ResumableDistributedSampler(
            FileCacheDataset(manager), ranks, rank, order=ORDERS[name], tail="exact"
        )
        sampler._ledger.expect(workers=workers, batch_size=batch)
        ids = list(sampler)
        batches = [ids[start : start + batch] for start in range(0, len(ids), batch)]
        for worker in range(max(1, workers)):
            dataset = FileCacheDataset(manager, cache_bytes=cache)
            for some in batches[worker :: max(1, workers)]:
                dataset.__getitems__(some)
                files.append(len(set(manager.locate_many(some)[0].tolist())))
            told = dataset.counters()
            counts = {what: count + getattr(told, what) for what, count in counts.items()}
            dataset.close()
    found = estimate(
        manager.now.table,
        ORDERS[name],
        batch_size=batch,
        world_size=ranks,
        workers=workers,
        cache_bytes=cache,
    )
    assert found.decodes == pytest.approx(counts["decodes"], rel=0.05)
    assert found.decodes_per_chunk == found.decodes / found.chunks
    assert found.bytes_useful == counts["bytes_useful"] == len(manager) * 64
    assert found.bytes_read == pytest.approx(counts["bytes_read"], rel=0.05)
    assert found.files_per_batch == pytest.approx(np.mean(files))
    assert found.played == found.samples == len(manager)


def table_of(lengths, chunk, item_bytes=1024):
    """An index of files that need not be there."""
    entries = [
        Entry(
            "hdf5",
            length,
            (ArrayInfo("x", (item_bytes,), "uint8", chunk, "x"),),
            bytes(16),
            ((0, 0, 0, 0),),
        )
        for length in lengths
    ]
    return Table.of([f"{number}.h5" for number in range(len(lengths))], entries)


def test_it_is_the_model_of_caches():
    """Against the little model of tests/decoding.py, where all is one array in chunks."""
    lengths = np.random.default_rng(0).integers(50, 90, 60).tolist()
    table = table_of(lengths, 8)
    for order in (Shuffle(), ChunkShuffle(4)):
        found = estimate(
            table, order, batch_size=8, world_size=2, workers=2, cache_bytes=4 * 8 * 1024
        )
        planned = order.plan(
            type("Data", (), {"chunking": table.chunking()})(),
            sum(lengths),
            lambda: Lanes(2, 2, 16),
        )
        bound = planned.bind(sum(lengths), seed=0, epoch=0)
        told = decodes_per_chunk(bound, lengths, [8] * 60, ranks=2, workers=2, batch=8, cache=32)
        assert found.decodes_per_chunk == pytest.approx(told, rel=0.01)


def test_a_part_stands_for_the_whole():
    """Where the epoch is larger than what is played out, one worker's stretch says the same."""
    table = table_of([1000] * 60, 16)
    arguments = {"batch_size": 16, "world_size": 2, "workers": 2, "cache_bytes": 8 * 16 * 1024}
    for order in (Shuffle(), ChunkShuffle(8), Sequential()):
        whole = estimate(table, order, **arguments)
        part = estimate(table, order, **arguments, most_samples=12_000)
        assert part.played < 12_000 < whole.played == 60_000
        assert part.decodes_per_chunk == pytest.approx(whole.decodes_per_chunk, rel=0.05)
        assert part.bytes_read == pytest.approx(whole.bytes_read, rel=0.05)


def test_it_is_arithmetic_at_any_size():
    """10**12 samples in 1,000 files: about once, and 16 times."""
    table = table_of([10**9] * 1000, 16)
    arguments = {"batch_size": 32, "world_size": 8, "workers": 8, "most_samples": 2**15}
    assert estimate(table, ChunkShuffle(8), **arguments).decodes_per_chunk == pytest.approx(
        1, abs=0.02
    )
    assert estimate(table, Shuffle(), **arguments).decodes_per_chunk == pytest.approx(16, abs=0.1)


def test_the_command_tells_it(manager, capsys):
    """For people, and as JSON."""
    folder = str(manager.now.root)
    given = [
        "estimate",
        folder,
        "--key",
        "x",
        "--batch-size",
        "8",
        "--world-size",
        "4",
        "--workers",
        "2",
    ]
    assert (
        main(
            [
                *given,
                "--order",
                "chunk-shuffle",
                "--shuffle-window",
                "4",
                "--cache-bytes",
                "2560",
                "--json",
            ]
        )
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    found = estimate(
        manager.now.table,
        ChunkShuffle(4),
        batch_size=8,
        world_size=4,
        workers=2,
        cache_bytes=2560,
        max_open_files=128,
    )
    assert (
        told["decodes"] == found.decodes
        and told["bytes_per_useful_byte"] == found.bytes_per_useful_byte
    )
    assert main([*given, "--order", "shuffle", "--max-open-files", "3"]) == 0
    said = capsys.readouterr().out
    assert (
        f"samples           {len(manager)}\n" in said
        and "open files        at most 3 in a worker" in said
    )
    assert main([*given, "--shuffle-window", "0", "--order", "chunk-shuffle"]) == 1
    assert "window must be in" in capsys.readouterr().err


def test_the_command_never_imports_torch(manager):
    """It must answer at once on a login node."""
    code = """
import sys
from globidx.cli import main
done = main(["estimate", sys.argv[1], "--key", "x", "--batch-size", "4", "--order", "chunk-shuffle"])
print(done, "torch" in sys.modules)
"""
    assert run_python(code, manager.now.root).stdout.splitlines()[-1] == "0 False"
