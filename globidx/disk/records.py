"""Record files: where they lie, which is the newest, and how one is read and published."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from globidx.core import record, strictjson
from globidx.disk.atomic import write_atomic
from globidx.errors import RecordCorruptError

_NAME = re.compile(r"record-(\d{8,19})-([0-9a-f]{12})\.json")


def read_record(path: str | Path) -> dict[str, Any]:
    """The record in a file, parsed strictly and verified; runs no code and opens nothing else.

    RecordCorruptError names the file and the reason where it is no whole record, RecordVersionError where a later
    globidx wrote it.
    """
    file = Path(path)
    with file.open("rb") as stream:
        data = stream.read(strictjson.MAX_BYTES + 1)
    return record.decode(data, str(file))


def publish(directory: Path, sealed: Mapping[str, Any], *, durable: bool) -> Path:
    """Write a record beside the others, all or nothing."""
    path = directory / f"record-{sealed['id']}.json"
    write_atomic(path, record.encode(sealed), durable=durable)
    return path


def list_records(directory: Path) -> list[Path]:
    """The record files of a folder, oldest first: by their number, which no clock can turn round."""
    if not directory.is_dir():
        return []
    found = ((_NAME.fullmatch(path.name), path) for path in directory.iterdir())
    return [path for _, path in sorted(((int(m[1]), m[2]), path) for m, path in found if m)]


def newest(path: str | Path) -> Path:
    """``path`` itself, or the newest record in it where it is a folder; FileNotFoundError where it holds none."""
    place = Path(path)
    if not place.is_dir():
        return place
    found = list_records(place)
    if not found:
        raise FileNotFoundError(f"the folder {place} holds no record")
    return found[-1]


def number_of(path: Path) -> int:
    """The number in a record file's name."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise RecordCorruptError(f"{path} is not named as a record")
    return int(match[1])


def prune(directory: Path, keep_last: int) -> None:
    """Remove all but the newest ``keep_last`` records; only files named as ours are ever touched."""
    for path in list_records(directory)[:-keep_last]:
        path.unlink(missing_ok=True)
