"""Substitutes for samples that cannot be read, so that batches keep their size on every rank."""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from globidx.core import validate
from globidx.core.generator import START, Moment
from globidx.disk.index import scan as scanning
from globidx.disk.index.manager import GlobalIndexManager
from globidx.errors import ReadError
from globidx.torch.tracebacks import without_frames

ON_ERROR = ("raise", "substitute")
OnError = Literal["raise", "substitute"] | Callable[[int, ReadError], int]

_log = logging.getLogger("globidx")
# errors that say nothing about the data: this process cannot read at the moment
_PROCESS_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def neighbours(item: int, start: int, stop: int, num_samples: int) -> Iterator[int]:
    """Ids to try in place of ``item``: near ones before far ones.

    Those of its file, ``[start, stop)``, come first.

    Distances double, so that few steps lead out of a bad chunk, file or run of files, however long
    it is.

    >>> list(neighbours(4, 2, 8, 20))
    [5, 3, 6, 2, 8, 1, 9, 0, 11, 15]
    """
    for first, last, low, high in (
        (item + 1, item - 1, start, stop),
        (stop, start - 1, 0, num_samples),
    ):
        step = 0
        while first + step < high or last - step >= low:
            if first + step < high:
                yield first + step
            if last - step >= low:
                yield last - step
            step = 2 * step + 1


class Substitutes:
    """Reads batches by ``read``, with other samples in place of those that cannot be read.

    ``on_error`` is ``"substitute"``, or a function of (id, error) that returns the id to take
    instead, or raises.
    """

    def __init__(
        self,
        read: Callable[[Sequence[int], Moment], list[Any]],
        manager: GlobalIndexManager,
        on_error: OnError,
    ) -> None:
        self._read, self._manager = read, manager
        self._on_error = on_error
        # failed reads in this process, by file
        self._failures: Counter[str] = Counter()

    def read(
        self, sample_ids: Sequence[int], moment: Moment = START
    ) -> tuple[list[Any], list[int], tuple[int, ...]]:
        """(samples, their ids, the indices at which that is not the requested id)."""
        ids = [int(id) for id in sample_ids]
        try:
            # the usual case reads the batch as one; only after an error is it read sample by sample
            return self._read(ids, moment), ids, ()
        except ReadError as error:
            _raise_if_process_error(error)
        samples, replaced = [], []
        for index, id in enumerate(ids):
            try:
                samples += self._read([id], moment)
            except ReadError as error:
                _raise_if_process_error(error)
                other, sample = self._instead(id, error, moment)
                samples.append(sample)
                ids[index] = other
                replaced.append(index)
                self._log(id, other, error)
        return samples, ids, tuple(replaced)

    def _instead(self, id: int, error: ReadError, moment: Moment) -> tuple[int, Any]:
        """(id, sample) to take for ``id``; ReadError where there is none."""
        if callable(self._on_error):
            # the function may well collect its errors
            kept = without_frames(error, noted=False)
            returned = self._on_error(id, kept)
            try:
                other = validate.sample_id(returned, len(self._manager))
            except (TypeError, IndexError) as wrong:
                raise type(wrong)(
                    f"on_error returned {returned!r:.80} for sample id {id}: it must return the id of another sample, "
                    f"or raise; {wrong}"
                ) from error
            return other, self._read([other], moment)[0]
        index = self._manager.index
        file, item = index.locate(id)
        tried = 0
        start = id - item
        for other in neighbours(id, start, start + int(index.lengths[file]), len(index)):
            try:
                return other, self._read([other], moment)[0]
            except ReadError as failure:
                _raise_if_process_error(failure)
                tried += 1
        raise ReadError(f"{error}; nor could any of {tried} samples around it be read") from error

    def _log(self, id: int, other: int, error: ReadError) -> None:
        """Log the first failure of a file in this process, the 10th, the 100th, and so on."""
        path = scanning.printable(str(self._manager.locate(id).path))
        # of two threads both may count the same number: a line too many, and none is lost
        count = self._failures[path] = self._failures[path] + 1
        # one line for each of a million bad samples would hide all others
        if str(count).strip("0") == "1":
            reads = "1 read" if count == 1 else f"{count} reads"
            message = "%s of %s failed so far: %s; sample id %d is delivered in place of %d"
            _log.warning(message, reads, path, str(error), other, id)


def _raise_if_process_error(error: ReadError) -> None:
    # substitutes would hide that the process is out of memory or descriptors, one by one
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, MemoryError) or (
            isinstance(cause, OSError) and cause.errno in _PROCESS_ERRORS
        ):
            raise error
        cause = cause.__cause__
