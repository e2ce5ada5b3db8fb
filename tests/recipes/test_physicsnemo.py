"""The page on PhysicsNeMo: its lines over PhysicsNeMo's own loader, whose thread reads ahead."""

import numpy as np
import pytest
import zarr
from recipe_jobs import run, seen, steps

pytest.importorskip("tensordict")
RUNS = 45


@pytest.fixture
def runs(tmp_path):
    """A folder that makes folders for jobs, which read one set of stores."""
    rng = np.random.default_rng(0)
    for number in range(RUNS):
        group = zarr.open_group(tmp_path / f"run_{number:02}.zarr", mode="w")
        group.create_array("points", data=rng.random((20, 3)))

    def make(name):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "runs").symlink_to(tmp_path)
        return folder

    return make


def drawn(folder):
    """What was read of each sample, by epoch and id."""
    return {
        (step["epoch"], id): value
        for step in steps(folder)
        for id, value in zip(step["ids"], step["values"], strict=True)
    }


def test_a_run_over_their_loader_is_killed_on_2_processes_and_goes_on_on_3(runs, tmp_path):
    """Each sample once an epoch, and the same random block of it as in a run that nobody killed."""
    killed, whole = runs("killed"), runs("whole")
    run(2, "physicsnemo_job.py", killed, tmp_path, "stop")
    run(3, "physicsnemo_job.py", killed, tmp_path)
    run(1, "physicsnemo_job.py", whole, tmp_path)
    times = seen(killed)
    # 45 do not divide by 2: one is read twice as padding in epoch 0, which is over before the kill
    assert times[0].total() == RUNS + 1 and set(times[0]) == set(range(RUNS))
    assert {epoch: times[epoch] for epoch in (1, 2)} == dict.fromkeys(
        (1, 2), dict.fromkeys(range(RUNS), 1)
    )
    assert drawn(killed) == drawn(whole)
