"""How samples lie in chunks: selections, joins and prefixes against lists of chunks, and one block for aligned arrays."""

from math import lcm

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.index.chunking import UNCHUNKED, Chunking, common_block, weighted_quantile

files = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9)), max_size=6)


def made(files):
    return Chunking.of([length for length, _ in files], [[chunk] for _, chunk in files])


def described(chunking):
    return chunking.lengths.tolist(), chunking.chunks.tolist(), chunking.stored_chunks.tolist()


def usual(files):
    """The chunk length of which half of all chunked samples have no longer one."""
    lengths = sorted(chunk for length, chunk in files if chunk for _ in range(length))
    return lengths[(len(lengths) - 1) // 2] if lengths else UNCHUNKED


@given(files)
def test_a_file_without_chunks_is_cut_as_the_others_usually_are(files):
    """And no chunk is longer than its file."""
    lengths, chunks, stored = described(made(files))
    assert lengths == [length for length, _ in files]
    assert stored == [chunk for _, chunk in files]
    assert chunks == [min(chunk or usual(files), max(length, 1)) for length, chunk in files]


@given(st.lists(files, max_size=4))
def test_joined_is_the_files_one_after_another(parts):
    """As if they had been described together."""
    whole = [file for part in parts for file in part]
    assert described(Chunking.joined([made(part) for part in parts])) == described(made(whole))


@given(files, st.data())
def test_the_first_samples_are_whole_files_or_refused(files, data):
    """Later files do not count: appended ones change nothing of a running epoch."""
    chunking = made(files)
    count = data.draw(st.integers(0, chunking.num_samples))
    ends = [sum(length for length, _ in files[:stop]) for stop in range(len(files) + 1)]
    if count in ends:
        assert described(chunking.first(count)) == described(made(files[: ends.index(count)])) or (
            count == chunking.num_samples
        )
    else:
        with pytest.raises(ValueError, match=f"the first {count} samples end inside file"):
            chunking.first(count)


def selected(files, ids):
    """The definition by lists: runs of chunks of which equally many samples are taken become a file."""
    chunk_of = [
        (file, item // chunk)
        for file, (length, chunk) in enumerate(files)
        for item in range(length)
    ]
    taken = []
    for id in ids:
        if taken and taken[-1][0] == chunk_of[id]:
            taken[-1][1] += 1
        else:
            taken.append([chunk_of[id], 1])
    if len({chunk for chunk, _ in taken}) < len(taken):
        return None
    lengths, chunks = [], []
    for _, count in taken:
        if chunks and chunks[-1] == count:
            lengths[-1] += count
        else:
            lengths.append(count)
            chunks.append(count)
    return lengths, chunks


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)), min_size=1), st.data())
def test_a_selection_is_its_samples_by_their_chunks(files, data):
    """Or None where the samples of a chunk are not next to each other."""
    chunking = made(files)
    every = list(range(chunking.num_samples))
    ids = data.draw(
        st.lists(st.sampled_from(every), unique=True).map(sorted) | st.permutations(every)
        if every
        else st.just([])
    )
    found = chunking.select(np.array(ids, np.int64))
    expected = selected([(length, min(chunk, max(length, 1))) for length, chunk in files], ids)
    assert (None if found is None else described(found)[:2]) == expected


def decoded(block, chunk):
    """By simulation: how many times each item is decoded where blocks are read whole, one after another."""
    whole = lcm(block, chunk)
    items = sum(
        chunk * len({item // chunk for item in range(start, start + block)})
        for start in range(0, whole, block)
    )
    return items / whole


@given(
    st.lists(st.tuples(st.integers(0, 24), st.sampled_from([1, 8, 1000])), min_size=1, max_size=3)
)
def test_the_common_block_is_the_shortest_that_decodes_nearly_the_fewest_bytes(arrays):
    """Counted by reading all blocks; candidates are the chunk lengths, and their common multiple if that is short."""
    chunks, sizes = [chunk for chunk, _ in arrays], [size for _, size in arrays]
    cut = {chunk for chunk in chunks if chunk}
    if not cut:
        assert common_block(chunks, sizes) == 0
        return
    candidates = cut | ({lcm(*cut)} if lcm(*cut) <= 4 * max(cut) else set())
    cost = {
        block: sum(size * decoded(block, chunk) for chunk, size in arrays if chunk)
        for block in candidates
    }
    least = min(cost.values())
    near = [block for block in candidates if cost[block] <= 1.1 * least * (1 + 1e-9)]
    assert common_block(chunks, sizes) == min(near)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1),
    st.sampled_from([0.25, 0.5, 0.95, 1.0]),
)
def test_a_weighted_quantile_is_that_of_values_repeated(pairs, share):
    """Each value as often as it weighs."""
    values, weights = (np.array(column) for column in zip(*pairs, strict=True))
    repeated = sorted(value for value, weight in pairs for _ in range(weight))
    reached = next(value for rank, value in enumerate(repeated, 1) if rank >= share * len(repeated))
    assert weighted_quantile(values, weights, share) == reached


@given(files, files)
def test_equal_digests_mean_equal_cuts(one, other):
    """Of lengths and of chunks."""
    same = described(made(one))[:2] == described(made(other))[:2]
    assert (made(one).digest == made(other).digest) == same


def test_a_digest_is_pinned():
    """Records hold it."""
    assert Chunking.of([40, 7], [[16], [16]]).digest == "1fe02616b03518b29759d8234382ce3c"


def test_several_arrays_have_one_block():
    """Long chunks of small labels do not stretch the blocks of large images."""
    chunking = Chunking.of([1000, 1000, 50], [[16, 512], [10, 20], [64, 0]], [8192, 8])
    assert chunking.chunks.tolist() == [16, 10, 50]
