"""Jobs of a project's own code in processes of their own, and what their steps were given."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
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


def note(folder: Path, rank: int, epoch: int, ids: list[int]) -> None:
    """Write down what a step of a rank was given."""
    with open(folder / f"seen-{rank}.jsonl", "a") as file:
        file.write(json.dumps({"epoch": epoch, "ids": ids}) + "\n")


def seen(folder: Path) -> dict[int, Counter[int]]:
    """How often each id was trained on, by epoch."""
    found: dict[int, Counter[int]] = {}
    for path in folder.glob("seen-*.jsonl"):
        for line in path.read_text().splitlines():
            step = json.loads(line)
            found.setdefault(step["epoch"], Counter()).update(step["ids"])
    return found


class _Nothing(Loader, MetaPathFinder):
    """Finds packages of some names, in which nothing is real."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        del path, target
        is_named = fullname.partition(".")[0] in self.names
        return ModuleSpec(fullname, self, is_package=True) if is_named else None

    def create_module(self, spec: ModuleSpec) -> MagicMock:
        return MagicMock(__name__=spec.name, __path__=[], __spec__=spec)

    def exec_module(self, module: object) -> None:
        """Do nothing."""


@contextmanager
def without(*names: str):
    """Within it, packages that log and draw are imported as ones in which nothing is real."""
    finder = _Nothing(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
