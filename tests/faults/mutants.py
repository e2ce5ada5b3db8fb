"""Mistakes that the suite must detect: each function takes one safeguard out of the process that calls it.

The package never reaches them. ``FOUND_BY`` names, for each, the check that must fail.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import numpy as np

from globidx.core.progress import tracker
from globidx.core.records import record
from globidx.disk.files import atomic
from globidx.disk.index import stamps
from globidx.disk.records import folder as records

_fsync, _open, _replace, _write, _close = os.fsync, os.open, os.replace, os.write, os.close


def no_fsync():
    """Nothing is ever synced."""
    os.fsync = lambda descriptor: None


def no_directory_fsync():
    """Files are synced, their folder is not: a saved record may be gone after a power cut."""
    os.fsync = lambda descriptor: (
        None if stat.S_ISDIR(os.fstat(descriptor).st_mode) else _fsync(descriptor)
    )


def new_folder_not_synced():
    """The folder of the records is made, but its parent is not synced."""
    records.make_directory = lambda directory: directory.mkdir(parents=True, exist_ok=True)


def fsync_before_write():
    """The bytes are still in a buffer when the file is synced, as in torch's own writer."""
    waiting = {}

    def write(descriptor, data):
        waiting[descriptor] = waiting.get(descriptor, b"") + bytes(data)
        return len(data)

    def close(descriptor):
        if descriptor in waiting:
            _write(descriptor, waiting.pop(descriptor))
        _close(descriptor)

    os.write, os.close = write, close


def fsync_again():
    """A failed fsync is repeated, and its success believed, though the kernel has dropped the bytes by then."""

    def fsync(descriptor):
        try:
            _fsync(descriptor)
        except OSError:
            _fsync(descriptor)

    os.fsync = fsync


def unlink_before_rename():
    """The old file is removed before the new one has its name."""

    def replace(source, target, **folders):
        with suppress(FileNotFoundError):
            os.unlink(target, dir_fd=folders.get("dst_dir_fd"))
        _replace(source, target, **folders)

    os.replace = replace


def in_place():
    """The file is overwritten in place."""

    def write(path, data, *, durable=True):
        with open(path, "wb") as file:
            file.write(data)
            file.flush()
            _fsync(file.fileno())

    records.write_atomic = write


def short_write_is_whole():
    """The return value of write is ignored: a short write passes for a whole one."""
    atomic._write_all = lambda descriptor, data: os.write(descriptor, data)


def errors_swallowed():
    """A failed write passes for a success."""
    real = records.write_atomic

    def write(path, data, *, durable=True):
        with suppress(OSError):
            real(path, data, durable=durable)

    records.write_atomic = write


def state_always_not_written():
    """A file that is already replaced is reported as not written."""
    atomic.UNKNOWN = atomic.NOT_WRITTEN


def no_exclusive_creation():
    """A file that already has the name of the temporary file is opened and written to."""
    os.open = lambda path, flags, *rest, **more: _open(
        path, flags & ~(os.O_EXCL | os.O_NOFOLLOW), *rest, **more
    )


def prune_first():
    """Old records are removed before the new one is written."""
    real = records.publish

    def publish(directory, sealed, *, durable):
        for path in records.list_records(directory):
            path.unlink()
        return real(directory, sealed, durable=durable)

    records.publish = publish


def prune_by_name():
    """Every file with the name of a record is removed as one."""
    records.remove = Path.unlink


def sweep_by_suffix():
    """Every file with the suffix of a temporary file is removed as one."""
    atomic.is_temporary = lambda name: name.endswith(atomic.TEMPORARY_SUFFIX)


def sweep_young():
    """A temporary file that a writer may still be writing is removed."""
    real = atomic.sweep
    records.sweep = lambda directory: real(directory, older_than=-60)


def no_checksum():
    """A record is accepted with any checksum."""
    real = record.seal
    record.seal = lambda body: {**real(body), "sha256": body.get("sha256", real(body)["sha256"])}


def lax_parser():
    """Python's own parser reads records."""
    import json

    record.strict.parse = json.loads


def no_identity_check():
    """A record is loaded whatever run it is of."""
    tracker.refuse_other_run = lambda state, **run: None


def no_stamp_check():
    """A cached row is believed whatever became of its file."""
    stamps._are_same = lambda now, noted: np.ones(len(noted), bool)


FOUND_BY = {
    no_fsync: "power cut: save",
    no_directory_fsync: "power cut: save",
    new_folder_not_synced: "power cut: first save",
    fsync_before_write: "power cut: save",
    fsync_again: "faults: save",
    unlink_before_rename: "faults: reseal",
    in_place: "faults: reseal",
    short_write_is_whole: "faults: save",
    errors_swallowed: "faults: save",
    state_always_not_written: "faults: save",
    no_exclusive_creation: "planted temporary file",
    prune_first: "faults: save",
    prune_by_name: "foreign files",
    sweep_by_suffix: "foreign files",
    sweep_young: "foreign files",
    no_checksum: "bit flips and truncations",
    lax_parser: "other content",
    no_identity_check: "another run's record",
    no_stamp_check: "a file replaced after indexing",
}
MUTANTS = {mutant.__name__: mutant for mutant in FOUND_BY}
