"""Random strides of The Well and torchvision's transforms: the same bits on any ranks and workers, after a kill, too."""

import subprocess
from collections import Counter
from pathlib import Path

import pytest
from integrations import vision  # noqa: F401

pytest.importorskip("torchvision")
pytest.importorskip("the_well")

import numpy as np
import torch
from integrations import well_job, well_samples
from integrations.jobs import lines
from processes import clean_environment, torchrun

from globidx import sample_rng
from globidx.core.generator import Moment

SAVE_AT, KILL_AT, STEPS = 7, 9, 10


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """60 windows in two small files."""
    folder = tmp_path_factory.mktemp("well")
    well_samples.write(folder)
    return folder


def run_job(folder, data, what, ranks, workers, context, save_at=0, kill_at=0):
    """A leg of a run in processes of its own, which are killed at a step or come to their end."""
    job = Path(__file__).parent / "well_job.py"
    done = subprocess.run(
        torchrun(ranks, job, folder, data, what, workers, context, save_at, kill_at),
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ("SIGKILL" in done.stderr) if kill_at else (done.returncode == 0), done.stderr
    return bits(folder)


class Killed(Exception):
    """The end of a leg in this process."""


def run_here(folder, data, what, workers=0, context=None, save_at=0, kill_at=0):
    """A leg of a run on one rank, in this process."""

    def kill():
        raise Killed

    states = np.random.get_state(), torch.get_rng_state()
    try:
        well_job.train(folder, data, what, workers, context, save_at, kill_at, kill)
    except Killed:
        assert kill_at
    finally:
        np.random.set_state(states[0])
        torch.set_rng_state(states[1])
    return bits(folder)


def bits(folder):
    """For each leg, the bits of the samples of each step's global batch."""
    legs = {}
    for leg in (0, 1):
        for line in lines(folder, leg):
            steps = legs.setdefault(leg, {})
            steps.setdefault(line["step"], Counter()).update(line["bits"])
    return legs


@pytest.fixture(scope="module")
def expected(data, tmp_path_factory):
    """The bits of each global batch of one rank without workers, by kind of dataset."""
    kinds = ("files", "well", "plain")
    return {kind: run_here(tmp_path_factory.mktemp(kind), data, kind)[0] for kind in kinds}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then"),
    [((2, 3, "spawn"), (4, 2, "fork")), ((4, 2, "spawn"), (2, 3, "fork"))],
    ids=["2x3, then 4x2", "4x2, then 2x3"],
)
def test_every_global_batch_has_the_same_bits_before_and_after_a_kill(
    data, expected, tmp_path, first, then
):
    """On ranks x workers: saved, killed two steps later, and resumed on others; compared with 1x0."""
    batches = expected["files"]
    assert sorted(batches) == list(range(STEPS))
    samples = Counter(bit for batch in batches.values() for bit in batch.elements())
    # no sample looks alike in two epochs
    assert samples.total() == len(samples) == 2 * well_samples.SAMPLES
    [killed] = run_job(tmp_path, data, "files", *first, SAVE_AT, KILL_AT).values()
    assert all(killed[step] == batches[step] for step in range(SAVE_AT))
    # what was delivered and not saved is delivered again, as it was
    assert all(killed[step] <= batches[step] for step in killed)
    resumed = run_job(tmp_path, data, "files", *then)[1]
    assert resumed == {step: batches[step] for step in range(SAVE_AT, STEPS)}


@pytest.mark.slow
def test_the_wells_own_dataset_resumes_with_the_same_bits(data, expected, tmp_path):
    """It draws strides from numpy's global generator: ``MapDataset(..., seed_transforms=True)`` is all it needs."""
    batches = expected["well"]
    [killed] = run_job(tmp_path, data, "well", 2, 3, "fork", SAVE_AT, KILL_AT).values()
    assert all(killed[step] == batches[step] for step in range(SAVE_AT))
    resumed = run_here(tmp_path, data, "well")[1]
    assert resumed == {step: batches[step] for step in range(SAVE_AT, STEPS)}


@pytest.mark.parametrize("what", ["files", "well", "plain"])
def test_plain_code_goes_on_with_other_bits_and_this_with_the_same(data, expected, tmp_path, what):
    """Plain code seeds the global generators once: a resume changes samples, and so do workers."""
    batches, later = expected[what], range(SAVE_AT, STEPS)
    before = run_here(tmp_path, data, what, 0, None, SAVE_AT, KILL_AT)[0]
    assert before == {step: batches[step] for step in range(KILL_AT)}
    resumed = run_here(tmp_path, data, what)[1]
    assert sorted(resumed) == list(later)
    (tmp_path / "workers").mkdir()
    workers = run_here(tmp_path / "workers", data, what, 2, "fork")[0]
    if what == "plain":
        assert not any(resumed[step] & batches[step] for step in later)
        assert not any(workers[step] & batches[step] for step in range(STEPS))
    else:
        assert resumed == {step: batches[step] for step in later}
        assert workers == batches


def most(where):
    """The largest stride that the place of a window allows."""
    return min(4, (well_samples.STEPS - 1 - where.anchor) // well_samples.LAST)


def in_well(peers, stride, where):
    """The steps that The Well reads with a stride at the place of a window."""
    per_trajectory = well_samples.STEPS - well_samples.LAST * stride
    sample = peers[stride][where.sequence * per_trajectory + where.anchor]
    return torch.cat([sample["input_fields"], sample["output_fields"]]).movedim(-1, 1)


def test_strides_are_those_that_the_well_may_draw_and_samples_are_its_own(data):
    """As many windows, each with the strides that its place allows, and the fields that The Well reads for it."""
    ours = well_samples.opened(data, well_samples.random_steps)
    peers = {stride: well_samples.theirs(data, stride, stride) for stride in (1, 2, 3, 4)}
    assert len(ours) == len(peers[1]) == well_samples.SAMPLES
    drawn = {id: [] for id in range(len(ours))}
    for epoch in range(20):
        ours.moment.set(Moment(7, epoch))
        for id, strides in drawn.items():
            steps, stride = ours[id]
            strides.append(stride)
            where = ours.index_manager.where(id)
            assert stride == sample_rng(7, epoch, id).integers(1, most(where), endpoint=True)
            if epoch == 0:
                assert torch.equal(steps, in_well(peers, stride, where))
    places = {id: most(ours.index_manager.where(id)) for id in drawn}
    assert all(set(drawn[id]) == set(range(1, places[id] + 1)) for id in drawn)
    # samples of an epoch do not draw alike
    assert {drawn[id][0] for id in drawn if places[id] == 4} == {1, 2, 3, 4}


def test_the_well_itself_draws_strides_of_the_same_range(data):
    """The oracle: what ``WellDataset`` gives for ours to draw from."""
    peers = {stride: well_samples.theirs(data, stride, stride) for stride in (1, 2, 3, 4)}
    theirs, ours = well_samples.theirs(data), well_samples.opened(data, None)
    state = np.random.get_state()
    np.random.seed(0)
    for id in range(0, len(theirs), 7):
        where = ours.index_manager.where(id)
        read = {float(theirs[id]["output_fields"].sum()) for _ in range(40)}
        strides = range(1, most(where) + 1)
        last = [in_well(peers, stride, where)[well_samples.N_IN :] for stride in strides]
        assert read == {float(steps.movedim(1, -1).contiguous().sum()) for steps in last}
    np.random.set_state(state)
