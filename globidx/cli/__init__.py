"""The ``globidx`` command.

Nothing here, or below it, imports torch: it must answer at once on a login node.

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 it could not be done, 2 the
command was wrong, 130 interrupted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager

from globidx import __version__
from globidx.cli import cache, estimate, index, record
from globidx.cli.parser import Parser
from globidx.cli.terminal.output import StderrHandler, StdoutClosedError, print_error
from globidx.errors import BadFilesError, GlobidxError

#: Errors that are printed as one message instead of a traceback.
_REPORTED = (
    GlobidxError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    ImportError,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    try:
        return _run(argv)
    # as `head` does: there is nobody left to tell, and it is the reader who wanted no more
    except StdoutClosedError:
        return 1
    # the kernel may have killed it for want of memory, so fewer at a time may do
    except BrokenExecutor:
        print_error(
            "a process that looked at files died; what was scanned is kept, so run it again, with fewer --workers"
        )
        return 1
    except BadFilesError as error:
        # the message has lines of its own; names in it are escaped
        print_error(*str(error).split("\n"))
        return 1
    except _REPORTED as error:
        print_error(str(error))
        return 1
    except KeyboardInterrupt:
        print_error("interrupted")
        return 130


def _run(argv: Sequence[str] | None) -> int:
    if sys.stdout is None:
        # started with `>&-`; what the command would print is lost, however well it went
        raise OSError("stdout is closed")
    args = _parser().parse_args(argv)
    with _warnings_shown(is_quiet=getattr(args, "quiet", False)):
        code: int | None = args.run(args)
    return code or 0


@contextmanager
def _warnings_shown(*, is_quiet: bool) -> Iterator[None]:
    """Warnings of the library become messages of the command."""
    logger = logging.getLogger("globidx")
    handler = logging.NullHandler() if is_quiet else StderrHandler(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _parser() -> Parser:
    parser = Parser(
        prog="globidx",
        description="Indexes of zarr and HDF5 files, and records of training runs.",
        examples="""\
  globidx index build 'data/*.zarr' --key images
  globidx record show run/
  globidx estimate data/ --key images --order chunk-shuffle --batch-size 32""",
    )
    parser.add_argument("--version", action="version", version=f"globidx {__version__}")
    commands = parser.add_subparsers(required=True, metavar="{index,record,estimate,cache}")
    index.add(commands)
    record.add(commands)
    estimate.add(commands)
    cache.add(commands)
    return parser
