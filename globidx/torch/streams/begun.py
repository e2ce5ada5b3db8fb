"""The pass that a stream's readers began last, as the main process learns of it."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import torch

from globidx.core.progress.state import SamplerState


class Reading(NamedTuple):
    """A pass: of which stream, from which epoch on, at which generation of its sampler.

    ``samples`` stands for those that later epochs would have; see ``samples_of``.
    """

    stream: int
    epoch: int
    generation: int
    samples: int


class Begun:
    """Memory that the workers of a stream share with the main process, however they were started.

    Workers are given a copy of the stream, and nobody is told when a loader starts them. So each
    writes here which pass it reads.

    >>> begun = Begun()
    >>> begun.note(Reading(17, 2, 3, 5))
    >>> begun.reading
    Reading(stream=17, epoch=2, generation=3, samples=5)
    """

    def __init__(self) -> None:
        self._share(torch.zeros(4, dtype=torch.int64))

    def __setstate__(self, state: dict[str, Any]) -> None:
        # with a worker it is shared already; any other copy has memory of its own
        self._share(state["_numbers"])

    def _share(self, numbers: torch.Tensor) -> None:
        self._numbers = numbers.share_memory_()  # type: ignore[no-untyped-call]

    def note(self, reading: Reading) -> None:
        """Say that a pass begins. All workers of a loader say the same."""
        self._numbers.copy_(torch.tensor(reading, dtype=torch.int64))

    @property
    def reading(self) -> Reading:
        """The pass that began last; of stream 0 if none did."""
        return Reading(*self._numbers.tolist())


def samples_of(state: SamplerState) -> int:
    """A checksum of the dataset, and of what is left out of epochs that begin from here on."""
    return zlib.crc32(repr((state.dataset, state.skip.pairs)).encode())
