"""Saving when ranks are lost, stopped, late or do something else: everybody returns or raises in time, and is told who it was."""

import os
import signal
import socket
import time

import pytest
from processes import run_ranks

from globidx import CheckpointManager, ResumableDistributedSampler, errors
from globidx.disk.records.folder import list_records
from globidx.disk.records.lineage import Lineage
from globidx.torch.ranks.channel import Channel

TIMEOUT = 8.0


def leave(how):
    """This process dies, or is stopped for good."""
    os.kill(os.getpid(), how)


class LeavingState:
    """A Stateful at which the process goes."""

    def __init__(self, how):
        self.how = how

    def state_dict(self):
        if self.how:
            leave(self.how)
        return {"x": 1}

    def load_state_dict(self, state):
        pass


def plant(instant, how):
    """Let this rank go at an instant of its next save."""
    if instant == "between status and data":
        Channel.gather = lambda *_: leave(how)
    elif instant == "before the write":
        Lineage.write = lambda *_, **__: leave(how)
    elif instant == "after the write":
        write = Lineage.write
        Lineage.write = lambda *a, **k: [write(*a, **k), leave(how)]
    elif instant.startswith("before the outcome"):
        Channel.broadcast = lambda *_: leave(how)


def lose(rank, world_size, folder, instant, lost, how, timeout):
    """Save once, in which a rank is lost; what the others are told, and whether they waited longer than they may."""
    sampler, leaving = ResumableDistributedSampler(range(50)), LeavingState(None)
    manager = CheckpointManager(folder, {"sampler": sampler, "other": leaving}, timeout=timeout)
    manager.restore()
    manager.save(1)
    sampler.commit(2)
    if instant == "before the outcome of a slow write" and rank == 0:
        write = Lineage.write
        Lineage.write = lambda *a, **k: [time.sleep(0.6 * timeout), write(*a, **k)]
    if rank == lost:
        if instant == "before the gather":
            leave(how)
        if instant == "in its own part":
            leaving.how = how
        plant(instant, how)
    started = time.monotonic()
    try:
        manager.save(2)
    except errors.LostRankError as error:
        return error.ranks, error.state, str(error), time.monotonic() - started < timeout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "instant", "lost", "newest"),
    [
        (4, "before the gather", 2, 1),  # which rank 0 does not talk to
        (2, "in its own part", 1, 1),
        (3, "between status and data", 2, 1),
        (3, "before the outcome", 2, 2),
        (2, "between status and data", 0, 1),
        (3, "before the write", 0, 1),
        (2, "after the write", 0, 2),
    ],
)
def test_a_killed_rank_is_named_and_the_record_is_the_old_or_the_new_one(
    tmp_path, ranks, instant, lost, newest
):
    """Also to ranks that do not talk to the dead one directly, long before the timeout; and the words for the record are true."""
    arguments = tmp_path, instant, lost, signal.SIGKILL, 100.0
    for missing, state, said, _ in run_ranks(ranks, lose, *arguments, lost=[lost], timeout=60):
        assert missing == (lost,), said
        assert f"missing: rank {lost}" in said
        assert state in said or state == "not written"
        assert (newest == 1) or state == "written, durability unknown"
    assert [int(path.name.split("-")[1]) + 1 for path in list_records(tmp_path)][-1] == newest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("instant", "lost"),
    [("before the gather", 1), ("before the write", 0), ("before the outcome of a slow write", 1)],
)
def test_a_stopped_rank_is_named_when_the_time_is_up(tmp_path, instant, lost):
    """SIGSTOP: nobody waits longer than the timeout, the roll call and what went well before included."""
    arguments = tmp_path, instant, lost, signal.SIGSTOP, TIMEOUT
    for missing, _, said, in_time in run_ranks(3, lose, *arguments, lost=[lost], timeout=60):
        assert missing == (lost,), said
        assert f"within {TIMEOUT:g} seconds" in said
        assert in_time


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_rank_0_is_named_though_the_store_is_gone_with_it(tmp_path, how):
    """Without torchrun rank 0 hosts the store by which a roll call is held."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        url = f"tcp://localhost:{probe.getsockname()[1]}"
    arguments = tmp_path, "before the gather", 0, how, TIMEOUT
    for missing, state, said, in_time in run_ranks(
        3, lose, *arguments, lost=[0], timeout=60, meeting=url
    ):
        assert (missing, state) == ((0,), "not written"), said
        assert in_time
