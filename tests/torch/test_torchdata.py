"""torchdata's StatefulDataLoader over our sampler: what it publishes is exact, and the sampler's part goes on anywhere."""

import itertools
import json

import pytest
import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from globidx import ResumableDistributedSampler, errors

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it


def made(n, batch, workers, *, rank=0, world=1, record=None):
    """(sampler, loader), the whole plug: sampler=."""
    sampler = ResumableDistributedSampler(range(n), world, rank, seed=4)
    if record is not None:
        sampler.load_state_dict(record)
    return sampler, StatefulDataLoader(
        list(range(n)), batch_size=batch, sampler=sampler, num_workers=workers
    )


def find_record(state):
    """The iterator's record in the loader's state, wherever the loader put it."""
    if isinstance(state, dict):
        if (
            state.get("format") == "globidx.sampler"
            and state["committed"] + state["open"]["count"] > 0
        ):
            return state
        return next(
            (found for inner in state.values() if (found := find_record(inner)) is not None), None
        )
    return None


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_loader_state_resumes_to_the_id(workers, stop):
    """Saved after any batch, loaded into a new loader of as many workers: the rest of the epoch, nothing else."""
    whole = list(ResumableDistributedSampler(range(50), 1, 0, seed=4))
    _, loader = made(50, 8, workers)
    stream = iter(loader)
    seen = [id for _ in range(stop) for id in next(stream).tolist()]
    state = loader.state_dict()
    del stream
    _, again = made(50, 8, workers)
    again.load_state_dict(state)
    assert seen + [id for batch in again for id in batch.tolist()] == whole


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("when", ["in the last step", "after the epoch", "after set_epoch"])
def test_a_state_at_an_epochs_end_runs_no_epoch_twice(workers, when):
    """Three epochs by a loop that calls set_epoch, resumed at the end of the first: each once, none in another's place."""
    orders = []
    for epoch in range(3):
        sampler = ResumableDistributedSampler(range(12), 1, 0, seed=4)
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    sampler, loader = made(12, 4, workers)
    sampler.set_epoch(0)
    for number, _ in enumerate(loader):
        if number == 2 and when == "in the last step":
            state = loader.state_dict()
    if when == "after set_epoch":
        sampler.set_epoch(1)
    if when != "in the last step":
        state = loader.state_dict()
    sampler, loader = made(12, 4, workers)
    loader.load_state_dict(state)
    passes = []
    for epoch in range(3) if when == "in the last step" else range(1, 3):
        sampler.set_epoch(epoch)
        passes.append([id for batch in loader for id in batch.tolist()])
    assert passes == ([[], *orders[1:]] if when == "in the last step" else orders[1:])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_its_record_goes_on_with_other_ranks_and_workers(workers):
    """torchdata's own state wants as many workers as before; the record inside it does not."""
    seen = []
    for rank in range(2):
        _, loader = made(50, 4, workers, rank=rank, world=2)
        stream = iter(loader)
        seen += [id for _ in range(3) for id in next(stream).tolist()]
        record = find_record(loader.state_dict())
        del stream
    assert (record["committed"], record["remaining"]) == (24, 26)
    rest = []
    for rank in range(3):
        sampler, _ = made(50, 4, 0, rank=rank, world=3, record=json.loads(json.dumps(record)))
        rest += list(sampler)[: sampler.num_valid - 12]
    assert sorted(seen + rest) == list(range(50))


class Annotated(ResumableDistributedSampler):
    """A sampler whose record says who wrote it; one that does not is refused."""

    def state_dict(self):
        return {**super().state_dict(), "writer": "annotated"}

    def load_state_dict(self, state):
        record = dict(state)
        assert record.pop("writer") == "annotated"
        super().load_state_dict(record)


@pytest.mark.parametrize("batch", [None, 8])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_subclass_reads_what_it_wrote(batch, workers):
    """Its own ``state_dict`` writes all of a loader's state, and its own ``load_state_dict`` reads all of it."""

    def loader():
        sampler = Annotated(range(50), 1, 0, seed=4)
        return StatefulDataLoader(
            list(range(50)), batch_size=batch, sampler=sampler, num_workers=workers
        )

    def ids(batches):
        return [id for batch in batches for id in torch.as_tensor(batch).reshape(-1).tolist()]

    first = loader()
    stream = iter(first)
    seen = ids(itertools.islice(stream, 3))
    state = first.state_dict()
    del stream
    again = loader()
    again.load_state_dict(state)
    assert seen + ids(again) == list(ResumableDistributedSampler(range(50), 1, 0, seed=4))


def test_passes_after_a_resumed_one_are_whole():
    """Without set_epoch: what was loaded is the resumed pass's, and the next reads the epoch again, as under torch."""
    _, loader = made(103, 4, 0)
    for number, _ in enumerate(loader):
        if number == 9:
            state = loader.state_dict()
            break
    _, again = made(103, 4, 0)
    again.load_state_dict(state)
    with pytest.warns(UserWarning, match="read again in the same order"):
        assert [sum(map(len, again)) for _ in range(3)] == [63, 103, 103]


