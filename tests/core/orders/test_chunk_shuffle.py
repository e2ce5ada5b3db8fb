"""ChunkShuffle is a bijection for any files, chunks and lanes, reads each chunk about once, and never changes."""

import json
import tracemalloc
from pathlib import Path

import chunk_oracle
import numpy as np
import pytest
from decoding import decodes_per_chunk
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.index.chunking import Chunking
from globidx.core.orders.lanes import Lanes
from globidx.orders import ChunkShuffle, Shuffle

GOLDEN = Path(__file__).parents[2] / "golden" / "chunk-shuffle-1.json"


class Chunked:
    """Files of these lengths and chunk lengths, and nothing in them."""

    def __init__(self, lengths, chunks):
        self.chunking = Chunking.of(lengths, np.array(chunks, np.int64).reshape(-1, 1))

    def __len__(self):
        return self.chunking.num_samples


def bound(lengths, chunks, window, lanes, seed=0, epoch=0):
    """An epoch's arrangement."""
    data = Chunked(lengths, chunks)
    return (
        ChunkShuffle(window)
        .plan(data, len(data), lambda: lanes)
        .bind(len(data), seed=seed, epoch=epoch)
    )


files = st.lists(
    st.tuples(
        st.one_of(st.sampled_from([0, 1, 16, 40]), st.integers(0, 120)),
        st.one_of(st.sampled_from([1, 4, 4, 4, 7, 16]), st.integers(1, 200)),
    ),
    min_size=1,
    max_size=12,
)
all_lanes = st.builds(
    Lanes, ranks=st.integers(1, 5), workers=st.integers(1, 4), batch=st.integers(1, 40)
)


@given(
    files=files,
    window=st.integers(1, 6),
    lanes=all_lanes,
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 9),
)
def test_it_is_the_order_that_lists_give(files, window, lanes, seed, epoch):
    """Against the definition played out with lists; a bijection, with its inverse, in whatever pieces it is asked for."""
    lengths, chunks = [length for length, _ in files], [chunk for _, chunk in files]
    n, order = sum(lengths), bound(lengths, chunks, window, lanes, seed, epoch)
    ids = order.take(range(n)).tolist()
    assert ids == chunk_oracle.order(lengths, chunks, window, lanes, seed, epoch)
    assert sorted(ids) == list(range(n))
    assert order.inverse(np.array(ids, np.int64)).tolist() == list(range(n))
    assert order.inverse(np.arange(n)).tolist() == [
        p for _, p in sorted(zip(ids, range(n), strict=True))
    ]
    pieces = [order.take(range(start, n, 7)).tolist() for start in range(7)]
    assert pieces == [ids[start::7] for start in range(7)]
    anew = bound(lengths, chunks, window, lanes, seed, epoch)
    assert [id for block in anew.ids(0, n, 3, block=5) for id in block.tolist()] == ids[::3]


@given(
    window=st.integers(1, 64),
    lanes=all_lanes,
    chunk=st.sampled_from([1, 16, 150]),
    seed=st.integers(0, 99),
)
def test_it_undoes_itself_at_any_size(window, lanes, chunk, seed):
    """10**12 samples in 1,001 files: positions come back from ids."""
    lengths = [10**9 - 7 * k for k in range(1001)]
    order = bound(lengths, [chunk] * 1001, window, lanes, seed)
    spread = np.random.default_rng(seed).integers(0, len(order), 40)
    positions = np.unique(np.concatenate([spread, [0, 1, len(order) - 1]]))
    ids = order.take(positions)
    assert len(set(ids.tolist())) == len(positions) and ids.min() >= 0 and ids.max() < len(order)
    assert order.inverse(ids).tolist() == positions.tolist()


def test_chunks_longer_than_any_window_may_be():
    """Ten million items in a chunk: the window is cut shorter, and stays a bijection."""
    order = bound([10**9, 10**8], [10**7, 10**7], 4, Lanes(2, 1, 8))
    positions = [0, 1, 5 * 10**8, len(order) - 1]
    assert order.inverse(order.take(positions)).tolist() == positions


