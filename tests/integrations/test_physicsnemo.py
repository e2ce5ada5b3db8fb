"""PhysicsNeMo: what its datapipes read in real processes, resumed as docs/howto/trainers/physicsnemo.md says."""

import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    # parts of torch that it imports are deprecated
    warnings.simplefilter("ignore")
    pytest.importorskip("physicsnemo.datapipes")

import torch
from integrations.legs import SAMPLES, assert_exact, run_legs
from physicsnemo.datapipes import DataLoader, Dataset, NumpyReader
from physicsnemo.utils import load_checkpoint, save_checkpoint

from globidx import ResumableDistributedSampler


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The folder of a job that was saved on two ranks in the middle of an epoch, and resumed."""
    folder = tmp_path_factory.mktemp("physicsnemo")
    np.savez(folder / "ids.npz", ids=np.arange(SAMPLES, dtype="f4")[:, None])
    run_legs("physicsnemo_job", folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_run_goes_on_on_any_number_of_processes(job, ranks):
    """What the loader's thread has drawn and the loop has not had is read again."""
    assert_exact(job, ranks)


@pytest.mark.filterwarnings("ignore")
def test_the_record_is_in_a_checkpoint(tmp_path):
    """As metadata, which load_checkpoint returns."""
    sampler = ResumableDistributedSampler(range(10), 1, 0)
    sampler.commit(4)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    record = {"sampler": sampler.state_dict()}
    save_checkpoint(tmp_path, optimizer=optimizer, epoch=0, metadata=record)
    saved = {}
    load_checkpoint(tmp_path, optimizer=optimizer, metadata_dict=saved)
    assert saved["sampler"] == sampler.state_dict()


def test_a_loop_that_does_not_commit_is_warned(tmp_path):
    """The loader reads the sampler in a thread of its own, which is a loader's all the same."""
    np.savez(tmp_path / "ids.npz", ids=np.arange(20, dtype="f4")[:, None])
    dataset = Dataset(NumpyReader(tmp_path / "ids.npz"), device="cpu")
    sampler = ResumableDistributedSampler(dataset, 1, 0)
    for _ in DataLoader(dataset, batch_size=4, sampler=sampler):
        with pytest.warns(UserWarning, match="no delivery was reported"):
            sampler.state_dict()
        break
    dataset.close()
