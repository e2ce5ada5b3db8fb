"""Loader workers of an iterable dataset, in one process: torch's own fetchers, asked in turn as its loader asks them."""

from __future__ import annotations

import copy
from contextlib import contextmanager

import torch.utils.data._utils.worker as torch_worker
from torch.utils.data._utils.fetch import _IterableDatasetFetcher


@contextmanager
def as_worker(info):
    """Code in here finds itself in the worker that ``info`` describes."""
    before, torch_worker._worker_info = torch_worker._worker_info, info
    try:
        yield
    finally:
        torch_worker._worker_info = before


class Worker:
    """One worker of a loader: a copy of the dataset, read in batches."""

    def __init__(self, dataset, number, workers, *, batch_size, drop_last=False):
        own = copy.copy(dataset)
        # as pickle would, also of the stream in another dataset
        if hasattr(own, "stream"):
            own.stream = copy.copy(own.stream)
        self._info = torch_worker.WorkerInfo(id=number, num_workers=workers, seed=0, dataset=own)
        self._wanted = [None] * batch_size if batch_size else None
        with as_worker(self._info):
            self._fetcher = _IterableDatasetFetcher(
                self._info.dataset, bool(batch_size), lambda batch: batch, drop_last
            )

    def fetch(self):
        """Its next batch; StopIteration if there is none."""
        with as_worker(self._info):
            return self._fetcher.fetch(self._wanted)


def batches(dataset, *, workers, batch_size, drop_last=False):
    """The batches that a loader delivers: from each worker in turn, until all have ended."""
    started = [
        Worker(dataset, number, max(1, workers), batch_size=batch_size, drop_last=drop_last)
        for number in range(max(1, workers))
    ]
    # an iterator, so that all workers have begun before the first batch is committed
    return _in_turn(started)


def _in_turn(running):
    while running:
        for worker in list(running):
            try:
                yield worker.fetch()
            except StopIteration:
                running.remove(worker)
