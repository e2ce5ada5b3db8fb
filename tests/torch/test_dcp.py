"""Through torch.distributed.checkpoint, which takes objects apart and loads only what a fresh one has a place for."""

import json

import pytest
import torch.distributed.checkpoint as dcp
from processes import run_ranks

from globidx import CheckpointManager, ResumableDistributedSampler, errors, merge_states, orders
from globidx.core.progress.ranges import Ranges

N = 40


def worn(rank, world_size, order=None):
    """A sampler with uneven segments, a skip among them, one to come, and a quarantine, in mid-epoch."""
    ranks = [
        ResumableDistributedSampler(range(N), world_size, r, seed=3, order=order)
        for r in range(world_size)
    ]
    for number, sampler in enumerate(ranks):
        sampler.commit(2 + number)
    record = merge_states([sampler.state_dict() for sampler in ranks])
    sampler = ResumableDistributedSampler(range(N), world_size, rank, seed=3, order=order)
    sampler.skip([7, 8, 30])
    sampler.load_state_dict(record)
    sampler.commit(2)
    sampler.skip(range(11, 14))
    sampler.quarantine([1, (5, 7)])
    return sampler


class Mean:
    """A metric whose state has other keys once it has seen something."""

    def __init__(self, **seen):
        self.seen = seen

    def state_dict(self):
        return {"seen": dict(self.seen)}

    def load_state_dict(self, state):
        self.seen = dict(state["seen"])


def fresh(world_size=1, rank=0, order=None):
    return ResumableDistributedSampler(range(N), world_size, rank, seed=3, order=order)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("order", [None, orders.ChunkShuffle(window=2, chunk=4)])
def test_a_sampler_resumes_from_dcp(tmp_path, order):
    """Whatever it leaves out, will leave out or has in quarantine: as from the state itself."""
    sampler = worn(0, 1, order)
    expected = fresh(order=order)
    expected.load_state_dict(sampler.state_dict())
    dcp.save({"sampler": sampler}, checkpoint_id=tmp_path)
    resumed = fresh(order=order)
    dcp.load({"sampler": resumed}, checkpoint_id=tmp_path)
    assert resumed.state_dict() == expected.state_dict()
    assert list(resumed) == list(expected)
    assert resumed.quarantined == Ranges.of([1, 5, 6])
    assert resumed.skipped == Ranges.of([7, 8, 11, 12, 13, 30])


def test_a_state_has_the_same_keys_and_no_objects_in_lists_whatever_it_says():
    """At any depth: what DCP takes apart must come together again."""

    def leaves(value, path=()):
        if isinstance(value, dict):
            return {leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key))}
        assert "{" not in json.dumps(value)
        return {path}

    assert leaves(worn(0, 1).state_dict()) == leaves(fresh().state_dict())
    merged = merge_states([worn(rank, 2).state_dict() for rank in range(2)])
    assert any("skip" in layer for layer in merged["segments"])
    assert leaves(merged) == leaves(fresh().state_dict())


EXTRAS = {"loss": 0.5, "deep": {"a": [{"b": 1}], "none": None}}


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_manager_with_extras_resumes_from_dcp(tmp_path):
    """Extras, and the states of objects that a fresh one has no keys for; into the same keys as without."""
    sampler = worn(0, 1)
    manager = CheckpointManager(tmp_path / "run", {"sampler": sampler, "mean": Mean(loss=3)})
    manager.save(5, extras=EXTRAS)
    dcp.save({"manager": manager}, checkpoint_id=tmp_path / "dcp")
    resumed, mean = fresh(), Mean()
    other = CheckpointManager(tmp_path / "other", {"sampler": resumed, "mean": mean})
    dcp.load({"manager": other}, checkpoint_id=tmp_path / "dcp")
    assert other.state_dict() == manager.state_dict()
    assert other.state_dict()["extras"] == EXTRAS
    assert (mean.seen, resumed.quarantined) == ({"loss": 3}, sampler.quarantined)


@pytest.mark.parametrize(
    "where", [("step",), ("states", "sampler", "epoch"), ("extras", "loss"), ("text",), ("more",)]
)
def test_what_a_checkpoint_carries_is_refused_where_it_was_changed(tmp_path, where):
    """In the string or beside it."""
    manager = CheckpointManager(tmp_path, fresh())
    manager.save(5, extras=EXTRAS)
    state = place = manager.state_dict()
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = place["text"].replace('"step": 5', '"step": 6') if where == ("text",) else 7
    with pytest.raises(errors.RecordCorruptError, match="the given state"):
        manager.load_state_dict(state)


def through_dcp(rank, world_size, folder):
    """Save on all ranks, load on all ranks, from the sampler and from the manager."""
    sampler = worn(rank, world_size)
    manager = CheckpointManager(folder / "run", sampler, timeout=60)
    manager.save(1, extras=EXTRAS)
    dcp.save({"sampler": sampler, "manager": manager}, checkpoint_id=folder / "dcp")
    alone, led = fresh(world_size, rank), fresh(world_size, rank)
    other = CheckpointManager(folder / "other", led, timeout=60)
    dcp.load({"sampler": alone, "manager": other}, checkpoint_id=folder / "dcp")
    expected = fresh(world_size, rank)
    expected.load_state_dict(manager.state_dict()["states"]["sampler"])
    same = other.state_dict()["extras"] == EXTRAS and list(led) == list(expected) == list(alone)
    return same, list(led), led.quarantined.pairs


@pytest.mark.slow
def test_two_ranks_resume_from_dcp(tmp_path):
    """Each its own share, and together what was left."""
    (one, some, listed), (two, others, also) = run_ranks(2, through_dcp, tmp_path)
    assert one and two
    assert listed == also == ((1, 2), (5, 7))
    assert len({*some, *others}) == len(some) + len(others)
