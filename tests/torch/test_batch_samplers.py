"""Any batch sampler over the ids of our sampler: each id once, however batches are made, and however often a run is resumed."""

import copy
import json
import os
import pickle
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given
from hypothesis import strategies as st
from loops import HOW, reading
from processes import run_ranks
from regrouping import ALL, Buckets, InOrder, Sorted
from torch.utils.data import BatchSampler

from globidx import (
    CheckpointManager,
    DataLoader,
    ResumableDistributedSampler,
    errors,
    merge_states,
    read_record,
)
from globidx.core.progress import limits
from globidx.disk.records.folder import list_records
from globidx.orders import Sequential, Shuffle, Weighted

TAILS = ("pad", "drop", "exact")


def made(
    kind, n=60, batch=4, *, rank=0, world=1, workers=0, record=None, drop_last=False, **arguments
):
    """(sampler, loader) of a batch sampler of a kind."""
    sampler = ResumableDistributedSampler(range(n), world, rank, **{"tail": "exact"} | arguments)
    if record is not None:
        sampler.load_state_dict(json.loads(json.dumps(record)))
    batches = kind(sampler, batch, drop_last)
    return sampler, DataLoader(range(n), batch_sampler=batches, **reading(workers))


def run(sampler, loader, steps):
    """(ids that a loop of so many steps was given, state in its last step); all of the epoch with None."""
    had, state = [], sampler.state_dict()
    if steps == 0:
        return had, state
    for step, batch in enumerate(loader, 1):
        had += batch.tolist()
        if step == steps:
            return had, sampler.state_dict()
    return had, sampler.state_dict()


@pytest.mark.filterwarnings("ignore:batches are made by a batch sampler")
@given(
    n=st.integers(1, 90),
    legs=st.lists(
        st.tuples(
            st.sampled_from(ALL),
            st.integers(1, 6),
            st.lists(st.integers(0, 6), min_size=4, max_size=4),
        ),
        min_size=1,
        max_size=4,
    ),
    last=st.tuples(st.sampled_from(ALL), st.integers(1, 4)),
    order=st.sampled_from([Shuffle(), Sequential()]),
    seed=st.integers(0, 99),
    tail=st.sampled_from(TAILS),
)
def test_each_id_is_committed_once_whatever_batches_are_made_of(n, legs, last, order, seed, tail):
    """Legs on any ranks, each rank stopped after steps of its own, with another batch sampler each: the rest is what nobody had."""
    left, record = set(range(n)), None
    for kind, batch, steps in legs:
        world = 1 + sum(steps) % 4
        had, states = [], []
        for rank in range(world):
            sampler, loader = made(
                kind,
                n,
                batch,
                rank=rank,
                world=world,
                record=record,
                order=order,
                seed=seed,
                tail=tail,
            )
            ids, state = run(sampler, loader, steps[rank])
            had.append(ids)
            states.append(state)
        try:
            record = merge_states(states)
        except errors.RecordMismatchError:
            # a rank of few samples has ended the epoch and trained on; ranks that do so are out of step
            assert any(state["epoch"] for state in states)
            return
        gone = {id for ids in had for id in ids}
        assert gone <= left
        # nothing is given twice but the padding at the end of a stream
        assert sum(map(len, had)) - len(gone) <= (world - 1 if tail == "pad" else 0)
        if record["epoch"]:
            assert gone == left or tail == "drop"
            return
        left -= gone
        # padding is no progress: an id that was had as padding alone is still to be had
        world, again = 5, Counter()
        for rank in range(world):
            sampler, _ = made(
                kind, n, rank=rank, world=world, record=record, order=order, seed=seed
            )
            again.update(list(sampler))
        assert left <= set(again)
        assert max(again.values(), default=1) == 1
        assert len(set(again) - left) <= (3 if tail == "pad" else 0)
        assert record["remaining"] == len(again)
        left = set(again)
    kind, batch = last
    sampler, loader = made(kind, n, batch, record=record, order=order, seed=seed)
    ids, state = run(sampler, loader, None)
    assert sorted(ids) == sorted(left)
    assert (state["epoch"], state["version"]) == (1, 1)


