"""The sampler's rules, each earned by a failure seen elsewhere."""

import copy
import itertools
import json
import multiprocessing
import pickle
import subprocess
import sys
import warnings

import pytest
from processes import clean_environment

from globidx import ResumableDistributedSampler, errors, merge_states
from globidx.orders import Sequential, Shuffle, TorchShuffle


def alone(n=10, **arguments):
    """A sampler over range(n) that is the only rank, in the ids' own order unless told otherwise."""
    return ResumableDistributedSampler(range(n), 1, 0, **{"shuffle": False} | arguments)


# commits


def test_more_than_there_is_cannot_be_committed():
    """Counting a batch twice is an error at the latest when it runs past the end; nothing changes by it."""
    sampler = alone(10)
    sampler.commit(8)
    with pytest.raises(errors.CommitError, match="only 2 ids left"):
        sampler.commit(3)
    assert sampler.state_dict()["committed"] == 8
    for bad in (-1, 1.0, True, None):
        with pytest.raises((TypeError, ValueError)):
            sampler.commit(bad)


def test_a_pass_finished_by_commits_moves_on_without_set_epoch():
    """Its record says (next epoch, nothing done), and the next pass is the next epoch's."""
    sampler = alone(10, shuffle=True, seed=4)
    passes = []
    for epoch in range(3):
        assert sampler.epoch == epoch
        passes.append(list(sampler))
        sampler.commit(10)
    assert len({tuple(ids) for ids in passes}) == 3
    assert all(sorted(ids) == list(range(10)) for ids in passes)
    state = sampler.state_dict()
    assert (state["epoch"], state["committed"], state["segments"]) == (3, 0, [])


def test_a_sampler_only_drawn_from_behaves_as_torchs_with_one_warning():
    """The same order again until set_epoch; it says so once."""
    sampler = alone(10, shuffle=True)
    first = list(sampler)
    with pytest.warns(UserWarning, match="nothing of it was committed"):
        assert list(sampler) == first
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(sampler) == first
        sampler.set_epoch(1)
        assert list(sampler) != first


def test_padding_is_never_progress():
    """Rank 3 of 4 over 9 ids is padded; a merge counts 9, whatever the padded ranks committed."""
    ranks = [ResumableDistributedSampler(range(9), 4, rank, shuffle=False) for rank in range(4)]
    for rank in ranks[1:]:
        rank.commit(3)
    ranks[0].commit(2)
    record = merge_states([rank.state_dict() for rank in ranks])
    assert (record["epoch"], record["committed"], record["remaining"]) == (0, 8, 1)
    last = alone(9)
    last.load_state_dict(record)
    assert list(last) == [8]


# epochs


def test_set_epoch_of_the_running_epoch_keeps_progress():
    """Every training loop calls it at the top."""
    sampler = alone(10)
    sampler.commit(4)
    resumed = alone(10)
    resumed.load_state_dict(sampler.state_dict())
    resumed.set_epoch(0)
    assert list(resumed) == [4, 5, 6, 7, 8, 9]


def test_set_epoch_of_another_epoch_starts_it_afresh():
    """As under torch."""
    sampler = alone(10)
    sampler.commit(4)
    sampler.set_epoch(7)
    assert (sampler.epoch, sampler.state_dict()["committed"]) == (7, 0)
    assert list(sampler) == list(range(10))


def restored_in_epoch_3():
    """A sampler restored from a record of epoch 3, 4 of 10 done."""
    sampler = alone(10)
    sampler.set_epoch(3)
    sampler.commit(4)
    resumed = alone(10)
    resumed.load_state_dict(sampler.state_dict())
    return resumed


def test_an_epoch_that_the_record_calls_finished_is_refused():
    """A trainer whose own counter restarted at 0 is told so; an empty pass would train on nothing for the rest of the run."""
    resumed = restored_in_epoch_3()
    record = resumed.state_dict()
    for epoch in range(3):
        with pytest.raises(
            errors.EpochError, match=rf"set_epoch\({epoch}\).*\[0, 3\) are finished.*in epoch 3"
        ) as caught:
            resumed.set_epoch(epoch)
        assert isinstance(caught.value, ValueError)
        assert (resumed.epoch, resumed.state_dict()) == (3, record)
    resumed.set_epoch(3)
    assert list(resumed) == [4, 5, 6, 7, 8, 9]
    resumed.set_epoch(5)
    resumed.set_epoch(3)
    assert list(resumed) == list(range(10))


