"""Training loops have manners of their own: whatever theirs, each pass is a whole one, and what counts is what they had."""

import copy
import itertools
import logging
import pickle
import subprocess
import threading
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import clean_environment, torchrun

from globidx import CheckpointManager, DataLoader, ResumableDistributedSampler, errors, merge_states
from globidx.orders import ChunkShuffle


def made(n=41, batch=4, *, rank=0, world=1, workers=0, **arguments):
    """(sampler, loader) over range(n)."""
    sampler = ResumableDistributedSampler(range(n), world, rank, **{"shuffle": False} | arguments)
    return sampler, DataLoader(range(n), batch_size=batch, sampler=sampler, num_workers=workers)


def done(sampler):
    """(epoch, ids committed in it), as a record would say."""
    state = sampler.state_dict()
    return state["epoch"], state["committed"]


def by_next(loader):
    """``range(len(loader))`` and ``next``, the iterator in a variable."""
    stream = iter(loader)
    return [next(stream) for _ in range(len(loader))]


def by_break(loader):
    """A break at the last batch."""
    batches, stream = [], enumerate(loader)
    for number, batch in stream:
        batches.append(batch)
        if number + 1 == len(loader):
            break
    return batches


LEN_LIMITED = [
    by_next,
    by_break,
    lambda loader: list(itertools.islice(loader, len(loader))),
    lambda loader: [batch for _, batch in zip(range(len(loader)), loader, strict=False)],
    lambda loader: [batch for batch, _ in zip(loader, range(len(loader)), strict=False)],
]


@pytest.mark.parametrize("take", LEN_LIMITED)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("come_back", ["iter", "set_epoch", "same epoch", "settle"])
def test_a_loop_that_takes_len_batches_reads_whole_epochs(take, workers, drop_last, come_back):
    """It never asks for one more; the pass is over all the same, whichever way the loop comes back."""
    sampler = ResumableDistributedSampler(range(41), 1, 0, seed=3)
    loader = DataLoader(
        range(41), batch_size=4, sampler=sampler, num_workers=workers, drop_last=drop_last
    )
    passes = []
    for epoch in range(3):
        if come_back == "set_epoch":
            sampler.set_epoch(epoch)
        elif come_back == "same epoch":
            sampler.set_epoch(0)
        passes.append([id for batch in take(loader) for id in batch.tolist()])
        assert done(sampler)[0] == (1 if come_back == "same epoch" else epoch + 1)
        if come_back == "settle":
            sampler._ledger.settle()
            assert sampler.epoch == epoch + 1
    assert [len(set(ids)) for ids in passes] == [40 if drop_last else 41] * 3
    assert len({tuple(ids) for ids in passes}) == (1 if come_back == "same epoch" else 3)


class Renamed(torch.utils.data.BatchSampler):
    """Cuts as torch's does."""


@pytest.mark.parametrize("take", LEN_LIMITED)
@pytest.mark.parametrize("drop_last", [False, True])
def test_a_batch_sampler_that_cuts_as_torchs_does_is_known_to_be_at_its_end(take, drop_last):
    """Its class has another name only: what a full batch leaves over, it drops too."""
    sampler = ResumableDistributedSampler(range(41), 1, 0, seed=3)
    loader = DataLoader(range(41), batch_sampler=Renamed(sampler, 4, drop_last))
    assert [sum(map(len, take(loader))) for _ in range(3)] == [40 if drop_last else 41] * 3


def test_a_save_after_len_batches_is_of_the_next_epoch(tmp_path):
    """Nothing of it is given again after a resume."""
    sampler, loader = made()
    by_next(loader)
    CheckpointManager(tmp_path, sampler).save(11)
    resumed, loader = made()
    CheckpointManager(tmp_path, resumed).restore()
    assert (resumed.epoch, sum(map(len, loader))) == (1, 41)


