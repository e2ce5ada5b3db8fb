"""The parser of every command.

Its help ends in examples and exit codes, and its messages cannot be forged.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from itertools import takewhile
from typing import Any, NoReturn

from globidx.cli.terminal.output import print_error, write, write_stdout

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


def between(low: int, high: int) -> Callable[[str], int]:
    """The type of an argument that is an integer in ``[low, high]``."""

    def parse(text: str) -> int:
        value = integer(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be in [{low}, {high}], got {value}")
        return value

    return parse


# as many ranks as a record may have; a typing error of a digit takes no memory
positive = between(1, 2**17)


def of_field(parse: Callable[[str], Any]) -> Callable[[str], tuple[str | None, Any]]:
    """The type of an argument ``VALUE``, for all fields, or ``FIELD=VALUE``; for ``ByField``."""

    def pair(text: str) -> tuple[str | None, Any]:
        field, equals, value = text.partition("=")
        if not equals:
            return None, parse(text)
        if not field or not value:
            raise argparse.ArgumentTypeError(f"a field is given as FIELD=VALUE, got {text!r}")
        return field, parse(value)

    return pair


class ByField(argparse.Action):
    """One value for all fields, or a dict of them by field; with ``is_list`` a list of values or a dict."""

    def __init__(self, *args: Any, is_list: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self._is_list = is_list

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        _option: str | None = None,
    ) -> None:
        """Add one pair to what the namespace has."""
        given = getattr(namespace, self.dest)
        setattr(namespace, self.dest, self._joined(given, *values))

    def _joined(self, given: Any, field: str | None, value: Any) -> Any:
        if field is not None and (given is None or isinstance(given, dict)):
            if given and field in given:
                raise argparse.ArgumentError(self, f"is given twice for field {field!r}")
            return {**(given or {}), field: value}
        if field is not None or isinstance(given, dict):
            raise argparse.ArgumentError(
                self,
                "is given with a field and without; give it as FIELD=VALUE each time, or never",
            )
        if self._is_list:
            return [*(given or []), value]
        if given is not None:
            raise argparse.ArgumentError(
                self, "is given twice; give it once, or as FIELD=VALUE for each field"
            )
        return value


def with_joined_negatives(arguments: Sequence[str]) -> list[str]:
    """The arguments with ``--window -1,0`` as ``--window=-1,0``: argparse takes the former for two options.

    >>> with_joined_negatives(["info", "data", "--window", "-1,0", "--pad", "edge"])
    ['info', 'data', '--window=-1,0', '--pad', 'edge']
    """
    joined: list[str] = []
    for argument in arguments:
        if joined[-1:] == ["--window"] and re.match("-[0-9]", argument) and "--" not in joined:
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


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
        """Parse as argparse does: values may begin with a minus sign, and misspelt options are named first."""
        given = with_joined_negatives(sys.argv[1:] if args is None else args)
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
