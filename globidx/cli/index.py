"""``globidx index``: building indexes over files, and looking into them."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from globidx.cli.files import add_files, files_of
from globidx.cli.parser import ByField, integer, of_field
from globidx.cli.terminal.output import print_error, print_result
from globidx.cli.terminal.progress import Progress
from globidx.cli.workers import pool

if TYPE_CHECKING:
    from globidx.disk.index.build import Build
    from globidx.disk.index.snapshot import Snapshot


def add(things: Any) -> None:
    """Add the ``index`` commands to the parser's."""
    index = things.add_parser(
        "index", help="build an index over files, or look into one"
    ).add_subparsers(required=True, metavar="{build,info,check,diff,locate,merge}")
    build = _command(
        index,
        "build",
        _build,
        "scan the files and write the cache that training reads",
        example="'data/*.zarr' --key images\n"
        "  globidx index build data/ --key images --part 3/16\n"
        "  globidx index build 'demos/*.hdf5' --key 'data/*/actions' --sequences match --only mask/train --window 0:16",
    )
    build.add_argument(
        "--part", type=_part, metavar="N/OF", help="scan one share of the files, for a job array"
    )
    info = _command(
        index,
        "info",
        _info,
        "show what the index of these files holds, and what a window takes and leaves of it",
        example="'data/*.zarr' --key images\n"
        "  globidx index info buffer.zarr --key data/action --sequences meta/episode_ends --window -1:15 --pad edge",
    )
    info.add_argument(
        "--absent",
        action="store_true",
        help="also count the chunks that are in no file, by array and file, without reading data",
    )
    check = _command(
        index,
        "check",
        _check,
        "read all data: files that cannot be indexed, absent and unreadable chunks, arrays without checksums",
        on_bad="a file that cannot be indexed is a problem here either way, and the others are read",
        example="data/ --key images --json",
    )
    check.add_argument(
        "--no-decode", action="store_true", help="look for absent chunks only, without reading data"
    )
    check.add_argument(
        "--on-missing",
        type=of_field(_error_or_fill),
        action=ByField,
        metavar="{error,fill}",
        help="fill: an absent chunk is no problem, as for a dataset with on_missing='fill'; or FIELD=fill, "
        "once for each such field (default: error)",
    )
    _command(
        index,
        "diff",
        _diff,
        "show what changed in the files since the cache was written; exit code 1 if anything did",
    )
    locate = _command(
        index,
        "locate",
        _locate,
        "show which file and item a sample id is, and of a window its sequence, anchor and rows",
        files=1,
        example="data/ --key images 17 2000\n"
        "  globidx index locate 2020/ --key t2m --sequences chain --window -2:2 --json 17",
    )
    locate.add_argument("ids", nargs="+", type=integer, metavar="ID", help="sample ids")
    _command(
        index,
        "merge",
        _merge,
        "join the parts of a job array, and scan the files that no part holds",
    )


def _command(
    index: Any,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    summary: str,
    *,
    files: int | str = "+",
    on_bad: str = "fail on files that cannot be indexed, or leave them out (default: error)",
    example: str = "'data/*.zarr' --key images",
) -> argparse.ArgumentParser:
    """A subcommand with the options that say which files, and how to go about them."""
    command: argparse.ArgumentParser = index.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        examples=f"  globidx index {name} {example}",
    )
    add_files(command, nargs=files)
    command.add_argument("--on-bad", choices=("error", "skip"), default="error", help=on_bad)
    command.add_argument(
        "--workers",
        type=_workers,
        help="processes of this command that scan files, whatever workers a loader has (default: one a core)",
    )
    command.add_argument(
        "--dry-run", action="store_true", help="print what would be done, and do nothing"
    )
    verbosity = command.add_mutually_exclusive_group()
    verbosity.add_argument(
        "--quiet", action="store_true", help="no progress, and nothing but errors"
    )
    verbosity.add_argument(
        "--progress", action="store_true", help="progress also where stderr is no terminal"
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run)
    return command


