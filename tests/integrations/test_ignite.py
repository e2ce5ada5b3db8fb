"""Ignite: what its engine trains on in real processes, resumed as docs/howto/trainers/ignite.md says."""

import pytest

pytest.importorskip("ignite")

from ignite.engine import Engine
from ignite.engine.deterministic import DeterministicEngine
from integrations.legs import assert_exact, run_legs

from globidx import DataLoader, ResumableDistributedSampler
from globidx.errors import CommitError


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The folder of a job that was saved on two ranks in the middle of an epoch, and resumed."""
    folder = tmp_path_factory.mktemp("ignite")
    run_legs("ignite_job", folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_run_goes_on_on_any_number_of_processes(job, ranks):
    """The engine's epochs are the sampler's: the one that is resumed ends where the record's does."""
    assert_exact(job, ranks)


def test_an_engine_that_skips_what_is_done_is_refused():
    """DeterministicEngine reads an epoch from its beginning; the sampler starts after its record."""
    sampler = ResumableDistributedSampler(range(20), 1, 0)
    loader = DataLoader(range(20), 4, sampler=sampler)
    with pytest.raises(CommitError, match="Ignite's DeterministicEngine skips the batches"):
        DeterministicEngine(lambda engine, batch: None).run(loader)


def test_a_terminated_run_repeats_its_last_batch_unless_a_handler_has_saved():
    """After terminate() the engine never comes back for another batch, so it does not count."""
    sampler = ResumableDistributedSampler(range(20), 1, 0)
    records = []

    def step(engine, batch):
        records.append(sampler.state_dict()["remaining"])
        if engine.state.iteration == 2:
            engine.terminate()

    Engine(step).run(DataLoader(range(20), 4, sampler=sampler))
    assert records == [16, 12]
    assert sampler.state_dict()["remaining"] == 16
