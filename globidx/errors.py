"""Every error that globidx raises on purpose.

Each class takes one string, so that it survives pickling and re-raising out of a ``DataLoader`` worker; what a program
may want to look at besides is set as attributes afterwards, and may be missing after such a trip.
"""

from __future__ import annotations

#: The ``state`` of a failed write: the old file stands, or the new one may.
NOT_WRITTEN, UNKNOWN = "not written", "written, durability unknown"


class GlobidxError(Exception):
    """Base of all errors below: catch it to catch whatever globidx refuses."""


class NoFilesError(GlobidxError, FileNotFoundError):
    """Nothing matched: a pattern, folder or list named no file at all."""


class MissingPackageError(GlobidxError, ImportError):
    """What was asked for needs a package that is not installed; the message says which."""


class BadFilesError(GlobidxError, ValueError):
    """Some files could not be indexed; ``failures`` lists all of them as (path, reason)."""

    failures: tuple[tuple[str, str], ...] = ()


class ReadError(GlobidxError, OSError):
    """An item could not be read: the message names file, item and sample id."""


class MissingChunkError(ReadError):
    """A chunk is not in the store, and reading on would invent its data."""


class StaleIteratorError(GlobidxError, RuntimeError):
    """An iterator was touched after its sampler was reloaded, reset or moved to another epoch."""


class CommitError(GlobidxError, RuntimeError):
    """Samples were drawn but no delivery was reported, or more were reported than drawn."""


class EpochError(GlobidxError, ValueError):
    """The epoch that was asked for is finished, according to the record that was loaded."""


class EarlyStopError(GlobidxError, RuntimeError):
    """A dataset or a collate function raised StopIteration, which would have ended the pass without a word."""


class RecordError(GlobidxError, ValueError):
    """Something is wrong with a record; the subclasses say what."""


class RecordCorruptError(RecordError):
    """The bytes are not a record: truncated, edited, or never one."""


class RecordVersionError(RecordError):
    """The record was written in a newer format than this version of globidx reads."""


class RecordMismatchError(RecordError):
    """The record, or one rank's state, belongs to another run; ``field`` names the first difference."""

    field: str = ""


class WriteError(GlobidxError, OSError):
    """A file could not be written as asked: ``state`` says ``"not written"``, or ``"written, durability unknown"``.

    In the first case the old file stands as it was, in the second the new one does. ``errno`` is the system's.
    """

    state: str = NOT_WRITTEN

    def __reduce__(self) -> tuple[object, ...]:  # OSError's own would lose errno, which stands outside of args
        return type(self), self.args, {**self.__dict__, "errno": self.errno}


class SaveError(GlobidxError, RuntimeError):
    """A record was not saved; the message, and ``state``, say whether it is on disk all the same.

    ``"not written"`` is certain. ``"written, durability unknown"`` is any doubt: the record may be there, whole, and
    may be gone after a power cut; or a rank was lost before it could tell.
    """

    state: str = NOT_WRITTEN


class LostRankError(SaveError):
    """A rank is gone or did not answer in time; ``ranks`` are those that are known to be missing."""

    ranks: tuple[int, ...] = ()
