"""Jobs of a project's own code in processes of their own, and what their steps were given."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

from processes import REPOSITORY, clean_environment, torchrun


def run(ranks: int, script: str, folder: Path, package: Path, *arguments: object) -> None:
    """Run a script of this folder on so many processes over a patched ``package``; it must succeed."""
    path = ":".join(map(str, (package, REPOSITORY, REPOSITORY / "tests", Path(__file__).parent)))
    command = [Path(__file__).parent / script, folder, *arguments]
    done = subprocess.run(
        torchrun(ranks, *command) if ranks > 1 else [sys.executable, *map(str, command)],
        env=clean_environment(PYTHONPATH=path),
        # what robomimic asks for: whether to remove what an earlier run wrote
        input="n\n",
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr


def note(folder: Path, rank: int, epoch: int, ids: list[int], values: object = None) -> None:
    """Write down what a step of a rank was given."""
    with open(folder / f"seen-{rank}.jsonl", "a") as file:
        file.write(json.dumps({"epoch": epoch, "ids": ids, "values": values}) + "\n")


def steps(folder: Path) -> list[dict[str, Any]]:
    """What all steps of all ranks were given."""
    paths = folder.glob("seen-*.jsonl")
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def seen(folder: Path) -> dict[int, Counter[int]]:
    """How often each id was trained on, by epoch."""
    found: dict[int, Counter[int]] = {}
    for step in steps(folder):
        found.setdefault(step["epoch"], Counter()).update(step["ids"])
    return found


def bare(*names: str) -> None:
    """Import packages without what their ``__init__`` import."""
    for name in names:
        above = name.rpartition(".")[0]
        spec = PathFinder.find_spec(name, sys.modules[above].__path__ if above else None)
        module: Any = ModuleType(name)
        module.__path__, module.__spec__ = spec.submodule_search_locations, spec
        sys.modules[name] = module
        if above:
            setattr(sys.modules[above], name.rpartition(".")[2], module)


class _Nothing(Loader, MetaPathFinder):
    """Finds packages and modules of some names, in which nothing is real."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        del path, target
        is_named = any(f"{fullname}.".startswith(f"{name}.") for name in self.names)
        return ModuleSpec(fullname, self, is_package=True) if is_named else None

    def create_module(self, spec: ModuleSpec) -> MagicMock:
        return MagicMock(__name__=spec.name, __path__=[], __spec__=spec)

    def exec_module(self, module: object) -> None:
        """Do nothing."""


@contextmanager
def without(*names: str):
    """Within it, modules that log and draw are imported as ones in which nothing is real."""
    finder = _Nothing(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
