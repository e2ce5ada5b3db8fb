"""The objects whose states a record holds: samplers, and others with ``state_dict``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from torch.utils.data import IterableDataset

from globidx.core.json import strict
from globidx.core.progress.merge import merge_states
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.state import SamplerState
from globidx.core.records.gather import Merge
from globidx.errors import RecordMismatchError
from globidx.torch.sampler import ResumableDistributedSampler


class Stateful(Protocol):
    """What a record can hold: an object whose state is JSON values, the same on every rank.

    If they differ by rank (the sums of a metric, say) it also has ``merge_states(states)``, which
    makes one state of all ranks', in rank order; every rank loads that one. An object with ``rank``
    and ``num_replicas`` gives one state for each of those ranks.
    """

    def state_dict(self) -> dict[str, Any]:
        """Its state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""


class Objects:
    """Objects by name, whose states make one record."""

    def __init__(self, given: Stateful | Mapping[str, Stateful]) -> None:
        self.by_name: dict[str, Any] = (
            dict(given) if isinstance(given, Mapping) else {"sampler": given}
        )
        self.by_name = {name: _with_progress(held) for name, held in self.by_name.items()}
        if not self.by_name:
            raise ValueError(
                "nothing to keep a record of; pass a sampler, or a dict of objects by name"
            )
        for name, held in self.by_name.items():
            _refuse_stateless(name, held)
        self.samplers = {
            name: held
            for name, held in self.by_name.items()
            if isinstance(held, ResumableDistributedSampler)
        }

    def identities(self) -> Iterator[tuple[str, int]]:
        """(name, id) of each object, the same for whoever holds these objects."""
        # Ids are not reused while they matter: the manager that was given these holds the objects.
        return ((name, id(self.by_name[name])) for name in sorted(self.by_name))

    def states(self) -> dict[str, Any]:
        """This rank's own states, as fresh JSON values."""
        states = {name: held.state_dict() for name, held in self.by_name.items()}
        for name, state in states.items():
            if not isinstance(state, dict):
                raise TypeError(
                    f"state_dict() of {name!r} must be a dict, got {type(state).__name__}"
                )
        # fresh values: a state that the object goes on to change must not change in the record
        plain: dict[str, Any] = strict.plain(states, "states")
        return plain

    def ranks(self) -> dict[str, list[int]]:
        """(rank, world size) of those objects that have them."""
        return {
            name: [held.rank, held.num_replicas]
            for name, held in self.by_name.items()
            if _is_ranked(held)
        }

    @contextmanager
    def still(self) -> Iterator[None]:
        """Keep all samplers as they are.

        A training loop in another thread waits with what it would commit.
        """
        with ExitStack() as stack:
            # in the same sequence as any other manager's thread would take the locks
            for held in sorted(self.samplers.values(), key=id):
                stack.enter_context(held._ledger.lock)
            yield

    def settle(self) -> None:
        """Commit the batches that the loops hold; CommitError where deliveries are not reported."""
        for held in self.samplers.values():
            held._ledger.settle()
            # after the settling, which is where a loop's last batch counts
            held._ledger.refuse_unreported()

    def learn_quarantined(self, saved: Mapping[str, Any], states: dict[str, Any]) -> dict[str, Any]:
        """List at this rank's samplers what any rank could not read; ``states`` with that in them.

        The loop may have gone on since, in another thread, so nothing else of the saved states is
        written back.
        """
        known = dict(states)
        for name, held in self.samplers.items():
            pairs = saved[name]["quarantined"]
            if pairs:
                held.quarantine(tuple(pair) for pair in pairs)
                known[name] = (
                    SamplerState.from_dict(states[name]).quarantine(Ranges.of(pairs)).to_dict()
                )
        return known

    def merges(self) -> dict[str, Merge]:
        """The function that makes one state of all ranks', for each object that has one."""
        own = {name: getattr(held, "merge_states", None) for name, held in self.by_name.items()}
        merges = {name: merge for name, merge in own.items() if callable(merge)}
        return merges | dict.fromkeys(self.samplers, merge_states)

    def refuse_other_run(self, states: Mapping[str, Any]) -> None:
        """RecordMismatchError if these are not the states of these objects; changes nothing."""
        if set(states) != set(self.by_name):
            raise RecordMismatchError(
                f"the record holds {sorted(states)}, this manager has {sorted(self.by_name)}; "
                "give it objects of the same names"
            )
        for name, held in self.samplers.items():
            try:
                held._ledger.tracker.check(states[name])
            except RecordMismatchError as error:
                named = RecordMismatchError(f"{name}: {error}")
                named.field = error.field
                raise named from None

    def load(self, states: Mapping[str, Any], do: Callable[[Callable[[], None]], Any]) -> None:
        """Load all objects.

        First the others, which may refuse; then samplers, which were asked before.

        ``do`` calls a function here, or on all ranks or none.
        """
        others = {name: held for name, held in self.by_name.items() if name not in self.samplers}
        # samplers can say in advance that they will load; of other objects that is not known
        before = {name: copy.deepcopy(held.state_dict()) for name, held in others.items()}
        loaded: list[str] = []
        try:
            do(lambda: _load_each(others, states, loaded))
        # Ctrl-C as well: half of the objects of a step and half of another is no state
        except BaseException:
            _load_each({name: others[name] for name in loaded}, before, [])
            raise
        do(lambda: _load_each(self.samplers, states, []))


def _load_each(
    objects: Mapping[str, Stateful], states: Mapping[str, Any], loaded: list[str]
) -> None:
    """Load each object, and append its name to ``loaded``."""
    for name, held in objects.items():
        held.load_state_dict(states[name])
        loaded.append(name)


def _is_ranked(held: Any) -> bool:
    """Whether an object knows its data-parallel rank, as samplers do."""
    return (
        type(getattr(held, "rank", None)) is int
        and type(getattr(held, "num_replicas", None)) is int
    )


def _with_progress(held: Any) -> Any:
    """The sampler of a stream, which has its progress; anything else as it is."""
    is_stream = isinstance(held, IterableDataset) and callable(getattr(held, "map_style", None))
    return held.map_style()[1] if is_stream else held


def _refuse_stateless(name: Any, held: Any) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(f"names must be strings, got {name!r}")
    # the usual mistake: a loader has a state_dict in some libraries, and it is not the sampler's
    owners = (held, getattr(held, "batch_sampler", None))
    if any(
        isinstance(getattr(owner, "sampler", None), ResumableDistributedSampler) for owner in owners
    ):
        raise TypeError(
            f"{name!r} is a {type(held).__name__}, whose sampler has the progress: pass "
            "loader.sampler"
        )
    if not callable(getattr(held, "state_dict", None)) or not callable(
        getattr(held, "load_state_dict", None)
    ):
        raise TypeError(
            f"{name!r} has no state_dict and load_state_dict, got {type(held).__name__}; a record "
            "holds a ResumableDistributedSampler, or a dict of objects that have both, by name"
        )
