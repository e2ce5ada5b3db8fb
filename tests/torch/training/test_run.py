"""The run: exactly once over kills and resumes, saves when they are due, and what belongs to an epoch's end."""

import io
import os
import signal
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import run_ranks
from torch.distributed.tensor import DTensor

import globidx
from globidx import ResumableDistributedSampler, Run, errors, policies
from globidx.disk.records.folder import list_records
from globidx.metrics import Metric


class Log:
    """Stands for a model: its state is the ids it was trained on, as ``torch.save`` writes them."""

    def __init__(self):
        self.ids = []

    def state_dict(self):
        return {"ids": torch.tensor(self.ids, dtype=torch.int64)}

    def load_state_dict(self, state):
        self.ids = state["ids"].tolist()


def steps(folder):
    """The steps of the records in a folder."""
    return [globidx.read_record(path)["step"] for path in list_records(Path(folder))]


KEEP_ALL = {"keep_last": 10**6, "progress": False}


class Kill(BaseException):
    """What a kill is to a process: nothing below it runs on."""


def leg(folder, log, length, epochs, stop, how, **options):
    """Train until step ``stop`` of this start, and be killed or preempted there; the ids of all its steps."""
    run = Run(
        range(length),
        checkpoint_dir=folder,
        epochs=epochs,
        state={"log": log},
        **options,
        **KEEP_ALL,
    )
    start = run.restore()
    try:
        for epoch in run.epochs():
            for batch in epoch:
                log.ids += batch.tolist()
                if run.step - start == stop and how == "killed":
                    raise Kill
                if run.step - start == stop:
                    os.kill(os.getpid(), signal.SIGTERM)
    except Kill:
        pass
    return run


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 40),
    epochs=st.integers(1, 3),
    every=st.none() | st.integers(1, 7),
    legs=st.lists(
        st.tuples(st.integers(1, 6), st.integers(1, 9), st.sampled_from(["killed", "preempted"])),
        max_size=4,
    ),
)
def test_however_often_it_is_stopped_the_weights_have_seen_each_sample_once_an_epoch(
    length, epochs, every, legs
):
    """With another batch size after each stop; by what the model itself remembers, and nothing that the run says."""
    with TemporaryDirectory() as folder:
        for size, stop, how in [*legs, (4, 10**6, "never")]:
            run = leg(
                folder, log := Log(), length, epochs, stop, how, batch_size=size, save_every=every
            )
        assert not run.preempted
        assert run.sampler.epoch == epochs
        for number in range(epochs):
            seen = log.ids[number * length : (number + 1) * length]
            assert sorted(seen) == list(range(length))
        assert len(log.ids) == epochs * length


def test_a_signal_stops_after_the_step_that_it_came_in_and_ends_both_loops(tmp_path):
    """Saved; a start after it goes on with the next step."""
    run = leg(tmp_path, Log(), 40, 2, 3, "preempted", batch_size=4)
    assert (run.preempted, run.step, steps(tmp_path)) == (True, 3, [3])
    run = leg(tmp_path, log := Log(), 40, 2, 10**6, "never", batch_size=4)
    assert (run.preempted, run.step, steps(tmp_path)) == (False, 20, [3, 10, 20])
    assert Counter(log.ids) == dict.fromkeys(range(40), 2)
    before = signal.getsignal(signal.SIGTERM)
    assert list(run.epochs()) == []  # all is done
    assert signal.getsignal(signal.SIGTERM) == before


def test_without_signals_those_of_before_are_left_alone(tmp_path):
    """signals=() makes no guard."""
    before = signal.getsignal(signal.SIGTERM)
    run = Run(range(4), batch_size=2, checkpoint_dir=tmp_path, epochs=1, signals=())
    for epoch in run.epochs():
        for _ in epoch:
            assert signal.getsignal(signal.SIGTERM) == before


def test_a_run_without_signals_needs_no_main_thread(tmp_path):
    """Python sets handlers in the main thread only."""
    run = Run(range(4), batch_size=2, checkpoint_dir=tmp_path, epochs=1, signals=(), progress=False)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: [len(list(epoch)) for epoch in run.epochs()]).result() == [2]


@pytest.mark.parametrize(
    ("every", "expected"),
    [(None, [5, 10, 15]), (2, [2, 4, 6, 8, 10, 12, 14, 15]), (5, [5, 10, 15]), (100, [15])],
)
def test_it_saves_at_multiples_or_at_the_end_of_epochs_and_at_the_end(tmp_path, every, expected):
    """15 steps in 3 epochs."""
    leg(tmp_path, Log(), 20, 3, 10**6, "never", batch_size=4, save_every=every)
    assert steps(tmp_path) == expected


