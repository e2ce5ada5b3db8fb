"""Record files: where they lie, which is the newest, and how one is read and published."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from globidx.core import record, strictjson
from globidx.disk.atomic import write_atomic
from globidx.errors import RecordError, RecordMismatchError, SaveError

_NAME = re.compile(r"record-(\d{8,18})-([0-9a-f]{12})\.json")


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
    """Write a record beside the others, all or nothing; RecordError, and nothing, where it could not be read back."""
    path = directory / f"record-{sealed['id']}.json"
    data = record.encode(sealed)
    record.decode(data, "the record to be written")
    try:
        write_atomic(path, data, durable=durable)
    except OSError as error:
        raise SaveError(f"the record {path} could not be written: {error}") from error
    return path


def list_records(directory: Path) -> list[Path]:
    """The record files of a folder, oldest first: by their number, which no clock can turn round.

    None where there is no such folder; NotADirectoryError where there is something else.
    """
    if not directory.exists():
        return []
    found = ((_NAME.fullmatch(path.name), path) for path in directory.iterdir())
    return [path for _, path in sorted(((int(m[1]), m[2]), path) for m, path in found if m and path.is_file())]


def newest(path: str | Path) -> Path:
    """``path`` itself, or the newest record in it where it is a folder; FileNotFoundError where it holds none."""
    place = Path(path)
    if not place.is_dir():
        return place
    found = list_records(place)
    if not found:
        raise FileNotFoundError(f"the folder {place} holds no record")
    return found[-1]


def next_number(directory: Path) -> int:
    """The number after the newest record's; makes the folder where there is none."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"no record can be written: the folder {directory} cannot be made: {error}") from error
    found = list_records(directory)
    return int(found[-1].name.split("-")[1]) + 1 if found else 0


def find(directory: Path, expect: str | None, *, fallback: bool) -> tuple[dict[str, Any] | None, list[str]]:
    """The record to go on from, or None where there is none, and why newer ones were passed over.

    That is the newest, which must be whole and, where ``expect`` is given, have that id: RecordCorruptError or
    RecordMismatchError if not. With ``fallback`` it is the newest that is; RecordError where none is.
    """
    passed_over: list[str] = []
    for path in reversed(list_records(directory)):
        try:
            found = read_record(path)
        except RecordError as error:
            if not fallback:
                said = f"{error}. restore(fallback=True) goes back to the newest whole record before it"
                raise type(error)(said) from None
            passed_over.append(str(error))
            continue
        if expect is None or found["id"] == expect:
            return found, passed_over
        if not fallback:
            raise RecordMismatchError(
                f"the newest record in {directory} is {found['id']}, expected was {expect}: model and record are from "
                "different steps. restore(expect=..., fallback=True) looks for the expected one among the older records"
            )
    if expect is not None or passed_over:
        wanted = f"record {expect}" if expect is not None else "a whole record"
        raise RecordError(f"{directory} does not hold {wanted}" + "".join(f"; {reason}" for reason in passed_over))
    return None, []


def prune(directory: Path, keep_last: int) -> None:
    """Remove all but the newest ``keep_last`` records; only files named as ours are ever touched."""
    for path in list_records(directory)[:-keep_last]:
        path.unlink(missing_ok=True)
