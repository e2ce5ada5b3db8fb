"""The diffs that pages on recipes print, applied to the files that they are of."""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

PAGES = Path(__file__).parent.parent.parent / "docs" / "howto" / "recipes"


def diffs(page: str) -> dict[str, list[tuple[str, str]]]:
    """By file, what a page takes away and what it puts there, context included."""
    text = (PAGES / f"{page}.md").read_text()
    found: dict[str, list[tuple[str, str]]] = {}
    for block in re.findall(r"^```diff\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        head, *hunks = re.split(r"^@@.*\n", block, flags=re.MULTILINE)
        assert head.startswith("--- ") and hunks, head
        found.setdefault(head.removeprefix("--- ").strip(), []).extend(map(_sides, hunks))
    return found


def _sides(hunk: str) -> tuple[str, str]:
    lines = [line.ljust(1) for line in hunk.splitlines()]
    assert all(line[0] in " -+" for line in lines), hunk
    return tuple(
        "".join(line[1:] + "\n" for line in lines if line[0] in side) for side in (" -", " +")
    )


def patched(page: str, folder: Path, *, every: tuple[str, str] = ("", "")) -> Path:
    """A copy of the page's package in ``folder``, with its lines changed as the page says.

    ``every`` are the words of the page that say how often to save, and others for a test.
    """
    files = diffs(page)
    (package,) = {name.partition("/")[0] for name in files}
    spec = find_spec(package)
    if spec is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)
    source = Path(next(iter(spec.submodule_search_locations)))
    shutil.copytree(source, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, hunks in files.items():
        text = (folder / name).read_text()
        for before, after in hunks:
            assert text.count(before) == 1, f"{name} does not have these lines once:\n{before}"
            text = text.replace(before, after.replace(*every))
        (folder / name).write_text("import globidx\n" + text)
    return folder
