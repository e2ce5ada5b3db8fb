"""Samples that cannot be read: batches keep their size, nothing is silent, and the record lists what was delivered as others."""

import gc
import multiprocessing

import numpy as np
import pytest
import torch
from loops import HOW, reading
from processes import run_ranks
from unreadable import BAD, opened, write_files

from globidx import (
    CheckpointManager,
    DataLoader,
    ResumableDistributedSampler,
    errors,
    merge_states,
)
from globidx.core.progress.limits import MAX_RANGES
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.state import SamplerState
from globidx.core.records import record as records
from globidx.torch.device import Ahead
from globidx.torch.loops.quarantine import BatchReport


@pytest.fixture
def folder(tmp_path):
    """Three files, a chunk of which is gone."""
    return write_files(tmp_path)


def run(dataset, *, record=None, rank=0, world=1, workers=0, kind=DataLoader, **options):
    """(sampler, loader) in order, batches of 4."""
    sampler = ResumableDistributedSampler(dataset, world, rank, shuffle=False)
    if record is not None:
        sampler.load_state_dict(record)
    return sampler, kind(dataset, batch_size=4, sampler=sampler, **reading(workers), **options)


# -- how the record learns of it


@pytest.mark.parametrize("workers", HOW)
def test_the_sampler_is_told_when_the_batch_is_committed_and_not_before(folder, workers):
    """Prefetched far ahead, the bad samples of batch 2 are listed when the loop holds it and state is asked for."""
    dataset = opened(folder)
    sampler, loader = run(dataset, workers=workers)
    seen = []
    for batch in loader:
        assert isinstance(batch, torch.Tensor) and len(batch) == 4
        seen.append(sampler.quarantined.pairs)
    assert seen == [(), (), ((8, 10),), ((8, 10),), ((8, 10),)]
    state = sampler.state_dict()
    assert (state["epoch"], state["quarantined"], state["skip"]) == (1, [[8, 10]], [])


class Moving(DataLoader):
    """Fetches one batch ahead of the loop in the main process, as a loader with a device does."""

    def open(self):
        return Ahead(super().open(), lambda batch: lambda: batch)


@pytest.mark.parametrize("kind", [DataLoader, Moving])
@pytest.mark.parametrize(
    ("workers", "collects"), [(0, False), (2, False), ("threads", False), (0, True)]
)
def test_a_batch_that_does_not_count_quarantines_nothing(folder, workers, kind, collects):
    """A break before its commit leaves it out of both lists; it comes again, and then it is listed.

    Also where somebody collects the errors: their tracebacks would keep the loop alive.
    """
    kept = []

    def choose(id, error):
        kept.append(error)
        return 7

    gc.disable()
    try:
        sampler, loader = run(
            opened(folder, on_error=choose if collects else "substitute"),
            workers=workers,
            kind=kind,
        )
        for batch in loader:
            if int(batch[0]) - 1 >= 7:
                break
    finally:
        gc.enable()
    assert (sampler.state_dict()["committed"], sampler.quarantined.pairs) == (8, ())
    for _ in loader:
        assert (sampler.quarantined.pairs, sampler.state_dict()["committed"]) == (((8, 10),), 12)
        break


