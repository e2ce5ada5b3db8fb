"""Record files: opened carefully, published whole, and never removed on suspicion."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from files import run_python

from globidx import errors, read_record
from globidx.core.records import record
from globidx.disk.files.atomic import temporary_name
from globidx.disk.records import folder as records
from globidx.disk.records.lineage import Lineage
from globidx.disk.records.verify import inspect

GOLDEN = Path(__file__).parents[2] / "golden" / "record-1.json"


def save(folder, step=0, token="0123456789ab", **options):
    """One more record in the folder, as a checkpoint manager saves it."""
    number = records.next_number(folder)
    sealed = record.build(number=number, token=token, step=step, time="", states={}, extras=options)
    return records.publish(folder, sealed, durable=False)


def names(folder):
    """What lies in a folder."""
    return sorted(os.listdir(folder))


def test_what_is_no_file_is_never_waited_for(tmp_path):
    """A FIFO, a device, a folder, a link to nowhere: an error at once, each in its own words."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("nowhere")
    for path, error, told in (
        (tmp_path / "fifo", errors.RecordCorruptError, "no regular file"),
        ("/dev/zero", errors.RecordCorruptError, "no regular file"),
        (tmp_path, IsADirectoryError, "folder"),
        (tmp_path / "link", FileNotFoundError, "there is no record"),
    ):
        with pytest.raises(error, match=told) as caught:
            read_record(path)
        assert str(path) in str(caught.value)


def test_a_file_too_large_for_a_record_is_refused_before_it_is_read(tmp_path):
    """A sparse terabyte costs nothing."""
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(errors.RecordCorruptError, match="1099511627776 bytes, the most is"):
        read_record(tmp_path / "huge")


# Everything that Python tells of while hostile files are read, once all that reading needs is imported.
WATCHED = """
import sys
from pathlib import Path
from globidx.disk.records.folder import read_record
from globidx.errors import RecordError
seen = []
sys.addaudithook(lambda event, args: seen.append((event, *map(str, args[:1]))))
for path in sys.argv[1:]:
    try:
        read_record(path)
    except RecordError:
        pass
told = list(seen)
for event in told:
    if not (event[0] == "open" and event[1] in (*sys.argv[1:], *map(str, range(3, 20)))):
        print(*event)
print("end")
"""


def test_loading_imports_opens_and_runs_nothing(tmp_path):
    """An audit hook sees the record's own file opened and nothing else: no import, no code, no other path, whatever the
    record says.
    """
    import pickle

    from globidx.core.json import strict

    good = record.decode(GOLDEN.read_bytes(), "x")
    hostile = {
        "pickle": pickle.dumps(errors.RecordError("x")),
        "paths": strict.pretty(
            record.seal(
                {
                    **good,
                    "time": "/etc/passwd",
                    "extras": {"import": "os", "__class__": "os.system", "p": "../../x"},
                }
            )
        ),
        "order": strict.pretty(
            record.seal(
                {
                    **good,
                    "states": {
                        "train": good["states"]["train"]
                        | {"order": {"algorithm": "os.system", "version": 1}}
                    },
                }
            )
        ),
        "torn": GOLDEN.read_bytes()[:300],
        "empty": b"",
        "newer": strict.pretty(record.seal({**good, "version": 2})),
    }
    for name, data in hostile.items():
        (tmp_path / name).write_bytes(data)
    done = run_python(WATCHED, GOLDEN, *(tmp_path / name for name in hostile))
    assert done.stdout == "end\n"


def test_only_what_is_provably_a_record_is_removed(tmp_path):
    """Damaged ones, others' content under a record's name, links and folders stay where they are; so does the newest."""
    paths = [save(tmp_path, step) for step in range(6)]
    outside = tmp_path / "outside.json"
    os.rename(paths[0], outside)
    paths[0].symlink_to(outside)
    paths[1].write_bytes(paths[1].read_bytes()[:-30])
    paths[2].write_bytes(paths[3].read_bytes())
    (tmp_path / "record-00000000-aaaaaaaaaaaa.json").mkdir()
    os.mkfifo(tmp_path / "record-00000000-bbbbbbbbbbbb.json")
    before = names(tmp_path)
    Lineage(tmp_path).prune(1)
    assert sorted(set(before) - set(names(tmp_path))) == [paths[3].name, paths[4].name]
    with pytest.raises(ValueError, match="keep_last"):
        Lineage(tmp_path).prune(0)
    assert paths[5].exists() and outside.exists()


def test_a_record_that_cannot_be_removed_is_a_line_in_the_log(tmp_path, monkeypatch, caplog):
    """The save it belongs to has succeeded; other records are still removed."""
    paths = [save(tmp_path, step) for step in range(4)]
    real = Path.unlink

    def failing(path, **options):
        if path == paths[1]:
            raise OSError(errno.EIO, "I/O error")
        real(path, **options)

    monkeypatch.setattr(Path, "unlink", failing)
    Lineage(tmp_path).prune(1)
    assert names(tmp_path) == [paths[1].name, paths[3].name]
    assert "record-00000001" in caplog.text and "cannot be removed" in caplog.text