@pytest.mark.parametrize("take", LEN_LIMITED)
def test_the_epoch_of_a_loop_that_takes_len_batches_is_the_next(take):
    """``while sampler.epoch < n: sampler.set_epoch(sampler.epoch)`` comes to an end; in a for's body nothing has moved."""
    sampler, loader = made()
    epochs = []
    while sampler.epoch < 3:
        epochs.append(sampler.epoch)
        sampler.set_epoch(sampler.epoch)
        assert sum(map(len, take(loader))) == 41
    assert epochs == [0, 1, 2]
    assert [sampler.epoch for _ in loader] == [3] * 11


# what a loop holds


class Halt(Exception):
    """Raised by a training step."""


def train_bare(loader, stop):
    for number, _ in enumerate(loader):
        if number == stop:
            raise Halt


def train_from_a_variable(loader, stop):
    stream = enumerate(loader)
    for number, _ in stream:
        if number == stop:
            raise Halt


def train_by_next(loader, stop):
    stream = iter(loader)
    for number in range(stop + 1):
        next(stream)
        if number == stop:
            raise Halt


@pytest.mark.parametrize("train", [train_bare, train_from_a_variable, train_by_next])
@pytest.mark.parametrize("stop", [0, 4, 9, 10])
def test_a_batch_that_failed_is_not_counted_in_the_handler(train, stop):
    """Whatever keeps the loop's iterator alive: a variable of the failed frame, or the traceback."""
    sampler, loader = made()
    try:
        train(loader, stop)
    except Halt:
        assert done(sampler) == (0, 4 * stop)
        sampler._ledger.settle()
        assert done(sampler) == (0, 4 * stop)
        assert next(iter(loader)).tolist()[0] == 4 * stop


@pytest.mark.parametrize("train", [train_bare, train_from_a_variable, train_by_next])
@pytest.mark.parametrize("come_back", ["iter", "set_epoch"])
def test_a_last_batch_that_failed_is_given_again_by_a_retry_in_the_handler(train, come_back):
    """Nothing comes behind it, and the error still says that it was not trained on."""
    sampler, loader = made()
    try:
        train(loader, 10)
    except Halt:
        if come_back == "set_epoch":
            sampler.set_epoch(0)
        assert [batch.tolist() for batch in loader] == [[40]]
    assert done(sampler) == (1, 0)


@pytest.mark.parametrize("train", [train_bare, train_from_a_variable])
def test_a_batch_that_failed_is_not_counted_while_its_error_is_kept(train):
    """An error in a variable keeps the frames of its traceback, and so the iterator."""
    sampler, loader = made()
    with pytest.raises(Halt) as kept:
        train(loader, 9)
    sampler._ledger.settle()
    assert done(sampler) == (0, 36)
    assert kept.value.__traceback__ is not None


def test_after_a_break_the_life_of_a_variable_does_not_count():
    """A bare loop and one over a variable that lives on are left alike."""
    for stream_of in (
        iter,
        enumerate,
        lambda loader: itertools.islice(loader, 20),
        lambda loader: zip(range(99), loader, strict=False),
    ):
        sampler, loader = made()
        stream = stream_of(loader)
        for number, _ in enumerate(stream):
            if number == 5:
                break
        assert done(sampler) == (0, 20)
        sampler._ledger.settle()
        assert done(sampler) == (0, 20)


def test_a_loop_that_is_gone_on_with_counts_what_it_had_before():
    """Stretches of one iterator, saves between them: nothing is lost and nothing counted twice."""
    sampler, loader = made()
    stream, had = iter(loader), []
    while True:
        stretch = [id for batch in itertools.islice(stream, 3) for id in batch.tolist()]
        if not stretch:
            break
        had += stretch
        sampler._ledger.settle()
        assert done(sampler)[1] <= len(had) % 41
    assert had == list(range(41))
    assert done(sampler) == (1, 0)


def test_a_loop_in_an_exception_handler_counts():
    """The error that is being handled was there before the batch."""
    sampler, loader = made()
    try:
        raise Halt
    except Halt:
        for number, _ in enumerate(loader):
            assert done(sampler) == (0, 4 * number + 4)
            if number == 4:
                break
    assert done(sampler) == (0, 16)


