"""The records of one run in a folder, and those of another run that came between."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from globidx.core import validate
from globidx.core.records.policies import Entry, Keep
from globidx.disk.records import folder as records
from globidx.errors import UNKNOWN, RecordError, SaveError

# by process and folder, the records written or restored from here
_OWN: dict[tuple[int, str], set[str]] = {}
# the most removed files that are held open: descriptors are limited
_HELD = 64
_log = logging.getLogger("globidx")


class Lineage:
    """The records of ``directory`` as this run knows them.

    Those are what was there when it last looked, and its own since.

    Records that somebody else has added by the next save belong to another run: two jobs in one
    folder would each restore, and prune, the other's. So that save is refused. What was there
    before a run that never looked, because it did not restore, is another's, too: it is left where
    it is.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # its number, and the files that may have it
        self._newest: tuple[int, frozenset[str]] | None = None
        # files of others, never to be removed
        self._strange: Set[str] = frozenset()
        # a file that may be there though writing it failed
        self._tried = ""
        # what was there before this run began
        self._before = _names(directory)

    def look(self) -> None:
        """Accept the records that are in the folder now as this run's history."""
        numbered = _numbered(self._directory)
        last = numbered[-1][0] if numbered else -1
        self._newest = last, frozenset(name for number, name in numbered if number == last)
        self._strange = frozenset()
        self._own().update(name for _, name in numbered)

    def next_number(self) -> int:
        """The number of the next record.

        SaveError, naming the record, where another run has written one since the last look.
        """
        # makes the folder
        records.next_number(self._directory)
        if self._newest is None:
            self._begin_beside()
        numbered = _numbered(self._directory)
        last, names = self._newest or (-1, frozenset())
        # its rename may have been done though it was reported as failed: it is this run's all the
        # same
        if self._tried in (name for _, name in numbered):
            last, names = _number(self._tried), frozenset({self._tried})
        # a tie is another run's as well: both have taken the number that was free
        strangers = [name for number, name in numbered if number >= last and name not in names]
        if strangers:
            raise self._another_run(strangers[-1], "since this one last looked")
        return last + 1

    def _another_run(self, name: str, since: str) -> SaveError:
        return SaveError(
            f"another run has written {name} into {self._directory} {since}: another job, or another process group "
            "of this one. Two runs in one folder would resume from each other's records: give each its own folder, "
            "let one manager over all ranks (group=None) save for all groups, or call restore() to go on from that "
            "record. This one's is not written"
        )

    def _begin_beside(self) -> None:
        """Begin a line of records beside those of an earlier run; SaveError if another one is writing now."""
        own = frozenset(self._own())
        appeared = sorted(_names(self._directory) - self._before - own)
        if appeared:
            raise self._another_run(appeared[-1], "since this one began")
        self.look()
        self._strange = self._own() - own
        self._own().difference_update(self._strange)
        if self._strange:
            _log.warning(
                "%s holds records of before, which this run has not restored and will leave there; restore() goes on "
                "from the newest, another folder keeps the runs apart",
                self._directory,
            )

    def write(self, sealed: Mapping[str, Any], *, durable: bool) -> None:
        """Publish a record of this run."""
        # noted before the write, which may be done and yet raise
        self._tried = f"record-{sealed['id']}.json"
        records.publish(self._directory, sealed, durable=durable)
        self._own().add(self._tried)
        self._newest, self._tried = (sealed["number"], frozenset({self._tried})), ""

    def _own(self) -> set[str]:
        # by process: a forked child inherits the dict and must not take its parent's records for
        # its own
        return _OWN.setdefault((os.getpid(), os.path.realpath(self._directory)), set())

    def prune(self, keep: Keep | int) -> None:
        """Remove all but the newest ``keep``, or what that policy does not choose.

        Never the newest, nor another run's.

        Never an OSError, since the save before it has succeeded; SaveError, which says so, where a
        policy fails.
        """
        surplus = self.surplus(keep)
        # more than that are removed too, and cost their time
        with _held_open(surplus[:_HELD]):
            for path in surplus:
                records.remove(path)

    def surplus(self, keep: Keep | int) -> list[Path]:
        """The records of this run that ``prune`` removes, oldest first.

        None where the folder cannot be listed.
        """
        if isinstance(keep, int):
            validate.integer(keep, "keep_last", low=1)
        try:
            paths = [
                path
                for path in records.list_records(self._directory)
                if path.name not in self._strange
            ]
        except OSError as error:
            _log.warning("old records in %s are not removed: %s", self._directory, error)
            return []
        return paths[:-keep] if isinstance(keep, int) else self._not_chosen(paths, keep)

    def _not_chosen(self, paths: list[Path], keep: Keep) -> list[Path]:
        """What a policy does not choose of those that can be read."""
        readable: list[tuple[Path, Entry]] = []
        for path in paths:
            try:
                record = records.read_record(path)
            # what cannot be read is not ours to remove, nor a policy's to choose
            except (RecordError, OSError):
                continue
            readable.append((path, Entry(record["number"], record["step"], record["extras"])))
        try:
            kept = keep([entry for _, entry in readable])
            # whatever the policy says, the newest stays: it is what a restart needs
            return [path for path, entry in readable[:-1] if entry.number not in kept]
        except Exception as error:
            # a policy is the user's code and may raise anything; the record is written by now
            failed = SaveError(
                f"the record is written, but keep= failed: {type(error).__name__}: {error}"
            )
            failed.state = UNKNOWN
            raise failed from error


@contextmanager
def _held_open(paths: Iterable[Path]) -> Iterator[None]:
    """Keep files open while they are removed, and leave their last close to a thread.

    That is where ext4 frees the blocks of a removed file: up to 4.6 ms here, as long as an fsync,
    against 0.01 ms for the unlink.
    """
    descriptors = []
    for path in paths:
        with suppress(OSError):
            descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    try:
        yield
    finally:
        if descriptors:
            try:
                # a daemon: a process that ends closes them anyway
                threading.Thread(target=_close, args=(descriptors,), daemon=True).start()
            except RuntimeError:
                # no thread can be started: the process is ending, or has too many
                _close(descriptors)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _numbered(directory: Path) -> list[tuple[int, str]]:
    return [(_number(path.name), path.name) for path in records.list_records(directory)]


def _names(directory: Path) -> frozenset[str]:
    """The records in a folder; none where it cannot be listed, which the first save reports."""
    try:
        return frozenset(name for _, name in _numbered(directory))
    except OSError:
        return frozenset()


def _number(name: str) -> int:
    return int(name.split("-")[1])