def test_reset_forgets():
    """After reset the epoch starts over, also one the record called finished."""
    resumed = restored_in_epoch_3()
    resumed.reset()
    assert (resumed.epoch, list(resumed)) == (3, list(range(10)))
    resumed.set_epoch(1)
    assert list(resumed) == list(range(10))


def test_finish_epoch_ends_it_whatever_was_left():
    """The next epoch starts with nothing done, once."""
    sampler = alone(10)
    sampler.commit(4)
    sampler.finish_epoch()
    state = sampler.state_dict()
    assert (sampler.epoch, state["epoch"], state["committed"]) == (1, 1, 0)


def test_len_counts_what_is_done_and_what_is_to_do():
    """Trainers count from the old step: 6 of 20 done on each of 2 ranks, then 8 left over 4 ranks."""
    two = ResumableDistributedSampler(range(20), 2, 0)
    two.commit(6)
    assert len(two) == 10
    four = ResumableDistributedSampler(range(20), 4, 1)
    four.load_state_dict(two.state_dict())
    assert (len(four), len(list(four))) == (6 + 2, 2)
    assert (four.num_samples, four.total_size, four.num_valid, four.remaining) == (8, 32, 8, 8)


# ranks


@pytest.mark.parametrize("rank", [-1, 2, 3, 2**40])
def test_rank_must_be_in_the_world(rank):
    """Outside [0, world size) is refused at once where both are given."""
    with pytest.raises(ValueError, match=r"rank must be in \[0, 2\)"):
        ResumableDistributedSampler(range(10), 2, rank)


@pytest.mark.parametrize("argument", ["num_replicas", "rank"])
@pytest.mark.parametrize("bad", [1.0, "1", True])
def test_ranks_are_integers(argument, bad):
    """Floats, strings and bools are none."""
    with pytest.raises(TypeError, match="must be an integer"):
        ResumableDistributedSampler(range(10), **{"num_replicas": 2, "rank": 0} | {argument: bad})


@pytest.mark.parametrize("bad", [-1, 2**63, 1.5, False, None, "0"])
def test_seeds_are_integers_of_63_bits(bad):
    """Negative, huge, float and bool seeds are refused, never truncated."""
    with pytest.raises((TypeError, ValueError), match="seed must be"):
        alone(seed=bad)


@pytest.mark.parametrize("bad", [-1, 2**63, 1.5, False, None])
def test_epochs_are_integers(bad):
    """set_epoch takes a non-negative integer."""
    with pytest.raises((TypeError, ValueError), match="epoch must be"):
        alone().set_epoch(bad)


def test_rank_and_world_size_are_asked_late(monkeypatch):
    """Before init_process_group torchrun's environment tells, without it there is one process; explicit numbers win."""
    monkeypatch.delenv("RANK", raising=False)
    sampler = ResumableDistributedSampler(range(10), shuffle=False)
    assert (sampler.rank, sampler.num_replicas) == (0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert (sampler.rank, sampler.num_replicas, list(sampler)) == (2, 3, [2, 5, 8, 1])
    assert ResumableDistributedSampler(range(10), num_replicas=4).num_replicas == 4
    assert ResumableDistributedSampler(range(10), 4, 1, shuffle=False).rank == 1


def test_a_world_that_changes_under_commits_is_refused(monkeypatch):
    """Ids dealt to 1 rank and to 3 are not the same ids."""
    monkeypatch.delenv("RANK", raising=False)
    sampler = ResumableDistributedSampler(range(10))
    sampler.commit(2)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(errors.CommitError, match="world size 1, but it is 3"):
        sampler.commit(2)


def _draw(sampler, queue):
    queue.put((list(sampler), sampler.rank, sampler.num_replicas, sampler.state_dict()))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_draw_the_same_ids(method):
    """Forked and spawned, from where the sampler was."""
    sampler = ResumableDistributedSampler(range(1000), 4, 1, seed=9)
    sampler.commit(17)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_draw, args=(sampler, queue))
    child.start()
    assert queue.get(timeout=60) == (list(sampler), 1, 4, sampler.state_dict())
    child.join()


