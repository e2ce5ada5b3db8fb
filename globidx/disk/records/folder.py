"""Record files of one folder: names, the newest one, and how one is read and written."""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from globidx.core.json import strict
from globidx.core.records import record
from globidx.disk.files.atomic import make_directory, sweep, write_atomic
from globidx.errors import (
    RecordCorruptError,
    RecordError,
    RecordMismatchError,
    SaveError,
    WriteError,
)

# at least eight digits, so that names sort as numbers do in any listing
_NAME = re.compile(r"record-([0-9]{8,18})-([0-9a-f]{12})\.json")
_LAST_NUMBER = 10**18 - 1
# How often a folder is listed anew because a record was pruned by a running job between the listing
# and the reading.
_TRIES = 100
_log = logging.getLogger("globidx")


def read_record(path: str | Path) -> dict[str, Any]:
    """Read a record file.

    It is parsed strictly and verified. No code runs, and no other file is opened.

    Parameters
    ----------
    path : str or path
        The record file.

    Returns
    -------
    dict
        The record.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    RecordCorruptError
        If the file is not a whole record. The message names the file and the reason.
    RecordVersionError
        If a newer globidx wrote it.

    Examples
    --------
    >>> import tempfile
    >>> from globidx import CheckpointManager, ResumableDistributedSampler, read_record
    >>> folder = tempfile.TemporaryDirectory()
    >>> sampler = ResumableDistributedSampler(range(10), 1, 0)
    >>> sampler.commit(4)
    >>> id = CheckpointManager(folder.name, sampler).save(step=7)
    >>> record = read_record(f"{folder.name}/record-{id}.json")
    >>> record["step"], record["states"]["sampler"]["remaining"]
    (7, 6)
    >>> folder.cleanup()
    """
    return record.decode(read_bytes(path), str(path))


def read_bytes(path: str | Path) -> bytes:
    """What a record's file holds.

    RecordCorruptError for what is no file, or too large for a record, before it is read.
    """
    try:
        # a FIFO must not keep it waiting
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"there is no record or folder of records at {os.path.abspath(path)}"
        ) from error
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(f"{path} is a folder, not a record; pass one of its files")
        if not stat.S_ISREG(status.st_mode):
            raise RecordCorruptError(f"{path} is not a whole record: it is no regular file")
        if status.st_size > strict.MAX_BYTES:
            raise RecordCorruptError(
                f"{path} is not a whole record: it has {status.st_size} bytes, the most is {strict.MAX_BYTES}"
            )
        with open(descriptor, "rb", closefd=False) as stream:
            # one byte more, so that a file which grows meanwhile is refused, and not cut
            return stream.read(status.st_size + 1)
    finally:
        os.close(descriptor)


def read_listed(path: Path) -> dict[str, Any]:
    """A record that was listed; RecordCorruptError for a link that leads nowhere, which none has pruned."""
    try:
        return read_record(path)
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise RecordCorruptError(
                f"{path} is not a whole record: it is a link, and there is nothing where it leads"
            ) from None
        raise


def record_path(directory: Path, id: str) -> Path:
    """The path of the record with that id."""
    return directory / f"record-{id}.json"


def publish(directory: Path, sealed: Mapping[str, Any], *, durable: bool) -> Path:
    """Write a record beside the others, all or nothing.

    RecordError, and nothing is written, where it could not be read back.

    SaveError where it could not be written; its ``state`` is ``NOT_WRITTEN``, or ``UNKNOWN`` if the
    record may be there.
    """
    # first, so that files of killed writers do not take the space
    sweep(directory)
    return write(record_path(directory, sealed["id"]), sealed, durable=durable)


def write(path: Path, sealed: Mapping[str, Any], *, durable: bool) -> Path:
    """Make ``path`` hold a record, as ``publish`` does."""
    data = record.encode(sealed)
    # read back as a reader would: a record that none accepts must not take the place of a good one
    record.decode(data, "the record to be written")
    try:
        write_atomic(path, data, durable=durable)
    except WriteError as error:
        failed = SaveError(f"the record could not be saved: {error}")
        failed.state = error.state
        raise failed from error
    return path


def list_records(directory: Path) -> list[Path]:
    """The record files of a folder, oldest first: by their number, which no clock can turn round.

    None where there is no such folder; NotADirectoryError where there is something else.
    """
    # a folder may change while it is listed, so an empty answer is checked once more
    return _list_once(directory) or _list_once(directory)


def newest(path: str | Path) -> Path:
    """``path`` itself, or the newest record in it where it is a folder.

    FileNotFoundError where it holds none.
    """
    path_given = Path(path)
    if not path_given.is_dir():
        return path_given
    records = list_records(path_given)
    if not records:
        raise FileNotFoundError(f"the folder {path_given} holds no record")
    return records[-1]


