"""One tracker owns how far a sampler is: queries change nothing, and each change does what it says."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampling import FixedRanks

from globidx import errors
from globidx.core.orders.grouped import Grouped
from globidx.core.orders.mixture import Mixture
from globidx.core.orders.passes import Passes
from globidx.core.orders.plain import Sequential, Shuffle
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.tracker import Tracker, refuse_other_run


class Files(list):
    """A dataset that knows its files: ``parts`` are their lengths."""

    def __init__(self, *parts):
        super().__init__(range(sum(parts)))
        self.parts = parts

    @property
    def num_files(self):
        return len(self.parts)

    @property
    def fingerprint(self):
        return self.fingerprint_of(len(self.parts))

    def fingerprint_of(self, num_files):
        return repr(self.parts[:num_files])

    def append(self, length):
        """One more file."""
        self.extend(range(length))
        self.parts += (length,)


def made(dataset=range(12), rank=0, world_size=1, *, order=None, seed=0, tail="pad"):
    return Tracker(dataset, order or Sequential(), seed, tail, FixedRanks(rank, world_size))


def left(tracker):
    """The ids that this rank has still to yield."""
    state, rank = tracker.at(untouched=True, unread=True)
    begin, end = state.committed, state.stream_length(rank)
    return tracker.view().stream(begin, end, rank=rank, world_size=state.world_size).tolist()


def everything(tracker):
    """All that a tracker holds, less what it only keeps so as not to compute or compare it again."""
    kept = {"_view": None, "_seen": None}
    return copy.deepcopy(tracker.__dict__ | {"ranks": None, "order": None} | kept)


CHANGES = {
    "commit": lambda t: t.commit(min(2, len(left(t))), *t.ranks.resolve()),
    "begin": lambda t: t.begin(t.state.epoch + 1),
    "start over": lambda t: t.start_over(),
    "skip": lambda t: t.skip(Ranges.of([1, 2])),
    "quarantine": lambda t: t.quarantine(Ranges.of([5])),
    "load": lambda t: t.load(t.check(t.state.to_dict())),
    "append": lambda t: t.dataset.append(2),
    "renew": lambda t: t.renew(unread=True),
}
QUERIES = [
    lambda t: t.at(untouched=True, unread=True),
    lambda t: t.at(untouched=False, unread=False),
    lambda t: t.view(),
    lambda t: t.whole_epoch(t.state.epoch + 3),
    lambda t: t.check(t.state.to_dict()),
    lambda t: t.refuse_finished(10**6),
    lambda t: t.other_world(2, 3),
]


@given(st.lists(st.sampled_from(sorted(CHANGES)), max_size=6), st.sampled_from(QUERIES))
def test_a_query_changes_nothing_after_any_history(history, query):
    """All that the tracker holds is as it was."""
    tracker = made(Files(7, 5), world_size=2)
    for change in history:
        CHANGES[change](tracker)
    before = everything(tracker)
    query(tracker)
    assert everything(tracker) == before


def test_an_epoch_follows_the_dataset_until_something_is_committed():
    """Then it keeps its samples, and the next epoch takes the new ones."""
    dataset = Files(4, 3)
    tracker = made(dataset)
    dataset.append(2)
    assert tracker.renew(unread=True)
    assert not tracker.renew(unread=True)
    assert left(tracker) == list(range(9))
    tracker.commit(3, 0, 1)
    dataset.append(5)
    assert left(tracker) == list(range(3, 9))
    tracker.begin(1)
    assert left(tracker) == list(range(14))


def test_a_dataset_that_changes_in_a_running_epoch_is_an_error():
    """Ids would mean other samples: what was, what is, and what to do."""
    dataset = Files(4, 3)
    tracker = made(dataset)
    tracker.commit(3, 0, 1)
    dataset.parts = (3, 4)
    with pytest.raises(errors.RecordMismatchError, match=r"in the middle of epoch 0.*finish_epoch"):
        tracker.at(untouched=False, unread=False)


def test_ids_dealt_at_one_world_size_are_not_committed_at_another():
    """Both sizes are named."""
    tracker = made()
    tracker.commit(3, 0, 1)
    tracker.ranks = FixedRanks(0, 2)
    with pytest.raises(errors.CommitError, match="world size 1, but it is 2 now"):
        tracker.at(untouched=False, unread=False)


def test_skips_take_effect_at_the_next_epoch_or_load():
    """Never at once: ranks may have come differently far."""
    tracker = made(range(6))
    tracker.commit(1, 0, 1)
    tracker.skip(Ranges.of([2, 4]))
    assert left(tracker) == [1, 2, 3, 4, 5]
    other = made(range(6))
    other.load(other.check(tracker.state.normal(0).to_dict()))
    assert left(other) == [1, 3, 5]
    tracker.begin(1)
    assert left(tracker) == [0, 1, 3, 5]
    with pytest.raises(IndexError, match=r"sample id 6 is outside \[0, 6\)"):
        tracker.skip(Ranges.of([6]))


def test_a_finished_epoch_is_refused_after_a_load_and_not_before():
    """A trainer whose counter restarted at 0 would train on it again."""
    tracker = made()
    tracker.refuse_finished(0)
    ahead = made()
    ahead.begin(3)
    tracker.load(tracker.check(ahead.state.to_dict()))
    tracker.refuse_finished(3)
    with pytest.raises(errors.EpochError, match=r"epochs \[0, 3\) are finished"):
        tracker.refuse_finished(2)


@given(st.integers(1, 40), st.integers(1, 5), st.sampled_from(["pad", "drop", "exact"]), st.data())
def test_a_whole_epoch_is_as_long_as_one_that_begins(n, world_size, tail, data):
    """For schedules: without beginning it, whatever is done of this one."""
    rank = data.draw(st.integers(0, world_size - 1))
    tracker = made(range(n), rank, world_size, order=Shuffle(), tail=tail)
    tracker.commit(data.draw(st.integers(0, len(left(tracker)))), rank, world_size)
    expected = tracker.whole_epoch(1)
    tracker.begin(1)
    assert len(left(tracker)) == expected


@pytest.mark.parametrize(
    ("other", "field"),
    [
        ({"seed": 5}, "seed"),
        ({"order": Shuffle()}, "order"),
        ({"dataset": range(13)}, "dataset.num_samples"),
    ],
)
def test_another_runs_state_is_refused_by_the_first_field_that_differs(other, field):
    """Both values, and what to do; nothing changes."""
    tracker = made()
    before = everything(tracker)
    with pytest.raises(errors.RecordMismatchError, match="resuming would read the wrong") as caught:
        tracker.check(made(**other).state.to_dict())
    assert caught.value.field == field
    assert everything(tracker) == before
    refuse_other_run(tracker.state, dataset=range(12), order=Sequential(), seed=0)


def test_a_length_that_the_order_has_not_is_refused():
    """A state that adds up, and was edited."""
    tracker = made(range(12))
    edited = {"segments": [[1]], "committed": 1, "length": 10, "remaining": 9}
    with pytest.raises(errors.RecordError, match="length is 10, but the order has 12 positions"):
        tracker.check(tracker.state.to_dict() | edited)


def test_a_length_is_compared_with_the_order_before_the_first_segment_is_closed():
    """Positions behind the end have no sample, and would be looked for without end."""
    tracker = made(range(12), order=Shuffle())
    edited = {"open": {"world_size": 1, "count": 2}, "committed": 2, "length": 20, "remaining": 18}
    with pytest.raises(errors.RecordError, match="length is 20, but the order has 12 positions"):
        tracker.check(tracker.state.to_dict() | edited)


@pytest.mark.parametrize(
    ("order", "other"),
    [
        (Passes(Sequential(), size=8), Passes(Sequential(), size=5)),
        (Mixture([9, 3], [0.5, 0.5]), Mixture([9, 3], [0.1, 0.9])),
        (Grouped([0] * 7 + [1] * 5, tail="drop"), None),
    ],
)
def test_an_epoch_that_begins_without_skipped_ids_is_planned_anew(order, other):
    """How many positions they have in it depends on its plan, which is not kept."""
    first = made(range(12), order=order)
    first.loading = (0, 4)
    first.renew(unread=True)
    first.commit(first.state.progress.length, 0, 1)
    first.skip(Ranges.of([1, 2, 10]))
    first.begin(1, ended=True)
    first.renew(unread=True)
    record = first.state.to_dict()
    assert record["segments"] == [["skip", record["skipped"], [[1, 3], [10, 11]]]]
    second = made(range(12), order=other or order)
    second.load(second.check(record))
    assert not {1, 2, 10} & set(left(second))


@pytest.mark.parametrize(
    ("order", "plan", "why"),
    [
        (Passes(Shuffle(), size=8), {"size": 2**40}, "over 4096 epochs of 12"),
        (Passes(Shuffle(), size=8), {"position": 13}, "position is 13, .* has 12"),
        (
            Passes(Mixture([9, 3], [0.5, 0.5]), size=8),
            {"num_samples": 1},
            "have 12 samples together, but there are 1",
        ),
        (
            Passes(Mixture([9, 3], [0.5, 0.5], stop="CYCLE_FOREVER"), size=8),
            {"epoch": 2**62},
            "epoch is 4611686018427387904, of 12",
        ),
        (Mixture([9, 3], [0.5, 0.5]), {"weights": [[2**62, 0, 1, 1]]}, "is past"),
        (
            Mixture([9, 3], [0.5, 0.5]),
            {"weights": [[0, at, 2**15, 2**15] for at in range(65)]},
            "change 65 times",
        ),
        (Grouped([0] * 7 + [1] * 5, batch=4), {"cuts": [[0, 4, 0, 13]]}, "has 13 positions"),
        (
            Grouped([0] * 7 + [1] * 5, batch=4),
            {"cuts": [[0, 4, 0, 12], [2**50, 4, 0, 12]]},
            "no batch begins at 1125899906842624",
        ),
        (
            Grouped([0] * 7 + [1] * 5, batch=4),
            {"cuts": [[0, 4, 0, 12], [3, 4, 0, 12]]},
            "no batch begins at 3",
        ),
    ],
)
@pytest.mark.parametrize("amount", [0, 2])
def test_an_edited_plan_is_refused_before_anything_changes(order, plan, why, amount):
    """In no time, and by name; that of an epoch that has not begun too, if it says where to begin."""
    first = made(range(12), order=order)
    first.commit(amount, 0, 1)
    record = first.state.to_dict()
    record["order"]["plan"] |= plan
    tracker = made(range(12), order=order)
    before = everything(tracker)
    if not amount and isinstance(order, Grouped):
        tracker.load(tracker.check(record))
        return
    with pytest.raises(errors.RecordError, match=why):
        tracker.check(record)
    assert everything(tracker) == before


def test_a_mixture_whose_weights_begin_later_has_the_first_of_them_before():
    """As a record of a later epoch says them."""
    order = Mixture([9, 3], [0.5, 0.5])
    record = made(range(12), order=order).state.to_dict()
    record["order"]["plan"] = {"weights": [[3, 5, 1, 1]]}
    tracker = made(range(12), order=order)
    tracker.load(tracker.check(record))
    assert len(left(tracker)) == order.length(12)


def test_an_order_that_json_cannot_hold_is_refused():
    """As any other field."""
    record = made().state.to_dict() | {"order": {"algorithm": 10**30}}
    with pytest.raises(errors.RecordError, match="has more than 20 digits"):
        made().check(record)
