"""Who saves what, where: several groups of one job, several jobs in one folder, callers that are no rank, objects of all kinds."""

import os
import threading

import pytest
from files import run_python
from processes import run_ranks

from globidx import (
    CheckpointManager,
    DataLoader,
    ResumableDistributedSampler,
    errors,
    policies,
    read_record,
)
from globidx.disk.records.folder import list_records


def sampler_of(n=100):
    return ResumableDistributedSampler(range(n), 1, 0)


# one folder, several jobs


def test_another_jobs_record_is_noticed_and_named(tmp_path):
    """The save of the job that is behind is refused, nothing is mixed, and restore makes the two one line."""
    ours, theirs = sampler_of(), sampler_of()
    one, two = CheckpointManager(tmp_path, ours), CheckpointManager(tmp_path, theirs)
    one.restore()
    two.restore()
    one.save(1)
    theirs.commit(3)
    with pytest.raises(
        errors.SaveError, match="another run has written record-00000000-"
    ) as caught:
        two.save(1)
    assert caught.value.state == "not written"
    assert len(list_records(tmp_path)) == 1
    two.restore()
    theirs.commit(3)
    newest = two.save(2)
    with pytest.raises(errors.SaveError, match=newest):
        one.save(2)


def test_managers_of_one_run_are_no_strangers_to_each_other(tmp_path):
    """One of them an epoch, or a handler's beside the loop's: they count on, and wait for each other's writes."""
    sampler = sampler_of()
    manager = CheckpointManager(tmp_path, sampler)
    manager.restore()
    manager.save(1)
    write = manager._lineage.write
    started, go = threading.Event(), threading.Event()
    manager._lineage.write = lambda *a, **k: [started.set(), go.wait(10), write(*a, **k)]
    manager.save(2, blocking=False)
    started.wait(10)
    threading.Timer(0.2, go.set).start()
    assert CheckpointManager(tmp_path, sampler).save(3).startswith("00000002-")
    assert manager.save(4).startswith("00000003-")
    assert [read_record(path)["step"] for path in list_records(tmp_path)] == [2, 3, 4]


def test_two_jobs_that_write_at_once_notice_it_at_the_next_save(tmp_path):
    """Records of one number lie side by side, whole, until then."""
    ours, theirs = sampler_of(), sampler_of()
    one, two = CheckpointManager(tmp_path, ours), CheckpointManager(tmp_path, theirs)
    one.restore()
    two.restore()
    theirs.commit(3)
    write = one._lineage.write
    one._lineage.write = lambda *a, **k: [two.save(1), write(*a, **k)]
    one.save(1)
    assert len({read_record(path)["number"] for path in list_records(tmp_path)}) == 1
    one._lineage.write = write
    for manager in (one, two):
        with pytest.raises(errors.SaveError, match="another run"):
            manager.save(2)


def test_records_that_were_there_and_records_that_go_are_no_strangers(tmp_path):
    """A second run over a folder goes on counting, after a fallback too; old records may be removed, or copied back."""
    first = CheckpointManager(tmp_path, sampler_of(), keep_last=9)
    ids = [first.save(step) for step in range(3)]
    sampler = sampler_of()
    second = CheckpointManager(tmp_path, sampler, keep_last=9)
    assert second.restore(expect=ids[1], fallback=True)["step"] == 1
    sampler.commit(1)
    assert second.save(2).startswith("00000003-")
    oldest = list_records(tmp_path)[0]
    data = oldest.read_bytes()
    oldest.unlink()
    second.save(3)
    oldest.write_bytes(data)
    assert second.save(4).startswith("00000005-")


def test_a_record_whose_save_failed_late_is_no_stranger(tmp_path):
    """It may be on disk, durability unknown: the next save goes on behind it."""
    manager = CheckpointManager(tmp_path, sampler_of())
    publish = manager._lineage.write

    def late(sealed, **options):
        from globidx.disk.records import folder as records

        write = records.publish

        def fail(*arguments, **more):
            write(*arguments, **more)
            raise errors.SaveError("no fsync of the folder")

        records.publish = fail
        try:
            publish(sealed, **options)
        finally:
            records.publish = write

    manager._lineage.write = late
    with pytest.raises(errors.SaveError, match="no fsync"):
        manager.save(1)
    manager._lineage.write = publish
    assert manager.save(2).startswith("00000001-")
    assert [read_record(path)["step"] for path in list_records(tmp_path)] == [1, 2]


