"""What a stream refuses in loader workers, which have a copy of it as it was when they started."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import get_worker_info

from globidx.errors import CommitError, StaleIteratorError
from globidx.torch.loops import callers


def refuse_in_worker(call: str) -> None:
    """CommitError in a worker."""
    if get_worker_info() is not None:
        raise CommitError(
            f"{call}() in a loader's worker, which has a copy of the stream and does not know what the training loop "
            "has had; call it in the training loop"
        )


def refuse_torchdata(instead: str) -> None:
    """CommitError if a StatefulDataLoader reads the stream."""
    if callers.is_asked_by_torchdata():
        raise CommitError(
            f"StatefulDataLoader keeps a state of each worker, which resumes on as many workers only; {instead}"
        )


def refused_second_pass(instead: str) -> Iterator[Any]:
    """An iterator that raises StaleIteratorError.

    It does so when it is asked for a sample: an error of ``iter()`` would end a worker that persists.
    """
    raise StaleIteratorError(
        "a worker of persistent_workers=True reads the stream a second time, and has it as it was when the worker "
        f"started: leave persistent_workers out{instead}"
    )
    yield  # type: ignore[unreachable]