def test_a_stop_between_two_multiples_moves_none_of_them(tmp_path):
    """Stopped at step 7 of 20, which is saved as well."""
    leg(tmp_path, Log(), 80, 1, 7, "preempted", batch_size=4, save_every=5)
    leg(tmp_path, Log(), 80, 1, 10**6, "never", batch_size=4, save_every=5)
    assert steps(tmp_path) == [5, 7, 10, 15, 20]


def test_it_saves_by_minutes_of_the_clock_that_is_given(tmp_path):
    """A step takes 20 seconds: the first one after a minute saves."""
    now = [0.0]
    run = Run(
        range(40),
        batch_size=4,
        checkpoint_dir=tmp_path,
        epochs=1,
        save_minutes=1,
        clock=lambda: now[0],
        **KEEP_ALL,
    )
    for epoch in run.epochs():
        for _ in epoch:
            now[0] += 20 if run.step < 8 else 200
    assert steps(tmp_path) == [3, 6, 8, 9, 10]


@pytest.mark.parametrize("every", [None, 5])
@pytest.mark.parametrize("killed_behind", [True, False])
def test_what_the_loop_does_behind_an_epoch_is_done_once_an_epoch(tmp_path, every, killed_behind):
    """A schedule that steps there: killed before or after it, the run that goes on ends with the same rate.

    It was also stopped in the middle of that epoch, of which the last step falls on a multiple.
    """

    def start(kill, stop=None):
        model = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        state = {"optimizer": optimizer, "schedule": schedule}
        run = Run(
            range(20),
            batch_size=4,
            checkpoint_dir=tmp_path,
            epochs=4,
            state=state,
            save_every=every,
            **KEEP_ALL,
        )
        for epoch in run.epochs():
            for _ in epoch:
                optimizer.step()
                if run.step == stop:
                    os.kill(os.getpid(), signal.SIGTERM)
            if run.preempted:
                return None
            if kill and epoch.number == 1 and not killed_behind:
                return None
            schedule.step()
            if kill and epoch.number == 1:
                return None
        return schedule.get_last_lr()

    assert start(kill=False, stop=8) is None
    assert start(kill=True) is None
    assert start(kill=False) == [0.5**4]


def test_a_signal_in_the_last_step_of_an_epoch_stops_behind_it(tmp_path):
    """What belongs to the epoch is done, and saved; in the last epoch nothing is left to stop."""
    behind = []
    for epochs in (2, 2):
        run = Run(range(8), batch_size=4, checkpoint_dir=tmp_path, epochs=epochs, **KEEP_ALL)
        for epoch in run.epochs():
            for _ in epoch:
                if run.step % 2 == 0:
                    os.kill(os.getpid(), signal.SIGUSR1)
            behind.append((epoch.number, run.preempted))
    assert behind == [(0, False), (1, False)]
    assert (steps(tmp_path), run.preempted) == ([2, 4], False)


def test_a_break_that_comes_back_ends_the_epoch_also_after_a_resume(tmp_path):
    """Two batches an epoch, whatever is left of it: the next start sees the next epoch, as the same one would."""
    numbers = []
    for _ in range(2):
        run = Run(range(40), batch_size=4, checkpoint_dir=tmp_path, epochs=3, **KEEP_ALL)
        for epoch in run.epochs():
            for at, _ in enumerate(epoch, 1):
                if at == 2:
                    break
            numbers.append((epoch.number, run.step))
            if len(numbers) == 2:
                break
    # the second epoch was left without coming back, so it is the third that has it again
    assert numbers == [(0, 2), (1, 4), (1, 4), (2, 6)]


def test_a_batch_that_a_break_left_behind_is_not_saved(tmp_path):
    """It may not have been trained on; what was saved in the loop, with the batch in hand, is."""
    run = Run(range(12), batch_size=4, checkpoint_dir=tmp_path, epochs=1, **KEEP_ALL)
    for epoch in run.epochs():
        for _ in epoch:
            if run.step == 2:
                break
        break
    run.save()
    assert run.sampler.remaining == 8
    again = Run(range(12), batch_size=4, checkpoint_dir=tmp_path, epochs=1, **KEEP_ALL)
    for epoch in again.epochs():
        for _ in epoch:
            again.save()
            assert again.sampler.remaining == 4
            break
        break


def test_an_epoch_gives_its_batches_once():
    """A second loop over it has nothing left, and does not begin the next epoch."""
    with TemporaryDirectory() as folder:
        run = Run(range(12), batch_size=4, checkpoint_dir=folder, epochs=2, **KEEP_ALL)
        counts = [(len(epoch), len(list(epoch)), len(list(epoch))) for epoch in run.epochs()]
    assert counts == [(3, 3, 0), (3, 3, 0)]


