"""mace's own training, with the lines of docs/howto/recipes/mace.md in a copy of the package, in real processes."""

import json
import re
import shutil
import subprocess
from collections import Counter
from importlib.machinery import PathFinder
from pathlib import Path

import h5py
import numpy as np
import pytest
from processes import REPOSITORY, clean_environment, torchrun

pytest.importorskip("torchmetrics")
PACKAGE = PathFinder.find_spec("mace") or pytest.skip(
    "mace is not installed", allow_module_level=True
)
PAGE = REPOSITORY / "docs" / "howto" / "recipes" / "mace.md"
SAMPLES, EPOCHS = 180, 2


def diffs():
    """The hunks of the page's diffs: a file's name, the lines that it has, and those that it has then."""
    for diff in re.findall(r"```diff\n(.*?)```", PAGE.read_text(), re.S):
        name, body = re.match(r"--- (\S+)\n(.*)", diff, re.S).groups()
        for hunk in body.split("@@\n"):
            # an empty line of a page is a line of context whose space an editor took
            lines = [line if line.strip() else " " for line in hunk.splitlines()]
            before, after = (
                "".join(f"{line[1:]}\n" for line in lines if line[0] != other) for other in "+-"
            )
            yield name, before, after


@pytest.fixture(scope="module")
def patched(tmp_path_factory):
    """The folder of a copy of mace with the lines of the page."""
    folder = tmp_path_factory.mktemp("patched")
    unread = shutil.ignore_patterns("__pycache__", "calculators")
    shutil.copytree(PACKAGE.submodule_search_locations[0], folder / "mace", ignore=unread)
    for name, before, after in diffs():
        source = (folder / name).read_text()
        assert source.count(before) == 1, f"{name} has not once:\n{before}"
        (folder / name).write_text(source.replace(before, after))
    return folder


def write(path, count):
    """Configurations as mace's preprocessing writes them, each with its number among the properties."""
    with h5py.File(path, "w") as file:
        file.attrs["drop_last"] = False
        for number in range(count):
            group = file.create_group(f"config_batch_0/config_{number}")
            group["atomic_numbers"] = np.ones(2 + number % 5, int)
            group["positions"] = np.zeros((2 + number % 5, 3))
            group["properties/energy"] = -3.2 * (2 + number % 5)
            group["properties/id"] = number
            group.create_group("property_weights")
            for name in ("weight", "config_type", "pbc", "cell"):
                group[name] = "None"


def run(ranks, patched, folder, stop_at):
    """How often each step's configurations were trained on, by epoch."""
    done = subprocess.run(
        torchrun(ranks, Path(__file__).parent / "mace_job.py", patched, folder, stop_at),
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    seen = Counter()
    for path in folder.glob(f"seen-{ranks}-*.jsonl"):
        for epoch, ids in map(json.loads, path.read_text().splitlines()):
            seen.update((epoch, id) for id in ids)
    return seen


def test_lines_of_the_page_are_maces_and_still_python(patched):
    """Each hunk is found once in the installed version, and what comes of it compiles."""
    for name in {name for name, *_ in diffs()}:
        compile((patched / name).read_text(), name, "exec")


@pytest.fixture(scope="module")
def stopped(patched, tmp_path_factory):
    """The folder of a run on 2 ranks that stopped in the middle of its second epoch, and what it trained on."""
    folder = tmp_path_factory.mktemp("stopped")
    write(folder / "train.h5", SAMPLES)
    write(folder / "valid.h5", 7)
    seen = run(2, patched, folder, 20)
    assert seen.total() == 20 * 2 * 6
    return folder, seen


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 3])
def test_a_run_of_mace_goes_on_on_other_ranks(patched, stopped, tmp_path, ranks):
    """Each configuration is trained on once in each epoch, whatever the ranks."""
    folder, seen = stopped
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    seen = seen + run(ranks, patched, tmp_path, 1000)
    assert seen == Counter((epoch, id) for epoch in range(EPOCHS) for id in range(SAMPLES))