def test_copies_are_independent_and_keep_the_position():
    """Pickled or deep-copied, also while an iterator is open."""
    sampler = ResumableDistributedSampler(range(100), 2, 1)
    stream = iter(sampler)
    list(itertools.islice(stream, 5))
    sampler.commit(5)
    for twin in (pickle.loads(pickle.dumps(sampler)), copy.deepcopy(sampler)):
        assert list(twin) == list(sampler)
        twin.commit(1)
        assert twin.state_dict()["committed"] == 12
        assert sampler.state_dict()["committed"] == 10


class Every(ResumableDistributedSampler):
    """A subclass with an argument and an __iter__ of its own."""

    def __init__(self, *args, stride, **kwargs):
        super().__init__(*args, **kwargs)
        self.stride = stride

    def __iter__(self):
        return itertools.islice(super().__iter__(), 0, None, self.stride)


def test_it_can_be_subclassed():
    """super() works, and so does pickling the result."""
    sampler = Every(range(10), 1, 0, shuffle=False, stride=4)
    assert list(sampler) == list(pickle.loads(pickle.dumps(sampler))) == [0, 4, 8]


# records


@pytest.mark.parametrize(
    ("arguments", "n", "field"),
    [
        ({"seed": 1}, 10, "seed"),
        ({"order": Shuffle(), "shuffle": True}, 10, "order"),
        ({}, 11, "dataset.num_samples"),
        ({}, 9, "dataset.num_samples"),
    ],
)
def test_a_record_of_another_run_is_refused_with_the_field(arguments, n, field):
    """Both values are named, and nothing changes."""
    record = alone(10).state_dict()
    other = alone(n, **arguments)
    before = other.state_dict()
    with pytest.raises(errors.RecordMismatchError, match="the record was written with") as caught:
        other.load_state_dict(record)
    assert caught.value.field == field
    assert other.state_dict() == before


class Files(list):
    """A dataset that knows its files: ``parts`` are their lengths."""

    def __init__(self, *parts):
        super().__init__(range(sum(parts)))
        self.parts = parts
        self.num_files = len(parts)
        self.fingerprint = self.fingerprint_of(len(parts))

    def fingerprint_of(self, num_files):
        return repr(self.parts[:num_files])


def test_appended_files_are_taken_from_the_next_epoch_on():
    """The running epoch keeps its samples; other files, or fewer, are refused."""
    sampler = ResumableDistributedSampler(Files(4, 6), 1, 0, shuffle=False)
    sampler.commit(7)
    grown = ResumableDistributedSampler(Files(4, 6, 5), 1, 0, shuffle=False)
    grown.load_state_dict(sampler.state_dict())
    assert list(grown) == [7, 8, 9]
    again = ResumableDistributedSampler(Files(4, 6, 5, 1), 1, 0, shuffle=False)
    again.load_state_dict(grown.state_dict())
    assert list(again) == [7, 8, 9]
    grown.commit(3)
    assert (grown.epoch, list(grown)) == (1, list(range(15)))
    for others in (Files(6, 4), Files(6, 4, 5), Files(4), Files(10)):
        with pytest.raises(errors.RecordMismatchError, match="fingerprint"):
            ResumableDistributedSampler(others, 1, 0, shuffle=False).load_state_dict(
                sampler.state_dict()
            )


