"""Batches of one group: on any batch size, over changes of it, each sample once."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.orders.base import Left
from globidx.core.orders.grouped import Grouped
from globidx.core.orders.lanes import Lanes
from globidx.core.orders.plain import Sequential
from globidx.core.progress.ranges import Ranges
from globidx.errors import RecordError, RecordMismatchError

GOLDEN = Path(__file__).parents[2] / "golden" / "grouped-1.json"
TAILS = ("merge", "pad", "drop")


@st.composite
def groups(draw, most=120):
    """Labels of up to five groups, in runs or in any sequence, some of a few samples only."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shares = rng.dirichlet(np.full(draw(st.integers(1, 5)), 0.7))
    labels = rng.choice(len(shares), size=draw(st.integers(1, most)), p=shares)
    return (np.sort(labels) if draw(st.booleans()) else labels).tolist()


GROUPS = groups()


def lanes(batch):
    """One rank that reads batches of a size."""
    return lambda: Lanes(1, 1, batch)


def ids_of(planned, num_samples, seed=3, epoch=1):
    """All ids of an epoch."""
    bound = planned.bind(num_samples, seed=seed, epoch=epoch)
    return bound.take(range(len(bound))).tolist()


def batches(ids, size):
    """The ids of each batch."""
    return [ids[at : at + size] for at in range(0, len(ids), size)]


def mixed(ids, labels):
    """Whether a batch has samples of several groups."""
    return len({labels[id] for id in ids}) > 1


