"""A sampler's state: pinned, and refused where it contradicts itself."""

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampling import Sampler
from sealed_record import json_values, sealed

from globidx import errors, merge_states
from globidx.core.json import strict
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.state import SamplerState
from globidx.core.records import record
from globidx.orders import ChunkShuffle

GOLDEN = Path(__file__).parents[2] / "golden" / "sampler-1.json"


@given(st.data())
def test_a_hostile_state_is_loaded_or_refused_and_nothing_else(data):
    """Any value in any place of a sampler's state, sealed again: a record error, or a state that says the same again."""
    state = sealed()["states"]["train"]
    place = data.draw(
        st.sampled_from(sorted(set(state) - {"format"}))
    )  # of another format it is no sampler's
    numbers = st.integers(-3, 1010) | st.sampled_from([2**31, 2**53 + 1, 2**62, 2**63, 10**19])
    value = data.draw(json_values | numbers | st.lists(st.lists(numbers, max_size=4), max_size=4))
    lying = record.encode(record.seal(sealed() | {"states": {"train": state | {place: value}}}))
    try:
        found = record.decode(lying, "x")["states"]["train"]
    except errors.RecordError:
        return
    assert SamplerState.from_dict(found).to_dict() == found


@pytest.mark.parametrize(
    "change",
    [
        {"skip": [[5, 9], [7, 12]]},
        {"skip": [[5, 9], [1, 2]]},
        {"skip": [[9, 5]]},
        {"skip": [[5, 5]]},
        {"skip": [[1000, 2**63 + 1]]},
        {"segments": [[114], [2, 0, 900]]},
        {"segments": [[114], [-2, 0, 2]]},
        {"segments": [[1004]]},
        {"open": {"world_size": 3, "count": 400}},
        {"open": {"world_size": 0, "count": 0}},
        {"committed": 117, "remaining": 886},
        {"per_rank": 2**62 - 1},
    ],
)
def test_progress_that_overlaps_or_leaves_its_epoch_is_refused(change):
    """Ranges that overlap, descend or are empty, counts beyond what was dealt, sums that are not theirs."""
    lying = record.encode(
        record.seal(sealed() | {"states": {"train": sealed()["states"]["train"] | change}})
    )
    with pytest.raises(errors.RecordCorruptError, match="sampler state"):
        record.decode(lying, "x")


def test_a_sealed_lie_about_progress_is_refused():
    """A state whose sums are wrong, or whose segments do not fit, is refused though its checksum is right."""
    state = sealed()["states"]["train"]
    for change in (
        {"committed": 0},
        {"segments": [[2000]]},
        {"segments": [[1, -1]]},
        {"segments": [[]]},
        {"epoch": -1},
    ):
        lying = record.encode(record.seal(sealed() | {"states": {"train": state | change}}))
        with pytest.raises(errors.RecordCorruptError):
            record.decode(lying, "x")


@pytest.mark.parametrize(
    "change",
    [
        {"segments": [[0, 1]] * 20_000},
        {"segments": [list(range(20_000))]},
        {"segments": [[1] + [0] * 2**17]},
        {"skip": [[0, 2**62]]},
        {"skip": [[2 * n, 2 * n + 1] for n in range(2**16 + 1)]},
        {"segments": [["skip", 3, [[0, 2**40]]]]},
        {"open": {"world_size": 2**40, "count": 0}},
    ],
)
def test_a_hostile_state_is_refused_before_it_costs_anything(change):
    """Too many segments, ranks, counts or skipped ids: an error within a second, not hours or gigabytes."""
    state = sealed()["states"]["train"] | {
        "dataset": {"num_samples": 2**62, "num_files": None, "fingerprint": None},
        "length": 2**62,
    }
    tracemalloc.start()
    with pytest.raises(errors.RecordError):
        SamplerState.from_dict(state | change)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**27


def test_as_uneven_a_state_as_there_is_in_practice_is_read():
    """1,024 ranks, each with a count of its own: under 64 kB, and its positions are found."""
    ranks = [Sampler(range(10**7), 1024, rank) for rank in range(1024)]
    for number, rank in enumerate(ranks):
        rank.commit(number * 7 % 1024)
    state = merge_states([rank.state_dict() for rank in ranks])
    assert len(record.encode(sealed(states={"train": state}))) < 64_000
    alone = Sampler(range(10**7), 1, 0)
    alone.load_state_dict(state)
    assert len({id for id, _ in zip(alone, range(1000), strict=False)}) == 1000


def golden_state():
    """One of 3 ranks in mid-epoch, with a segment, a skip and an uneven segment behind it, and a planned order."""

    def rank_of(world_size, rank):
        order = ChunkShuffle(2, lanes=(2, 1), batch=6, chunk=8)
        return Sampler(range(100), world_size, rank, seed=7, order=order, tail="exact")

    ranks = [rank_of(2, rank) for rank in range(2)]
    for rank, count in zip(ranks, (3, 5), strict=True):
        rank.commit(count)
    sampler = rank_of(3, 0)
    sampler.tracker.skip(Ranges.of([3, range(50, 60)]))
    sampler.load_state_dict(merge_states([rank.state_dict() for rank in ranks]))
    sampler.commit(6)
    sampler.tracker.skip(Ranges.of(98))
    sampler.tracker.quarantine(Ranges.of([20, (30, 32)]))
    return sampler.state_dict()


def test_golden_bytes():
    """A state of version 1, every key of it filled, is the same bytes on every platform, and is read back whole."""
    assert strict.pretty(golden_state()) == GOLDEN.read_bytes()
    assert SamplerState.from_dict(strict.parse(GOLDEN.read_bytes())).to_dict() == golden_state()


GOLDEN_2 = GOLDEN.with_name("sampler-2.json")


def golden_state_2():
    """One of 2 ranks whose batch sampler regroups ids, after two others whose did so, too."""

    def rank_of(rank, taken):
        sampler = Sampler(range(40), 2, rank, seed=7)
        indices = Ranges.of(taken)
        sampler.tracker.commit(indices.size, rank, 2, indices)
        return sampler

    ranks = [rank_of(0, [0, 1, 4, 6]), rank_of(1, [0, 2, 3])]
    sampler = Sampler(range(40), 2, 1, seed=7)
    sampler.load_state_dict(merge_states([rank.state_dict() for rank in ranks]))
    sampler.tracker.commit(3, 1, 2, Ranges.of([0, 2, 3]))
    return sampler.state_dict()


def test_golden_bytes_of_version_2():
    """A state with regrouped ids, in its history and in its open segment, is the same bytes on every platform."""
    assert strict.pretty(golden_state_2()) == GOLDEN_2.read_bytes()
    assert SamplerState.from_dict(strict.parse(GOLDEN_2.read_bytes())).to_dict() == golden_state_2()
