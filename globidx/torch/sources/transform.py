"""Samples as a transform makes them, which may be given their generators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from globidx.core.generator import TRANSFORM, Moment
from globidx.torch.loops.moments import takes_rng


def asks_for_rng(transform: Callable[..., Any] | None) -> bool:
    """Whether a dataset's transform, if it has one, is to be given a generator; TypeError if it is no function."""
    if transform is not None and not callable(transform):
        raise TypeError(f"transform must be callable, got {transform!r}")
    return transform is not None and takes_rng(transform)


def transformed(
    sample: Any, id: int, moment: Moment, transform: Callable[..., Any] | None, *, with_rng: bool
) -> Any:
    """A sample as a dataset gives it; an error names the sample.

    >>> from globidx.core.generator import START
    >>> transformed([5], 0, START, None, with_rng=False), transformed([5], 0, START, len, with_rng=False)
    ([5], 1)
    """
    if transform is None:
        return sample
    try:
        if with_rng:
            return transform(sample, moment.rng(id, TRANSFORM))
        return transform(sample)
    except Exception as error:
        error.add_note(f"raised by transform, for sample id {id}")
        raise
