"""The page on MACE: its diff fits mace's own files, and what is changed by it trains on each sample once."""

import shutil

import h5py
import numpy as np
import pytest
from recipe_jobs import run, seen
from recipe_pages import diffs, patched

pytest.importorskip("torchmetrics")
SAMPLES, STOP_AT = 180, 20


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of mace that is changed as the page says, and saves every 4 steps."""
    return patched("mace", tmp_path_factory.mktemp("patched"), every=("every=1000", "every=4"))


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


@pytest.fixture(scope="module")
def stopped(package, tmp_path_factory):
    """The folder of a run on 2 ranks that stopped in the middle of its second epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    write(folder / "train.h5", SAMPLES)
    write(folder / "valid.h5", 7)
    run(2, "mace_job.py", folder, package, STOP_AT)
    return folder


def test_what_the_page_makes_of_their_files_is_python(package):
    """``run_train.py`` needs all of mace, and is compiled only."""
    for name in diffs("mace"):
        compile((package / name).read_text(), name, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 3])
def test_a_run_of_their_training_goes_on_on_other_ranks(package, stopped, tmp_path, ranks):
    """Each configuration once in both epochs, 5 steps of the second before the stop."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    assert [counter.total() for counter in seen(tmp_path).values()] == [SAMPLES, 5 * 2 * 6]
    run(ranks, "mace_job.py", tmp_path, package, 1000)
    once = dict.fromkeys(range(SAMPLES), 1)
    assert seen(tmp_path) == {0: once, 1: once}