def test_golden_vectors():
    """The numbers of chunk-shuffle version 1 are what they always were."""
    for case in json.loads(GOLDEN.read_text()):
        order = bound(
            case["lengths"],
            case["chunks"],
            case["window"],
            Lanes(*case["lanes"]),
            case["seed"],
            case["epoch"],
        )
        assert order.take(case["positions"]).tolist() == case["ids"], case


def test_epochs_and_seeds_have_orders_of_their_own():
    """Unrelated: few ids at the same place, and other neighbours in the windows."""
    orders = [
        bound([500] * 8, [16] * 8, 8, Lanes(2, 2, 32), seed, epoch).take(range(4000))
        for seed in range(3)
        for epoch in range(3)
    ]
    for place, one in enumerate(orders):
        for other in orders[:place]:
            assert (one == other).sum() < 20
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.1


RAGGED = np.random.default_rng(5).integers(400, 601, 2000).tolist()


@pytest.mark.parametrize(("ranks", "batch", "windows"), [(4, 32, 1), (2, 64, 2), (1, 128, 4)])
def test_each_chunk_is_decoded_about_once(ranks, batch, windows):
    """2,000 files of 400 to 600 items, chunk 16, window 8, planned for 4 ranks x 2 workers, read on 4, 2 and 1 ranks with
    the same global batch, by workers whose caches hold a window for each lane they read; a plain shuffle decodes 15.8 times.
    """
    order = bound(RAGGED, [16] * 2000, 8, Lanes(4, 2, 128))
    measured = decodes_per_chunk(
        order, RAGGED, [16] * 2000, ranks=ranks, workers=2, batch=batch, cache=windows * 8 * 16
    )
    assert 1 <= measured < 1.06


def test_a_plain_shuffle_decodes_each_chunk_for_nearly_every_item():
    """So the model itself can tell."""
    n = sum(RAGGED)
    plain = Shuffle().bind(n, seed=0, epoch=0)
    assert (
        decodes_per_chunk(plain, RAGGED, [16] * 2000, ranks=4, workers=2, batch=32, cache=128) > 15
    )


@pytest.mark.parametrize(
    ("lengths", "chunks"),
    [
        ([1024] * 8, [16] * 8),
        ([1003, 998, 1017, 1001, 990, 1008, 1012, 995], [16] * 8),
        (RAGGED, [10] * 1000 + [16] * 1000),
        (RAGGED, [10**9] * 2000),
        ([5000] * 200, [1024] * 200),
        ([27, 31, 22, 38] * 2000, [16] * 8000),
        (RAGGED, [8, 16] * 1000),
        (RAGGED[:500], [*range(8, 508)]),
    ],
    ids=[
        "exact",
        "few",
        "two lengths",
        "whole files",
        "long",
        "short files",
        "halves",
        "each its own",
    ],
)
def test_it_is_about_once_for_any_files(lengths, chunks):
    """Ragged, mixed, short, one chunk a file: at most 1.25 with caches of a window (8 of the longest usual chunks)."""
    order = bound(lengths, chunks, 8, Lanes(4, 2, 128))
    chunks = [min(chunk, length) for chunk, length in zip(chunks, lengths, strict=True)]
    longest = sorted(chunks)[int(0.95 * len(chunks))]
    assert (
        decodes_per_chunk(order, lengths, chunks, ranks=4, workers=2, batch=32, cache=8 * longest)
        < 1.25
    )


