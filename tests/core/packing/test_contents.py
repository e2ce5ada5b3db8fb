"""Packs: each token once, a function of what they are made of, and as full as promised."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.core.packing.contents import METHODS, pack

#: The packs of ``test_packs_are_what_they_were``, and their digests.
GOLDEN = {
    "first_fit_decreasing": [[2, 3], [10, 8], [0, 1], [11, 7, 4], [6, 5]],
    "next_fit": [[3, 10, 4], [0], [7, 8], [11, 1], [2], [6, 5]],
    "concat_and_split": [[3, 10, 4], [0, 7], [7, 8, 11, 1], [1, 2], [6, 5]],
}
DIGESTS = ("194baa0b07b7975eff037c92199535f1", "dbcb7dd5bd0c42777a35a5e795c5c44e")


def log_normal(count=30_000, budget=2048, seed=0):
    """Lengths as corpora of text have them."""
    drawn = np.random.default_rng(seed).lognormal(5.5, 1.2, count)
    return np.clip(drawn, 1, budget).astype(np.int64)


@settings(max_examples=100)
@given(
    lengths=st.lists(st.integers(0, 20), max_size=40),
    budget=st.integers(1, 25),
    method=st.sampled_from(METHODS),
    window=st.integers(1, 50),
    epoch=st.integers(0, 3),
)
def test_each_token_is_in_one_pack(lengths, budget, method, window, epoch):
    """Whatever the method: every token of every document once, no pack over the budget, none empty."""
    packs = pack(lengths, budget, method=method, window=window, epoch=epoch, too_long="split")
    found = sorted(
        (document, token)
        for one in packs
        for document, start, stop in zip(*(column.tolist() for column in one), strict=True)
        for token in range(start, stop)
    )
    assert found == [(id, token) for id, length in enumerate(lengths) for token in range(length)]
    assert all(0 < one.tokens <= budget for one in packs)
    assert packs.tokens == sum(lengths) == sum(one.tokens for one in packs)
    assert packs.most_documents == max((len(one.documents) for one in packs), default=0)


@settings(max_examples=50)
@given(
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=40),
    window=st.integers(1, 50),
    method=st.sampled_from(["first_fit_decreasing", "concat_and_split"]),
)
def test_every_epoch_has_as_many_packs_where_it_may_be_packed_anew(lengths, window, method):
    """So that a sampler over packs has the same length in every epoch."""
    packs = pack(lengths, 20, method=method, window=window)
    assert packs.plan.refusal is None
    assert {len(packs.for_epoch(epoch)) for epoch in range(5)} == {len(packs)}


def test_first_fit_decreasing_packs_documents_of_a_window():
    """Which are of successive ids, so that they lie close to one another."""
    packs = pack(log_normal(1000), 2048, window=100)
    windows = {frozenset((one.documents // 100).tolist()) for one in packs}
    assert windows == {frozenset([number]) for number in range(10)}


def naive_packs(lengths, budget):
    """How many packs a loop of first-fit-decreasing fills."""
    room = []
    for length in sorted(lengths, reverse=True):
        fits = next((number for number, left in enumerate(room) if left >= length), len(room))
        room += [budget] * (fits == len(room))
        room[fits] -= length
    return len(room)


@pytest.mark.parametrize("budget", [64, 2048, 100_000])
def test_there_are_as_many_packs_as_a_naive_loop_fills(budget):
    """Of first-fit-decreasing, whatever the sequence of the documents and the size of the budget."""
    lengths = log_normal(1000, budget, seed=1) + np.random.default_rng(2).integers(
        0, budget // 4, 1000
    )
    lengths = np.minimum(lengths, budget)
    found = {len(pack(lengths, budget, seed=seed)) for seed in range(3)}
    assert found == {naive_packs(lengths.tolist(), budget)}


@pytest.mark.parametrize("window", [2**10, 2**20])
def test_first_fit_decreasing_fills_packs_of_log_normal_lengths(window):
    """To more than 0.98, which next-fit does not."""
    lengths = log_normal()
    packs = pack(lengths, 2048, window=window)
    assert packs.efficiency == lengths.sum() / (len(packs) * 2048) > 0.98
    assert pack(lengths, 2048, method="next_fit").efficiency < 0.98


def test_packs_are_those_of_their_epoch_seed_and_nothing_else():
    """The same arguments make the same packs; another epoch or seed makes others; without a shuffle none does."""
    lengths = log_normal(500)
    for method in METHODS:
        packs = pack(lengths, 2048, method=method, seed=3)
        assert (
            packs.for_epoch(2).for_epoch(0) == packs == pack(lengths, 2048, method=method, seed=3)
        )
        assert packs.for_epoch(2) == pack(lengths, 2048, method=method, seed=3, epoch=2)
        assert hash(packs.for_epoch(0)) == hash(packs) and packs.for_epoch(0) is packs
        others = [packs.for_epoch(1), pack(lengths, 2048, method=method, seed=4)]
        for other in others:
            assert [one.documents.tolist() for one in other] != [
                one.documents.tolist() for one in packs
            ]
            assert other != packs
        still = pack(lengths, 2048, method=method, shuffle=False)
        for one, other in zip(still, still.for_epoch(1), strict=True):
            assert one.documents.tolist() == other.documents.tolist()


def test_the_digest_of_epochs_is_that_of_lengths_and_plan():
    """Not of the epoch; of all else."""
    lengths = log_normal(300)
    packs = pack(lengths, 2048)
    assert packs.for_epoch(4).digest_of_epochs == packs.digest_of_epochs
    others = [
        pack(lengths[::-1], 2048),
        pack(lengths, 2049),
        pack(lengths, 2048, seed=1),
        pack(lengths, 2048, window=64),
        pack(lengths, 2048, method="concat_and_split"),
        pack(lengths, 2048, shuffle=False),
        pack(lengths, 2048, too_long="drop"),
    ]
    for name in ("digest", "digest_of_epochs"):
        assert len({getattr(one, name) for one in [packs, *others]}) == len(others) + 1


def test_packs_are_what_they_were():
    """Records keep their digest: another version, platform or numpy must make the same packs."""
    lengths = [7, 3, 9, 1, 1, 4, 4, 4, 2, 0, 8, 5]
    made = {
        method: [
            one.documents.tolist() for one in pack(lengths, 10, method=method, seed=7, epoch=1)
        ]
        for method in METHODS
    }
    assert made == GOLDEN
    packs = pack(lengths, 10, seed=7, epoch=1)
    assert (packs.digest, packs.digest_of_epochs) == DIGESTS


def test_packs_do_not_change():
    """Nor when the array of lengths does that they were made of; and a pickle is equal."""
    lengths = np.array([3, 4, 5])
    packs = pack(lengths, 8)
    lengths[:] = 0
    assert packs.lengths.tolist() == [3, 4, 5]
    for array in (packs.lengths, packs[0].documents, packs[0].starts, packs.dropped):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0
    assert pickle.loads(pickle.dumps(packs)) == packs
    assert "2 of 8 tokens" in repr(packs) and packs.budget == 8 and packs.epoch == 0


def test_memory_is_that_of_documents_as_told():
    """12 bytes a piece, 8 a pack and 4 a length."""
    packs = pack(log_normal(1000), 2048)
    held = [packs.lengths, packs._offsets, *packs._pieces]
    assert sum(array.nbytes for array in held) == 12 * 1000 + 8 * (len(packs) + 1) + 4 * 1000


def test_long_documents_that_are_dropped_are_listed():
    """And are in no pack."""
    packs = pack([3, 9, 2, 12], 8, too_long="drop")
    assert packs.dropped.tolist() == [1, 3]
    assert sorted(packs[0].documents.tolist()) == [0, 2] and len(packs) == 1


def test_lengths_above_int32_are_exact():
    """A document may be longer than any pack."""
    packs = pack([2**33, 1], 2**31 - 1, too_long="split", shuffle=False)
    assert packs.tokens == 2**33 + 1
    assert packs[0].documents.dtype == np.int64


def test_nothing_makes_no_packs():
    """Neither no documents nor empty ones."""
    for method in METHODS:
        for lengths in ([], [0, 0]):
            packs = pack(lengths, 8, method=method)
            assert len(packs) == 0 and packs.efficiency == 1.0 and packs.most_documents == 0
            with pytest.raises(IndexError, match="outside"):
                packs[0]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"budget": 0}, "budget must be in"),
        ({"budget": 2**31}, "budget must be in"),
        ({"budget": 8.0}, "budget must be an integer"),
        ({"method": "best_fit"}, "method must be one of first_fit_decreasing, next_fit"),
        ({"too_long": "truncate"}, "too_long must be one of error, split, drop"),
        ({"window": 0}, "window must be in"),
        ({"seed": -1}, "seed must be in"),
        ({"shuffle": 1}, "shuffle must be True or False"),
        ({"lengths": [3, -1]}, "document 1 has -1 tokens"),
        ({"lengths": [3.5]}, "length must be an integer"),
        ({"lengths": [[3]]}, "length must be an integer"),
    ],
)
def test_bad_arguments_are_named(arguments, told):
    """What, which value, which rule."""
    with pytest.raises((TypeError, ValueError), match=told):
        pack(**{"lengths": [3, 4], "budget": 8} | arguments)
