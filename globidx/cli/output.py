"""What the command prints: data for people or as JSON, with everything a terminal cannot show escaped."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from typing import Any


def tell(args: argparse.Namespace, value: Any, text: str) -> None:
    """Print ``value`` as JSON where that was asked for, else ``text``."""
    print(
        json.dumps(value, indent=1).replace("\x7f", "\\u007f")
        if args.json
        else "\n".join(map(printable, text.split("\n")))
    )


def complain(text: str) -> None:
    """Print a message for people on stderr, where there is one: stdout is for data."""
    if sys.stderr is not None:
        print(f"globidx: {printable(text)}", file=sys.stderr)


class Complaints(logging.Handler):
    """What the library warns of, as messages of the command."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        complain(record.getMessage())


def printable(line: str) -> str:
    """A line with what the terminal cannot show escaped: file names and records may hold anything."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in line)
    return shown.encode(encoding, "backslashreplace").decode(encoding)