def test_ranks_read_their_own_lanes():
    """At the planned world size no chunk but those that a stretch cuts is read by two ranks or two workers."""
    n, lanes = 64 * 1000, Lanes(4, 2, 64)
    ids = bound([1000] * 64, [8] * 64, 4, lanes).take(range(n))
    readers = np.full(n // 8, -1)
    shared = set()
    for p, chunk in enumerate((ids // 8).tolist()):
        reader = (p % 4, p // 64 % 2)
        number = reader[0] * 2 + reader[1]
        if readers[chunk] not in (-1, number):
            shared.add(chunk)
        readers[chunk] = number
    assert len(shared) <= 8


def test_files_are_mixed_throughout():
    """Blocks of every file, and the files' ragged ends, are spread over the whole epoch."""
    lengths = [500 + k % 9 for k in range(100)]
    order = bound(lengths, [16] * 100, 8, Lanes(2, 2, 64))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    positions = order.inverse(np.arange(sum(lengths)))
    ends = np.concatenate(
        [np.arange(offsets[k + 1] - lengths[k] % 16, offsets[k + 1]) for k in range(100)]
    )
    for group in (ends, *(np.arange(offsets[k], offsets[k + 1]) for k in range(0, 100, 10))):
        assert abs(positions[group].mean() / sum(lengths) - 0.5) < 0.25
        assert positions[group].std() > 0.15 * sum(lengths)


def test_nothing_of_the_epochs_length_exists():
    """10**12 samples: planning and the first ids take little memory."""
    lanes = Lanes(8, 8, 512)
    bound([10**3] * 10, [16] * 10, 8, lanes).take([0])
    tracemalloc.start()
    order = bound([10**9] * 1000, [16] * 1000, 8, lanes)
    assert len(set(order.take(range(5 * 10**11, 5 * 10**11 + 1000)).tolist())) == 1000
    assert order.inverse(order.take([10**12 - 1])).tolist() == [10**12 - 1]
    assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"window": 0}, "window must be in"),
        ({"window": 1.5}, "window must be an integer"),
        ({"lanes": 4}, "lanes must be a pair"),
        ({"lanes": (4, 0)}, "loader workers must be in"),
        ({"lanes": (0, 4)}, "ranks must be in"),
        ({"batch": 0}, "batch must be in"),
        ({"chunk": 0}, "chunk must be in"),
    ],
)
def test_bad_parameters_are_named(arguments, told):
    """At construction."""
    with pytest.raises((TypeError, ValueError), match=told):
        ChunkShuffle(**arguments)


def test_data_that_does_not_tell_its_chunks_is_refused():
    """With what to do; with ``chunk`` it is taken."""
    with pytest.raises(TypeError, match=r"range has no `chunking`.*pass chunk="):
        ChunkShuffle().plan(range(10), 10, Lanes)
    ids = ChunkShuffle(chunk=4).bind(10, seed=0, epoch=0).take(range(10))
    assert sorted(ids.tolist()) == list(range(10))


@given(files=files, data=st.data())
def test_the_first_samples_alone_have_the_order_they_had(files, data):
    """Appended files, and rows appended to the last one, do not move an epoch over the first ones."""
    lengths, chunks = [length for length, _ in files], [chunk for _, chunk in files]
    count = data.draw(st.integers(0, len(files)))
    all_of = Chunked(lengths, chunks)
    if count:
        lengths[count - 1] = data.draw(st.integers(min(1, lengths[count - 1]), lengths[count - 1]))
    n = sum(lengths[:count])
    plan = ChunkShuffle(3).plan(all_of, n, Lanes)
    alone = Chunked(lengths[:count], chunks[:count])
    assert plan == ChunkShuffle(3).plan(alone, n, Lanes)
    assert (
        plan.bind(n, seed=1, epoch=1).take(range(n)).tolist()
        == bound(lengths[:count], chunks[:count], 3, Lanes(), 1, 1).take(range(n)).tolist()
    )


def test_orders_are_values():
    """Told apart by window and chunk, and, once planned, by lanes and layout."""
    assert ChunkShuffle(8) == ChunkShuffle(8, (4, 2)) != ChunkShuffle(4)
    assert ChunkShuffle(8, chunk=4) != ChunkShuffle(8)
    one, other = Chunked([100], [16]), Chunked([100], [8])
    plan = ChunkShuffle(8).plan(one, 100, Lanes)
    assert plan == ChunkShuffle(8).plan(one, 100, Lanes) != ChunkShuffle(8).plan(other, 100, Lanes)
    assert plan != ChunkShuffle(8).plan(one, 100, lambda: Lanes(2, 1, 2))
    assert repr(ChunkShuffle(4, (2, 3), batch=6)) == "ChunkShuffle(window=4, lanes=(2, 3), batch=6)"
