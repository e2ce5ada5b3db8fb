"""The checkpoint manager, alone and over real gloo ranks."""

import json
from pathlib import Path

import pytest
from processes import run_ranks

from globidx import CheckpointManager, ResumableDistributedSampler, errors, policies, read_record


def sampler_of(n=100, **arguments):
    """A sampler that is the only rank."""
    return ResumableDistributedSampler(range(n), 1, 0, **arguments)


def test_the_newest_record_is_restored(tmp_path):
    """Step, extras and progress come back; nothing there is None, and a folder that does not exist is made."""
    sampler = sampler_of()
    manager = CheckpointManager(tmp_path / "new" / "run", sampler)
    assert manager.restore() is None
    ids = []
    for step in range(1, 6):
        sampler.commit(10)
        ids.append(manager.save(step, extras={"loss": 1 / step}))
    assert len(set(ids)) == 5
    resumed = sampler_of()
    record = CheckpointManager(tmp_path / "new" / "run", resumed).restore()
    assert (record["id"], record["step"], record["extras"]) == (ids[-1], 5, {"loss": 0.2})
    assert resumed.state_dict() == {
        **sampler.state_dict(),
        "open": {"world_size": 1, "count": 0},
        "segments": [[50]],
        "per_rank": 50,
    }
    assert list(resumed) == list(sampler)


def test_keep_last_keeps_the_newest_and_touches_nothing_else(tmp_path):
    """Other files, also such as look like records, stay."""
    others = [
        tmp_path / name
        for name in (
            "model.pt",
            "record-1.json",
            "record-00000001-XYZ.json",
            ".record-00000001-0123456789ab.json.tmp",
        )
    ]
    for other in others:
        other.write_text("mine")
    sampler = sampler_of()
    manager = CheckpointManager(tmp_path, sampler, keep_last=2)
    ids = [manager.save(step) for step in range(5)]
    left = {path.name for path in tmp_path.iterdir()} - {other.name for other in others}
    assert left == {f"record-{id}.json" for id in ids[-2:]}
    assert all(other.read_text() == "mine" for other in others)


def test_order_is_by_number_not_by_time(tmp_path):
    """A clock that jumps, or a copied folder, does not change which record is the newest."""
    import os

    manager = CheckpointManager(tmp_path, sampler_of())
    ids = [manager.save(step) for step in range(3)]
    for age, id in enumerate(ids):
        os.utime(tmp_path / f"record-{id}.json", (10**9 - age, 10**9 - age))
    assert manager.restore()["id"] == ids[-1]


def test_expect_pairs_a_record_with_a_model(tmp_path):
    """Another id is refused by name; with fallback the older record is found, and pruned ones are named missing."""
    sampler = sampler_of()
    manager = CheckpointManager(tmp_path, sampler, keep_last=2)
    ids = []
    for step in range(3):
        sampler.commit(5)
        ids.append(manager.save(step))
    assert manager.restore(expect=ids[2])["id"] == ids[2]
    with pytest.raises(errors.RecordMismatchError, match=f"{ids[2]}, expected was {ids[1]}"):
        manager.restore(expect=ids[1])
    assert manager.restore(expect=ids[1], fallback=True)["step"] == 1
    assert sampler.state_dict()["committed"] == 10
    with pytest.raises(errors.RecordError, match="does not hold record"):
        manager.restore(expect=ids[0], fallback=True)
    with pytest.raises(errors.RecordError, match="does not hold record"):
        CheckpointManager(tmp_path / "empty", sampler).restore(expect=ids[0])


def test_a_damaged_newest_record_is_an_error_unless_fallback_is_asked_for(tmp_path, caplog):
    """Never silently an older one; what was passed over is in the result, and in the log."""
    sampler = sampler_of()
    manager = CheckpointManager(tmp_path, sampler)
    sampler.commit(5)
    old = manager.save(1)
    sampler.commit(5)
    new = tmp_path / f"record-{manager.save(2)}.json"
    new.write_bytes(new.read_bytes()[:-40])
    with pytest.raises(errors.RecordCorruptError, match="fallback=True"):
        manager.restore()
    assert sampler.state_dict()["committed"] == 10
    found = manager.restore(fallback=True)
    assert found["id"] == old
    assert new.name in found["passed_over"][0]
    assert f"restored record {old}, and not a newer one, because of fallback=True: " in caplog.text


