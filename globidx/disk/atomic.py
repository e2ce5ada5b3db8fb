"""The one way anything is written: beside the target, whole, and then put in its place."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

#: Temporary files are ``.NAME.TOKEN.globidx-tmp``: recognisable, so that only our own are ever swept.
TEMPORARY_SUFFIX = ".globidx-tmp"


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Make ``path`` hold ``data``, or leave it as it was: at every instant it is the old file or the new one, never a
    part.

    ``durable`` also waits until the new one would survive a power cut, where the file system honours fsync. OSError
    where it cannot be written; the temporary file is removed if that is possible.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{TEMPORARY_SUFFIX}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            _write_all(descriptor, data)
            if durable:
                os.fsync(descriptor)  # before the rename: a new name must never point at bytes that are not there
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make renames and removals in ``directory`` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]  # a write may be short
