"""The sampler that takes ``DistributedSampler``'s place and can stop anywhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakSet, ref

from torch.utils.data.distributed import DistributedSampler

from globidx.core import checks, partition
from globidx.core.orders import Arrangement, Order, Sequential, Shuffle
from globidx.core.partition import TAILS, Tail
from globidx.core.progress import Progress
from globidx.core.state import DatasetIdentity, SamplerState, merge
from globidx.errors import CommitError
from globidx.torch.cursor import Cursor, SampleIterator
from globidx.torch.distributed import World


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
        self.dataset = dataset
        self.seed = checks.integer(seed, "seed")
        self._tail = _tail(tail, drop_last)
        self._order = _order(order, shuffle)
        self._world = World(num_replicas, rank, group, mesh)
        if None not in (num_replicas, rank):
            self._world.resolve()
        self._loaded_epoch = 0  # epochs below it are finished, says the record that was loaded
        self._passed_over: int | None = None  # such an epoch, if set_epoch asked for it again
        self._warned = False
        self._generation = 0  # of passes: a number that an iterator can hold against the sampler's
        self._forget_iterators()
        self._begin(0)

    # -- what it is

    @property
    def rank(self) -> int:  # type: ignore[override]
        """This process's rank among the data-parallel ranks."""
        return self._world.resolve()[0]

    @property
    def num_replicas(self) -> int:  # type: ignore[override]
        """World size: how many data-parallel ranks there are."""
        return self._world.resolve()[1]

    @property
    def epoch(self) -> int:  # type: ignore[override]
        """The epoch that ``iter`` reads. A pass whose every id was committed has moved on to the next."""
        return self._epoch if self._passed_over is None else self._passed_over

    @property
    def shuffle(self) -> bool:  # type: ignore[override]
        """Whether the order is another than the ids' own."""
        return not isinstance(self._order, Sequential)

    @property
    def drop_last(self) -> bool:  # type: ignore[override]
        """Whether ids that do not divide by the ranks are left out."""
        return self._tail == "drop"

    @property
    def order(self) -> Order:
        """The order in use."""
        return self._order

    @property
    def tail(self) -> Tail:
        """``"pad"``, ``"drop"`` or ``"exact"``."""
        return self._tail

    def __len__(self) -> int:
        """Ids of this rank in this epoch: those already done, on whatever world size, and those still to do."""
        progress = self._shown()
        return progress.per_rank + self._length_of(progress)

    @property
    def num_samples(self) -> int:  # type: ignore[override]
        """``len()`` of this sampler, as torch names it."""
        return len(self)

    @property
    def total_size(self) -> int:  # type: ignore[override]
        """Ids of all ranks together, padding included, as torch names it."""
        if self._tail == "exact":
            return self._dataset.num_samples
        return len(self) * self.num_replicas

    @property
    def num_valid(self) -> int:
        """How many of this rank's ``len()`` ids are real: the rest, at its very end, is padding."""
        progress = self._shown()
        rank, world_size = self._world.resolve()
        share = partition.share(progress.remaining, rank=rank, world_size=world_size)
        return progress.per_rank + min(share, self._length_of(progress))

    @property
    def remaining(self) -> int:
        """Ids of the epoch not yet committed by all ranks together, if the others keep step with this one."""
        self._settle()
        return self._state().closed().remaining

    # -- reading

    def __iter__(self) -> Iterator[int]:
        """This rank's ids of the epoch not committed yet; it raises when touched after the sampler moved on."""
        self._leave_finished_pass()
        if self._passed_over is not None:
            return self._empty_pass()
        self._warn_if_only_drawn()
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
            self._move(f"was set to epoch {chosen}")
        if chosen < self._loaded_epoch:
            self._passed_over = chosen
            warnings.warn(
                f"epoch {chosen} is finished, says the loaded record, which stands in epoch {self._loaded_epoch}; "
                "its pass will be empty. Start the loop at sampler.epoch, or call reset() to train on it again",
                stacklevel=2,
            )
            return
        self._passed_over = None
        if chosen != self._epoch:
            self._begin(chosen)

    # -- progress

    def commit(self, count: int) -> None:
        """Say that the training loop has had ``count`` more of this rank's ids (padding included).

        CommitError if this rank had fewer left in the epoch.
        """
        amount = checks.integer(count, "count")
        if self._holder() is not None:
            raise CommitError(
                "commit() while a loop runs over a globidx.DataLoader, which commits by itself; leave the call out"
            )
        self.commit_delivered(amount)

    def finish_epoch(self) -> None:
        """End the epoch here, whatever is left of it: the next one starts, with nothing done."""
        self._move(f"finished epoch {self.epoch}")
        if self._passed_over is not None:
            following = self._passed_over + 1
            self._passed_over = following if following < self._loaded_epoch else None
        else:
            self._begin(self._epoch + 1, finished_epoch=self._epoch)

    def reset(self) -> None:
        """Forget all progress: the epoch that was set starts over, also one that a loaded record calls finished."""
        epoch = self.epoch
        self._move("was reset")
        self._passed_over, self._loaded_epoch = None, 0
        self._begin(epoch)

    def state_dict(self) -> dict[str, Any]:
        """How far the epoch has come if all ranks keep step: fresh JSON values, the same on every rank, no collective.

        Loads on any world size. Ranks that do not keep step need ``merge_states`` or ``CheckpointManager``.
        """
        self._settle()
        return self._state().to_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, this sampler's or another's, of any world size.

        RecordMismatchError if it was another run's.
        """
        loaded = SamplerState.from_dict(state)
        loaded.refuse_other_run(dataset=self.dataset, order=self._order.describe(), seed=self.seed)
        done = loaded.closed()
        if done.num_samples and not done.remaining:
            loaded = loaded.next_epoch()
            done = loaded.progress
        self._move("was loaded with a record")
        self._passed_over, self._loaded_epoch = None, loaded.epoch
        self._begin(loaded.epoch)
        if done.committed:  # an epoch that runs keeps its samples, also where files were appended since
            self._dataset, self._progress = loaded.dataset, done

    def __getstate__(self) -> dict[str, Any]:
        """For a copy in another process.

        The same position, no iterators, and rank and world size as far as they are known.
        """
        self._settle()
        state = self.__dict__ | {"_world": self._world.for_child(), "_arrangement": None}
        for name in ("_cursors", "_last", "_holder"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_iterators()

    # -- inside

    def _begin(self, epoch: int, finished_epoch: int | None = None) -> None:
        """Start ``epoch`` afresh, over the dataset as it is now."""
        self._epoch = epoch
        self._dataset = DatasetIdentity.of(self.dataset)
        self._progress = Progress(self._dataset.num_samples)
        self._arrangement: Arrangement | None = None
        self._committed = 0  # ids of this rank's stream, since the last load or the epoch's begin
        self._committed_at: int | None = None  # the world size they were dealt at
        self._finished_epoch = finished_epoch  # the epoch completed to get here
        self._told = False  # whether anybody tells of deliveries

    def _forget_iterators(self) -> None:
        self._cursors: WeakSet[Cursor] = WeakSet()
        self._last: Cursor | None = None  # the one last drawn from
        self._holder: Callable[[], Any] = _nobody  # a weak reference to the loader iterator whose loop may hold a batch

    def _move(self, why: str) -> None:
        """Leave this pass: whoever still holds an iterator of it learns so."""
        self._generation += 1
        for cursor in list(self._cursors):
            cursor.invalidate(why)
        self._forget_iterators()

    def _shown(self) -> Progress:
        """The progress that sizes speak of; an epoch that is passed over is shown whole."""
        return self._progress if self._passed_over is None else Progress(self._dataset.num_samples)

    def _length_of(self, progress: Progress) -> int:
        rank, world_size = self._world.resolve()
        if self._committed_at not in (None, world_size):
            raise CommitError(
                f"ids of epoch {self._epoch} were committed at world size {self._committed_at}, and it is {world_size} "
                "now; build the sampler anew and load the record to go on with other ranks"
            )
        return partition.stream_length(progress.remaining, rank=rank, world_size=world_size, tail=self._tail)

    def _point(self, cursor: Cursor) -> None:
        """Set ``cursor`` to what this rank has left to do."""
        rank, world_size = self._world.resolve()
        progress = self._progress
        if self._arrangement is None:
            self._arrangement = self._order.bind(self._dataset.num_samples, seed=self.seed, epoch=self._epoch)
        arrangement = self._arrangement

        def ids(start: int, stop: int) -> list[int]:
            self._last = cursor
            numbers = partition.stream(start, stop, remaining=progress.remaining, rank=rank, world_size=world_size)
            block: list[int] = arrangement.take_trusted(progress.select(numbers)).tolist()
            return block

        cursor.point_at(ids, self._committed, self._length_of(progress))
        self._cursors.add(cursor)

    # -- what loader and checkpoint ask

    @property
    def generation(self) -> int:
        """Number of the pass; another one means that iterators of before are stale."""
        return self._generation

    def begin_pass(self, loop: Any) -> bool:
        """Let ``loop`` count deliveries from here on, instead of any before it; True where there is nothing to count.

        ``loop.settle()`` is called when state is wanted. It is held weakly: a loop that was left holds nothing.
        """
        self._leave_finished_pass()
        self._holder, self._told = ref(loop), True
        return self._passed_over is not None

    def is_counted_by(self, loop: Any) -> bool:
        """Whether ``loop`` is the one that counts deliveries."""
        return self._holder() is loop

    def commit_delivered(self, amount: int) -> None:
        """``commit`` for the loop that counts."""
        length = 0 if self._passed_over is not None else self._length_of(self._progress)
        left = max(0, length - self._committed)
        if amount > left:
            raise CommitError(
                f"commit({amount}), but this rank has only {left} ids left in epoch {self.epoch}; "
                "commit each batch once, with the number of ids in it"
            )
        if amount:
            self._told = True
            self._committed_at = self.num_replicas
            self._committed += amount
            everyone = self._committed * self.num_replicas  # an exact tail may leave other ranks one id more
            if self._committed == length and (self._tail == "drop" or everyone >= self._progress.remaining):
                self.finish_epoch()

    def refuse_untold(self) -> None:
        """CommitError where ids were handed out and nobody tells whether they were delivered."""
        if self._is_untold():
            raise CommitError(
                f"ids of epoch {self._epoch} were drawn, but nobody said which were delivered, so a record of "
                "it would repeat them all; use globidx.DataLoader, or call sampler.commit(len(batch)) after every batch"
            )

    # -- inside: passes

    def _leave_finished_pass(self) -> None:
        """With an exact tail a rank may be done while others have one id more; its next pass is the next epoch's."""
        if self._passed_over is None and self._committed and self._committed == self._length_of(self._progress):
            self.finish_epoch()

    def _empty_pass(self) -> Iterator[int]:
        generation = self._generation
        yield from ()
        if generation == self._generation:
            self.finish_epoch()

    def _settle(self) -> None:
        """Commit the batch that a loader's loop holds, if one does."""
        holder = self._holder()
        if holder is not None:
            holder.settle()

    def _is_untold(self) -> bool:
        """Whether ids were handed out and nobody tells whether they were delivered."""
        return self._last is not None and not self._told

    def _warn_if_only_drawn(self) -> None:
        if self._is_untold() and self._last is not None and self._last.exhausted and not self._warned:
            self._warned = True
            warnings.warn(
                f"epoch {self._epoch} was read to its end and nothing of it committed, so it is read again in the "
                "same order; use globidx.DataLoader, or call sampler.commit(len(batch)) after every batch, or "
                "sampler.set_epoch(epoch)",
                stacklevel=3,
            )

    def _state(self, committed: int | None = None) -> SamplerState:
        """The state with the open segment at ``committed`` ids, this rank's own by default.

        A completed epoch is the next one's start.
        """
        state = SamplerState(
            dataset=self._dataset,
            order=self._order.describe(),
            seed=self.seed,
            epoch=self._epoch,
            tail=self._tail,
            progress=self._progress,
            world_size=self.num_replicas,
            committed=self._committed if committed is None else committed,
            finished_epoch=self._finished_epoch,
        )
        if state.committed and not state.closed().remaining:
            return replace(state.next_epoch(), finished_epoch=state.epoch)
        return state


def merge_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All ranks' ``state_dict()``s, in rank order, as one record that ``load_state_dict`` takes on any world size.

    Each rank counts as far as it has come, also where they differ. RecordError for a wrong number of states;
    RecordMismatchError naming the rank and the field that disagrees.

    >>> ranks = [ResumableDistributedSampler(range(10), 2, rank, shuffle=False) for rank in (0, 1)]
    >>> ranks[0].commit(3)                              # 0, 2, 4
    >>> ranks[1].commit(1)                              # 1
    >>> record = merge_states([rank.state_dict() for rank in ranks])
    >>> alone = ResumableDistributedSampler(range(10), 1, 0, shuffle=False)
    >>> alone.load_state_dict(record)
    >>> list(alone)
    [3, 5, 6, 7, 8, 9]
    """
    return merge(states)


def _nobody() -> None:
    return None


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
