"""Output of the command: text or JSON, with everything escaped that a terminal cannot show."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TextIO


class StdoutClosedError(Exception):
    """The reader of stdout has closed it, as ``head`` does, which is no error to report."""


def print_result(args: argparse.Namespace, value: Any, lines: Iterable[str]) -> None:
    """Print ``value`` as JSON if ``--json`` was given, else ``lines``."""
    shown = (
        # the one control character that JSON does not escape
        [json.dumps(value, indent=1).replace("\x7f", "\\u007f")]
        if args.json
        else map(printable, lines)
    )
    write_stdout("".join(f"{line}\n" for line in shown))


def write_stdout(text: str) -> None:
    """Write to stdout.

    StdoutClosedError if its reader has closed it, OSError if it cannot be written.
    """
    try:
        write(text, sys.stdout)
    except BrokenPipeError as error:
        raise StdoutClosedError from error
    except OSError as error:
        raise OSError(
            f"stdout cannot be written: {error.strerror}; the output is incomplete"
        ) from error


def print_error(*lines: str) -> None:
    """Print a message on stderr, if there is one: stdout is for data."""
    if sys.stderr is not None:
        text = "".join(f"{line}\n" for line in map(printable, lines))
        with suppress(OSError):
            write(f"globidx: {text}", sys.stderr)


def write(text: str, stream: TextIO) -> None:
    """Write to a stream of the process, at once.

    Raises
    ------
    OSError
        If the text cannot be delivered: a full disk, a closed pipe. The stream then leads to
        ``/dev/null``, since Python would try once more while it exits, with a traceback and exit
        code 120.
    """
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        _discard(stream)
        raise


def _discard(stream: TextIO) -> None:
    # a stream without a descriptor, as tests put in place, is not flushed at exit
    with suppress(OSError, ValueError):
        # the descriptor itself is replaced, so that what Python flushes at exit goes nowhere
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


class StderrHandler(logging.Handler):
    """Prints warnings of the library as messages of the command."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        print_error(record.getMessage())


def printable(line: str) -> str:
    r"""One line for a terminal, whatever is in it.

    Names of files and arrays, and records, may hold anything.

    Line breaks are escaped too, so that no name can forge a line of its own.

    >>> print(printable("a\n9  b.zarr\x1b[2J"))
    a\n9  b.zarr\x1b[2J
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    # control characters could move the cursor, or make a terminal type
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    return shown.encode(encoding, "backslashreplace").decode(encoding)
