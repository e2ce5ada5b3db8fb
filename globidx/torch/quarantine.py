"""The report of samples that could not be read, on its way from the worker that found out to the record.

What the worker's reading cost takes the same way. Only the main process knows what the loop has had, so the report
travels with its batch: from the dataset as a list that says at which places others stand in (``Substituted``), through
the worker's collate function (``Reporting``), beside the collated batch (``Reported``), to the loop, which tells the
sampler when the batch is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torch.utils.data import get_worker_info

from globidx.disk.reading import counters


class Substituted(list[Any]):
    """Samples of a batch, of which those at ``places`` stand for others that could not be read."""

    def __init__(self, samples: Iterable[Any], places: tuple[int, ...]) -> None:
        super().__init__(samples)
        self.places = places


class Reported(NamedTuple):
    """A collated batch, the places of it that others stand in, and what its worker has read so far.

    What pins or moves named tuples leaves it one.
    """

    batch: Any
    places: tuple[int, ...] = ()
    counted: tuple[counters.Report, ...] = ()


class Reporting:
    """A collate function that passes on, beside the batch, what ``Substituted`` says of its samples.

    In a worker it also passes on what was read there.
    """

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self._collate = collate

    def __call__(self, samples: Any) -> Any:
        """The batch, or ``Reported`` where there is something to report."""
        batch = self._collate(samples)
        places = samples.places if isinstance(samples, Substituted) else ()
        counted = counters.reports() if get_worker_info() is not None else ()
        return Reported(batch, places, counted) if places or counted else batch


def report_of(batch: Any) -> tuple[Any, tuple[int, ...]]:
    """(batch, places that others stand in) of what ``Reporting`` made; what its worker has read is added up."""
    if not isinstance(batch, Reported):
        return batch, ()
    counters.receive(batch.counted)
    return batch.batch, batch.places