def test_the_count_of_deliveries_is_not_changed(folder):
    """A quarantined id is done: each rank takes as many steps as without, and the epoch ends."""
    for world in (1, 2, 3):
        pairs = [run(opened(folder), rank=rank, world=world) for rank in range(world)]
        steps = [[len(batch) for batch in loader] for _, loader in pairs]
        assert steps == [steps[0]] * world
        assert sum(steps[0]) == -(-20 // world)
        merged = merge_states([sampler.state_dict() for sampler, _ in pairs])
        assert (merged["epoch"], merged["quarantined"]) == (1, [[8, 10]])


def test_a_merge_unites_what_the_ranks_found(folder):
    """Each reads its own share; the record, from wherever it is loaded, has all of it, for the rest of the run."""
    pairs = [run(opened(folder), rank=rank, world=2) for rank in range(2)]
    for _, loader in pairs:
        for number, _ in enumerate(loader):
            if number == 2:
                break
    assert [sampler.state_dict()["quarantined"] for sampler, _ in pairs] == [[[8, 9]], [[9, 10]]]
    merged = merge_states([sampler.state_dict() for sampler, _ in pairs])
    assert merged["quarantined"] == [[8, 10]]
    alone, _ = run(opened(folder), record=merged)
    assert alone.quarantined == Ranges.of([8, 9])
    for move in (
        lambda: alone.set_epoch(7),
        alone.reset,
        alone.finish_epoch,
        lambda: alone.load_state_dict(merged),
    ):
        move()
        assert alone.state_dict()["quarantined"] == [[8, 10]]


def test_a_record_between_epochs_keeps_the_list(folder):
    """Nothing of the next epoch was done, but the list is of the run."""
    sampler, loader = run(opened(folder))
    list(loader)
    record = sampler.state_dict()
    assert (record["epoch"], record["committed"]) == (1, 0)
    resumed, _ = run(opened(folder), record=record)
    assert resumed.state_dict()["quarantined"] == [[8, 10]]


def test_skipping_the_quarantined_leaves_them_out_from_the_next_segment_on(folder):
    """The two lists go together; the report stays."""
    dataset = opened(folder)
    sampler, loader = run(dataset)
    list(loader)
    sampler.skip(sampler.quarantined)
    assert [int(sample) - 1 for batch in loader for sample in batch] == [
        id for id in range(20) if id not in BAD
    ]
    assert sampler.quarantined == sampler.skipped == Ranges.of(BAD)


def test_a_record_on_disk_keeps_the_list(folder, tmp_path):
    """Through the manager, and through a process that did not see the samples."""
    sampler, loader = run(opened(folder))
    manager = CheckpointManager(tmp_path / "run", sampler)
    for number, _ in enumerate(loader, 1):
        manager.save(number)
        if number == 3:
            break
    resumed, _ = run(opened(folder))
    found = CheckpointManager(tmp_path / "run", resumed).restore()
    assert found["states"]["sampler"]["quarantined"] == [[8, 10]]
    assert (resumed.quarantined, resumed.remaining) == (Ranges.of(BAD), 8)


class Wrapper(torch.utils.data.Dataset):
    """Asks for one sample at a time, as most wrappers do."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, id):
        return self.dataset[id]


@pytest.mark.parametrize(
    ("wrap", "hides"),
    [
        (lambda dataset: dataset, False),
        (lambda dataset: torch.utils.data.Subset(dataset, range(5)), False),
        (lambda dataset: torch.utils.data.ConcatDataset([range(2), dataset]), True),
        (Wrapper, True),
        (lambda dataset: torch.utils.data.Subset(Wrapper(dataset), range(5)), True),
    ],
    ids=["plain", "subset", "concatenation", "wrapper", "subset of a wrapper"],
)
def test_who_hides_what_was_replaced_is_told(folder, caplog, wrap, hides):
    """Reports travel with batches; a dataset that is asked for single samples has none to give."""
    run(wrap(opened(folder)))
    assert ("not listed in sampler.quarantined" in caplog.text) == hides


def test_ids_of_a_subset_are_the_subsets(folder):
    """What the sampler hands out is what it is told, whatever the wrapper calls it inside."""
    subset = torch.utils.data.Subset(opened(folder), [3, 8, 9, 5])
    sampler, loader = run(subset)
    assert [(batch - 1).tolist() for batch in loader] == [[3, 7, 10, 5]]
    assert sampler.quarantined == Ranges.of([1, 2])


def test_spawned_workers_report_too(folder):
    """Everything on the way is picklable."""
    sampler, loader = run(
        opened(folder), workers=1, multiprocessing_context=multiprocessing.get_context("spawn")
    )
    assert sum(len(batch) for batch in loader) == 20
    assert sampler.quarantined == Ranges.of(BAD)


def test_the_users_collate_function_and_pinning_see_no_report(folder):
    """It gets a list and what it returns is what the loop gets; the loader's attribute stays the user's."""

    def collate(samples):
        return {"n": len(samples), "x": torch.stack(samples)}

    _, loader = run(opened(folder), collate_fn=collate)
    assert [set(batch) for batch in loader] == [{"n", "x"}] * 5
    assert loader.collate_fn is collate
    assert torch.utils.data._utils.pin_memory.pin_memory(
        BatchReport(["text"], (0,))
    ) == BatchReport(["text"], (0,))
    theirs = torch.utils.data.DataLoader(opened(folder), batch_size=4, collate_fn=loader.collate_fn)
    assert [batch["n"] for batch in theirs] == [4] * 5  # torch's own: the report is the log's
    assert [len(batch) for batch in DataLoader(opened(folder), batch_size=5)] == [5] * 4


def test_samples_one_by_one_are_refused_where_they_could_not_be_told(folder):
    """Without batches nothing can travel beside the sample, and the record would keep silent."""
    dataset = opened(folder)
    sampler = ResumableDistributedSampler(dataset, 1, 0)
    with pytest.raises(ValueError, match="pass batch_size=1"):
        DataLoader(dataset, batch_size=None, sampler=sampler)
    assert (
        sum(1 for _ in DataLoader(dataset, batch_size=None)) == 20
    )  # where nobody keeps a record, the log is all


# -- the state


def state(**changes):
    sampler = ResumableDistributedSampler(range(100), 1, 0)
    sampler.commit(10)
    return sampler.state_dict() | changes


@pytest.mark.parametrize(("ids", "pairs"), [([], []), ([5, range(7, 9)], [[5, 6], [7, 9]])])
def test_a_record_holds_the_quarantine_of_its_sampler(ids, pairs):
    """Under a key that is always there, empty or not, in the one version of the format."""
    sampler = ResumableDistributedSampler(range(100), 1, 0)
    sampler.quarantine(ids)
    written = sampler.state_dict()
    assert (written["version"], written["quarantined"]) == (1, pairs)
    assert SamplerState.from_dict(written).to_dict() == written
    sealed = records.build(
        number=1, token="0" * 12, step=1, time="", states={"s": written}, extras={}
    )
    assert records.decode(records.encode(sealed), "x") == sealed


@pytest.mark.parametrize(
    "change",
    [
        {"quarantined": None},
        {"quarantined": [[2, 1]]},
        {"quarantined": [[4, 5], [1, 2]]},
        {"quarantined": [[0, 2**62]]},
        {"quarantined": "all"},
        {"quarantined": [[2 * n, 2 * n + 1] for n in range(MAX_RANGES + 1)]},
    ],
)
def test_a_list_that_is_none_is_refused(change):
    """Missing, unsorted, empty, too long, or of another type."""
    with pytest.raises(errors.RecordError):
        SamplerState.from_dict(state(**change))


def test_more_than_a_record_may_hold_is_an_error_that_says_so():
    """Found by one rank, or by all together; not a record that nobody can read."""
    n = 4 * MAX_RANGES
    samplers = [ResumableDistributedSampler(range(n), 2, rank) for rank in range(2)]
    samplers[0].quarantine(np.arange(0, n // 2, 2))
    samplers[1].quarantine(np.arange(n // 2, n, 2))
    with pytest.raises(
        errors.RecordError, match=f"would have {MAX_RANGES + 1} ids in {MAX_RANGES + 1} ranges"
    ):
        samplers[0].quarantine(n - 1)
    with pytest.raises(errors.RecordError, match="the ranks together would quarantine"):
        merge_states([sampler.state_dict() for sampler in samplers])


def test_a_skip_told_before_an_epoch_has_the_sample_is_kept_by_the_record():
    """Files were appended in mid-epoch, and one of the new samples is bad."""

    class Part:
        num_files, n = 1, 10

        def __len__(self):
            return self.n

        @property
        def fingerprint(self):
            return str(self.n)

        def fingerprint_of(self, num_files):
            return str(10 * num_files)

    data = Part()
    sampler = ResumableDistributedSampler(data, 1, 0, shuffle=False)
    sampler.commit(2)
    data.n, data.num_files = 20, 2
    sampler.skip(15)
    resumed = ResumableDistributedSampler(data, 1, 0, shuffle=False)
    resumed.load_state_dict(sampler.state_dict())
    assert list(resumed) == list(range(2, 10))
    resumed.commit(8)
    assert list(resumed) == [id for id in range(20) if id != 15]


def each_its_own(rank, world_size, folder):
    """Ranks that could not read different samples, one of them none, leave the same ones out after a save."""
    from globidx import CheckpointManager

    sampler = ResumableDistributedSampler(range(40), shuffle=False)
    manager = CheckpointManager(folder, sampler, timeout=60)
    sampler.commit(2)
    if rank < 2:
        sampler.quarantine(10 + rank)
    manager.save(1)
    told = list(sampler.quarantined.pairs)
    sampler.skip(sampler.quarantined)
    sampler.finish_epoch()
    manager.save(2)
    return told, manager.state_dict()["step"], list(sampler)


@pytest.mark.slow
def test_a_save_tells_every_rank_what_any_could_not_read(tmp_path):
    """Leaving out what is quarantined is then the same on all ranks, which is what a sampler needs."""
    told = run_ranks(3, each_its_own, tmp_path)
    assert [(pairs, step) for pairs, step, _ in told] == [([(10, 12)], 2)] * 3
    streams = [ids for *_, ids in told]
    assert {len(ids) for ids in streams} == {13} and set().union(*streams) == set(range(40)) - {
        10,
        11,
    }