def test_ids_drawn_and_never_told_of_are_not_saved(tmp_path):
    """With torch's DataLoader and no commit() a record would repeat everything: save says what to do."""
    sampler = sampler_of()
    manager = CheckpointManager(tmp_path, sampler)
    manager.save(0)
    stream = iter(sampler)
    next(stream)
    assert sampler.state_dict()["committed"] == 0
    with pytest.raises(errors.CommitError, match=r"use globidx.DataLoader, or call sampler.commit"):
        manager.save(1)
    sampler.commit(1)
    manager.save(1)


class Counter:
    """Any Stateful: here the number of batches seen."""

    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def test_several_objects_share_one_record(tmp_path):
    """By name; other names at restore are refused."""
    objects = {"train": sampler_of(), "val": sampler_of(7), "batches": Counter(3)}
    objects["train"].commit(8)
    manager = CheckpointManager(tmp_path, objects)
    manager.save(1)
    others = {"train": sampler_of(), "val": sampler_of(7), "batches": Counter()}
    CheckpointManager(tmp_path, others).restore()
    assert others["batches"].value == 3
    assert others["train"].state_dict()["committed"] == 8
    with pytest.raises(errors.RecordMismatchError, match="train"):
        CheckpointManager(tmp_path, sampler_of()).restore()


def test_state_dict_is_the_whole_record(tmp_path):
    """A model checkpoint can hold it: the record last saved, or, after more steps, an unsaved one; both load anywhere."""
    sampler = sampler_of()
    manager = CheckpointManager(tmp_path, sampler)
    sampler.commit(5)
    id = manager.save(1)
    path = tmp_path / f"record-{id}.json"
    assert manager.state_dict() == read_record(path) | {"text": path.read_text()}
    sampler.commit(5)
    carried = json.loads(json.dumps(manager.state_dict()))
    resumed = sampler_of()
    CheckpointManager(tmp_path / "other", resumed).load_state_dict(carried)
    assert resumed.state_dict()["committed"] == 10
    carried["step"] = 9
    with pytest.raises(errors.RecordCorruptError):
        manager.load_state_dict(carried)


