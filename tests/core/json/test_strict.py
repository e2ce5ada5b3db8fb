"""The strict parser is bounded in time and memory."""

import time
import tracemalloc

import pytest

from globidx.core.json import strict


@pytest.mark.parametrize(
    "data",
    [
        b'"' + b'\\"' * 200_000,
        b'{"a":"' + b"x" * (2**22) + b'"}',
        b'"' + b"[" * 400_000,
        b'["' + b"\\\\" * 200_000 + b'"]',
        b'"a"' * 200_000,
    ],
)
def test_long_strings_are_passed_once(data):
    """Torn or huge ones too: no quadratic search for where they end, and no memory for each of their characters."""
    tracemalloc.start()
    started = time.process_time()
    try:
        strict.parse(data)
    except ValueError:
        pass
    spent, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert spent < 5  # a quadratic scan takes minutes
    assert peak < 20 * len(data)


@pytest.mark.parametrize(
    ("text", "deep"),
    [
        ("[[1], {}]", False),
        ('["[[[["]', False),
        ("[" * 33 + "]" * 33, True),
        ('{"a": "\\\\", "b": [[]]}', False),
    ],
)
def test_depth_counts_brackets_outside_strings(text, deep):
    """A string full of brackets is not deep."""
    if deep:
        with pytest.raises(ValueError, match="deeper"):
            strict.parse(text.encode())
    else:
        strict.parse(text.encode())


def test_a_document_that_was_cut_says_so_in_one_sentence():
    """Where, and what is likely; no word twice."""
    with pytest.raises(
        ValueError,
        match="^it is not JSON: Unterminated string starting at line 2; it was cut, edited or damaged$",
    ):
        strict.parse(b'{"a": 1,\n "b')
