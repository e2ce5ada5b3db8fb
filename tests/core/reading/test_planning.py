"""The reading plan: every row once, and never a chunk's border inside a run."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.reading import planning

CHUNKS = (0, 1, 3, 8)  # rows a chunk of file 0, 1, 2 and 3 holds

batches = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), max_size=30)


def planned(batch, rows):
    files = np.array([file for file, _ in batch], np.int64)
    items = np.array([item for _, item in batch], np.int64)
    plan = planning.plan(files, items)
    return plan, planning.runs(plan, rows, np.array(CHUNKS)[plan.files])


@given(batch=batches)
def test_a_plan_holds_every_item_once_and_says_where(batch):
    """Sorted, distinct, and each request finds its own."""
    plan, _ = planned(batch, 1)
    pairs = list(zip(plan.files.tolist(), plan.items.tolist(), strict=True))
    assert pairs == sorted(set(batch))
    assert [pairs[place] for place in plan.places] == batch


@given(batch=batches, rows=st.integers(1, 5))
def test_runs_cover_the_rows_of_every_item_once_and_end_where_chunks_do(batch, rows):
    """Row ``t`` of the result is the row that the plan puts there; a run is of one chunk; two runs could not be one."""
    plan, runs = planned(batch, rows)
    wanted = [
        (file, item * rows + row)
        for file, item in zip(plan.files.tolist(), plan.items.tolist(), strict=True)
        for row in range(rows)
    ]
    got = [None] * len(wanted)
    for run in runs:
        length = CHUNKS[run.file]
        assert run.start < run.stop
        assert run.chunk == (run.start - run.start % length if length else -1)
        assert not length or run.stop <= run.chunk + length
        for row in range(run.start, run.stop):
            assert got[run.target + row - run.start] is None
            got[run.target + row - run.start] = (run.file, row)
    assert got == wanted
    for one, other in zip(runs, runs[1:], strict=False):
        joined = (one.file, one.chunk, one.stop) == (other.file, other.chunk, other.start)
        assert one < other and not joined


@given(batch=batches, rows=st.integers(1, 4), dice=st.randoms())
def test_runs_to_other_places_put_every_row_where_its_item_belongs(batch, rows, dice):
    """Items in any sequence: row by row the same, and no run that could be joined to the next."""
    plan, _ = planned(batch, rows)
    targets = list(range(len(plan.items)))
    dice.shuffle(targets)
    lengths = np.array(CHUNKS)[plan.files]
    runs = planning.runs(plan, rows, lengths, np.array(targets, np.intp))
    got = {}
    for run in runs:
        for row in range(run.start, run.stop):
            assert run.chunk == (row - row % CHUNKS[run.file] if CHUNKS[run.file] else -1)
            assert got.setdefault(run.target + row - run.start, (run.file, row)) == (run.file, row)
    assert got == {
        target * rows + row: (file, item * rows + row)
        for file, item, target in zip(
            plan.files.tolist(), plan.items.tolist(), targets, strict=True
        )
        for row in range(rows)
    }
    for one, other in zip(runs, runs[1:], strict=False):
        length = one.stop - one.start
        assert one[:2] < other[:2] or one.stop <= other.start
        assert (one.file, one.chunk, one.stop, one.target + length) != (
            *other[:3],
            other.target,
        )


def test_large_numbers_stay_exact():
    """Items near the end of 64 bits, where floating point would round."""
    far = 2**62
    plan = planning.plan(np.array([0, 0]), np.array([far, far + 1]))
    assert [tuple(run) for run in planning.runs(plan, 1, np.array([2, 2]))] == [
        (0, far, far, far + 2, 0)
    ]
