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
        if words in ("index", "record", "cache"):
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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["index", "info", "x", "--kye", "a"], "there is no option --kye; did you mean --key?"),
        (["index", "info", "x", "--kye=a"], "there is no option --kye; did you mean --key?"),
        (["estimate", "x", "--batchsize", "4"], "--batchsize; did you mean --batch-size?"),
        (["record", "plan", "x", "--world-sise", "4"], "--world-sise; did you mean --world-size?"),
        (
            ["index", "build", "x", "--zzz"],
            "there is no option --zzz; --help lists those there are",
        ),
        (
            ["index", "biuld", "x"],
            "there is no 'biuld'; did you mean build? Choose from build, info",
        ),
        (
            ["estimate", "x", "--order", "shufle", "--batch-size", "4"],
            "'shufle'; did you mean shuffle?",
        ),
    ],
)
def test_a_misspelt_word_is_told_with_the_one_that_was_meant(arguments, told, capsys):
    """Before anything that is missing because of it; exit code 2."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("globidx: ")
    assert told in last


def test_the_beginning_of_an_option_and_odd_names_are_no_mistakes(tmp_path, capsys):
    """argparse takes what is unambiguous; behind a bare -- stand files."""
    parsed = cli._parser().parse_args(["index", "info", "--cache", "a", "x", "--", "--kye"])
    assert (parsed.cache_dir, parsed.files) == ("a", ["x", "--kye"])
    with pytest.raises(SystemExit) as exit_:
        main(["index", "info", str(tmp_path), "--a", "1"])
    assert exit_.value.code == 2
    assert "could match --axis, --allow-external" in capsys.readouterr().err


def test_workers_are_told_apart():
    """The scanning processes of ``index``, and the loader's of ``estimate``."""
    seen = {name: " ".join(text.split()) for name, text in helps()}
    assert "--workers WORKERS num_workers of the loader, on each rank" in seen["estimate"]
    assert "--workers WORKERS processes of this command that scan files" in seen["index build"]
