#!/usr/bin/env python3
"""How easily a stranger finds their way in the package: figures of it, before a rebuild and now.

``python tools/house.py`` compares the working tree with the commit before the modules were moved into rooms;
``python tools/house.py COMMIT`` compares it with another one, which must have a package called globidx.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).resolve().parents[1]
BEFORE = "2c08f5a"
LAYERS = ("core", "disk", "torch", "cli", "integrations")
COMMENTS_END_BEFORE = 100
_ENDINGS = ("ings", "ing", "ers", "er", "ies", "ed", "es", "s", "e", "y")


def modules(package: Path) -> dict[str, Path]:
    """The file of each module of a package, by its full name."""
    paths = {
        ".".join(path.relative_to(package.parent).with_suffix("").parts): path
        for path in package.rglob("*.py")
    }
    return {name.removesuffix(".__init__"): path for name, path in sorted(paths.items())}


def imports(tree: ast.Module, known: dict[str, Path]) -> Iterator[str]:
    """Modules of the package that a module imports, functions included; imports for type checkers are left out."""
    left: list[ast.AST] = [tree]
    while left:
        node = left.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            left += node.orelse
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from {name if name in known else node.module for name in full} & known.keys()
        else:
            left += ast.iter_child_nodes(node)


def import_graph(package: Path) -> dict[str, set[str]]:
    """Which modules each module imports."""
    known = modules(package)
    return {
        name: {*imports(ast.parse(path.read_text()), known)} - {name}
        for name, path in known.items()
    }


def room_graph(package: Path) -> dict[str, set[str]]:
    """Which folders the modules of each folder import from; a module beside the layers is a room of its own."""
    known = modules(package)
    room = {
        name: name
        if path.parent == package
        else ".".join(path.relative_to(package.parent).parent.parts)
        for name, path in known.items()
    }
    graph: dict[str, set[str]] = {}
    for name, imported in import_graph(package).items():
        graph.setdefault(room[name], set()).update(
            {room[other] for other in imported} - {room[name]}
        )
    return graph


def folder_sizes(package: Path) -> Counter[str]:
    """How many modules lie in each folder, without ``__init__``."""
    paths = [path.relative_to(package) for path in package.rglob("*.py") if path.stem != "__init__"]
    return Counter(path.parent.as_posix() for path in paths)


def stem(word: str) -> str:
    """A word without its ending, so that plural, participle and agent are one.

    >>> [stem(word) for word in ("index", "indexed", "indexing", "reader", "codecs")]
    ['index', 'index', 'index', 'read', 'codec']
    """
    return next(
        (
            word.removesuffix(end)
            for end in _ENDINGS
            if word.endswith(end) and len(word) - len(end) > 2
        ),
        word,
    )


def near_homonyms(names: Sequence[tuple[str, ...]]) -> list[tuple[str, str]]:
    """Pairs of names that a reader takes for one another, of modules and folders given by their paths in one layer.

    Two different names are near-homonyms if they have the same stem, or if the stem of one, four letters or more,
    begins the other, both being one word. A module may be named after a folder that it lies in: ``reading/reader``.
    One name in two folders is not counted either: the folder says which one is meant.

    >>> near_homonyms([("index",), ("index", "index"), ("indexcache",), ("reading",), ("reading", "reader")])
    [('index', 'indexcache'), ('index/index', 'indexcache')]
    """
    pairs = []
    for one, other in combinations(sorted(names), 2):
        short, long = sorted((stem(one[-1]), stem(other[-1])), key=len)
        begins = len(short) >= 4 and long.startswith(short) and "_" not in one[-1] + other[-1]
        is_inside = other[: len(one)] == one
        if one[-1] != other[-1] and (short == long or begins) and not is_inside:
            pairs.append(("/".join(one), "/".join(other)))
    return pairs


def names_of_layer(package: Path, layer: str) -> list[tuple[str, ...]]:
    """The path in its layer of each module and folder of a layer."""
    inside = package / layer
    paths = [path.relative_to(inside).with_suffix("") for path in inside.rglob("*.py")]
    return [
        (path.parent if path.name == "__init__" else path).parts
        for path in paths
        if path.as_posix() != "__init__"
    ]


def long_comments(path: Path) -> list[int]:
    """Numbers of the lines whose comment ends behind column 100."""
    lines = path.read_text().splitlines()
    return [
        number
        for number, line in enumerate(lines, 1)
        if len(line) > COMMENTS_END_BEFORE and " # " in line
    ]


def binds_three(node: ast.AST) -> bool:
    """Whether a statement is three assignments or more on one line: ``a, b, c = x, y, z`` or ``a = b = c = x``."""
    if not isinstance(node, ast.Assign):
        return False
    pairs = [(target, node.value) for target in node.targets if isinstance(target, ast.Tuple)]
    return len(node.targets) > 2 or any(
        len(t.elts) > 2 and isinstance(v, ast.Tuple) for t, v in pairs
    )


def count(tree: Path) -> dict[str, str]:
    """The figures of a tree that has a package called globidx."""
    package = tree / "globidx"
    texts = [path.read_text() for path in package.rglob("*.py")]
    lines = [line for text in texts for line in text.splitlines()]
    comments = sum(line.lstrip().startswith("#") for line in lines)
    folder, most = folder_sizes(package).most_common(1)[0]
    homonyms = sum(len(near_homonyms(names_of_layer(package, layer))) for layer in LAYERS)
    threes = sum(binds_three(node) for text in texts for node in ast.walk(ast.parse(text)))
    complete, definitions = complete_definitions(tree)
    return {
        "modules": f"{len(texts)}",
        "lines": f"{len(lines)}",
        "files in the largest folder": f"{most} ({folder})",
        "near-homonyms in one layer": f"{homonyms}",
        "whole-line comments": f"{comments / len(lines):.1%}",
        "lines over 100 columns": f"{sum(len(line) > 100 for line in lines) / len(lines):.1%}",
        "comments that end behind column 100": f"{sum(len(long_comments(path)) for path in package.rglob('*.py'))}",
        "three assignments on a line": f"{threes}",
        "public definitions with complete sections": f"{complete} of {definitions} ({complete / definitions:.0%})",
    }


def complete_definitions(tree: Path) -> tuple[int, int]:
    """How many public definitions of a tree have complete docstrings, and how many there are."""
    program = """
import json, globidx, docstrings
public = list(docstrings.public_definitions(globidx))
print(json.dumps([sum(not docstrings.problems(definition) for definition in public), len(public), globidx.__file__]))
"""
    path = f"{tree}:{REPOSITORY / 'tools'}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": path},
        cwd=tree,
        check=True,
        capture_output=True,
        text=True,
    )
    complete, definitions, home = json.loads(done.stdout)
    assert Path(home).is_relative_to(tree), home
    return complete, definitions


def main(commit: str) -> None:
    """Print the figures of a commit and of the working tree side by side."""
    with TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", commit], cwd=REPOSITORY, check=True, capture_output=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        before = count(Path(folder).resolve())
    now = count(REPOSITORY)
    print(f"| | {commit} | now |\n|---|--:|--:|")
    for name in now:
        print(f"| {name} | {before[name]} | {now[name]} |")


if __name__ == "__main__":
    main(*(sys.argv[1:] or [BEFORE]))
