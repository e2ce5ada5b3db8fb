"""``globidx record``: how far a run has come, and what a resume would do."""

from __future__ import annotations

import argparse
import os
import secrets
from pathlib import Path
from typing import Any

from globidx.cli.parser import positive
from globidx.cli.terminal.output import print_result


def add(subparsers: Any) -> None:
    """Add the ``record`` commands to the parser's."""
    commands = subparsers.add_parser(
        "record", help="show, check, plan or reseal records of a run"
    ).add_subparsers(required=True)
    for name, run, summary, path, example in (
        (
            "show",
            _show,
            "show how far a run has come",
            "a record file, or a folder of them: the newest",
            "run/",
        ),
        (
            "check",
            _check,
            "verify every record, and list what killed writers left",
            "a record file, or a folder of them",
            "run/ --json",
        ),
        (
            "plan",
            _plan,
            "show what each rank would be given on a resume",
            "a record file, or a folder: the newest",
            "run/ --world-size 6 --batch-size 32",
        ),
        (
            "reseal",
            _reseal,
            "make a record that was edited on purpose whole again",
            "the record file that was edited",
            "run/record-00000023-5b0c61d2a7f4.json",
        ),
    ):
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            examples=f"  globidx record {name} {example}",
        )
        command.add_argument("path", help=path)
        command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(run=run)
        if name == "plan":
            command.add_argument(
                "--world-size", type=positive, required=True, help="how many ranks"
            )
            command.add_argument(
                "--batch-size", type=positive, required=True, help="samples a batch, on each rank"
            )
            command.add_argument(
                "--tail", choices=("pad", "drop", "exact"), help="default: that of the record"
            )
            command.add_argument("--sampler", help="its name, if the record holds several")
        if name == "reseal":
            command.add_argument(
                "--in-place",
                action="store_true",
                help="keep the file and its id (default: a new record beside it)",
            )


def _show(args: argparse.Namespace) -> None:
    from globidx.cli.history import lines
    from globidx.disk.records.folder import read_newest

    record = read_newest(args.path)
    print_result(args, record, lines(record))


def _plan(args: argparse.Namespace) -> None:
    from globidx.cli import plan
    from globidx.disk.records.folder import read_newest

    record = read_newest(args.path)
    name, state = plan.sampler_of(record, args.sampler)
    result = plan.Plan.of(
        state, world_size=args.world_size, batch_size=args.batch_size, tail=args.tail or state.tail
    )
    value = result.as_json() | {"record": record["id"], "sampler": name}
    print_result(args, value, result.lines(record["id"], name))


def _check(args: argparse.Namespace) -> None:
    from globidx.disk.records.verify import inspect
    from globidx.errors import RecordError

    report = inspect(args.path)
    value = {
        "records": [
            {"file": str(path), "id": id, "problem": problem}
            for path, id, problem in report.records
        ],
        "temporary": [{"file": str(path), "seconds": int(age)} for path, age in report.temporary],
        "problems": report.problems,
    }
    lines = [
        f"whole    {path}" if problem is None else f"DAMAGED  {problem}"
        for path, _, problem in report.records
    ]
    lines += [
        f"left     {path}: begun {_ago(age)} ago by a writer that is still running or was killed; removed after a day"
        for path, age in report.temporary
    ]
    lines += [f"{len(report.records)} records, {report.problems} damaged"]
    print_result(args, value, lines)
    # after the list, so that what is printed is whole and the exit code still tells
    if report.problems:
        raise RecordError(
            f"{report.problems} of {len(report.records)} records in {args.path} are damaged"
        )


def _ago(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} seconds"


def _reseal(args: argparse.Namespace) -> None:
    from globidx.core.records import record
    from globidx.disk.records import folder as records

    path = Path(args.path)
    data = records.read_bytes(path)
    sealed = record.reseal(data, args.path)
    # a second call must not make a second record of the same content
    if record.is_sealed(data):
        print_result(
            args,
            {"id": sealed["id"], "written": None},
            [f"{path} is whole as it is: nothing was written"],
        )
        return
    if args.in_place:
        written = records.write(path, sealed, durable=True)
    else:
        folder = Path(os.path.abspath(path)).parent
        token = secrets.token_hex(6)
        # a new number and token, for one id must never mean two contents
        sealed = record.reseal(data, args.path, number=records.next_number(folder), token=token)
        written = records.publish(folder, sealed, durable=True)
    kept = "" if args.in_place else f"; {path} is left as it is"
    print_result(
        args,
        {"id": sealed["id"], "written": str(written)},
        [f"record {sealed['id']} is written in {written}{kept}"],
    )
