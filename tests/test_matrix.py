"""The matrix of frameworks counts what a resume loses, repeats and pads, and its page has all of it."""

import doctest
import re

import pytest
from matrix import count, page
from matrix.count import Count, exact, of_later_epochs, of_the_resumed_epoch
from matrix.leg import BATCH, EPOCHS, SAMPLES, SAVED_EPOCH, SAVED_STEP
from matrix.rows import ROWS

LATER = range(SAVED_EPOCH + 1, EPOCHS)


def steps(epoch, ids):
    """A rank's steps over ``ids`` in one epoch."""
    return [(epoch, ids[start : start + BATCH]) for start in range(0, len(ids), BATCH)]


def dealt(epoch, ids, ranks):
    """What each rank reads of ``ids``, as cards are dealt, padded from their start."""
    padded = ids + ids[: -len(ids) % ranks]
    return [steps(epoch, padded[rank::ranks]) for rank in range(ranks)]


def joined(*legs):
    """Parts of a leg, one after the other on each rank."""
    return [[step for part in parts for step in part] for parts in zip(*legs, strict=True)]


def run(saved, resumed):
    """Both legs of a run in which nothing is lost: what the ranks of each read."""
    whole = list(range(SAMPLES))
    cut = saved * BATCH * SAVED_STEP
    first = joined(*(dealt(0, whole, saved), dealt(SAVED_EPOCH, whole[:cut], saved)))
    second = dealt(SAVED_EPOCH, whole[cut:], resumed)
    return first, joined(second, *(dealt(epoch, whole, resumed) for epoch in LATER))


@pytest.mark.parametrize("saved", [1, 2, 3])
@pytest.mark.parametrize("resumed", [1, 2, 3])
def test_a_run_that_loses_nothing_counts_as_exact(saved, resumed):
    """Its padding is counted apart from repeats."""
    first, second = run(saved, resumed)
    found = of_the_resumed_epoch(first, second, resumed - 1), of_later_epochs(second, resumed - 1)
    assert found == exact(saved, resumed)


@pytest.mark.parametrize("epoch", [SAVED_EPOCH, *LATER])
def test_a_lost_sample_is_missing_in_its_epoch(epoch):
    """Wherever in the epoch it was to be read."""
    for place in (0, 1, -2):
        first, second = run(2, 3)
        at = [index for index, step in enumerate(second[1]) if step[0] == epoch][place]
        second[1][at] = (epoch, second[1][at][1][:-1])
        found = [of_the_resumed_epoch(first, second, 2), *of_later_epochs(second, 2)]
        assert [one for one in found if one.missing] == [Count(1, 0, 1)]


def test_a_sample_that_is_read_again_before_the_last_step_is_no_padding():
    """However much padding the ranks may have."""
    first, second = run(2, 2)
    epoch, ids = second[0][0]
    second[0].insert(1, (epoch, ids[:1]))
    assert of_the_resumed_epoch(first, second, 9) == Count(0, 1, 1)


def test_what_the_last_step_repeats_beyond_the_padding_is_repeated():
    """The sampler pads by one sample on two ranks; three more are not its."""
    first, second = run(2, 2)
    at = [index for index, step in enumerate(second[0]) if step[0] == SAVED_EPOCH][-1]
    second[0][at] = (SAVED_EPOCH, [*second[0][at][1], 0, 1, 2])
    assert of_the_resumed_epoch(first, second, 1) == Count(0, 3, 1)
    assert of_the_resumed_epoch(first, second, 9) == Count(0, 0, 4)


def test_a_sample_of_both_legs_is_repeated():
    """What was trained on before the save, and again after it."""
    first, second = run(1, 1)
    second[0].insert(0, (SAVED_EPOCH, [0, 1, 2]))
    assert of_the_resumed_epoch(first, second, 0) == Count(0, 3)


def test_reads_of_a_whole_epoch_are_repeats_of_it():
    """A framework that takes the checkpoint for one of an earlier epoch reads that one again."""
    first, second = run(1, 1)
    second[0][:0] = steps(0, list(range(53)))
    assert of_the_resumed_epoch(first, second, 0) == Count(0, 53)


def test_an_epoch_that_was_never_read_is_missing():
    """And one of a kind is told once, or each."""
    first, second = run(1, 2)
    ended = [[step for step in rank if step[0] < EPOCHS - 1] for rank in second]
    assert of_later_epochs(ended, 1) == [Count(0, 0, 1), Count(SAMPLES, 0)]
    none = [[], []]
    assert of_later_epochs(none, 1) == [Count(SAMPLES, 0)]
    assert of_the_resumed_epoch(first, none, 1) == Count(SAMPLES - BATCH * SAVED_STEP, 0)


def test_the_page_has_every_row_and_ours_are_exact():
    """Three tables, as long as ``rows.py``; a cell of ours is that of a run that loses nothing."""
    tables = page.printed(page.PAGE.read_text()).split("## ")[1:-1]
    assert len(tables) == 3
    for saved, table in enumerate(tables, 1):
        lines = [line.strip("| ").split(" | ") for line in table.splitlines() if "|" in line][2:]
        assert [line[:2] for line in lines] == [[row.framework, row.label] for row in ROWS]
        for row, line in zip(ROWS, lines, strict=True):
            if row.is_ours:
                cells = [exact(saved, resumed) for resumed in (1, 2, 3)]
                expected = [epoch for epoch, _ in cells] + [later for _, (later,) in cells]
                assert line[2:] == [f"**{one}**" for one in expected]


def test_another_figure_is_told():
    """The check prints the row of the page and that of today."""
    now = page.PAGE.read_text()
    text = page.printed(now)
    assert page.differences(now, text) == []
    row = next(line for line in text.splitlines() if "skipping steps" in line)
    other = re.sub(r"\d+ / \d+", "7 / 7", row, count=1)
    assert page.differences(now, text.replace(row, other)) == [f"-{row}", f"+{other}"]
    assert page.printed(page.with_printed(now, "new")) == "new"


@pytest.mark.parametrize("module", [count, page])
def test_the_examples_of_the_matrix_run(module):
    """Its docstrings are not collected otherwise."""
    assert doctest.testmod(module).failed == 0
