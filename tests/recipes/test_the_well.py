"""The page on The Well: its diff fits The Well's own files, and what is changed by it trains on each sample once."""

import numpy as np
import pytest
from recipe_jobs import run, seen
from recipe_pages import patched

dummy_data = pytest.importorskip("the_well.utils.dummy_data")


@pytest.fixture
def folder(tmp_path):
    """Files that The Well's own generator wrote: 4 trajectories of 9 windows to train on, fewer of the other splits."""
    state = np.random.get_state()
    np.random.seed(0)
    for split, files in (("train", 2), ("valid", 1), ("test", 1)):
        (tmp_path / "dummy" / "data" / split).mkdir(parents=True)
        for number in range(files):
            dummy_data.write_dummy_data(str(tmp_path / f"dummy/data/{split}/{number}.hdf5"))
    np.random.set_state(state)
    return tmp_path


def test_a_run_of_their_trainer_is_killed_on_2_processes_and_goes_on_on_3(folder, tmp_path_factory):
    """Each sample once in both epochs: 36 samples, 30 of them before the kill, and last batches that are smaller."""
    package = patched("the_well", tmp_path_factory.mktemp("patched"), every=("% 500", "% 3"))
    run(2, "the_well_job.py", folder, package, "stop")
    assert seen(folder)[1].total() == 30
    run(3, "the_well_job.py", folder, package)
    once = dict.fromkeys(range(36), 1)
    assert seen(folder) == {1: once, 2: once}
