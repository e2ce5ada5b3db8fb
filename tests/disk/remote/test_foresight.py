"""Each batch is planned ahead of time where it was foreseen, and never instead of being read."""

from __future__ import annotations

import threading

import pytest
from threads import in_threads

from globidx.disk.remote.ahead import Ahead, Expected, Wish
from globidx.disk.remote.foresight import Foresight
from globidx.disk.remote.hands import Hands
from globidx.disk.remote.objects import Piece

from .test_ahead import SIZE, Stock, settled


@pytest.fixture
def seen():
    """A foresight over a stock, what was planned, and by which thread."""
    hands, stock = Hands(4), Stock()
    ahead = Ahead(hands, 10**6)
    plans = []

    def wishes(ids, rely):
        plans.append((ids, threading.current_thread()))
        yield [Wish(stock, Piece(str(id)), SIZE) for id in ids]

    yield Foresight(ahead), wishes, plans, stock, Expected(stock, ahead)
    hands.close()


def planned(plans):
    """The batches that were planned, each once, though what is read is looked at once more."""
    return sorted({ids for ids, _ in plans})


def test_batches_are_planned_by_another_thread_and_fetched(seen):
    """The loop does not wait for that; what it then asks for was asked for already."""
    foresight, wishes, plans, stock, objects = seen
    foresight.tell([[1, 2], [3, 4], [5, 6]], wishes)
    stock.await_asked(6)
    assert planned(plans) == [(1, 2), (3, 4), (5, 6)]
    assert threading.current_thread() not in [thread for _, thread in plans]
    foresight.before([1, 2], wishes)
    foresight.tell([[3, 4], [5, 6], [7]], wishes)
    foresight.before([3, 4], wishes)
    stock.await_asked(7)
    assert objects.get(Piece("3")).size == SIZE
    assert planned(plans) == [(1, 2), (3, 4), (5, 6), (7,)]
    assert len(stock.asked) == 7


def test_what_was_kept_when_a_batch_was_planned_and_has_gone_is_asked_for_at_once(seen):
    """Not piece by piece as it is read; what was asked for then is not asked for again."""
    foresight, wishes, plans, stock, objects = seen
    kept = [{1, 2, 3}, set()]

    def lacking(ids, rely):
        gone = kept[0] if threading.current_thread() is not threading.main_thread() else kept[1]
        for some in wishes(ids, rely):
            yield [one for one in some if int(one.piece.key) not in gone]

    foresight.tell([[9], [1, 2, 3, 4]], lacking)
    stock.await_asked(2)
    foresight.tell([[1, 2, 3, 4]], lacking)
    for part in ([1, 2], [3, 4]):
        foresight.before(part, lacking)
    stock.await_asked(5)
    for id in (1, 2, 3, 4):
        assert objects.get(Piece(str(id))).size == SIZE
    assert len(stock.asked) == 5
    # nor is it kept for once more
    assert foresight.ahead.nbytes == 0
    # by the planner, and by the reader once for both parts
    assert [ids for ids, _ in plans].count((1, 2, 3, 4)) == 2


def test_ids_of_which_nobody_told_are_planned_when_they_are_read(seen):
    """As of any other loader."""
    foresight, wishes, plans, stock, _ = seen
    for ids in ([1], [2], [1]):
        foresight.before(ids, wishes)
    assert [ids for ids, _ in plans] == [(1,), (2,), (1,)]
    stock.await_asked(3)


def test_a_batch_that_is_read_by_its_samples_is_asked_for_at_once(seen):
    """And what comes next is not forgotten."""
    foresight, wishes, plans, stock, objects = seen
    foresight.tell([[1, 2, 3], [4]], wishes)
    for id in (2, 1, 3):
        foresight.before([id], wishes)
        assert objects.get(Piece(str(id))).size == SIZE
    stock.await_asked(4)
    assert planned(plans) == [(1, 2, 3), (4,)] and len(stock.asked) == 4


def test_a_dataset_that_is_not_read_now_is_told_what_is_read_of_it_next(seen):
    """Of several datasets in one, a batch may have samples of one alone."""
    foresight, wishes, plans, stock, _ = seen
    foresight.tell([[], [4], []], wishes)
    stock.await_asked(1)
    foresight.tell([[4], []], wishes)
    foresight.before([4], wishes)
    assert planned(plans) == [(4,)] and len(stock.asked) == 1


def test_a_batch_that_did_not_come_is_not_waited_for(seen):
    """What was foreseen is forgotten with the loop that told it."""
    foresight, wishes, _, stock, _ = seen
    foresight.tell([[1], [2], [3]], wishes)
    stock.await_asked(3)
    for number in range(9, 9 + 256):
        assert (2,) in foresight.ahead.expected
        foresight.before([number], wishes)
    assert foresight.ahead.expected == {(number,)}