def test_a_save_from_another_thread_counts_what_the_loop_holds():
    """The loop's frame is on another thread's stack."""
    sampler, loader = made()
    for number, _ in enumerate(loader):
        saver = threading.Thread(target=sampler._ledger.settle)
        saver.start()
        saver.join()
        assert sampler.state_dict()["open"]["count"] == 4 * number + 4
        if number == 4:
            break


def test_an_error_that_another_thread_handles_says_nothing_of_the_loop():
    """A save that is tried again in its thread's exception handler counts what the loop holds."""
    sampler, loader = made()

    def save_again():
        try:
            raise Halt
        except Halt:
            sampler._ledger.settle()

    for number, _ in enumerate(loader):
        saver = threading.Thread(target=save_again)
        saver.start()
        saver.join()
        assert sampler.state_dict()["open"]["count"] == 4 * number + 4
        if number == 4:
            break
    sampler.load_state_dict(sampler.state_dict())
    assert next(iter(loader)).tolist()[0] == 20


def test_a_batch_that_nobody_settled_is_told_of_once(caplog):
    """At the next save, with how many samples it had; and it is given again."""
    sampler, loader = made()
    for number, _ in enumerate(loader):
        if number == 2:
            break
    with caplog.at_level(logging.INFO, logger="globidx"):
        sampler._ledger.settle()
        sampler._ledger.settle()
    assert [record.args for record in caplog.records] == [(4,)]
    assert next(iter(loader)).tolist() == [8, 9, 10, 11]


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


# StopIteration


class Slips:
    """Sample 17 lets a StopIteration out."""

    def __len__(self):
        return 40

    def __getitem__(self, id):
        return next(iter(())) if id == 17 else id


def slipping_collate(samples):
    return next(iter(())) if 17 in samples else samples


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("where", ["dataset", "collate"])
def test_stop_iteration_of_a_dataset_is_an_error(workers, where):
    """It would end the pass without a word, and the record would call the epoch done."""
    dataset = Slips() if where == "dataset" else range(40)
    sampler = ResumableDistributedSampler(dataset, 1, 0, shuffle=False)
    collate = {"collate_fn": slipping_collate} if where == "collate" else {}
    loader = DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=workers, **collate)
    with pytest.raises(errors.EarlyStopError, match="raised StopIteration"):
        list(loader)
    assert done(sampler) == (0, 16)


# queries


QUERIES = {
    "state_dict": lambda s, loader: s.state_dict(),
    "remaining": lambda s, loader: s.remaining,
    "len": lambda s, loader: len(s),
    "len of the loader": lambda s, loader: len(loader),
    "start": lambda s, loader: loader.start,
    "steps": lambda s, loader: (loader.steps_per_epoch, loader.steps_left(5)),
    "repr": lambda s, loader: (repr(s), repr(loader)),
    "equality": lambda s, loader: s == loader.sampler,
    "properties": lambda s, loader: [
        getattr(s, name) for name, value in vars(type(s)).items() if isinstance(value, property)
    ],
    "pickle": lambda s, loader: list(pickle.loads(pickle.dumps(s))),
    "deepcopy": lambda s, loader: copy.deepcopy(s).state_dict(),
    "throw-away iterator": lambda s, loader: list(itertools.islice(s, 3)),
}


@st.composite
def histories(draw):
    """What happens to a run, and between any two events some queries."""
    events = st.sampled_from(
        ["next", "next", "next", "break", "set_epoch", "settle", "skip", "reload"]
    )
    queries = st.lists(st.sampled_from(list(QUERIES)), max_size=3)
    return draw(st.lists(st.tuples(queries, events), max_size=12))


