"""The running pass: which iterators are of it, how far they have come, and which batch counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx import errors
from globidx.torch.loops.iterator import Cursor
from globidx.torch.loops.passes import HeldBatch, Passes


class Caller:
    """A loop as its frame shows it."""

    def __init__(self, left=False, failing=False):
        self.left, self.failing = left, failing

    def has_left(self):
        return self.left or self.failing

    def is_failing(self):
        return self.failing


class Loop:
    """A loop that counts."""

    ended = False

    def end(self):
        self.ended = True


def cursor_of(passes, length=20):
    """A new iterator over ``range(length)``, and its ids."""
    cursor = Cursor(passes)
    cursor.point_at(lambda start, stop: list(range(start, stop)), 0, length)
    passes.add(cursor)
    return cursor, (id for block in cursor.blocks() for id in block)


def held(left=False, failing=False, is_last=False):
    """(passes, loop, batch) of a loop that was given a batch."""
    passes, loop = Passes(), Loop()
    passes.count_by(loop)
    batch = HeldBatch([1, 2], [], is_last, Caller(left, failing))
    passes.hand_out(loop, batch)
    return passes, loop, batch


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), max_size=8))
def test_the_iterator_that_came_furthest_says_how_far_the_pass_is(draws):
    """Also when it is gone."""
    passes = Passes()
    made = [cursor_of(passes) for _ in range(3)]
    drawn = [0, 0, 0]
    for which, count in draws:
        drawn[which] += sum(1 for _ in zip(range(count), made[which][1], strict=False))
        assert passes.issued == max(drawn)
    made.clear()
    assert passes.issued == max(drawn)


def test_iterators_of_another_pass_do_not_count_and_raise():
    """Why is in the error."""
    passes = Passes()
    cursor, ids = cursor_of(passes)
    next(ids)
    passes.move("was reset")
    assert not passes.knows(cursor)
    assert passes.issued == 0
    with pytest.raises(errors.StaleIteratorError, match="was reset"):
        next(ids)
    del cursor, ids
    assert passes.issued == 0


@pytest.mark.parametrize(
    ("left", "failing", "is_last", "counts"),
    [
        (False, False, False, True),  # the loop works on it
        (True, False, False, False),  # a break in mid-pass
        (False, True, False, False),  # an error is being handled
        (True, False, True, True),  # nothing comes behind it: the pass is over
        (False, True, True, False),  # a last batch that failed
    ],
)
def test_the_batch_that_counts_is_the_one_that_was_trained_on(left, failing, is_last, counts):
    """As far as the interpreter's state shows."""
    passes, loop, batch = held(left, failing, is_last)
    assert passes.held == (batch if counts else None)
    assert passes.abandoned == (None if counts else batch)
    assert loop is not None


def test_a_loop_that_is_gone_holds_its_last_batch_and_no_other():
    """Its batch is freed with it only when it is given up."""
    for is_last in (False, True):
        passes, loop, batch = held(is_last=is_last)
        del loop
        assert passes.held == (batch if is_last else None)
        passes.give_up()
        assert passes.batch is None


def test_a_batch_that_is_given_up_ends_no_pass():
    """The loop may still come back for the next one."""
    passes, _loop, batch = held(left=True, is_last=True)
    assert passes.held is batch
    passes.give_up()
    assert passes.held is None
    assert passes.batch.ids == batch.ids


def test_only_the_newest_loop_counts():
    """What another is handed is nobody's."""
    passes, _loop, _ = held()
    newer = Loop()
    passes.count_by(newer)
    passes.hand_out(_loop, HeldBatch([9], [], False, Caller()))
    assert passes.batch is None
    assert not passes.counted_by(_loop)
    passes.end("is over")
    assert newer.ended
    assert not _loop.ended
