"""Verifies a folder of records without changing it.

It tells which are whole, and what killed writers left.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from globidx.disk.files.atomic import is_temporary
from globidx.disk.records.folder import is_name_of, list_records, read_listed
from globidx.errors import RecordError


class FolderReport(NamedTuple):
    """(path, id, problem) of each record, and (path, age in seconds) of temporary files."""

    records: list[tuple[Path, str | None, str | None]]
    temporary: list[tuple[Path, float]]

    @property
    def problems(self) -> int:
        """The number of records that are damaged, or have the name of another one."""
        return sum(problem is not None for _, _, problem in self.records)


def inspect(path: str | Path) -> FolderReport:
    """Verify a record, or every record of a folder; FileNotFoundError where there is none."""
    folder = Path(path)
    if not folder.is_dir():
        return FolderReport([_inspected(folder)], [])
    report = FolderReport([], [])
    for file in list_records(folder):
        # a running job may prune it just now
        with suppress(FileNotFoundError):
            report.records.append(_inspected(file))
    if not report.records:
        raise FileNotFoundError(f"the folder {folder} holds no record")
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_temporary(entry.name):
                with suppress(FileNotFoundError):
                    age = time.time() - entry.stat(follow_symlinks=False).st_mtime
                    report.temporary.append((folder / entry.name, age))
    return report


def _inspected(path: Path) -> tuple[Path, str | None, str | None]:
    try:
        id = read_listed(path)["id"]
    except RecordError as error:
        return path, None, str(error)
    problem = (
        None
        # the name decides which record is the newest, so it must be the record's own
        if is_name_of(path, id)
        else f"{path} holds record {id}: it was renamed or copied over another"
    )
    return path, id, problem