def _build(args: argparse.Namespace) -> int | None:
    build = _build_of(args)
    if args.dry_run:
        return _print_dry_run(args, build, "and the index written to", args.part)
    build.require_writable()
    with pool(args.workers) as executor:
        if args.part:
            # a part is never the index: it is kept beside the cache, until `merge` has them all
            path, count = replace(build, executor=executor).run_part(*args.part)
            value = {
                "part": list(args.part),
                "num_files": count,
                "kept": os.fspath(path) if count else None,
            }
            kept = f"kept in {path}" if count else "so there is nothing to keep"
            return _print(
                args, value, f"part {args.part[0]} of {args.part[1]}: {count} files, {kept}"
            )
        snapshot = replace(build, executor=executor).run()
    build.require_written(snapshot)
    text = f"{_counts(snapshot)}, cached in {snapshot.cache_path}"
    return _print(args, _summary(snapshot), text)


def _merge(args: argparse.Namespace) -> int | None:
    build = _build_of(args)
    parts = build.part_files()
    if not args.dry_run:
        build.require_writable()
    if not parts and not os.path.exists(build.cache):
        raise OSError(
            f"there is no part to merge, {build.cache.stem}.N-of-OF{build.cache.suffix}, in {build.cache.parent}: make "
            "parts with `globidx index build ... --part N/OF`, with the same files and options as here, or the whole "
            "index with `globidx index build`"
        )
    absent = _absent_parts([os.path.basename(part) for part in parts], len(build.paths))
    if absent and not args.quiet:
        print_error(f"parts {', '.join(absent)} are missing; their files are scanned now")
    if args.dry_run:
        return _print_dry_run(
            args, build, f"and the index put together from {len(parts)} parts in", None
        )
    with pool(args.workers) as executor:
        snapshot = replace(build, executor=executor).run(merge=True)
    # the parts are removed below, so what they hold must be in the cache by now
    build.require_written(snapshot, f", so its {len(parts)} parts stay")
    for part in parts:
        part.unlink(missing_ok=True)
        part.with_suffix(".lock").unlink(missing_ok=True)
    value = {**_summary(snapshot), "parts": len(parts), "absent_parts": absent}
    text = f"{_counts(snapshot)} from {len(parts)} parts, cached in {snapshot.cache_path}"
    return _print(args, value, text)


def _info(args: argparse.Namespace) -> int | None:
    from globidx.cli.sequences import lines as sequence_lines
    from globidx.core.index.table import STORED

    snapshot = _snapshot_of(args)
    value, samples = _summary(snapshot), snapshot.samples
    lines = [
        f"samples      {value['num_samples']}",
        f"files        {value['num_files']}",
        f"fingerprint  {value['fingerprint']}",
    ]
    what = "items" if samples is None else "rows"
    lines += [
        f"array        {a['name'] or '(bare)'}: {what} of {tuple(a['item_shape'])} {a['dtype']}"
        + (f", {STORED[a['form']]}" if a["form"] in STORED else "")
        + _packed(snapshot.table.packings_of(column))
        for column, a in enumerate(value["arrays"])
    ]
    if samples is None:
        lines.append(f"items/file   {value['shortest']} to {value['longest']}")
    else:
        lines += sequence_lines(value, samples.window)
    value["available"] = _available(args, snapshot)
    lines += [f"also there   {key}: {how}" for key, how in value["available"].items()]
    lines.append(f"cache        {value['cache']}")
    if not args.absent:
        return _print(args, value, *lines)
    return _print_absent(args, snapshot, value, lines)


