"""Who calls: whether the `for` statement that asked for a batch is still running, and whether a loader asks for ids.

A loop that was left must not be told from one that goes on by whether its iterator still exists: a traceback, a
debugger or a variable keeps one alive. What is asked instead is the interpreter's own state: whether the frame that
asked stands in the body of that `for`, and whether an exception that was raised since is being handled. And neither
torch nor torchdata lets a sampler know that it is a loader that reads it. So frames are looked at, here and nowhere
else.
"""

from __future__ import annotations

import dis
import inspect
import sys
import threading
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any, NamedTuple

from globidx.errors import CommitError

_LOADERS = ("torch.utils.data.dataloader", "torchdata.stateful_dataloader")
_DEEP = 13  # frames from a loader to the sampler that it reads, batch samplers and wrappers between them
# A suspended frame is on no thread's stack, so that it is not running means nothing.
_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Caller(NamedTuple):
    """The frame that asked for a batch, by its identity: held itself, it would keep its variables alive."""

    thread: int
    frame: int
    code: CodeType
    instruction: int
    handling: BaseException | None  # the exception that was being handled when it asked

    @classmethod
    def of(cls, frame: FrameType) -> Caller:
        """The caller that ``frame`` is at this moment."""
        return cls(threading.get_ident(), id(frame), frame.f_code, frame.f_lasti, sys.exception())

    def has_left(self) -> bool:
        """Whether the loop that asked is certainly over: by an exception, a return or a break.

        False where that cannot be known: a call of ``next()``, or a generator between its caller and the loader.
        """
        if self.is_failing():
            return True
        body = _body(self.code, self.instruction)
        return body is not None and not self._stands_in(body)

    def is_in_loop(self) -> bool:
        """Whether a `for` statement asked, and is still in its body."""
        body = _body(self.code, self.instruction)
        return body is not None and self._stands_in(body)

    def is_failing(self) -> bool:
        """Whether an exception that was raised since is being handled: whoever asks does so because of it.

        What another thread handles says nothing of the loop.
        """
        handled = sys.exception() if self.thread == threading.get_ident() else None
        return handled is not None and handled is not self.handling

    def _stands_in(self, body: range) -> bool:
        mine = self.thread == threading.get_ident()
        frame = sys._getframe() if mine else sys._current_frames().get(self.thread)
        while frame is not None:
            if id(frame) == self.frame and frame.f_code is self.code:
                return frame.f_lasti in body
            frame = frame.f_back
        return False


@lru_cache(maxsize=1024)
def _body(code: CodeType, instruction: int) -> range | None:
    """Offsets of the body of the `for` statement whose FOR_ITER is at ``instruction``; None where there is none.

    The compiler lays a loop's body out between FOR_ITER and its target; only exception handlers are moved out of it,
    and a loop in one of those has failed to train on its batch anyway.
    """
    if code.co_flags & _SUSPENDABLE:
        return None
    for found in dis.get_instructions(code):
        if found.offset == instruction:
            return range(instruction, found.argval) if found.opname == "FOR_ITER" else None
    return None


def is_read_by_loader() -> bool:
    """Whether the caller is asked for ids by a loader, torch's or one built on it."""
    return any(_name(frame).startswith(_LOADERS) for frame in _frames())


def is_asked_by_torchdata() -> bool:
    """Whether torchdata's StatefulDataLoader asks a sampler for its state.

    It asks the sampler's iterator, too, which knows what was delivered.
    """
    return any(_name(frame).startswith(_LOADERS[1]) for frame in _frames())


def refuse_sparse_snapshots() -> None:
    """CommitError if a StatefulDataLoader keeps the state of every n-th batch only.

    After a load it would fetch and throw away the batches since then, cut as they are today: with another batch size
    or world size those are other samples, which would be lost.
    """
    for frame in _frames():
        asking: Any = frame.f_locals.get("self") if _name(frame).startswith(_LOADERS[1]) else None
        interval, workers = getattr(asking, "_snapshot_interval", 1), getattr(asking, "_num_workers", 0)
        if workers and isinstance(interval, int) and interval > 1:
            raise CommitError(
                f"StatefulDataLoader(snapshot_every_n_steps={interval}) keeps only every {interval}-th state, and "
                "replays the batches since then after a load, which loses samples on another batch size or world "
                "size; leave snapshot_every_n_steps at 1 (a state of this sampler is small and costs microseconds)"
            )


def _name(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _frames() -> list[FrameType]:
    """The nearest frames, from the caller's on."""
    found: list[FrameType] = []
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and len(found) < _DEEP:
        found.append(frame)
        frame = frame.f_back
    return found