@pytest.mark.parametrize(
    "bad", [{"keep_last": 0}, {"keep_last": 1.5}, {"timeout": 0}, {"timeout": -1}]
)
def test_bad_arguments_are_refused(tmp_path, bad):
    """At construction."""
    with pytest.raises((TypeError, ValueError)):
        CheckpointManager(tmp_path, sampler_of(), **bad)
    for objects in ({}, {"x": 3}, 3):
        with pytest.raises((TypeError, ValueError)):
            CheckpointManager(tmp_path, objects)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    """save raises SaveError or OSError with the path; the sampler goes on."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(errors.SaveError, match="file"):
        CheckpointManager(tmp_path / "file" / "run", sampler_of()).save(0)


def test_a_sampler_of_more_ranks_than_gather_is_refused(tmp_path):
    """Explicit ranks without a process group: one state would speak for all."""
    sampler = ResumableDistributedSampler(range(10), 4, 2)
    with pytest.raises(errors.CommitError, match="has 4 ranks, but the manager gathers from 1"):
        CheckpointManager(tmp_path, sampler).save(0)


# ranks


def early(rank, world_size, folder):
    """A manager that restored before the process group was there saves with all ranks all the same."""
    import torch.distributed as dist

    meeting = dist.distributed_c10d._get_default_store()
    dist.destroy_process_group()
    sampler = ResumableDistributedSampler(range(50))
    manager = CheckpointManager(folder, sampler, timeout=30)
    assert manager.restore() is None
    dist.init_process_group(
        "gloo", store=dist.PrefixStore("again", meeting), rank=rank, world_size=world_size
    )
    sampler.commit(2 + rank)
    manager.save(1)
    return manager.state_dict()["states"]["sampler"]["committed"]


@pytest.mark.slow
def test_a_manager_made_before_the_process_group_gathers_from_all(tmp_path):
    """Ranks are asked late here too."""
    assert run_ranks(2, early, tmp_path) == [5, 5]


def one_cannot_load(rank, world_size, folder):
    """Rank 1 has other data: no rank may go on as if restored."""
    CheckpointManager(folder, ResumableDistributedSampler(range(50)), timeout=30).save(1)
    manager = CheckpointManager(folder, ResumableDistributedSampler(range(50 + rank)), timeout=30)
    try:
        manager.restore()
    except errors.RecordMismatchError as error:
        return str(error)


@pytest.mark.slow
def test_all_ranks_restore_or_none_does(tmp_path):
    """The rank that cannot is named on every rank."""
    said = run_ranks(2, one_cannot_load, tmp_path)
    assert said[0] == said[1]
    assert said[0].startswith(
        "rank 1: sampler: the record was written with dataset.num_samples 50, this run has 51"
    )


def uneven(rank, world_size, folder):
    """Ranks that have come differently far save together."""
    sampler = ResumableDistributedSampler(range(50), seed=2)
    sampler.commit(3 + rank)
    manager = CheckpointManager(folder, sampler, timeout=30)
    id = manager.save(4, extras={"from": rank})
    return {"id": id, "held": manager.state_dict(), "ids": list(sampler)}


def resume(rank, world_size, folder):
    """Go on on this world size, and read to the end."""
    sampler = ResumableDistributedSampler(range(50), seed=2, tail="exact")
    record = CheckpointManager(folder, sampler, timeout=30).restore()
    return {"id": record["id"], "extras": record["extras"], "ids": list(sampler)}


@pytest.mark.slow
def test_uneven_ranks_make_one_record_that_any_world_size_reads(tmp_path):
    """Three ranks with 3, 4 and 5 committed ids: two ranks read exactly the other 38."""
    first = run_ranks(3, uneven, tmp_path)
    assert len({result["id"] for result in first}) == 1
    assert all(result["held"] == first[0]["held"] for result in first)
    second = run_ranks(2, resume, tmp_path)
    assert {result["id"] for result in second} == {first[0]["id"]}
    assert second[0]["extras"] == {"from": 0}
    rest = [id for result in second for id in result["ids"]]
    alone = ResumableDistributedSampler(range(50), 1, 0, seed=2)
    order = list(alone)
    done = [id for rank in range(3) for id in order[rank::3][: 3 + rank]]
    assert sorted(rest + done) == list(range(50))


def disagree(rank, world_size, folder):
    """Rank 1 was built with another seed."""
    sampler = ResumableDistributedSampler(range(50), seed=2 if rank != 1 else 3)
    try:
        CheckpointManager(folder, sampler, timeout=30).save(1)
    except errors.GlobidxError as error:
        return f"{type(error).__name__}: {error}"


def cannot(rank, world_size, folder):
    """Rank 1's extras are no JSON; rank 0's are."""
    manager = CheckpointManager(folder, ResumableDistributedSampler(range(50)), timeout=30)
    try:
        manager.save(1, extras={"x": object() if rank == 1 else 1})
    except TypeError as error:
        return str(error)


def steps(rank, world_size, folder):
    """Each rank believes in another step."""
    try:
        CheckpointManager(folder, ResumableDistributedSampler(range(50)), timeout=30).save(rank)
    except errors.GlobidxError as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "told"),
    [
        (disagree, "RecordMismatchError: rank 1 disagrees on seed"),
        (cannot, "rank 1: extras['x']"),
        (steps, "rank 1 saves step"),
    ],
)
def test_all_ranks_save_or_none_does(tmp_path, work, told):
    """One rank that cannot is named on every rank, and nothing is written."""
    said = run_ranks(2, work, tmp_path)
    assert len(set(said)) == 1
    assert told in said[0]
    assert list(Path(tmp_path).glob("record-*")) == []


def turned(rank, world_size, folder):
    """A mesh whose ranks run the other way round, an extra group on rank 0, and uneven ranks."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import DeviceMesh

    dist.new_group([0])
    sampler = ResumableDistributedSampler(range(10), mesh=DeviceMesh("cpu", [1, 0]), shuffle=False)
    had = list(sampler)[: 3 if rank == 1 else 1]
    sampler.commit(len(had))
    manager = CheckpointManager(folder, sampler, timeout=30)
    manager.save(1)
    same = CheckpointManager(
        folder, ResumableDistributedSampler(range(10), rank=0, num_replicas=2), timeout=30
    )
    try:
        same.save(2)
    except errors.RecordMismatchError as error:
        return had, manager.state_dict()["states"]["sampler"], str(error)


