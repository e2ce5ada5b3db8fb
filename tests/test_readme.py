"""The README's set-up commands, and what it says of packages; test_docs.py runs what it prints."""

import re
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_set_up_commands_are_two_and_constrained():
    """CI runs them as they are written; both take the pinned set."""
    set_up = re.findall(r"<!-- \w+ command -->\n```sh\n(.*)\n```", README)
    assert len(set_up) == 2
    assert all("-m venv .venv" in command and "-c constraints.txt" in command for command in set_up)


def test_extras_are_installed_from_the_clone():
    """Nothing is published: no message, comment or page names an extra as if it could be had from PyPI."""
    told = [
        path for place in ("globidx", "tools", "examples") for path in (ROOT / place).rglob("*.py")
    ]
    told += [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for path in told:
        assert not re.search(r"pip install '?globidx", path.read_text()), path
    extras = set(
        re.findall(r"pip install '\.\[(\w+)\]'", "".join(path.read_text() for path in told))
    )
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    assert extras and extras <= set(settings["options.extras_require"])


def test_the_oldest_versions_that_are_tested_are_the_lower_bounds():
    """``constraints-oldest.txt`` pins each package at the bound that setup.cfg states (torch: see there)."""
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    extras = settings["options.extras_require"]
    needed = [
        settings["options"]["install_requires"],
        extras["fast"],
        extras["remote"],
        extras["test"],
    ]
    bounds = dict(line.split(">=") for text in needed for line in text.split() if ">=" in line)
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints-oldest.txt").read_text().split()
        if "==" in line
    )
    assert set(settings["options"]["install_requires"].replace(">=", " ").split()[::2]) <= set(pins)
    for name in set(pins) & set(bounds) - {"torch", "pytest-xdist"}:
        assert f"{pins[name]}.".startswith(f"{bounds[name]}."), (name, pins[name], bounds[name])
