"""The loader that commits: a torch DataLoader which tells its sampler what the training loop has had."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Protocol

import torch.utils.data

from globidx.core.state import DatasetIdentity
from globidx.errors import CommitError, StaleIteratorError
from globidx.torch.sampler import ResumableDistributedSampler


class DataLoader(torch.utils.data.DataLoader[Any]):
    """``torch.utils.data.DataLoader`` that commits by itself where its sampler is a ``ResumableDistributedSampler``.

    A batch counts when the loop comes back for the next one, or when state is asked for while the loop holds it. So
    what workers prefetch does not count, a peek at the first batch costs nothing, and after a ``break`` a batch nobody
    asked about is given again. Everything else is torch's; ``in_order=False`` is refused, because batches that overtake
    each other cannot be counted.

    >>> sampler = ResumableDistributedSampler(range(10), 1, 0, shuffle=False)
    >>> for batch in DataLoader(range(10), batch_size=4, sampler=sampler):
    ...     print(batch.tolist(), "remaining", sampler.remaining)
    [0, 1, 2, 3] remaining 6
    [4, 5, 6, 7] remaining 2
    [8, 9] remaining 10
    """

    def __init__(self, dataset: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(dataset, *args, **kwargs)
        if self.resumable is not None and not getattr(self, "in_order", True):
            raise ValueError(
                "in_order=False lets batches overtake each other, so what is delivered is no prefix of the order; "
                "leave it out"
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
        return self.open() if self.resumable is None else Deliveries(self, self.resumable)

    def open(self) -> Any:
        """torch's own iterator of a new pass, which counts nothing."""
        if self.resumable is not None:
            self._renew_workers(DatasetIdentity.of(self.dataset))
        return super().__iter__()

    def _renew_workers(self, found: DatasetIdentity) -> None:
        """Persistent workers hold the dataset as it was when they started: others must read what changed since."""
        if self.__dict__.get("_opened_over", found) != found:
            self._iterator = None
        self._opened_over = found


class DrawnBatches:
    """A batch sampler that notes the size of each batch it draws, and checks that the batches are the sampler's ids in
    their order.
    """

    def __init__(self, inner: Any, sampler: ResumableDistributedSampler) -> None:
        self._inner = inner
        self._sampler = sampler
        own = type(sampler).__iter__ is ResumableDistributedSampler.__iter__
        self._in_order = own and (inner is sampler or type(inner) is torch.utils.data.BatchSampler)
        self.sizes: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._inner)

    def __iter__(self) -> Iterator[Any]:
        self.sizes = deque()  # a new one each pass: batches of an abandoned pass may still be drawn
        return self._draw(self.sizes)

    def _draw(self, sizes: deque[int]) -> Iterator[Any]:
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
            sizes.append(len(ids))
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
        self._held = 0
        self._failed = False
        self._over = sampler.begin_pass(self)  # nothing to count: the pass is empty, or every id of it is committed
        self._generation = sampler.generation
        self._batches = loader.open()
        self._sizes = loader.drawn_batches.sizes

    def __iter__(self) -> Deliveries:
        return self

    def __len__(self) -> int:
        return len(self._batches)

    def __next__(self) -> Any:
        self._refuse_if_stale()
        self.settle()
        self._failed = True  # unless it is seen to end well
        try:
            batch = next(self._batches)
        except StopIteration:
            self._failed = False
            if not self._over:
                self._over = True
                self._sampler.end_pass()  # the loader's own drop_last may leave ids that no pass would ever deliver
            raise
        self._failed = False
        self._held = self._sizes.popleft()
        return batch

    def settle(self) -> None:
        """Commit the batch that the loop holds."""
        with self._sampler.lock:
            held, self._held = self._held, 0
            if held:
                self._sampler.commit_delivered(held)
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