def test_weights_and_record_come_back_as_a_pair_though_a_newer_record_is_there(tmp_path):
    """Killed between the two, under a policy that keeps the newest record alone, so that the older one is gone."""
    options = {"batch_size": 4, "save_every": 1, "keep": policies.last(1), "progress": False}
    run = Run(range(20), checkpoint_dir=tmp_path, epochs=1, state={"log": Log()}, **options)
    batches = iter(next(iter(run.epochs())))
    log = run._weights["log"]
    for _ in range(3):
        log.ids += next(batches).tolist()
    run._manager.save(3)  # the record of a save that was killed before its weights
    del batches
    names = sorted(path.suffix for path in tmp_path.iterdir())
    assert names == [".json", ".pt"]
    again = Run(range(20), checkpoint_dir=tmp_path, epochs=1, state={"log": Log()}, **options)
    assert again.restore() == 2 and again.sampler.remaining == 12
    log = again._weights["log"]
    for epoch in again.epochs():
        for batch in epoch:
            log.ids += batch.tolist()
    assert sorted(log.ids) == list(range(20))


def rows(length):
    return [
        {"x": n, "metrics": [Metric("toy", "seen", 1, "sum"), Metric("toy", "x", n, "mean")]}
        for n in range(length)
    ]


def test_metrics_are_taken_out_of_batches_and_come_back(tmp_path):
    """Counted once over a preemption; a value of another kind under that name is the user's own."""
    for stop in (3, 10**6):
        run = Run(rows(20), batch_size=3, checkpoint_dir=tmp_path, epochs=2, **KEEP_ALL)
        for epoch in run.epochs():
            for batch in epoch:
                assert set(batch) == {"x"}
                if run.step == stop:
                    os.kill(os.getpid(), signal.SIGTERM)
    assert run.metrics.get_metrics() == {"toy/seen": 40, "toy/x": 9.5}

    own = [{"metrics": n} for n in range(4)]
    run = Run(own, batch_size=4, checkpoint_dir=tmp_path / "own", epochs=1, **KEEP_ALL)
    for epoch in run.epochs():
        for batch in epoch:
            assert sorted(batch["metrics"].tolist()) == [0, 1, 2, 3]


def test_objects_that_merge_go_into_records_and_extras_too(tmp_path):
    """A validation sampler, and a loss that a policy goes by."""
    validation = ResumableDistributedSampler(range(6), shuffle=False)
    validation.commit(2)
    run = Run(
        range(12),
        batch_size=4,
        checkpoint_dir=tmp_path,
        epochs=1,
        state={"validation": validation},
        save_every=1,
        keep=policies.best("loss"),
        progress=False,
    )
    for epoch in run.epochs():
        for _ in epoch:
            run.extras["loss"] = [0.5, 0.25, 0.75][run.step - 1]
    assert steps(tmp_path) == [2, 3] and not list(tmp_path.glob("*.pt"))
    fresh = ResumableDistributedSampler(range(6), shuffle=False)
    again = Run(range(12), batch_size=4, checkpoint_dir=tmp_path, epochs=2)
    again.register(validation=fresh)
    assert again.restore() == 3
    assert (fresh.remaining, again.extras) == (4, {"loss": 0.75})


def test_a_run_of_another_shape_is_refused(tmp_path):
    """Each time one sentence, and nothing is loaded or written."""
    make = partial(Run, range(12), batch_size=4, checkpoint_dir=tmp_path, epochs=1, progress=False)
    run = make(state={"log": Log()})
    run.save()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(
        errors.RecordMismatchError, match=r"holds the states of \['log'\], and this"
    ):
        make(state={"model": Log()}).restore()
    with pytest.raises(ValueError, match="holds weights, and this run has no objects to load them"):
        make().restore()
    with pytest.raises(errors.RecordMismatchError):
        other = {"state": {"log": Log()}, "seed": 8}
        make(**other).restore()
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(RuntimeError, match="'late' comes too late: the run is restored"):
        run.register(late=Log())


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"epochs": 0}, "epochs must be in"),
        ({"tail": "exact"}, "tail='exact' would give ranks different numbers of steps"),
        ({"sampler": "tail"}, "tail='exact' would give ranks different numbers of steps"),
        ({"sampler": "seed", "seed": 3}, "sampler= has a seed, a tail and an order of its own"),
        ({"save_every": 0}, "save_every must be in"),
        ({"state": {"sampler": Log()}}, "the name 'sampler' is taken"),
        ({"state": {"record": Log()}}, "the name 'record' is taken"),
        ({"state": {"model": 7}}, "'model' has no state_dict and load_state_dict, got int"),
        ({"shuffle": False}, "no shuffle=: a run is shuffled; order=globidx.orders.Sequential()"),
        ({"batch_sampler": []}, "no batch_sampler=: use globidx.DataLoader and CheckpointManager"),
    ],
)
def test_bad_arguments_are_refused_at_once(option, said):
    """Before anything is read."""
    if "sampler" in option:
        tail = "exact" if option["sampler"] == "tail" else "pad"
        option = option | {"sampler": ResumableDistributedSampler(range(12), tail=tail)}
    with pytest.raises((TypeError, ValueError)) as error:
        Run(range(12), **{"batch_size": 4, "checkpoint_dir": "never", "epochs": 1} | option)
    assert said in str(error.value)
    assert not Path("never").exists()