@pytest.mark.parametrize("workers", HOW)
@pytest.mark.parametrize("kind", ALL)
def test_what_counts_is_what_the_loop_has_had(kind, workers):
    """Workers draw far ahead; a state in the loop has its batch, and a second rank's run of it has all the others."""
    sampler, loader = made(kind, workers=workers, shuffle=True, seed=3)
    had = []
    for step, batch in enumerate(loader):
        had += batch.tolist()
        if step % 4 == 1:
            rest, _ = made(kind, record=sampler.state_dict(), seed=3)
            assert sorted([*had, *rest]) == list(range(60))
    assert sorted(had) == list(range(60))
    assert (sampler.epoch, sampler.remaining) == (1, 60)


def test_a_batch_that_was_left_is_given_again():
    """After a break the batch is among what comes, unless it is committed by hand; what came before it is not."""
    for by_hand in (False, True):
        sampler, loader = made(Sorted, shuffle=False)
        before, held = [batch.tolist() for _, batch in zip(range(2), loader, strict=False)]
        if by_hand:
            sampler.commit(len(held))
        had = before + (held if by_hand else [])
        for batch in loader:
            had += batch.tolist()
            # the next pass has holes of the one before
            rest, _ = made(Sorted, shuffle=False, record=sampler.state_dict())
            assert sorted([*had, *(rest if rest.epoch == 0 else ())]) == list(range(60))
        assert len(sampler) == 60


def test_a_plain_loader_goes_on_with_what_a_regrouping_one_has_left():
    """Their passes share one segment: the holes come first, and commits by hand count those."""
    sampler, loader = made(Sorted, shuffle=False)
    had = next(iter(loader)).tolist()
    left = sorted(set(range(60)) - set(had))
    sampler.commit(4)
    assert list(sampler) == left
    stream = iter(DataLoader(range(60), 5, sampler=sampler))
    assert next(stream).tolist() == left[:5]
    assert sampler.remaining == 51
    del stream
    sampler.commit(5)
    assert list(sampler) == left[5:]
    assert (
        next(iter(torch.utils.data.DataLoader(range(60), 7, sampler=sampler))).tolist()
        == left[5:12]
    )
    sampler.commit(7)
    assert sampler.state_dict()["remaining"] == 44
    drawn = iter(sampler)
    assert [next(drawn) for _ in range(3)] == left[12:15]
    # as torchdata's loader asks for it
    assert drawn.state_dict()["remaining"] == 41
    resumed, _ = made(Sorted, shuffle=False, record=drawn.state_dict())
    assert list(resumed) == left[15:]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_has_what_the_loop_holds_committed(copied):
    """Whichever ids those were."""
    sampler, loader = made(Buckets)
    stream = iter(loader)
    had = next(stream).tolist() + next(stream).tolist()
    assert sorted([*had, *copied(sampler)]) == list(range(60))


def test_lengths_count_ids_not_positions():
    """len, remaining and start are sums, whatever the ids were, before and after a resume."""
    sampler, loader = made(Sorted, n=40)
    for number, _ in enumerate(loader, 1):
        assert (len(sampler), sampler.remaining, loader.start) == (40, 40 - 4 * number, 0)
        if number == 3:
            break
    sampler.commit(4)
    resumed, again = made(Sorted, n=40, record=sampler.state_dict())
    assert (len(resumed), resumed.remaining, again.start, len(again)) == (40, 28, 3, 10)
    assert sum(1 for _ in again) == 7


def test_steps_of_batches_that_may_differ_in_size_are_not_counted_ahead():
    """Only how torch's batch sampler cuts is known."""
    _, loader = made(Buckets)
    with pytest.raises(TypeError, match=r"steps_left needs .*BatchSampler"):
        loader.steps_left(2)


class Last(BatchSampler):
    """One id after the other, the last first."""

    def __iter__(self):
        for id in reversed(list(self.sampler)):
            yield [id]


def test_padding_that_comes_early_hides_no_sample():
    """Whoever drops padding from the last batch would drop a real sample; so all are taken for real."""
    sampler, loader = made(Last, n=5, rank=1, world=2, tail="pad", shuffle=False)
    had = [(batch.tolist(), sampler._ledger.held_by_rank) for batch in loader]
    assert had == [([0], [1, 1]), ([3], [1, 1]), ([1], [1, 1])]


class Counted(Buckets):
    """Knows how many batches it makes."""

    def __len__(self):
        return 17


def test_a_batch_sampler_that_says_its_length_is_believed():
    """Nobody else could know it."""
    _, loader = made(Counted)
    assert len(loader) == 17
    _, loader = made(Buckets)
    assert len(loader) == 15


