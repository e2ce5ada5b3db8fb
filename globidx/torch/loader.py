"""The loader that commits: a torch DataLoader which tells its sampler what the training loop has had."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, Protocol
from weakref import ref

import torch.utils.data

from globidx.core import validate
from globidx.core.datasets.identity import DatasetIdentity
from globidx.errors import CommitError, EarlyStopError, StaleIteratorError
from globidx.torch.device import Ahead, ToDevice, destination
from globidx.torch.loops.callers import Caller
from globidx.torch.loops.passes import Handed
from globidx.torch.quarantine import Reporting, report_of
from globidx.torch.sampler import ResumableDistributedSampler
from globidx.torch.workers import ShieldedLoader


class DataLoader(ShieldedLoader):
    """``torch.utils.data.DataLoader`` that commits by itself where its sampler is a ``ResumableDistributedSampler``.

    A batch counts when the loop comes back for the next one, or at ``CheckpointManager.save`` while the loop holds it.
    So what workers prefetch does not count, a peek at the first of several batches costs nothing, and after a
    ``break`` a batch that nobody saved is given again. A pass whose every batch was handed out is over, also if the
    loop took exactly ``len(loader)`` batches and did not ask for more. Everything else is torch's;
    ``in_order=False`` is refused, because batches that overtake each other cannot be counted.

    ``device="cuda"`` hands out batches that lie on that device, each copied from pinned memory while the loop trains on
    the one before it, which is still the one that counts; tensors anywhere in dicts, lists, tuples and named tuples are
    moved, and so is what has a ``to`` of its own. ``"cpu"`` and None leave batches where they are; a device that is not
    there is a ValueError.

    A sample that its dataset put another in place of (``FileCacheDataset(on_error=...)``) is told to the sampler when
    its batch is committed; see ``sampler.quarantined``.

    >>> sampler = ResumableDistributedSampler(range(10), 1, 0, shuffle=False)
    >>> for batch in DataLoader(range(10), batch_size=4, sampler=sampler):
    ...     print(batch.tolist(), "remaining", sampler.remaining)
    [0, 1, 2, 3] remaining 6
    [4, 5, 6, 7] remaining 2
    [8, 9] remaining 10
    """

    def __init__(self, dataset: Any, *args: Any, device: str | torch.device | None = None, **kwargs: Any) -> None:
        if isinstance(dataset, torch.utils.data.IterableDataset) and (
            kwargs.get("sampler") or kwargs.get("batch_sampler")
        ):
            raise TypeError(
                f"a sampler deals out ids, and {type(dataset).__name__}, an IterableDataset, takes none: make it a "
                "map-style dataset, with __len__ and __getitem__, or leave the sampler out"
            )
        super().__init__(dataset, *args, **kwargs)
        self._refuse_other_dataset()
        self.device = destination(device)
        if self.device is not None:
            self.pin_memory = True  # pageable memory is copied while the host waits
        if self.resumable is not None and not getattr(self, "in_order", True):
            raise ValueError(
                "in_order=False lets batches overtake each other, so what is delivered is no prefix of the order; "
                "leave it out"
            )
        if self.resumable is not None and self.batch_sampler is None and getattr(dataset, "may_substitute", False):
            raise ValueError(
                "without batches (batch_size=None), samples that stand for others, as the dataset's on_error= has it, "
                "cannot be told from them, so the record would not list them; pass batch_size=1, or on_error='raise'"
            )

    def __repr__(self) -> str:
        where = "" if self.device is None else f", device={str(self.device)!r}"
        return (
            f"{type(self).__name__}({type(self.dataset).__name__}, batch_size={self.batch_size}, "
            f"num_workers={self.num_workers}{where}, sampler={self.resumable or self.sampler!r})"
        )

    @property
    def resumable(self) -> ResumableDistributedSampler | None:
        """The sampler that is told, found in ``sampler`` or in ``batch_sampler.sampler``; None where there is none."""
        for sampler in (self.sampler, getattr(self.batch_sampler, "sampler", None)):
            if isinstance(sampler, ResumableDistributedSampler):
                return sampler
        return None

    @property
    def _index_sampler(self) -> Any:
        # What torch draws each batch's ids from, in the main process: the place to learn how many ids a batch has.
        inner = super()._index_sampler
        if self.resumable is None:
            return inner
        if "drawn_batches" not in self.__dict__:
            self.drawn_batches = DrawnBatches(inner, self.resumable)
        return self.drawn_batches

    def __iter__(self) -> Any:
        if self.resumable is None:
            return self.open()
        self._refuse_other_dataset()
        running = Deliveries(self, self.resumable)
        self._pass = ref(running)
        return running

    def __len__(self) -> int:
        """Batches of this epoch: those done before, and those that the pass gives, on this rank.

        Samples that were done on other world sizes or batch sizes are counted in today's batches, rounded up.
        """
        if self.resumable is None or self.cut.size is None:
            return super().__len__()
        return self._done(self.resumable) + self.cut.batches(self.resumable.left_to_deliver)

    @property
    def start(self) -> int:
        """How many batches of the epoch were done before the pass that runs, or that comes next.

        What a progress bar counts from: ``tqdm(loader, initial=loader.start, total=len(loader))``. In a loop,
        ``loader.start + number + 1 == len(loader)`` is true of the last batch, ``number`` counted from 0. It is 0 with
        a sampler that does not resume.
        """
        if self.resumable is None:
            return 0
        running = self.__dict__["_pass"]() if "_pass" in self.__dict__ else None
        if running is not None and self.resumable.is_run_by(running):
            return int(running.start)
        return self._done(self.resumable)

    @property
    def steps_per_epoch(self) -> int:
        """How many batches a whole epoch gives on this rank, world size and batch size: the next one's, exactly."""
        sampler = self._counted("steps_per_epoch")
        return self.cut.batches(sampler.whole_epoch(sampler.epoch + 1))

    def steps_left(self, epochs: int) -> int:
        """How many batches come until ``epochs`` epochs are done, on this rank; the batch that is held is done.

        What a schedule of learning rates needs: ``total_steps = step + loader.steps_left(epochs)``, after a resume on
        any number of ranks, too.

        Parameters
        ----------
        epochs : int
            How many epochs the run has, from epoch 0.

        Examples
        --------
        >>> sampler = ResumableDistributedSampler(range(10), 1, 0)
        >>> sampler.commit(6)
        >>> DataLoader(range(10), batch_size=4, sampler=sampler).steps_left(3)      # 1 + 3 + 3
        7
        """
        sampler = self._counted("steps_left")
        validate.integer(epochs, "epochs")
        now = self.cut.batches(sampler.left_to_deliver - sampler.held) if sampler.epoch < epochs else 0
        later = range(sampler.epoch + 1, epochs)
        if not sampler.skipped.pairs:  # then all whole epochs are alike
            return now + self.steps_per_epoch * len(later)
        return now + sum(self.cut.batches(sampler.whole_epoch(epoch)) for epoch in later)

    @property
    def cut(self) -> Cut:
        """How its batches are cut from the sampler's ids."""
        if self.batch_sampler is None:
            return Cut(1, drops=False)
        size = getattr(self.batch_sampler, "batch_size", None)  # a user's may mean anything by that name
        # a subclass that is iterated as torch's is cuts as torch's does
        plain = getattr(type(self.batch_sampler), "__iter__", None) is torch.utils.data.BatchSampler.__iter__
        drops = bool(getattr(self.batch_sampler, "drop_last", False))
        return Cut(size if plain or (type(size) is int and size > 0) else None, drops=drops, known=plain)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_pass"}

    def _done(self, sampler: ResumableDistributedSampler) -> int:
        return -(-(len(sampler) - sampler.left_to_deliver) // (self.cut.size or 1))

    def _counted(self, what: str) -> ResumableDistributedSampler:
        """The sampler of a loader whose batches can be counted in advance."""
        if self.resumable is None or self.cut.size is None:
            raise TypeError(
                f"{what} needs a ResumableDistributedSampler, and batches of one size (batch_size=, or torch's "
                f"BatchSampler), got sampler {self.sampler!r} and batch sampler {self.batch_sampler!r}"
            )
        return self.resumable

    def _refuse_other_dataset(self) -> None:
        """ValueError where the sampler's ids are another dataset's."""
        sampler = self.resumable
        if sampler is None or sampler.dataset is self.dataset or not hasattr(self.dataset, "__len__"):
            return
        if len(self.dataset) != len(sampler.dataset):
            raise ValueError(
                f"the loader's dataset has {len(self.dataset)} samples, its sampler's has {len(sampler.dataset)}, so "
                "ids of one would be looked up in the other; build the sampler over the dataset that is loaded"
            )

    def open(self) -> Any:
        """The batches of a new pass, on their device, each with its report; nothing is counted."""
        if self.resumable is None:
            batches = super().__iter__()
        else:
            self._renew_workers(DatasetIdentity.of(self.dataset))
            batches = self._reporting()
        return batches if self.device is None else Ahead(batches, self._mover(self.device))

    def _reporting(self) -> Any:
        """torch's own iterator, which asks for ``collate_fn`` here only; whoever else does must find the user's own."""
        own = self.collate_fn
        self.collate_fn = Reporting(own)
        try:
            return super().__iter__()
        finally:
            self.collate_fn = own

    def _mover(self, device: torch.device) -> ToDevice:
        """One for all passes, since its stream keeps memory; made late, when ranks have chosen their device."""
        if "_to_device" not in self.__dict__:
            self._to_device = ToDevice(device)
        return self._to_device

    def _renew_workers(self, found: DatasetIdentity) -> None:
        """Persistent workers hold the dataset as it was when they started: others must read what changed since."""
        if self.__dict__.get("_opened_over", found) != found:
            self._iterator = None
        self._opened_over = found


class DrawnBatches:
    """A batch sampler that notes the ids of each batch it draws, and checks that the batches are the sampler's ids in
    their order.
    """

    def __init__(self, inner: Any, sampler: ResumableDistributedSampler) -> None:
        self._inner = inner
        self._sampler = sampler
        own = type(sampler).__iter__ is ResumableDistributedSampler.__iter__
        self._in_order = own and (inner is sampler or type(inner) is torch.utils.data.BatchSampler)
        self.ids: deque[list[int]] = deque()

    def __len__(self) -> int:
        return len(self._inner)

    def __iter__(self) -> Iterator[Any]:
        self.ids = deque()  # a new one each pass: batches of an abandoned pass may still be drawn
        return self._draw(self.ids)

    def _draw(self, drawn: deque[list[int]]) -> Iterator[Any]:
        # a second iterator costs nothing, and says what should come
        shadow = None if self._in_order else ResumableDistributedSampler.__iter__(self._sampler)
        for batch in self._inner:
            ids = list(map(int, batch)) if isinstance(batch, Iterable) else [int(batch)]
            if shadow is not None and list(islice(shadow, len(ids))) != ids:
                raise CommitError(
                    f"{self._inner!r} does not hand out the ids of the order one after another, so what "
                    "is delivered is no prefix of its order and cannot be recorded; use a batch sampler that only "
                    "cuts the sequence into batches"
                )
            drawn.append(ids)
            yield batch


class Cut(NamedTuple):
    """How a loader cuts ids into batches: ``size`` ids each, a smaller rest dropped or not.

    ``size`` is None where it is not one number, ``known`` False where another ``__iter__`` than torch's cuts.
    """

    size: int | None
    drops: bool
    known: bool = True

    def batches(self, ids: int) -> int:
        """How many batches so many ids make."""
        size = self.size or 1
        return ids // size if self.drops else -(-ids // size)

    @property
    def smallest(self) -> int:
        """How many ids there must be left for another batch."""
        return self.size or 1 if self.drops and self.known else 1


class Loader(Protocol):
    """What opens passes, and notes the ids of its batches as they are drawn."""

    drawn_batches: DrawnBatches
    num_workers: int

    @property
    def cut(self) -> Cut:
        """How its batches are cut."""

    def open(self) -> Any:
        """The batches of a new pass, an iterator."""


class Deliveries:
    """One pass of a training loop: it tells the sampler which batch the loop was handed, and when it comes back."""

    def __init__(self, loader: Loader, sampler: ResumableDistributedSampler) -> None:
        self._loader, self._sampler = loader, sampler
        self._begin()

    def _begin(self) -> None:
        cut = self._loader.cut
        self._over = self._failed = self._begun = False
        workers = self._loader.num_workers if cut.size else 0
        self._sampler.begin_pass(self, workers=workers, batch_size=cut.size or 1)
        self._generation = self._sampler.generation
        self._left, self._smallest = self._sampler.left_to_deliver, cut.smallest
        self.start = -(-(len(self._sampler) - self._left) // (cut.size or 1))
        self._batches = self._loader.open()
        self._ids = self._loader.drawn_batches.ids

    def __iter__(self) -> Deliveries:
        return self

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]

    def __next__(self) -> Any:
        self._refuse_if_failed()
        self._sampler.come_back(self)
        if not self._begun and self._sampler.generation != self._generation:
            self._begin()  # nothing was handed out yet: it is a pass over what the sampler was set to since
        self._refuse_if_stale()
        self._begun = self._failed = True  # failed, unless it is seen to end well
        try:
            batch, places = report_of(next(self._batches))
        except StopIteration as stop:
            self._refuse_early(stop)
            self._failed = False
            self._sampler.end_of(self)
            raise
        self._failed = False
        self._hand_out(places)
        return batch

    def _hand_out(self, places: Iterable[int]) -> None:
        ids = self._ids.popleft()
        self._left -= len(ids)
        caller = Caller.of(sys._getframe(2))
        handed = Handed(ids, [ids[place] for place in places], self._left < self._smallest, caller)
        self._sampler.hand_out(self, handed)

    def end(self) -> None:
        """The pass is over: the loop is not handed anything more, and just ends."""
        self._over = True

    def _refuse_if_failed(self) -> None:
        if self._failed:
            raise CommitError(
                "this loop's last batch failed, so what would come now is no longer the next of the order; start a new "
                "loop, which begins with that batch, and leave bad samples out with sampler.skip(ids)"
            )

    def _refuse_early(self, stop: StopIteration) -> None:
        """EarlyStopError if batches that were drawn never came."""
        if self._ids:
            raise EarlyStopError(
                f"the pass ended with {sum(map(len, self._ids))} ids drawn and not delivered, the next of them "
                f"{self._ids[0][:3]}: the dataset or collate_fn raised StopIteration (next() on an iterator that was "
                "at its end, say), which ends a loop without a word; catch it there, or raise another error"
            ) from stop

    def _refuse_if_stale(self) -> None:
        if self._over:
            self._batches = iter(())
            self._ids = deque()
        elif not self._sampler.is_counted_by(self):
            raise StaleIteratorError(
                "this loop's sampler was loaded, reset or moved to another epoch, or another loop over its "
                "loader began since; what it would deliver no longer counts. Start a new loop"
            )
