"""``globidx index``: building indexes over files, and looking into them."""

from __future__ import annotations

import argparse
from typing import Any

from globidx.cli.output import tell


def add(things: Any) -> None:
    """Add the ``index`` commands to the parser's."""
    index = things.add_parser("index", help="build an index over files, or show what is in one").add_subparsers(
        required=True
    )
    for name, run, told in (
        ("build", _build, "look at the files and write the cache that training reads"),
        ("info", _info, "show what the index of these files holds"),
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
        command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(run=run)


def _build(args: argparse.Namespace) -> None:
    manager = _manager(args)
    tell(
        args,
        _described(manager),
        f"{len(manager)} samples in {manager.num_files} files, cached in {manager.cache_path}",
    )


def _info(args: argparse.Namespace) -> None:
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
    tell(args, told, "\n".join(lines))


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
