"""The sampler that takes ``DistributedSampler``'s place and can stop anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data.distributed import DistributedSampler

from globidx.core import validate
from globidx.core.generator import Moment
from globidx.core.orders.base import Order
from globidx.core.orders.passes import Passes
from globidx.core.orders.plain import Sequential, Shuffle
from globidx.core.packing.epochs import refuse_other_epochs
from globidx.core.progress import partition
from globidx.core.progress.partition import TAILS, Tail
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.tracker import Tracker
from globidx.torch.loops.ledger import Ledger
from globidx.torch.loops.moments import tell
from globidx.torch.ranks.world import World


class ResumableDistributedSampler(DistributedSampler[Any]):
    """A ``DistributedSampler`` that can stop at any step and resume on any number of ranks.

    Each sample is read once an epoch. What counts is what is *committed*: ids whose batch the
    training loop has had. ``globidx.DataLoader`` commits by itself; with another loader call
    ``commit(len(batch))`` after each batch. Every ``iter()`` starts after the committed ids, so
    throw-away iterators cost nothing.

    Parameters
    ----------
    dataset : object with len()
        What the ids are ids of. If it has a ``fingerprint``, records refuse another dataset of the
        same length.
    num_replicas, rank : int, optional
        World size, and the rank in it, of the data-parallel ranks. If left out, they are resolved
        when they are first needed: from ``mesh`` or ``group``, the default process group,
        torchrun's environment, or else ``(1, 0)``.
    shuffle : bool, default True
        Whether to use ``orders.Shuffle`` (or else ``orders.Sequential``) if no ``order`` is given.
    seed : int, default 0
        Seed of the order, the same on all ranks.
    drop_last : bool, default False
        The same as ``tail="drop"``.
    tail : {"pad", "drop", "exact"}, optional
        What happens if the ids do not divide by the ranks. ``"pad"``, the default, repeats a few at
        the end, so that all ranks yield equally many; ``"drop"`` leaves them out; ``"exact"``
        yields each id once, so that the number of ids on a rank may differ by one.
    order : Order, optional
        One of ``globidx.orders``; by default that of the dataset, if it has one as its ``order``.
    group : ProcessGroup, optional
        The data-parallel ranks, if they are not the default group.
    mesh : DeviceMesh, optional
        The data-parallel dimensions, one or several.
    epoch_size, epoch_steps : int, optional
        For trainers whose epochs are not those of the data: so many samples of all ranks, or global
        batches of a ``globidx.DataLoader``, are an epoch of this sampler. The real epoch runs on
        under it, whatever ``set_epoch`` says, so that every sample is read once before any is read
        twice.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type, or two of them contradict each other.

    Examples
    --------
    Two ranks train on two samples each; three ranks go on.

    >>> sampler = ResumableDistributedSampler(range(10), num_replicas=2, rank=0, shuffle=False)
    >>> list(sampler)
    [0, 2, 4, 6, 8]
    >>> sampler.commit(2)
    >>> record = sampler.state_dict()
    >>> for rank in range(3):
    ...     resumed = ResumableDistributedSampler(range(10), 3, rank, shuffle=False)
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
        epoch_size: int | None = None,
        epoch_steps: int | None = None,
    ) -> None:
        # torch's __init__ is not called: it resolves rank and world size at once, and sets what are
        # properties here
        world = World(num_replicas, rank, group, mesh)
        # both are given, so nothing is looked up, and a wrong one is refused where it stands
        if None not in (num_replicas, rank):
            world.resolve()
        order, tail = _order(order, shuffle, dataset), _tail(tail, drop_last)
        if epoch_size is not None or epoch_steps is not None:
            order = Passes(order, size=epoch_size, steps=epoch_steps)
        refuse_other_epochs(dataset, order)
        self._ledger = Ledger(Tracker(dataset, order, validate.integer(seed, "seed"), tail, world))

    # -- what it was made of

    @property
    def dataset(self) -> Any:  # type: ignore[override]
        """The dataset whose ids are sampled."""
        return self._ledger.tracker.dataset

    @property
    def seed(self) -> int:  # type: ignore[override]
        """The seed of the order."""
        return self._ledger.tracker.seed

    @property
    def rank(self) -> int:  # type: ignore[override]
        """This process's rank among the data-parallel ranks."""
        return self._ledger.tracker.ranks.resolve()[0]

    @property
    def num_replicas(self) -> int:  # type: ignore[override]
        """World size: how many data-parallel ranks there are."""
        return self._ledger.tracker.ranks.resolve()[1]

    @property
    def shuffle(self) -> bool:  # type: ignore[override]
        """Whether the order differs from that of the ids."""
        return not isinstance(self.order, Sequential)

    @property
    def drop_last(self) -> bool:  # type: ignore[override]
        """Whether ids that do not divide by the ranks are left out."""
        return self.tail == "drop"

    @property
    def order(self) -> Order:
        """The order in use."""
        return self._ledger.tracker.order

    @property
    def tail(self) -> Tail:
        """``"pad"``, ``"drop"`` or ``"exact"``."""
        return self._ledger.tracker.tail

    # -- how far it is

    @property
    def epoch(self) -> int:  # type: ignore[override]
        """The epoch that the next ``iter`` reads.

        After a pass whose every batch was delivered it is the next epoch; in the body of a ``for``
        over the loader it is still that of the last batch.
        """
        return self._ledger.epoch

    def __len__(self) -> int:
        """How many ids of the epoch are this rank's.

        Those are what is already done, at any world size, and what is still to do.
        """
        state, rank = self._ledger.at()
        # trainers count their steps from the old one, so what is done belongs to the length
        return state.progress.per_rank + state.stream_length(rank)

    @property
    def num_samples(self) -> int:  # type: ignore[override]
        """``len()`` of this sampler, as torch names it."""
        return len(self)

    @property
    def total_size(self) -> int:  # type: ignore[override]
        """Number of ids of all ranks together, padding included, as torch names it."""
        if self.tail == "exact":
            progress = self._ledger.at()[0].progress
            return progress.length - progress.skipped
        return len(self) * self.num_replicas

    @property
    def num_valid(self) -> int:
        """How many of this rank's ``len()`` ids are real; the last of them may be padding.

        Like ``len()`` it includes ids that were done before a resume, so a resumed pass gives
        fewer. Its last ``len(sampler) - num_valid`` ids, one or none, are the padding.
        """
        state, rank = self._ledger.at()
        share = partition.share(state.progress.remaining, rank=rank, world_size=state.world_size)
        return state.progress.per_rank + min(share, state.stream_length(rank))

    @property
    def remaining(self) -> int:
        """How many ids of the epoch are not committed yet, over all ranks.

        The other ranks are assumed to have progressed as far as this one.

        The batch that the training loop holds counts as committed, as in ``state_dict``.
        """
        return self._ledger.including_held().closed().remaining

    @property
    def skipped(self) -> Ranges:
        """The ids that ``skip`` listed, for this epoch or from the next epoch or load on."""
        return self._ledger.tracker.state.skip

    @property
    def quarantined(self) -> Ranges:
        """The ids that could not be read and were delivered as other samples.

        They are those of this run and of the runs that it resumed from.

        They count as delivered. ``skip(sampler.quarantined)`` leaves them out from the next epoch
        or load on. Each rank knows those of its own loop; ``CheckpointManager.save`` and a merged
        record bring those of all.
        """
        return self._ledger.including_held().quarantined

    def __repr__(self) -> str:
        # the tracker's state as it is: no rank is resolved, nothing is computed
        state = self._ledger.tracker.state
        done, length = state.closed().committed, state.progress.length
        where = f"epoch {state.epoch}, {done} of {length} committed"
        return f"{type(self).__name__}({self.order!r}, seed={self.seed}: {where})"

    # -- changes

    def __iter__(self) -> Iterator[int]:
        """This rank's ids of the epoch that are not committed.

        The iterator raises when it is touched after the sampler has moved on.
        """
        drawn = self._ledger.iterate(self)
        self._tell_moment(self.dataset)
        return drawn

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch to read.

        The running epoch keeps its progress; any other starts afresh. A pass whose every batch was
        delivered is over.

        Parameters
        ----------
        epoch : int
            The epoch, from 0.

        Raises
        ------
        globidx.errors.EpochError
            If the record that was loaded calls this epoch finished: its pass would be empty, and a
            trainer whose own counter restarted at 0 would never train on what is left.

        Examples
        --------
        >>> sampler = ResumableDistributedSampler(range(4), 1, 0)
        >>> sampler.set_epoch(3)
        >>> sampler.epoch
        3
        """
        self._ledger.set_epoch(validate.integer(epoch, "epoch"))

    def commit(self, count: int) -> None:
        """Report that the training loop has had ``count`` more of this rank's ids.

        Parameters
        ----------
        count : int
            How many ids, padding included: the first that are left, in their order. If a batch is a
            dict, pass the length of one of its fields.

        Raises
        ------
        globidx.errors.CommitError
            If more ids are reported than were drawn, or than this rank had left in the epoch, or if
            a ``globidx.DataLoader`` commits by itself.

        Examples
        --------
        >>> from torch.utils.data import DataLoader
        >>> sampler = ResumableDistributedSampler(range(10), 1, 0, shuffle=False)
        >>> for batch in DataLoader(range(10), batch_size=4, sampler=sampler):
        ...     sampler.commit(len(batch))
        ...     print(sampler.epoch, sampler.remaining)
        0 6
        0 2
        1 10
        """
        self._ledger.commit(validate.integer(count, "count"))

    def skip(self, ids: Any) -> None:
        """Leave samples out for the rest of the run, from the next epoch or load on.

        Parameters
        ----------
        ids : int, range, or iterable
            An id, a range, or an iterable of ids, ranges and (start, stop) pairs.

        Raises
        ------
        IndexError
            If one of them is outside the dataset.

        Notes
        -----
        The running epoch does not change, because ranks that have progressed by different amounts
        would be dealt different positions; call ``reset()`` to start it over without these ids.
        What is left out keeps its position, so no other sample moves. Call it on every rank, or
        save with ``CheckpointManager``, whose record unites the lists of all ranks; ranks that
        begin an epoch with different lists are refused at the next save.

        Examples
        --------
        >>> sampler = ResumableDistributedSampler(range(5), 1, 0, shuffle=False)
        >>> sampler.skip([1, range(3, 5)])
        >>> sampler.reset()
        >>> list(sampler)
        [0, 2]
        """
        ranges = Ranges.of(ids)
        with self._ledger.lock:
            self._ledger.tracker.skip(ranges)

    def quarantine(self, ids: Any) -> None:
        """List ids that were delivered as other samples; ``globidx.DataLoader`` does so by itself.

        Parameters
        ----------
        ids : int, range, or iterable
            As for ``skip``. Each rank lists its own; a merge unites the lists.

        Raises
        ------
        globidx.errors.RecordError
            If the list becomes longer than a record may hold.

        Examples
        --------
        >>> sampler = ResumableDistributedSampler(range(5), 1, 0)
        >>> sampler.quarantine(3)
        >>> sampler.quarantined.pairs
        ((3, 4),)
        """
        ranges = Ranges.of(ids)
        with self._ledger.lock:
            self._ledger.tracker.quarantine(ranges)

    def finish_epoch(self) -> None:
        """End the epoch, whatever is left of it; call it on every rank.

        The next epoch begins with nothing done.

        Examples
        --------
        >>> sampler = ResumableDistributedSampler(range(5), 1, 0)
        >>> sampler.commit(2)
        >>> sampler.finish_epoch()
        >>> sampler.epoch, sampler.remaining
        (1, 5)
        """
        self._ledger.finish_epoch()

    def reset(self) -> None:
        """Forget all progress: the epoch that was set starts over, and any epoch may be set.

        Examples
        --------
        >>> sampler = ResumableDistributedSampler(range(5), 1, 0)
        >>> sampler.commit(2)
        >>> sampler.reset()
        >>> sampler.epoch, sampler.remaining
        (0, 5)
        """
        self._ledger.reset()

    # -- records and copies

    def state_dict(self) -> dict[str, Any]:
        """The record of this run, if all ranks have progressed equally.

        No collective; nothing changes.

        It includes the batch that the training loop holds, as if it were committed. Ranks that have
        progressed by different amounts need ``merge_states`` or ``CheckpointManager``.

        Returns
        -------
        dict
            Fresh JSON values, the same on every rank but for the ids in quarantine. They load on
            any world size.

        Warns
        -----
        UserWarning
            Once, if ids were drawn and nobody reports deliveries: the record would repeat all of
            them. Once, if a batch sampler of your own may have regrouped ids on one of several ranks:
            the state is then of this rank alone.

        Examples
        --------
        >>> sampler = ResumableDistributedSampler(range(10), num_replicas=2, rank=1)
        >>> sampler.commit(3)
        >>> sampler.state_dict()["remaining"]
        4
        """
        return self._ledger.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a record, of this sampler or another, of any world size.

        Parameters
        ----------
        state : Mapping
            What ``state_dict`` or ``merge_states`` returned.

        Raises
        ------
        globidx.errors.RecordMismatchError
            If another dataset, seed or order wrote it; ``field`` names the first difference.
        globidx.errors.RecordError
            If it is not the record of a sampler.

        Examples
        --------
        >>> first = ResumableDistributedSampler(range(10), 1, 0)
        >>> first.commit(4)
        >>> second = ResumableDistributedSampler(range(10), 1, 0)
        >>> second.load_state_dict(first.state_dict())
        >>> second.remaining
        6
        """
        self._ledger.load(state)
        # an iterator that loads is made already
        self._tell_moment(self.dataset)

    def _tell_moment(self, dataset: Any) -> None:
        # the epoch that iterators read; `epoch` is the next one where a loop by next() is over
        tell(dataset, Moment(self.seed, self._ledger.running_epoch))

    def __getstate__(self) -> dict[str, Any]:
        """The state of a copy, in this process or another.

        It has the same position, no iterators, and rank and world size if they are known. The batch
        that the training loop holds counts as committed in it.
        """
        # subclasses may have attributes of their own, which are copied as they are
        return self.__dict__ | {"_ledger": self._ledger.for_copy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._ledger = Ledger.of_copy(state["_ledger"])


def _tail(tail: Tail | None, drop_last: bool) -> Tail:
    if not isinstance(drop_last, bool):
        raise TypeError(f"drop_last must be True or False, got {drop_last!r}")
    if tail is None:
        return "drop" if drop_last else "pad"
    if tail not in TAILS:
        raise ValueError(f"tail must be one of {', '.join(TAILS)}, got {tail!r}")
    if drop_last and tail != "drop":
        raise ValueError(
            f"drop_last=True and tail={tail!r} contradict each other; pass one of them"
        )
    return tail


def _order(order: Order | None, shuffle: bool, dataset: Any) -> Order:
    if not isinstance(shuffle, bool):
        raise TypeError(
            f"shuffle must be True or False, got {shuffle!r}; other orders go into order="
        )
    if order is None and shuffle and isinstance(getattr(dataset, "order", None), Order):
        # a mixture of datasets that was read in another order would have other shares
        order = dataset.order
    if order is None:
        return Shuffle() if shuffle else Sequential()
    if not isinstance(order, Order):
        raise TypeError(
            f"order must be one of globidx.orders, such as Shuffle(), got {order!r}"
            f"{', a class without ()' if isinstance(order, type) else ''}"
        )
    if not shuffle and not isinstance(order, Sequential):
        raise ValueError(
            f"shuffle=False and order={order!r} contradict each other; pass one of them"
        )
    return order
