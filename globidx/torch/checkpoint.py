"""Checkpoints: every rank's progress, gathered into one record that any number of ranks can start from."""

from __future__ import annotations

import copy
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary

from torch.utils.data import get_worker_info

from globidx.core import validate
from globidx.core.datasets.identity import unidentified
from globidx.core.json import strict
from globidx.core.progress.merge import merge_states
from globidx.core.progress.state import quarantining
from globidx.core.records import record
from globidx.core.records.gather import Merge, united
from globidx.core.records.policies import Keep
from globidx.disk.records import folder as records
from globidx.disk.records.lineage import Lineage
from globidx.errors import RecordMismatchError, SaveError
from globidx.torch.background import Background
from globidx.torch.ranks.agreement import Agreement
from globidx.torch.sampler import ResumableDistributedSampler

_log = logging.getLogger("globidx")
_IN_DOUBT = "The record may be there all the same: written, durability unknown"


class Stateful(Protocol):
    """What a record can hold: anything whose ``state_dict`` is JSON values, the same on every rank.

    Where they differ by rank (the sums of a metric, say) it also has ``merge_states(states)``, which makes one state
    of all ranks', in rank order; that one every rank loads. An object with ``rank`` and ``num_replicas`` gives one
    state for each of those ranks.
    """

    def state_dict(self) -> dict[str, Any]:
        """Its state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""


class CheckpointManager:
    """Keeps records of a run in ``directory``, one JSON file each, and brings a run back to the newest.

    It looks after one sampler, or several objects by name: samplers, and anything that is ``Stateful``. The newest
    ``keep_last`` records stay; ``keep``, one of ``globidx.policies``, chooses instead (ValueError where both are
    given). ``durable=False`` skips the
    fsyncs that make a record survive a power cut.

    ``save``, ``restore`` and ``wait`` are collective: every rank calls them, and each returns or raises within
    ``timeout`` seconds. They talk over a process group of their own, over the ranks of ``group``: where it is None,
    over all ranks of the job, of which tensor-parallel peers bring equal states; rank 0 writes. Where each
    data-parallel group of a job has a manager of its own, all of them save one and the same record.

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
        keep: Keep | None = None,
        timeout: float = 60.0,
        group: Any = None,
        durable: bool = True,
    ) -> None:
        if isinstance(sampler_or_dict_of_stateful, (str, os.PathLike)):
            raise TypeError(
                f"the folder comes first: CheckpointManager({os.fspath(sampler_or_dict_of_stateful)!r}, sampler), not "
                f"CheckpointManager({type(directory).__name__}, folder)"
            )
        self._directory = Path(directory)
        self._objects = _named(sampler_or_dict_of_stateful)
        if keep is not None and not callable(keep):
            raise TypeError(f"keep must be one of globidx.policies, such as policies.last(3), got {keep!r}")
        if keep is not None and keep_last != 3:
            raise ValueError(
                f"keep= and keep_last={keep_last!r} both say which records stay; give one of them, "
                "such as keep=policies.last(n) | policies.every(m)"
            )
        self._keep: Keep | int = keep or validate.integer(keep_last, "keep_last", low=1)
        if not timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds, got {timeout!r}")
        self._ranks = Agreement(group, float(timeout), purpose="records", name=str(self._directory.absolute()))
        self._durable = durable
        line = _line_of(self._directory, self._objects)  # rank 0's matter, as is what it writes in the background
        self._line, self._lineage, self._background = line, line.lineage, line.background
        self._busy = threading.Lock()
        self._process = os.getpid()
        self._told = False  # what is not known of the datasets
        self._warned_unread = False
        self._record: dict[str, Any] | None = None  # the one last saved or loaded
        self._states: dict[str, Any] | None = None  # this rank's own states at that time

    def __repr__(self) -> str:
        at = "no record yet" if self._record is None else f"record {self._record['id']}"
        return f"CheckpointManager({str(self._directory)!r}, {', '.join(self._objects)}: {at})"

    def save(self, step: int, extras: Mapping[str, Any] | None = None, *, blocking: bool = True) -> str:
        """Gather every rank's state and publish one record; its id, the same on every rank. Collective.

        ``extras`` are JSON values of the caller's; rank 0's are kept. All ranks return, or all raise: CommitError where
        deliveries were not told, RecordMismatchError naming the rank that disagrees, LostRankError naming one that is
        gone or did not come, SaveError where the record could not be written or another run has written into the
        folder. A SaveError's ``state`` says whether a record may be on disk all the same.

        ``blocking=False`` returns when the record is gathered and its content fixed, and writes it in the background; a
        failure is raised, on every rank, by the next ``save``, ``restore`` or ``wait``.
        """
        with self._turn("save", f"{step!r:.40}"):
            own: dict[str, Any] = {}
            parts = self._ranks.by_all(lambda: own.update(self._own_part(step, extras)) or own)
            saved: dict[str, Any] = self._ranks.by_first(
                lambda: self._publish(parts, blocking),
                check=lambda saved: self._refuse_other(saved, parts),
                lost=_IN_DOUBT,
            )
        self._record, self._states = saved, self._learn(saved, own["states"])
        self._tell_what_is_unknown()
        self._warn_of_unread_samplers(saved["step"])
        id: str = saved["id"]
        return id

    def wait(self) -> None:
        """Return when all that was saved is written; SaveError, on every rank, if that failed. Collective."""
        with self._turn("wait"):
            self._ranks.by_first(self._settle, lost=_IN_DOUBT)

    def restore(self, expect: str | None = None, fallback: bool = False) -> dict[str, Any] | None:
        """Load the newest record into the objects; the record, or None where there is none.

        Collective: rank 0 reads for all. ``expect`` is the id the record must have, as a model checkpoint remembers it:
        another is refused with RecordMismatchError. A damaged newest record is an error; with ``fallback=True`` the
        newest whole one before it is taken, and the damaged ones are named in the log and in the result's
        ``"passed_over"``. Where one rank cannot load it, none does.
        """
        with self._turn("restore"):
            asked = self._ranks.by_all(lambda: [expect, bool(fallback)])
            found, passed_over = self._ranks.by_first(lambda: self._find(asked))
            if found is None:
                return None
            self._ranks.by_all(lambda: self._refuse_other_run(found["states"]))
            self._load(found, self._ranks.by_all)
        self._tell_what_is_unknown()
        return {**found, "passed_over": passed_over} if passed_over else found

    def state_dict(self) -> dict[str, Any]:
        """The whole record, the same on every rank, for a model checkpoint to hold. No collective.

        That is the record last saved; where the run has gone on since, an unsaved one, in which the ranks are taken to
        keep step: save first where they may not. Its ``text`` is all of it, once more, as one string: what
        torch.distributed.checkpoint loses of the rest does not matter.
        """
        with self._still():
            states = self._own_states()
        if self._record is None or states != self._states:
            last = self._record or {"number": 0, "step": 0}
            unsaved = record.build(
                number=last["number"], token="0" * 12, step=last["step"], time="", states=states, extras={}
            )
            return record.carried(unsaved)
        return record.carried(copy.deepcopy(self._record))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned, or a record; RecordCorruptError where it is that no longer.

        No collective.
        """
        found = record.uncarried(state, "the given state")
        self._refuse_other_run(found["states"])
        self._load(found, lambda work: work())
        self._lineage.look()  # whoever goes on from a carried record goes on with what lies in the folder

    # -- inside

    @contextmanager
    def _turn(self, doing: str, what: str = "") -> Iterator[None]:
        """This process's one call at a time; SaveError, before anybody is waited for, where it cannot be made here."""
        if get_worker_info() is not None or os.getpid() != self._process:
            raise SaveError(
                f"{doing}() in another process than the one that made the manager, such as a DataLoader's worker, "
                "which is no rank; call it in the training loop. Nothing was saved: not written"
            )
        if not self._busy.acquire(blocking=False):
            raise SaveError(
                f"{doing}() while another save, restore or wait of this manager is under way, in another thread or "
                "below this signal handler; make one after the other, and let a handler set a flag, as "
                "PreemptionGuard's does. Nothing was saved: not written"
            )
        try:
            with self._ranks.turn(doing, what):
                yield
        finally:
            self._busy.release()

    def _warn_of_unread_samplers(self, step: int) -> None:
        """A line in rank 0's log, once, if steps were made and no sampler was ever read: its loader has another."""
        samplers = self._samplers().values()
        unread = step and samplers and not any(held._ledger.was_read for held in samplers)
        if unread and not self._warned_unread and not self._ranks.rank:
            self._warned_unread = True
            _log.warning(
                "saved at step %d, but nothing was ever read from %s of this manager, so the record says that nothing "
                "was trained on; pass it to the loader that trains: globidx.DataLoader(dataset, sampler=sampler)",
                step,
                "the sampler" if len(samplers) == 1 else "any sampler",
            )

    def _tell_what_is_unknown(self) -> None:
        """A line in rank 0's log, once, for a dataset that the record cannot tell from others of its length."""
        told, self._told = self._told, True
        if told or self._ranks.rank:
            return
        for name, held in self._samplers().items():
            if unknown := unidentified(held.dataset):
                _log.warning(
                    "%s: %s, so a later run over other samples, or the same in another sequence, would not be noticed; "
                    "give the dataset a `fingerprint` (globidx.IdentifiedDataset says how)",
                    name,
                    unknown,
                )

    def _own_part(self, step: int, extras: Mapping[str, Any] | None) -> dict[str, Any]:
        """What this rank brings: its states, checked to be what a record can hold."""
        with self._still():
            for held in self._samplers().values():
                held._ledger.settle()
                held._ledger.refuse_unreported()
            states = self._own_states()
        own = {
            "step": validate.integer(step, "step"),
            "states": states,
            "ranks": {name: [held.rank, held.num_replicas] for name, held in self._objects.items() if _is_ranked(held)},
            "extras": strict.plain(dict(extras or {}), "extras"),
        }
        return own if self._ranks.rank == 0 else own | {"extras": {}}

    @contextmanager
    def _still(self) -> Iterator[None]:
        """No sampler moves: the training loop, which may be in another thread, waits with what it would commit."""
        with ExitStack() as stack:
            for held in sorted(self._samplers().values(), key=id):  # as any other manager's thread would take them
                stack.enter_context(held._ledger.lock)
            yield

    def _learn(self, saved: Mapping[str, Any], states: dict[str, Any]) -> dict[str, Any]:
        """What any rank could not read, every rank knows from here on; the states of the save, with that in them.

        The loop may have gone on since, in another thread: so nothing of these states is written back.
        """
        known = dict(states)
        for name, held in self._samplers().items():
            pairs = saved["states"][name].get("quarantined", [])
            if pairs:
                with held._ledger.lock:
                    held.quarantine(tuple(pair) for pair in pairs)
                known[name] = quarantining(states[name], pairs)
        return known

    def _own_states(self) -> dict[str, Any]:
        states = {name: held.state_dict() for name, held in self._objects.items()}
        for name, state in states.items():
            if not isinstance(state, dict):
                raise TypeError(f"state_dict() of {name!r} must be a dict, got {type(state).__name__}")
        plain: dict[str, Any] = strict.plain(states, "states")
        return plain

    def _publish(self, told: list[bytes], blocking: bool) -> dict[str, Any]:
        """Rank 0: the ranks' parts as one record, on disk or on its way there."""
        self._settle()
        sealed = record.build(
            number=self._lineage.next_number(),
            token=secrets.token_hex(6),
            time=datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds"),
            **self._content(told),
        )
        if blocking:
            self._write(sealed)
        else:
            record.decode(record.encode(sealed), "the record to be written")  # what cannot be, is refused at once
            self._background.start(f"record {sealed['id']}", lambda: self._write(sealed))
        return sealed

    def _content(self, told: list[bytes]) -> dict[str, Any]:
        parts = [_part(rank, data) for rank, data in enumerate(told)]
        states = record.kept(united(parts, self._merges()))
        return {"step": parts[0]["step"], "states": states, "extras": parts[0]["extras"]}

    def _refuse_other(self, saved: Mapping[str, Any], told: list[bytes]) -> None:
        """Rank 0 of a group for which another has saved: it must have saved what this one would have."""
        own = self._content(told)
        for what in ("step", "states"):
            if saved[what] != own[what]:
                raise RecordMismatchError(
                    f"another group of this job has saved record {saved['id']} with other {what} than this group has; "
                    "groups that save to one folder must be tensor-parallel peers, which read the same"
                )

    def _write(self, sealed: dict[str, Any]) -> None:
        self._lineage.write(sealed, durable=self._durable)
        self._lineage.prune(self._keep)

    def _settle(self) -> None:
        """Rank 0: nothing is being written any more. It waits a little less than the others do, to tell them."""
        self._background.settle(0.8 * self._ranks.patience)

    def _find(self, asked: list[bytes]) -> tuple[dict[str, Any] | None, list[str]]:
        """Rank 0: the record that all ranks ask for."""
        self._settle()
        wishes = [json.loads(data) for data in asked]
        for rank, wish in enumerate(wishes):
            if wish != wishes[0]:
                raise RecordMismatchError(
                    f"rank {rank} restores with expect, fallback = {wish}, rank 0 with {wishes[0]}; ask for the same "
                    "on every rank: let rank 0 broadcast the id that its model checkpoint holds"
                )
        self._lineage.look()
        expect, fallback = wishes[0]
        found, passed_over = records.find(self._directory, expect, fallback=fallback)
        if found is None:
            _log.info("no record in %s: the run begins afresh", self._directory.absolute())
        for reason in passed_over:
            _log.warning("passed over a record newer than %s: %s", (found or {}).get("id"), reason)
        return found, passed_over

    def _refuse_other_run(self, states: Mapping[str, Any]) -> None:
        """RecordMismatchError where these are not the states of these objects; changes nothing."""
        if set(states) != set(self._objects):
            raise RecordMismatchError(
                f"the record holds {sorted(states)}, this manager looks after {sorted(self._objects)}; "
                "give it objects of the same names"
            )
        for name, held in self._samplers().items():
            try:
                held._ledger.tracker.refuse_other_run(states[name])
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
        with self._still():
            self._record, self._states = found, self._own_states()

    def _merges(self) -> dict[str, Merge]:
        own = {name: getattr(held, "merge_states", None) for name, held in self._objects.items()}
        merges = {name: merge for name, merge in own.items() if callable(merge)}
        return merges | dict.fromkeys(self._samplers(), merge_states)

    def _samplers(self) -> dict[str, ResumableDistributedSampler]:
        return {name: held for name, held in self._objects.items() if isinstance(held, ResumableDistributedSampler)}


