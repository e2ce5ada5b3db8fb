"""Delivery by slots, for one iterator of a loader: its shared memory, and both of its sides."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from globidx.torch.delivery.filling import Filling
from globidx.torch.delivery.lender import Lender, Pins
from globidx.torch.delivery.slots import COUNTS, IN_SLOTS, LARGEST, OTHERWISE, SlotFile

_log = logging.getLogger("globidx")


class Exchange:
    """The slots of an iterator whose workers are to start.

    Parameters
    ----------
    workers, slots : int
        Of how many workers, and how many slots each has.
    pins : Pins, optional
        What pins them for a device.

    Raises
    ------
    OSError
        If the system has no memory for them.

    Attributes
    ----------
    account : Account
        How batches came.
    """

    def __init__(self, workers: int, slots: int, pins: Pins | None = None) -> None:
        # two descriptors: a forked child closes the lender's, and a worker needs one
        self._workers = SlotFile.made(workers, slots)
        self._lender = Lender(self._workers.another(), pins)
        self.account = Account(self._lender.file)

    @classmethod
    def where_possible(cls, workers: int, slots: int, pins: Pins | None = None) -> Exchange | None:
        """Slots; None, and a line in the log, if the system has none."""
        try:
            return cls(workers, slots, pins)
        except OSError as error:
            _log.warning(
                "no shared memory for slots (%s), so batches travel as torch sends them; "
                "slots=0 says that this is meant",
                error,
            )
            return None

    def collate(self, own: Callable[[Any], Any]) -> Filling:
        """What workers call instead of ``own``."""
        return Filling(own, self._workers, self._lender.key)

    def belongs_to(self, batches: Any) -> None:
        """End with the iterator ``batches``, whose workers have started."""
        self._workers.close()
        # an attribute goes when the iterator's __del__ has ended the workers
        batches._globidx_slots = self

    def __del__(self) -> None:
        if hasattr(self, "_lender"):
            self._lender.close()

    @property
    def held(self) -> list[int]:
        """Which slots the main process uses now."""
        return self._lender.held


class Account:
    """How the batches of an exchange came; it may be asked for when that is over, too.

    Parameters
    ----------
    file : SlotFile
        Whose counts it reads.
    """

    def __init__(self, file: SlotFile) -> None:
        self._counts, self._size = file.counts, f"{file.workers} x {file.slots} slots"

    def __str__(self) -> str:
        counts = [
            self._counts[number::COUNTS].tolist() for number in (IN_SLOTS, OTHERWISE, LARGEST)
        ]
        in_slots, otherwise, largest = sum(counts[0]), sum(counts[1]), max(counts[2])
        return (
            f"{self._size} of at most {largest / 2**20:.1f} MiB; "
            f"{in_slots} batches were sent in slots, {otherwise} as torch sends them"
        )
