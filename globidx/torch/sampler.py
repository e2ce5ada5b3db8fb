"""The sampler that takes ``DistributedSampler``'s place and can stop anywhere."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from torch.utils.data.distributed import DistributedSampler

from globidx.core import checks, partition
from globidx.core.orders import Order, Sequential, Shuffle
from globidx.core.partition import TAILS, Tail
from globidx.core.progress import Progress
from globidx.core.ranges import Ranges
from globidx.core.standing import Standing
from globidx.core.state import SamplerState
from globidx.errors import CommitError
from globidx.torch.cursor import Cursor, SampleIterator
from globidx.torch.distributed import World
from globidx.torch.readers import Loop, Readers


class ResumableDistributedSampler(DistributedSampler[Any]):
    """A ``DistributedSampler`` that can stop at any step and resume on any number of ranks, each sample once an epoch.

    ``dataset`` is anything with ``len()``. ``num_replicas``, ``rank``, ``shuffle``, ``seed`` and ``drop_last`` mean
    what they mean in torch. ``group`` or ``mesh`` name the data-parallel ranks where they are not the default group;
    all of this is asked when it is first needed. ``order`` (``globidx.orders``) replaces ``Shuffle`` or ``Sequential``.
    ``tail`` says what happens when the ids do not divide by the ranks: ``"pad"`` repeats a few at the end so that all
    ranks yield equally many, ``"drop"`` leaves them out, ``"exact"`` yields each id once.

    What counts is what is *committed*: ids whose batch the training loop has had. ``globidx.DataLoader`` commits by
    itself; with another loader call ``commit(len(batch))``. Every ``iter()`` starts after the committed ids, so
    throw-away iterators cost nothing.

    >>> sampler = ResumableDistributedSampler(range(10), num_replicas=2, rank=0, shuffle=False)
    >>> list(sampler)
    [0, 2, 4, 6, 8]
    >>> sampler.commit(2)                               # both ranks have trained on two: 0, 1, 2, 3
    >>> record = sampler.state_dict()
    >>> for rank in range(3):                           # go on with three ranks
    ...     resumed = ResumableDistributedSampler(range(10), num_replicas=3, rank=rank, shuffle=False)
    ...     resumed.load_state_dict(record)
    ...     list(resumed)
    [4, 7]
    [5, 8]
    [6, 9]
    """

    def __init__(
        self,
        dataset: Any,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        *,
        tail: Tail | None = None,
        order: Order | None = None,
        group: Any = None,
        mesh: Any = None,
    ) -> None:
        # torch's __init__ is not called: it asks for rank and world size at once, and copies what are properties here.
        world = World(num_replicas, rank, group, mesh)
        if None not in (num_replicas, rank):
            world.resolve()
        self._standing = Standing(
            dataset, _order(order, shuffle), checks.integer(seed, "seed"), _tail(tail, drop_last), world
        )
        self._readers = Readers()
        self._loaded_epoch = 0  # epochs below it are finished, says the record that was loaded
        self._passed_over: int | None = None  # such an epoch, if set_epoch asked for it again
        self._warned = False

    # -- what it is

    @property
    def dataset(self) -> Any:  # type: ignore[override]
        """What it samples from: anything with ``len()``."""
        return self._standing.dataset

    @property
    def seed(self) -> int:  # type: ignore[override]
        """The seed of the order."""
        return self._standing.seed

    @property
    def rank(self) -> int:  # type: ignore[override]
        """This process's rank among the data-parallel ranks."""
        return self._standing.ranks.resolve()[0]

    @property
    def num_replicas(self) -> int:  # type: ignore[override]
        """World size: how many data-parallel ranks there are."""
        return self._standing.ranks.resolve()[1]

    @property
    def epoch(self) -> int:  # type: ignore[override]
        """The epoch that ``iter`` reads. A pass whose every id was committed has moved on to the next."""
        return self._standing.state.epoch if self._passed_over is None else self._passed_over

    @property
    def shuffle(self) -> bool:  # type: ignore[override]
        """Whether the order is another than the ids' own."""
        return not isinstance(self._standing.order, Sequential)

    @property
    def drop_last(self) -> bool:  # type: ignore[override]
        """Whether ids that do not divide by the ranks are left out."""
        return self._standing.tail == "drop"

    @property
    def order(self) -> Order:
        """The order in use."""
        return self._standing.order

    @property
    def tail(self) -> Tail:
        """``"pad"``, ``"drop"`` or ``"exact"``."""
        return self._standing.tail

    def __len__(self) -> int:
        """Ids of this rank in this epoch: those already done, on whatever world size, and those still to do."""
        state, rank = self._shown()
        return state.progress.per_rank + state.stream_length(rank)

    @property
    def num_samples(self) -> int:  # type: ignore[override]
        """``len()`` of this sampler, as torch names it."""
        return len(self)

    @property
    def total_size(self) -> int:  # type: ignore[override]
        """Ids of all ranks together, padding included, as torch names it."""
        if self.tail == "exact":
            progress = self._shown()[0].progress
            return progress.length - progress.skipped
        return len(self) * self.num_replicas

    @property
    def num_valid(self) -> int:
        """How many of this rank's ``len()`` ids are real: the rest, at its very end, is padding."""
        state, rank = self._shown()
        share = partition.share(state.progress.remaining, rank=rank, world_size=state.world_size)
        return state.progress.per_rank + min(share, state.stream_length(rank))

    @property
    def remaining(self) -> int:
        """Ids of the epoch not yet committed by all ranks together, if the others keep step with this one."""
        self._readers.settle()
        return self._at()[0].closed().remaining

    @property
    def skipped(self) -> Ranges:
        """The ids that are left out, of this epoch or from the next segment on."""
        return self._standing.state.skip

    @property
    def quarantined(self) -> Ranges:
        """The ids that could not be read, in this run and those it goes on from: others stood in for them.

        They count as delivered. ``skip(sampler.quarantined)`` leaves them out from the next segment on. Each rank knows
        what its own loop was given, until ``CheckpointManager.save`` tells it the others', or it loads a merged record.
        """
        self._readers.settle()
        return self._standing.state.quarantined

    # -- reading

    def __iter__(self) -> Iterator[int]:
        """This rank's ids of the epoch not committed yet; it raises when touched after the sampler moved on."""
        self._begin_pass()
        if self._passed_over is not None:
            return self._empty_pass()
        if self._readers.only_drawn and not self._warned:
            self._warned = True
            warnings.warn(
                f"epoch {self.epoch} was read to its end and nothing of it committed, so it is read again in the same "
                "order; use globidx.DataLoader, or call sampler.commit(len(batch)) after every batch, or "
                "sampler.set_epoch(epoch)",
                stacklevel=2,
            )
        cursor = Cursor()
        self._point(cursor)
        return SampleIterator.over(self, cursor)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch to read.

        The running epoch keeps its progress. An epoch that a loaded record calls finished gives one empty pass and a
        warning; any other starts afresh.
        """
        chosen = checks.integer(epoch, "epoch")
        if chosen != self.epoch:
            self._readers.move(f"was set to epoch {chosen}")
        self._passed_over = None
        if chosen < self._loaded_epoch:
            self._passed_over = chosen
            warnings.warn(
                f"epoch {chosen} is finished, says the loaded record, which stands in epoch {self._loaded_epoch}; "
                "its pass will be empty. Start the loop at sampler.epoch, or call reset() to train on it again",
                stacklevel=2,
            )
        elif chosen != self._standing.state.epoch:
            self._standing.begin(chosen)

    # -- progress

    def commit(self, count: int) -> None:
        """Say that the training loop has had ``count`` more of this rank's ids (padding included).

        CommitError if this rank had fewer left in the epoch, or where a ``globidx.DataLoader`` commits by itself.
        """
        amount = checks.integer(count, "count")
        if not self._readers.counted_by(None):
            raise CommitError(
                "commit() while a loop runs over a globidx.DataLoader, which commits by itself; leave it out"
            )
        self.commit_delivered(amount)

    def skip(self, ids: Any) -> None:
        """Leave samples out, such as bad data found during a run: from the next epoch or resume on, for the rest of the
        run.

        ``ids`` is an id, a range, or an iterable of ids, ranges and (start, stop) pairs; IndexError outside the
        dataset. What is left out keeps its position, so no other sample moves. Tell every rank, or save with
        ``CheckpointManager``, whose record unites the ranks' lists; ranks that begin an epoch with different lists are
        refused at the next save.
        """
        self._standing.skip(Ranges.of(ids))

    def quarantine(self, ids: Any) -> None:
        """List ids that were delivered, but as other samples in their place; ``globidx.DataLoader`` does so by itself.

        ``ids`` are given as to ``skip``. Nothing else changes; each rank tells its own, and a merge unites the lists.
        """
        self._standing.quarantine(Ranges.of(ids))

    def finish_epoch(self) -> None:
        """End the epoch here, on every rank, whatever is left of it: the next one starts, with nothing done."""
        self._finish(ended=False)

    def _finish(self, *, ended: bool) -> None:
        self._readers.move(f"finished epoch {self.epoch}")
        if self._passed_over is not None:
            following = self._passed_over + 1
            self._passed_over = following if following < self._loaded_epoch else None
        else:
            self._standing.begin(self._standing.state.epoch + 1, ended=ended)

    def reset(self) -> None:
        """Forget all progress: the epoch that was set starts over, also one that a loaded record calls finished."""
        epoch = self.epoch
        self._readers.move("was reset")
        self._passed_over, self._loaded_epoch = None, 0
        self._standing.begin(epoch)

    def state_dict(self) -> dict[str, Any]:
        """How far the epoch has come if all ranks keep step: fresh JSON values, the same on every rank, no collective.

        Only what was quarantined is this rank's own. Loads on any world size. Ranks that do not keep step need
        ``merge_states`` or ``CheckpointManager``.
        """
        self._readers.settle()
        state, rank = self._at()
        return state.normal(rank).to_state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, this sampler's or another's, of any world size; RecordMismatchError if it was another
        run's.
        """
        loaded = self._standing.refuse_other_run(state)
        self._readers.move("was loaded with a record")
        self._standing.load(loaded)
        self._passed_over, self._loaded_epoch = None, self._standing.state.epoch

    def __getstate__(self) -> dict[str, Any]:
        """For a copy in another process.

        The same position, no iterators, and rank and world size as far as they are known.
        """
        self._readers.settle()
        standing = copy.copy(self._standing)
        standing.ranks = standing.ranks.for_child()
        return self.__dict__ | {"_standing": standing, "_readers": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._readers = Readers()

    # -- what its iterators, loaders and checkpoints ask

    @property
    def generation(self) -> int:
        """Number of the pass; another one means that loops of before are stale."""
        return self._readers.generation

    def begin_pass(self, loop: Loop) -> bool:
        """Let ``loop`` count deliveries from here on; True where there is nothing to count: the pass is empty."""
        self._begin_pass()
        self._readers.count_by(loop)
        return self._passed_over is not None

    def expect(self, *, workers: int, batch_size: int) -> None:
        """Be told how the loader reads that begins a pass: an epoch of which nothing was taken is planned for it."""
        self._standing.loading = workers, batch_size

    def is_counted_by(self, loop: Loop) -> bool:
        """Whether ``loop`` is the one that counts deliveries."""
        return self._readers.counted_by(loop)

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Held while deliveries are counted."""
        return self._readers.lock

    def commit_delivered(self, amount: int) -> None:
        """``commit`` for the loop that counts."""
        if not amount:
            return
        if self._passed_over is not None:
            raise CommitError(f"commit({amount}) in epoch {self._passed_over}, which is finished: its pass is empty")
        with self._readers.lock:
            state, rank = self._at()
            if self._readers.dealt_to not in (None, state.world_size):
                raise self._standing.other_world(self._readers.dealt_to, state.world_size)
            self._readers.told = True
            self._standing.state = state.commit(amount, rank)
            if self._standing.state.is_complete(rank):
                self.end_pass()

    def end_pass(self) -> None:
        """The epoch is done on this rank: a merge with ranks still in it will know that it was not just left."""
        finished, passed_over = self._standing.state.epoch, self._passed_over
        self._finish(ended=True)
        if passed_over is None:
            self._standing.state = replace(self._standing.state, finished_epoch=finished)

    def refuse_other_run(self, state: Mapping[str, Any]) -> SamplerState:
        """``state``, parsed; RecordMismatchError where it is another run's. Changes nothing."""
        return self._standing.refuse_other_run(state)

    def refuse_untold(self) -> None:
        """CommitError where ids were handed out and nobody tells whether they were delivered."""
        if self._readers.untold:
            raise CommitError(
                f"ids of epoch {self.epoch} were drawn, but nobody said which were delivered, so a record of it would "
                "repeat them all; use globidx.DataLoader, or call sampler.commit(len(batch)) after every batch"
            )

    def state_of(self, cursor: Cursor) -> dict[str, Any]:
        """The record as if all ids that ``cursor`` issued were committed; of an earlier pass it has none to tell of."""
        if not self._readers.knows(cursor):
            return self.state_dict()
        state, rank = self._at()
        return replace(state, committed=cursor.issued).normal(rank).to_state()

    def load_into(self, cursor: Cursor, state: Mapping[str, Any]) -> None:
        """Load ``state``, and point ``cursor`` at what it leaves to do.

        Where that was the last of the epoch that the sampler is set to, it is nothing, and the next pass is the next
        epoch's: a loader that loads only when its loop begins must not run another epoch than its loop was told.
        """
        epoch = self.epoch
        self.load_state_dict(state)
        if self._standing.state.progress.committed or state["finished_epoch"] != epoch:
            self._point(cursor)
        else:
            cursor.empty()

    # -- inside

    def _at(self) -> tuple[SamplerState, int]:
        """The state at the world size of now, and this rank."""
        if self._standing.look(untouched=self._readers.untouched):
            self._readers.move("began its epoch anew, with other files, ranks or workers")
        return self._standing.now()

    def _shown(self) -> tuple[SamplerState, int]:
        """The state that sizes speak of; an epoch that is passed over is shown whole."""
        state, rank = self._at()
        if self._passed_over is None:
            return state, rank
        return replace(state, progress=Progress(state.progress.length), committed=0), rank

    def _point(self, cursor: Cursor) -> None:
        """Set ``cursor`` to what this rank has left to do."""
        state, rank = self._at()
        view = self._standing.view()

        def ids(start: int, stop: int) -> list[int]:
            self._readers.drawn(cursor, state.world_size)
            block: list[int] = view.stream(start, stop, rank=rank, world_size=state.world_size).tolist()
            return block

        cursor.point_at(ids, state.committed, state.stream_length(rank))
        self._readers.add(cursor)

    def _begin_pass(self) -> None:
        """A pass begins: not of an epoch that is done, and, where nothing of it was taken yet, without the ids to skip.

        With an exact tail a rank may be done while others have one id more.
        """
        state, rank = self._at()
        if self._passed_over is None and state.committed and state.committed == state.stream_length(rank):
            self.end_pass()
        if self._standing.look(untouched=True, skipping=True):  # what was only drawn of it does not count
            self._readers.move("began its epoch anew, with other files or skips")

    def _empty_pass(self) -> Iterator[int]:
        """Nothing to hand out; whoever has read that to its end has been through the epoch that is passed over."""
        generation = self.generation
        yield from ()
        if generation == self.generation:
            self.finish_epoch()


def _tail(tail: Tail | None, drop_last: bool) -> Tail:
    if not isinstance(drop_last, bool):
        raise TypeError(f"drop_last must be True or False, got {drop_last!r}")
    if tail is None:
        return "drop" if drop_last else "pad"
    if tail not in TAILS:
        raise ValueError(f"tail must be one of {', '.join(TAILS)}, got {tail!r}")
    if drop_last and tail != "drop":
        raise ValueError(f"drop_last=True and tail={tail!r} contradict each other; pass one of them")
    return tail


def _order(order: Order | None, shuffle: bool) -> Order:
    if not isinstance(shuffle, bool):
        raise TypeError(f"shuffle must be True or False, got {shuffle!r}; other orders go into order=")
    if order is None:
        return Shuffle() if shuffle else Sequential()
    if not isinstance(order, Order):
        raise TypeError(f"order must be one of globidx.orders, such as Shuffle(), got {order!r}")
    if not shuffle and not isinstance(order, Sequential):
        raise ValueError(f"shuffle=False and order={order!r} contradict each other; pass one of them")
    return order
