"""Every fault of the catalogue names a test that exists, or says why it does not apply."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import mutants
import pytest

TESTS = Path(__file__).parents[1]
_PAGES = [
    TESTS.parent / "ARCHITECTURE.md",
    *sorted((TESTS.parent / "docs" / "explanation").glob("*.md")),
]
PAGES = "\n".join(page.read_text() for page in _PAGES)
#: A row is a fault's names, what happens, and where it is tested; or names and what happens in one cell.
ROWS = [
    (fault, cells)
    for faults, cells in re.findall(r"^\| ((?:[CAFE]\d+(?:, )?)+)(.*) \|$", PAGES, re.MULTILINE)
    for fault in faults.strip().split(", ")
]
_NAMED = re.compile(r"`tests/([\w/]+\.py)(?:::(\w+))?`")


def named_tests(cells):
    """(path below tests/, name of a test, or None for the whole file) of each test that a row names."""
    return [(path, name or None) for path, name in _NAMED.findall(cells)]


@functools.cache
def functions_of(path):
    """The tests of a file, as pytest collects them."""
    body = ast.parse((TESTS / path).read_text()).body
    return [
        node.name
        for node in body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


def test_every_fault_stands_in_a_table_once():
    """Of a record C1 to C42, of an index A1 to A42, of the command F1 to F12, of metrics E1 to E11."""
    numbered = [
        *(f"C{n}" for n in range(1, 43)),
        *(f"A{n}" for n in range(1, 43)),
        *(f"F{n}" for n in range(1, 13)),
        *(f"E{n}" for n in range(1, 12)),
    ]
    assert [fault for fault, _ in ROWS] == numbered


@pytest.mark.parametrize(("fault", "cells"), ROWS, ids=[fault for fault, _ in ROWS])
def test_a_fault_names_tests_that_exist(fault, cells):
    """A row names a function, or a whole file of tests/faults, or says why the fault does not apply."""
    named = named_tests(cells)
    for path, name in named:
        assert (TESTS / path).exists(), f"{fault}: tests/{path}"
        assert not name or name in functions_of(path), f"{fault}: {path}::{name}"
    assert (
        any(name or path.startswith("faults/") for path, name in named)
        or "does not apply: " in cells
    ), fault
    for mutant in re.findall(r"planted: `(\w+)`", cells):
        assert mutant in mutants.MUTANTS, fault


def test_the_promises_are_numbered_through():
    """P1 to P15."""
    assert re.findall(r"^\| (P\d+) \|", PAGES, re.MULTILINE) == [
        f"P{number}" for number in range(1, 16)
    ]
