"""A folder of records is looked at without a change: what is whole, what is not, and what killed writers left."""

from __future__ import annotations

import os

import pytest

from globidx.core.records import record
from globidx.disk.files.atomic import temporary_name
from globidx.disk.records import folder as records
from globidx.disk.records.verify import inspect


@pytest.fixture
def folder(tmp_path):
    """Three records, a temporary file of an hour ago, and a stranger."""
    for number in range(3):
        sealed = record.build(
            number=number, token="ab" * 6, step=number, time="", states={}, extras={}
        )
        records.publish(tmp_path, sealed, durable=False)
    (tmp_path / "notes.txt").write_text("not a record")
    left = tmp_path / temporary_name("record.json")
    left.write_text("{")
    os.utime(left, (left.stat().st_mtime - 3600,) * 2)
    return tmp_path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_whole_records_are_no_problem_and_nothing_is_changed(folder):
    """Each by its id, oldest first; the temporary file with its age."""
    before = contents(folder)
    report = inspect(folder)
    assert report.problems == 0
    assert [f"record-{id}.json" for _, id, _ in report.records] == sorted(
        name for name in before if name.startswith("record-")
    )
    ((_, age),) = report.temporary
    assert 3600 <= age < 3700
    assert contents(folder) == before


def test_a_damaged_record_and_one_under_anothers_name_are_problems(folder):
    """Each with its reason; the whole ones beside them are told as whole."""
    paths = records.list_records(folder)
    paths[0].write_bytes(paths[0].read_bytes()[:-9])
    paths[1].write_bytes(paths[2].read_bytes())
    report = inspect(folder)
    problems = [problem for _, _, problem in report.records]
    assert report.problems == 2
    assert problems[0].startswith(str(paths[0]))
    assert "was renamed or copied over another" in problems[1]
    assert problems[2] is None


def test_one_record_is_looked_at_by_itself(folder):
    """Without its folder."""
    path = records.list_records(folder)[1]
    report = inspect(path)
    assert [(found, problem) for found, _, problem in report.records] == [(path, None)]
    assert report.temporary == []


def test_where_there_is_no_record_there_is_nothing_to_verify(tmp_path):
    """An empty folder must not pass for a sound one."""
    with pytest.raises(FileNotFoundError, match="holds no record"):
        inspect(tmp_path)