def test_a_full_count_of_records_is_refused_not_lost(tmp_path):
    """After the last number that a name can hold there is none: no record is written that would not be found again."""
    (tmp_path / "record-999999999999999999-aaaaaaaaaaaa.json").write_text("{}")
    with pytest.raises(errors.SaveError, match="there is none after record-999999999999999999"):
        save(tmp_path)


def test_a_record_pruned_while_it_is_looked_for_is_looked_for_again(tmp_path, monkeypatch):
    """Between listing and reading, the running job replaced it: the newer one is found, never none."""
    save(tmp_path, 1)
    real = records.read_record
    busy = iter(range(5))

    def slow(path):
        for step in busy:
            save(tmp_path, step)
            path.unlink()
            break
        return real(path)

    monkeypatch.setattr(records, "read_record", slow)
    assert records.find(tmp_path, None, fallback=False)[0]["number"] == 5
    busy = iter(range(5))
    assert records.read_newest(tmp_path)["number"] == 10
    busy = iter(range(10**6))
    with pytest.raises(errors.RecordError, match="each was pruned first"):
        records.find(tmp_path, None, fallback=False)


def test_what_lies_in_the_folder_besides_does_no_harm(tmp_path):
    """Links in a circle, FIFOs, folders and names that nearly are records: saving and finding go on."""
    os.symlink("record-00000003-aaaaaaaaaaaa.json", tmp_path / "record-00000003-aaaaaaaaaaaa.json")
    os.mkfifo(tmp_path / "record-00000004-aaaaaaaaaaaa.json")
    (tmp_path / "record-00000005-aaaaaaaaaaaa.json").mkdir()
    (tmp_path / "record-٠٠٠٠٠٠٠٩-aaaaaaaaaaaa.json").write_text(
        "{}"
    )  # digits, but not those of a record's name
    (tmp_path / "Record-00000006-aaaaaaaaaaaa.json").write_text("{}")
    before = names(tmp_path)
    paths = [save(tmp_path, step) for step in range(3)]
    Lineage(tmp_path).prune(1)
    assert records.find(tmp_path, None, fallback=False)[0]["step"] == 2
    assert names(tmp_path) == sorted([*before, paths[2].name])


@pytest.mark.parametrize("target", ["elsewhere/gone.json", "record-00000000-0123456789ab.json/x"])
def test_a_link_that_leads_nowhere_is_a_record_that_cannot_be_read(tmp_path, target):
    """The newest may lie in an archive that is not mounted: an older one is taken on demand only, and that is said."""
    paths = [save(tmp_path, step) for step in range(3)]
    os.rename(paths[2], tmp_path / "moved.json")
    paths[2].symlink_to(target)
    for look in (lambda: records.find(tmp_path, None, fallback=False), lambda: records.read_newest(tmp_path)):  # fmt: skip
        with pytest.raises(errors.RecordCorruptError, match=r"record-00000002.* it is a link, and"):
            look()
    found, passed_over = records.find(tmp_path, None, fallback=True)
    assert found["step"] == 1 and [paths[2].name in one for one in passed_over] == [True]
    report = inspect(tmp_path)
    assert report.problems == 1 and report.records[2][0] == paths[2]
    # its number is not used twice, and it stays
    lineage = Lineage(tmp_path)
    lineage.look()
    assert lineage.next_number() == 3
    save(tmp_path, 3)
    lineage.prune(1)
    assert names(tmp_path) == sorted(
        ["moved.json", paths[2].name, records.list_records(tmp_path)[-1].name]
    )
    paths[2].unlink()
    os.rename(tmp_path / "moved.json", paths[2])
    assert records.find(tmp_path, None, fallback=False)[0]["step"] == 3


def test_saving_sweeps_what_killed_writers_left_long_ago(tmp_path):
    """Our own temporary files of two days ago go; a young one, and a stranger's, stay."""
    old, young = (tmp_path / temporary_name("record-00000000-0123456789ab.json") for _ in range(2))
    stranger = tmp_path / ".record-00000000-0123456789ab.json.0123456789abcdef0123.globidx-tmp"
    for path in (old, young, stranger):
        path.write_bytes(b"half")
    for path in (old, stranger):
        os.utime(path, (time.time() - 200_000,) * 2)
    path = save(tmp_path)
    assert names(tmp_path) == sorted([path.name, young.name, stranger.name])


def test_a_missing_folder_has_no_records_and_a_file_in_its_place_is_an_error(tmp_path):
    """None found is None; something else there is said."""
    assert records.find(tmp_path / "gone", None, fallback=False) == (None, [])
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        records.find(tmp_path / "file", None, fallback=False)
    with pytest.raises(FileNotFoundError, match="holds no record"):
        records.read_newest(tmp_path)
    with pytest.raises(FileNotFoundError):
        records.read_newest(tmp_path / "gone")
