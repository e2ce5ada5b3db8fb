"""The records of one run in a folder: numbers go on, another run's records are noticed, and none of them is removed."""

from __future__ import annotations

import pytest

from globidx import errors
from globidx.core.records import record
from globidx.disk.records import folder as records
from globidx.disk.records.lineage import Lineage


def sealed(number, token):
    return record.build(
        number=number, token=token * 12, step=10 * number, time="", states={}, extras={}
    )


def save(lineage, token="a"):
    """The next record of a run, and its number."""
    number = lineage.next_number()
    lineage.write(sealed(number, token), durable=False)
    return number


def numbers(folder):
    return [int(path.name.split("-")[1]) for path in records.list_records(folder)]


def test_numbers_go_on_from_what_is_there(tmp_path):
    """Through saves, and by the next run after it has looked."""
    run = Lineage(tmp_path / "run")
    assert [save(run) for _ in range(3)] == [0, 1, 2]
    resumed = Lineage(tmp_path / "run")
    resumed.look()
    assert save(resumed) == 3


def test_a_record_that_another_run_has_written_since_is_noticed(tmp_path):
    """The save is refused, by its name, as often as it is tried; a look takes it up."""
    run = Lineage(tmp_path)
    save(run)
    stranger = records.publish(tmp_path, sealed(1, "b"), durable=False)
    for _ in range(2):
        with pytest.raises(errors.SaveError, match=stranger.name):
            run.next_number()
    run.look()
    assert save(run) == 2


def test_a_record_of_the_same_number_is_noticed_too(tmp_path):
    """Two runs that save at the same instant."""
    run = Lineage(tmp_path)
    save(run)
    records.publish(tmp_path, sealed(0, "b"), durable=False)
    with pytest.raises(errors.SaveError, match="another run has written"):
        run.next_number()


def test_two_runs_that_begin_together_are_noticed_at_the_first_save(tmp_path):
    """The second one's, not a save late: neither has looked, and the record was not there when they began."""
    one, two = Lineage(tmp_path / "run"), Lineage(tmp_path / "run")
    first = one.next_number()
    stranger = records.publish(tmp_path / "run", sealed(first, "b"), durable=False)
    with pytest.raises(
        errors.SaveError, match=f"{stranger.name}.*since this one began: .*group=None"
    ):
        two.next_number()
    two.look()
    assert save(two) == 1


def test_a_write_that_was_done_and_reported_as_failed_is_this_runs_own(tmp_path, monkeypatch):
    """The next save goes on behind it, instead of taking it for a stranger's."""
    run = Lineage(tmp_path)
    save(run)
    real = records.publish

    def publish(*arguments, **options):
        real(*arguments, **options)
        raise errors.SaveError("the folder's fsync failed")

    monkeypatch.setattr(records, "publish", publish)
    with pytest.raises(errors.SaveError, match="fsync"):
        save(run)
    monkeypatch.undo()
    assert save(run) == 2


def test_a_run_that_did_not_look_begins_beside_and_removes_nothing_of_before(tmp_path, caplog):
    """One line in the log; pruning keeps to its own, until a look makes all of them its own."""
    for number in range(3):
        records.publish(tmp_path, sealed(number, "b"), durable=False)
    run = Lineage(tmp_path)
    assert [save(run) for _ in range(3)] == [3, 4, 5]
    assert caplog.text.count("which this run has not restored and will leave there") == 1
    run.prune(1)
    assert numbers(tmp_path) == [0, 1, 2, 5]
    run.look()
    run.prune(1)
    assert numbers(tmp_path) == [5]


@pytest.mark.parametrize("keep", [1, 2, 3, 10])
def test_the_newest_are_kept(tmp_path, keep):
    """As many as were asked for."""
    run = Lineage(tmp_path)
    for _ in range(5):
        save(run)
    run.prune(keep)
    assert numbers(tmp_path) == list(range(5))[-keep:]


def test_a_policy_chooses_and_the_newest_stays_whatever_it_chooses(tmp_path):
    """Damaged records are not offered to it, and not removed."""
    run = Lineage(tmp_path)
    for _ in range(5):
        save(run)
    records.list_records(tmp_path)[1].write_bytes(b"{}")
    offered = []

    def none_of(entries):
        offered.extend(entry.number for entry in entries)
        return []

    run.prune(none_of)
    assert offered == [0, 2, 3, 4]
    assert numbers(tmp_path) == [1, 4]


def test_a_policy_that_fails_says_that_the_record_is_written(tmp_path):
    """The user's code may raise anything; nothing is removed."""
    run = Lineage(tmp_path)
    for _ in range(2):
        save(run)
    with pytest.raises(
        errors.SaveError, match=r"is written, but keep= failed: KeyError: 'loss'"
    ) as caught:
        run.prune(lambda entries: [entries[0].extras["loss"]])
    assert caught.value.state == errors.UNKNOWN
    assert numbers(tmp_path) == [0, 1]