def test_a_policy_that_fails_says_that_the_record_is_there(tmp_path):
    """And the next save goes on behind it."""
    manager = CheckpointManager(
        tmp_path, sampler_of(), keep=lambda entries: {entries[-1].extras["loss"]}
    )
    with pytest.raises(
        errors.SaveError, match="the record is written, but keep= failed: KeyError"
    ) as caught:
        manager.save(1)
    assert caught.value.state == "written, durability unknown"
    assert len(list_records(tmp_path)) == 1


def test_what_follows_a_save_that_succeeded_does_not_fail_it(tmp_path, monkeypatch, caplog):
    """A folder that cannot be listed then, or no thread to free what was removed, as at a process's end."""
    manager = CheckpointManager(tmp_path, sampler_of(), keep_last=1)
    manager.save(1)
    with monkeypatch.context() as patch:
        patch.setattr(
            threading.Thread, "start", lambda _: exec("raise RuntimeError('no new thread')")
        )
        manager.save(2)
    prune = manager._lineage.prune

    def unlisted(keep):
        with monkeypatch.context() as patch:
            patch.setattr(
                "globidx.disk.records.folder.list_records", lambda _: os.listdir(tmp_path / "gone")
            )
            prune(keep)

    manager._lineage.prune = unlisted
    manager.save(3)
    assert "are not removed" in caplog.text
    assert [read_record(path)["step"] for path in list_records(tmp_path)] == [2, 3]


def test_many_records_that_are_kept_take_no_descriptors(tmp_path, monkeypatch):
    """They are others' to read data by; so are most of those that go at once."""
    manager = CheckpointManager(tmp_path, sampler_of(), keep=policies.every(1), durable=False)
    for step in range(100):
        manager.save(step)
    held = []
    monkeypatch.setattr("globidx.disk.records.lineage._close", held.append)
    manager.save(100)
    CheckpointManager(tmp_path, sampler_of(), durable=False).save(101)
    assert [len(descriptors) for descriptors in held] == [64]
    for descriptor in held[0]:
        os.close(descriptor)


# one job, several groups


