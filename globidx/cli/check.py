"""``globidx index check``: what of the data is not there, cannot be read, or could be damaged unnoticed."""

from __future__ import annotations

import argparse
from concurrent.futures import Executor
from dataclasses import asdict
from typing import TYPE_CHECKING

from globidx.cli.output import tell
from globidx.cli.progress import Progress

if TYPE_CHECKING:
    from globidx.disk.checking import Checked
    from globidx.disk.indexed import Indexed

_SHOWN = 10


def check(args: argparse.Namespace, indexed: Indexed, executor: Executor) -> int:
    """Check all files of an index; 1 where anything is absent or cannot be read."""
    from globidx.disk.checking import check as run

    progress = None if args.quiet else Progress(wanted=args.progress or None)
    few = len(indexed.table) < 2
    found: list[Checked] = []
    for done, arrays in enumerate(
        run(indexed, args.axis, decode=not args.no_decode, executor=None if few else executor)
    ):
        found += arrays
        if progress is not None:
            progress(done + 1, len(indexed.table))
    bad = [one for one in found if one.unreadable or (one.absent and args.on_missing == "error")]
    told = {
        "num_files": len(indexed.table),
        "chunks": sum(one.chunks for one in found),
        "absent": sum(one.absent for one in found),
        "unreadable": sum(len(one.unreadable) for one in found),
        "without_checksums": sorted({one.array for one in found if not one.has_checksums}),
        "problems": [asdict(one) for one in bad],
    }
    if args.json or not args.quiet:
        tell(args, told, "\n".join([*_summary(told, args), *_problems(bad)]))
    return int(bool(bad))


def _summary(told: dict[str, object], args: argparse.Namespace) -> list[str]:
    names = told["without_checksums"]
    bare = ", ".join(name or "(bare)" for name in names) if isinstance(names, list) else ""
    read = "not read" if args.no_decode else f"{told['unreadable']} unreadable"
    return [
        f"files      {told['num_files']}",
        f"chunks     {told['chunks']}: {told['absent']} absent, {read}",
        f"checksums  {'none in ' + bare + ': a flipped bit there would read as data' if bare else 'in every array'}",
    ]


def _problems(bad: list[Checked]) -> list[str]:
    lines = []
    for one in bad[:_SHOWN]:
        where = f"{one.path}, array {one.array!r}" if one.array else one.path
        lines += [f"problem    {where}: {one.absent} of {one.chunks} chunks absent"] if one.absent else []
        lines += [f"problem    {where}: {problem}" for problem in one.unreadable[:3]]
    return [*lines, f"and {len(bad) - _SHOWN} more arrays with problems"] if len(bad) > _SHOWN else lines
