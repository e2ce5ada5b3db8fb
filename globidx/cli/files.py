"""Command-line options that name files, and the arrays in them."""

from __future__ import annotations

import argparse
from typing import Any

from globidx.cli.parser import ByField, integer, of_field
from globidx.cli.sampling import add_sampling, sampling_of


def add_files(command: argparse.ArgumentParser, *, nargs: int | str = "+") -> None:
    """Add ``files`` and what belongs to them."""
    command.add_argument(
        "files", nargs=nargs, help="a directory, a glob, a list file, paths, or URLs"
    )
    command.add_argument(
        "--key",
        type=of_field(str),
        action=ByField,
        is_list=True,
        help="array in each file, with its groups: entry/data; once for each of several aligned ones; NAME=PATH gives "
        "the field a name of its own; * matches groups (--sequences match)",
    )
    command.add_argument(
        "--layout",
        help="a known kind of files: cxi, nexus, eiger, peaknet, anndata, ome, tokens:LENGTH",
    )
    command.add_argument(
        "--axis",
        type=of_field(integer),
        action=ByField,
        metavar="N",
        help="axis along which items lie, -1 for the last; or FIELD=N, once for each field that differs (default: 0)",
    )
    command.add_argument(
        "--allow-external",
        action="store_true",
        help="HDF5 files may take data from files outside their folder: say so only of files that you trust",
    )
    command.add_argument("--cache-dir", help="where the index is cached (default: beside the data)")
    add_sampling(command)


def files_of(args: argparse.Namespace) -> dict[str, Any]:
    """These options, as arguments of ``IndexSpec.of`` and ``GlobalIndexManager``."""
    return {
        "files": args.files[0] if len(args.files) == 1 else args.files,
        "key": args.key,
        "layout": args.layout,
        "axis": 0 if args.axis is None else args.axis,
        "cache_dir": args.cache_dir,
        "allow_external": args.allow_external,
        **sampling_of(args),
    }