def on_a_mesh(rank, world_size, folder):
    """dp x tp on four ranks: data-parallel rank r // 2 has committed 2 + r // 2 batches of one."""
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    sampler = ResumableDistributedSampler(range(20), mesh=mesh["dp"], shuffle=False)
    manager = CheckpointManager(folder, sampler, timeout=60)
    ids = []
    for step in range(4):
        sampler.commit(2 + rank // 2 if step == 0 else 1)
        ids.append(manager.save(step))
    again = ResumableDistributedSampler(range(20), mesh=mesh["dp"], shuffle=False)
    restored = CheckpointManager(folder, again, timeout=60).restore()["id"]
    return ids, manager.state_dict()["states"], restored, list(again)


@pytest.mark.slow
def test_tensor_parallel_peers_save_one_record(tmp_path):
    """Over all ranks of the job: the same ids on all, and nothing but those."""
    results = run_ranks(4, on_a_mesh, tmp_path)
    ids, states, restored, _ = results[0]
    assert all(result[:3] == (ids, states, restored) for result in results)
    assert [path.name for path in list_records(tmp_path)] == [
        f"record-{id}.json" for id in ids[-3:]
    ]
    assert restored == ids[-1]
    assert states["sampler"]["committed"] == 11
    for peer in (0, 2):
        assert results[peer][3] == results[peer + 1][3]
    done = {*range(0, 10, 2), *range(1, 13, 2)}
    assert set(results[0][3] + results[2][3]) == set(range(20)) - done


def two_groups(rank, world_size, folder):
    """Two groups of one rank, each with a manager of its own; rank 1 saves when rank 0 has."""
    import torch.distributed as dist

    groups = [dist.new_group([0]), dist.new_group([1])]
    sampler = ResumableDistributedSampler(range(20), group=groups[rank])
    manager = CheckpointManager(folder, sampler, timeout=60, group=groups[rank])
    manager.restore()
    dist.barrier()
    saved = manager.save(0) if rank == 0 else None
    dist.barrier()
    if rank == 1:
        try:
            manager.save(0)
        except errors.SaveError as error:
            return str(error)
    return saved


@pytest.mark.slow
def test_a_second_group_of_a_job_is_another_run_in_the_folder(tmp_path):
    """One manager writes to a folder, over all ranks: records of two would be mixed."""
    saved, refused = run_ranks(2, two_groups, tmp_path)
    assert f"another run has written record-{saved}.json" in refused
    assert [path.name for path in list_records(tmp_path)] == [f"record-{saved}.json"]


class Mean:
    """A metric: a sum and a count on each rank; what was restored counts once, on whichever rank has it."""

    def __init__(self):
        self.restored, self.sum, self.count = (0, 0), 0, 0

    def add(self, value):
        self.sum, self.count = self.sum + value, self.count + 1

    def state_dict(self):
        return {"restored": list(self.restored), "sum": self.sum, "count": self.count}

    def load_state_dict(self, state):
        self.restored, self.sum, self.count = (state["sum"], state["count"]), 0, 0

    @staticmethod
    def merge_states(states):
        before = states[0]["restored"]
        return {
            "restored": [0, 0],
            "sum": before[0] + sum(state["sum"] for state in states),
            "count": before[1] + sum(state["count"] for state in states),
        }


def metrics(rank, world_size, folder):
    """Two rounds of values, with a restore between."""
    for legs in range(2):
        mean, sampler = Mean(), ResumableDistributedSampler(range(50))
        manager = CheckpointManager(folder, {"sampler": sampler, "mean": mean}, timeout=60)
        manager.restore()
        mean.add(10**rank * (legs + 1))
        manager.save(legs)
    return manager.state_dict()["states"]["mean"]


@pytest.mark.slow
def test_states_that_differ_by_rank_are_merged_by_their_object(tmp_path):
    """Every rank's values count once, over a resume."""
    assert run_ranks(3, metrics, tmp_path) == [{"restored": [0, 0], "sum": 333, "count": 6}] * 3


def silent(rank, world_size, folder):
    """The same without a merge."""
    mean, sampler = Mean(), ResumableDistributedSampler(range(50))
    mean.merge_states = None
    mean.add(rank)
    try:
        CheckpointManager(folder, {"sampler": sampler, "mean": mean}, timeout=60).save(1)
    except errors.RecordMismatchError as error:
        return str(error)


@pytest.mark.slow
def test_states_that_differ_and_cannot_be_merged_are_refused(tmp_path):
    """By the rank, on every rank; nothing is written."""
    said = run_ranks(2, silent, tmp_path)
    assert said[0] == said[1]
    assert "the state of 'mean' differs between ranks 0 and 1: sum is 0 and 1" in said[0]
    assert list_records(tmp_path) == []


# which stay


def test_a_policy_chooses_what_stays(tmp_path):
    """The best, each hundredth step, and always the newest; damaged records and other files are left alone."""
    keep = policies.every(100) | policies.best("loss")
    manager = CheckpointManager(tmp_path, sampler_of(), keep=keep)
    for step in range(0, 300, 50):
        manager.save(step, {"loss": abs(step - 150)})
    assert [read_record(path)["step"] for path in list_records(tmp_path)] == [0, 100, 150, 200, 250]
    damaged = list_records(tmp_path)[0]
    damaged.write_bytes(damaged.read_bytes()[:50])
    manager.save(300)
    assert damaged in list_records(tmp_path)
    with pytest.raises(TypeError, match="policies.last"):
        CheckpointManager(tmp_path, sampler_of(), keep=3)


# who may call


class Saving:
    """A dataset whose items are records."""

    def __init__(self, folder):
        self.manager = CheckpointManager(folder, sampler_of())

    def __len__(self):
        return 1

    def __getitem__(self, item):
        return self.manager.save(1)


def test_a_loaders_worker_is_refused(tmp_path):
    """It is no rank, and would write a copy's state."""
    loader = DataLoader(Saving(tmp_path), num_workers=1)
    with pytest.raises(errors.SaveError, match="DataLoader's worker"):
        list(loader)
    assert list_records(tmp_path) == []


def test_a_forked_child_is_refused(tmp_path):
    """So is any other process than the manager's own."""
    manager = CheckpointManager(tmp_path, sampler_of())
    child = os.fork()
    if not child:
        try:
            manager.save(1)
        except errors.SaveError:
            os._exit(3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def test_a_second_call_at_the_same_time_is_refused(tmp_path):
    """From another thread, or a signal handler."""
    manager = CheckpointManager(tmp_path, sampler_of())
    write, inside, go_on = manager._lineage.write, threading.Event(), threading.Event()

    def slow(*arguments, **options):
        inside.set()
        assert go_on.wait(60)
        write(*arguments, **options)

    manager._lineage.write = slow
    first = threading.Thread(target=manager.save, args=(1,))
    first.start()
    assert inside.wait(60)
    for call in (lambda: manager.save(2), manager.restore, manager.wait):
        with pytest.raises(errors.SaveError, match="is under way"):
            call()
    go_on.set()
    first.join()
    manager._lineage.write = write
    manager.save(2)
    assert [read_record(path)["step"] for path in list_records(tmp_path)] == [1, 2]


# process groups


def gone(rank, world_size, folder):
    """The process group ends before the last save; then there is another."""
    import torch.distributed as dist

    meeting = dist.distributed_c10d._get_default_store()
    sampler = ResumableDistributedSampler(range(50))
    part = dist.new_group([0, 1])
    managers = [
        CheckpointManager(folder, sampler, timeout=60, group=group) for group in (None, part)
    ]
    for manager in managers:
        manager.restore()
    managers[0].save(1)
    dist.destroy_process_group()
    said = []
    for manager in managers:
        try:
            manager.save(2)
        except errors.SaveError as error:
            said.append(str(error))
    dist.init_process_group(
        "gloo", store=dist.PrefixStore("again", meeting), rank=rank, world_size=world_size
    )
    try:
        managers[1].save(2)
    except errors.SaveError as error:
        said.append(str(error))
    return len([s for s in said if "save before destroy_process_group" in s]), managers[0].save(2)


@pytest.mark.slow
def test_a_destroyed_process_group_is_told_of(tmp_path):
    """Rather than one rank saving alone; over a new default group the manager of all ranks goes on."""
    (told, id), (told_too, id_too) = run_ranks(2, gone, tmp_path)
    assert told == told_too == 3
    assert id == id_too


def no_talk(rank, world_size, folder):
    """The default group is one that carries no bytes at all, as NCCL carries none of the CPU's."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore  # noqa: F401 - registers the backend

    meeting = dist.distributed_c10d._get_default_store()
    dist.destroy_process_group()
    dist.init_process_group(
        "fake", store=dist.PrefixStore("fake", meeting), rank=rank, world_size=world_size
    )
    sampler = ResumableDistributedSampler(range(50))
    sampler.commit(2 + rank)
    manager = CheckpointManager(folder, sampler, timeout=60)
    return manager.save(1), manager.state_dict()["states"]["sampler"]["committed"]


@pytest.mark.slow
def test_a_default_group_that_cannot_talk_on_the_cpu_does_no_harm(tmp_path):
    """The manager's own group is gloo."""
    (id, committed), (id_too, committed_too) = run_ranks(2, no_talk, tmp_path)
    assert id == id_too
    assert committed == committed_too == 5


def test_records_that_were_not_restored_are_never_removed(tmp_path, caplog):
    """A script that forgot restore(), or took another run's folder, goes on beside those records; restoring makes them its own."""
    run_python(
        """
import sys
from globidx import CheckpointManager, ResumableDistributedSampler
sampler = ResumableDistributedSampler(range(100), 1, 0, seed=7)
for step in range(3):
    sampler.commit(1)
    CheckpointManager(sys.argv[1], sampler).save(step)
""",
        tmp_path,
    )
    before = {path.name for path in tmp_path.glob("record-*")}
    sampler = ResumableDistributedSampler(range(100), 1, 0, seed=7)
    manager = CheckpointManager(tmp_path, sampler, keep_last=2)
    for step in range(4):
        sampler.commit(1)
        manager.save(step)
    after = {path.name for path in tmp_path.glob("record-*")}
    assert len(before) == 3 and before < after and len(after - before) == 2
    assert [
        record.message for record in caplog.records if "has not restored" in record.message
    ] != []
    manager.restore()
    manager.save(9)
    assert len(list(tmp_path.glob("record-*"))) == 2
