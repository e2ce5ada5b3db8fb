"""Command-line options that say what a sample is: sequences, and a window over them."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from globidx.cli.parser import ByField, between, of_field

if TYPE_CHECKING:
    from globidx.core.windows.anchors import Offsets, Window

#: Offsets of windows are bounded by this, and so are the numbers of rows beside them.
_FARTHEST = 2**40
#: The most rows of a window that are written as a range: more are a slip of the keyboard.
_MOST_ROWS = 2**20


def add_sampling(command: argparse.ArgumentParser) -> None:
    """Add ``--sequences``, ``--window`` and what belongs to them."""
    group = command.add_argument_group(
        "sequences and windows", "samples of several rows; without them each item is a sample"
    )
    _add_sequences(group)
    _add_window(group)


def _add_sequences(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--sequences",
        type=_sequences,
        default="row",
        metavar="WHAT",
        help="what rows follow one another: row (none), file, chain (the files, one behind the other), match (a "
        "sequence for each group that the * of the keys matches), axis (for each place along axis 0), an array of "
        "ends, or two arrays STARTS,LENGTHS (default: row)",
    )
    group.add_argument("--only", metavar="ARRAY", help="array that lists the sequences to use")
    group.add_argument("--missing", metavar="ARRAY", help="array that tells rows that are missing")
    group.add_argument(
        "--chain-by",
        choices=("parent",),
        help="with --sequences chain, a chain for each folder (default: one of all files)",
    )


def _add_window(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--window",
        type=of_field(_offsets),
        action=ByField,
        metavar="ROWS",
        help="rows around an anchor that make a sample: 3, -1,0, 0:16, 0:16:2, or all (of a sequence); or FIELD=ROWS, "
        "once for each field (default: the anchor's own)",
    )
    group.add_argument(
        "--stride",
        type=between(1, _FARTHEST),
        metavar="N",
        help="take every N-th anchor of a sequence (default: 1)",
    )
    group.add_argument(
        "--pad",
        choices=("edge", "zero"),
        help="what stands for rows beyond the ends of a sequence: its first and last row, or zeros (default: windows "
        "lie inside)",
    )
    for name, end in (("before", "first"), ("after", "last")):
        group.add_argument(
            f"--{name}",
            type=between(0, _FARTHEST),
            metavar="N",
            help=f"with --pad, rows that a window may reach {name} the {end} one (default: so many that each row is "
            "an anchor)",
        )


def sampling_of(args: argparse.Namespace) -> dict[str, Any]:
    """These options, as arguments of ``IndexSpec.of`` and ``GlobalIndexManager``."""
    return {
        "sequences": args.sequences,
        "window": _window(args),
        "only": args.only,
        "missing": args.missing,
        "chain_by": args.chain_by,
    }


def _window(args: argparse.Namespace) -> Window | None:
    """The window that the options make together; None if there is none of them."""
    from globidx.core.windows.anchors import Window

    names = ("stride", "pad", "before", "after")
    options = {name: given for name in names if (given := getattr(args, name)) is not None}
    if args.window is None and not options:
        return None
    return Window(0 if args.window is None else args.window, **options)


def _sequences(text: str) -> str | tuple[str, str]:
    if "," not in text:
        return text
    arrays = text.split(",")
    if len(arrays) != 2 or not all(arrays):
        raise argparse.ArgumentTypeError(
            f"two arrays are written STARTS,LENGTHS, as ep_offset,ep_len, got {text!r}"
        )
    return arrays[0], arrays[1]


def _offsets(text: str) -> Offsets | str:
    """Rows as they are written: ``3``, ``-1,0``, ``0:16``, ``0:16:2`` or ``all``.

    >>> _offsets("-1,0"), _offsets("0:8:4"), _offsets("2")
    ((-1, 0), (0, 4), 2)
    """
    if text == "all":
        return text
    is_range = ":" in text
    parts = text.split(":" if is_range else ",")
    are_numbers = all(re.fullmatch(r"[+-]?[0-9]{1,13}", part) for part in parts)
    if not are_numbers or (is_range and len(parts) > 3):
        raise argparse.ArgumentTypeError(
            f"rows are written 3, -1,0, 0:16, 0:16:2 or all, got {text!r:.80}"
        )
    numbers = tuple(map(int, parts))
    if is_range:
        return tuple(_range(text, *numbers))
    return numbers if len(numbers) > 1 else numbers[0]


def _range(text: str, start: int, stop: int, step: int = 1) -> range:
    rows = range(start, stop, step) if step else range(0)
    if not 0 < len(rows) <= _MOST_ROWS:
        raise argparse.ArgumentTypeError(
            f"a range has from 1 to {_MOST_ROWS} rows, START:STOP or START:STOP:STEP without STOP, but {text!r} has "
            f"{len(rows)}"
        )
    return rows
