"""The loop around it all: epochs and batches that restore, save, stop and count by themselves."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from globidx.core import validate
from globidx.core.metrics.metric import Metric
from globidx.core.orders.base import Order
from globidx.core.progress.partition import Tail
from globidx.core.records.policies import Keep
from globidx.torch.checkpoint import CheckpointManager
from globidx.torch.loader import DataLoader
from globidx.torch.metrics.aggregator import MetricsAggregator
from globidx.torch.preemption import PreemptionGuard
from globidx.torch.ranks.agreement import Agreement
from globidx.torch.sampler import ResumableDistributedSampler
from globidx.torch.training import weights
from globidx.torch.training.schedule import SaveSchedule
from globidx.torch.training.status_line import StatusLine

# what the loader is given here, and what to write instead
_DECIDED = {
    "shuffle": "a run is shuffled; order=globidx.orders.Sequential() keeps the dataset's sequence",
    "batch_sampler": "use globidx.DataLoader and CheckpointManager, which take one",
}


class Run:
    """A training run: gives epochs and batches, and restores, saves and stops by itself.

    Parameters
    ----------
    dataset : Dataset
        A map-style dataset.
    batch_size : int
        How many samples a batch has on each rank.
    checkpoint_dir : str or Path
        The folder of the run, for records and weights. All ranks read it.
    epochs : int
        How many epochs the run has, from epoch 0.
    state : dict, optional
        Objects by name that have ``state_dict`` and ``load_state_dict``: model, optimizer. Later
        ones are added by ``register``.
    seed, tail, order
        As for ``ResumableDistributedSampler``; ``tail`` is ``"pad"`` or ``"drop"``.
    sampler : ResumableDistributedSampler, optional
        A sampler of your own instead of these three.
    save_every : int, optional
        Save at every multiple of so many steps.
    save_minutes : float, optional
        Save when so many minutes have passed since the last save. Without either, the end of each
        epoch is saved.
    keep_last, keep
        Which records and weights stay, as for ``CheckpointManager``.
    signals : iterable of int, default (SIGTERM, SIGUSR1)
        Signals to any rank that stop all of them after the same step, saved.
    timeout : float, default 1800.0
        Seconds within which ranks must come to a save, and rank 0 must have written.
    progress : bool, default True
        Show a line with rate and ETA, on rank 0 and if stderr is a terminal.
    clock : callable, default time.monotonic
        Returns seconds, for ``save_minutes`` and for the rate.
    **options
        For the loader, as ``globidx.DataLoader`` takes them: ``num_workers``, ``collate_fn``,
        ``device``.

    Attributes
    ----------
    sampler : ResumableDistributedSampler
        The sampler.
    loader : DataLoader
        The loader.
    metrics : MetricsAggregator
        What the lists of ``Metric`` under ``"metrics"`` in batches come to. They are taken out of
        the batches.
    step : int
        How many steps the run has made, the one of the batch that the loop holds among them.
    extras : dict
        JSON values that go into each record, such as the loss that ``policies.best`` goes by.
    preempted : bool
        Whether a signal has stopped the run: it is saved, and not done.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type, or two of them contradict each other.

    Notes
    -----
    It is made of the parts, and each can be had alone: sampler, loader, ``CheckpointManager``,
    ``PreemptionGuard``, ``MetricsAggregator``.

    Samplers and objects with ``merge_states`` go into the records. All others go into a file
    ``model-ID.pt`` beside the record ``ID``, as rank 0 has them; each rank's ``state_dict`` is
    called. A run goes on from the newest whole pair.

    A loop that is left by ``break`` and comes back to ``epochs()`` ends that epoch.

    Examples
    --------
    Killed at any time and started again, on any number of ranks, it goes on:

    >>> import tempfile, torch
    >>> folder = tempfile.TemporaryDirectory()
    >>> model = torch.nn.Linear(1, 1)
    >>> run = Run(
    ...     range(10), batch_size=4, checkpoint_dir=folder.name, epochs=2, state={"model": model}
    ... )
    >>> for epoch in run.epochs():
    ...     for batch in epoch:
    ...         print(epoch.number, run.step, len(batch))
    0 1 4
    0 2 4
    0 3 2
    1 4 4
    1 5 4
    1 6 2
    >>> folder.cleanup()
    """

    def __init__(
        self,
        dataset: Any,
        *,
        batch_size: int,
        checkpoint_dir: str | Path,
        epochs: int,
        state: Mapping[str, Any] | None = None,
        seed: int = 0,
        tail: Tail = "pad",
        order: Order | None = None,
        sampler: ResumableDistributedSampler | None = None,
        save_every: int | None = None,
        save_minutes: float | None = None,
        keep_last: int = 3,
        keep: Keep | None = None,
        signals: Iterable[int] = (signal.SIGTERM, signal.SIGUSR1),
        timeout: float = 1800.0,
        progress: bool = True,
        clock: Callable[[], float] = time.monotonic,
        **options: Any,
    ) -> None:
        for name, instead in _DECIDED.items():
            if name in options:
                raise TypeError(f"Run() takes no {name}=: {instead}")
        if sampler is not None and (seed, tail, order) != (0, "pad", None):
            raise ValueError("sampler= has a seed, a tail and an order of its own; leave these out")
        self.sampler = sampler or ResumableDistributedSampler(
            dataset, seed=seed, tail=tail, order=order
        )
        if self.sampler.tail == "exact":
            raise ValueError(
                "tail='exact' would give ranks different numbers of steps, and all ranks save and "
                "stop at the same step; pass tail='pad' or 'drop'"
            )
        self.loader = DataLoader(dataset, batch_size=batch_size, sampler=self.sampler, **options)
        self.metrics = MetricsAggregator(timeout=timeout)
        self.step = 0
        self.extras: dict[str, Any] = {}
        self.preempted = False
        self._epochs = validate.integer(epochs, "epochs", low=1)
        self._folder = Path(checkpoint_dir)
        self._schedule = SaveSchedule(save_every, save_minutes, clock)
        self._keep: dict[str, Any] = {"keep_last": keep_last, "keep": keep, "timeout": timeout}
        self._signals, self._timeout = tuple(signals), timeout
        self._show, self._clock = progress, clock
        self._ranks = Agreement(None, timeout, purpose="run")
        self._manager: CheckpointManager | None = None
        # what goes into records beside the sampler, and what goes into files of weights
        self._recorded: dict[str, Any] = {"sampler": self.sampler, "metrics": self.metrics}
        self._weights: dict[str, Any] = {}
        self.register(**(state or {}))

    def __repr__(self) -> str:
        return f"Run({str(self._folder)!r}: step {self.step}, {self.sampler!r})"

    def register(self, **state: Any) -> None:
        """Add objects to what is saved and restored, before the first epoch.

        Parameters
        ----------
        **state
            Objects by name that have ``state_dict`` and ``load_state_dict``.

        Raises
        ------
        TypeError
            If an object lacks one of the two.
        ValueError
            If the name is taken.
        RuntimeError
            If the run is restored already.

        Examples
        --------
        >>> import torch
        >>> run = Run(range(10), batch_size=4, checkpoint_dir="run/", epochs=1)
        >>> run.register(model=torch.nn.Linear(1, 1))
        """
        for name, held in state.items():
            if self._manager is not None:
                raise RuntimeError(
                    f"{name!r} comes too late: the run is restored, and this object is not; call "
                    "register() before restore() and epochs()"
                )
            if name in (weights.RECORD, *self._recorded, *self._weights):
                raise ValueError(f"the name {name!r} is taken; give the object another one")
            if not all(callable(getattr(held, f"{do}state_dict", None)) for do in ("", "load_")):
                raise TypeError(
                    f"{name!r} has no state_dict and load_state_dict, got {type(held).__name__}; a "
                    "run keeps objects that have both, such as a model"
                )
            mergeable = isinstance(held, ResumableDistributedSampler) or hasattr(
                held, "merge_states"
            )
            (self._recorded if mergeable else self._weights)[name] = held

    def restore(self) -> int:
        """Load the newest record and its weights, once. Collective; ``epochs`` calls it.

        Returns
        -------
        int
            The step that the run goes on from; 0 if it is new.

        Raises
        ------
        globidx.errors.RecordMismatchError
            If they are of another run, or of objects of other names.
        ValueError
            If the ranks of the job are not those of the sampler.

        Examples
        --------
        >>> Run(range(10), batch_size=4, checkpoint_dir="run/", epochs=1).restore()
        0
        """
        if self._manager is None:
            self._refuse_other_ranks()
            manager = CheckpointManager(self._folder, self._recorded, **self._keep)
            record = (
                self._restore_weights(manager) if self._weights else self._records_only(manager)
            )
            if record is not None:
                self.step, self.extras = record["step"], dict(record["extras"])
            self._schedule.saved(self.step)
            self._manager = manager
        return self.step

    def epochs(self) -> Iterator[Epoch]:
        """Give the epochs that are left; each gives the batches that are left of it.

        Collective: it restores before the first epoch, saves while it goes on, and saves the end.

        Yields
        ------
        Epoch
            An epoch: a ``number``, from 0, and an iterable of batches.

        Raises
        ------
        globidx.errors.GlobidxError
            As ``restore`` and ``save``.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = Run(range(10), batch_size=5, checkpoint_dir=folder, epochs=3)
        ...     [(epoch.number, len(list(epoch))) for epoch in run.epochs()]
        [(0, 2), (1, 2), (2, 2)]
        """
        self.restore()
        with ExitStack() as stack:
            guard = None
            if self._signals:
                guard = PreemptionGuard(self._signals, timeout=self._timeout)
                stack.enter_context(guard)
            line = StatusLine(sys.stderr, self._clock) if self._shows() else None
            if line is not None:
                stack.callback(line.close)
            while self.sampler.epoch < self._epochs and not self.preempted:
                number = self.sampler.epoch
                self.sampler.set_epoch(number)
                yield Epoch(number, len(self.loader), partial(self._batches, number, guard, line))
                self._end_epoch(number, guard)

    def save(self) -> str:
        """Save now, besides the times that the run chooses. Collective.

        In the loop, call it after the optimizer's step: the batch that the loop holds counts.

        Returns
        -------
        str
            The id of the record.

        Raises
        ------
        globidx.errors.SaveError
            As ``CheckpointManager.save``.
        TypeError, ValueError
            On every rank, if a state cannot be kept in a file.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = Run(range(10), batch_size=5, checkpoint_dir=folder, epochs=3)
        ...     run.save()[:9]
        '00000000-'
        """
        self.restore()
        assert self._manager is not None
        states: dict[str, Any] = {}
        if self._weights:
            # before the record: a refusal leaves the older pair alone
            with self._ranks.turn("save", f"{self.step}"):
                self._ranks.gather(lambda: self._collect(states))
        id = self._manager.save(self.step, self.extras)
        if self._weights:
            states[weights.RECORD] = self._manager.state_dict()["text"]
            with self._ranks.turn("save", id):
                # what rank 0 cannot write, no rank has
                self._ranks.broadcast(lambda: weights.write(self._folder, id, states))
        self._schedule.saved(self.step)
        return id

    # -- inside

    def _batches(
        self, number: int, guard: PreemptionGuard | None, line: StatusLine | None
    ) -> Iterator[Any]:
        """The batches of an epoch; when the loop comes back its step is made, and may be saved."""
        if self.sampler.epoch != number:
            # a second loop over an epoch that is done
            return
        batches = len(self.loader)
        total = self.step + self.loader.steps_left(self._epochs)
        for done, batch in enumerate(self.loader, self.loader.start + 1):
            self.step += 1
            self.metrics.update(_taken_out(batch))
            yield batch
            if line is not None:
                line.show(number, self._epochs, self.step, total)
            # what the loop does behind the last batch belongs to the epoch: see _end_epoch
            if done == batches:
                continue
            self.preempted = guard is not None and guard.should_stop()
            if self.preempted or self._is_due():
                self.save()
            if self.preempted:
                return

    def _end_epoch(self, number: int, guard: PreemptionGuard | None) -> None:
        """Save the end of an epoch if it is time, when the loop has done what it does there."""
        if self.preempted:
            return
        if self.sampler.epoch == number:
            # left early, and come back for the next one
            self.sampler.finish_epoch()
        self.preempted = guard is not None and guard.should_stop()
        is_last = self.sampler.epoch >= self._epochs
        if self.preempted or is_last or self._schedule.by_epochs or self._is_due():
            self.save()
        # all is trained: nothing is left to go on with
        self.preempted = self.preempted and not is_last

    def _is_due(self) -> bool:
        """Whether to save after this step; the same on every rank."""
        if self._schedule.is_due_by_steps(self.step) or not self._schedule.by_time:
            return self._schedule.is_due_by_steps(self.step)
        with self._ranks.turn("should_stop"):
            # clocks differ
            return self._ranks.any(self._schedule.is_due_by_time())

    def _collect(self, states: dict[str, Any]) -> None:
        """Put the states of what goes into a file into ``states``."""
        states |= {name: held.state_dict() for name, held in self._weights.items()}
        weights.refuse_sharded(states)

    def _restore_weights(self, manager: CheckpointManager) -> dict[str, Any] | None:
        """Load the newest weights and the record in them; None if there are none."""
        with self._ranks.turn("restore"):
            name = self._ranks.broadcast(lambda: weights.newest(self._folder))
            if name is None:
                return None
            states: dict[str, Any] = {}
            path, names = self._folder / name, set(self._weights)
            # one thing after the other, so that no rank loads what another one refuses
            self._ranks.gather(lambda: states.update(weights.load(path, names)))
            text = states.pop(weights.RECORD)
            self._ranks.gather(lambda: manager.load_state_dict({"text": text}))
            self._ranks.gather(lambda: self._load(states))
        return manager.state_dict()

    def _load(self, states: Mapping[str, Any]) -> None:
        for name, held in self._weights.items():
            held.load_state_dict(states[name])

    def _records_only(self, manager: CheckpointManager) -> dict[str, Any] | None:
        """Restore a run without weights; ValueError if the folder has some."""
        with self._ranks.turn("restore"):
            name = self._ranks.broadcast(lambda: weights.newest(self._folder))
        if name is not None:
            raise ValueError(
                f"{self._folder / name} holds weights, and this run has no objects to load them "
                "into; pass state={'model': model, ...}, or start in another folder"
            )
        return manager.restore()

    def _refuse_other_ranks(self) -> None:
        expected, there = self.sampler.num_replicas, self._ranks.world_size
        if expected != there:
            raise ValueError(
                f"the sampler deals to {expected} ranks, and {there} can talk to each other: call "
                "init_process_group before the run begins; with tensor-parallel ranks use "
                "CheckpointManager instead of Run"
            )

    def _shows(self) -> bool:
        return self._show and self._ranks.rank == 0


class Epoch:
    """One epoch of a run: iterating over it gives the batches that are left of it.

    Its length is that of the whole epoch, with what was done before a resume.
    """

    def __init__(self, number: int, length: int, begin: Callable[[], Iterator[Any]]) -> None:
        self.number = number
        self._length = length
        self._begin = begin

    def __iter__(self) -> Iterator[Any]:
        # not kept here: a loop that is left by `break` must free its batches, and so hold none
        return self._begin()

    def __len__(self) -> int:
        return self._length


def _taken_out(batch: Any) -> list[Metric]:
    """The metrics of a batch, which loses them; a value of another kind under the name stays."""
    found = batch.get("metrics") if isinstance(batch, MutableMapping) else None
    if not isinstance(found, list) or not all(isinstance(one, Metric) for one in found):
        return []
    return list(batch.pop("metrics"))
