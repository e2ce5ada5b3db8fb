"""The main job for real: torchrun, gloo, DDP, real files, and a rank killed at a random step.

What each rank trained on is logged outside the library, a line before every step; what is committed is read from the record and
matched against those lines.
"""

import random
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from files import environment, write_hdf5, write_zarr
from processes import torchrun

from globidx import read_record
from globidx.disk.records.folder import newest

TRAIN = Path(__file__).with_name("train_script.py")
SAMPLES = 403


def write_data(folder):
    """zarr v2, v3 and sharded, and HDF5, of uneven lengths; every label is its sample id modulo 2, plus 1 (zarr skips chunks of zeros)."""
    lengths, first = (101, 60, 92, 90, 60), 0
    assert sum(lengths) == SAMPLES
    for number, length in enumerate(lengths):
        data = {
            "images": np.ones((length, 4, 4), "f4"),
            "labels": np.arange(first, first + length) % 2 + 1,
        }
        if number < 3:
            write_zarr(
                folder / f"{number}.zarr",
                data,
                shard=(None, None, 16)[number],
                zarr_format=(2, 3, 3)[number],
            )
        else:
            write_hdf5(folder / f"{number}.h5", data, chunk=4 if number == 3 else None)
        first += length


def launch(ranks, data, run, *, workers, kill_rank=-1, kill_step=-1):
    """One job under torchrun; its exit code."""
    command = torchrun(ranks, TRAIN, data, run, workers, kill_rank, kill_step)
    one_thread = environment({"OMP_NUM_THREADS": "1"})
    done = subprocess.run(command, env=one_thread, capture_output=True, text=True, timeout=240)
    return done.returncode, done.stderr


def trained(run, leg):
    """[(epoch, step, rank, ids)] that the ranks of a leg logged; the line a kill cut short is not there."""
    found = []
    for path in run.glob(f"leg-{leg}-rank-*.txt"):
        rank = int(path.stem.rsplit("-", 1)[1])
        for line in path.read_text().split("\n")[:-1]:
            epoch, step, *ids = map(int, line.split())
            found.append((epoch, step, rank, ids))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 1), (1, 4)])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_sample_is_committed_once_over_a_kill_and_a_resize(tmp_path, before, after, workers):
    """SIGKILL of one rank at a random step; the next job has another size; two epochs are each read exactly once."""
    dice = random.Random(f"{before} {after} {workers}")
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    run.mkdir()
    write_data(data)
    kill_step = dice.randint(4, 2 * SAMPLES // (8 * before) - 4)
    code, said = launch(
        before, data, run, workers=workers, kill_rank=dice.randrange(before), kill_step=kill_step
    )
    assert code != 0
    assert "Signal 9 (SIGKILL)" in said, said
    step = read_record(newest(run))["step"]
    assert 0 < step < kill_step
    code, said = launch(after, data, run, workers=workers)
    assert code == 0, said
    lines = [line for line in trained(run, 0) if line[1] <= step] + trained(run, 1)
    for epoch in range(2):
        last = max(at for e, at, _, _ in lines if e == epoch)
        before_last = Counter(
            id for e, at, _, ids in lines if e == epoch and at < last for id in ids
        )
        in_last = Counter(id for e, at, _, ids in lines if e == epoch and at == last for id in ids)
        padding = sum((before_last + in_last).values()) - SAMPLES
        assert set(before_last) | set(in_last) == set(range(SAMPLES))
        assert set(before_last.values()) == {1}
        assert (
            0 <= padding < max(before, after)
        )  # the last step of a padded epoch repeats a few ids, and no other does
    assert read_record(newest(run))["states"]["sampler"]["epoch"] == 2
