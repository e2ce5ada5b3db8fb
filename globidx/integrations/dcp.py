"""One record in a checkpoint of torch.distributed.checkpoint (DCP), for FSDP2 and torchtitan too.

DCP takes a state apart, and of a value that several ranks have under one name it keeps one, of any
rank. So what it is given here is one string, which every rank has made of all ranks' progress.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from globidx.core.records import record
from globidx.core.records.gather import united
from globidx.errors import RecordCorruptError
from globidx.torch.ranks.agreement import Agreement
from globidx.torch.stateful import Objects, Stateful

_KEY = "record"


class ResumableState:
    """The progress of all ranks as one string, which DCP saves and loads on any number of ranks.

    Parameters
    ----------
    sampler_or_dict_of_stateful : ResumableDistributedSampler or dict
        One sampler, or objects by name, as ``CheckpointManager`` takes them.
    group : ProcessGroup, optional
        The ranks that call ``dcp.save`` together, by default all ranks of the job.
    timeout : float, default 60.0
        Seconds within which the ranks must meet.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or out of range.

    Notes
    -----
    ``dcp.save``, ``dcp.async_save`` and ``dcp.load`` ask for the state, on every rank and before
    any thread of theirs begins. The ranks then gather over connections of their own, so an
    asynchronous save does not meet them.

    Examples
    --------
    >>> from globidx import ResumableDistributedSampler
    >>> sampler = ResumableDistributedSampler(range(10), 1, 0, shuffle=False)
    >>> sampler.commit(6)
    >>> state = ResumableState(sampler).state_dict()
    >>> resumed = ResumableDistributedSampler(range(10), 1, 0, shuffle=False)
    >>> ResumableState(resumed).load_state_dict(state)
    >>> list(state), list(resumed)
    (['record'], [6, 7, 8, 9])
    """

    def __init__(
        self,
        sampler_or_dict_of_stateful: Stateful | Mapping[str, Stateful],
        *,
        group: Any = None,
        timeout: float = 60.0,
    ) -> None:
        self._objects = Objects(sampler_or_dict_of_stateful)
        self._ranks = Agreement(group, timeout, purpose="dcp")

    def state_dict(self) -> dict[str, str]:
        """The record of all ranks as one string, the same on every rank.

        Collective: every rank calls it, even if they have progressed by different amounts. Nothing
        changes. The batch that a loop holds is in the record.

        Returns
        -------
        dict
            The string under one key.

        Raises
        ------
        globidx.errors.CommitError
            If deliveries were not reported.
        globidx.errors.RecordMismatchError
            If a rank's state is of another run; the message names the rank and the first
            difference.
        globidx.errors.LostRankError
            If a rank is gone, or did not call this in time.

        Examples
        --------
        >>> from globidx import ResumableDistributedSampler
        >>> sampler = ResumableDistributedSampler(range(10), 1, 0)
        >>> json.loads(ResumableState(sampler).state_dict()["record"])["states"]["sampler"]["epoch"]
        0
        """
        with self._ranks.turn("save"):
            parts = self._ranks.gather(self._own_part)
            text: str = self._ranks.broadcast(lambda: self._record_of(parts))
        return {_KEY: text}

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        """Go on from what ``state_dict`` returned, on any number of ranks. No collective.

        Parameters
        ----------
        state : Mapping
            The string under its key.

        Raises
        ------
        globidx.errors.RecordCorruptError
            If it is no whole record.
        globidx.errors.RecordMismatchError
            If it is of another run.

        Examples
        --------
        >>> from globidx import ResumableDistributedSampler
        >>> sampler = ResumableDistributedSampler(range(10), 1, 0)
        >>> progress = ResumableState(sampler)
        >>> state = progress.state_dict()
        >>> sampler.commit(6)
        >>> progress.load_state_dict(state)
        >>> sampler.remaining
        10
        """
        text = state.get(_KEY)
        if not isinstance(text, str):
            raise RecordCorruptError(
                f"the state of a checkpoint must have a string under {_KEY!r}, got {state!r:.80}; "
                "pass what ResumableState.state_dict returned"
            )
        # what is no UTF-8 is damage, which the checksum finds
        loaded = record.decode(text.encode(errors="replace"), "the record in the checkpoint")
        self._objects.refuse_other_run(loaded["states"])
        self._objects.load(loaded["states"], lambda load: load())

    # -- inside

    def _own_part(self) -> dict[str, Any]:
        """What this rank brings; CommitError where its deliveries are not reported."""
        for held in self._objects.samplers.values():
            held._ledger.refuse_unreported()
        with self._objects.still():
            states = self._objects.states()
        # the checkpoint has the step, and DCP does not say which it is
        return {"step": 0, "states": states, "ranks": self._objects.ranks()}

    def _record_of(self, parts: list[bytes]) -> str:
        """The parts of all ranks as one sealed record: DCP has no checksum of its own."""
        states = united([json.loads(part) for part in parts], self._objects.merges())
        sealed = record.build(number=0, token="0" * 12, step=0, time="", states=states, extras={})
        return record.encode(sealed).decode()
