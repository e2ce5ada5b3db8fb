"""Looking through a folder of records, changing nothing: which are whole, and what writers left behind."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from globidx.disk.files.atomic import is_temporary
from globidx.disk.records.folder import list_records, read_record, says_its_id
from globidx.errors import RecordError


class Inspected(NamedTuple):
    """(path, id, problem) of each record, and (path, age in seconds) of temporary files."""

    records: list[tuple[Path, str | None, str | None]]
    temporary: list[tuple[Path, float]]

    @property
    def problems(self) -> int:
        """How many records are not whole, or not what their name says."""
        return sum(problem is not None for _, _, problem in self.records)


def inspect(path: str | Path) -> Inspected:
    """Verify a record, or every record of a folder; FileNotFoundError where there is none."""
    place = Path(path)
    if not place.is_dir():
        return Inspected([_inspected(place)], [])
    found = Inspected([], [])
    for file in list_records(place):
        with suppress(FileNotFoundError):  # a running job may prune it just now
            found.records.append(_inspected(file))
    if not found.records:
        raise FileNotFoundError(f"the folder {place} holds no record")
    with os.scandir(place) as entries:
        for entry in entries:
            if is_temporary(entry.name):
                with suppress(FileNotFoundError):
                    age = time.time() - entry.stat(follow_symlinks=False).st_mtime
                    found.temporary.append((place / entry.name, age))
    return found


def _inspected(path: Path) -> tuple[Path, str | None, str | None]:
    try:
        id = read_record(path)["id"]
    except RecordError as error:
        return path, None, str(error)
    problem = None if says_its_id(path, id) else f"{path} holds record {id}: it was renamed or copied over another"
    return path, id, problem
