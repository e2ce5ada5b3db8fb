"""``globidx estimate``: what reading files in an order will cost, before anything is read."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from globidx.cli.files import add_files, files_of
from globidx.cli.parser import integer, positive
from globidx.cli.terminal.output import print_result

_ORDERS = ("shuffle", "chunk-shuffle", "sequential")


def add(subparsers: Any) -> None:
    """Add the command to the parser's."""
    summary = (
        "compute what reading an epoch costs, from the index alone: how often chunks are decoded"
    )
    command = subparsers.add_parser(
        "estimate",
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        examples="  globidx estimate data/ --key images --order chunk-shuffle --batch-size 32 --world-size 4\n"
        "  globidx estimate data/ --key images --sequences file --window 0:16 --order chunk-shuffle --batch-size 32",
    )
    add_files(command)
    command.add_argument(
        "--order",
        choices=_ORDERS,
        default="shuffle",
        help="order of the samples (default: shuffle)",
    )
    command.add_argument(
        "--shuffle-window",
        type=int,
        default=8,
        metavar="CHUNKS",
        help="chunks among which chunk-shuffle shuffles (default: 8)",
    )
    command.add_argument(
        "--batch-size", type=positive, required=True, help="samples in a batch of one rank"
    )
    command.add_argument(
        "--world-size", type=positive, default=1, help="number of ranks (default: 1)"
    )
    command.add_argument(
        "--workers",
        type=integer,
        default=0,
        help="num_workers of the loader, on each rank; estimate itself starts no process (default: 0)",
    )
    command.add_argument(
        "--cache-bytes",
        type=integer,
        help="bytes of decoded chunks that a worker keeps (default: 67108864)",
    )
    command.add_argument(
        "--max-open-files",
        type=integer,
        help="files that a worker keeps open (default: a quarter of the limit, at most 128)",
    )
    command.add_argument("--seed", type=integer, default=0, help="seed of the order (default: 0)")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_estimate)


def _estimate(args: argparse.Namespace) -> None:
    # numpy and zarr are imported by the command that needs them: `--help` must answer at once
    from globidx.core.orders.base import Order
    from globidx.core.orders.chunk_shuffle import ChunkShuffle
    from globidx.core.orders.plain import Sequential, Shuffle
    from globidx.core.reading.estimate import estimate
    from globidx.core.reading.planning import CACHE_BYTES
    from globidx.disk.files.lru import default_capacity
    from globidx.disk.index.manager import GlobalIndexManager

    orders: dict[str, Order] = {"shuffle": Shuffle(), "sequential": Sequential()}
    orders["chunk-shuffle"] = ChunkShuffle(args.shuffle_window)
    manager = GlobalIndexManager(**files_of(args))
    cost = estimate(
        manager.now.table,
        orders[args.order],
        samples=manager.now.samples,
        batch_size=args.batch_size,
        world_size=args.world_size,
        workers=args.workers,
        cache_bytes=CACHE_BYTES if args.cache_bytes is None else args.cache_bytes,
        max_open_files=default_capacity() if args.max_open_files is None else args.max_open_files,
        seed=args.seed,
    )
    lines = [
        f"samples           {cost.samples}",
        f"chunks            {cost.chunks}",
        f"decodes a chunk   {cost.decodes_per_chunk:.2f}{_by_field(cost.decodes_of)}",
        f"bytes read        {cost.bytes_per_useful_byte:.2f} for each useful one, "
        f"{cost.bytes_read / 2**30:.3g} GiB an epoch before compression",
        f"files in a batch  {cost.files_per_batch:.1f}",
        f"open files        at most {cost.open_files} in a worker",
    ]
    # a figure that stands for more than it was taken from must say so
    if cost.played < cost.samples:
        lines.append(f"from a part of    {cost.played} samples")
    print_result(args, asdict(cost), lines)


def _by_field(decodes: Mapping[str, float]) -> str:
    """How often a chunk of each field is decoded, where there are several."""
    if len(decodes) < 2:
        return ""
    return f" ({', '.join(f'{name} {count:.2f}' for name, count in decodes.items())})"
