"""The iterator of a sampler: it has a position of its own, and the sampler has what is committed.

Ids are computed in blocks, and ``itertools.chain`` yields them at C speed. The rest of the current
block shows how many were yielded, so the iterator knows its exact position. A sampler that moves on
empties the block of a stale iterator, which is then asked for the next block and raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import chain
from operator import length_hint
from typing import Any, Protocol, cast

from globidx.errors import CommitError, StaleIteratorError
from globidx.torch.loops import callers

# blocks grow by doubling: the first id is cheap, and so is the millionth
_FIRST_BLOCK, _LARGEST_BLOCK = 2**7, 2**14


class Watch(Protocol):
    """What iterators report to."""

    def ended(self, cursor: Cursor) -> None:
        """An iterator was asked for more than it has."""

    def dropped(self, cursor: Cursor) -> None:
        """An iterator is gone; it has yielded ``issued`` ids."""


class Cursor:
    """The ids ``[start, stop)`` of one rank's stream.

    They are computed block by block by ``ids(start, stop)``.
    """

    def __init__(self, watch: Watch, *, by_loader: bool = False) -> None:
        self._watch = watch
        # whether a loader asked for it
        self.by_loader = by_loader
        # the pass that it was pointed at
        self.generation = -1
        self.empty()

    def __del__(self) -> None:
        self._watch.dropped(self)

    def empty(self) -> None:
        """Have nothing (more) to yield."""
        self.point_at(lambda start, stop: [], 0, 0)

    def point_at(self, ids: Callable[[int, int], list[int]], start: int, stop: int) -> None:
        """Go on from ``start`` of another stream, or of this one again."""
        self._ids = ids
        self._next, self._stop = start, stop
        self._block: list[int] = []
        self._rest: Iterator[int] = iter(self._block)
        self._stale = ""

    @property
    def issued(self) -> int:
        """How many of the stream's ids were yielded, those before ``start`` included."""
        # a list iterator knows how many are left; nothing is counted for each id
        return self._next - length_hint(self._rest)

    @property
    def exhausted(self) -> bool:
        """Whether the last id was yielded."""
        return self.issued >= self._stop

    def invalidate(self, why: str) -> None:
        """Make the next touch raise, unless nothing is left to yield."""
        if not self.exhausted:
            self._stale = why
            # chain holds an iterator of this very list, which thus ends at once
            self._block.clear()

    def blocks(self) -> Iterator[Iterator[int]]:
        """The blocks that ``chain`` reads."""
        size = _FIRST_BLOCK
        while self._stale or self._next < self._stop:
            if self._stale:
                raise StaleIteratorError(
                    f"this iterator was made before its sampler {self._stale}, and its ids no "
                    "longer count; make a new one with iter()"
                )
            stop = min(self._next + size, self._stop)
            self._block = self._ids(self._next, stop)
            self._rest = iter(self._block)
            self._next = stop
            yield self._rest
            size = min(2 * size, _LARGEST_BLOCK)
        self._watch.ended(self)


class Source(Protocol):
    """The ledger of a sampler, as far as its iterators need it."""

    def as_issued_by(self, cursor: Cursor) -> AbstractContextManager[None]:
        """Let the sampler answer as if all ids that ``cursor`` issued were committed."""

    def load_into(self, cursor: Cursor, load: Callable[[], None]) -> None:
        """Load a record by calling ``load``, and point ``cursor`` at what it leaves to do."""


class Resumable(Protocol):
    """A sampler, as far as its iterators need it."""

    @property
    def num_replicas(self) -> int:
        """World size."""

    def state_dict(self) -> dict[str, Any]:
        """Its record."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a record."""


class SampleIterator(chain):  # type: ignore[type-arg]
    """The iterator of a sampler.

    Its ``state_dict`` is the sampler's record for the ids *issued* so far.

    torchdata's ``StatefulDataLoader`` asks for it when a batch of ids is sent to a worker, and
    returns the answer with that batch: there, the ids that were issued are exactly those that the
    loop was given.
    """

    _source: Source
    _cursor: Cursor
    _sampler: Resumable

    @classmethod
    def over(cls, source: Source, cursor: Cursor, sampler: Resumable) -> SampleIterator:
        """The iterator of ``sampler``, whose ledger is ``source``, that reads ``cursor``."""
        iterator: Any = cls.from_iterable(cursor.blocks())
        iterator._source, iterator._cursor = source, cursor
        iterator._sampler = sampler
        return cast(SampleIterator, iterator)

    # Both ask the sampler, and not its ledger: a subclass may write more into its record, and must
    # then be the one that reads it.

    def state_dict(self) -> dict[str, Any]:
        """The sampler's record as if all ids issued by this iterator were committed.

        If torchdata keeps it for some steps only, it also has what those between depend on.
        """
        with self._source.as_issued_by(self._cursor):
            record = self._sampler.state_dict()
        return {"record": record, "cut": self._cut()} if callers.keeps_some_states() else record

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load ``state`` into the sampler, and go on from there."""
        record, cut = (state["record"], state["cut"]) if "cut" in state else (state, None)
        replayed, now = callers.replayed_batches(), self._cut()
        if replayed and cut != now:
            raise CommitError(
                f"StatefulDataLoader read {replayed} batches after the state that it kept, and would "
                f"throw away as many after this load; but they were cut by (batch size, world size) = {cut} "
                f"and are by {now} now, so other samples would be lost. Load on as many ranks with "
                "the same batch size, save with snapshot_every_n_steps=1, or keep a record: "
                "sampler.commit(len(batch)) and CheckpointManager"
            )
        self._source.load_into(self._cursor, lambda: self._sampler.load_state_dict(record))

    def _cut(self) -> list[int]:
        """What decides which samples a batch has: batch size and world size."""
        return [callers.batch_size_of_torchdata(), self._sampler.num_replicas]
