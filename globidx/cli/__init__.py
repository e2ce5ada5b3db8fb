"""The ``globidx`` command. Nothing here, or below it, imports torch: it must answer at once on a login node.

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 it could not be done, 2 the command was wrong, 130
interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor

from globidx import __version__
from globidx.cli import estimate, index, record
from globidx.cli.output import Complaints, complain
from globidx.errors import GlobidxError

#: What is told in one message instead of a traceback.
_TOLD = (GlobidxError, OSError, ValueError, TypeError, LookupError, ArithmeticError, ImportError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = _parser().parse_args(argv)
    logger, is_quiet = logging.getLogger("globidx"), getattr(args, "quiet", False)
    complaints = logging.NullHandler() if is_quiet else Complaints(logging.WARNING)
    logger.addHandler(complaints)
    try:
        if sys.stdout is None:
            raise OSError("stdout is closed")
        code: int | None = args.run(args)
        sys.stdout.flush()
        return code or 0
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # so that the exit's own flush has somewhere to go
        return 1
    except BrokenExecutor:
        complain("a process that looked at files died; what was scanned is kept, so run it again, with fewer --workers")
        return 1
    except _TOLD as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    finally:
        logger.removeHandler(complaints)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="globidx", description="Indexes of zarr and HDF5 files, and records of training runs."
    )
    parser.add_argument("--version", action="version", version=f"globidx {__version__}")
    things = parser.add_subparsers(required=True, metavar="{index,record,estimate}")
    index.add(things)
    record.add(things)
    estimate.add(things)
    return parser
