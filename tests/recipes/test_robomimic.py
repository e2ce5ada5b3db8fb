"""The page on robomimic: its diff fits robomimic's own script, whose short epochs then read pass after pass."""

import json
from collections import Counter

import h5py
import numpy as np
import pytest
from recipe_jobs import run, seen
from recipe_pages import patched

pytest.importorskip("robomimic")
SAMPLES = 75


@pytest.fixture
def demos(tmp_path):
    """Five demonstrations, of 75 samples together."""
    rng = np.random.default_rng(0)
    path = tmp_path / "demos.hdf5"
    with h5py.File(path, "w") as file:
        for number in range(5):
            demo, length = file.create_group(f"data/demo_{number}"), 13 + number
            demo["actions"] = rng.uniform(-1, 1, (length, 7))
            demo["rewards"], demo["dones"] = np.zeros(length), np.zeros(length)
            for group in ("obs", "next_obs"):
                demo[f"{group}/object"] = rng.normal(size=(length, 10))
            demo.attrs["num_samples"] = length
        file["data"].attrs["env_args"] = json.dumps(
            {"env_name": "Lift", "type": 1, "env_kwargs": {}}
        )
    return path


def test_epochs_of_four_steps_go_on_in_the_pass_where_they_were_killed(demos, tmp_path):
    """7 epochs of 4 steps, in two runs, are 4 passes of 7 batches: each sample 4 times."""
    package = patched("robomimic", tmp_path / "patched")
    folder = tmp_path / "run"
    for epochs in (3, 7):
        folder.mkdir(exist_ok=True)
        run(1, "robomimic_job.py", folder, package, demos, epochs)
    trained = sum(seen(folder).values(), Counter())
    assert trained == dict.fromkeys(range(SAMPLES), 4)
