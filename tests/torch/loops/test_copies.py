"""Copies of a sampler: they say what their original says, and are heard of where they are read in its place."""

import copy
import itertools
import pickle

import pytest
from loops import by_next, made

from globidx import CheckpointManager, DataLoader, errors


@pytest.mark.parametrize(
    ("drop_last", "arguments"),
    [(True, {}), (False, {"world": 3, "rank": 2, "tail": "exact"}), (False, {})],
)
def test_a_copy_made_while_the_last_batch_is_held_says_what_its_original_says(drop_last, arguments):
    """Also where ids are left of the epoch that this rank's loader does not give."""
    sampler, _ = made(**arguments)
    loader = DataLoader(range(41), batch_size=4, sampler=sampler, drop_last=drop_last)
    by_next(loader)
    for copied in (copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))):
        assert copied.state_dict() == sampler.state_dict()
        assert copied.epoch == 1


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda loader: pickle.loads(pickle.dumps(loader))]
)
def test_a_copied_loader_is_told_of(copied, tmp_path):
    """The sampler that is saved hears nothing of its copy's loop."""
    sampler, loader = made(40)
    manager = CheckpointManager(tmp_path, sampler)
    list(itertools.islice(copied(loader), 3))
    with pytest.raises(errors.CommitError, match="a copy of this sampler is being read"):
        manager.save(3)
    with pytest.warns(UserWarning, match="loader.sampler"):
        sampler.state_dict()
    list(itertools.islice(loader, 3))
    manager.save(3)
