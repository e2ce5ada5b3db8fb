"""The loader that commits: a torch DataLoader which tells its sampler what the training loop has had."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Protocol

import torch.utils.data

from globidx.core.identity import DatasetIdentity
from globidx.errors import CommitError, StaleIteratorError
from globidx.torch.quarantine import Reporting, report_of
from globidx.torch.sampler import ResumableDistributedSampler
from globidx.torch.transfer import Ahead, ToDevice, destination
from globidx.torch.workers import ShieldedLoader


class DataLoader(ShieldedLoader):
    """``torch.utils.data.DataLoader`` that commits by itself where its sampler is a ``ResumableDistributedSampler``.

    A batch counts when the loop comes back for the next one, or when state is asked for while the loop holds it. So
    what workers prefetch does not count, a peek at the first batch costs nothing, and after a ``break`` a batch nobody
    asked about is given again. Everything else is torch's; ``in_order=False`` is refused, because batches that overtake
    each other cannot be counted.

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
        if self.resumable is not None:
            told: Any = 1 if self.batch_sampler is None else getattr(self.batch_sampler, "batch_size", None)
            size = told if type(told) is int and told > 0 else None  # a user's may mean anything by that name
            self.resumable.expect(workers=self.num_workers if size else 0, batch_size=size or 1)
        return self.open() if self.resumable is None else Deliveries(self, self.resumable)

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


class Passes(Protocol):
    """A loader: it opens passes, and its batches are noted as they are drawn."""

    drawn_batches: DrawnBatches

    def open(self) -> Any:
        """The batches of a new pass, an iterator."""


class Deliveries:
    """One pass of a training loop.

    It commits what the loop has had; the sampler asks it to ``settle`` when state is wanted.
    """

    def __init__(self, loader: Passes, sampler: ResumableDistributedSampler) -> None:
        self._sampler = sampler
        self._held: list[int] = []
        self._replaced: list[int] = []  # those of them that others stand for
        self._failed = False
        self._over = sampler.begin_pass(self)  # nothing to count: the pass is empty, or every id of it is committed
        self._generation = sampler.generation
        self._batches = loader.open()
        self._ids = loader.drawn_batches.ids

    def __iter__(self) -> Deliveries:
        return self

    def __len__(self) -> int:
        return len(self._batches)

    def __next__(self) -> Any:
        self._refuse_if_stale()
        self.settle()
        self._failed = True  # unless it is seen to end well
        try:
            batch, places = report_of(next(self._batches))
        except StopIteration:
            self._failed = False
            if not self._over:
                self._over = True
                self._sampler.end_pass()  # the loader's own drop_last may leave ids that no pass would ever deliver
            raise
        self._failed = False
        self._held = self._ids.popleft()
        self._replaced = [self._held[place] for place in places]
        return batch

    def settle(self) -> None:
        """Commit the batch that the loop holds."""
        with self._sampler.lock:
            held, self._held = self._held, []
            if held:
                if self._replaced:
                    self._sampler.quarantine(self._replaced)
                self._sampler.commit_delivered(len(held))
                self._over = self._sampler.generation != self._generation

    def _refuse_if_stale(self) -> None:
        if self._failed:
            raise CommitError(
                "this loop's last batch failed, so what would come now is no longer the next of the order; start a new "
                "loop, which begins with that batch, and leave bad samples out with sampler.skip(ids)"
            )
        if self._over or self._sampler.is_counted_by(self):
            return
        raise StaleIteratorError(
            "this loop's sampler was loaded, reset or moved to another epoch, or another loop over its "
            "loader began since; what it would deliver no longer counts. Start a new loop"
        )