@pytest.mark.slow
def test_counts_go_to_the_samplers_ranks_not_the_groups(tmp_path):
    """They differ under a mesh; and two samplers that take themselves for one rank are refused."""
    (had, state, said), (had_too, _, _) = run_ranks(2, turned, tmp_path)
    alone = ResumableDistributedSampler(range(10), 1, 0, shuffle=False)
    alone.load_state_dict(state)
    assert sorted(had + had_too + list(alone)) == list(range(10))
    assert "have the ranks [0, 0]" in said


class Unloadable:
    """Its state is fine, but it refuses to load."""

    def state_dict(self):
        return {"lr": 1}

    def load_state_dict(self, state):
        raise KeyError("lr2")


def test_an_object_that_cannot_load_leaves_all_where_they_were(tmp_path):
    """The sampler has not moved, and what had loaded before it is put back."""
    sampler = sampler_of()
    sampler.commit(5)
    CheckpointManager(tmp_path, {"a": Counter(1), "sampler": sampler, "z": Unloadable()}).save(1)
    fresh, counter = sampler_of(), Counter(7)
    with pytest.raises(KeyError):
        CheckpointManager(tmp_path, {"a": counter, "sampler": fresh, "z": Unloadable()}).restore()
    assert fresh.state_dict()["committed"] == 0
    assert counter.value == 7


def carried(rank, world_size, folder):
    """Only rank 0 loads what a model checkpoint carried, and does not wait for rank 1."""
    sampler = ResumableDistributedSampler(range(50))
    sampler.commit(4)
    manager = CheckpointManager(folder, sampler, timeout=5)
    manager.save(1)
    fresh = ResumableDistributedSampler(range(50))
    if rank == 0:
        CheckpointManager(folder, fresh, timeout=5).load_state_dict(manager.state_dict())
    return fresh.state_dict()["committed"]


@pytest.mark.slow
def test_loading_a_carried_record_is_no_collective(tmp_path):
    """Frameworks call load_state_dict when and where they like."""
    assert run_ranks(2, carried, tmp_path) == [8, 0]


class Failing:
    """A Stateful that rank 1 cannot read, for a reason nobody foresaw."""

    def __init__(self, rank):
        self.rank = rank

    def state_dict(self):
        if self.rank == 1:
            raise RuntimeError("device lost")
        return {"a": 1}

    def load_state_dict(self, state):
        pass


def unforeseen(rank, world_size, folder):
    """Rank 1's state_dict raises; nobody waits for the timeout, and the next save works."""
    import time

    sampler = ResumableDistributedSampler(range(50))
    manager = CheckpointManager(folder, {"sampler": sampler, "other": Failing(rank)}, timeout=60)
    started = time.monotonic()
    try:
        manager.save(1)
    except errors.SaveError as error:
        said = str(error)
    waited = time.monotonic() - started
    return said, waited < 30, CheckpointManager(folder, sampler, timeout=60).save(2)


@pytest.mark.slow
def test_an_error_of_any_kind_on_one_rank_is_told_to_all(tmp_path):
    """Not only those that a record can raise."""
    (said, quick, id), (said_too, quick_too, id_too) = run_ranks(2, unforeseen, tmp_path)
    assert said == said_too == "rank 1: device lost"
    assert quick
    assert quick_too
    assert id == id_too


