"""A rank that has missed a save, or came too late for it: the next one works, and the job's own groups are untouched."""

import subprocess
import time

import pytest
import torch
import torch.distributed as dist
from files import environment
from processes import run_ranks, torchrun

from globidx import CheckpointManager, PreemptionGuard, ResumableDistributedSampler, errors
from globidx.disk.records.folder import list_records
from globidx.disk.records.lineage import Lineage

TIMEOUT = 6.0


def attempt(call, *arguments):
    """What came of it, in a word, and whether it took longer than it may."""
    started = time.monotonic()
    try:
        found = call(*arguments)
    except errors.GlobidxError as error:
        found = type(error).__name__
    return found, time.monotonic() - started < TIMEOUT


def train(rank, world_size, folder, how, who):
    """Three steps with a collective each, a save in each, one of which rank ``who`` leaves out or is late for."""
    sampler = ResumableDistributedSampler(range(10**6))
    manager = CheckpointManager(folder, sampler, timeout=TIMEOUT, keep_last=9)
    told = [attempt(manager.restore), attempt(manager.save, 0)]
    before = Lineage.write
    for step in (1, 2, 3):
        dist.all_reduce(torch.ones(1))
        sampler.commit(1)
        if (step, rank) == (1, who):
            if how == "leaves it out":
                told.append(("left out", True))
                continue
            if how == "comes late":
                time.sleep(TIMEOUT + 1)
            if how == "writes for long":
                Lineage.write = lambda *a, **k: [time.sleep(TIMEOUT + 1), before(*a, **k)]
        told.append(attempt(manager.save, step))
        Lineage.write = before
    mine = dist.new_group([0, 1])  # which torch names by how many this process has made
    dist.all_reduce(found := torch.ones(1), group=mine if rank < 2 else None)
    again = CheckpointManager(folder / "again", sampler, timeout=TIMEOUT)
    return told, attempt(again.save, 9)[0], int(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "who"),
    [("leaves it out", 0), ("leaves it out", 1), ("comes late", 1), ("writes for long", 0)],
)
def test_the_save_after_one_that_a_rank_has_missed_works(tmp_path, how, who):
    """On every rank, with the same id; nobody waits longer than the timeout, or is told that all is well when it is not."""
    found = run_ranks(2, train, tmp_path, how, who)
    told, again, reduced = zip(*found, strict=True)
    first, missed, second, third = zip(*(steps[1:] for steps in told), strict=True)
    for ids in (first, second, third):
        assert ids[0][0] == ids[1][0], told
        assert ids[0][0] in {path.name[7:-5] for path in list_records(tmp_path)}
    for rank, (outcome, in_time) in enumerate(missed):
        assert outcome == ("left out" if (how, rank) == ("leaves it out", who) else "LostRankError")
        assert in_time or (how, rank) == ("writes for long", who)
    assert all(in_time for _, in_time in second + third)
    assert again[0] == again[1]
    assert reduced == (2, 2)


def stopping(rank, world_size):
    """Rank 1 does not ask at one step whether to stop."""
    with PreemptionGuard(timeout=TIMEOUT) as guard:
        told = []
        for step in range(5):
            dist.all_reduce(torch.ones(1))
            if (step, rank) != (1, 1):
                told.append(attempt(guard.should_stop)[0])
        return told


@pytest.mark.slow
def test_a_guard_that_was_not_asked_once_is_back_in_step(tmp_path):
    """At the latest at the call after the next one."""
    one, other = run_ranks(2, stopping)
    assert one[-2:] == other[-2:] == [False, False]
    assert "LostRankError" in one


def unequal(rank, world_size, folder):
    """Rank 1 never makes the second manager; then all make a third."""
    sampler = ResumableDistributedSampler(range(100))
    told = [attempt(CheckpointManager(folder, sampler, timeout=TIMEOUT).save, 0)[0]]
    dist.all_reduce(torch.ones(1))
    if rank == 0:
        told.append(attempt(CheckpointManager(folder, sampler, timeout=TIMEOUT).save, 1)[0])
    dist.all_reduce(torch.ones(1))
    told.append(attempt(CheckpointManager(folder, sampler, timeout=TIMEOUT).save, 2)[0])
    return told


@pytest.mark.slow
def test_managers_are_not_counted(tmp_path):
    """One that a rank has not made does not keep it from meeting the others in the next."""
    one, other = run_ranks(2, unequal, tmp_path)
    assert one[1] == "LostRankError"
    assert (one[0], one[2]) == (other[0], other[1])


def again_and_again(rank, world_size, folder):
    """Every save has the same step; rank 1 leaves the second one out."""
    manager = CheckpointManager(folder, ResumableDistributedSampler(range(100)), timeout=TIMEOUT)
    told = []
    for turn in range(4):
        dist.all_reduce(torch.ones(1))
        told.append(attempt(manager.save, 7)[0] if (turn, rank) != (1, 1) else "left out")
    return told


@pytest.mark.slow
def test_steps_that_do_not_differ_cost_one_more_save_at_most(tmp_path):
    """The rank that was missing takes the next save for the one that it has missed; after that all is well."""
    one, other = run_ranks(2, again_and_again, tmp_path)
    assert (one[0], one[3]) == (other[0], other[3])
    assert one[1:3] == ["LostRankError"] * 2
    assert "Error" not in one[3]


SCRIPT = """
import sys
import torch, torch.distributed as dist
from globidx import CheckpointManager, ResumableDistributedSampler, errors
dist.init_process_group("gloo")
sampler = ResumableDistributedSampler(range(100))
manager = CheckpointManager(sys.argv[1], sampler, timeout=5)
for step in range(3):
    dist.all_reduce(torch.ones(1))
    sampler.commit(1)
    try:
        if (step, dist.get_rank()) == (1, 1):
            raise OSError("a step that failed, and that the loop goes on from")
        id = manager.save(step)
    except (OSError, errors.LostRankError) as error:
        id = type(error).__name__
    print(f"rank {dist.get_rank()} step {step} {id}\\n", end="", flush=True)  # the line at once: torchrun runs python -u
dist.all_reduce(torch.ones(1), group=dist.new_group())
dist.monitored_barrier()  # as the examples end
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_a_job_of_torchrun_goes_on_after_a_missed_save(tmp_path):
    """A rank that caught an error left the save out; the job saves again at the next step, and ends well."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        torchrun(2, script, tmp_path / "run"),
        capture_output=True,
        text=True,
        timeout=100,
        env=environment({"OMP_NUM_THREADS": "1"}),
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = {
        tuple(line.split()[1:4:2]): line.split()[4]
        for line in done.stdout.splitlines()
        if line.startswith("rank")
    }
    assert (told["0", "1"], told["1", "1"]) == ("LostRankError", "OSError")
    for step in ("0", "2"):
        assert told["0", step] == told["1", step]
        assert (tmp_path / "run" / f"record-{told['0', step]}.json").exists()
