"""Threads that do what waits: so many at a time, begun when there is work, ended with the process."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol, TypeVar
from weakref import finalize

from globidx.disk.files import forks
from globidx.disk.files.living import Living
from globidx.errors import ReadError

Given = TypeVar("Given")
Result = TypeVar("Result")

#: A thread without work ends after so many seconds.
_IDLE_SECONDS = 10.0


def rest(seconds: float) -> None:
    """Sleep; ReadError once the main thread has ended, since nobody waits for what would follow."""
    if _Ends.has_come.wait(seconds):
        raise ReadError("the process ends")


class _Lone(threading.local):
    """Whether this thread does all by itself."""

    is_on = False


_lone = _Lone()


@contextmanager
def alone() -> Iterator[None]:
    """Let this thread do by itself what hands would do for it.

    It holds a lock that their threads may wait for.
    """
    before, _lone.is_on = _lone.is_on, True
    try:
        yield
    finally:
        _lone.is_on = before


class Job(Protocol):
    """Something to do; it raises nothing."""

    def make(self) -> None:
        """Do it, in some thread."""

    def drop(self) -> None:
        """Learn that it will not be done."""


class Hands:
    """At most ``count`` threads. A forked child has none of them, and begins its own.

    >>> Hands(2).map(abs, [-1, 2, -3])
    [1, 2, 3]
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._start()
        forks.renew_in_child(self, Hands._start)

    def put(self, job: Job) -> None:
        """Do it when all that was put before was begun."""
        self._work.put(job, self.count)

    def begin(self, function: Callable[[Given], Result], given: Given) -> Future[Result]:
        """What a call will return, for those who cannot wait for it here."""
        answer = _Answer(function, given)
        self.put(answer)
        return answer.future

    def map(self, function: Callable[[Given], Result], given: Sequence[Given]) -> list[Result]:
        """The results for all that is given, at the same time; the first error where there is one.

        A thread of these hands that asks does it alone: it would wait for itself. And so does one
        that is to be ``alone``.
        """
        if len(given) < 2 or _lone.is_on or self._work.is_own():
            return [function(one) for one in given]
        answers = [self.begin(function, one) for one in given]
        return [answer.result() for answer in answers]

    def close(self) -> None:
        """Drop what was not begun; threads end, and new ones begin with the next job."""
        work = self._work
        self._start()
        work.close()

    def _start(self) -> None:
        self._work = work = _Work()
        # threads know the work and not these hands, which may thus be freed
        finalize(self, work.close)


class _Answer:
    """What a call returns, once a thread has made it."""

    def __init__(self, function: Callable[[Any], Any], given: Any) -> None:
        self._function, self._given = function, given
        self.future: Future[Any] = Future()

    def make(self) -> None:
        # nobody waits any more
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._function(self._given)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            self.future.set_exception(error)
        else:
            self.future.set_result(result)

    def drop(self) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(ReadError("the files were closed while they were read"))


class _Work:
    """Jobs that wait for a thread, and the threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._threads: set[threading.Thread] = set()
        self._idle, self._is_closed = 0, False

    def is_own(self) -> bool:
        return threading.current_thread() in self._threads

    def put(self, job: Job, count: int) -> None:
        with self._changed:
            if not self._is_closed:
                self._jobs.append(job)
                if len(self._jobs) <= self._idle:
                    self._changed.notify()
                elif len(self._threads) < count:
                    _Ends.watch(self)
                    thread = threading.Thread(target=self._run, name="globidx-remote")
                    self._threads.add(thread)
                    thread.start()
                return
        job.drop()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            left, self._jobs = self._jobs, deque()
            self._changed.notify_all()
        for job in left:
            job.drop()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._jobs or self._is_closed, _IDLE_SECONDS)
                self._idle -= 1
                if self._is_closed or not self._jobs:
                    self._threads.discard(threading.current_thread())
                    return
                job = self._jobs.popleft()
            job.make()
            # what it holds is not kept until the next one comes
            del job


class _Ends:
    """A thread that closes all work when the main thread ends.

    Daemon threads would die inside a library; others are joined at the end of a process, which
    would then wait for requests that nobody will read.
    """

    _open: ClassVar[Living[_Work]] = Living()
    _watched_in = 0
    _lock = threading.Lock()
    has_come = threading.Event()

    @classmethod
    def watch(cls, work: _Work) -> None:
        with cls._lock:
            cls._open.add(work)
            if cls._watched_in != os.getpid():
                cls._watched_in = os.getpid()
                threading.Thread(target=cls._await_end, name="globidx-remote-end").start()

    @classmethod
    def _await_end(cls) -> None:
        threading.main_thread().join()
        cls.has_come.set()
        for work in list(cls._open):
            work.close()

    @classmethod
    def renew(cls) -> None:
        cls._lock, cls._open = threading.Lock(), Living()
        cls.has_come = threading.Event()


os.register_at_fork(after_in_child=_Ends.renew)
