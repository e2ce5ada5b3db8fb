"""The loader that commits.

It is a torch DataLoader that reports to its sampler what the training loop has had.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from typing import Any, Literal
from weakref import ref

import torch.utils.data

from globidx.core import validate
from globidx.core.datasets.identity import DatasetIdentity
from globidx.core.datasets.known import DEEPEST, datasets_inside, nested_datasets
from globidx.disk.files import forks
from globidx.torch.collating.collate import default
from globidx.torch.delivery.exchange import Exchange
from globidx.torch.delivery.pinning import CudaPins
from globidx.torch.delivery.slots import MOST
from globidx.torch.delivery.threads import ThreadIterator, refuse_unshareable
from globidx.torch.device import Ahead, ToDevice, destination
from globidx.torch.loops.batching import Batching, DrawnBatch, DrawnBatches
from globidx.torch.loops.handover import Deliveries
from globidx.torch.loops.moments import SharedMoment
from globidx.torch.loops.quarantine import ReportingCollate
from globidx.torch.sampler import ResumableDistributedSampler
from globidx.torch.workers import ShieldedLoader

_log = logging.getLogger("globidx")
WORKERS = ("processes", "threads")


class DataLoader(ShieldedLoader):
    """A torch ``DataLoader`` that commits by itself.

    Its sampler is a ``ResumableDistributedSampler``; with any other it is torch's loader.

    Parameters
    ----------
    dataset : Dataset
        As for torch; with a ``ResumableDistributedSampler`` a map-style dataset, as long as the
        sampler's. A ``globidx.stream.GlobalStream`` is read as the dataset and the sampler that it
        is.
    *args, **kwargs
        As for torch, but that ``collate_fn`` is by default ``collate.default``: torch's, which
        keeps text and other Python objects.
    device : str or torch.device, optional
        Deliver batches on that CUDA device: each is copied from pinned memory while the loop trains
        on the one before it, which is still the one that counts. Tensors anywhere in dicts, lists,
        tuples and named tuples are moved, and so are objects with a ``to`` method. ``"cpu"`` and
        None leave batches where they are.
    workers : {"processes", "threads"}, default "processes"
        What ``num_workers`` counts. Threads of this process share its dataset, index and cache, so
        that they take the memory of one process. The dataset, its transform and ``collate_fn`` are
        then called by several threads at once. ``get_worker_info()`` is None there, as it is without
        workers, and ``worker_init_fn`` is called in each thread.
    slots : int, optional
        How many batches of each worker may be in shared memory that is used again: those that wait,
        and those that the loop holds. By default two more than ``prefetch_factor``, and at most
        2**16; 0 leaves it to torch, which makes new shared memory for each tensor.

    Attributes
    ----------
    workers : str
        What reads the batches.
    device : torch.device or None
        The CUDA device that batches are moved to.

    Raises
    ------
    TypeError
        If a sampler, or threads, are given for an ``IterableDataset``.
    ValueError
        If the dataset is not the sampler's, or the device does not exist. If threads are given
        for a dataset with ``seed_transforms=True``, or with a ``multiprocessing_context``. If ``in_order=False``,
        since batches that overtake each other are no prefix of the order. If ``batch_size=None``
        and the dataset may replace samples.

    Notes
    -----
    A batch counts when the loop comes back for the next one, or at ``CheckpointManager.save`` while
    the loop holds it. So what workers prefetch does not count, a peek at the first of several
    batches costs nothing, and after a ``break`` a batch that was not saved is delivered again. A
    pass whose every batch was delivered is over, even if the loop took exactly ``len(loader)``
    batches and did not ask for more.

    A ``batch_sampler`` may regroup the ids of its ``sampler``: what each batch held is recorded.

    If the dataset replaced a sample (``FileCacheDataset(on_error=...)``), its id is listed in
    ``sampler.quarantined`` when its batch is committed.

    Examples
    --------
    >>> sampler = ResumableDistributedSampler(range(10), 1, 0, shuffle=False)
    >>> for batch in DataLoader(range(10), batch_size=4, sampler=sampler):
    ...     print(batch.tolist(), "remaining", sampler.remaining)
    [0, 1, 2, 3] remaining 6
    [4, 5, 6, 7] remaining 2
    [8, 9] remaining 10
    """

    def __init__(
        self,
        dataset: Any,
        *args: Any,
        device: str | torch.device | None = None,
        workers: Literal["processes", "threads"] = "processes",
        slots: int | None = None,
        **kwargs: Any,
    ) -> None:
        is_iterable = isinstance(dataset, torch.utils.data.IterableDataset)
        if is_iterable and (kwargs.get("sampler") or kwargs.get("batch_sampler")):
            raise TypeError(
                f"a sampler yields ids, and {type(dataset).__name__}, an IterableDataset, takes "
                "none: make it a map-style dataset, with __len__ and __getitem__, or leave the "
                "sampler out"
            )
        # a stream of a map-style dataset is read as what it is made of
        self._is_endless = bool(getattr(dataset, "infinite", False)) if is_iterable else False
        if is_iterable and callable(getattr(dataset, "map_style", None)):
            dataset, kwargs["sampler"] = dataset.map_style()
        if workers not in WORKERS:
            raise ValueError(f"workers must be one of {', '.join(WORKERS)}, got {workers!r}")
        self.workers = workers
        super().__init__(dataset, *args, **kwargs)
        if self._has_threads:
            refuse_unshareable(dataset, self.multiprocessing_context)
        self._refuse_other_dataset()
        # torch's own is left where it was asked for, and where there are no batches
        given = args[5] if len(args) > 5 else kwargs.get("collate_fn")
        if given is None and self.collate_fn is torch.utils.data.default_collate:
            self.collate_fn = default
        self.device = destination(device)
        self.slots = self._slots_each(slots)
        if self.device is not None:
            # pageable memory is copied while the host waits; slots are pinned once and for all
            self.pin_memory = not self.slots
        if self._resumable is not None and not getattr(self, "in_order", True):
            raise ValueError(
                "in_order=False lets batches overtake each other, so what is delivered is no "
                "prefix of the order; leave it out"
            )
        if (
            self._resumable is not None
            and self.batch_sampler is None
            and getattr(dataset, "may_substitute", False)
        ):
            raise ValueError(
                "without batches (batch_size=None), the record could not list which samples were "
                "replaced by the dataset's on_error=; pass batch_size=1, or on_error='raise'"
            )

        if self._resumable is not None and _hides_substitutes(dataset):
            _log.warning(
                "%s asks the dataset in it for one sample at a time, so samples that on_error= "
                "replaces are logged but not listed in sampler.quarantined; give all files to one "
                "GlobalIndexManager, or let the wrapper have __getitems__",
                type(dataset).__name__,
            )

    def __repr__(self) -> str:
        how = "" if self.workers == "processes" else f", workers={self.workers!r}"
        where = "" if self.device is None else f", device={str(self.device)!r}"
        where += f", slots={self.slots}" if self.num_workers and not self._has_threads else ""
        return (
            f"{type(self).__name__}({type(self.dataset).__name__}, batch_size={self.batch_size}, "
            f"num_workers={self.num_workers}{how}{where}, sampler={self._resumable or self.sampler!r})"
        )

    def __iter__(self) -> Any:
        if self._resumable is None:
            # another sampler: this is a torch loader, with a device
            if self.persistent_workers:
                self._renew_workers(_refreshes(self.dataset))
            return self._on_device(super().__iter__())
        return self._passes() if self._is_endless else self._deliveries()

    def _passes(self) -> Iterator[Any]:
        """One pass after another, each the next epoch's."""
        while True:
            yield from self._deliveries()
            if self._counted("an infinite stream") and not self.steps_per_epoch:
                raise ValueError(
                    "an epoch of the infinite stream has no batch on this rank, so the loop would "
                    "never go on; use fewer ranks, a smaller batch_size, or drop_last=False"
                )

    def _deliveries(self) -> Deliveries:
        """A pass that reports to the sampler what the loop is given."""
        assert self._resumable is not None
        self._refuse_other_dataset()
        running = Deliveries(_Batches(self), self._resumable._ledger)
        # weakly, so that a loop that was left is freed with its batch
        self._pass = ref(running)
        return running

    def __len__(self) -> int:
        """How many batches the epoch has on this rank.

        Those are what was done before, and what the pass delivers.

        Samples that were done at other world sizes or batch sizes are counted in today's batches,
        rounded up.
        """
        if self._is_endless:
            raise TypeError(
                "a loader of an infinite stream has no len(); loader.steps_per_epoch is that of an "
                "epoch"
            )
        batching = self._batching()
        # a batch sampler that counts its own batches alone knows how many it makes
        counts = getattr(type(self.batch_sampler), "__len__", None)
        is_counted = batching.known or counts is torch.utils.data.BatchSampler.__len__
        if self._resumable is None or batching.size is None or not is_counted:
            return super().__len__()
        ledger = self._resumable._ledger
        return batching.started(ledger.done) + batching.batches(ledger.left_to_deliver)

    @property
    def start(self) -> int:
        """How many batches of the epoch were done before the pass that runs, or else the next one.

        It is 0 with a sampler that does not resume.

        Examples
        --------
        A progress bar counts from it: ``tqdm(loader, initial=loader.start, total=len(loader))``. In
        a loop the last batch is the one with ``loader.start + i + 1 == len(loader)``, where ``i``
        counts from 0.

        >>> sampler = ResumableDistributedSampler(range(10), 1, 0)
        >>> sampler.commit(6)
        >>> loader = DataLoader(range(10), batch_size=2, sampler=sampler)
        >>> loader.start, len(loader)
        (3, 5)
        """
        if self._resumable is None:
            return 0
        running = self.__dict__["_pass"]() if "_pass" in self.__dict__ else None
        if running is not None and self._resumable._ledger.is_run_by(running):
            return int(running.start)
        return self._batching().started(self._resumable._ledger.done)

    @property
    def steps_per_epoch(self) -> int:
        """How many batches a whole epoch has on this rank.

        It is exact for the next epoch, at this world size and batch size.

        Raises
        ------
        TypeError
            If the sampler does not resume, or batches differ in size.

        Examples
        --------
        >>> sampler = ResumableDistributedSampler(range(10), num_replicas=2, rank=0)
        >>> DataLoader(range(10), batch_size=2, sampler=sampler).steps_per_epoch
        3
        """
        sampler = self._counted("steps_per_epoch")
        return self._batching().batches(sampler._ledger.tracker.whole_epoch(sampler.epoch + 1))

    def steps_left(self, epochs: int) -> int:
        """How many batches are left on this rank until ``epochs`` epochs are done.

        The batch that the loop holds is done.

        A learning-rate schedule needs ``total_steps = step + loader.steps_left(epochs)``, also
        after a resume on any number of ranks.

        Parameters
        ----------
        epochs : int
            How many epochs the run has, from epoch 0.

        Returns
        -------
        int
            The exact number of steps.

        Raises
        ------
        TypeError
            If the sampler does not resume, or batches differ in size.

        Examples
        --------
        >>> sampler = ResumableDistributedSampler(range(10), 1, 0)
        >>> sampler.commit(6)
        >>> DataLoader(range(10), batch_size=4, sampler=sampler).steps_left(3)      # 1 + 3 + 3
        7
        """
        sampler = self._counted("steps_left")
        validate.integer(epochs, "epochs")
        ledger, batching, epoch = sampler._ledger, self._batching(), sampler.epoch
        # a loop by next() is over with its last batch, though nobody has come back for another one
        is_over = epoch > ledger.running_epoch
        left = (
            ledger.tracker.whole_epoch(epoch)
            if is_over
            else ledger.left_to_deliver - ledger.held_ids
        )
        now = batching.batches(left) if epoch < epochs else 0
        later = range(epoch + 1, epochs)
        # without skips all whole epochs are alike
        if not sampler.skipped.pairs:
            return now + self.steps_per_epoch * len(later)
        return now + sum(batching.batches(ledger.tracker.whole_epoch(epoch)) for epoch in later)

    def explain(self) -> str:
        """How batches come from the workers, as text.

        Returns
        -------
        str
            Text for people.

        Examples
        --------
        >>> DataLoader(range(10), batch_size=4).explain()
        'batches are made in this process'
        """
        if not self.num_workers:
            return "batches are made in this process"
        if self._has_threads:
            return f"{self.num_workers} threads of this process, which share its cache"
        if not self.slots or self.__dict__.get("_lacks_slots"):
            return f"{self.num_workers} workers; batches travel as torch sends them (no slots)"
        slots = self.__dict__.get("_account", f"{self.num_workers} x {self.slots} slots")
        return f"{self.num_workers} workers; batches travel in shared memory: {slots}"

    def __getstate__(self) -> dict[str, Any]:
        # what tells of loops of this process means nothing in another
        left = "_pass", "_account"
        return {name: value for name, value in self.__dict__.items() if name not in left}

    # -- inside

    def _slots_each(self, slots: int | None) -> int:
        """How many slots each worker has."""
        if slots is not None:
            validate.integer(slots, "slots", high=MOST)
        if not self.num_workers or self._has_threads:
            return 0
        # the loop has two for a moment: the one it leaves, and the one it is given
        return min((self.prefetch_factor or 0) + 2, MOST) if slots is None else slots

    def _get_iterator(self) -> Any:
        # It draws a seed from torch's generator, and then may fork. A worker that is forked while
        # another thread draws has that generator locked, and waits for ever to seed it.
        with forks.held_off():
            return self._started_iterator()

    def _started_iterator(self) -> Any:
        if self._has_threads:
            return ThreadIterator(self)
        if not self.slots:
            return super()._get_iterator()
        pins = None if self.device is None else CudaPins(self.device)
        exchange = Exchange.where_possible(self.num_workers, self.slots, pins)
        self._lacks_slots = exchange is None
        if exchange is None:
            return super()._get_iterator()
        # torch reads the attribute here only; whoever reads it later must get the one from before
        own = self.collate_fn
        self.collate_fn = exchange.collate(own)
        try:
            batches = super()._get_iterator()
        finally:
            self.collate_fn = own
        exchange.belongs_to(batches)
        self._account = exchange.account
        return batches

    @property
    def _resumable(self) -> ResumableDistributedSampler | None:
        """The sampler to report to: ``sampler`` or ``batch_sampler.sampler``.

        None if neither is resumable.
        """
        # frameworks wrap one or the other
        for sampler in (self.sampler, getattr(self.batch_sampler, "sampler", None)):
            if isinstance(sampler, ResumableDistributedSampler):
                return sampler
        return None

    @property
    def _index_sampler(self) -> Any:
        # torch draws each batch's ids from it, in the main process, so here they can be noted
        inner, sampler = super()._index_sampler, self._resumable
        if sampler is None:
            return inner
        if "_drawn_batches" not in self.__dict__:
            # a subclass may yield ids in another order, and so may any batch sampler but torch's
            own = type(sampler).__iter__ is ResumableDistributedSampler.__iter__
            in_order = own and (inner is sampler or self._batching().known)
            is_dated = inner is not sampler and isinstance(
                getattr(self.dataset, "moment", None), SharedMoment
            )
            # without a reference to this loader, which would be freed late, and its workers with it
            self._drawn_batches = DrawnBatches(
                inner,
                sampler,
                in_order=in_order,
                is_dated=is_dated,
                dataset=self.dataset,
                # without batches nothing is told
                batching=None if inner is sampler else self._batching(),
                reads=not self.num_workers,
            )
        return self._drawn_batches

    @property
    def _has_threads(self) -> bool:
        return self.workers == "threads" and self.num_workers > 0

    def check_worker_number_rationality(self) -> None:
        """Warn if there are more processes than cores; threads wait for a disk together, and may be more."""
        if not self._has_threads:
            super().check_worker_number_rationality()

    def _batching(self) -> Batching:
        return Batching.of(self.batch_sampler, self._lanes)

    @property
    def _lanes(self) -> int:
        # threads share one cache, so a plan that goes by caches counts them as one
        return 1 if self._has_threads else self.num_workers

    def _counted(self, what: str) -> ResumableDistributedSampler:
        """The sampler of a loader whose batches can be counted in advance."""
        batching = self._batching()
        if self._resumable is None or batching.size is None or not batching.known:
            raise TypeError(
                f"{what} needs a ResumableDistributedSampler, and batches of one size "
                f"(batch_size=, or torch's BatchSampler), got a {type(self.sampler).__name__} and "
                f"a {type(self.batch_sampler).__name__}"
            )
        return self._resumable

    def _refuse_other_dataset(self) -> None:
        """ValueError if the sampler's ids are those of another dataset."""
        sampler = self._resumable
        if (
            sampler is None
            or sampler.dataset is self.dataset
            or not hasattr(self.dataset, "__len__")
        ):
            return
        if len(self.dataset) != len(sampler.dataset):
            raise ValueError(
                f"the loader's dataset has {len(self.dataset)} samples, its sampler's has "
                f"{len(sampler.dataset)}, so ids of one would be looked up in the other; make the "
                "sampler of the dataset that is loaded"
            )

    def _open(self) -> tuple[Any, deque[DrawnBatch]]:
        """The batches of a new pass, and what each has.

        Batches are on their device and have their report; ids are noted as they are drawn.
        """
        self._renew_workers(DatasetIdentity.of(self.dataset), _refreshes(self.dataset))
        if self._resumable is not None:
            # the sampler may have been made of another object of the same samples
            self._resumable._tell_moment(self.dataset)
        user_collate = self.collate_fn
        # torch reads the attribute here only; whoever reads it later must get the user's own
        self.collate_fn = ReportingCollate(user_collate)
        try:
            batches = super().__iter__()
        finally:
            self.collate_fn = user_collate
        return self._on_device(batches), self._drawn_batches.drawn

    def _on_device(self, batches: Any) -> Any:
        if self.device is None:
            return batches
        # one mover for all passes, since its stream keeps memory; made late, when ranks have chosen
        # their device
        if "_to_device" not in self.__dict__:
            self._to_device = ToDevice(self.device)
        return Ahead(batches, self._to_device)

    def _renew_workers(self, *held: object) -> None:
        """End persistent workers if the dataset has changed, or was looked at anew.

        They hold it as it was when they started: what tells of that is ``held``.
        """
        # not the object, for an index that was refreshed is the same one
        if self.__dict__.get("_opened_over", held) != held:
            self._iterator = None
        self._opened_over = held


class _Batches:
    """A loader, as the passes of its loops use it."""

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def batching(self) -> Batching:
        """How ids are cut into batches now."""
        return self._loader._batching()

    def open(self) -> tuple[Any, deque[DrawnBatch]]:
        """The batches of a new pass, and what each has."""
        return self._loader._open()


def _refreshes(dataset: Any) -> list[int]:
    """How often the indexes of a dataset and of those inside it were refreshed."""
    managers = (getattr(one, "index_manager", None) for one in nested_datasets(dataset))
    return [getattr(getattr(one, "now", None), "refreshes", 0) for one in managers]


def _hides_substitutes(dataset: Any, depth: int = 0) -> bool:
    """Whether some dataset inside this one replaces samples and cannot say so: it is asked for single samples."""
    if getattr(dataset, "may_substitute", False) or depth > DEEPEST:
        return False
    hidden = not hasattr(dataset, "__getitems__")
    return any(
        _hides_substitutes(one, depth + 1) or (hidden and getattr(one, "may_substitute", False))
        for one in datasets_inside(dataset)
    )
