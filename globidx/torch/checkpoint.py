"""Checkpoints: every rank's progress, gathered into one record that any number of ranks can start from."""

from __future__ import annotations

import copy
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from globidx.core import checks, record, strictjson
from globidx.core.merging import merge_states
from globidx.disk import records
from globidx.errors import CommitError, RecordMismatchError
from globidx.torch.agreement import Agreement
from globidx.torch.sampler import ResumableDistributedSampler


class Stateful(Protocol):
    """What a record can hold: anything whose ``state_dict`` is JSON values."""

    def state_dict(self) -> dict[str, Any]:
        """Its state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""


class CheckpointManager:
    """Keeps records of a run in ``directory``, one JSON file each, and brings a run back to the newest.

    It looks after one sampler, or several objects by name; what is no sampler must have the same state on every rank.
    The newest ``keep_last`` records stay. Collectives run on a process group of their own over the ranks of ``group``,
    and give up after ``timeout`` seconds. ``durable=False`` skips the fsyncs that make a record survive a power cut.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> sampler = ResumableDistributedSampler(range(10), 1, 0, shuffle=False)
    >>> manager = CheckpointManager(folder.name, sampler)
    >>> manager.restore() is None                       # nothing there: a fresh run
    True
    >>> sampler.commit(6)
    >>> id = manager.save(step=3, extras={"loss": 0.5})
    >>> resumed = ResumableDistributedSampler(range(10), 1, 0, shuffle=False)
    >>> CheckpointManager(folder.name, resumed).restore()["step"], list(resumed)
    (3, [6, 7, 8, 9])
    >>> folder.cleanup()
    """

    def __init__(
        self,
        directory: str | Path,
        sampler_or_dict_of_stateful: ResumableDistributedSampler | Mapping[str, Stateful],
        *,
        keep_last: int = 3,
        timeout: float = 60.0,
        group: Any = None,
        durable: bool = True,
    ) -> None:
        self._directory = Path(directory)
        self._objects = _named(sampler_or_dict_of_stateful)
        self._keep_last = checks.integer(keep_last, "keep_last", low=1)
        if not timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds, got {timeout!r}")
        self._ranks = Agreement(group, float(timeout))
        self._durable = durable
        self._record: dict[str, Any] | None = None  # the one last saved or loaded
        self._states: dict[str, Any] | None = None  # this rank's own states at that time

    def save(self, step: int, extras: Mapping[str, Any] | None = None) -> str:
        """Gather every rank's state and publish one record; its id, the same on every rank. Collective.

        ``extras`` are JSON values of the caller's; rank 0's are kept. All ranks return, or all raise: CommitError where
        deliveries were not told, RecordMismatchError naming the rank that disagrees, SaveError where the record could
        not be written or a rank did not answer in time.
        """
        parts = self._ranks.by_all(lambda: self._own_part(step, extras))
        saved: dict[str, Any] = self._ranks.by_first(lambda: self._publish(parts))
        self._record, self._states = saved, parts[self._ranks.rank]["states"]
        id: str = saved["id"]
        return id

    def restore(self, expect: str | None = None, fallback: bool = False) -> dict[str, Any] | None:
        """Load the newest record into the objects; the record, or None where there is none.

        Collective: rank 0 reads for all. ``expect`` is the id the record must have, as a model checkpoint remembers it:
        another is refused with RecordMismatchError. A damaged newest record is an error; with ``fallback=True`` the
        newest whole one before it is taken, and the damaged ones are named in the result's ``"passed_over"``. Where
        one rank cannot load it, none does.
        """
        found, passed_over = self._ranks.by_first(lambda: records.find(self._directory, expect, fallback=fallback))
        if found is None:
            return None
        self._ranks.by_all(lambda: self._refuse_other_run(found["states"]))
        self._load(found, self._ranks.by_all)
        return {**found, "passed_over": passed_over} if passed_over else found

    def state_dict(self) -> dict[str, Any]:
        """The whole record, the same on every rank, for a model checkpoint to hold. No collective.

        That is the record last saved; where the run has gone on since, an unsaved one, in which the ranks are taken to
        keep step: save first where they may not.
        """
        states = self._own_states()
        if self._record is None or states != self._states:
            last = self._record or {"number": 0, "step": 0}
            return record.build(
                number=last["number"], token="0" * 12, step=last["step"], time="", states=states, extras={}
            )
        return copy.deepcopy(self._record)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned; RecordCorruptError where it is no longer that. No collective."""
        found = record.decode(record.encode(state), "the given state")
        self._refuse_other_run(found["states"])
        self._load(found, lambda work: work())

    # -- inside

    def _own_part(self, step: int, extras: Mapping[str, Any] | None) -> dict[str, Any]:
        """What this rank brings: its states, checked to be what a record can hold."""
        for held in self._samplers().values():
            held.refuse_untold()
            self._refuse_other_ranks(held)
        return {
            "step": checks.integer(step, "step"),
            "states": self._own_states(),
            "ranks": {name: held.rank for name, held in self._samplers().items()},
            "extras": strictjson.plain(dict(extras or {}), "extras"),
        }

    def _refuse_other_ranks(self, sampler: ResumableDistributedSampler) -> None:
        ranks = self._ranks.world_size
        if sampler.num_replicas != ranks:
            raise CommitError(
                f"the sampler deals to {sampler.num_replicas} ranks, but this manager gathers from {ranks}; call "
                "init_process_group first, or pass the same group= to both"
            )

    def _own_states(self) -> dict[str, Any]:
        states = {name: held.state_dict() for name, held in self._objects.items()}
        for name, state in states.items():
            if not isinstance(state, dict):
                raise TypeError(f"state_dict() of {name!r} must be a dict, got {type(state).__name__}")
        plain: dict[str, Any] = strictjson.plain(states, "states")
        return plain

    def _publish(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        """Rank 0: the ranks' parts as one record, on disk."""
        for rank, part in enumerate(parts):
            for what, found, first in (
                ("step", part["step"], parts[0]["step"]),
                ("objects", list(part["states"]), list(parts[0]["states"])),
            ):
                if found != first:
                    raise RecordMismatchError(
                        f"rank {rank} saves {what} {found}, rank 0 {first}; save the same on every rank"
                    )
        names = parts[0]["states"]
        sealed = record.build(
            number=records.next_number(self._directory),
            token=secrets.token_hex(6),
            step=parts[0]["step"],
            time=datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds"),
            states={name: _merged(name, parts) for name in names},
            extras=parts[0]["extras"],
        )
        records.publish(self._directory, sealed, durable=self._durable)
        records.prune(self._directory, self._keep_last)
        return sealed

    def _refuse_other_run(self, states: Mapping[str, Any]) -> None:
        """RecordMismatchError where these are not the states of these objects; changes nothing."""
        if set(states) != set(self._objects):
            raise RecordMismatchError(
                f"the record holds {sorted(states)}, this manager looks after {sorted(self._objects)}; "
                "give it objects of the same names"
            )
        for name, held in self._samplers().items():
            try:
                held.refuse_other_run(states[name])
            except RecordMismatchError as error:
                named = RecordMismatchError(f"{name}: {error}")
                named.field = error.field
                raise named from None

    def _load(self, found: dict[str, Any], do: Callable[[Callable[[], None]], Any]) -> None:
        """Load all objects: others first, which may refuse; samplers, which were asked, when none has.

        ``do`` does a thing here, or on all ranks or none.
        """
        samplers, states = self._samplers(), found["states"]
        others = {name: held for name, held in self._objects.items() if name not in samplers}
        before = {name: copy.deepcopy(held.state_dict()) for name, held in others.items()}
        loaded: list[str] = []
        try:
            do(lambda: _load_each(others, states, loaded))
        except BaseException:
            _load_each({name: others[name] for name in loaded}, before, [])
            raise
        do(lambda: _load_each(samplers, states, []))
        self._record, self._states = found, self._own_states()

    def _samplers(self) -> dict[str, ResumableDistributedSampler]:
        return {name: held for name, held in self._objects.items() if isinstance(held, ResumableDistributedSampler)}


def _load_each(objects: Mapping[str, Stateful], states: Mapping[str, Any], loaded: list[str]) -> None:
    """Load each object, and note in ``loaded`` that it was."""
    for name, held in objects.items():
        held.load_state_dict(states[name])
        loaded.append(name)


def _merged(name: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The ranks' states of one object as one; a sampler's in the sequence of its own ranks, which a mesh may turn."""
    states: list[dict[str, Any]] = [part["states"][name] for part in parts]
    if name not in parts[0]["ranks"]:
        for rank, state in enumerate(states):
            if state != states[0]:
                raise RecordMismatchError(
                    f"the state of {name!r} differs between ranks 0 and {rank}; only samplers may differ by rank"
                )
        return states[0]
    ranks = [part["ranks"].get(name) for part in parts]
    if sorted(ranks, key=str) != sorted(range(len(parts)), key=str):
        raise RecordMismatchError(
            f"the samplers {name!r} of the group's ranks 0 to {len(parts) - 1} take themselves for ranks {ranks}; "
            "each must be another, so pass no rank=, or the right one"
        )
    return merge_states([states[ranks.index(rank)] for rank in range(len(parts))])


def _named(given: ResumableDistributedSampler | Mapping[str, Stateful]) -> dict[str, Any]:
    objects = dict(given) if isinstance(given, Mapping) else {"sampler": given}
    if not objects:
        raise ValueError("nothing to keep a record of; pass a sampler, or a dict of objects by name")
    for name, held in objects.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"names must be strings, got {name!r}")
        if not callable(getattr(held, "state_dict", None)) or not callable(getattr(held, "load_state_dict", None)):
            raise TypeError(f"{name!r} has no state_dict and load_state_dict, got {type(held).__name__}")
    return objects
