"""Mistakes that newcomers make are answered by what to do, and objects show what they are without a change."""

import re

import pytest
import torch
from torch.utils.data import BatchSampler, IterableDataset

import globidx
from globidx import (
    CheckpointManager,
    PreemptionGuard,
    RankPeers,
    ResumableDistributedSampler,
    errors,
    merge_states,
    orders,
    policies,
    read_record,
)
from globidx.disk.records.folder import newest


class Stream(IterableDataset):
    """An iterable dataset, which has no ids."""

    def __iter__(self):
        return iter(range(10))


class Unfinished(orders.Order):
    """An order whose author has not come to the end."""

    algorithm = "example.unfinished"

    def bind(self, num_samples, *, seed, epoch):
        return None


class Nameless(Unfinished):
    """An order without a name."""

    algorithm = None


def sampler(**options):
    return ResumableDistributedSampler(range(10), 1, 0, **options)


def record_into_a_sampler(folder):
    CheckpointManager(folder, {"train": sampler()}).save(1)
    sampler().load_state_dict(read_record(newest(folder)))


def manager_over(make):
    return lambda folder: CheckpointManager(folder, make())


MISTAKES = {
    "swapped arguments": (
        lambda folder: CheckpointManager(sampler(), folder),
        "the folder comes first",
    ),
    "a path too many": (
        lambda folder: CheckpointManager(str(folder), str(folder)),
        "the folder comes first",
    ),
    "a loader": (
        manager_over(lambda: globidx.DataLoader(range(10), sampler=sampler())),
        "pass loader.sampler",
    ),
    "torch's loader": (
        manager_over(
            lambda: torch.utils.data.DataLoader(
                range(10), batch_sampler=BatchSampler(sampler(), 2, False)
            )
        ),
        "pass loader.sampler",
    ),
    "a loader by name": (
        manager_over(lambda: {"train": globidx.DataLoader(range(10), sampler=sampler())}),
        "'train' is a DataLoader",
    ),
    "an iterable dataset": (
        lambda folder: ResumableDistributedSampler(Stream(), 1, 0),
        "make it a map-style dataset",
    ),
    "an iterable dataset in a loader": (
        lambda folder: globidx.DataLoader(Stream(), sampler=sampler()),
        "Stream, an IterableDataset, takes none: make it a map-style dataset",
    ),
    "a whole record": (record_into_a_sampler, re.escape("record['states']['train']")),
    "a merge of records": (
        lambda folder: merge_states([{"format": "globidx.record", "states": {}}]),
        "a sampler loads its own state only",
    ),
    "rank and world size swapped": (
        lambda folder: ResumableDistributedSampler(range(10), 0, 2),
        r"num_replicas=0 and rank=2: the world size comes first, .*\(dataset, num_replicas, rank\)",
    ),
    "a signal by name": (
        lambda folder: PreemptionGuard("SIGTERM"),
        r"a sequence of signal numbers of this system, such as \(signal\.SIGTERM.*got 'SIGTERM': 'S'",
    ),
    "an order's class": (
        lambda folder: ResumableDistributedSampler(range(5), 1, 0, order=orders.Shuffle),
        r"order must be one of globidx\.orders, such as Shuffle\(\), got .*, a class without \(\)",
    ),
    "an order without a name": (
        lambda folder: ResumableDistributedSampler(range(5), 1, 0, order=Nameless()),
        r"Nameless has no `algorithm`, .*; give the class one, such as algorithm = 'mine\.reversed'",
    ),
    "an order that arranges nothing": (
        lambda folder: list(ResumableDistributedSampler(range(5), 1, 0, order=Unfinished())),
        r"Unfinished\.bind\(\) must return an orders\.Arrangement, got None",
    ),
    "weights that are words": (
        lambda folder: orders.Weighted("ab"),
        "weights must be numbers, one for each sample, got 'ab'",
    ),
    "no time for the ranks": (
        lambda folder: RankPeers(timeout=-1),
        "timeout must be a positive number of seconds, got -1",
    ),
    "no sampler": (
        lambda folder: CheckpointManager(folder, None),
        "got NoneType; a record holds a ResumableDistributedSampler, or a dict of objects",
    ),
    "a tensor among the extras": (
        lambda folder: CheckpointManager(folder, sampler()).save(1, {"loss": torch.ones(2)}),
        r"extras\['loss'\] is of type Tensor; .*, such as its \.tolist\(\)",
    ),
    "a state that was edited": (
        lambda folder: sampler().load_state_dict(sampler().state_dict() | {"sead": 1}),
        "sampler state: unknown sead; pass what globidx wrote, unchanged",
    ),
    "a signal alone": (
        lambda folder: PreemptionGuard(15),
        "a sequence of signal numbers of this system, such as .*got 15: ",
    ),
    "a record that is not there": (
        lambda folder: read_record("gone.json"),
        "there is no record .*/gone.json",
    ),
    "extras that have no names": (
        lambda folder: CheckpointManager(folder, sampler()).save(1, [1]),
        r"extras must be a mapping of names to JSON values, .*got \[1\]",
    ),
    "a number of peers": (
        lambda folder: globidx.GlobalIndexManager(folder, peers=4),
        r"peers must have rank, world_size and gather, as globidx.RankPeers\(\) has, got 4",
    ),
    "a number of processes": (
        lambda folder: globidx.GlobalIndexManager(folder, executor=4),
        "executor must be a concurrent.futures.Executor, got 4",
    ),
    "a key that is no name": (
        lambda folder: globidx.GlobalIndexManager(folder, key=3),
        "key must be a str, a sequence of str or a mapping to str, got 3",
    ),
    "rank beyond the world size": (
        lambda folder: ResumableDistributedSampler(range(10), 1, 3),
        r"rank must be in \[0, 1\), got 3, .*\(dataset, num_replicas, rank\)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_by_what_to_do(mistake, tmp_path):
    """Provoked as it is made, and told in one sentence."""
    make, answer = MISTAKES[mistake]
    with pytest.raises((TypeError, ValueError, OSError, errors.GlobidxError), match=answer):
        make(tmp_path / "run")


def test_a_loader_over_batches_of_ids_and_its_parts_show_what_they_are(tmp_path):
    """One line each; looking settles nothing, asks no rank, and leaves the record what it was."""
    own = sampler(seed=7, order=orders.ChunkShuffle(chunk=2))
    loader = globidx.DataLoader(range(10), batch_size=4, sampler=own)
    manager = CheckpointManager(tmp_path, own)
    assert repr(manager) == f"CheckpointManager({str(tmp_path)!r}, sampler: no record yet)"
    next(batches := iter(loader))
    before = own._ledger.tracker.state
    shown = "ResumableDistributedSampler(ChunkShuffle(window=8, chunk=2), seed=7: epoch 0, 0 of 10 committed)"
    assert repr(own) == shown
    assert repr(loader) == f"DataLoader(range, batch_size=4, num_workers=0, sampler={shown})"
    assert own._ledger.tracker.state is before
    next(batches)
    assert "epoch 0, 4 of 10 committed" in repr(own)
    id = manager.save(2)
    assert repr(manager) == f"CheckpointManager({str(tmp_path)!r}, sampler: record {id})"
    assert "sampler=<torch" in repr(globidx.DataLoader(range(3)))


def test_a_sampler_is_shown_before_it_knows_its_rank(monkeypatch):
    """Nobody is asked: an environment that would be refused is not looked at."""
    late = ResumableDistributedSampler(range(10))
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (
        repr(late) == "ResumableDistributedSampler(Shuffle(), seed=0: epoch 0, 0 of 10 committed)"
    )


@pytest.mark.parametrize(
    "shown",
    ["last(3)", "every(1000)", "best('loss')", "best('acc', 'max', count=2)", "last(1) | every(2)"],
)
def test_policies_are_shown_as_they_are_made(shown):
    """So that a log says which one was in use; the module is a door of its own."""
    names = {name: getattr(policies, name) for name in policies.__all__}
    assert repr(eval(shown, names)) == shown
    assert policies is globidx.policies
    assert policies.__name__ == "globidx.policies"


def test_a_guard_shows_what_it_has_heard():
    """Without a collective."""
    with PreemptionGuard() as guard:
        assert repr(guard) == "PreemptionGuard(SIGTERM, SIGUSR1: nothing received)"
