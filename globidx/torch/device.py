"""Host to device: the next batch is copied while the loop trains on the one it holds.

``Ahead`` is between torch's iterator and the loop. It knows no device: a *mover* starts to move a
batch and returns a function that returns the moved batch, so order, errors and counting are the
same for every mover.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping, MutableSequence
from typing import Any

import torch

from globidx.torch.tracebacks import without_frames

Mover = Callable[[Any], Callable[[], Any]]


class Ahead:
    """Batches of ``batches``; each begins to move when the one before it is delivered.

    It is at most one batch ahead of the loop. An error of that batch, or the end, is raised when
    the loop asks for it.

    >>> moved = Ahead(iter("ab"), lambda batch: print("start", batch) or (lambda: batch.upper()))
    >>> next(moved)
    start a
    start b
    'A'
    >>> list(moved)
    ['B']
    """

    def __init__(self, batches: Any, move: Mover) -> None:
        self._batches, self._move = batches, move
        self._coming: Callable[[], Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __len__(self) -> int:
        return len(self._batches)

    def __next__(self) -> Any:
        # the first batch of a pass has not begun to move, since nobody had asked for it
        coming, self._coming = self._coming or self._start(), None
        batch = coming()
        self._coming = self._start()
        return batch

    def _start(self) -> Callable[[], Any]:
        """Begin to move the next batch.

        Returns a function that returns it, or raises the error that came instead.
        """
        try:
            return self._move(next(self._batches))
        # whatever it is, the loop must first get the batch before it
        except Exception as error:  # noqa: BLE001
            return _raiser(without_frames(error, noted=not isinstance(error, StopIteration)))


def _raiser(error: Exception) -> Callable[[], Any]:
    def fail() -> Any:
        nonlocal error
        try:
            raise error
        finally:
            # or else it would keep itself alive, by its traceback, and the loader's workers with it
            del error

    return fail


def destination(device: Any) -> torch.device | None:
    """The CUDA device of the argument ``device=``, or None if batches stay on the host.

    ValueError for a device of another kind, or one that does not exist.
    """
    if device is None:
        return None
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {device!r}") from None
    if wanted.type == "cpu":
        return None
    if wanted.type != "cuda":
        raise ValueError(
            f"device must be 'cpu', 'cuda' or 'cuda:N', got {device!r}; move its batches in the "
            "loop"
        )
    # refused here, where the argument is given, and not at the first batch
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (wanted.index or 0) >= count:
        raise ValueError(
            f"device {device!r} does not exist: this process sees {count} CUDA devices; leave "
            "device= out"
        )
    return wanted


class ToDevice:
    """The mover to a CUDA device.

    Copies run on a stream of their own, for which the loop's stream waits.

    A tensor may be freed while the loop's kernels still read it, so its memory is marked as used by
    the loop's stream (``record_stream``). What a batch is copied from is kept until it has been read:
    a slot would be filled again. A loop that queues its work faster than the device runs
    it would fill the device with batches: before a batch is copied, the host waits for the work on
    the one three before it.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # with its index
        self._device = self._stream.device
        # events on the loop's stream, where it came back for a batch
        self._requests: deque[torch.cuda.Event] = deque()
        # batches on the host, each with the event of its copy
        self._sources: deque[tuple[torch.cuda.Event, Any]] = deque()

    def __call__(self, batch: Any) -> Callable[[], Any]:
        """Begin to copy ``batch``.

        Returns a function that returns it for the stream that is current then.
        """
        while len(self._requests) > 1:
            self._requests.popleft().synchronize()
        while self._sources and self._sources[0][0].query():  # type: ignore[no-untyped-call]
            self._sources.popleft()
        with torch.cuda.stream(self._stream):
            moved = rebuilt(batch, self._copied)
        arrived = self._stream.record_event()
        self._sources.append((arrived, batch))

        def deliver() -> Any:
            stream = torch.cuda.current_stream(self._device)
            # blocking: while it waits the host sleeps, and does not spin
            came_back = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._requests.append(stream.record_event(came_back))
            stream.wait_event(arrived)
            return rebuilt(moved, lambda part: self._kept_for(stream, part))

        return deliver

    def _copied(self, part: Any) -> Any:
        # sparse tensors and foreign objects are moved where they are delivered
        if not _is_traceable(part):
            return part
        # neither a pinned slot nor from the thread that pins
        if type(part) is torch.Tensor and part.is_cpu and not part.is_nested:
            part = part if part.is_pinned() else part.pin_memory()
        return part.to(self._device, non_blocking=True)

    def _kept_for(self, stream: torch.cuda.Stream, part: Any) -> Any:
        """A part as the loop gets it.

        What ``record_stream`` cannot mark, such as a user's object with a ``to`` of its own, is
        copied only here, on the loop's stream: late, but never overwritten.
        """
        if _is_traceable(part):
            part.record_stream(stream)
            return part
        move = getattr(part, "to", None)
        if not callable(move):
            return part
        try:
            return move(self._device, non_blocking=True)
        # its ``to`` takes a device only
        except TypeError:
            return move(self._device)


def _is_traceable(part: Any) -> bool:
    if isinstance(part, torch.Tensor):
        return part.layout is torch.strided
    return callable(getattr(part, "record_stream", None)) and callable(getattr(part, "to", None))


def rebuilt(data: Any, part: Callable[[Any], Any]) -> Any:
    """``data`` with ``part`` applied to everything in it that is no container.

    Dicts, lists, tuples and named tuples are rebuilt as what they were.

    >>> rebuilt({"x": [1, (2, "three")]}, lambda part: part * 2)
    {'x': [2, (4, 'threethree')]}
    """
    if _is_traceable(data):
        return part(data)
    if isinstance(data, Mapping):
        return _mapping(data, {key: rebuilt(value, part) for key, value in data.items()})
    if callable(getattr(data, "to", None)):
        return part(data)
    if isinstance(data, tuple):
        parts = [rebuilt(value, part) for value in data]
        return type(data)(*parts) if hasattr(data, "_fields") else type(data)(parts)
    # as torch's own pin_memory does: a subclass may have attributes besides its items
    if isinstance(data, MutableSequence) and not isinstance(data, bytearray):
        clone = copy.copy(data)
        for index, value in enumerate(data):
            clone[index] = rebuilt(value, part)
        return clone
    return part(data)


def _mapping(data: Mapping[Any, Any], values: dict[Any, Any]) -> Any:
    """``values`` in a mapping like ``data``, which may have attributes besides its items."""
    if type(data) is dict:
        return values
    try:
        if isinstance(data, MutableMapping):
            clone = copy.copy(data)
            clone.update(values)
            return clone
        return type(data)(values)  # type: ignore[call-arg]
    except TypeError:
        return values
