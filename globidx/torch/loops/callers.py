"""Who calls: whether a `for` statement still runs, and whether a loader asks for ids.

Whether an iterator still exists does not show whether its loop was abandoned: a traceback, a
debugger or a variable keeps an iterator alive. The interpreter's state does: whether the frame that
asked is in the body of that `for`, and whether an exception that was raised since is being handled.
Nor does torch or torchdata let a sampler know that a loader reads it. So frames are inspected, in
this module only.
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

_TORCHDATA = "torchdata.stateful_dataloader"
_SPDL = "spdl.pipeline._components._source"
_LOADERS = ("torch.utils.data.dataloader", _TORCHDATA, "physicsnemo.datapipes", _SPDL)
# what takes the batches of a loader ahead of the training loop, and what to do instead
_AHEAD = {
    "ray.train.torch.train_loop_utils": "leave prepare_data_loader out, and pass "
    "device=ray.train.torch.get_device() to globidx.DataLoader",
    _SPDL: "let the pipeline read the sampler (add_source(BatchSampler(sampler, batch_size, "
    "drop_last=False)), output_order='input'), and call sampler.commit(len(batch)) in the loop",
    "spdl.pipeline._iter_utils": "leave iterate_in_subprocess out: num_workers= of globidx.DataLoader "
    "reads in processes",
}
_ACCELERATE = "accelerate.data_loader"
_FETCHER = "torch.utils.data._utils.fetch"
# frames between a loader and the sampler that it reads: batch samplers, wrappers, and our own
_MOST_FRAMES = 13
# a suspended frame is on no thread's stack, whether its loop goes on or not
_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Caller(NamedTuple):
    """The frame that asked for a batch, by its id: a reference would keep its variables alive."""

    thread: int
    frame: int
    code: CodeType
    instruction: int
    # the exception that was being handled when it asked
    handling: BaseException | None

    @classmethod
    def of(cls, frame: FrameType) -> Caller:
        """The caller in ``frame`` at this moment."""
        return cls(threading.get_ident(), id(frame), frame.f_code, frame.f_lasti, sys.exception())

    def has_left(self) -> bool:
        """Whether the loop that asked was certainly left: by an exception, a return or a break.

        False if that cannot be known: for a call of ``next()``, or a generator between the caller
        and the loader.
        """
        if self.is_failing():
            return True
        body = _body(self.code, self.instruction)
        return body is not None and not self._is_in(body)

    def is_in_loop(self) -> bool:
        """Whether a `for` statement asked, and its frame is still in the body."""
        body = _body(self.code, self.instruction)
        return body is not None and self._is_in(body)

    def is_failing(self) -> bool:
        """Whether an exception raised since is being handled, so the batch may be untrained.

        An exception that another thread handles does not concern the loop.
        """
        # sys.exception() knows those of this thread only
        handled = sys.exception() if self.thread == threading.get_ident() else None
        return handled is not None and handled is not self.handling

    def _is_in(self, body: range) -> bool:
        mine = self.thread == threading.get_ident()
        frame = sys._getframe() if mine else sys._current_frames().get(self.thread)
        while frame is not None:
            # the id of a frame may be taken by another one, but hardly by one of the same code
            if id(frame) == self.frame and frame.f_code is self.code:
                return frame.f_lasti in body
            frame = frame.f_back
        return False


@lru_cache(maxsize=1024)
def _body(code: CodeType, instruction: int) -> range | None:
    """Offsets of the body of the `for` statement whose FOR_ITER is at ``instruction``.

    None if there is none.

    The compiler puts a loop's body between FOR_ITER and its target. Only exception handlers are
    moved out of it, and a loop in one of those has failed to train on its batch.
    """
    # unknown, and so left to the iterator's life
    if code.co_flags & _SUSPENDABLE:
        return None
    for operation in dis.get_instructions(code):
        if operation.offset == instruction:
            return range(instruction, operation.argval) if operation.opname == "FOR_ITER" else None
    return None


def is_read_by_loader() -> bool:
    """Whether a loader, torch's or one built on it, asks the caller for ids."""
    return any(_name(frame).startswith(_LOADERS) for frame in _frames())


def is_asked_by_torchdata() -> bool:
    """Whether torchdata's StatefulDataLoader asks a sampler for its state.

    It also asks the sampler's iterator, whose answer is the one that counts.
    """
    return any(_name(frame).startswith(_TORCHDATA) for frame in _frames())


def keeps_some_states() -> bool:
    """Whether a StatefulDataLoader asks that keeps the state of some steps only."""
    # None and 0 keep that of the first step alone
    return any(
        getattr(one, "_num_workers", 0) and getattr(one, "_snapshot_interval", 1) != 1
        for one in _of_torchdata()
    )


