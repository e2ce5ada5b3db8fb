"""Several jobs save into one folder while others read it: every record is whole, and there is always a newest one."""

from __future__ import annotations

import subprocess
import sys

import pytest
from files import environment
from writers import litter, record_files

from globidx.disk.records import folder as records
from globidx.errors import RecordError

pytestmark = pytest.mark.slow

# Saves as a checkpoint manager does; after the first record it waits until all jobs have saved one.
JOB = """
import sys
from pathlib import Path
from globidx.core.records import record
from globidx.disk.records import folder as records
folder, job, saves, keep = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
for step in range(saves):
    number = records.next_number(folder)
    made = record.build(
        number=number,
        token=f"{job:06x}{step:06x}",
        step=step,
        time="",
        states={"job": {"is": job}},
        extras={"n": number},
    )
    records.publish(folder, made, durable=False)
    for path in records.list_records(folder)[:-keep]:
        records.remove(path)
    if step == 0:
        print("saved", flush=True)
        sys.stdin.readline()
"""


def jobs(folder, *numbers, saves, keep):
    """Start processes that run JOB; return when each has saved its first record and they go on together."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", JOB, *map(str, (folder, number, saves, keep))],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in numbers
    ]
    assert [process.stdout.readline() for process in processes] == ["saved\n"] * len(processes)
    for process in processes:
        process.stdin.close()
    return processes


def newest_while(processes, folder):
    """Yield the newest record again and again until the processes have ended, without an error."""
    try:
        while any(process.poll() is None for process in processes):
            newest, damaged = records.find(folder, None, fallback=False)
            assert newest is not None and not damaged
            assert newest["extras"]["n"] == newest["number"]
            yield newest
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()
    assert [process.returncode for process in processes] == [0] * len(processes)


def test_a_reader_sees_ten_thousand_saves_whole(tmp_path):
    """One record is kept and replaced 10,000 times while a reader reads: never none, never a part, never an older one."""
    numbers = [
        newest["number"]
        for newest in newest_while(jobs(tmp_path, 1, saves=10_000, keep=1), tmp_path)
    ]
    assert len(set(numbers)) > 100 and numbers == sorted(numbers)
    assert records.read_newest(tmp_path)["number"] == 9_999
    assert len(record_files(tmp_path)) == 1 and litter(tmp_path, record_files(tmp_path)) == []


def test_two_jobs_in_one_folder_never_mix(tmp_path):
    """Two jobs share a folder by mistake: each record is wholly one job's."""
    seen = list(newest_while(jobs(tmp_path, 1, 2, saves=1000, keep=3), tmp_path))
    for newest in seen:
        assert (
            newest["id"].split("-")[1] == f"{newest['states']['job']['is']:06x}{newest['step']:06x}"
        )
    assert {newest["states"]["job"]["is"] for newest in seen} == {1, 2}
    assert litter(tmp_path, record_files(tmp_path)) == []
    for name in record_files(tmp_path):
        records.read_record(tmp_path / name)


def test_a_record_expected_by_a_model_is_looked_for_among_those_there(tmp_path):
    """While a job saves and prunes, a record that is gone is reported as missing, and no other error is raised."""
    for newest in newest_while(jobs(tmp_path, 1, saves=1000, keep=2), tmp_path):
        try:
            assert records.find(tmp_path, newest["id"], fallback=True)[0]["id"] == newest["id"]
        except RecordError as error:
            if "does not hold record" not in str(error):
                raise
