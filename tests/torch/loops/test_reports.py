"""Deliveries that nobody reports, or reports otherwise than they happened, are told of: once, or refused."""

import itertools
import warnings

import pytest
import torch
from loops import done, made

from globidx import CheckpointManager, DataLoader, ResumableDistributedSampler, errors


def test_after_a_break_the_batch_may_be_committed_by_hand():
    """Once, and not more of it than there was."""
    sampler, loader = made()
    for number, batch in enumerate(loader):
        last = batch
        if number == 2:
            break
    with pytest.raises(errors.CommitError, match=r"commit\(5\), but only 4 ids"):
        sampler.commit(5)
    sampler.commit(len(last))
    assert done(sampler) == (0, 12)


def test_a_loader_that_does_not_report_is_told_of_once():
    """Torch's loader without commit, a wrapped sampler, a copied loader: state_dict warns, settle and save refuse."""
    sampler = ResumableDistributedSampler(range(20), 1, 0)
    list(torch.utils.data.DataLoader(range(20), sampler=sampler))
    with pytest.warns(UserWarning, match=r"call sampler.commit\(len\(batch\)\)"):
        sampler.state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sampler.state_dict()["committed"] == 0
    wrapped = ResumableDistributedSampler(range(20), 1, 0)

    class Wrapper:
        def __iter__(self):
            yield from wrapped

    list(DataLoader(range(20), sampler=Wrapper()))
    with pytest.warns(UserWarning, match="no delivery was reported"):
        wrapped.state_dict()


def test_a_sampler_that_no_loader_was_given_is_told_of(tmp_path, caplog):
    """Two epochs over a loader without sampler=: the record says that nothing was done, and the save says why, once."""
    sampler = ResumableDistributedSampler(range(20), 1, 0)
    manager = CheckpointManager(tmp_path, sampler)
    manager.save(0)
    assert "nothing was ever read" not in caplog.text
    list(DataLoader(range(20), batch_size=4))
    manager.save(5)
    manager.save(6)
    assert caplog.text.count("nothing was ever read from the sampler of this manager") == 1
    read = CheckpointManager(tmp_path / "read", made()[0])
    sampler, loader = made()
    manager = CheckpointManager(tmp_path / "read", sampler)
    list(loader)
    caplog.clear()
    manager.save(7)
    assert (caplog.text, read.restore()["step"]) == ("", 7)


class Repeating:
    """What timm and ultralytics put around a batch sampler: it never ends."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        while True:
            yield from iter(self.batches)


@pytest.mark.slow
def test_an_infinite_loader_that_draws_the_next_epoch_early_is_refused():
    """Its workers draw again before this epoch was delivered: those ids would be trained on twice, and counted once."""
    sampler = ResumableDistributedSampler(range(41), 1, 0, seed=1)
    loader = torch.utils.data.DataLoader(range(41), batch_size=4, sampler=sampler, num_workers=2)
    object.__setattr__(loader, "batch_sampler", Repeating(loader.batch_sampler))
    with pytest.raises(errors.CommitError, match="draws already"):
        for batch in itertools.islice(loader, 33):
            sampler.commit(len(batch))


@pytest.mark.slow
def test_a_break_of_a_plain_loader_with_workers_goes_on():
    """Its workers, too, had drawn to the epoch's end; a new loop draws the rest at once."""
    sampler = ResumableDistributedSampler(range(41), 1, 0, seed=1)
    loader, had = (
        torch.utils.data.DataLoader(range(41), batch_size=4, sampler=sampler, num_workers=2),
        [],
    )
    while sampler.epoch == 0:
        for batch in itertools.islice(loader, 4):
            had += batch.tolist()
            sampler.commit(len(batch))
    assert sorted(had) == list(range(41))
