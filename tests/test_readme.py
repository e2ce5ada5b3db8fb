"""Everything the README prints runs."""

import re
import shlex
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import numpy as np
import pytest
import torch
from files import environment, write_zarr

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    """The code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A working folder with data/*.zarr that hold images."""
    (tmp_path / "data").mkdir()
    for name in "ab":
        write_zarr(tmp_path / "data" / f"{name}.zarr", np.ones((40, 2), "u1"), key="images")
    monkeypatch.chdir(tmp_path)


def test_the_python_in_the_readme_runs(data, monkeypatch):
    """The training loop and the one with another loader, as printed (the dialogue is run as a doctest)."""
    loop, sizes, other, dialogue = blocks("python")
    assert ">>>" in dialogue
    trained = []
    names = {"train": trained.append}
    exec(loop.replace("num_workers=8", "num_workers=0"), names)
    assert sum(map(len, trained)) == 10 * 80
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    names |= {"optimizer": optimizer, "max_lr": 0.1, "epochs": names["sampler"].epoch + 1, "accumulate": 2}
    names |= {"OneCycleLR": torch.optim.lr_scheduler.OneCycleLR, "tqdm": lambda batches, initial, total: batches}
    exec(sizes, names)
    assert names["scheduler"].total_steps == names["step"] + len(names["loader"]) == 30 + 3
    names["sampler"].reset()
    names["torch_loader"] = torch.utils.data.DataLoader(names["dataset"], batch_size=16, sampler=names["sampler"])
    exec(other, names)
    assert names["sampler"].epoch == 12


def test_the_commands_in_the_readme_run(data):
    """globidx index and record, as printed."""
    commands = next(block for block in blocks("sh") if "globidx index build" in block)
    exec(blocks("python")[0].replace("num_workers=8", "num_workers=0").replace("% 500", "% 7"), {"train": len})
    said = []
    for line in commands.splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "globidx"
        command = [sys.executable, "-m", "globidx", *words[1:]]
        said.append(subprocess.run(command, env=environment(), check=True, capture_output=True, text=True).stdout)
    assert said[0].startswith("80 samples in 2 files")
    assert "samples      80" in said[1]
    assert re.search(r"sampler: epoch \d+  \[[#.]{30}\]  \d+ of 80, \d+ remaining", "".join(said))


def test_the_set_up_commands_are_two_and_constrained():
    """CI runs them as they are written; both take the pinned set."""
    set_up = re.findall(r"<!-- \w+ command -->\n```sh\n(.*)\n```", README)
    assert len(set_up) == 2
    assert all("-m venv .venv" in command and "-c constraints.txt" in command for command in set_up)


def test_extras_are_installed_from_the_clone():
    """Nothing is published: no message, comment or page names an extra as if it could be had from PyPI."""
    told = [path for place in ("globidx", "tools", "examples") for path in (ROOT / place).rglob("*.py")]
    for path in [*told, *ROOT.glob("*.md")]:
        assert not re.search(r"pip install '?globidx", path.read_text()), path
    extras = set(
        re.findall(r"pip install '\.\[(\w+)\]'", "".join(path.read_text() for path in [*told, ROOT / "README.md"]))
    )
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    assert extras and extras <= set(settings["options.extras_require"])


def test_the_oldest_versions_that_are_tested_are_the_lower_bounds():
    """``constraints-oldest.txt`` pins each package at the bound that setup.cfg states (torch: see there)."""
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    extras = settings["options.extras_require"]
    needed = [settings["options"]["install_requires"], extras["fast"], extras["remote"], extras["test"]]
    bounds = dict(line.split(">=") for text in needed for line in text.split() if ">=" in line)
    pins = dict(line.split("==") for line in (ROOT / "constraints-oldest.txt").read_text().split() if "==" in line)
    assert set(settings["options"]["install_requires"].replace(">=", " ").split()[::2]) <= set(pins)
    for name in set(pins) & set(bounds) - {"torch", "pytest-xdist"}:
        assert f"{pins[name]}.".startswith(f"{bounds[name]}."), (name, pins[name], bounds[name])
