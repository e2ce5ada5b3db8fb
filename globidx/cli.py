"""The ``globidx`` command. Nothing here, or below it, imports torch: it must answer at once on a login node.

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 it could not be done, 2 the command was wrong, 130
interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from globidx import __version__
from globidx.errors import GlobidxError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = _parser().parse_args(argv)
    try:
        if sys.stdout is None:
            raise OSError("stdout is closed")
        args.run(args)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # so that the exit's own flush has somewhere to go
        return 1
    except (GlobidxError, OSError, ValueError, TypeError) as error:
        print(f"globidx: {_printable(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("globidx: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="globidx", description="Indexes of zarr and HDF5 files, and records of training runs."
    )
    parser.add_argument("--version", action="version", version=f"globidx {__version__}")
    things = parser.add_subparsers(required=True, metavar="{index,record}")
    index = things.add_parser("index", help="build an index over files, or show what is in one").add_subparsers(
        required=True
    )
    for name, run, told in (
        ("build", _index_build, "look at the files and write the cache that training reads"),
        ("info", _index_info, "show what the index of these files holds"),
    ):
        command = index.add_parser(name, help=told, description=told)
        command.add_argument("files", nargs="+", help="a directory, a glob, a list file, or paths")
        command.add_argument(
            "--key", action="append", help="array in each file; give it once for each of several aligned ones"
        )
        command.add_argument("--axis", type=int, default=0, help="axis along which items lie (default: 0)")
        command.add_argument("--cache-dir", help="where the cache is kept (default: beside the data)")
        command.add_argument(
            "--on-bad", choices=("error", "skip"), default="error", help="what to do with files that cannot be indexed"
        )
        _finish(command, run)
    record = things.add_parser("record", help="show the record of a run").add_subparsers(required=True)
    show = record.add_parser("show", help="show how far a run has come", description="Show how far a run has come.")
    show.add_argument("path", help="a record file, or a folder of them: the newest")
    _finish(show, _record_show)
    return parser


def _finish(command: argparse.ArgumentParser, run: Any) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run)


def _index_build(args: argparse.Namespace) -> None:
    manager = _manager(args)
    _tell(
        args,
        _described(manager),
        f"{len(manager)} samples in {manager.num_files} files, cached in {manager.cache_path}",
    )


def _index_info(args: argparse.Namespace) -> None:
    told = _described(_manager(args))
    lines = [
        f"samples      {told['num_samples']}",
        f"files        {told['num_files']}",
        f"fingerprint  {told['fingerprint']}",
    ]
    lines += [
        f"array        {a['name'] or '(bare)'}: items of {tuple(a['item_shape'])} {a['dtype']}" for a in told["arrays"]
    ]
    lines += [f"items/file   {told['shortest']} to {told['longest']}", f"cache        {told['cache']}"]
    _tell(args, told, "\n".join(lines))


def _manager(args: argparse.Namespace) -> Any:
    from globidx.disk.manager import GlobalIndexManager

    files = args.files[0] if len(args.files) == 1 else args.files
    return GlobalIndexManager(files, key=args.key, axis=args.axis, cache_dir=args.cache_dir, on_bad=args.on_bad)


def _described(manager: Any) -> dict[str, Any]:
    return {
        "num_samples": len(manager),
        "num_files": manager.num_files,
        "fingerprint": manager.fingerprint,
        "arrays": [{"name": a.name, "item_shape": list(a.item_shape), "dtype": a.dtype} for a in manager.arrays],
        "shortest": int(manager.lengths.min()),
        "longest": int(manager.lengths.max()),
        "skipped": [list(pair) for pair in manager.skipped],
        "cache": str(manager.cache_path),
    }


def _record_show(args: argparse.Namespace) -> None:
    from globidx.disk.records import newest, read_record

    found = read_record(newest(args.path))
    lines = [f"record   {found['id']}", f"step     {found['step']}", f"time     {found['time']}"]
    for name, state in found["states"].items():
        lines += ["", *_shown(name, state)]
    _tell(args, found, "\n".join(lines))


def _shown(name: str, state: dict[str, Any]) -> list[str]:
    """One object's state as lines; a sampler's with a bar."""
    from globidx.core.state import FORMAT

    if state.get("format") != FORMAT:
        return [f"{name}: {json.dumps(state)[:200]}"]
    total = state["consumed"] + state["remaining"]
    left_out = f", {state['skipped']} left out" if state["skipped"] else ""
    filled = 30 * state["consumed"] // total if total else 0
    order = state["order"]
    return [
        f"{name}: epoch {state['epoch']}  [{'#' * filled:.<30}]  {state['consumed']} of {total}, "
        f"{state['remaining']} remaining{left_out}",
        f"  order      {order['algorithm']} (version {order['version']}), seed {state['seed']}",
        f"  dataset    {state['dataset']['num_samples']} samples, fingerprint {state['dataset']['fingerprint']}",
        *(f"  {_layer(layer)}" for layer in state["segments"]),
        *([f"  skip       {_pairs(state['skip'])} (from the next segment on)"] if state["skip"] else []),
    ]


def _layer(layer: Any) -> str:
    """One layer of an epoch's history."""
    if isinstance(layer, dict):
        return f"left out   {_pairs(layer['skip'])}"
    return f"committed  the first {layer[0]}" if len(layer) == 1 else f"committed  by rank {' '.join(map(str, layer))}"


def _pairs(pairs: list[list[int]]) -> str:
    shown = ", ".join(f"{start}" if stop == start + 1 else f"[{start}, {stop})" for start, stop in pairs[:8])
    return f"ids {shown}" + (f" and {len(pairs) - 8} more ranges" if len(pairs) > 8 else "")


def _tell(args: argparse.Namespace, value: Any, text: str) -> None:
    print(json.dumps(value, indent=1) if args.json else "\n".join(map(_printable, text.split("\n"))))


def _printable(line: str) -> str:
    """A line with what the terminal cannot show escaped: file names and records may hold anything."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in line)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


if __name__ == "__main__":
    sys.exit(main())
