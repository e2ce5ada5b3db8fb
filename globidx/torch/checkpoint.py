"""Checkpoints: every rank's progress, gathered into one record that any number of ranks can start from."""

from __future__ import annotations

import copy
import json
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from globidx import errors
from globidx.core import checks, record
from globidx.core.state import FORMAT as SAMPLER_FORMAT
from globidx.core.state import merge
from globidx.disk import records
from globidx.errors import CommitError, GlobidxError, RecordCorruptError, RecordError, RecordMismatchError, SaveError
from globidx.torch.distributed import Channel, is_initialized
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
        self._timeout = float(timeout)
        self._group = group
        self._durable = durable
        self._channel: Channel | None = None
        self._record: dict[str, Any] | None = None  # the one last saved or loaded
        self._states: dict[str, Any] | None = None  # this rank's own states at that time

    def save(self, step: int, extras: Mapping[str, Any] | None = None) -> str:
        """Gather every rank's state and publish one record; its id, the same on every rank. Collective.

        ``extras`` are JSON values of the caller's; rank 0's are kept. All ranks return, or all raise: CommitError where
        deliveries were not told, RecordMismatchError naming the rank that disagrees, SaveError where the record could
        not be written.
        """
        message = self._attempt(lambda: self._own_part(step, extras))
        parts = [_unpack(part) for part in self._talk().gather(message)]
        _raise_first(parts)
        outcome = self._attempt(lambda: self._publish(step, parts)) if self._talk().rank == 0 else b""
        told = _unpack(self._talk().share(outcome))
        _raise_first([told])
        self._record, self._states = told["value"], parts[self._talk().rank]["value"]["states"]
        id: str = told["value"]["id"]
        return id

    def restore(self, expect: str | None = None, fallback: bool = False) -> dict[str, Any] | None:
        """Load the newest record into the objects; the record, or None where there is none. Collective: rank 0 reads
        for all.

        ``expect`` is the id the record must have, as a model checkpoint remembers it: another is refused with
        RecordMismatchError. A damaged newest record is an error; with ``fallback=True`` the newest whole one before it
        is taken, and the damaged ones are named in the result's ``"passed_over"``.
        """
        outcome = self._attempt(lambda: self._read(expect, fallback)) if self._talk().rank == 0 else b""
        told = _unpack(self._talk().share(outcome))
        _raise_first([told])
        found: dict[str, Any] | None = told["value"]
        if found is not None:
            outcome = self._attempt(lambda: self._load(found))
            _raise_first([_unpack(part) for part in self._talk().gather(outcome)])
        return found

    def state_dict(self) -> dict[str, Any]:
        """The whole record, the same on every rank, for a model checkpoint to hold. No collective.

        That is the record last saved; where the run has gone on since, an unsaved one, in which the ranks are taken to
        keep step.
        """
        states = self._own_states()
        if self._record is None or states != self._states:
            last = self._record or {"number": 0, "step": 0}
            return record.build(
                number=last["number"], token="0" * 12, step=last["step"], time="", states=states, extras={}
            )
        return copy.deepcopy(self._record)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned; RecordCorruptError where it is no longer that."""
        self._load(record.decode(record.encode(state), "the given state"))

    # -- inside

    def _talk(self) -> Channel:
        if self._channel is None or (self._channel.is_alone and is_initialized()):
            self._channel = Channel(self._group, self._timeout)
        return self._channel

    def _own_part(self, step: int, extras: Mapping[str, Any] | None) -> dict[str, Any]:
        """What this rank brings: its states, checked to be JSON before any other rank hears of them."""
        for held in self._objects.values():
            if isinstance(held, ResumableDistributedSampler):
                held.refuse_untold()
                self._refuse_other_ranks(held)
        sealed = record.build(
            number=0,
            token="0" * 12,
            step=checks.integer(step, "step"),
            time="",
            states=self._own_states(),
            extras=extras or {},
        )
        return {name: sealed[name] for name in ("step", "states", "extras")}

    def _refuse_other_ranks(self, sampler: ResumableDistributedSampler) -> None:
        ranks = self._talk().world_size
        if sampler.num_replicas != ranks:
            raise CommitError(
                f"the sampler deals to {sampler.num_replicas} ranks, but this manager gathers from {ranks}; call "
                "init_process_group first, or pass the same group= to both"
            )

    def _own_states(self) -> dict[str, Any]:
        return {name: held.state_dict() for name, held in self._objects.items()}

    def _publish(self, step: int, parts: list[dict[str, Any]]) -> dict[str, Any]:
        """Rank 0: the ranks' parts as one record, on disk."""
        values = [part["value"] for part in parts]
        for rank, value in enumerate(values):
            if value["step"] != values[0]["step"] or list(value["states"]) != list(values[0]["states"]):
                told = (value["step"], list(value["states"]))
                raise RecordMismatchError(
                    f"rank {rank} saves step and objects {told}, rank 0 {(step, list(values[0]['states']))}"
                )
        states = {name: _merged(name, [value["states"][name] for value in values]) for name in values[0]["states"]}
        self._directory.mkdir(parents=True, exist_ok=True)
        before = records.list_records(self._directory)
        sealed = record.build(
            number=records.number_of(before[-1]) + 1 if before else 0,
            token=secrets.token_hex(6),
            step=step,
            time=datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds"),
            states=states,
            extras=values[0]["extras"],
        )
        records.publish(self._directory, sealed, durable=self._durable)
        records.prune(self._directory, self._keep_last)
        return sealed

    def _read(self, expect: str | None, fallback: bool) -> dict[str, Any] | None:
        """Rank 0: the record to go on from."""
        passed_over = []
        for path in reversed(records.list_records(self._directory)):
            try:
                found = records.read_record(path)
            except RecordCorruptError as error:
                if not fallback:
                    raise RecordCorruptError(
                        f"{error}. restore(fallback=True) goes back to the newest whole record before it"
                    ) from None
                passed_over.append(str(error))
                continue
            if expect is not None and found["id"] != expect:
                if fallback:
                    continue
                raise RecordMismatchError(
                    f"the newest record in {self._directory} is {found['id']}, expected was {expect}: "
                    "model and record are from different steps. "
                    "restore(expect=..., fallback=True) looks for the expected one among the older records"
                )
            return {**found, "passed_over": passed_over} if passed_over else found
        if expect is not None or passed_over:
            wanted = f"record {expect}" if expect is not None else "a whole record"
            raise RecordError(
                f"{self._directory} does not hold {wanted}" + "".join(f"; {reason}" for reason in passed_over)
            )
        return None

    def _load(self, found: dict[str, Any]) -> None:
        states = found["states"]
        if set(states) != set(self._objects):
            raise RecordMismatchError(
                f"the record holds {sorted(states)}, this manager looks after {sorted(self._objects)}; "
                "give it objects of the same names"
            )
        for name, held in self._objects.items():
            held.load_state_dict(states[name])
        self._record, self._states = found, self._own_states()

    def _attempt(self, work: Callable[[], Any]) -> bytes:
        """What ``work`` returns, or the error it raised, as bytes for the other ranks.

        Nobody may leave the others waiting.
        """
        try:
            told = {"value": work()}
        except (GlobidxError, OSError, ValueError, TypeError) as error:
            told = {"error": type(error).__name__, "message": str(error), "rank": self._talk().rank}
        return json.dumps(told).encode()


def _unpack(message: bytes) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(message)
    return told


def _raise_first(parts: list[dict[str, Any]]) -> None:
    """Raise the first rank's error that there is, as the same type on every rank."""
    for part in parts:
        if "error" in part:
            kind = getattr(errors, part["error"], None) or {"TypeError": TypeError, "ValueError": ValueError}.get(
                part["error"], SaveError
            )
            raise kind(part["message"] if len(parts) == 1 else f"rank {part['rank']}: {part['message']}")


def _merged(name: str, states: list[dict[str, Any]]) -> dict[str, Any]:
    if states[0].get("format") == SAMPLER_FORMAT:
        return merge(states)
    for rank, state in enumerate(states):
        if state != states[0]:
            raise RecordMismatchError(
                f"the state of {name!r} differs between ranks 0 and {rank}; only samplers may differ by rank"
            )
    return states[0]


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
