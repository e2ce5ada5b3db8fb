"""Every process that a test starts has an environment that the test states; what a developer's shell holds reaches none."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from processes import clean_environment

TESTS = Path(__file__).parent
STARTERS = {"run", "Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput"}
OTHERS = {"system", "popen", "posix_spawn", "posix_spawnp", "startfile"}


def starts(tree):
    """The calls in a module that start a process by ``subprocess`` or ``os``."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            module, name = node.func.value.id, node.func.attr
            is_os = module == "os" and (name in OTHERS or name.startswith(("exec", "spawn")))
            if (module == "subprocess" and name in STARTERS) or is_os:
                yield node


def faults(source):
    """What of a module's source starts a process in whatever environment pytest was started in."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module == "subprocess"
            and {a.name for a in node.names} & STARTERS
        ):
            yield f"line {node.lineno}: call it as subprocess.NAME, so that this test sees it"
    for call in starts(tree):
        given = {word.arg: word.value for word in call.keywords}.get("env")
        if given is None or (isinstance(given, ast.Constant) and given.value is None):
            yield f"line {call.lineno}: no env="
        elif any(
            isinstance(node, ast.Attribute) and node.attr == "environ" for node in ast.walk(given)
        ):
            yield f"line {call.lineno}: os.environ, all of it"


@pytest.mark.parametrize(
    "path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS))
)
def test_every_process_is_given_an_environment(path):
    """``env=`` stands in each call that starts one, and is not all of this process's."""
    assert list(faults(path.read_text())) == []


@pytest.mark.parametrize(
    "line",
    [
        "subprocess.run(['x'])",
        "subprocess.Popen(['x'], env=None)",
        "subprocess.check_output(['x'], env={**os.environ, 'A': '1'})",
        "os.system('x')",
        "os.execv('x', ['x'])",
        "from subprocess import run",
    ],
)
def test_what_the_law_is_for_is_seen(line):
    """Each way around it."""
    assert list(faults(line))


def test_what_a_shell_holds_reaches_no_process_of_a_test(monkeypatch):
    """Neither Python's variables nor globidx's or a scheduler's; what is given does, and None takes away."""
    held = {
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "7",
        "GLOBIDX_CACHE_DIR": "/x",
        "RANK": "3",
        "HOME": "/h",
    }
    for name, value in held.items():
        monkeypatch.setenv(name, value)
    code = f"import os; print(sorted(set(os.environ) & { ({*held, 'GIVEN'}) }))"
    for more, told in (({}, ["HOME"]), ({"GIVEN": "1", "HOME": None}, ["GIVEN"])):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=clean_environment(**more),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{told}\n"
