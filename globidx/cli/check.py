"""``globidx index check``: data that is absent, cannot be read, or could be damaged unnoticed.

What is absent, ``globidx index info --absent`` shows as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from globidx.cli.terminal.output import print_result
from globidx.cli.terminal.progress import Progress
from globidx.disk.index.absent import choice
from globidx.errors import BadFilesError

if TYPE_CHECKING:
    from globidx.disk.index.absent import Extent
    from globidx.disk.index.build import Build
    from globidx.disk.index.snapshot import Snapshot
    from globidx.disk.reading.verify import ArrayReport

#: What is listed for people of arrays, and of files of each; JSON lists all of them.
_SHOWN = 10
_MOST_FILES = 3


def check(args: argparse.Namespace, build: Build, executor: Executor) -> int:
    """Check every file.

    Returns 1 where anything is absent or cannot be read, or a file cannot be indexed at all.
    """
    try:
        indexed = replace(build, on_bad="report").run()
    except BadFilesError as error:
        # not one of them can be indexed
        report = _Report(args, len(error.failures), [], error.failures)
    else:
        report = _Report(
            args,
            len(indexed.table) + len(indexed.skipped),
            _read(args, indexed, executor),
            indexed.skipped,
        )
    if args.json or not args.quiet:
        print_result(args, report.as_json(), report.lines())
    return int(bool(report.bad or report.skipped))


def _read(args: argparse.Namespace, indexed: Snapshot, executor: Executor) -> list[ArrayReport]:
    from globidx.disk.reading.verify import check as run

    progress = None if args.quiet else Progress(wanted=args.progress or None)
    few = len(indexed.table) < 2
    reports: list[ArrayReport] = []
    # a process of its own costs more than reading one file
    executor_for_many = None if few else executor
    arrays_of_files = run(
        indexed,
        decode=not args.no_decode,
        executor=executor_for_many,
        allow_external=args.allow_external,
    )
    for done, arrays in enumerate(arrays_of_files):
        reports += arrays
        if progress is not None:
            progress(done + 1, len(indexed.table))
    return reports


@dataclass(frozen=True)
class _Report:
    """What was found in the arrays of ``num_files`` files.

    ``skipped`` has (path, reason) of those that cannot be indexed.
    """

    args: argparse.Namespace
    num_files: int
    reports: Sequence[ArrayReport]
    skipped: Sequence[tuple[str, str]]

    @property
    def bad(self) -> list[ArrayReport]:
        """The arrays with problems."""
        from globidx.disk.reading.open_file import fills

        chosen = self.args.on_missing or "error"
        return [
            one
            for one in self.reports
            if one.unreadable or (one.absent and not fills(chosen, one.field))
        ]

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "num_files": self.num_files,
            "chunks": sum(one.chunks for one in self.reports),
            "absent": sum(one.absent for one in self.reports),
            "unreadable": sum(len(one.unreadable) for one in self.reports),
            "without_checksums": sorted(
                {one.like for one in self.reports if not one.has_checksums}
            ),
            "arrays": list(self._by_field().values()),
            "problems": [asdict(one) for one in self.bad],
            "skipped": [list(pair) for pair in self.skipped],
        }

    def lines(self) -> Iterator[str]:
        """The report for people."""
        value = self.as_json()
        read = "not read" if self.args.no_decode else f"{value['unreadable']} unreadable"
        unfit = f", {len(self.skipped)} of them cannot be indexed" if self.skipped else ""
        yield f"files      {self.num_files}{unfit}"
        yield f"chunks     {value['chunks']}: {value['absent']} absent, {read}"
        yield from self._checksums(value["without_checksums"])
        lacking = [one for one in value["arrays"] if one["absent"]]
        told = (
            f"absent     {one['absent']} of {one['chunks']} chunks of {one['name'] or 'the array'!r}, "
            f"in {one['files']} of {self.num_files} files"
            for one in lacking
        )
        yield from _first(told, len(lacking), "arrays with absent chunks")
        if lacking:
            yield f"           to read fill values: {choice(one['name'] for one in lacking)}"
        skipped = (f"problem    {path}: {reason}" for path, reason in self.skipped)
        yield from _first(skipped, len(self.skipped), "files with problems")
        yield from _first(map(_problem, self.bad), len(self.bad), "arrays with problems")

    def _by_field(self) -> dict[str, dict[str, Any]]:
        """By field: its chunks, how many of them are absent, and of how many files."""
        fields: dict[str, dict[str, Any]] = {}
        lacking: dict[str, set[str]] = {}
        for one in self.reports:
            value = fields.setdefault(
                one.field, {"name": one.field, "chunks": 0, "absent": 0, "files": 0}
            )
            value["chunks"] += one.chunks
            value["absent"] += one.absent
            if one.absent:
                lacking.setdefault(one.field, set()).add(one.path)
                value["files"] = len(lacking[one.field])
        return fields

    def _checksums(self, bare: Sequence[str]) -> Iterator[str]:
        # Damage that changes neither a checksum nor a size is not detected by any reader.
        if not bare:
            yield "checksums  in every array"
            return
        count = len({one.like for one in self.reports})
        which = "the array" if len(bare) == count == 1 else f"{len(bare)} of {count} arrays"
        yield f"checksums  none in {which}: a flipped bit there would read as data"
        yield from _first(
            (f"           {name or '(bare)'}" for name in bare),
            len(bare),
            "arrays without checksums",
        )


def _problem(one: ArrayReport) -> str:
    where = f"{one.path}, array {one.array!r}" if one.array else one.path
    absent = [f"{one.absent} of {one.chunks} chunks absent"] if one.absent else []
    more = [f"and {len(one.unreadable) - 3} more"] if len(one.unreadable) > 3 else []
    return f"problem    {where}: {'; '.join([*absent, *one.unreadable[:3], *more])}"


def _first(problems: Iterator[str], count: int, what: str) -> Iterator[str]:
    # A folder of a million files may have as many problems; JSON lists all of them.
    for _, line in zip(range(_SHOWN), problems, strict=False):
        yield line
    if count > _SHOWN:
        yield f"and {count - _SHOWN} more {what}"


def absent_json(found: Extent) -> dict[str, Any]:
    """What is absent, as JSON values: by array, and by file where there is any."""
    arrays = [
        {
            "name": one.array,
            "chunks": one.of,
            "absent": one.chunks,
            "rows": one.rows,
            "fill_values": list(one.fills),
            "files": [
                {"path": path, "chunks": of, "absent": absent} for path, absent, of in one.files
            ],
        }
        for one in found.arrays
    ]
    return {
        "chunks": sum(one.of for one in found.arrays),
        "absent": sum(one.chunks for one in found.arrays),
        "arrays": arrays,
        "not_looked_at": [list(pair) for pair in found.unknown],
        "choice": choice(one.array for one in found.lacking) if found.lacking else None,
    }


def absent_lines(found: Extent) -> Iterator[str]:
    """What is absent, for people."""
    lacking, whole = found.lacking, len(found.arrays) - len(found.lacking)
    for one in lacking[:_SHOWN]:
        yield f"absent       {one}"
        for path, absent, of in one.files[:_MOST_FILES]:
            yield f"             {absent} of {of} in {path}"
        if len(one.files) > _MOST_FILES:
            yield f"             and in {len(one.files) - _MOST_FILES} more files"
    if len(lacking) > _SHOWN:
        yield f"             {len(lacking) - _SHOWN} more arrays lack chunks"
    if whole:
        chunks = sum(one.of for one in found.arrays if not one.chunks)
        others = "other " if lacking else ""
        yield f"absent       none of {chunks} chunks of {whole} {others}array{'s' * (whole != 1)}"
    if lacking:
        yield f"             to read fill values: {choice(one.array for one in lacking)}"
    for path, reason in found.unknown[:_MOST_FILES]:
        yield f"problem      {path}: {reason}"
    if len(found.unknown) > _MOST_FILES:
        yield f"and {len(found.unknown) - _MOST_FILES} more files that cannot be looked at"
