"""``globidx cache``: what a cache on local disk holds, whether it is whole, and an end of it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from globidx.cli.terminal.output import print_result

if TYPE_CHECKING:
    from globidx.disk.local_cache.folder import Info, LocalCache

#: Damaged entries that are listed for people; JSON lists all of them.
_SHOWN = 10


def add(subparsers: Any) -> None:
    """Add the ``cache`` commands to the parser's."""
    commands = subparsers.add_parser(
        "cache", help="look at a cache of remote data on local disk (local_cache=)"
    ).add_subparsers(required=True)
    for name, run, summary in (
        ("info", _info, "show what a cache holds: its bound, and by URL entries and bytes"),
        ("verify", _verify, "read all entries of a cache; exit code 1 if any is damaged"),
        ("clear", _clear, "remove all entries of a cache; runs that use it fetch them anew"),
    ):
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            examples=f"  globidx cache {name} /local/cache",
        )
        command.add_argument("path", help="the folder of the cache, as local_cache= names it")
        command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(run=run)


def _opened(args: argparse.Namespace) -> LocalCache:
    from globidx.disk.local_cache.folder import LocalCache

    return LocalCache.existing(args.path)


def _info(args: argparse.Namespace) -> None:
    cache = _opened(args)
    info = cache.info()
    value = {
        "bound": cache.bound,
        "bytes": sum(info.nbytes.values()),
        "entries": sum(info.entries.values()),
        "urls": {
            url: {"entries": count, "bytes": info.nbytes[url]}
            for url, count in sorted(info.entries.items())
        },
    }
    print_result(args, value, _info_lines(cache, info))


def _info_lines(cache: LocalCache, info: Info) -> Iterator[str]:
    nbytes = sum(info.nbytes.values())
    yield f"entries  {sum(info.entries.values())}"
    yield f"bytes    {nbytes} of at most {cache.bound} ({100 * nbytes / cache.bound:.0f} %)"
    for url, count in sorted(info.entries.items()):
        yield f"         {info.nbytes[url]} in {count} entries of {url}"


def _verify(args: argparse.Namespace) -> int:
    checked = list(_opened(args).verify())
    damaged = [[name, wrong] for name, wrong in checked if wrong]
    print_result(
        args, {"entries": len(checked), "damaged": damaged}, _verify_lines(len(checked), damaged)
    )
    return int(bool(damaged))


def _verify_lines(entries: int, damaged: list[list[str]]) -> Iterator[str]:
    yield f"entries  {entries}"
    yield f"damaged  {len(damaged)}"
    for name, wrong in damaged[:_SHOWN]:
        yield f"         {name}: {wrong}"
    if len(damaged) > _SHOWN:
        yield f"         and {len(damaged) - _SHOWN} more"
    if damaged:
        yield "         a damaged entry is dropped, and fetched anew, when it is next asked for"


def _clear(args: argparse.Namespace) -> None:
    cache = _opened(args)
    entries = cache.clear()
    print_result(args, {"removed": entries}, [f"removed  {entries} entries"])
