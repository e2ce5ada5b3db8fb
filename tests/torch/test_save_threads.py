"""Saves from a second thread while the loop trains, with threads that change at every instant."""

import sys
import threading

import pytest

from globidx import CheckpointManager, DataLoader, ResumableDistributedSampler, read_record
from globidx.core.progress.state import SamplerState
from globidx.disk.records.folder import list_records
from globidx.torch.loops.quarantine import SubstitutedSamples

N, BATCH = 203, 7


class Data:
    """Every tenth sample cannot be read: another stands in for it."""

    def __init__(self, substitutes):
        self.may_substitute = substitutes

    def __len__(self):
        return N

    def __getitem__(self, id):
        return id

    def __getitems__(self, ids):
        places = tuple(place for place, id in enumerate(ids) if id % 10 == 3)
        return (
            SubstitutedSamples(list(ids), places) if self.may_substitute and places else list(ids)
        )


@pytest.fixture
def _restless():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_restless")
@pytest.mark.parametrize("substitutes", [False, True])
def test_a_save_in_a_second_thread_undoes_nothing(tmp_path, substitutes):
    """Each epoch is given once and ends, each record is of whole batches and none is behind an earlier one."""
    data = Data(substitutes)
    sampler = ResumableDistributedSampler(data, 1, 0, seed=1)
    manager = CheckpointManager(tmp_path, sampler, durable=False, keep_last=10**6)
    loader = DataLoader(data, batch_size=BATCH, sampler=sampler)
    stop, failed = threading.Event(), []

    def save():
        step = 0
        try:
            while not stop.is_set() or step < 5:
                manager.save(step)
                manager.state_dict()
                step += 1
        except Exception as error:  # noqa: BLE001 - the test judges it
            failed.append(error)

    saver = threading.Thread(target=save)
    saver.start()
    try:
        for epoch in range(12):
            given = [id for batch in loader for id in batch.tolist()]
            assert sorted(given) == list(range(N))
            assert sampler.epoch == epoch + 1
    finally:
        stop.set()
        saver.join()
    assert not failed, failed[0]
    assert sampler.quarantined.ids().tolist() == (
        [id for id in range(N) if id % 10 == 3] if substitutes else []
    )
    states = [read_record(path)["states"]["sampler"] for path in list_records(tmp_path)]
    done = [(state["epoch"], state["committed"]) for state in states]
    assert done == sorted(done)
    assert all(committed % BATCH == 0 for _, committed in done)


def test_state_dict_after_a_save_is_of_what_was_committed_since(tmp_path):
    """Commits of a loop that goes on while another thread saves are no part of that save's record."""
    sampler = ResumableDistributedSampler(range(100), 1, 0)
    sampler.quarantine(5)
    manager = CheckpointManager(tmp_path, sampler)
    write = manager._lineage.write

    def meanwhile(*arguments, **options):
        write(*arguments, **options)
        loop = threading.Thread(target=sampler.commit, args=(4,))
        loop.start()
        loop.join()

    manager._lineage.write = meanwhile
    sampler.commit(10)
    id = manager.save(1)
    assert read_record(tmp_path / f"record-{id}.json")["states"]["sampler"]["committed"] == 10
    carried = manager.state_dict()
    assert (carried["states"]["sampler"]["committed"], carried["id"]) == (
        14,
        "00000000-000000000000",
    )


def test_a_save_that_tells_of_a_quarantine_undoes_no_commit(tmp_path, monkeypatch):
    """The loop, in another thread, comes with its batch in the very middle of it."""
    sampler = ResumableDistributedSampler(range(100), 1, 0)
    sampler.quarantine(5)
    manager = CheckpointManager(tmp_path, sampler)
    loop = threading.Thread(target=sampler.commit, args=(4,))
    quarantine, make = sampler.quarantine, SamplerState.__init__

    def in_the_middle(state, **fields):
        """A new state is made of the fields of the old one, which was read just before."""
        if loop.ident is None:
            loop.start()
            loop.join(0.5)  # it waits for us, if all is well
        make(state, **fields)

    def told(ids):
        with monkeypatch.context() as patch:
            patch.setattr(SamplerState, "__init__", in_the_middle)
            quarantine(ids)

    sampler.quarantine = told
    manager.save(1)
    loop.join()
    assert sampler.state_dict()["committed"] == 4