@given(GROUPS, st.integers(1, 9), st.sampled_from(TAILS))
def test_batches_are_of_one_group(labels, batch, tail):
    """Each sample once; what fills no batch is merged at the end, filled up, or left out."""
    n = len(labels)
    ids = ids_of(Grouped(labels, tail=tail).plan(None, n, lanes(batch)), n)
    sizes, counts = Counter(labels), Counter(ids)
    whole = sum(size // batch for size in sizes.values())
    assert not any(mixed(one, labels) for one in batches(ids, batch)[:whole])
    if tail == "merge":
        assert sorted(ids) == list(range(n))
    elif tail == "drop":
        assert len(ids) == len(counts) == whole * batch
    else:
        assert not any(mixed(one, labels) for one in batches(ids, batch))
        assert len(counts) == n and len(ids) - n == sum(-size % batch for size in sizes.values())


@given(
    GROUPS,
    st.sampled_from(TAILS),
    st.lists(st.tuples(st.integers(1, 7), st.integers(1, 40)), min_size=2, max_size=4),
    st.data(),
)
def test_another_batch_size_cuts_what_is_left_anew(labels, tail, legs, data):
    """In lock-step, over several changes: what was read stands, and batches stay of one group."""
    n = len(labels)
    order = Grouped(labels, tail=tail)
    planned, at, read = None, 0, []
    for batch, steps in legs:
        before = planned
        if planned is None:
            planned = order.plan(None, n, lanes(batch))
        else:
            planned = order.recorded(json.loads(json.dumps(planned.describe())), None, n)
            planned = order.go_on(planned, Left(1, at, 0, 3), lanes(batch))
        ids = ids_of(planned, n)
        assert ids[:at] == read
        if before is not None and planned == before and batch != legs[0][0]:
            break
        for one in batches(ids[at:], batch)[:steps]:
            read, at = read + one, at + len(one)
    rest = ids_of(planned, n)
    assert rest[: len(read)] == read
    # what is left is cut whole: mixed batches come only where nothing fills one
    last = planned.cuts[-1]
    tail_of_epoch = batches(rest[last.start :], last.batch)
    kinds = [mixed(one, labels) for one in tail_of_epoch]
    assert kinds == sorted(kinds) or tail == "merge"
    if tail == "merge":
        assert sorted(rest) == list(range(n))
        assert kinds[: sum(1 for one in kinds if not one)].count(True) <= len(set(labels))
    counts = Counter(rest)
    assert tail == "drop" or len(counts) == n
    assert tail == "pad" or max(counts.values(), default=1) == 1


@given(GROUPS, st.sampled_from(TAILS), st.integers(2, 6), st.integers(1, 3), st.data())
def test_after_uneven_ranks_only_the_first_batches_are_mixed(labels, tail, batch, times, data):
    """Positions that remain of batches that were begun make the new batches begin elsewhere."""
    n = len(labels)
    order = Grouped(labels, tail=tail)
    planned, position, holes = order.plan(None, n, lanes(batch)), 0, []
    for _ in range(times):
        ids = ids_of(planned, n)
        position += data.draw(st.integers(0, max(0, len(ids) // 3 - position)))
        some = st.lists(st.integers(0, position - 1), max_size=3, unique=True).map(sorted)
        holes, after = data.draw(some) if position else [], data.draw(st.integers(2, 6))
        left = Left(1, position, len(holes), 3)
        gone_on = order.go_on(planned, left, lanes(after))
        now = ids_of(gone_on, n)
        assert now[:position] == ids[:position]
        if gone_on == planned:
            return
        planned = gone_on
        remaining = [now[hole] for hole in holes] + now[position:]
        cut = planned.cuts[-1]
        # the batches that hold what was begun before
        first = -(-(len(holes) + cut.start - position) // after)
        sizes = Counter(labels[id] for id in set(now[cut.start + cut.lead :]))
        whole = sum(size // after for size in sizes.values())
        blocks = batches(remaining, after)
        assert not any(mixed(one, labels) for one in blocks[first : first + whole])
        counts = Counter(now)
        assert tail == "drop" or len(counts) == n
        assert tail == "pad" or max(counts.values(), default=1) == 1


@given(GROUPS, st.integers(1, 9), st.sampled_from(TAILS), st.data())
def test_occurrences_and_inverse_are_those_of_looking(labels, batch, tail, data):
    """Also after a change of the batch size."""
    n = len(labels)
    order = Grouped(labels, tail=tail)
    planned = order.plan(None, n, lanes(batch))
    if data.draw(st.booleans()):
        left = Left(1, data.draw(st.integers(0, planned.length(n))), 0, 3)
        planned = order.go_on(planned, left, lanes(data.draw(st.integers(1, 9))))
    bound, ids = planned.bind(n, seed=3, epoch=1), np.array(ids_of(planned, n), np.int64)
    asked = data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=9))
    found = bound.occurrences(np.array(asked, np.int64))
    assert sorted(found.tolist()) == np.flatnonzero(np.isin(ids, asked)).tolist()
    for id in asked:
        at = np.flatnonzero(ids == id)
        if not len(at):
            with pytest.raises(ValueError, match=f"sample {id} is not drawn"):
                bound.position(id)
        elif tail == "pad":
            assert bound.position(id) in at
        else:
            assert bound.position(id) == at[0]


def test_groups_are_interleaved_evenly():
    """Chi-square of the groups of batches in ten stretches of the epoch, over 200 epochs."""
    labels = [0] * 1003 + [1] * 517 + [2] * 64
    planned = Grouped(labels).plan(None, 1584, lanes(8))
    counts = np.zeros((10, 3))
    for epoch in range(200):
        ids = np.array(ids_of(planned, 1584, epoch=epoch))[: 8 * 197 : 8]
        which = np.array(labels)[ids]
        for stretch in range(10):
            counts[stretch] += np.bincount(which[stretch * 19 : stretch * 19 + 19], minlength=3)
    expected = np.array([125, 64, 8]) / 197 * 19 * 200
    chi2 = ((counts - expected) ** 2 / expected).sum()
    # 20 degrees of freedom, and blocks are drawn without replacement, which makes it smaller
    assert chi2 < 20 + 5 * np.sqrt(40)


def test_the_samples_of_a_group_are_in_the_inner_order():
    """In sequence here; with another epoch, in another one of ``Shuffle``."""
    labels = np.arange(40) % 2
    ids = ids_of(Grouped(labels, Sequential()).plan(None, 40, lanes(4)), 40)
    firsts = sorted(batches(ids, 4))
    assert firsts == sorted(
        [list(range(start, start + 8, 2)) for start in (0, 8, 16, 24, 32)]
        + [list(range(start, start + 8, 2)) for start in (1, 9, 17, 25, 33)]
    )
    shuffled = Grouped(labels).plan(None, 40, lanes(4))
    assert ids_of(shuffled, 40, epoch=0) != ids_of(shuffled, 40, epoch=1)


def test_groups_may_be_a_function_of_the_dataset():
    """It is asked when an epoch is planned."""
    order = Grouped(lambda dataset: [len(word) for word in dataset])
    words = ["a", "bb", "c", "dd"]
    ids = ids_of(order.plan(words, 4, lanes(2)), 4)
    assert sorted(map(sorted, batches(ids, 2))) == [[0, 2], [1, 3]]
    with pytest.raises(ValueError, match="groups are given for 4 samples, but there are 5"):
        order.plan(words, 5, lanes(2))
    others = ["aa", "b", "c", "dd"]
    ids = ids_of(order.plan(others, 4, lanes(2)), 4)
    assert sorted(map(sorted, batches(ids, 2))) == [[0, 3], [1, 2]]


def test_an_epoch_keeps_its_groups_where_files_are_appended():
    """Also if their groups come before its own; the next epoch has all."""
    words = ["bb", "bb", "dddd", "bb"]
    orders = {"list": lambda words: Grouped(words), "function": lambda _: Grouped(list)}
    for make in orders.values():
        first = make(words).plan(words, 4, lanes(2))
        grown = ["bb", "bb", "dddd", "bb", "a", "dddd", "ccc"]
        order = make(grown)
        again = order.recorded(first.describe(), grown, 4)
        assert again == first
        assert ids_of(again, 4) == ids_of(first, 4)
        assert sorted(ids_of(order.plan(grown, 7, lanes(2)), 7)) == list(range(7))


def test_other_groups_are_refused():
    """A record names their digest."""
    described = Grouped([0, 0, 1]).plan(None, 3, lanes(2)).describe()
    assert Grouped([0, 1, 1]).matches(described)
    with pytest.raises(RecordMismatchError, match="pass the same groups, or start a new run"):
        Grouped([0, 1, 1]).recorded(described, None, 3)
    assert not Grouped([0, 0, 1], tail="drop").matches(described)
    assert not Grouped([0, 0, 1], Sequential()).matches(described)


@given(GROUPS, st.integers(1, 9), st.sampled_from(TAILS), st.data())
def test_samples_that_are_left_out_are_those_of_no_dataset(labels, batch, tail, data):
    """An epoch without them is cut as if the others were all; a record says so, and looks are right."""
    n = len(labels)
    gone = data.draw(st.sets(st.integers(0, n - 1), max_size=n // 2))
    order = Grouped(labels, tail=tail)
    planned = order.plan(None, n, lanes(batch))
    without = planned.without(Ranges.of(gone).pairs)
    ids, kept = ids_of(without, n), [id for id in range(n) if id not in gone]
    assert len(ids) == Grouped([labels[id] for id in kept], tail=tail, batch=batch).length(
        len(kept)
    )
    if tail == "merge":
        assert sorted(ids) == kept
    assert set(ids) <= set(kept)
    tails = len(set(labels)) * (batch - 1) if tail == "merge" else 0
    whole = batches(ids[: max(0, len(ids) - tails)], batch)
    assert not any(mixed(one, labels) for one in whole if len(one) == batch)
    again = order.recorded(json.loads(json.dumps(without.describe())), None, n)
    assert again == without and ids_of(again, n) == ids
    bound = without.bind(n, seed=3, epoch=1)
    for id in range(n):
        at = [position for position, one in enumerate(ids) if one == id]
        assert sorted(bound.occurrences(np.array([id])).tolist()) == at
        if not at:
            with pytest.raises(ValueError, match=f"sample {id} is not drawn"):
                bound.position(id)
        else:
            assert bound.position(id) in at
    left = Left(1, data.draw(st.integers(0, len(ids))), 0, 3)
    other = order.go_on(without, left, lanes(batch + 1))
    assert Counter(ids_of(other, n)[: left.position]) == Counter(ids[: left.position])
    assert not gone & set(ids_of(other, n))
    assert planned.without([]) == planned == without.without([])


@pytest.mark.parametrize("ids", [[[1, 1]], [[2, 3], [0, 1]], [[0, 2], [1, 3]], [[0]], 7])
def test_edited_samples_that_are_left_out_are_refused(ids):
    """They ascend, and none is empty."""
    order = Grouped([0, 0, 1])
    described = order.plan(None, 3, lanes(2)).describe()
    described["plan"]["without"] = ids
    with pytest.raises(RecordError, match="order: plan"):
        order.recorded(described, None, 3)


@pytest.mark.parametrize(
    "cuts",
    [[], [[1, 2, 0, 3]], [[0, 0, 0, 3]], [[0, 2, 0, 3], [3, 2]], [[0, 2, 1, 3]], [[0, 2, 0, 5]]],
)
def test_an_edited_record_is_refused(cuts):
    """By its reader, or when the epoch is bound."""
    order = Grouped([0, 0, 1])
    described = order.plan(None, 3, lanes(2)).describe()
    described["plan"]["cuts"] = cuts
    with pytest.raises(RecordError, match="order: plan"):
        order.recorded(described, None, 3).bind(3, seed=0, epoch=0)


def test_golden_vectors():
    """The ids that name and version stand for, over a change of the batch size."""
    golden = json.loads(GOLDEN.read_text())
    n = len(golden["labels"])
    for case in golden["cases"]:
        order = Grouped(golden["labels"], tail=case["tail"])
        planned = order.plan(None, n, lanes(case["batch"]))
        left = Left(case["epoch"], case["position"], case["holes"], case["seed"])
        planned = order.go_on(planned, left, lanes(case["then"]))
        assert ids_of(planned, n, case["seed"], case["epoch"]) == case["ids"]
