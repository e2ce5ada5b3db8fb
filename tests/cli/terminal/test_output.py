"""Whatever is printed is one line that no name can forge, and is delivered or an error."""

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.cli.terminal import output


@given(st.text())
def test_a_line_is_one_line_of_printable_text(text):
    """Line breaks, control characters and surrogates come out escaped, all else as it is."""
    shown = output.printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    if text.isprintable() and text.isascii():
        assert shown == text


def test_what_cannot_be_delivered_is_an_error_once():
    """The stream leads nowhere from then on: Python would fail again while it exits."""
    with open("/dev/full", "w") as full:
        with pytest.raises(OSError, match="No space left"):
            output.write("data\n", full)
        output.write("more\n", full)


def test_an_error_goes_to_stderr_if_there_is_one(capsys, monkeypatch):
    """Each line begins with the command's name once; a closed stderr is no second error."""
    output.print_error("first", "sec\nond")
    assert capsys.readouterr() == ("", "globidx: first\nsec\\nond\n")
    monkeypatch.setattr(sys, "stderr", None)
    output.print_error("nobody reads it")


def test_a_closed_pipe_is_an_error():
    """As after ``| head``."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream, pytest.raises(BrokenPipeError):
        output.write("data\n", stream)
