"""One pass of a training loop over a loader."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

from globidx.errors import CommitError, EarlyStopError, StaleIteratorError
from globidx.torch.loops.batching import Batching, DrawnBatch
from globidx.torch.loops.callers import Caller
from globidx.torch.loops.ledger import Ledger
from globidx.torch.loops.passes import HeldBatch
from globidx.torch.loops.quarantine import unpack


class Batches(Protocol):
    """What opens passes: a loader, as far as ``Deliveries`` needs it."""

    def __len__(self) -> int:
        """How many batches the epoch has."""

    def batching(self) -> Batching:
        """How ids are cut into batches now."""

    def open(self) -> tuple[Any, deque[DrawnBatch]]:
        """The batches of a new pass, and what each has, which is filled in as they are drawn."""


class Deliveries:
    """One pass of a training loop, which reports to the ledger what the loop was given."""

    def __init__(self, batches: Batches, ledger: Ledger) -> None:
        self._source, self._ledger = batches, ledger
        self._begin()

    def _begin(self) -> None:
        batching = self._source.batching()
        self._over = False
        self._failed = self._begun = False
        # without a batch size no lane of positions is one worker's
        workers = batching.workers if batching.size else 0
        self._ledger.begin_pass(self, workers=workers, batch_size=batching.size or 1)
        self._generation = self._ledger.passes.generation
        # counted down here: which batch is the last of the pass must be known as it is handed out
        self._left = self._ledger.left_to_deliver
        self._smallest = batching.smallest
        self.start = batching.started(self._ledger.done)
        self._batches, self._drawn = self._source.open()

    def __iter__(self) -> Deliveries:
        return self

    def __len__(self) -> int:
        return len(self._source)

    def __next__(self) -> Any:
        self._refuse_if_failed()
        self._ledger.come_back(self)
        # no batch was delivered yet: it is a pass over what the sampler was set to since
        if not self._begun and self._ledger.passes.generation != self._generation:
            self._begin()
        self._refuse_if_stale()
        # it counts as failed until it is seen to end well
        self._begun = self._failed = True
        try:
            batch, replaced = unpack(next(self._batches))
        except StopIteration as stop:
            self._refuse_early(stop)
            self._failed = False
            self._ledger.end_of(self)
            raise
        self._failed = False
        self._hand_out(replaced)
        return batch

    def _hand_out(self, replaced: Iterable[int]) -> None:
        ids, at = self._drawn.popleft()
        self._left -= len(ids)
        # the frame that called __next__
        caller = Caller.of(sys._getframe(2))
        is_last = self._left < self._smallest
        self._ledger.hand_out(
            self, HeldBatch(ids, [ids[index] for index in replaced], is_last, caller, at)
        )

    def end(self) -> None:
        """End the pass: the loop is given no further batch, and ends without an error."""
        self._over = True

    def _refuse_if_failed(self) -> None:
        if self._failed:
            raise CommitError(
                "this loop's last batch failed, so what would come now is no longer the next of "
                "the order; start a new loop, which begins with that batch, and leave bad "
                "samples out with sampler.skip(ids)"
            )

    def _refuse_early(self, stop: StopIteration) -> None:
        """EarlyStopError if batches that were drawn never came."""
        if self._drawn:
            raise EarlyStopError(
                f"the pass ended with {sum(len(ids) for ids, _ in self._drawn)} ids drawn and not delivered, the "
                f"next of them {self._drawn[0][0][:3]}: the dataset or collate_fn raised StopIteration "
                "(by next() on an exhausted iterator, say), which ends a loop silently; catch it "
                "there, or raise another error"
            ) from stop

    def _refuse_if_stale(self) -> None:
        if self._over:
            self._batches, self._drawn = iter(()), deque()
        elif not self._ledger.passes.counted_by(self):
            passes = self._ledger.passes
            why = (
                f"its sampler {passes.moved}"
                if passes.generation != self._generation
                else "another loop over its loader began"
            )
            raise StaleIteratorError(
                f"{why} since this loop began, so what the loop would deliver no longer counts; "
                "leave it and start a new one over the loader"
            )
