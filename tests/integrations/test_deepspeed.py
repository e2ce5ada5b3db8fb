"""DeepSpeed: what its engine trains on in real processes, resumed as docs/howto/trainers/deepspeed.md says."""

import pytest

pytest.importorskip("deepspeed")

from deepspeed.runtime.dataloader import RepeatingLoader
from integrations.legs import assert_exact, run_legs

from globidx import DataLoader, ResumableDistributedSampler


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The folder of a job that was saved on two ranks in the middle of an epoch, and resumed."""
    folder = tmp_path_factory.mktemp("deepspeed")
    run_legs("deepspeed_job", folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_run_goes_on_on_any_number_of_processes(job, ranks):
    """The record is in the client state of the engine's checkpoint."""
    assert_exact(job, ranks)


def test_a_loader_that_repeats_itself_goes_from_epoch_to_epoch():
    """RepeatingLoader begins a pass before a record is loaded; that pass is the one of the record."""
    record = ResumableDistributedSampler(range(10), 1, 0, seed=7)
    record.commit(6)
    sampler = ResumableDistributedSampler(range(10), 1, 0, seed=7)
    batches = RepeatingLoader(DataLoader(range(10), 2, sampler=sampler))
    sampler.load_state_dict(record.state_dict())
    ids = [id for _ in range(7) for id in next(batches).tolist()]
    assert sorted(ids[4:]) == list(range(10))
    assert set(ids[:4]) == set(record)
    assert sampler.state_dict()["epoch"] == 2
