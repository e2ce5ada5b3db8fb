"""Ray Train: what its workers train on, resumed as docs/howto/trainers/ray.md says."""

from pathlib import Path

import pytest

pytest.importorskip("ray.train")

import torch
from integrations.legs import assert_exact, run_python
from ray.train.torch.train_loop_utils import _WrappedDataLoader

from globidx import DataLoader, ResumableDistributedSampler
from globidx.errors import CommitError


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The folder of a job that was saved on two workers in the middle of an epoch, and resumed."""
    folder = tmp_path_factory.mktemp("ray")
    run_python(Path(__file__).parent / "ray_job.py", folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_run_goes_on_on_any_number_of_workers(job, ranks):
    """The record is a file of Ray's checkpoint."""
    assert_exact(job, ranks)


def test_a_loader_that_ray_reads_ahead_is_refused():
    """What prepare_data_loader returns holds the next batch while a step trains on this one."""
    loader = DataLoader(range(20), 4, sampler=ResumableDistributedSampler(range(20), 1, 0))
    prepared = _WrappedDataLoader(loader, torch.device("cpu"), auto_transfer=True)
    with pytest.raises(CommitError, match=r"takes batches ahead .* prepare_data_loader out"):
        iter(prepared)