def batch_size_of_torchdata() -> int:
    """How many ids a batch of the StatefulDataLoader that asks has."""
    sizes = (getattr(one, "batch_size", None) for one in _of_torchdata())
    # without a batch sampler each id is a batch
    return next((size for size in sizes if size), 1)


def replayed_batches() -> int:
    """How many batches a StatefulDataLoader that loads will read again and throw away."""
    for frame in _frames():
        loaded: Any = frame.f_locals.get("next_iter_state")
        if _name(frame).startswith(_TORCHDATA) and isinstance(loaded, dict):
            return int(loaded.get("_steps_since_snapshot", 0))
    return 0


def refuse_accelerate(world_size: int) -> None:
    """CommitError if Accelerate deals batches of dealt ids once more, or skips some of them.

    Both read the sampler like a loader and never deliver what they leave out.
    """
    for frame in _frames():
        if _name(frame) != _ACCELERATE:
            continue
        wrapper: Any = frame.f_locals.get("self")
        kind = frame.f_code.co_qualname.partition(".")[0]
        if kind == "SkipBatchSampler":
            raise CommitError(
                f"skip_first_batches({wrapper.skip_batches}) over a ResumableDistributedSampler, "
                "which starts after what is committed: these batches would be lost; leave it out "
                "(with transformers' Trainer use globidx.integrations.transformers)"
            )
        if kind == "BatchSamplerShard" and wrapper.num_processes > 1 and world_size > 1:
            raise CommitError(
                f"Accelerate deals the batches of this rank to {wrapper.num_processes} processes, "
                f"but their ids are dealt to {world_size} ranks already: most would be lost; use "
                "globidx.integrations.accelerate.prepare(accelerator, loader) in place of "
                "accelerator.prepare(loader)"
            )


def refuse_stream_of_accelerate(world_size: int) -> None:
    """CommitError if Accelerate deals a stream, which is one rank's already, to the ranks again."""
    if world_size > 1 and any(_name(frame) == _ACCELERATE for frame in _frames()):
        raise CommitError(
            f"Accelerate deals this stream to {world_size} processes, but it is one rank's already: "
            "most samples would be lost; use globidx.DataLoader(stream, ...), by "
            "globidx.integrations.accelerate.prepare(accelerator, loader)"
        )


class Fetch(NamedTuple):
    """A batch that torch's loader takes from an iterable dataset: its size, and how much it has."""

    size: int
    begun: int


def fetch_under_way() -> Fetch | None:
    """The batch that a loader is taking from the caller, by ``next()``; None if none is."""
    # a worker is told neither the batch size nor where a batch begins
    for frame in _frames():
        if _name(frame) == _FETCHER and frame.f_code.co_name == "fetch":
            wanted = frame.f_locals.get("possibly_batched_index")
            # without batches it is None
            size = len(wanted) if isinstance(wanted, list) else 1
            return Fetch(size, len(frame.f_locals.get("data", ())))
    return None


def refuse_ignite() -> None:
    """CommitError if Ignite's DeterministicEngine reads an epoch to skip what it has trained on."""
    if any(_name(frame) == "ignite.engine.deterministic" for frame in _frames()):
        raise CommitError(
            "Ignite's DeterministicEngine skips the batches of the epoch that are done, and a "
            "ResumableDistributedSampler starts after these: others would be lost; use Engine "
            "(the samples, their order, and generators by transform(sample, rng) are the same "
            "in every run)"
        )


def refuse_ahead() -> None:
    """CommitError if the batches of a loader are taken ahead of the loop that trains on them.

    A record would have those that were not trained on, which would be lost.
    """
    for frame in _frames():
        for module, instead in _AHEAD.items():
            if _name(frame).startswith(module):
                raise CommitError(
                    f"{frame.f_code.co_qualname} of {module} takes batches ahead of the training "
                    "loop, so a record would count some that were not trained on, and these would "
                    f"be lost; {instead}"
                )


def _of_torchdata() -> list[Any]:
    """The iterators of a StatefulDataLoader that ask: they say what they were made with."""
    frames = (frame for frame in _frames() if _name(frame).startswith(_TORCHDATA))
    return [frame.f_locals.get("self") for frame in frames]


def _name(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _frames() -> list[FrameType]:
    """The nearest frames, from the caller's on."""
    frames: list[FrameType] = []
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and len(frames) < _MOST_FRAMES:
        frames.append(frame)
        frame = frame.f_back
    return frames
