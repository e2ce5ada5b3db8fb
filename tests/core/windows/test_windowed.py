"""A windowed sample is its rows, wherever files are cut: as slices of one long array say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.index.index import GlobalIndex
from globidx.core.windows.anchors import Window
from globidx.core.windows.sequences import Sequences
from globidx.core.windows.windowed import WindowedIndex
from tests.core.windows.test_anchors import every_anchor, windows


@st.composite
def stores(draw):
    """Rows of files, runs of rows as sequences, and missing rows."""
    files = draw(st.lists(st.integers(0, 9), min_size=1, max_size=5))
    rows = sum(files)
    ends = st.lists(st.integers(0, rows), max_size=6)
    starts = draw(ends)
    lengths = [draw(st.integers(0, rows - start)) for start in starts]
    return (
        files,
        starts,
        lengths,
        sorted(set(draw(st.lists(st.integers(0, max(rows - 1, 0)), max_size=4))) if rows else []),
    )


@given(store=stores(), window=windows())
def test_rows_are_those_of_one_long_array(store, window):
    """Over any cut into files, sequences that overlap or leave rows out, padding and missing rows."""
    files, starts, lengths, missing = store
    table = [(file, row) for file, count in enumerate(files) for row in range(count)]
    index = WindowedIndex.of(
        GlobalIndex(files),
        Sequences.of_runs(starts, lengths),
        window,
        missing=np.array(missing, np.int64),
    )
    gone = [
        (number, row - start)
        for number, (start, length) in enumerate(zip(starts, lengths, strict=True))
        for row in missing
        if start <= row < start + length
    ]
    anchors = every_anchor(window, lengths, gone)
    assert len(index) == len(anchors)
    for name in window.offsets if isinstance(window.offsets, dict) else ["any"]:
        offsets = window.of(name)
        found = index.rows(np.arange(len(index)), offsets)
        for id, (number, anchor) in enumerate(anchors):
            reached = [
                anchor + offset for offset in ([offsets] if isinstance(offsets, int) else offsets)
            ]
            kept = [min(max(row, 0), lengths[number] - 1) for row in reached]
            expected = [table[starts[number] + row] for row in kept]
            assert (
                list(zip(found.files[id].tolist(), found.rows[id].tolist(), strict=True))
                == expected
            )
            assert found.inside[id].tolist() == [
                row == other for row, other in zip(kept, reached, strict=True)
            ]


@given(store=stores(), window=windows(), data=st.data())
def test_a_part_of_the_sequences_is_an_index_of_those(store, window, data):
    """Its samples are those of the whole that lie in them, in the sequence that was asked for."""
    files, starts, lengths, _ = store
    whole = WindowedIndex.of(GlobalIndex(files), Sequences.of_runs(starts, lengths), window)
    chosen = data.draw(st.permutations(range(len(starts))))[: len(starts) // 2]
    part = whole.take(np.array(chosen, np.int64))
    numbers, anchors = part.anchors.locate_many(np.arange(len(part)))
    ids = whole.anchors.sample_ids(np.array(chosen, np.int64)[numbers], anchors)
    expected = [
        id for number in chosen for id in range(len(whole)) if whole.anchors.locate(id)[0] == number
    ]
    assert ids.tolist() == expected


@given(store=stores(), window=windows())
def test_counts_are_those_of_the_ids(store, window):
    """Of every sequence, those without a sample included."""
    files, starts, lengths, missing = store
    index = WindowedIndex.of(
        GlobalIndex(files),
        Sequences.of_runs(starts, lengths),
        window,
        missing=np.array(missing, np.int64),
    )
    numbers, _ = index.anchors.locate_many(np.arange(len(index)))
    assert index.anchors.counts.tolist() == np.bincount(numbers, minlength=len(starts)).tolist()


@pytest.mark.parametrize("offsets", [range(16), (0,), (-1, 0, 1), range(0, 40, 8), range(4)])
@pytest.mark.parametrize("chunk", [1, 7, 16, 100])
@pytest.mark.parametrize("start", [0, 5])
def test_a_block_decodes_its_chunks_a_third_more_often_at_most(offsets, chunk, start):
    """Each block of an epoch by itself, wherever its sequence begins in a chunk."""
    length = 20_000
    index = WindowedIndex.of(
        GlobalIndex([start + length]), Sequences.of_runs([start], [length]), Window(offsets)
    )
    chunking = index.chunking(np.array([chunk]))
    decoded, block = 0, int(chunking.chunks[0])
    for first in range(0, len(index), block):
        ids = np.arange(first, min(first + block, len(index)))
        decoded += len(np.unique(index.rows(ids, tuple(offsets)).rows // chunk))
    assert decoded <= 1.31 * (start + length) / chunk
    # no longer than it must be, but for what makes blocks of an unaligned sequence even
    assert block <= 1.05 * (7 * chunk + 4 * (max(offsets) - min(offsets) + 1))


def test_sequences_end_where_files_do():
    """One that reaches beyond the last file is an error, before anything is read."""
    with pytest.raises(ValueError, match="sequence 1 ends at row 8, but the files have 7 rows"):
        WindowedIndex.of(GlobalIndex([3, 4]), Sequences.of_runs([0, 5], [2, 3]), Window(0))