def read_newest(path: str | Path) -> dict[str, Any]:
    """The record in a file, or the newest one of a folder.

    A running job may prune there meanwhile.
    """
    for _ in range(_TRIES):
        record_file = newest(path)
        try:
            return read_listed(record_file)
        except FileNotFoundError:
            if record_file == Path(path):
                raise
        except RecordCorruptError as error:
            if record_file == Path(path):
                raise
            raise RecordCorruptError(
                f"{error}. `globidx record check {path}` lists the whole ones: pass one of them"
            ) from error
    raise _too_fast(Path(path))


def next_number(directory: Path) -> int:
    """The number after the newest record's; makes the folder where there is none."""
    try:
        make_directory(directory)
        existing = list_records(directory)
    except OSError as error:
        raise SaveError(f"no record can be written in the folder {directory}: {error}") from error
    # from the names alone: a damaged record still counts, so that no number is used twice
    number = int(existing[-1].name.split("-")[1]) + 1 if existing else 0
    if number > _LAST_NUMBER:
        raise SaveError(
            f"no record can be written in the folder {directory}: there is none after {existing[-1].name}"
        )
    return number


def find(
    directory: Path, expect: str | None, *, fallback: bool
) -> tuple[dict[str, Any] | None, list[str]]:
    """The record to go on from, or None where there is none, and why newer ones were passed over.

    That is the newest, which must be whole and, where ``expect`` is given, have that id:
    RecordCorruptError or RecordMismatchError if not. With ``fallback`` it is the newest that is;
    RecordError where none is.
    """
    for _ in range(_TRIES):
        try:
            return _found(directory, expect, fallback=fallback)
        except FileNotFoundError:
            continue
    raise _too_fast(directory)


def remove(path: Path) -> bool:
    """Remove a record's file; whether it is gone.

    Only what is provably a record of ours: a regular file, no link, of a record's name, holding a
    whole record of the id in that name. Anything else stays, damaged records included, which may be
    worth a look. A file that the system will not remove stays with a warning: the new record is
    saved by then.
    """
    try:
        # the file is read whole before it is removed: its name alone proves nothing
        if path.is_symlink() or path != record_path(path.parent, read_record(path)["id"]):
            return False
        path.unlink()
    except (RecordError, FileNotFoundError):
        return False
    except OSError as error:
        _log.warning("the old record %s cannot be removed: %s", path, error)
        return False
    return True


def is_name_of(path: Path, id: str) -> bool:
    """Whether a file's name is that of the record of this id, or no record's name at all."""
    return not _NAME.fullmatch(path.name) or path == record_path(path.parent, id)


def _is_record(entry: os.DirEntry[str]) -> bool:
    """Whether a thing by a record's name is a file, or is meant to lead to one that cannot be reached."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError as error:
        # a link round in a circle never led to one
        return error.errno != errno.ELOOP


def _list_once(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            matches = ((_NAME.fullmatch(entry.name), entry) for entry in entries)
            ordered = sorted(
                (int(m[1]), m[2], entry.name) for m, entry in matches if m and _is_record(entry)
            )
    except FileNotFoundError:
        return []
    return [directory / name for _, _, name in ordered]


def _found(
    directory: Path, expect: str | None, *, fallback: bool
) -> tuple[dict[str, Any] | None, list[str]]:
    passed_over: list[str] = []
    # newest first, by number: clocks of two nodes, or of one that was set back, do not decide
    for path in reversed(list_records(directory)):
        try:
            record_found = read_listed(path)
        except RecordError as error:
            if not fallback:
                message = f"{error}. restore(fallback=True) goes back to the newest whole record before it"
                # of the same class: a newer version is no damage
                raise type(error)(message) from None
            passed_over.append(str(error))
            continue
        if expect is None or record_found["id"] == expect:
            return record_found, passed_over
        if not fallback:
            raise RecordMismatchError(
                f"the newest record in {directory} is {record_found['id']}, expected was {expect}: model and "
                "record are from different steps. restore(expect=..., fallback=True) looks for the expected one among "
                "the older records"
            )
    if expect is not None or passed_over:
        wanted = f"record {expect}" if expect is not None else "a whole record"
        raise RecordError(
            f"{directory} does not hold {wanted}" + "".join(f"; {reason}" for reason in passed_over)
        )
    return None, []


def _too_fast(directory: Path) -> RecordError:
    return RecordError(
        f"no record in {directory} could be read, {_TRIES} times: each was pruned first; keep more of them"
    )