def _print_absent(
    args: argparse.Namespace, snapshot: Snapshot, value: dict[str, Any], lines: list[str]
) -> int:
    """``info`` with what is absent; 1 if some file could not be looked at."""
    from globidx.cli.check import absent_json, absent_lines
    from globidx.disk.index.absent import extent

    columns = range(len(snapshot.table.arrays))
    with pool(args.workers) as executor:
        found = extent(snapshot, columns, allow_external=args.allow_external, executor=executor)
    _print(args, value | {"absent": absent_json(found)}, *lines, *absent_lines(found))
    return int(bool(found.unknown))


def _packed(packings: list[tuple[int, str]]) -> str:
    """How an array is packed, in words; "" where no stored number means another value."""
    from globidx.core.values.packing import PLAIN, Packing

    parsed = [Packing.parse(spelled) for _, spelled in packings]
    if all(one.meaning == PLAIN.meaning for one in parsed):
        return ""
    differs = f" in the first file, differs by file ({len(parsed)} packings)"
    return f", packed by {str(parsed[0]) or 'nothing'}{differs if len(parsed) > 1 else ''}"


def _available(args: argparse.Namespace, snapshot: Snapshot) -> dict[str, str]:
    """What else ``--key`` can name in the first file, by a layout that has several."""
    from globidx.disk.stores import base as stores

    if args.layout != "anndata":
        return {}
    used = {info.name for info in snapshot.table.arrays}
    listed = stores.available(snapshot.paths[0], allow_external=args.allow_external)
    return {key: how for key, how in listed.items() if key not in used}


def _locate(args: argparse.Namespace) -> int | None:
    snapshot = _snapshot_of(args)
    value = [_located(snapshot, id) for id in args.ids]
    return _print(args, value, *map(_in_line, value))


def _located(snapshot: Snapshot, id: int) -> dict[str, Any]:
    """What an id means, as JSON values: file and item, and of a window sequence, anchor and rows as well."""
    path, item = snapshot.locate(id)
    value = {"id": id, "path": path, "item": item}
    samples = snapshot.samples
    if samples is None:
        return value
    where = samples.where(id, snapshot.paths)
    rows = where.rows
    return value | {
        "sequence": where.sequence,
        "name": samples.sequences.name(where.sequence),
        "anchor": where.anchor,
        "rows": {field: some.tolist() for field, some in rows.items()}
        if isinstance(rows, dict)
        else rows.tolist(),
    }


def _in_line(value: dict[str, Any]) -> str:
    """What ``_located`` found, for people."""
    from globidx.cli.sequences import rows_in_words

    found = f"{value['id']}  {value['path']}  item {value['item']}"
    if "rows" not in value:
        return found
    rows = value["rows"]
    by_field = rows.items() if isinstance(rows, dict) else [("", rows)]
    taken = "; ".join(
        f"{rows_in_words(some)}{f' of {field}' if field else ''}" for field, some in by_field
    )
    named = f" {value['name']!r}" if value["name"] else ""
    return f"{found}  sequence {value['sequence']}{named}, anchor {value['anchor']}: {taken}"


def _diff(args: argparse.Namespace) -> int | None:
    from dataclasses import asdict

    from globidx.disk.index.snapshot import changes_between

    build = _build_of(args)
    # what is there is compared and left: `diff` must say the same when it is asked again
    before = build.last()
    if before is None:
        raise OSError(
            f"there is no index of these files at {build.cache} to compare with; build it first"
        )
    with pool(args.workers) as executor:
        changes = changes_between(before, replace(build, executor=executor, keep=False).run())
    lines = [f"{what:<10} {name}" for what, names in changes.by_kind.items() for name in names]
    lines += (
        [f"sample ids {'keep' if changes.keep_ids else 'lose'} their places"]
        if changes
        else ["nothing changed"]
    )
    _print(args, asdict(changes), *lines)
    return int(bool(changes))


def _check(args: argparse.Namespace) -> int | None:
    from globidx.cli.check import check

    if args.dry_run:
        return _print_dry_run(
            args, _build_of(args), "and the data of all would be read, with the index in", None
        )
    with pool(args.workers) as executor:
        return check(args, replace(_build_of(args), executor=executor), executor)


