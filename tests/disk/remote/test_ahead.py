"""What is expected is fetched once and ahead of time, within its bytes, and changes nothing of what is read."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.disk.remote.ahead import Ahead, Expected, Wish
from globidx.disk.remote.hands import Hands
from globidx.disk.remote.neighbours import grouped
from globidx.disk.remote.objects import Found, Piece
from globidx.errors import ReadError

# Python 3.12 and later
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

SIZE = 100


class Stock:
    """Objects in memory, each ``SIZE`` bytes of its name; they come when ``gate`` is open."""

    url = "stock://"

    def __init__(self, *, closed=False):
        self.asked, self.gate, self.came = [], threading.Event(), threading.Condition()
        if not closed:
            self.gate.set()

    def get(self, piece):
        with self.came:
            self.asked.append(piece)
            self.came.notify_all()
        assert self.gate.wait(timeout=30)
        if "bad" in piece.key:
            raise ReadError(f"{piece.key} is broken")
        if "none" in piece.key:
            return None
        data = (piece.key[-1].encode() * SIZE)[piece.start : piece.stop]
        return Found(data, SIZE, "v")

    def get_many(self, pieces):
        return [self.get(piece) for piece in pieces]

    def names(self, prefix):
        return iter(())

    def await_asked(self, count):
        with self.came:
            assert self.came.wait_for(lambda: len(self.asked) >= count, timeout=30)


@pytest.fixture
def hands():
    made = Hands(4)
    yield made
    made.close()


def wishes(stock, *names):
    return [Wish(stock, Piece(name), SIZE) for name in names]


def settled(ahead):
    """Wait until nothing is on its way."""
    with ahead._changed:
        assert ahead._changed.wait_for(lambda: not ahead._flying, timeout=30)


def test_what_is_expected_comes_before_it_is_asked_for(hands):
    """And is asked of the server once, though two batches want it."""
    stock, ahead = Stock(), Ahead(hands, 10**6)
    assert ahead.expect(["now", "next"]) == ["now", "next"]
    ahead.want("now", wishes(stock, "a", "b"))
    ahead.want("next", wishes(stock, "b", "c"))
    stock.await_asked(3)
    objects = Expected(stock, ahead)
    assert [objects.get(Piece(name)).data[:1] for name in "abc"] == [b"a", b"b", b"c"]
    assert ahead.expect(["next"]) == []
    assert objects.get(Piece("b")).data[:1] == b"b" and len(stock.asked) == 3


def test_a_piece_is_kept_as_often_as_its_batch_will_take_it(hands):
    """By the thread that reads the batch: whoever looks at it beside takes nothing from it."""
    stock, ahead = Stock(), Ahead(hands, 10**6)
    ahead.expect(["now"])
    ahead.want("now", wishes(stock, "a", "a", "b"))
    objects = Expected(stock, ahead)
    beside = threading.Thread(target=objects.get, args=[Piece("a")])
    beside.start()
    beside.join()
    for _ in range(2):
        settled(ahead)
        assert ahead.nbytes == 2 * SIZE
        assert objects.get(Piece("a")).size == SIZE
    assert ahead.nbytes == SIZE and len(stock.asked) == 2
    assert objects.get(Piece("a")).size == SIZE and len(stock.asked) == 3


def test_what_was_taken_while_a_batch_was_planned_is_not_fetched_for_it_again(hands):
    """It is being decoded; what was taken before that was decoded, and has gone since."""
    stock, ahead = Stock(), Ahead(hands, 10**6)
    ahead.expect(["now", "next"])
    ahead.want("now", wishes(stock, "a", "b"))
    objects = Expected(stock, ahead)
    assert objects.get(Piece("a")).size == SIZE
    since = ahead.taken
    assert objects.get(Piece("b")).size == SIZE
    ahead.want("next", wishes(stock, "b", "c", "a"), since=since)
    stock.await_asked(4)
    settled(ahead)
    assert sorted(piece.key for piece in stock.asked) == ["a", "a", "b", "c"]
    # whoever reads it sees whether it is decoded
    ahead.want("next", wishes(stock, "b", "c"), again=True)
    stock.await_asked(5)
    settled(ahead)
    assert stock.asked[-1].key == "b" and len(stock.asked) == 5


def test_what_another_thread_has_claimed_is_kept_for_a_batch_and_not_asked_for(hands):
    """As far as it is here or on its way: the batch may find it decoded, or that it has gone again."""
    stock, ahead = Stock(), Ahead(hands, 10**6)
    ahead.expect(["now", "next", "last"])
    ahead.want("now", wishes(stock, "a"))
    claimed = [one._replace(is_claimed=True) for one in wishes(stock, "a", "b")]
    ahead.want("next", claimed)
    objects = Expected(stock, ahead)
    assert objects.get(Piece("a")).size == SIZE
    settled(ahead)
    ahead.expect(["next", "last"])
    assert objects.get(Piece("a")).size == SIZE and [piece.key for piece in stock.asked] == ["a"]
    # nobody wants it any more
    ahead.want("last", claimed)
    settled(ahead)
    assert ahead.nbytes == 0 and len(stock.asked) == 1


def test_no_more_bytes_are_held_than_allowed(hands):
    """The rest is fetched as room is made, by batches that were read or forgotten."""
    stock, ahead = Stock(), Ahead(hands, 3 * SIZE)
    ahead.expect(["now", "next"])
    ahead.want("now", wishes(stock, "a", "b"))
    ahead.want("next", wishes(stock, "c", "d", "e"))
    stock.await_asked(3)
    settled(ahead)
    assert ahead.nbytes == 3 * SIZE and len(stock.asked) == 3
    assert Expected(stock, ahead).get(Piece("a")).size == SIZE
    stock.await_asked(4)
    settled(ahead)
    assert ahead.nbytes == 3 * SIZE
    ahead.expect([])
    assert ahead.nbytes == 0


class Joining(Stock):
    """It counts the bytes that are on their way at a time, those between neighbours, too."""

    flying = most = 0

    def get_many(self, pieces):
        nbytes = sum(group.stop - group.start for group, _ in grouped(pieces))
        with self.came:
            self.flying += nbytes
            self.most = max(self.most, self.flying)
        found = super().get_many(pieces)
        with self.came:
            self.flying -= nbytes
        return found


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.builds(lambda start, size: Piece("a", start, start + size), st.integers(0, 94), st.integers(1, 5)), min_size=1, max_size=12, unique=True),
    st.sampled_from([1, 7, 20, 60, 1000]),
)  # fmt: skip
def test_what_lies_between_neighbours_is_among_the_bytes_that_are_bounded(pieces, most):
    """It is fetched with them, and dropped when they are here."""
    hands, stock = Hands(3), Joining()
    ahead = Ahead(hands, most)
    ahead.expect(["now"])
    ahead.want("now", [Wish(stock, piece, piece.stop - piece.start) for piece in pieces])
    for piece in pieces:
        assert len(Expected(stock, ahead).get(piece).data) == piece.stop - piece.start
    settled(ahead)
    assert ahead.nbytes == 0
    assert stock.most <= max(most, *(piece.stop - piece.start for piece in pieces))
    hands.close()


def test_a_piece_that_is_larger_than_all_room_comes_alone(hands):
    """Nobody waits for room that there never is."""
    stock, ahead = Stock(), Ahead(hands, 1)
    ahead.expect(["now"])
    ahead.want("now", wishes(stock, "a", "b"))
    objects = Expected(stock, ahead)
    assert objects.get(Piece("b")).data[:1] == b"b" and objects.get(Piece("a")).data[:1] == b"a"


def test_the_batch_that_is_read_goes_first(hands):
    """Before what was wished for earlier and is not on its way."""
    stock, ahead = Stock(closed=True), Ahead(hands, 10**6)
    ahead.expect(["now", "next"])
    ahead.want("next", wishes(stock, *"cdefgh"))
    stock.await_asked(4)
    ahead.want("now", wishes(stock, "a"))
    stock.gate.set()
    stock.await_asked(5)
    assert stock.asked[4] == Piece("a")


def test_what_nobody_waits_for_any_more_is_forgotten(hands):
    """A loop that was left, as others that go on show: what comes late is not kept."""
    stock, ahead = Stock(closed=True), Ahead(hands, 10**6)
    ahead.expect(["now", "next"])
    ahead.want("next", wishes(stock, *"abcdefgh"))
    stock.await_asked(4)
    for number in range(4):
        assert "next" in ahead.expected
        ahead.expect([f"another {number}", f"another {number + 1}"])
    stock.gate.set()
    settled(ahead)
    assert ahead.nbytes == 0 and len(stock.asked) == 4
    ahead.want("next", wishes(stock, "z"))
    assert len(stock.asked) == 4


def test_what_a_thread_expected_that_has_ended_is_forgotten(hands):
    """By the next one that tells: nobody else would make room for it."""
    stock, ahead = Stock(), Ahead(hands, SIZE)

    def left():
        ahead.expect(["now", "next"])
        ahead.want("next", wishes(stock, "a"))

    thread = threading.Thread(target=left)
    thread.start()
    thread.join()
    ahead.expect(["mine"])
    assert ahead.expected == {"mine"}
    ahead.want("mine", wishes(stock, "b"))
    stock.await_asked(2)
    settled(ahead)
    assert ahead.nbytes == SIZE


def test_an_error_is_raised_where_the_piece_is_asked_for(hands):
    """Once; the next one who asks has a try of its own."""
    stock, ahead = Stock(), Ahead(hands, 10**6)
    ahead.expect(["now"])
    ahead.want("now", wishes(stock, "bad", "none"))
    stock.await_asked(2)
    settled(ahead)
    objects = Expected(stock, ahead)
    assert objects.get(Piece("none")) is None
    for _ in range(2):
        with pytest.raises(ReadError, match="bad is broken"):
            objects.get(Piece("bad"))


def test_a_forked_child_has_nothing_of_it(hands):
    """What its parent waits for is asked for anew."""
    stock, ahead = Stock(closed=True), Ahead(hands, 10**6)
    ahead.expect(["now"])
    ahead.want("now", wishes(stock, "a"))
    stock.await_asked(1)
    child = os.fork()
    if child == 0:
        stock.gate.set()
        ok = ahead.nbytes == 0 and Expected(stock, ahead).get(Piece("a")).data[:1] == b"a"
        os._exit(0 if ok else 1)
    stock.gate.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert Expected(stock, ahead).get(Piece("a")).data[:1] == b"a"


STEPS = st.lists(
    st.tuples(st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True), st.lists(st.sampled_from("abcdef"), max_size=4)),
    max_size=6,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(STEPS, st.sampled_from([1, 250, 10**6]), st.booleans())
def test_whatever_was_expected_what_is_read_is_the_object(steps, most, everything):
    """Any batches, foreseen or not, read in any way: the bytes, and nothing is left over."""
    hands, stock = Hands(3), Stock()
    ahead = Ahead(hands, most)
    objects = Expected(stock, ahead)
    for tickets, names in steps:
        for ticket in ahead.expect(tickets):
            ahead.want(
                ticket, [Wish(stock, Piece(n, 2, 9), 7) for n in names] + wishes(stock, *names)
            )
        for name in names if everything else "fa":
            assert objects.get(Piece(name)).data == name.encode() * SIZE
            assert objects.get(Piece(name, 2, 9)).data == name.encode() * 7
    ahead.expect([])
    settled(ahead)
    assert ahead.nbytes == 0 and not ahead._kept
    hands.close()
