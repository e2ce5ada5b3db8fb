"""One run's line of records in a folder: the next one's number, whether another run has written there, what goes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from globidx.core import strictjson
from globidx.core.policies import Entry, Keep
from globidx.disk import records
from globidx.errors import RecordError, SaveError


class Lineage:
    """The records of ``directory`` as this run knows them: what was there when it last looked, and its own since.

    Records that somebody else has added by the next save belong to another run: two jobs in one folder would each
    restore, and prune, the other's. So that save is refused. Groups of one job that save the same, as the
    data-parallel groups of tensor-parallel peers do, are no strangers: a record is named by its content, so they write
    one and the same.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._last: tuple[int, frozenset[str]] | None = None  # number, and the files that may bear it; None: not looked
        self._tried = ""  # a file that may have been written, though that failed

    def look(self) -> None:
        """Take what is there by now for known."""
        found = _numbered(self._directory)
        last = found[-1][0] if found else -1
        self._last = last, frozenset(name for number, name in found if number == last)

    def following(self, content: Mapping[str, Any]) -> tuple[int, str, dict[str, Any] | None]:
        """Number and token of the next record, and that record itself where a peer of this run has written it.

        SaveError names the record of another run.
        """
        first = records.next_number(self._directory)  # which makes the folder
        token = hashlib.blake2b(strictjson.canonical(content), digest_size=6).hexdigest()
        found = _numbered(self._directory)
        if self._last is None:
            self.look()
            if found and found[-1][1] == _name(first - 1, token):
                return first - 1, token, self._whole(first - 1, token)
        last, names = self._last or (-1, frozenset())
        if any(name == self._tried for _, name in found):
            last, names = _number(self._tried), frozenset({self._tried})
        if any(name == _name(last + 1, token) for _, name in found):
            return last + 1, token, self._whole(last + 1, token)
        strangers = [name for number, name in found if number >= last and name not in names]
        if strangers:
            raise SaveError(
                f"another run has written {strangers[-1]} into {self._directory} since this one last looked; two runs "
                "in one folder would resume from each other's records: give each its own, or call restore() to go on "
                "from that record. This record was not written"
            )
        return last + 1, token, None

    def write(self, sealed: Mapping[str, Any], *, durable: bool) -> None:
        """Publish a record and take it for known."""
        self._tried = f"record-{sealed['id']}.json"
        records.publish(self._directory, sealed, durable=durable)
        self._last, self._tried = (sealed["number"], frozenset({self._tried})), ""

    def prune(self, keep: Keep) -> None:
        """Remove the records that ``keep`` does not choose; never the newest, nor one that cannot be read."""
        entries, paths = [], {}
        for path in records.list_records(self._directory):
            try:
                found = records.read_record(path)
            except (RecordError, OSError):
                continue
            entries.append(Entry(found["number"], found["step"], found["extras"]))
            paths[path] = found["number"]
        kept = keep(entries) if entries else frozenset()
        for path, number in list(paths.items())[:-1]:
            if number not in kept:
                records.remove(path)

    def _whole(self, number: int, token: str) -> dict[str, Any]:
        return records.read_record(self._directory / _name(number, token))


def _numbered(directory: Path) -> list[tuple[int, str]]:
    return [(_number(path.name), path.name) for path in records.list_records(directory)]


def _number(name: str) -> int:
    return int(name.split("-")[1])


def _name(number: int, token: str) -> str:
    return f"record-{number:08d}-{token}.json"