def test_a_state_of_an_epochs_last_step_is_the_next_epochs_start():
    """A loop that goes on with the next epoch reads it whole."""
    sampler, loader = made(12, 4, 0)
    for number, _ in enumerate(loader):
        if number == 2:
            state = loader.state_dict()
    sampler, again = made(12, 4, 0)
    again.load_state_dict(state)
    sampler.set_epoch(1)
    whole = ResumableDistributedSampler(range(12), 1, 0, seed=4)
    whole.set_epoch(1)
    assert [id for batch in again for id in batch.tolist()] == list(whole)


def stopped(interval, steps, rank=0, world=1):
    """(ids, state) of a loader with two workers that keeps the state of each ``interval``-th step."""
    loader = made(50, 4, 2, rank=rank, world=world)[1]
    loader.snapshot_every_n_steps = interval
    stream = iter(loader)
    ids = [id for _ in range(steps) for id in next(stream).tolist()]
    return ids, loader.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("interval", [3, None, 0])
@pytest.mark.parametrize("steps", [1, 3, 5, 12])
def test_snapshots_of_some_steps_only_are_exact_as_they_were_cut(interval, steps):
    """torchdata reads the steps since then again, and throws them away: the same batches, with any later interval."""
    seen, state = stopped(interval, steps)
    again = made(50, 4, 2)[1]
    again.load_state_dict(state)
    rest = [id for batch in again for id in batch.tolist()]
    assert seen + rest == list(ResumableDistributedSampler(range(50), 1, 0, seed=4))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("interval", "batch", "world"), [(3, 7, 1), (None, 7, 1), (3, 4, 2), (7, 4, 2)]
)
def test_snapshots_of_some_steps_only_are_refused_in_another_cut(interval, batch, world):
    """With another batch size or world size the steps between would be other samples, which would be lost."""
    _, state = stopped(interval, 5)
    again = made(50, batch, 2, world=world)[1]
    again.load_state_dict(state)
    with pytest.raises(errors.CommitError, match="with snapshot_every_n_steps=1, or keep a record"):
        next(iter(again))


@pytest.mark.slow
def test_a_snapshot_of_this_very_step_goes_on_in_any_cut():
    """Nothing was read since then."""
    seen, state = stopped(3, 6)
    again = made(50, 7, 2)[1]
    again.load_state_dict(state)
    rest = [id for batch in again for id in batch.tolist()]
    assert seen + rest == list(ResumableDistributedSampler(range(50), 1, 0, seed=4))


def committed_passes(sampler, loader, passes):
    """The ids of so many passes, each batch committed by hand."""
    for _ in range(passes):
        ids = []
        for batch in loader:
            ids += batch.tolist()
            sampler.commit(len(batch))
        yield ids


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_each_pass_that_is_committed_is_an_epoch(workers):
    """Without set_epoch, and with workers that persist: the next pass has the next epoch's order."""
    sampler = ResumableDistributedSampler(range(50), 1, 0, seed=4)
    loader = StatefulDataLoader(
        list(range(50)), 8, sampler=sampler, num_workers=workers, persistent_workers=workers > 0
    )
    whole = ResumableDistributedSampler(range(50), 1, 0, seed=4)
    for epoch, ids in enumerate(committed_passes(sampler, loader, 3)):
        whole.set_epoch(epoch)
        assert ids == list(whole)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (2, 1)])
def test_a_committed_record_goes_on_with_other_workers(before, after):
    """Saved in mid-epoch by any number of workers, which had read ahead; the rest of it, and then the next epoch whole."""
    sampler, loader = made(50, 8, before)
    seen = []
    for batch in itertools.islice(loader, 3):
        seen += batch.tolist()
        sampler.commit(len(batch))
    sampler, loader = made(50, 8, after, record=sampler.state_dict())
    rest, following = committed_passes(sampler, loader, 2)
    whole = ResumableDistributedSampler(range(50), 1, 0, seed=4)
    assert seen + rest == list(whole)
    whole.set_epoch(1)
    assert following == list(whole)


@pytest.mark.parametrize("batch", [4, 7])
def test_snapshots_of_some_steps_only_without_workers_are_exact(batch):
    """torchdata then asks at the moment of ``state_dict``, on whatever step that is; another batch size goes on, too."""
    seen = []
    loader = made(50, 4, 0)[1]
    loader.snapshot_every_n_steps = 3
    for number, ids in enumerate(loader, 1):
        seen += ids.tolist()
        if number == 5:
            state = loader.state_dict()
            break
    again = made(50, batch, 0)[1]
    again.load_state_dict(state)
    whole = list(ResumableDistributedSampler(range(50), 1, 0, seed=4))
    assert seen + [id for ids in again for id in ids.tolist()] == whole


def test_a_loop_that_restarted_at_0_is_told_so_when_the_loader_loads():
    """It was set to epoch 0 before the record of epoch 1 was read, and would come to epoch 1 twice."""
    sampler, loader = made(20, 4, 0)
    sampler.set_epoch(1)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    sampler, loader = made(20, 4, 0)
    loader.load_state_dict(state)
    sampler.set_epoch(0)
    with pytest.raises(
        errors.EpochError, match=r"set_epoch\(0\), but epochs \[0, 1\) are finished"
    ):
        next(iter(loader))