def test_ids_that_a_batch_sampler_drops_end_with_the_epoch():
    """It has come to its end, so the pass is over; a record before that has them to do."""
    sampler, loader = made(Buckets, n=61, drop_last=True)
    had = []
    for batch in loader:
        had += batch.tolist()
        state = sampler.state_dict()
    assert (sampler.epoch, len(had) < 61) == (1, True)
    rest, _ = made(Buckets, n=61, record=state)
    assert sorted([*had, *rest]) == list(range(61))


def test_a_weighted_order_draws_an_id_as_often_as_it_says():
    """The same id at several positions is several deliveries, each recorded."""
    order = Weighted([1, 5, 1, 9] * 5, num_samples=60)
    sampler, loader = made(Sorted, n=20, order=order)
    whole = Counter(sampler)
    stream = iter(loader)
    had = Counter(id for _ in range(6) for id in next(stream).tolist())
    resumed, _ = made(Sorted, n=20, order=order, record=sampler.state_dict())
    assert had + Counter(resumed) == whole
    assert max(whole.values()) > 1


def test_skips_and_quarantine_mean_the_ids_of_the_batch():
    """A skipped id that was taken stays taken; the others are left out from the next load on."""
    sampler, loader = made(Sorted, shuffle=False)
    stream = iter(loader)
    had = next(stream).tolist()
    bad = [had[0], *sorted(set(range(60)) - set(had))[:3]]
    sampler.skip(bad)
    resumed, again = made(Sorted, shuffle=False, record=sampler.state_dict())
    rest = [id for batch in again for id in batch.tolist()]
    assert sorted(rest) == sorted(set(range(60)) - set(had) - set(bad))
    assert resumed.epoch == 1


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_regrouped_state_goes_through_dcp(tmp_path):
    """Where a fresh state has a number of ids and no segments, a list is loaded all the same."""
    sampler, loader = made(Sorted, seed=3)
    stream = iter(loader)
    had = next(stream).tolist() + next(stream).tolist()
    for number in range(2):
        dcp.save({"sampler": sampler}, checkpoint_id=tmp_path / str(number))
        resumed, _ = made(Sorted, seed=3)
        dcp.load({"sampler": resumed}, checkpoint_id=tmp_path / str(number))
        assert sorted([*had, *resumed]) == list(range(60))
        sampler = resumed


# what is refused


class Tuples(BatchSampler):
    """As CREDIT's: each element is a time and the step of the rollout."""

    def __iter__(self):
        for batch in super().__iter__():
            yield [(np.datetime64("2020-01-01") + id, 0) for id in batch]


class Modes(BatchSampler):
    """Flags beside ids."""

    def __iter__(self):
        for batch in super().__iter__():
            yield [(id, True) for id in batch]


class Flags(BatchSampler):
    """Flags in place of ids."""

    def __iter__(self):
        yield [True, False]


class Arrays(BatchSampler):
    """Batches as arrays and tensors, from the end of windows: legal, says torch."""

    def __iter__(self):
        for number, batch in enumerate(super().__iter__()):
            yield np.array(batch[::-1]) if number % 2 else torch.tensor(batch[::-1])


class Twice(BatchSampler):
    """Every batch twice, as steps of a rollout."""

    def __iter__(self):
        for batch in super().__iter__():
            yield batch
            yield batch


class Others(BatchSampler):
    """Ids that its sampler does not have."""

    def __iter__(self):
        yield [61, 62]


class Everything(BatchSampler):
    """All ids of the epoch, from the last on."""

    def __iter__(self):
        ids = list(self.sampler)
        while ids:
            yield [ids.pop() for _ in range(min(4, len(ids)))]


@pytest.mark.parametrize("kind", [Tuples, Modes, Flags])
def test_batches_of_anything_but_ids_are_refused(kind):
    """One sentence names the batch and what to use, and nothing counts as delivered."""
    sampler, loader = made(kind)
    with pytest.raises(
        errors.CommitError, match=rf"{kind.__name__} yields .*list of sample ids.*batch_rng"
    ):
        next(iter(loader))
    assert sampler.remaining == 60


def test_batches_are_arrays_and_tensors():
    """Whatever is a row of whole numbers."""
    sampler, loader = made(Arrays, shuffle=False)
    had = [batch.tolist() for batch in loader]
    assert had[:2] == [[3, 2, 1, 0], [7, 6, 5, 4]]
    assert sampler.epoch == 1


