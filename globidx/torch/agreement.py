"""Doing a thing on all ranks or on none: what any rank raises, every rank raises, and nobody is left waiting."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from globidx import errors
from globidx.errors import SaveError
from globidx.torch.distributed import Channel, is_initialized

_OTHERS = {"TypeError": TypeError, "ValueError": ValueError, "NotADirectoryError": NotADirectoryError}


class Agreement:
    """The ranks of ``group``, asked when they are first needed; each round gives up after ``timeout`` seconds."""

    def __init__(self, group: Any, timeout: float) -> None:
        self._group = group
        self._timeout = timeout
        self._channel: Channel | None = None

    @property
    def rank(self) -> int:
        """This rank."""
        return self._talk().rank

    @property
    def world_size(self) -> int:
        """How many ranks agree."""
        return self._talk().world_size

    def by_all(self, work: Callable[[], Any]) -> list[Any]:
        """``work()`` of every rank, in rank order, on every rank: JSON values.

        Where any rank's raised, all raise the same, naming the first such rank; a rank alone raises what it was.
        """
        told, error = _told(work)
        answers = [json.loads(part) for part in self._gather(json.dumps(told).encode())]
        if error is not None and len(answers) == 1:
            raise error
        for rank, answer in enumerate(answers):
            if "error" in answer:
                raise _kind(answer["error"])(f"rank {rank}: {answer['message']}") from error
        return [answer["value"] for answer in answers]

    def by_first(self, work: Callable[[], Any]) -> Any:
        """``work()`` of rank 0, on every rank; where it raised, all raise."""
        told, error = _told(work) if self.rank == 0 else ({}, None)
        answer = json.loads(self._gather(json.dumps(told).encode())[0])
        if error is not None and self.world_size == 1:
            raise error
        if "error" in answer:
            raise _kind(answer["error"])(answer["message"]) from error
        return answer["value"]

    def _talk(self) -> Channel:
        if self._channel is None or (self._channel.is_alone and is_initialized()):
            self._channel = self._reached(lambda: Channel(self._group, self._timeout))
        return self._channel

    def _gather(self, message: bytes) -> list[bytes]:
        channel = self._talk()
        parts: list[bytes] = self._reached(lambda: channel.gather(message))
        return parts

    def _reached(self, talk: Callable[[], Any]) -> Any:
        try:
            return talk()
        except RuntimeError as error:  # torch's DistError and gloo's own
            self._channel = None  # gloo closes a channel that failed; the next round makes another
            raise SaveError(
                f"not all ranks answered within {self._timeout:g} seconds; one is gone, or slower than that: raise "
                f"timeout=, and call this on every rank ({type(error).__name__}: {str(error)[:200]})"
            ) from error


def _told(work: Callable[[], Any]) -> tuple[dict[str, Any], Exception | None]:
    """What ``work`` returned, or what it raised and that error itself."""
    try:
        return {"value": work()}, None
    except Exception as error:  # whatever it is, the other ranks must hear of it before it is raised
        return {"error": type(error).__name__, "message": str(error)}, error


def _kind(name: str) -> type[Exception]:
    """The error class of that name, as far as it takes one string; SaveError for any other."""
    kind: type[Exception] = getattr(errors, name, None) or _OTHERS.get(name, SaveError)
    return kind
