"""The report of samples that could not be read, on its way from the worker that found out to the record.

Only the main process knows what the loop has had, so the report travels with its batch: from the dataset as a list that
says at which places others stand in (``Substituted``), through the worker's collate function (``Reporting``), beside
the collated batch (``Reported``), to the loop, which tells the sampler when the batch is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Substituted(list[Any]):
    """Samples of a batch, of which those at ``places`` stand for others that could not be read."""

    def __init__(self, samples: Iterable[Any], places: tuple[int, ...]) -> None:
        super().__init__(samples)
        self.places = places


class Reported(NamedTuple):
    """A collated batch, and the places of it that others stand in. What pins or moves named tuples leaves it one."""

    batch: Any
    places: tuple[int, ...]


class Reporting:
    """A collate function that passes on, beside the batch, what ``Substituted`` says of its samples."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self._collate = collate

    def __call__(self, samples: Any) -> Any:
        """The batch, or ``Reported`` where others stand in it."""
        batch = self._collate(samples)
        return Reported(batch, samples.places) if isinstance(samples, Substituted) else batch


def report_of(batch: Any) -> tuple[Any, tuple[int, ...]]:
    """(batch, places that others stand in) of what ``Reporting`` made."""
    return batch if isinstance(batch, Reported) else (batch, ())
