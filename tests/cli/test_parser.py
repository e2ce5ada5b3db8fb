"""Every command says how it is used, and what was wrong in its own words."""

from __future__ import annotations

import contextlib
import io
import re
import shlex

import pytest

from globidx import cli
from globidx.cli import main


def test_every_help_names_the_exit_codes_and_every_command_an_example():
    """The examples are of that very command, and the parser takes them."""
    seen = dict(helps())
    assert {"index build", "index merge", "record plan", "estimate"} <= set(seen)
    for words, said in seen.items():
        assert "exit codes:\n" in said and "130  interrupted" in said, words
        examples = re.findall(r"^  (globidx .*)$", said, re.MULTILINE)
        if words in ("index", "record"):
            continue
        assert examples, words
        for example in examples:
            assert not words or example.startswith(f"globidx {words} ")
            parsed = cli._parser().parse_args(shlex.split(example)[1:])
            assert callable(parsed.run)


def helps(*words):
    """The help of a command and of all below it, by name."""
    done = command_line(*words, "--help")
    yield " ".join(words), done
    below = re.search(r"^positional arguments:\n  \{([^}]*)\}", done, re.MULTILINE)
    listed = (
        re.findall(r"^    ([a-z]+) ", done, re.MULTILINE)
        if below or " ..." in done.partition("\n\n")[0]
        else []
    )
    for name in listed:
        yield from helps(*words, name)


def command_line(*words):
    """What it prints to stdout."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as exit_:
        main([*words])
    assert exit_.value.code == 0
    return out.getvalue()