def _build_of(args: argparse.Namespace) -> Build:
    """The build that the options ask for."""
    from globidx.disk.index.spec import IndexSpec

    progress = None if args.quiet else Progress(wanted=args.progress or None)
    return IndexSpec.of(**files_of(args)).build(on_bad=args.on_bad, progress=progress)


def _snapshot_of(args: argparse.Namespace) -> Snapshot:
    with pool(args.workers) as executor:
        return replace(_build_of(args), executor=executor, keep=not args.dry_run).run()


def _print_dry_run(
    args: argparse.Namespace, build: Build, what: str, part: tuple[int, int] | None
) -> int:
    count, missing = build.missing(part)
    text = f"{missing} of {count} files would be scanned, {what} {build.cache}"
    return _print(
        args, {"num_files": count, "to_look_at": missing, "cache": os.fspath(build.cache)}, text
    )


def _counts(snapshot: Snapshot) -> str:
    """How many samples there are, and in how many sequences and files."""
    files = f"{len(snapshot.table)} files"
    if snapshot.samples is None:
        return f"{len(snapshot.index)} samples in {files}"
    sequences = len(snapshot.samples.sequences)
    return f"{len(snapshot.index)} samples in {sequences} sequences in {files}"


def _summary(snapshot: Snapshot) -> dict[str, Any]:
    from globidx.cli.sequences import summary
    from globidx.core.values.packing import Packing

    lengths = snapshot.table.lengths
    arrays = [
        (info, snapshot.table.packings_of(column))
        for column, info in enumerate(snapshot.table.arrays)
    ]
    return {
        "num_samples": len(snapshot.index),
        "num_files": len(snapshot.table),
        "fingerprint": snapshot.fingerprint,
        "arrays": [
            {
                "name": a.name,
                "item_shape": list(a.item_shape),
                "dtype": a.dtype,
                "form": a.form,
                "packing": str(Packing.parse(packings[0][1])),
                "num_packings": len(packings),
            }
            for a, packings in arrays
        ],
        "shortest": int(lengths.min()),
        "longest": int(lengths.max()),
        **summary(snapshot.samples),
        "skipped": [list(pair) for pair in snapshot.skipped],
        "cache": os.fspath(snapshot.cache_path),
    }


def _print(args: argparse.Namespace, value: Any, *lines: str) -> int:
    if args.json or not args.quiet:
        print_result(args, value, lines)
    return 0


def _absent_parts(names: list[str], count: int) -> list[str]:
    """Which parts ``N-of-M`` of ``count`` files there should be and are not."""
    # parts of several splits may lie beside each other; each is asked for its own rest
    present = {(int(n), int(of)) for n, of in re.findall(r"\.(\d+)-of-(\d+)\.", " ".join(names))}
    absent = []
    for of in sorted({of for _, of in present}):
        absent += [f"{n}/{of}" for n in _parts_with_files(of, count) if (n, of) not in present]
    return absent


def _parts_with_files(of: int, count: int) -> Iterable[int]:
    """The parts, of ``of``, that get any of ``count`` files.

    >>> list(_parts_with_files(5, 2)), list(_parts_with_files(2, 5))
    ([3, 5], [1, 2])
    """
    return (
        range(1, of + 1)
        # with more parts than files, some are dealt none, and are not missed
        if of <= count
        else [-(-(index + 1) * of // count) for index in range(count)]
    )


def _error_or_fill(text: str) -> str:
    if text not in ("error", "fill"):
        raise argparse.ArgumentTypeError(f"choose from error, fill, got {text!r}")
    return text


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    part, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part <= of:
        raise argparse.ArgumentTypeError(
            f"a part is N/OF with N from 1 to OF, as 3/16, got {text!r}"
        )
    return part, of


def _workers(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(
            f"it must be a number of processes from 1 to 1024, got {text!r}"
        )
    return int(text)
