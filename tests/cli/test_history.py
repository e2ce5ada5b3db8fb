"""``globidx record show``: progress and history for people."""

from __future__ import annotations

import json
import re

from runs import said, saved, uneven

from globidx import CheckpointManager, ResumableDistributedSampler, read_record
from globidx.core.progress.ranges import Ranges


def test_the_newest_record_is_shown(tmp_path, capsys):
    """A run's progress, of a file or the newest in a folder, also as JSON; a damaged one is refused."""
    _, (_, id) = saved(tmp_path, 4, 2, seed=7)
    told = said(capsys, "show", tmp_path)
    assert (
        f"record   {id}\nstep     2\n" in told
        and "6 of 10, 4 remaining" in told
        and "seed 7" in told
    )
    assert "  remaining  positions [6, 10)\n" in told and 'extras: {"loss": 0.5}' in told
    path = tmp_path / f"record-{id}.json"
    assert json.loads(said(capsys, "show", path, "--json")) == read_record(path)
    path.write_bytes(path.read_bytes().replace(b'"step": 2', b'"step": 3'))
    assert "edited or damaged" in said(capsys, "show", path, code=1)
    # In a folder there may be older records, so the message says what lists them.
    assert f"`globidx record check {tmp_path}`" in said(capsys, "show", tmp_path, code=1)


def test_a_history_is_shown_as_a_table(tmp_path, capsys):
    """A row for each segment and for ids left out; the ranges of positions that remain; ids to skip from now on."""
    sampler = ResumableDistributedSampler(range(100), 1, 0)
    sampler.load_state_dict(uneven(skip=[7, range(20, 30)]))
    sampler.quarantine(3)
    CheckpointManager(tmp_path, sampler).save(4)
    told = said(capsys, "show", tmp_path)
    assert "  replaced   ids 3 (could not be read)" in told
    left_out = sampler.state_dict()["skipped"]
    assert f"sampler: epoch 0  [###...........................]  12 of {100 - left_out}" in told
    assert f"{88 - left_out} remaining, {left_out} left out" in told
    table = [line.split() for line in told.splitlines() if re.match(r"  +(segment|\d)", line)]
    assert table[:3] == [
        ["segment", "ranks", "committed", "remaining"],
        ["1", "any", "6", "94", "the", "first", "6"],
        ["2", "3", "6", "88", "by", "rank", "3", "0", "3"],
    ]
    assert table[3][:3] == [str(88 - left_out), str(left_out), "left"]
    assert "  skip       ids 7, [20, 30) (from the next segment on)" in told


def test_regrouped_ids_are_a_row_of_their_own(tmp_path, capsys):
    """Which of the remaining positions were had besides the first."""
    sampler = ResumableDistributedSampler(range(40), 1, 0, shuffle=False)
    sampler._ledger.tracker.commit(5, 0, 1, Ranges.of([0, 2, range(5, 8)]))
    CheckpointManager(tmp_path, sampler).save(4)
    table = [line.split() for line in said(capsys, "show", tmp_path).splitlines()]
    assert ["1", "any", "1", "39", "the", "first", "1"] in table
    assert ["2", "any", "4", "35", "of", "the", "remaining:", "1,", "[4,", "7)"] in table
    assert ["remaining", "positions", "1,", "[3,", "5),", "[8,", "40)"] in table
