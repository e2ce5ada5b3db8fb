"""Samples that cannot be read, and which are read in their place, so that batches keep their size on every rank."""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from globidx.core import validate
from globidx.disk.index import scan as scanning
from globidx.disk.index.manager import GlobalIndexManager
from globidx.errors import ReadError
from globidx.torch.tracebacks import without_frames

ON_ERROR = ("raise", "substitute")
OnError = Literal["raise", "substitute"] | Callable[[int, ReadError], int]

_log = logging.getLogger("globidx")
_ITS_OWN_FAULT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # this process cannot read just now: no word on the data


def neighbours(item: int, start: int, stop: int, num_samples: int) -> Iterator[int]:
    """Ids to try in place of ``item``, whose file has the ids ``[start, stop)``: that file's first, near ones first.

    Distances double, so that a bad chunk, file or run of files is left behind in few steps, however long it is.

    >>> list(neighbours(4, 2, 8, 20))
    [5, 3, 6, 2, 8, 1, 9, 0, 11, 15]
    """
    for first, last, low, high in ((item + 1, item - 1, start, stop), (stop, start - 1, 0, num_samples)):
        step = 0
        while first + step < high or last - step >= low:
            if first + step < high:
                yield first + step
            if last - step >= low:
                yield last - step
            step = 2 * step + 1


class Substitutes:
    """Reads batches by ``read``, with others in place of samples that cannot be read.

    ``on_error`` is ``"substitute"``, or a function of (id, error) that returns the id to take instead, or raises.
    """

    def __init__(
        self, read: Callable[[Sequence[int]], list[Any]], manager: GlobalIndexManager, on_error: OnError
    ) -> None:
        self._read, self._manager, self._on_error = read, manager, on_error
        self._counts: Counter[str] = Counter()  # failed reads, by file, in this process

    def read(self, sample_ids: Sequence[int]) -> tuple[list[Any], list[int], tuple[int, ...]]:
        """(samples, the ids that they are samples of, places at which that is another id than was asked for)."""
        ids = [int(id) for id in sample_ids]
        try:
            return self._read(ids), ids, ()
        except ReadError as error:
            _raise_if_its_own_fault(error)
        samples, places = [], []
        for place, id in enumerate(ids):
            try:
                samples += self._read([id])
            except ReadError as error:
                _raise_if_its_own_fault(error)
                other, sample = self._instead(id, error)
                samples.append(sample)
                ids[place] = other
                places.append(place)
                self._tell(id, other, error)
        return samples, ids, tuple(places)

    def _instead(self, id: int, error: ReadError) -> tuple[int, Any]:
        """(id, sample) to take for ``id``; ReadError where there is none."""
        if callable(self._on_error):
            kept = without_frames(error, noted=False)  # who is told may well collect them
            other = validate.sample_id(self._on_error(id, kept), len(self._manager))
            return other, self._read([other])[0]
        index, tried = self._manager.index, 0
        file, item = index.locate(id)
        start = id - item
        for other in neighbours(id, start, start + int(index.lengths[file]), len(index)):
            try:
                return other, self._read([other])[0]
            except ReadError as failure:
                _raise_if_its_own_fault(failure)
                tried += 1
        raise ReadError(f"{error}; nor could any of {tried} samples around it be read") from error

    def _tell(self, id: int, other: int, error: ReadError) -> None:
        """A line in the log for a file's first failure in this process, its 10th, its 100th, and so on."""
        path = scanning.printable(str(self._manager.locate(id).path))
        self._counts[path] += 1
        count = self._counts[path]
        if str(count).strip("0") == "1":
            told = "%d reads of %s failed so far; sample id %d stands in for the last: %s"
            _log.warning(told, count, path, other, str(error))


def _raise_if_its_own_fault(error: ReadError) -> None:
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno in _ITS_OWN_FAULT):
            raise error
        cause = cause.__cause__
