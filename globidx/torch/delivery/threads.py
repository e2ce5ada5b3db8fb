"""Batches that threads of this process read, all from one dataset, with one index and one cache.

The thread of the loop draws ids, at the moments at which torch draws them for worker processes, and
takes the batches in the sequence in which it drew them. Threads only read and collate.

Nothing waits for a thread: one that hangs in a read is left behind, by the loop that is closed and
by the interpreter that exits.
"""

from __future__ import annotations

import atexit
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.utils.data
from torch.utils.data._utils.pin_memory import pin_memory
from torch.utils.data.dataloader import _BaseDataLoaderIter

from globidx.core.datasets.known import nested_datasets
from globidx.torch.loops.foreseen import announced

#: How long the loop sleeps before it looks whether its threads are alive, in seconds. A signal that
#: another thread received is handled then.
_LOOK_SECONDS = 1.0
#: How long the interpreter's exit waits for threads to finish what they read, in seconds.
_EXIT_SECONDS = 2.0


def refuse_unshareable(dataset: Any, context: Any) -> None:
    """TypeError or ValueError for a loader whose dataset, or start method, threads cannot share."""
    if isinstance(dataset, torch.utils.data.IterableDataset):
        raise TypeError(
            f"threads share one dataset, and {type(dataset).__name__}, an IterableDataset, has one "
            "iterator a worker: pass workers='processes', or a map-style dataset"
        )
    if context is not None:
        raise ValueError(
            "multiprocessing_context= says how processes start, and workers='threads' starts none; "
            "leave one of them out"
        )
    if _seeds_generators(dataset):
        raise ValueError(
            "seed_transforms=True seeds the generators of torch, random and numpy, which all "
            "threads of a process share, the training loop's too; pass workers='processes', or "
            "draw from the generator of transform(sample, rng)"
        )


class ThreadIterator(_BaseDataLoaderIter):
    """The batches of one pass, read by threads; of all passes, where these are persistent.

    Parameters
    ----------
    loader
        A loader with ``num_workers`` above 0 and a map-style dataset.
    """

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        self._begin_thread, self._most = loader.worker_init_fn, loader.prefetch_factor
        self._fetch = torch.utils.data._DatasetKind.create_fetcher(  # type: ignore[no-untyped-call]
            self._dataset_kind,
            self._dataset,
            self._auto_collation,
            self._collate_fn,
            self._drop_last,
        ).fetch
        self._start()

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        """Begin another pass, as torch's loader asks its persistent iterator to."""
        self._team.forget()
        super()._reset(loader, first_iter)
        # of a parent process, say
        if not self._team.is_alive:
            self._team.close()
            self._start()
            return
        self._prime()

    def __del__(self) -> None:
        # what failed to begin has none
        if "_team" in self.__dict__:
            self._team.close()

    def _start(self) -> None:
        read: Any = announced(self._dataset, self._fetch)
        if self._pin_memory:
            device = torch.accelerator.current_device_index()
            read = Pinned(read, self._pin_memory_device, device)
        self._team = Team(self._num_workers, read, self._begin_thread)
        self._prime()

    def _prime(self) -> None:
        self._coming: deque[Task] = deque()
        for _ in range(max(1, self._most * self._num_workers)):
            self._draw()

    def _draw(self) -> None:
        """Draw the ids of one more batch, if there is one, for a thread to read."""
        try:
            ids = self._next_index()  # type: ignore[no-untyped-call]
        except StopIteration:
            return
        self._coming.append(self._team.give(ids))

    def _next_data(self) -> Any:
        if not self._coming:
            if not self._persistent_workers:
                self._team.close()
            raise StopIteration
        self._wait(self._coming[0])
        task = self._coming.popleft()
        # torch draws before it raises the error of a batch, too
        self._draw()
        return task.result()

    def _wait(self, task: Task) -> None:
        """Return when the task is done; RuntimeError after the loader's timeout."""
        end = time.monotonic() + self._timeout if self._timeout else None
        while not task.done.wait(_until(end)):
            if end is not None and time.monotonic() >= end:
                raise RuntimeError(
                    f"DataLoader timed out after {self._timeout} seconds, in which no thread has "
                    "read the next batch"
                )
            if not self._team.is_alive and not task.done.is_set():
                raise RuntimeError(
                    "the threads that read for this loop are gone: they are in the process that "
                    "began it, and this one was forked from it; begin another loop here"
                )


class Pinned(NamedTuple):
    """Makes batches by ``fetch`` in pinned memory, for the device that is current in the loop's thread."""

    fetch: Callable[[Any], Any]
    kind: str | None
    device: int

    def __call__(self, ids: Any) -> Any:
        """The batch of these ids."""
        # each thread has a current device of its own
        torch.accelerator.set_device_index(self.device)
        return pin_memory(self.fetch(ids), self.kind)  # type: ignore[no-untyped-call]