def slow(rank, world_size, folder):
    """Rank 1 comes to the first save when rank 0 has given up; the second save is made by all."""
    import torch.distributed as dist

    sampler = ResumableDistributedSampler(range(50))
    manager = CheckpointManager(folder, sampler, timeout=2)
    manager.save(0)
    said = None
    if rank == 0:
        try:
            manager.save(1)
        except errors.SaveError as error:
            said = str(error)
    dist.barrier()
    if rank == 1:
        try:
            manager.save(1)
        except errors.SaveError as error:
            said = str(error)
    dist.barrier()
    return said, manager.save(2)


@pytest.mark.slow
def test_a_rank_that_does_not_come_is_told_of_in_time_and_forgiven(tmp_path):
    """The error says what to do, and the next save works again."""
    (said, id), (said_too, id_too) = run_ranks(2, slow, tmp_path)
    assert "within 2 seconds" in said
    assert "raise timeout=" in said
    assert said_too is not None
    assert id == id_too


def test_a_record_that_could_not_be_read_back_is_not_written(tmp_path):
    """Nested too deep: refused at save, and what was there stays."""
    sampler = sampler_of()
    manager = CheckpointManager(tmp_path, sampler, keep_last=1)
    before = manager.save(1)
    deep = {}
    for _ in range(40):
        deep = {"a": deep}
    with pytest.raises(errors.RecordCorruptError, match="deeper than"):
        manager.save(2, extras=deep)
    assert manager.restore()["id"] == before


def test_names_that_only_look_like_records_do_no_harm(tmp_path):
    """A number beyond counting, and a folder of a record's name."""
    (tmp_path / "record-9223372036854775807-aaaaaaaaaaaa.json").write_text("{}")
    (tmp_path / "record-00000000-aaaaaaaaaaaa.json").mkdir()
    manager = CheckpointManager(tmp_path, sampler_of(), keep_last=1)
    ids = [manager.save(step) for step in range(3)]
    assert manager.restore()["id"] == ids[-1]


def test_what_was_restored_past_a_damaged_record_can_be_carried_on(tmp_path):
    """state_dict after a fallback loads like any other."""
    sampler = sampler_of()
    manager = CheckpointManager(tmp_path, sampler)
    for step in (1, 2):
        sampler.commit(2)
        id = manager.save(step)
    path = tmp_path / f"record-{id}.json"
    path.write_bytes(path.read_bytes()[:100])
    assert manager.restore(fallback=True)["passed_over"]
    resumed = sampler_of()
    CheckpointManager(tmp_path, resumed).load_state_dict(manager.state_dict())
    assert resumed.state_dict()["committed"] == 2


def test_restoring_from_what_is_no_folder_is_an_error(tmp_path):
    """A record's own path is not an empty folder: the run must not start over in silence."""
    id = CheckpointManager(tmp_path, sampler_of()).save(1)
    with pytest.raises(NotADirectoryError):
        CheckpointManager(tmp_path / f"record-{id}.json", sampler_of()).restore()


def test_no_object_moves_unless_all_can(tmp_path):
    """Of train and val only val is another dataset: train stays where it was, and the message names val."""
    CheckpointManager(tmp_path, {"train": sampler_of(20), "val": sampler_of(9)}).save(1)
    train = sampler_of(20)
    train.commit(7)
    with pytest.raises(errors.RecordMismatchError, match="val: the record"):
        CheckpointManager(tmp_path, {"train": train, "val": sampler_of(8)}).restore()
    assert train.state_dict()["committed"] == 7


def test_keep_and_keep_last_together_are_refused(tmp_path):
    """Neither overrides the other in silence."""
    sampler = ResumableDistributedSampler(range(10), 1, 0)
    with pytest.raises(ValueError, match=r"keep= and keep_last=5 both choose"):
        CheckpointManager(tmp_path, sampler, keep=policies.last(2), keep_last=5)


def test_a_restore_that_finds_nothing_names_the_folder_in_the_log(tmp_path, caplog):
    """A mistyped folder looks like a fresh run; the log says where it was looked for."""
    caplog.set_level("INFO", logger="globidx")
    manager = CheckpointManager(tmp_path / "rnu", ResumableDistributedSampler(range(10), 1, 0))
    assert manager.restore() is None
    assert [record.getMessage() for record in caplog.records] == [
        f"no record in {tmp_path}/rnu: the run begins afresh"
    ]
