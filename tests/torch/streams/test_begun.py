"""What a worker notes of its pass is seen by the process that started it, and by no other copy."""

import copy
import multiprocessing
import pickle

import pytest

from globidx import ResumableDistributedSampler
from globidx.torch.streams.begun import Begun, Reading, samples_of


def note(begun):
    """What a worker does when it begins."""
    begun.note(Reading(2**61, 7, 3, 2**32 - 1))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_note_of_another_process_is_seen(method):
    """However it was started."""
    begun = Begun()
    process = multiprocessing.get_context(method).Process(target=note, args=(begun,))
    process.start()
    process.join()
    assert begun.reading == Reading(2**61, 7, 3, 2**32 - 1)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copy_has_notes_of_its_own(copied):
    """Those of before are copied."""
    begun = Begun()
    begun.note(Reading(1, 1, 1, 1))
    other = copied(begun)
    note(begun)
    assert other.reading == Reading(1, 1, 1, 1)


def test_samples_differ_by_dataset_and_skips():
    """And by nothing that a loop changes."""
    sampler, data = ResumableDistributedSampler(range(9), 1, 0), []
    for change in (lambda: sampler.commit(3), lambda: sampler.skip([2]), sampler.finish_epoch):
        change()
        data.append(samples_of(sampler._ledger.tracker.state))
    other = samples_of(ResumableDistributedSampler(range(8), 1, 0)._ledger.tracker.state)
    assert len({*data, other}) == 3 and data[1] == data[2]