class _Line:
    """What the managers that this process has for the same objects in the same folder know, and write, together.

    One that is made anew each epoch, or by a handler, is the same run, and no stranger to the others.
    """

    def __init__(self, directory: Path) -> None:
        self.lineage = Lineage(directory)
        self.background = Background()


_lines: WeakValueDictionary[tuple[Any, ...], _Line] = WeakValueDictionary()


def _line_of(directory: Path, objects: Mapping[str, Stateful]) -> _Line:
    # an object's id stays its own as long as a manager holds it, and no line is left without one
    key = (os.getpid(), os.path.realpath(directory), *((name, id(held)) for name, held in sorted(objects.items())))
    return _lines.setdefault(key, _Line(directory))


def _load_each(objects: Mapping[str, Stateful], states: Mapping[str, Any], loaded: list[str]) -> None:
    """Load each object, and note in ``loaded`` that it was."""
    for name, held in objects.items():
        held.load_state_dict(states[name])
        loaded.append(name)


def _part(rank: int, data: bytes) -> dict[str, Any]:
    try:
        part: dict[str, Any] = json.loads(data)
    except ValueError as error:
        raise SaveError(
            f"rank {rank} sent what is no part of a record: {error}. Nothing is saved: not written"
        ) from None
    return part


def _is_ranked(held: Any) -> bool:
    """Whether an object knows the data-parallel rank it is on, as samplers do."""
    return type(getattr(held, "rank", None)) is int and type(getattr(held, "num_replicas", None)) is int


def _named(given: ResumableDistributedSampler | Mapping[str, Stateful]) -> dict[str, Any]:
    objects = dict(given) if isinstance(given, Mapping) else {"sampler": given}
    if not objects:
        raise ValueError("nothing to keep a record of; pass a sampler, or a dict of objects by name")
    for name, held in objects.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"names must be strings, got {name!r}")
        samplers = [getattr(place, "sampler", None) for place in (held, getattr(held, "batch_sampler", None))]
        if any(isinstance(sampler, ResumableDistributedSampler) for sampler in samplers):
            raise TypeError(
                f"{name!r} is a {type(held).__name__}, and its sampler knows how far it has come: pass loader.sampler"
            )
        if not callable(getattr(held, "state_dict", None)) or not callable(getattr(held, "load_state_dict", None)):
            raise TypeError(f"{name!r} has no state_dict and load_state_dict, got {type(held).__name__}")
    return objects
