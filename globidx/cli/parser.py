"""The parser of every command: its help ends in examples and exit codes, and its messages cannot be forged."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from itertools import takewhile
from typing import Any, NoReturn

from globidx.cli.output import print_error, write, write_stdout

EXIT_CODES = """\
exit codes:
  0    done
  1    not done, or a problem was found: see stderr
  2    the command itself was wrong
  130  interrupted"""


def integer(text: str) -> int:
    """An integer: the type of an argument."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an integer, got {text!r:.80}") from None


def positive(text: str) -> int:
    """A positive integer of ranks or samples: the type of an argument."""
    value = integer(text)
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

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, after a look for misspelt options: they are named before what is missing for them."""
        given = list(sys.argv[1:] if args is None else args)
        if self._subparsers is None:
            self._refuse_misspelt(given)
        return super().parse_known_args(given, namespace)

    def _refuse_misspelt(self, given: Sequence[str]) -> None:
        known = [name for name in self._option_string_actions if name.startswith("--")]
        # behind a bare -- stand names of files
        for word in takewhile(lambda word: word != "--", given):
            name = word.partition("=")[0]
            if name.startswith("--") and not any(option.startswith(name) for option in known):
                similar = get_close_matches(name, known, 1)
                hint = f"did you mean {similar[0]}?" if similar else "--help lists those there are"
                self.error(f"there is no option {name}; {hint}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse what is none of the choices, with the one that was probably meant."""
        choices = list(map(str, action.choices or ()))
        similar = get_close_matches(str(value), choices, 1)
        if action.choices is not None and value not in action.choices and similar:
            raise argparse.ArgumentError(
                action,
                f"there is no {value!r}; did you mean {similar[0]}? Choose from {', '.join(choices)}",
            )
        super()._check_value(action, value)

    def error(self, message: str) -> NoReturn:
        """Show the usage and one line, with arguments of the user's in it escaped; exit code 2."""
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
