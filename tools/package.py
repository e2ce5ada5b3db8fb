#!/usr/bin/env python3
"""Refuse a wheel or an sdist that holds too little or too much.

Usage: ``python tools/package.py FOLDER``, where ``python -m build`` has put one wheel and one sdist.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def tracked() -> set[str]:
    """The files of the repository."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    return set(listed.stdout.splitlines())


def problems(wheel: Iterable[str], sdist: Iterable[str], files: set[str]) -> list[str]:
    """What is wrong with the files that a wheel and an sdist hold, given those of the repository.

    A wheel holds the package, its licence and its metadata. An sdist holds all that a checkout does, so that whoever
    unpacks it can run the tests, and what the build adds.

    >>> problems(["globidx/__init__.py", "tests/x.py"], ["setup.cfg"], {"globidx/__init__.py", "setup.cfg"})
    ['the wheel has tests/x.py', 'the sdist lacks globidx/__init__.py']
    """
    package = {name for name in files if name.startswith("globidx/")}
    own = {name for name in wheel if ".dist-info/" not in name}
    unneeded = {name for name in files if name.endswith(".gitignore")}
    return [
        *(f"the wheel lacks {name}" for name in sorted(package - own)),
        *(f"the wheel has {name}" for name in sorted(own - package)),
        *(f"the sdist lacks {name}" for name in sorted(files - unneeded - {*sdist})),
    ]


def main(folder: Path) -> list[str]:
    """What is wrong with the wheel and the sdist in a folder."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = archive.namelist()
    with tarfile.open(sdist) as archive:
        in_sdist = [
            member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()
        ]
    return problems(in_wheel, in_sdist, tracked())


if __name__ == "__main__":
    found = main(Path(sys.argv[1]))
    print("\n".join(found) or "the wheel and the sdist hold what they should")
    sys.exit(bool(found))
