"""Every fault of the catalogue has a test that exists, or a sentence why it does not apply."""

from __future__ import annotations

import re
from pathlib import Path

import mutants

REPOSITORY = Path(__file__).parents[2]
EXPLANATION = REPOSITORY / "docs" / "explanation"
ROWS = re.findall(r"^\| ((?:C\d+(?:, )?)+) \| (.*?) \| (.*) \|$", (EXPLANATION / "faults.md").read_text(), re.MULTILINE)


def test_every_fault_of_a_record_stands_in_the_table():
    """C1 to C42, each once."""
    assert [fault for row in ROWS for fault in row[0].split(", ")] == [f"C{number}" for number in range(1, 43)]


def test_the_tests_that_the_table_names_exist():
    """Files, functions and planted mistakes; a row without one says that it does not apply."""
    for fault, _, where in ROWS:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", where)
        assert named or "does not apply: " in where, fault
        for path, function in named:
            assert not function or f"def {function}(" in (REPOSITORY / path).read_text(), f"{fault}: {path}::{function}"
            assert (REPOSITORY / path).exists(), f"{fault}: {path}"
        for mutant in re.findall(r"planted: `(\w+)`", where):
            assert mutant in mutants.MUTANTS, fault


def test_the_promises_are_numbered_through():
    """P1 to P15."""
    promises = (EXPLANATION / "promises.md").read_text()
    assert re.findall(r"^\| (P\d+) \|", promises, re.MULTILINE) == [f"P{number}" for number in range(1, 16)]
