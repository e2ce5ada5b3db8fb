"""Every error that globidx raises on purpose.

Each class takes one string, so that it survives pickling and the way out of a ``DataLoader``
worker. Details for programs are attributes. They have their defaults after that way, because torch
builds the error anew from its message.
"""

from __future__ import annotations

#: The ``state`` of a failed write: the old file stands, or the new one may.
NOT_WRITTEN, UNKNOWN = "not written", "written, durability unknown"


class GlobidxError(Exception):
    """Base class of all errors below."""


class NoFilesError(GlobidxError, FileNotFoundError):
    """A pattern, folder or list matched no file."""


class MissingPackageError(GlobidxError, ImportError):
    """An optional package is not installed; the message names it."""


class BadFilesError(GlobidxError, ValueError):
    """Some files could not be indexed.

    Attributes
    ----------
    failures : tuple of (str, str)
        The path of each such file, and the reason.
    """

    failures: tuple[tuple[str, str], ...] = ()


class ReadError(GlobidxError, OSError):
    """An item could not be read; the message names file, item and sample id."""


class MissingChunkError(ReadError):
    """A chunk is not in the store, so that its items would be read as fill values."""


class StaleIteratorError(GlobidxError, RuntimeError):
    """An iterator was advanced after its sampler was reloaded, reset or moved to another epoch."""


class CommitError(GlobidxError, RuntimeError):
    """Samples were drawn but no delivery was reported, or more were reported than drawn."""


class EpochError(GlobidxError, ValueError):
    """The epoch that was asked for is finished, according to the record that was loaded."""


class EarlyStopError(GlobidxError, RuntimeError):
    """A dataset or a collate function raised StopIteration.

    That would have ended the pass silently.
    """


class RecordError(GlobidxError, ValueError):
    """A record or a sampler state is invalid; the subclasses say how."""


class RecordCorruptError(RecordError):
    """The bytes are not a record: truncated, edited, or something else."""


class RecordVersionError(RecordError):
    """The record was written in a newer format than this version of globidx reads."""


class RecordMismatchError(RecordError):
    """The record, or the state of one rank, belongs to another run.

    Attributes
    ----------
    field : str
        The first field that differs.
    """

    def __init__(self, *args: object, field: str = "") -> None:
        super().__init__(*args)
        self.field = field


class WriteError(GlobidxError, OSError):
    """A file could not be written.

    Attributes
    ----------
    state : str
        ``"not written"``: the file has its old content. ``"written, durability unknown"``: it has
        the new content, which a power cut may undo.
    errno : int
        The system's error number.
    """

    state: str = NOT_WRITTEN

    # OSError's own __reduce__ would lose errno, which is not in args.
    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self.args, {**self.__dict__, "errno": self.errno}


class SaveError(GlobidxError, RuntimeError):
    """A record was not saved, or it is not known whether it was.

    Attributes
    ----------
    state : str
        ``"not written"``: there is certainly no new record. ``"written, durability unknown"``:
        there may be one. It may be undone by a power cut, or a rank was lost before it could
        answer.
    """

    state: str = NOT_WRITTEN


class LostRankError(SaveError):
    """A rank is gone, or did not answer in time.

    Attributes
    ----------
    ranks : tuple of int
        The ranks that are known to be missing.
    """

    ranks: tuple[int, ...] = ()