def play(history, *, asked, order, n, world):
    """All ids delivered, and all states a save would see, of a run with or without the queries."""
    made_order = {"order": ChunkShuffle(window=2, chunk=3)} if order == "chunks" else {}
    sampler, loader = made(n, 3, world=world, shuffle=order != "sequential", **made_order)
    stream, seen, record = None, [], None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "epoch . was read to its end")  # by a throw-away iterator
        for queries, event in history:
            for query in queries if asked else ():
                QUERIES[query](sampler, loader)
            if event == "next":
                stream = stream or iter(loader)
                batch = next(stream, None)
                stream = stream if batch is not None else None
                seen.append(None if batch is None else batch.tolist())
            elif event == "break":
                stream = None
            elif event == "set_epoch":
                sampler.set_epoch(sampler.epoch + 1)
                stream = None
            elif event == "skip":
                sampler.skip(n // 2)
            elif event == "settle":
                sampler._ledger.settle()
                record = sampler.state_dict()
                seen.append(record)
            elif record is not None:
                sampler.load_state_dict(record)
                stream = None
        sampler._ledger.settle()
        return [*seen, sampler.state_dict(), list(sampler)]


@given(
    history=histories(),
    order=st.sampled_from(["shuffle", "sequential", "chunks"]),
    n=st.integers(1, 30),
    world=st.integers(1, 3),
)
def test_queries_change_nothing(history, order, n, world):
    """Every property, len, repr, ==, copies and state_dict, in any sequence at any moment: no later id or state differs."""
    arguments = {"order": order, "n": n, "world": world}
    assert play(history, asked=True, **arguments) == play(history, asked=False, **arguments)


RANK_0_LOOKS = """
import datetime, torch, torch.distributed as dist, globidx
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
rank = dist.get_rank()
sampler = globidx.ResumableDistributedSampler(range(48), seed=1)
loader = globidx.DataLoader(range(48), batch_size=4, sampler=sampler)
steps = 0
for number, batch in enumerate(loader):
    steps += 1
    if number == 2:
        if rank == 0:
            sampler.state_dict(), sampler.remaining
        break
for batch in loader:
    steps += 1
both = torch.zeros(2, dtype=torch.int64)
both[rank] = steps
dist.all_reduce(both)
assert both[0] == both[1], both
dist.monitored_barrier()  # as the examples end
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_a_look_of_rank_0_and_a_break_leave_the_ranks_in_step(tmp_path):
    """Everybody saves on rank 0 alone; the collectives of later steps must meet."""
    script = tmp_path / "look.py"
    script.write_text(RANK_0_LOOKS)
    subprocess.run(torchrun(2, script), env=clean_environment(), check=True, timeout=120)


# sizes


@given(
    n=st.integers(1, 80),
    batch=st.integers(1, 9),
    world=st.integers(1, 4),
    rank=st.integers(0, 3),
    tail=st.sampled_from(["pad", "drop", "exact"]),
    drop_last=st.booleans(),
    before=st.tuples(st.integers(1, 4), st.integers(0, 20)),
    epochs=st.integers(0, 4),
)
def test_lengths_are_what_comes(n, batch, world, rank, tail, drop_last, before, epochs):
    """len is what was done and what this pass gives; steps_left is all that comes, for any tail, after any resume."""
    first = ResumableDistributedSampler(range(n), before[0], 0, tail=tail)
    first.commit(min(before[1], n // before[0]))
    sampler = ResumableDistributedSampler(range(n), world, rank % world, tail=tail)
    sampler.load_state_dict(first.state_dict())
    loader = DataLoader(range(n), batch_size=batch, sampler=sampler, drop_last=drop_last)
    left, came = loader.steps_left(epochs), 0
    for epoch in range(sampler.epoch, epochs):
        sampler.set_epoch(epoch)
        length, start, whole = len(loader), loader.start, loader.steps_per_epoch
        numbers = []
        for number, _ in enumerate(loader, start + 1):
            numbers.append(number)
            assert (len(loader), loader.start) == (length, start)
            assert loader.steps_left(epochs) == left - came - len(numbers)
        assert numbers == list(range(start + 1, length + 1))
        came += len(numbers)
        if start == 0 and epoch > first.epoch:
            assert len(numbers) == whole
    assert came == left


def test_skips_count_in_the_steps_of_later_epochs():
    """What an epoch leaves out is no step of it."""
    sampler, loader = made(41, 4)
    sampler.skip(range(10, 20))
    assert (len(loader), loader.steps_per_epoch, loader.steps_left(3)) == (11, 8, 11 + 8 + 8)


def test_steps_need_batches_of_one_size():
    """A sampler that is not ours, or batches of any size, cannot be counted ahead."""
    with pytest.raises(TypeError, match="steps_per_epoch needs a ResumableDistributedSampler"):
        _ = DataLoader(range(5)).steps_per_epoch


def test_a_pass_over_a_sampler_that_does_not_resume_starts_at_its_start():
    """A bar over a loader for validation counts from 0."""
    assert DataLoader(range(5)).start == 0


# loaders that do not report


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


@pytest.mark.parametrize("tail", ["pad", "drop", "exact"])
def test_a_rank_that_a_plain_loader_deals_nothing_goes_on_with_the_others(tail):
    """41 of 43 done, resumed on 4 ranks: the pass after is a whole epoch, on every rank."""
    first = ResumableDistributedSampler(range(43), 1, 0, tail=tail)
    first.commit(41)
    ranks = [ResumableDistributedSampler(range(43), 4, rank, tail=tail) for rank in range(4)]
    for sampler in ranks:
        sampler.load_state_dict(first.state_dict())
    passes = []
    for _ in range(3):
        taken = []
        for sampler in ranks:
            for batch in torch.utils.data.DataLoader(range(43), batch_size=4, sampler=sampler):
                taken += batch.tolist()
                sampler.commit(len(batch))
        passes.append(len(set(taken)))
        record = merge_states([sampler.state_dict() for sampler in ranks])
    whole = 40 if tail == "drop" else 43
    assert passes == [0 if tail == "drop" else 2, whole, whole]
    assert (record["epoch"], record["committed"]) == (3, 0)


# merges


def test_a_rank_that_finished_and_is_dealt_nothing_next_is_not_forgotten():
    """It trained on id 1, and nobody is given that again."""
    ranks = [
        ResumableDistributedSampler(range(3), 3, rank, shuffle=False, tail="exact")
        for rank in range(3)
    ]
    for sampler in ranks:
        sampler.skip([0, 2])
    ranks[1].commit(1)
    record = merge_states({rank: sampler.state_dict() for rank, sampler in enumerate(ranks)})
    assert record["committed"] == 1
    alone = ResumableDistributedSampler(range(3), 1, 0, shuffle=False, tail="exact")
    alone.load_state_dict(record)
    assert (alone.state_dict()["epoch"], list(alone)) == (1, [])


@pytest.mark.parametrize(
    ("states", "told"),
    [
        (lambda a, b: {0: a}, "world size 2"),
        (lambda a, b: {0: a, 2: b}, r"ranks \[0, 2\]; pass those of all ranks \[0, 2\)"),
        (lambda a, b: a, "got one state"),
        (
            lambda a, b: [b, a],
            "state given for rank 1 has 2 ids committed, but this rank was dealt 1",
        ),
    ],
)
def test_states_that_can_be_seen_to_be_wrong_are_refused(states, told):
    """A missing rank, a rank that is none, one state for all, and another rank's state."""
    ranks = [
        ResumableDistributedSampler(range(3), 2, rank, shuffle=False, tail="exact")
        for rank in range(2)
    ]
    for sampler, count in zip(ranks, (2, 1), strict=True):
        list(sampler)
        sampler._ledger.tracker.commit(count, sampler.rank, 2)
    one, other = (dict(sampler._ledger.tracker.state.to_dict()) for sampler in ranks)
    with pytest.raises(errors.RecordError, match=told):
        merge_states(states(one, other))


# loops and the epoch that is set


def test_a_loop_that_was_handed_nothing_reads_the_epoch_that_is_set_next():
    """Trainers make the iterator first, and call set_epoch then."""
    sampler, loader = made(20, 4, shuffle=True)
    list(loader)
    stream = iter(loader)
    sampler.set_epoch(5)
    again = ResumableDistributedSampler(range(20), 1, 0)
    again.set_epoch(5)
    assert [id for batch in stream for id in batch.tolist()] == list(again)


def test_a_loader_over_another_dataset_than_its_samplers_is_refused():
    """Ids of one would be looked up in the other; both lengths are named."""
    sampler = ResumableDistributedSampler(range(20), 1, 0)
    with pytest.raises(ValueError, match="dataset has 7 samples, its sampler's has 20"):
        DataLoader(range(7), sampler=sampler)


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
