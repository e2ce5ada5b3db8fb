"""Each batch is planned once, ahead of time where it was foreseen, and never instead of being read."""

from __future__ import annotations

import threading

import pytest

from globidx.disk.remote.ahead import Ahead, Expected, Wish
from globidx.disk.remote.foresight import Foresight
from globidx.disk.remote.hands import Hands
from globidx.disk.remote.objects import Piece

from .test_ahead import SIZE, Stock


class Ids(list):
    """Ids that know what comes next."""

    coming = ()


def told(ids, *coming):
    """A batch, and those after it."""
    made = Ids(ids)
    made.coming = coming
    return made


@pytest.fixture
def seen():
    """A foresight over a stock, what was planned, and by which thread."""
    hands, stock = Hands(4), Stock()
    ahead = Ahead(hands, 10**6)
    plans = []

    def wishes(ids):
        plans.append((ids, threading.current_thread()))
        return [Wish(stock, Piece(str(id)), SIZE) for id in ids]

    yield Foresight(ahead), wishes, plans, stock, Expected(stock, ahead)
    hands.close()


def test_coming_batches_are_planned_by_another_thread_and_fetched(seen):
    """The loop does not wait for that; what it then asks for was asked for already."""
    foresight, wishes, plans, stock, objects = seen
    foresight.before(told([1, 2], [3, 4], [5, 6]), wishes)
    stock.await_asked(6)
    # whichever thread is first
    assert sorted(ids for ids, _ in plans) == [(1, 2), (3, 4), (5, 6)]
    main = threading.current_thread()
    assert [thread is main for _, thread in sorted(plans, key=lambda plan: plan[0])] == [
        True,
        False,
        False,
    ]
    foresight.before(told([3, 4], [5, 6], [7]), wishes)
    stock.await_asked(7)
    assert objects.get(Piece("3")).size == SIZE
    assert sorted(ids for ids, _ in plans) == [(1, 2), (3, 4), (5, 6), (7,)]
    assert len(stock.asked) == 7


def test_ids_that_know_nothing_are_planned_when_they_are_read(seen):
    """As of any other loader."""
    foresight, wishes, plans, stock, _ = seen
    for ids in ([1], [2], [1]):
        foresight.before(ids, wishes)
    assert [ids for ids, _ in plans] == [(1,), (2,), (1,)]
    stock.await_asked(3)


def test_a_batch_that_did_not_come_is_not_waited_for(seen):
    """What was foreseen is forgotten with the loop that told it."""
    foresight, wishes, _, stock, _ = seen
    foresight.before(told([1], [2], [3]), wishes)
    stock.await_asked(3)
    foresight.before(told([9]), wishes)
    stock.await_asked(4)
    assert foresight.ahead.expected == {(9,)}