class Task:
    """A batch to read, and what came of it."""

    __slots__ = ("_batch", "_error", "done", "ids")

    def __init__(self, ids: Any) -> None:
        self.ids = ids
        self.done = threading.Event()
        self._batch: Any = None
        self._error: BaseException | None = None

    def finish(self, batch: Any, error: BaseException | None) -> None:
        """Note the batch, or the error that came instead."""
        self._batch, self._error = batch, error
        self.done.set()

    def result(self) -> Any:
        """The batch; raises the error that came instead, with its own traceback."""
        if self._error is None:
            return self._batch
        try:
            raise self._error
        finally:
            # or else it would keep itself alive, by the frame that raises it
            self._error = None


class Team:
    """Threads that call ``read(ids)`` for what they are given, the first given first.

    They hold no reference to the team, so that it is freed with its loop.

    Parameters
    ----------
    size
        How many threads.
    read
        Makes a batch of ids.
    begin
        Called in each thread with its number before it reads. What it raises is the error of what
        the thread would read.

    Examples
    --------
    >>> team = Team(2, sum)
    >>> tasks = [team.give(ids) for ids in ([1, 2], [3, "no number"])]
    >>> for task in tasks: print(task.done.wait())
    True
    True
    >>> tasks[0].result()
    3
    >>> team.close()
    """

    def __init__(
        self, size: int, read: Callable[[Any], Any], begin: Callable[[int], Any] | None = None
    ) -> None:
        self._tasks: Tasks = queue.SimpleQueue()
        self._threads: list[ReadingThread] = []
        for number in range(size):
            thread = ReadingThread(self._tasks, read, begin, number)
            self._threads.append(thread)
            try:
                thread.start()
            except RuntimeError:
                # the system allows no more of them: those before it must not wait for ever
                self.close()
                raise

    @property
    def is_alive(self) -> bool:
        """Whether any of the threads still runs."""
        return any(thread.is_alive() for thread in self._threads)

    def give(self, ids: Any) -> Task:
        """Let a thread read these ids."""
        task = Task(ids)
        self._tasks.put(task)
        return task

    def forget(self) -> None:
        """Leave out what no thread has begun to read."""
        _empty(self._tasks)

    def close(self) -> None:
        """End each thread when it has read what it reads now. It does not wait for that."""
        self.forget()
        for _ in self._threads:
            self._tasks.put(None)


class ReadingThread(threading.Thread):
    """A thread that reads the tasks of a queue, until it finds None there."""

    def __init__(
        self,
        tasks: Tasks,
        read: Callable[[Any], Any],
        begin: Callable[[int], Any] | None,
        number: int,
    ) -> None:
        # a daemon, for which no exit waits
        super().__init__(name=f"globidx-reader-{number}", daemon=True)
        self.tasks = tasks
        self._read, self._begin, self._number = read, begin, number

    def run(self) -> None:
        """Read until there is None to read."""
        is_ready = False
        while (task := self.tasks.get()) is not None:
            failure = None if is_ready else self._prepare()
            is_ready = failure is None
            task.finish(*(_outcome(self._read, task.ids) if is_ready else (None, failure)))
            # a batch must not live on while the thread waits for the next one, nor an error, which
            # keeps the loop alive that raised it
            del task, failure

    def _prepare(self) -> BaseException | None:
        return None if self._begin is None else _outcome(self._begin, self._number)[1]


Tasks = queue.SimpleQueue[Task | None]


def _outcome(do: Callable[[Any], Any], argument: Any) -> tuple[Any, BaseException | None]:
    """What ``do`` returns, or the error that it raises."""
    try:
        return do(argument), None
    # whatever it is, the loop raises it
    except BaseException as error:  # noqa: BLE001
        return None, error


def _empty(tasks: Tasks) -> None:
    try:
        while True:
            tasks.get_nowait()
    except queue.Empty:
        return


def _until(end: float | None) -> float:
    """How long to sleep: not beyond ``end``."""
    return _LOOK_SECONDS if end is None else max(0.0, min(_LOOK_SECONDS, end - time.monotonic()))


def _seeds_generators(dataset: Any) -> bool:
    """Whether a dataset, or one inside it, seeds the generators of the process."""
    return any(getattr(one, "seed_transforms", False) for one in nested_datasets(dataset))


@atexit.register
def _end_all() -> None:
    """End all threads before the interpreter goes away under them, which can abort the process."""
    threads = [one for one in threading.enumerate() if isinstance(one, ReadingThread)]
    # threads of a team share a queue: all are emptied before any is told to end
    for thread in threads:
        _empty(thread.tasks)
    for thread in threads:
        thread.tasks.put(None)
    end = time.monotonic() + _EXIT_SECONDS
    for thread in threads:
        # one that hangs is left: it is a daemon
        thread.join(max(0.0, end - time.monotonic()))
