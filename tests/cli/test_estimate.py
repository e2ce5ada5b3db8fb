"""``globidx estimate`` says from the index alone what reading really costs."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from files import numbers, run_python, write_hdf5, write_zarr

from globidx import FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler
from globidx.cli import main
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


OPTIONS = "--key x --batch-size 8 --world-size 4 --workers 2".split()


def command(manager, *more):
    """The exit code of the command over the manager's files."""
    return main(["estimate", str(manager.now.root), *OPTIONS, *more])


def test_the_command_tells_the_estimate_as_json(manager, capsys):
    """Each option reaches it."""
    given = (
        "--order chunk-shuffle --shuffle-window 4 --cache-bytes 2560 --max-open-files 128 --json"
    )
    assert command(manager, *given.split()) == 0
    found = estimate(
        manager.now.table,
        ChunkShuffle(4),
        batch_size=8,
        world_size=4,
        workers=2,
        cache_bytes=2560,
        max_open_files=128,
    )
    assert json.loads(capsys.readouterr().out) == asdict(found)


def test_the_command_tells_the_estimate_to_people(manager, capsys):
    """A line for each figure."""
    assert command(manager, "--order", "shuffle", "--max-open-files", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"samples           {len(manager)}" in lines
    assert "open files        at most 3 in a worker" in lines


def test_an_option_out_of_range_is_told_in_a_line(manager, capsys):
    """In the library's own words."""
    assert command(manager, "--shuffle-window", "0", "--order", "chunk-shuffle") == 1
    assert "window must be in [1, 2**40], got 0" in capsys.readouterr().err


def test_the_command_never_imports_torch(manager):
    """It must answer at once on a login node."""
    code = """
import sys
from globidx.cli import main
done = main(["estimate", sys.argv[1], "--key", "x", "--batch-size", "4", "--order", "chunk-shuffle"])
print(done, "torch" in sys.modules)
"""
    assert run_python(code, manager.now.root).stdout.splitlines()[-1] == "0 False"
