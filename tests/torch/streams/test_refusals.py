"""What is refused in a worker is no error of the training loop, and no error of ``iter()``."""

import pytest
from simulated_workers import as_worker
from torch.utils.data._utils.worker import WorkerInfo

from globidx.errors import CommitError, StaleIteratorError
from globidx.torch.streams.refusals import (
    refuse_in_worker,
    refuse_torchdata,
    refused_second_pass,
)


def test_calls_of_the_training_loop_are_refused_in_workers_only():
    """The message names the call."""
    refuse_in_worker("commit")
    with (
        as_worker(WorkerInfo(id=0, num_workers=1, seed=0, dataset=None)),
        pytest.raises(CommitError, match=r"commit\(\) in a loader's worker"),
    ):
        refuse_in_worker("commit")


def test_a_second_pass_is_refused_where_a_sample_is_asked_for():
    """An error of ``iter()`` would end the worker, and nobody would be told why."""
    iterator = refused_second_pass(", or so")
    with pytest.raises(StaleIteratorError, match="leave persistent_workers out, or so"):
        next(iterator)


def test_a_stateful_loader_is_known_by_its_module():
    """By the name that torchdata's has."""
    refuse_torchdata("")
    names = {"__name__": "torchdata.stateful_dataloader.worker", "refuse": refuse_torchdata}
    with pytest.raises(CommitError, match="as many workers only; do this"):
        exec("refuse('do this')", names)