def test_a_state_that_cannot_be_kept_is_refused_before_the_record(tmp_path):
    """A sharded tensor: neither record nor weights are there."""

    class Part(torch.Tensor):
        full_tensor = DTensor.full_tensor

    class Sharded(Log):
        def state_dict(self):
            return {"w": torch.zeros(2).as_subclass(Part)}

    run = Run(range(4), batch_size=2, checkpoint_dir=tmp_path, epochs=1, state={"model": Sharded()})
    with pytest.raises(ValueError, match="'model' is sharded over ranks"):
        run.save()
    assert not list(tmp_path.iterdir())


def test_torchrun_without_a_process_group_is_refused(tmp_path, monkeypatch):
    """Each process would take all records for its own."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    run = Run(range(4), batch_size=2, checkpoint_dir=tmp_path, epochs=1)
    with pytest.raises(ValueError, match="deals to 2 ranks, and 1 can talk.*init_process_group"):
        run.restore()


@pytest.mark.parametrize(("progress", "is_terminal"), [(True, True), (True, False), (False, True)])
def test_it_shows_a_line_on_a_terminal_only_and_ends_it(
    tmp_path, monkeypatch, progress, is_terminal
):
    """In a file, or where it is not asked for, nothing; the last line is the last step."""
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal
    monkeypatch.setattr(sys, "stderr", stream)
    now = iter(range(10**6))
    run = Run(
        range(20),
        batch_size=4,
        checkpoint_dir=tmp_path,
        epochs=2,
        progress=progress,
        clock=lambda: float(next(now)),
    )
    for epoch in run.epochs():
        list(epoch)
    shown = stream.getvalue()
    if not (progress and is_terminal):
        assert shown == ""
        return
    assert "\repoch 1/2  [##" in shown and "step 1/10" in shown
    assert "step 10/10" in shown.split("\r")[-1] and shown.endswith("\n")
    assert "ETA 0:00:00" in shown


def preempt_rank_1(rank, ranks, folder):
    """Rank 1 alone gets the signal, in its third step."""
    run = Run(range(40), batch_size=2, checkpoint_dir=folder, epochs=1, state={"log": Log()})
    for epoch in run.epochs():
        for _ in epoch:
            if rank == 1 and run.step == 3:
                os.kill(os.getpid(), signal.SIGTERM)
    return run.step, run.preempted


def save_by_different_clocks(rank, ranks, folder):
    """The clock of rank 1 is a minute later in the fourth step, that of rank 0 never."""
    now = [0.0]
    run = Run(
        range(20),
        batch_size=2,
        checkpoint_dir=folder,
        epochs=1,
        save_minutes=1,
        clock=lambda: now[0],
        **KEEP_ALL,
    )
    for epoch in run.epochs():
        for _ in epoch:
            now[0] += 15 * rank
    return steps(folder)


def fail_on_rank_0(rank, ranks, folder):
    """What rank 0 cannot write: a folder stands where the file of weights would go."""

    class Odd(Log):
        def state_dict(self):
            return {"odd": Odd}

    run = Run(range(20), batch_size=2, checkpoint_dir=folder, epochs=1, state={"odd": Odd()})
    try:
        run.save()
    except TypeError as error:
        return str(error)[:39]


def do_each(rank, ranks, folder, *works):
    return [work(rank, ranks, folder / work.__name__) for work in works]


def test_ranks_do_everything_together(tmp_path):
    """A signal to one, a clock that one has, an error that one has: all stop, save, or raise at the same step."""
    works = (preempt_rank_1, save_by_different_clocks, fail_on_rank_0)
    said = "a state holds an object that torch.save"
    assert run_ranks(2, do_each, tmp_path, *works) == [[(3, True), [4, 5], said]] * 2
