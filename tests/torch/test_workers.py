"""Loader workers and signals: real signals to whole process groups."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from files import environment

import globidx
from globidx import PreemptionGuard, ResumableDistributedSampler

SCRIPT = """
import os, signal, sys, threading, torch, globidx
from globidx import PreemptionGuard, ResumableDistributedSampler

class Data(torch.utils.data.Dataset):
    def __init__(self, stuck_at):
        self.stuck_at = stuck_at
    def __len__(self):
        return 400
    def __getitem__(self, id):
        if id == self.stuck_at:
            threading.Event().wait()
        return id

def own(worker):
    print("own", worker, flush=True)

def main(method, how):
    data = Data(399 if how == "stuck" else None)
    sampler = ResumableDistributedSampler(data, 1, 0, shuffle=False)
    loader = globidx.DataLoader(data, 4, sampler=sampler, num_workers=2, persistent_workers=True,
                                prefetch_factor=50, multiprocessing_context=method, worker_init_fn=own)
    with PreemptionGuard((signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)) as guard:
        batches = iter(loader)
        assert loader.worker_init_fn is own
        if how == "early":                              # the workers are still starting
            print("go", flush=True)
        for step, batch in enumerate(batches):
            if step == 3 and how != "early":
                print("go", flush=True)
            if step == 3 and how == "killed":
                threading.Event().wait()
            if step == 3 and how in ("left", "stuck"):
                globals()["kept"] = batches             # never closed: the workers wait when the interpreter exits
                return
            while step == 3 and not guard.received:
                signal.sigtimedwait([], 0.01)
    print("steps", step + 1, guard.received.name, guard.should_stop(), sampler.epoch, flush=True)

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


@pytest.fixture
def loop(tmp_path):
    """Starts a loop with two workers in a group of its own; returns it when it says that it is where it should be."""
    script = tmp_path / "loop.py"
    script.write_text(SCRIPT)
    started = []

    def start(method, how):
        process = subprocess.Popen(
            [sys.executable, script, method, how],
            env=environment({"PYTHONUNBUFFERED": "", "OMP_NUM_THREADS": "1"}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        started.append(process)
        said = []
        while not said or said[-1] not in ("", "go\n"):
            said.append(process.stdout.readline())
        assert said[-1] == "go\n", "".join(said)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["early", "late"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_signal_to_the_whole_group_ends_no_worker(loop, method, number, how):
    """While workers start, or in mid-epoch: all batches still come, and the guard has heard it."""
    process = loop(method, how)
    os.killpg(process.pid, number)
    said = process.communicate(timeout=100)[0]
    assert process.returncode == 0, said
    assert f"steps 100 {number.name} True 1" in said.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_end_with_a_main_process_that_was_killed(loop, method):
    """They hold its output, which ends when the last of them has."""
    process = loop(method, "killed")
    os.killpg(process.pid, signal.SIGTERM)
    process.kill()
    process.communicate(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["left", "stuck"])
def test_the_main_process_can_still_end_its_workers(loop, how):
    """At its exit, whether they wait for it or hang in a read."""
    process = loop("fork", how)
    process.communicate(timeout=60)
    assert process.returncode == 0


class Masks(torch.utils.data.Dataset):
    """Says which signals the reading process blocks or ignores."""

    def __len__(self):
        return 2

    def __getitem__(self, id):
        ignored = [n.value for n in signal.Signals if signal.getsignal(n) is signal.SIG_IGN]
        return sorted(n.value for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])), ignored


def what_workers_do(persistent=False):
    data = Masks()
    sampler = ResumableDistributedSampler(data, 1, 0)
    loader = globidx.DataLoader(
        data,
        batch_size=None,
        sampler=sampler,
        num_workers=1,
        persistent_workers=persistent,
        worker_init_fn=None,
    )
    return next(iter(loader)), loader


def test_without_a_guard_workers_are_torch_s():
    """Nothing is blocked or ignored that is not in torch's own; a guard that has closed counts no more."""
    with PreemptionGuard():
        pass
    torchs = next(iter(torch.utils.data.DataLoader(Masks(), batch_size=None, num_workers=1)))
    assert what_workers_do()[0] == torchs


def test_only_what_is_guarded_is_ignored_and_the_main_process_hears_all_again():
    """SIGTERM waits for the main process, the rest is ignored; outside of the worker's start nothing is blocked."""
    with PreemptionGuard([signal.SIGTERM, signal.SIGUSR2]):
        blocked, ignored = what_workers_do()[0]
        assert blocked == [signal.SIGTERM]
        assert signal.SIGUSR2 in ignored
        assert signal.SIGUSR1 not in ignored
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_a_guard_that_is_younger_than_the_workers_says_so():
    """They were started unprotected, and live on between epochs; one that guards the same signals says nothing."""
    _, loader = what_workers_do(persistent=True)
    with pytest.warns(UserWarning, match="1 loader workers are older than this PreemptionGuard"):
        guard = PreemptionGuard()
    guard.close()
    del loader
    with PreemptionGuard() as guard:
        _, _kept = what_workers_do(persistent=True)
        with PreemptionGuard([signal.SIGUSR1]):
            assert repr(guard) == "PreemptionGuard(SIGTERM, SIGUSR1: nothing received)"
    assert repr(guard) == "PreemptionGuard(SIGTERM, SIGUSR1: closed)"
