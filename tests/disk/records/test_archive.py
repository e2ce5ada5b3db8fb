"""The archive writes the parts of all ranks as one record, and finds the one that all of them ask for."""

import json
import threading

import pytest

from globidx.core.records.policies import every
from globidx.disk.records.archive import Archive
from globidx.disk.records.folder import list_records, read_record
from globidx.errors import RecordMismatchError, SaveError


def archive_of(folder, run=("a run",), keep=3):
    return Archive(folder, run, keep=keep, durable=False)


def part(step, value=0):
    """What a rank brings to a save."""
    own = {"step": step, "states": {"lr": {"now": value}}, "ranks": {}, "extras": {"of": value}}
    return json.dumps(own).encode()


def publish(archive, step, *, blocking=True, ranks=2):
    return archive.publish([part(step)] * ranks, {}, blocking=blocking, patience=60)


def request(expect=None, fallback=False):
    return json.dumps([expect, fallback]).encode()


def test_what_is_published_is_found_by_whoever_asks(tmp_path):
    """The newest record, with the state that all ranks agreed on; nothing where there is none."""
    archive = archive_of(tmp_path)
    assert archive.find([request()] * 2, 60) == (None, [])
    first, second = publish(archive, 7), publish(archive, 8)
    assert archive.find([request()] * 2, 60) == (second, [])
    assert second["states"] == {"lr": {"now": 0}}
    assert read_record(list_records(tmp_path)[0]) == first


def test_states_are_united_before_they_are_written(tmp_path):
    """By their own function where there is one; else a rank that disagrees is named, and nothing is written."""
    archive = archive_of(tmp_path)
    parts = [part(7, value) for value in (3, 4)]
    merges = {"lr": lambda states: {"sum": sum(state["now"] for state in states)}}
    record = archive.publish(parts, merges, blocking=True, patience=60)
    assert (record["states"], record["extras"]) == ({"lr": {"sum": 7}}, {"of": 3})
    with pytest.raises(RecordMismatchError, match="differs between ranks 0 and 1"):
        archive.publish(parts, {}, blocking=True, patience=60)
    assert len(list_records(tmp_path)) == 1


def test_a_rank_that_sends_no_part_is_named(tmp_path):
    """Bytes of another rank are parsed, and what is no JSON is that rank's error."""
    with pytest.raises(SaveError, match="rank 1 sent what is no part of a record.*not written"):
        archive_of(tmp_path).publish([part(7), b"\x80pickle"], {}, blocking=True, patience=60)
    assert list_records(tmp_path) == []


def test_ranks_that_ask_for_different_records_are_refused(tmp_path):
    """Which record is the right one is not for rank 0 to choose."""
    archive = archive_of(tmp_path)
    id = publish(archive, 7)["id"]
    with pytest.raises(RecordMismatchError, match="rank 1 restores with expect, fallback"):
        archive.find([request(id), request()], 60)


def test_archives_of_one_run_share_its_records_and_others_do_not(tmp_path):
    """Of one run each goes on from what the other has written; another run is refused, once it has looked."""
    first, again = archive_of(tmp_path), archive_of(tmp_path)
    other = archive_of(tmp_path, run=("another run",))
    other.find([request()], 60)
    assert [publish(archive, 7)["number"] for archive in (first, again, first)] == [0, 1, 2]
    with pytest.raises(SaveError, match="another run has written"):
        publish(other, 7)


@pytest.mark.parametrize(("keep", "kept"), [(2, [3, 4]), (every(20), [0, 2, 4])])
def test_the_policy_chooses_what_stays(tmp_path, keep, kept):
    """After each save, of the records of this run."""
    archive = archive_of(tmp_path, keep=keep)
    for number in range(5):
        publish(archive, 10 * number)
    assert [read_record(path)["number"] for path in list_records(tmp_path)] == kept


def test_a_write_in_the_background_is_over_before_the_next_call(tmp_path):
    """Its failure is the next call's error, once; a record is never published beside one under way."""
    archive = archive_of(tmp_path)
    write, may_write = archive.lineage.write, threading.Event()

    def held(*arguments, **options):
        assert may_write.wait(60)
        write(*arguments, **options)

    archive.lineage.write = held
    record = publish(archive, 7, blocking=False)
    assert list_records(tmp_path) == []
    with pytest.raises(SaveError, match="still being written"):
        archive.settle(0.01)
    may_write.set()
    assert archive.find([request()], 60) == (record, [])
    archive.lineage.write = lambda *arguments, **options: 1 / 0
    publish(archive, 8, blocking=False)
    with pytest.raises(SaveError, match="has failed: division by zero"):
        archive.settle(60)
    archive.settle(60)
