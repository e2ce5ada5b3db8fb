"""``globidx record plan`` says what samplers would do."""

from __future__ import annotations

import json

import pytest
from runs import said, saved, uneven
from sealed_record import sealed

from globidx import ResumableDistributedSampler
from globidx.core.orders.plain import Shuffle
from globidx.core.progress.ranges import Ranges
from globidx.core.records import record


@pytest.mark.parametrize("skip", [[], [range(0, 40, 1)]])
@pytest.mark.parametrize("tail", ["pad", "drop", "exact"])
def test_a_plan_is_what_samplers_do(tmp_path, capsys, tail, skip):
    """For each rank of another world size: as many samples and batches, from and to the same positions, and as much
    padding, as a sampler there yields after loading the record.
    """
    state = uneven(n=1003, counts=(40, 38, 41, 40), skip=skip)
    path = tmp_path / "record.json"
    path.write_bytes(
        record.encode(
            record.build(number=0, token="0" * 12, step=4, time="", states={"s": state}, extras={})
        )
    )
    options = ["--world-size", "6", "--batch-size", "32", "--tail", tail]
    told = json.loads(said(capsys, "plan", path, *options, "--json"))
    order = Shuffle().bind(1003, seed=0, epoch=0)
    assert len(told["shares"]) == 6 and told["sampler"] == "s"
    for share in told["shares"]:
        sampler = ResumableDistributedSampler(range(1003), 6, share["rank"], tail=tail)
        sampler.load_state_dict(state)
        ids = list(sampler)
        batches = [ids[start : start + 32] for start in range(0, len(ids), 32)]
        real = ids[: len(ids) - share["padding"]]
        assert (share["samples"], share["batches"], share["last_batch"]) == (
            len(ids),
            len(batches),
            len(batches[-1]),
        )
        assert (share["first_position"], share["last_position"]) == (
            order.position(real[0]),
            order.position(real[-1]),
        )
        assert told["remaining"] == sampler.remaining
    assert sum(share["samples"] - share["padding"] for share in told["shares"]) in (
        told["remaining"],
        told["remaining"] - told["tails"]["drop"]["left_over"],
    )
    table = said(capsys, "plan", path, *options).splitlines()
    assert table[0] == f"record 00000000-{'0' * 12}, s: epoch 0, {told['remaining']} remaining"
    assert f"{tail}*" in "".join(table) and len(table) == 2 + 6 + 7


@pytest.mark.parametrize("told_as", ["next epoch", "nothing remains"])
def test_a_plan_of_a_finished_epoch_is_the_next_ones(tmp_path, capsys, told_as):
    """Resuming goes on there, however the record says it."""
    sampler, _ = saved(tmp_path, 10)
    if told_as == "nothing remains":
        state = sampler.state_dict() | {
            "epoch": 0,
            "segments": [[10]],
            "committed": 10,
            "remaining": 0,
        }
        sealed = record.build(
            number=9, token="0" * 12, step=1, time="", states={"s": state}, extras={}
        )
        (tmp_path / f"record-{sealed['id']}.json").write_bytes(record.encode(sealed))
    told = json.loads(
        said(
            capsys,
            "plan",
            tmp_path,
            "--world-size",
            "20",
            "--batch-size",
            "1",
            "--json",
            "--tail",
            "exact",
        )
    )
    assert (told["epoch"], told["remaining"]) == (1, 10)
    assert [share["samples"] for share in told["shares"]] == [1] * 10 + [0] * 10
    assert told["shares"][-1]["first_position"] is None


def test_a_plan_asks_which_sampler_and_refuses_what_it_cannot_compute(tmp_path, capsys):
    """Several samplers need a name; an order that needs its weights, with ids left out, needs its own run."""
    states = {"train": uneven(skip=[3]), "val": uneven(), "other": {"x": 1}}
    states["train"]["order"] = {"algorithm": "weighted", "version": 1}
    path = tmp_path / "record.json"
    path.write_bytes(
        record.encode(
            record.build(number=0, token="0" * 12, step=4, time="", states=states, extras={})
        )
    )
    options = ["--world-size", "2", "--batch-size", "4"]
    assert "['train', 'val']; pick one with --sampler" in said(
        capsys, "plan", path, *options, code=1
    )
    assert ", not 'vla'; pick" in said(capsys, "plan", path, *options, "--sampler", "vla", code=1)
    assert "which only its own run can compute" in said(
        capsys, "plan", path, *options, "--sampler", "train", code=1
    )
    assert "val: epoch 0" in said(capsys, "plan", path, *options, "--sampler", "val")


@pytest.mark.parametrize("world_size", [1, 3, 4])
def test_a_plan_in_json_holds_numbers_where_it_counts(tmp_path, capsys, world_size):
    """Also where ranks differ: fewest and most, as [833, 834], and never a phrase among integers."""
    saved(tmp_path, 3)
    told = json.loads(
        said(
            capsys, "plan", tmp_path, "--world-size", str(world_size), "--batch-size", "2", "--json"
        )
    )
    assert {type(leaf) for leaf in leaves([told["tails"], told["shares"]])} <= {int, type(None)}
    fewest, most = told["tails"]["exact"]["samples"]
    counts = [len(range(rank, told["remaining"], world_size)) for rank in range(world_size)]
    assert (fewest, most) == (min(counts), max(counts))


def leaves(value):
    """Every number, text, flag or null of a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, list) else [value]


def test_a_state_of_one_rank_whose_batches_were_regrouped_plans_nothing(tmp_path, capsys):
    """As samplers do, it refuses what says nothing of the other ranks."""
    sampler = ResumableDistributedSampler(range(40), 2, 0)
    sampler._ledger.tracker.commit(2, 0, 2, Ranges.of([1, 3]))
    sampler._ledger.expect_all_ranks()
    path = tmp_path / "record.json"
    path.write_bytes(record.encode(sealed(states={"s": sampler.state_dict()})))
    told = said(capsys, "plan", path, "--world-size", "2", "--batch-size", "4", code=1)
    assert "one rank of 2" in told
