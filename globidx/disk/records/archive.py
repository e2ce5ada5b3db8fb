"""The archive of a run: rank 0 writes records, and finds them, for all ranks."""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from globidx.core.json import strict
from globidx.core.records import record
from globidx.core.records.gather import Merge, united
from globidx.core.records.policies import Keep
from globidx.disk.records import folder as records
from globidx.disk.records.background import Background
from globidx.disk.records.lineage import Lineage
from globidx.errors import RecordMismatchError, SaveError

_log = logging.getLogger("globidx")


class _Line:
    """What managers of one run in one folder share: records, and a background write.

    A manager that is made anew each epoch, or by a signal handler, belongs to the same run.
    """

    def __init__(self, directory: Path) -> None:
        self.lineage = Lineage(directory)
        self.background = Background()


class Archive:
    """The records of one run in ``directory``.

    ``run`` tells this run from others of the process that have records in the folder: managers with
    an equal one share their records. ``patience`` is for how many seconds from now the other ranks
    wait for rank 0.
    """

    _lines: ClassVar[WeakValueDictionary[tuple[Any, ...], _Line]] = WeakValueDictionary()

    def __init__(
        self,
        directory: Path,
        run: Iterable[Hashable],
        *,
        keep: Keep | int,
        durable: bool,
    ) -> None:
        self._directory = directory
        self._keep = keep
        self._durable = durable
        # A forked child is another process in the same folder, and must not take its parent's
        # records for its own.
        key = (os.getpid(), os.path.realpath(directory), *run)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(directory)
        self._line, self.lineage = line, line.lineage

    def publish(
        self,
        gathered: Sequence[bytes],
        merges: Mapping[str, Merge],
        *,
        blocking: bool,
        patience: float,
    ) -> dict[str, Any]:
        """The parts of all ranks as one record, on disk or on its way there."""
        self.settle(patience)
        number = self.lineage.next_number()
        parts = [_part(rank, data) for rank, data in enumerate(gathered)]
        sealed = record.build(
            number=number,
            token=secrets.token_hex(6),
            time=datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds"),
            step=parts[0]["step"],
            states=strict.plain(united(parts, merges), "states"),
            extras=parts[0]["extras"],
        )
        if blocking:
            self._write(sealed)
        else:
            # what no reader would accept is refused at once
            record.decode(record.encode(sealed), "the record to be written")
            self._line.background.start(f"record {sealed['id']}", lambda: self._write(sealed))
        return sealed

    def find(
        self, requests: Sequence[bytes], patience: float
    ) -> tuple[dict[str, Any] | None, list[str]]:
        """The record that all ranks ask for, and why newer ones were passed over."""
        self.settle(patience)
        wanted = [json.loads(data) for data in requests]
        for rank, wish in enumerate(wanted):
            if wish != wanted[0]:
                raise RecordMismatchError(
                    f"rank {rank} restores with expect, fallback = {wish}, rank 0 with "
                    f"{wanted[0]}; ask for the same on every rank: let rank 0 broadcast the id "
                    "that its model checkpoint holds"
                )
        self.lineage.look()
        expect, fallback = wanted[0]
        newest, passed_over = records.find(self._directory, expect, fallback=fallback)
        if newest is None:
            _log.info("no record in %s: the run begins afresh", self._directory.absolute())
        for reason in passed_over:
            _log.warning(
                "restored record %s, and not a newer one, because of fallback=True: %s",
                (newest or {}).get("id"),
                reason,
            )
        return newest, passed_over

    def settle(self, patience: float) -> None:
        """Wait for a write in the background; SaveError if it failed, or takes too long."""
        # a little less than the others wait, to report it to them
        self._line.background.settle(0.8 * patience)

    def _write(self, sealed: dict[str, Any]) -> None:
        self.lineage.write(sealed, durable=self._durable)
        self.lineage.prune(self._keep)


def _part(rank: int, data: bytes) -> dict[str, Any]:
    try:
        part: dict[str, Any] = json.loads(data)
    except ValueError as error:
        raise SaveError(
            f"rank {rank} sent what is no part of a record: {error}. Nothing is saved: not written"
        ) from None
    return part