def test_a_state_is_fresh_json_and_loading_it_is_idempotent():
    """No live reference, no tensor, no numpy number; the same record can be loaded again and again."""
    sampler = alone(10)
    sampler.commit(3)
    state = sampler.state_dict()
    assert json.loads(json.dumps(state)) == state
    state["segments"].append([1])
    state["dataset"]["num_samples"] = 5
    assert sampler.state_dict() != state
    record = sampler.state_dict()
    for _ in range(3):
        sampler.load_state_dict(record)
        assert list(sampler) == [3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    "change",
    [
        {"length": 30, "segments": [[1]], "remaining": 29},
        {"length": 5, "segments": [[1]], "remaining": 4},
        {"segments": [[1], ["skip", 0, [[3, 6]]]], "remaining": 9},
        {"segments": [[1], ["skip", 8, [[3, 4]]]], "skipped": 8, "remaining": 1},
        {"segments": [[1], ["skip", 3, [[3, 2 * 10**8]]]], "skipped": 3, "remaining": 6},
        {"segments": [[1], ["skip", 1, [[0, 1]]]], "skipped": 1, "remaining": 8},
        {"segments": [[1]], "per_rank": 2**63 - 1, "remaining": 9},
        {"epoch": 2**63 - 1, "segments": [[1]], "remaining": 9},
    ],
)
def test_a_state_that_adds_up_but_cannot_be_is_refused(change):
    """Lengths and skips that the order contradicts: an error, and the sampler has not moved."""
    sampler = alone(10)
    state = sampler.state_dict() | {"committed": 1} | change
    with pytest.raises(errors.RecordError):
        sampler.load_state_dict(state)
    assert list(sampler) == list(range(10))


@pytest.mark.parametrize(
    "damage", ["missing", "unknown", "type", "sum", "range", "version", "format", "none"]
)
def test_a_damaged_state_is_refused(damage):
    """Missing and unknown fields, wrong types, sums that do not add up, a newer version: each is named."""
    sampler = alone(10)
    sampler.commit(3)
    state = sampler.state_dict()
    if damage == "missing":
        del state["seed"]
    elif damage == "unknown":
        state["sead"] = 3
    elif damage == "type":
        state["epoch"] = 0.0
    elif damage == "sum":
        state["remaining"] = 6
    elif damage == "range":
        state["open"]["count"] = 11
    elif damage == "version":
        state["version"] = 3
    elif damage == "format":
        state["format"] = "other"
    else:
        state = None
    with pytest.raises(errors.RecordError):
        alone(10).load_state_dict(state)


# merging


def test_a_rank_that_is_dealt_nothing_holds_nobody_up():
    """Two ids, three ranks, an exact tail: the third has nothing to commit, in any epoch."""
    ranks = [
        ResumableDistributedSampler(range(2), 3, rank, shuffle=False, tail="exact")
        for rank in range(3)
    ]
    for epoch in range(3):
        for rank in ranks:
            for _ in list(rank):
                rank.commit(1)
        assert merge_states([rank.state_dict() for rank in ranks])["epoch"] == epoch + 1


# arguments


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"tail": "wrap"}, "tail must be one of"),
        ({"tail": "pad", "drop_last": True}, "contradict"),
        ({"order": "shuffle"}, "order must be"),
        ({"order": Shuffle(), "shuffle": False}, "contradict"),
        ({"shuffle": 1}, "shuffle must be"),
        ({"drop_last": None}, "drop_last must be"),
        ({"num_replicas": 0}, "num_replicas must be"),
    ],
)
def test_bad_arguments_are_named(arguments, told):
    """At construction, in one sentence."""
    with pytest.raises((TypeError, ValueError), match=told):
        ResumableDistributedSampler(range(10), **{"num_replicas": 1, "rank": 0} | arguments)


def test_orders_that_agree_with_shuffle_are_taken():
    """order= says what shuffle= says."""
    assert not alone(order=Sequential()).shuffle
    assert ResumableDistributedSampler(range(3), 1, 0, order=TorchShuffle()).shuffle


def test_a_run_begun_under_torchs_sampler_goes_on_with_the_same_ids():
    """17 steps on 4 ranks under DistributedSampler; then ours, told how many are done, reads exactly the rest."""
    from torch.utils.data.distributed import DistributedSampler

    seen = []
    for rank in range(4):
        theirs = DistributedSampler(range(1003), 4, rank, seed=7)
        theirs.set_epoch(2)
        seen += list(theirs)[: 17 * 6]
    record = None
    for rank in range(4):
        ours = ResumableDistributedSampler(range(1003), 4, rank, seed=7, order=TorchShuffle())
        ours.set_epoch(2)
        ours.commit(17 * 6)
        assert record in (None, ours.state_dict())
        record = ours.state_dict()
    rest = []
    for rank in range(3):
        ours = ResumableDistributedSampler(
            range(1003), 3, rank, seed=7, order=TorchShuffle(), tail="exact"
        )
        ours.load_state_dict(record)
        rest += list(ours)
    assert sorted(seen + rest) == list(range(1003))


