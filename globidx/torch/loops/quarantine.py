"""The report of samples that could not be read, on its way from the worker to the record.

The report travels with its batch, because only the main process knows what the loop has had: from
the dataset as a list that knows which of its samples are substitutes (``SubstitutedSamples``),
through the worker's collate function (``ReportingCollate``), beside the collated batch
(``BatchReport``), to the loop, which reports it to the sampler when the batch is committed. What
the worker's reading cost travels the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torch.utils.data import get_worker_info

from globidx.disk.reading import counters


class SubstitutedSamples(list[Any]):
    """Samples of a batch, some of which may be substitutes.

    Those at the indices ``replaced`` stand in for others that could not be read.
    """

    def __init__(self, samples: Iterable[Any], replaced: tuple[int, ...]) -> None:
        super().__init__(samples)
        self.replaced = replaced


class BatchReport(NamedTuple):
    """A collated batch, the indices of its substitutes, and what its worker has read so far.

    It is a named tuple because torch's ``pin_memory`` keeps the type of those.
    """

    batch: Any
    replaced: tuple[int, ...] = ()
    counted: tuple[counters.Report, ...] = ()


class ReportingCollate:
    """A collate function that returns, beside the batch, which samples are substitutes.

    In a worker it also returns what was read there.
    """

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self._collate = collate

    def __call__(self, samples: Any) -> Any:
        """The batch, or a ``BatchReport`` if there is something to report."""
        batch = self._collate(samples)
        replaced = samples.replaced if isinstance(samples, SubstitutedSamples) else ()
        # totals and not differences: a batch that is lost is made up for by the next one
        counted = counters.reports() if get_worker_info() is not None else ()
        # nothing to report is the usual case, and then the batch is what the user's collate made
        return BatchReport(batch, replaced, counted) if replaced or counted else batch


def unpack(batch: Any) -> tuple[Any, tuple[int, ...]]:
    """(batch, indices of its substitutes) of what ``ReportingCollate`` made.

    What its worker has read is added up here.
    """
    if not isinstance(batch, BatchReport):
        return batch, ()
    counters.receive(batch.counted)
    return batch.batch, batch.replaced
