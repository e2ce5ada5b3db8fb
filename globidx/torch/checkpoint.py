"""Checkpoints: the progress of all ranks as one record, for any number of ranks to start from."""

from __future__ import annotations

import copy
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.data import get_worker_info

from globidx.core import validate
from globidx.core.datasets.identity import unidentified
from globidx.core.json import strict
from globidx.core.records import record
from globidx.core.records.policies import Keep
from globidx.disk.records.archive import Archive
from globidx.errors import SaveError
from globidx.torch.ranks.agreement import Agreement
from globidx.torch.stateful import Objects, Stateful

_log = logging.getLogger("globidx")
_IN_DOUBT = "The record may be there all the same: written, durability unknown"


class CheckpointManager:
    """Keeps records of a run in a folder, one JSON file each, and brings a run back to the newest.

    Parameters
    ----------
    directory : str or Path
        The folder; it is made at the first save.
    sampler_or_dict_of_stateful : ResumableDistributedSampler or dict
        One sampler, or objects by name: samplers, streams, and anything whose ``state_dict`` is JSON
        values. Of a ``GlobalStream`` the record holds the sampler.
        If such an object differs by rank it needs ``merge_states(states)``, which makes one state
        of all ranks'.
    keep_last : int, default 3
        How many of the newest records stay.
    keep : callable, optional
        One of ``globidx.policies``, which chooses the records that stay instead of ``keep_last``.
    timeout : float, default 60.0
        Seconds within which each collective call returns or raises.
    group : ProcessGroup, optional
        The ranks that save together, by default all ranks of the job; tensor-parallel peers bring
        equal states. One manager writes to a folder: do not give each data-parallel group a manager
        of its own.
    durable : bool, default True
        Whether a record survives a power cut; ``False`` saves the fsyncs.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type, out of range, or contradicts another.

    Notes
    -----
    ``save``, ``restore`` and ``wait`` are collective: every rank calls them, over connections of
    the manager's own. Rank 0 reads and writes.

    Examples
    --------
    >>> import tempfile
    >>> from globidx import ResumableDistributedSampler
    >>> folder = tempfile.TemporaryDirectory()
    >>> sampler = ResumableDistributedSampler(range(10), 1, 0, shuffle=False)
    >>> manager = CheckpointManager(folder.name, sampler)
    >>> manager.restore() is None                       # no record: a fresh run
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
        sampler_or_dict_of_stateful: Stateful | Mapping[str, Stateful],
        *,
        keep_last: int = 3,
        keep: Keep | None = None,
        timeout: float = 60.0,
        group: Any = None,
        durable: bool = True,
    ) -> None:
        if isinstance(sampler_or_dict_of_stateful, (str, os.PathLike)):
            raise TypeError(
                "the folder comes first: "
                f"CheckpointManager({os.fspath(sampler_or_dict_of_stateful)!r}, sampler), not "
                f"CheckpointManager({type(directory).__name__}, folder)"
            )
        self._directory = Path(directory)
        self._objects = Objects(sampler_or_dict_of_stateful)
        chosen = _keep(keep, keep_last)
        self._ranks = Agreement(group, timeout, purpose="records")
        # only rank 0 uses it, as it alone reads and writes
        self._archive = Archive(
            self._directory,
            self._objects.identities(),
            keep=chosen,
            durable=durable,
        )
        self._lineage = self._archive.lineage
        self._busy = threading.Lock()
        self._process = os.getpid()
        self._warned_unidentified = self._warned_unread = False
        # the record last saved or loaded, and this rank's own states at that time
        self._record: dict[str, Any] | None = None
        self._states: dict[str, Any] | None = None

    def __repr__(self) -> str:
        at = "no record yet" if self._record is None else f"record {self._record['id']}"
        return (
            f"CheckpointManager({str(self._directory)!r}, {', '.join(self._objects.by_name)}: {at})"
        )

    def save(
        self, step: int, extras: Mapping[str, Any] | None = None, *, blocking: bool = True
    ) -> str:
        """Gather every rank's state and publish one record.

        Collective: all ranks return, or all raise.

        Parameters
        ----------
        step : int
            The training step, the same on every rank.
        extras : Mapping, optional
            JSON values to keep in the record; those of rank 0 are.
        blocking : bool, default True
            If False, return when the content of the record is fixed, and write it in the
            background. A failure is raised, on every rank, by the next ``save``, ``restore`` or
            ``wait``.

        Returns
        -------
        str
            The id of the record, the same on every rank.

        Raises
        ------
        globidx.errors.CommitError
            If deliveries were not reported.
        globidx.errors.RecordMismatchError
            If a rank's state is of another run; the message names the rank and the first
            difference.
        globidx.errors.LostRankError
            If a rank is gone or did not come in time; ``ranks`` names it.
        globidx.errors.SaveError
            If the record could not be written, or another run has written into the folder;
            ``state`` tells whether a record may be on disk all the same.

        Examples
        --------
        >>> from globidx import ResumableDistributedSampler
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     manager = CheckpointManager(folder, ResumableDistributedSampler(range(10), 1, 0))
        ...     manager.save(step=7)[:9]
        '00000000-'
        """
        with self._turn("save", f"{step!r:.40}"):
            own: dict[str, Any] = {}
            parts = self._ranks.gather(lambda: own.update(self._own_part(step, extras)) or own)
            saved: dict[str, Any] = self._ranks.broadcast(
                lambda: self._archive.publish(
                    parts,
                    self._objects.merges(),
                    blocking=blocking,
                    patience=self._ranks.patience,
                ),
                lost=_IN_DOUBT,
            )
        self._record = saved
        self._states = self._objects.learn_quarantined(saved["states"], own["states"])
        self._warn_of_unidentified_datasets()
        self._warn_of_unread_samplers(saved["step"])
        id: str = saved["id"]
        return id

    def wait(self) -> None:
        """Return when all that was saved is written. Collective.

        Raises
        ------
        globidx.errors.SaveError
            On every rank, if a record that was saved with ``blocking=False`` could not be written.

        Examples
        --------
        >>> from globidx import ResumableDistributedSampler
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     manager = CheckpointManager(folder, ResumableDistributedSampler(range(10), 1, 0))
        ...     id = manager.save(step=7, blocking=False)
        ...     manager.wait()
        """
        with self._turn("wait"):
            self._ranks.broadcast(
                lambda: self._archive.settle(self._ranks.patience), lost=_IN_DOUBT
            )

    def restore(self, expect: str | None = None, fallback: bool = False) -> dict[str, Any] | None:
        """Load the newest record into the objects.

        Collective: rank 0 reads for all; all ranks load, or none does.

        Parameters
        ----------
        expect : str, optional
            The id that the record must have, as a model checkpoint remembers it.
        fallback : bool, default False
            If the newest record is damaged, take the newest whole one before it. The log, and
            ``"passed_over"`` of the result, name the damaged ones.

        Returns
        -------
        dict or None
            The record, or None if there is none.

        Raises
        ------
        globidx.errors.RecordMismatchError
            If the record has another id than expected, or is of another run.
        globidx.errors.RecordCorruptError
            If the newest record is damaged, without ``fallback``.

        Examples
        --------
        >>> from globidx import ResumableDistributedSampler
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     manager = CheckpointManager(folder, ResumableDistributedSampler(range(10), 1, 0))
        ...     id = manager.save(step=7, extras={"loss": 0.5})
        ...     manager.restore(expect=id)["extras"]
        {'loss': 0.5}
        """
        with self._turn("restore"):
            requests = self._ranks.gather(lambda: [expect, bool(fallback)])
            newest, passed_over = self._ranks.broadcast(
                lambda: self._archive.find(requests, self._ranks.patience)
            )
            if newest is None:
                return None
            # asked on all ranks before any loads: a refusal must leave every rank as it was
            self._ranks.gather(lambda: self._objects.refuse_other_run(newest["states"]))
            self._objects.load(newest["states"], self._ranks.gather)
            self._remember(newest)
        self._warn_of_unidentified_datasets()
        return {**newest, "passed_over": passed_over} if passed_over else newest

    def state_dict(self) -> dict[str, Any]:
        """The whole record, the same on every rank, for a model checkpoint to hold.

        No collective; nothing changes.

        Returns
        -------
        dict
            The record last saved or, if the run has gone on since, an unsaved one, for which all
            ranks are assumed to have progressed equally: save first if they may not have. ``text``
            is all of the record as one string, because torch.distributed.checkpoint may lose parts
            of the rest.

        Examples
        --------
        >>> from globidx import ResumableDistributedSampler
        >>> manager = CheckpointManager("run", ResumableDistributedSampler(range(10), 1, 0))
        >>> manager.state_dict()["states"]["sampler"]["remaining"]
        10
        """
        with self._objects.still():
            states = self._objects.states()
        # compared by value: whether the run has gone on since is not asked of any clock or counter
        if self._record is None or states != self._states:
            last = self._record or {"number": 0, "step": 0}
            unsaved = record.build(
                number=last["number"],
                token="0" * 12,
                step=last["step"],
                time="",
                states=states,
                extras={},
            )
            return record.carried(unsaved)
        return record.carried(copy.deepcopy(self._record))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned, or a record. No collective.

        Parameters
        ----------
        state : Mapping
            A record.

        Raises
        ------
        globidx.errors.RecordCorruptError
            If it is damaged.
        globidx.errors.RecordMismatchError
            If it is of another run.

        Examples
        --------
        >>> from globidx import ResumableDistributedSampler
        >>> sampler = ResumableDistributedSampler(range(10), 1, 0)
        >>> manager = CheckpointManager("run", sampler)
        >>> sampler.commit(6)
        >>> state = manager.state_dict()
        >>> sampler.reset()
        >>> manager.load_state_dict(state)
        >>> sampler.remaining
        4
        """
        loaded = record.uncarried(state, "the given state")
        self._objects.refuse_other_run(loaded["states"])
        self._objects.load(loaded["states"], lambda load: load())
        self._remember(loaded)
        # a run that goes on from a carried record goes on with the records in the folder
        self._lineage.look()

    # -- inside

    @contextmanager
    def _turn(self, call: str, what: str = "") -> Iterator[None]:
        """Make one call at a time.

        SaveError, before anybody is waited for, if it cannot be made here.
        """
        # a forked child has its parent's connections, and would talk as its rank
        if get_worker_info() is not None or os.getpid() != self._process:
            raise SaveError(
                f"{call}() in another process than the one that made the manager, such as a "
                "DataLoader's worker, which is no rank; call it in the training loop. Nothing "
                "was saved: not written"
            )
        # not waited for: below a handler the call that holds it could never go on
        if not self._busy.acquire(blocking=False):
            raise SaveError(
                f"{call}() while another save, restore or wait of this manager is under way, in "
                "another thread or below this signal handler; make one call after the other, and "
                "let a handler set a flag, as PreemptionGuard's does. Nothing was saved: not "
                "written"
            )
        try:
            with self._ranks.turn(call, what):
                yield
        finally:
            self._busy.release()

    def _warn_of_unread_samplers(self, step: int) -> None:
        """Log on rank 0, once, that steps were made and no sampler was ever read.

        The loader has another one.
        """
        samplers = self._objects.samplers.values()
        # before the first step a record may say that nothing was trained on
        unread = step and samplers and not any(held._ledger.was_read for held in samplers)
        if unread and not self._warned_unread and not self._ranks.rank:
            self._warned_unread = True
            _log.warning(
                "saved at step %d, but nothing was ever read from %s of this manager, so the "
                "record says that nothing was trained on; pass it to the loader that trains: "
                "globidx.DataLoader(dataset, sampler=sampler)",
                step,
                "the sampler" if len(samplers) == 1 else "any sampler",
            )

    def _warn_of_unidentified_datasets(self) -> None:
        """Log on rank 0, once, that a record cannot tell a dataset from others of its length."""
        warned, self._warned_unidentified = self._warned_unidentified, True
        if warned or self._ranks.rank:
            return
        for name, held in self._objects.samplers.items():
            if unknown := unidentified(held.dataset):
                _log.warning(
                    "%s: %s, so a later run over other samples, or the same in another sequence, "
                    "would not be noticed; give the dataset a `fingerprint` "
                    "(globidx.IdentifiedDataset says how)",
                    name,
                    unknown,
                )

    def _own_part(self, step: int, extras: Mapping[str, Any] | None) -> dict[str, Any]:
        """What this rank brings to a save: its states, checked to be what a record can hold."""
        if not isinstance(extras, Mapping | None):
            raise TypeError(
                f"extras must be a mapping of names to JSON values, such as {{'loss': 0.5}}, got {extras!r:.80}"
            )
        with self._objects.still():
            self._objects.settle()
            states = self._objects.states()
        own = {
            "step": validate.integer(step, "step"),
            "states": states,
            "ranks": self._objects.ranks(),
            "extras": strict.plain(dict(extras or {}), "extras"),
        }
        # checked on every rank, kept from one: a metric differs by rank, and one value is recorded
        return own if self._ranks.rank == 0 else own | {"extras": {}}

    def _remember(self, loaded: dict[str, Any]) -> None:
        with self._objects.still():
            self._record, self._states = loaded, self._objects.states()


def _keep(keep: Keep | None, keep_last: int) -> Keep | int:
    if keep is not None and not callable(keep):
        raise TypeError(
            f"keep must be one of globidx.policies, such as policies.last(3), got {keep!r}"
        )
    if keep is not None and keep_last != 3:
        raise ValueError(
            f"keep= and keep_last={keep_last!r} both choose which records stay; give one of them, "
            "such as keep=policies.last(n) | policies.every(m)"
        )
    return keep or validate.integer(keep_last, "keep_last", low=1)