def test_importing_the_sampler_starts_nothing():
    """import globidx alone imports no torch."""
    program = "import sys, globidx; assert 'torch' not in sys.modules; globidx.ResumableDistributedSampler; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, env=clean_environment())


# moments


class Growing(list):
    """A dataset that changes: ``parts`` are its files' lengths."""

    def __init__(self, *parts):
        self.become(*parts)

    def become(self, *parts):
        self[:] = range(sum(parts))
        self.parts = parts
        self.num_files = len(parts)
        self.fingerprint = self.fingerprint_of(len(parts))

    def fingerprint_of(self, num_files):
        return repr(self.parts[:num_files])


def test_between_epochs_the_next_one_takes_the_files_and_skips_of_now():
    """The last commit has already begun it, but nothing of it was taken yet."""
    files = Growing(4, 4)
    sampler = ResumableDistributedSampler(files, 1, 0, shuffle=False)
    sampler.commit(8)
    files.become(4, 4, 2)
    sampler.skip(3)
    assert list(sampler) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    files.become(3)
    sampler.set_epoch(2)
    assert (len(sampler), list(sampler)) == (3, [0, 1, 2])
    assert sampler.remaining == 3


def test_files_that_move_under_a_running_epoch_are_an_error():
    """A file in front shifts every id; appended ones do not, and are taken by the next epoch."""
    files = Growing(4, 4)
    sampler = ResumableDistributedSampler(files, 1, 0, shuffle=False)
    sampler.commit(2)
    files.become(4, 4, 3)
    assert list(sampler) == [2, 3, 4, 5, 6, 7]
    files.become(1, 4, 4)
    for touch in (lambda: sampler.commit(1), sampler.state_dict, lambda: iter(sampler)):
        with pytest.raises(errors.RecordMismatchError, match="changed in the middle of epoch 0"):
            touch()
    sampler.finish_epoch()
    assert list(sampler) == list(range(9))


def test_a_dataset_that_cannot_tell_its_growth_is_not_taken_for_grown():
    """Without fingerprint_of, other files are other data."""

    class Plain(list):
        fingerprint, num_files = "a", 1

    sampler = ResumableDistributedSampler(Plain(range(4)), 1, 0)
    sampler.commit(1)
    other = Plain(range(6))
    other.num_files = 2
    with pytest.raises(errors.RecordMismatchError):
        ResumableDistributedSampler(other, 1, 0).load_state_dict(sampler.state_dict())


def test_ids_drawn_at_one_world_size_are_not_committed_at_another(monkeypatch):
    """A process group that comes up in the middle of a pass would make 3 ids of 1 rank count as 6 of 2."""
    monkeypatch.delenv("RANK", raising=False)
    sampler = ResumableDistributedSampler(range(16), shuffle=False)
    stream = iter(sampler)
    next(stream)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(errors.CommitError, match="dealt at world size 1, but it is 2 now"):
        sampler.commit(1)
    assert list(sampler) == list(range(0, 16, 2))
    sampler.commit(1)
    assert sampler.state_dict()["committed"] == 2


def test_an_epoch_ended_by_hand_on_one_rank_only_is_refused_at_a_merge():
    """The other rank's samples were not trained on."""
    ranks = [ResumableDistributedSampler(range(20), 2, rank) for rank in (0, 1)]
    for rank in ranks:
        rank.commit(2)
    ranks[0].finish_epoch()
    with pytest.raises(errors.RecordMismatchError, match="disagrees on epoch"):
        merge_states([rank.state_dict() for rank in ranks])
    ranks[1].finish_epoch()
    assert merge_states([rank.state_dict() for rank in ranks])["epoch"] == 1