@pytest.mark.parametrize("workers", HOW)
def test_an_id_more_often_than_the_sampler_has_it_is_refused(workers):
    """With replacement, over several steps, or from another rank: it could not be recorded."""
    _, loader = made(Twice, workers=workers)
    with pytest.raises(errors.CommitError, match=r"Twice yields the id \d+ once more .*windows"):
        list(loader)
    _, loader = made(Others)
    with pytest.raises(errors.CommitError, match="Others yields the id 61 once more"):
        next(iter(loader))


def test_a_window_that_no_record_can_hold_is_refused_at_once():
    """Not hours later, by the first save; up to the limit a whole epoch may be sorted."""
    most = limits.MAX_PASSED_OVER
    sampler, loader = made(Everything, n=most + 1, shuffle=False)
    stream = iter(loader)
    assert next(stream).tolist() == [*range(most, most - 4, -1)]
    assert sampler.state_dict()["open"]["count"] == [[most - 3, most + 1]]
    _, loader = made(Everything, n=most + 2, shuffle=False)
    with pytest.raises(errors.CommitError, match=r"more than 65535 others .*within windows"):
        next(iter(loader))


@pytest.mark.parametrize("kind", [Buckets, InOrder])
def test_a_state_of_one_rank_of_several_says_so(kind):
    """It warns once, and is refused where it is loaded alone; a merge of all takes it."""
    sampler, loader = made(kind, world=2)
    stream = iter(loader)
    next(stream)
    with pytest.warns(
        UserWarning, match="own, so the state of this rank says nothing of what the other 1"
    ):
        state = sampler.state_dict()
    assert sampler.state_dict() == state
    fresh, _ = made(kind, world=2)
    with pytest.raises(errors.RecordError, match=r"one rank of 2.*CheckpointManager"):
        fresh.load_state_dict(state)
    other, _ = made(kind, rank=1, world=2)
    fresh.load_state_dict(merge_states([state, other.state_dict()]))
    assert fresh.remaining == sampler.remaining + len(next(iter(loader)))


def test_a_save_of_all_ranks_is_not_warned_of():
    """What a manager does gathers the states of all."""
    sampler, loader = made(Buckets, world=2)
    stream = iter(loader)
    next(stream)
    sampler._ledger.settle()
    assert sampler.state_dict()["version"] == 2


# in processes


def train(rank, world_size, folder, workers, killed_at):
    """An epoch of 203 samples, with a record every third step, until a rank is killed; a line before every step."""
    sampler = ResumableDistributedSampler(range(203), tail="exact", seed=3)
    loader = DataLoader(range(203), batch_sampler=Buckets(sampler, 5, False), **reading(workers))
    manager = CheckpointManager(folder, sampler, timeout=20)
    record = manager.restore()
    stream, first = iter(loader), record["step"] if record else 0
    with Path(folder, f"{world_size}-{rank}.txt").open("w", buffering=1) as log:
        # ranks have different numbers of batches, and save at the same steps
        for step in range(first + 1, first + 46):
            batch = next(stream, None)
            log.write(f"{step} {' '.join(map(str, [] if batch is None else batch.tolist()))}\n")
            if killed_at == (rank, step):
                os.kill(os.getpid(), signal.SIGKILL)
            if step % 3 == 0:
                try:
                    manager.save(step)
                except errors.LostRankError:
                    return None
    return sampler.epoch


def had_until(folder, world_size, last):
    """The ids that the logs have up to a step."""
    lines = [
        line.split()
        for rank in range(world_size)
        for line in Path(folder, f"{world_size}-{rank}.txt").read_text().splitlines()
    ]
    return [int(id) for step, *ids in lines if int(step) <= last for id in ids]


@pytest.mark.slow
def test_a_killed_run_goes_on_with_other_ranks(tmp_path):
    """Killed on two ranks in mid-epoch, gone on with on three: each id is in one batch that counts."""
    run_ranks(2, train, tmp_path, 2, (1, 11), lost=(1,))
    record = read_record(list_records(tmp_path)[-1])
    assert record["step"] == 9
    assert any(layer[:1] == ["taken"] for layer in record["states"]["sampler"]["segments"])
    had = had_until(tmp_path, 2, 9)
    assert record["states"]["sampler"]["remaining"] == 203 - len(had)
    assert run_ranks(3, train, tmp_path, 0, None) == [1, 1, 1]
    assert sorted(had + had_until(tmp_path, 3, 99)) == list(range(203))
