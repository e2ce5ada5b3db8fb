"""SPDL: what its loader and a pipeline of it read in real processes, resumed as docs/howto/trainers/spdl.md says."""

import traceback

import pytest

pytest.importorskip("spdl.pipeline")

from integrations.legs import assert_exact, run_legs
from spdl.pipeline import PipelineBuilder, PipelineFailure, iterate_in_subprocess
from torch.utils.data import BatchSampler

from globidx import DataLoader, ResumableDistributedSampler


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The folder of a job that was saved on two ranks in the middle of an epoch, and resumed."""
    folder = tmp_path_factory.mktemp("spdl")
    run_legs("spdl_job", folder)
    return folder


def loader_of():
    """A loader over range(20)."""
    sampler = ResumableDistributedSampler(range(20), 1, 0)
    return DataLoader(range(20), 4, sampler=sampler)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_run_goes_on_on_any_number_of_processes(job, ranks):
    """What the pipeline has drawn and the loop has not had is read again."""
    assert_exact(job, ranks)


def test_a_pipeline_that_reads_a_loader_ahead_is_refused():
    """Its queue would count as trained on."""
    pipeline = PipelineBuilder().add_source(loader_of()).add_sink(2).build(num_threads=1)
    with pytest.raises(PipelineFailure) as failure, pipeline.auto_stop():
        list(pipeline)
    told = "".join(traceback.format_exception(failure.value))
    assert "takes batches ahead of the training loop" in told
    assert "add_source(BatchSampler(sampler, batch_size, drop_last=False))" in told


@pytest.mark.slow
def test_a_process_that_reads_a_loader_ahead_is_refused():
    """Its deliveries would count in that process only."""
    with pytest.raises(RuntimeError, match=r"(?s)takes batches ahead .*iterate_in_subprocess out"):
        list(iterate_in_subprocess(loader_of))


def test_a_loop_that_does_not_commit_is_warned():
    """The pipeline reads the sampler in a thread of its own, which is a loader's all the same."""
    sampler = ResumableDistributedSampler(range(20), 1, 0)
    batches = BatchSampler(sampler, 4, drop_last=False)
    pipeline = PipelineBuilder().add_source(batches).add_sink(2).build(num_threads=1)
    with pipeline.auto_stop():
        next(iter(pipeline))
        with pytest.warns(UserWarning, match="no delivery was reported"):
            sampler.state_dict()
