"""One pass of a loop: it is a whole one, or its end is an error."""

import pytest
from loops import HOW, done, made, reading

from globidx import DataLoader, ResumableDistributedSampler, errors


class Slips:
    """Sample 17 lets a StopIteration out."""

    def __len__(self):
        return 40

    def __getitem__(self, id):
        return next(iter(())) if id == 17 else id


def slipping_collate(samples):
    return next(iter(())) if 17 in samples else samples


@pytest.mark.parametrize("workers", HOW)
@pytest.mark.parametrize("where", ["dataset", "collate"])
def test_stop_iteration_of_a_dataset_is_an_error(workers, where):
    """It would end the pass without a word, and the record would call the epoch done."""
    dataset = Slips() if where == "dataset" else range(40)
    sampler = ResumableDistributedSampler(dataset, 1, 0, shuffle=False)
    collate = {"collate_fn": slipping_collate} if where == "collate" else {}
    loader = DataLoader(dataset, batch_size=4, sampler=sampler, **reading(workers), **collate)
    with pytest.raises(errors.EarlyStopError, match="raised StopIteration"):
        list(loader)
    assert done(sampler) == (0, 16)


def test_a_loop_that_was_handed_nothing_reads_the_epoch_that_is_set_next():
    """Trainers make the iterator first, and call set_epoch then."""
    sampler, loader = made(20, 4, shuffle=True)
    list(loader)
    stream = iter(loader)
    sampler.set_epoch(5)
    again = ResumableDistributedSampler(range(20), 1, 0)
    again.set_epoch(5)
    assert [id for batch in stream for id in batch.tolist()] == list(again)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("stop", [2, 4, None])
def test_start_is_of_the_pass_that_comes_next_once_a_loop_is_over(keep, stop):
    """By a break, a load or its end, and whether or not a variable keeps the loop's iterator."""
    sampler, loader = made()
    sampler.commit(20)
    record = sampler.state_dict()
    stream = iter(loader)
    for number, _ in enumerate(stream if keep else loader):
        assert loader.start == 5
        if number == stop:
            break
    assert loader.start == (0 if stop is None else 5 + stop)
    sampler.load_state_dict(record)
    assert loader.start == 5
