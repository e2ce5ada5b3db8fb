"""What an epoch will cost, by a model of caches, at any size."""

import numpy as np
import pytest
from decoding import decodes_per_chunk

from globidx.core.index.table import ArrayInfo, Entry, Table
from globidx.core.orders.lanes import Lanes
from globidx.core.reading.estimate import estimate
from globidx.core.windows.anchors import Window
from globidx.core.windows.sampling import Sampling
from globidx.orders import ChunkShuffle, Sequential, Shuffle


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


def test_sequences_that_are_left_out_have_no_chunks_to_decode():
    """Each chunk of those that are used is decoded once in sequence; the others do not count."""
    table = table_of([40, 33, 16, 50], 8)
    samples = Sampling(Window(range(3)), kept=np.array([0, 2])).of(table)
    found = estimate(table, Sequential(), batch_size=4, samples=samples)
    assert (found.chunks, found.decodes, found.decodes_per_chunk) == (5 + 2, 7, 1.0)
    assert found.decodes_of == {"x": 1.0}
