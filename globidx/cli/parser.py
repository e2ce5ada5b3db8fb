"""The parser of every command.

Its help ends in examples and exit codes, and its messages cannot be forged.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from typing import Any, NoReturn

from globidx.cli.output import print_error, write, write_stdout

EXIT_CODES = """\
exit codes:
  0    done
  1    not done, or a problem was found: see stderr
  2    the command itself was wrong
  130  interrupted"""


def positive(text: str) -> int:
    """A positive integer: the type of an argument."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an integer, got {text!r}") from None
    # as many ranks as a record may have; a typing error of a digit takes no memory
    if not 1 <= value <= 2**17:
        raise argparse.ArgumentTypeError(f"must be in [1, {2**17}], got {value}")
    return value


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose output is delivered or an error, and whose help ends in examples.

    Subcommands get the class from the parser that they are added to.
    """

    def __init__(self, *args: Any, examples: str = "", **options: Any) -> None:
        parts = [f"examples:\n{examples.rstrip()}"] if examples else []
        options["epilog"] = "\n\n".join([*parts, EXIT_CODES])
        options["formatter_class"] = argparse.RawDescriptionHelpFormatter
        super().__init__(*args, **options)

    def error(self, message: str) -> NoReturn:
        """Show the usage and one line, with arguments of the user's in it escaped; exit code 2."""
        # argparse's own would print the argument raw, with whatever a terminal makes of it
        self.print_usage(sys.stderr)
        print_error(message)
        self.exit(2)

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse's own ignores that nothing can be written
        if not message or file is None:
            return
        if file is sys.stdout:
            write_stdout(message)
        else:
            with suppress(OSError):
                write(message, file)