def test_samples_that_are_read_between_those_of_a_batch_leave_what_is_foreseen(seen):
    """As where each sample is mixed with another one, that nobody has told of."""
    foresight, wishes, _, stock, objects = seen
    for number in range(0, 40, 2):
        told = [[one, one + 1] for one in range(number, number + 6, 2)]
        foresight.tell(told, wishes)
        for one in told[0]:
            foresight.before([one], wishes)
            assert objects.get(Piece(str(one))).size == SIZE
            foresight.before([one + 1000], wishes)
            assert objects.get(Piece(str(one + 1000))).size == SIZE
    stock.await_asked(84)
    assert sorted(int(piece.key) for piece in stock.asked) == [
        *range(44),
        *range(1000, 1040),
    ]
    # of what was read aside, nothing is kept
    assert foresight.ahead.expected == {(38, 39), (40, 41), (42, 43), (1039,)}


def test_two_loops_that_a_thread_has_by_turns_each_foresee(seen):
    """What one expects is not forgotten for what the other does."""
    foresight, wishes, _, stock, objects = seen
    for number in range(20):
        for first in (0, 1000):
            batches = [[first + one] for one in range(number, min(20, number + 6))]
            foresight.tell(batches, wishes)
            foresight.before(batches[0], wishes)
            assert objects.get(Piece(str(first + number))).size == SIZE
    assert sorted(int(piece.key) for piece in stock.asked) == [*range(20), *range(1000, 1020)]
    assert foresight.ahead.nbytes == 0


@pytest.mark.parametrize("is_told", [True, False])
def test_a_batch_that_is_read_again_is_asked_for_at_once_again(seen, is_told):
    """As often as it is read, and nothing is left of that."""
    foresight, wishes, _, stock, objects = seen
    for times in range(1, 5):
        if is_told:
            foresight.tell([[1, 2, 3]], wishes)
        foresight.before([1, 2, 3], wishes)
        stock.await_asked(3 * times)
        for id in (1, 2, 3):
            assert objects.get(Piece(str(id))).size == SIZE
    assert len(stock.asked) == 12 and foresight.ahead.nbytes == 0
    assert len(foresight.ahead._wanted_by[1, 2, 3]) == 3


def test_what_another_thread_takes_while_a_batch_is_looked_at_is_not_fetched_again(seen):
    """It is being decoded there, which whoever looked did not see yet."""
    foresight, wishes, _, stock, objects = seen

    def late(ids, rely):
        if ids == (3,):
            yield from wishes(ids, rely)
        elif threading.current_thread() is threading.main_thread():
            in_threads(1, lambda _: objects.get(Piece("2")))
            yield from wishes(ids, rely)

    foresight.tell([[1, 2], [3]], late)
    stock.await_asked(1)
    foresight.before([1, 2], late)
    settled(foresight.ahead)
    assert [piece.key for piece in stock.asked] == ["3", "2", "1"]


def test_what_a_batch_counts_on_is_asked_for_when_it_goes(seen):
    """Once, and ahead of time; not for a batch that is read by now, or is expected no more."""
    foresight, _, _, stock, objects = seen

    gate = threading.Event()

    def decoded(ids, rely):
        if ids == (7,):
            assert gate.wait(30)
        for id in ids:
            rely(id, lambda rely, id=id: [[Wish(stock, Piece(str(id)), SIZE)]])
        yield []

    def planned():
        # the planner does one after the other
        foresight._planner.map(abs, [1, 2])
        settled(foresight.ahead)
        return [piece.key for piece in stock.asked]

    foresight.tell([[1, 2], [3, 4], [2, 5]], decoded)
    assert planned() == []
    foresight.gone([2, 4, 9])
    assert planned() == ["2", "4"]
    foresight.gone([4, 5])
    assert planned() == ["2", "4", "5"]
    foresight.tell([[1, 2], [2, 5], [7]], decoded)
    # the planner is at another batch, and finds this one read by then
    foresight.gone([1])
    foresight.before([1, 2], decoded)
    gate.set()
    foresight.gone([1, 3])
    assert planned() == ["2", "4", "5"]
    assert objects.get(Piece("2")).size == SIZE
    foresight.tell([[2, 5], [7]], decoded)
    assert objects.get(Piece("2")).size == SIZE and planned() == ["2", "4", "5"]
    # nothing is noted of batches that nobody expects
    foresight.tell([[7], [8]], decoded)
    foresight.tell([[8]], decoded)
    assert planned() and foresight._relied.keys() == {8}


@pytest.mark.parametrize("kind", [AssertionError, SystemExit, KeyboardInterrupt])
def test_what_a_users_function_raises_ends_no_planning(seen, kind):
    """It is called where the sample is read, too, and raises there; batches behind it are planned."""
    foresight, wishes, _, stock, objects = seen

    def raising(ids, rely):
        if ids == (2,):
            raise kind("planned")
        yield from wishes(ids, rely)

    foresight.tell([[1], [2], [3]], raising)
    stock.await_asked(2)
    foresight.tell([[2], [3], [4]], raising)
    stock.await_asked(3)
    assert objects.get(Piece("4")).size == SIZE and len(stock.asked) == 3
