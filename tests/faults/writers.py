"""Everything in globidx that writes files: how a folder looks before, what is written, and how it may look afterwards."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import h5py
import numpy as np

from globidx import cli
from globidx.core.index import encoding
from globidx.core.records import record
from globidx.disk.files.atomic import is_temporary
from globidx.disk.index.manager import GlobalIndexManager
from globidx.disk.records import folder as records
from globidx.disk.records.lineage import Lineage
from globidx.errors import SaveError

KEEP = 2


def sealed(number, note=""):
    """A record with the given number, always the same bytes."""
    return record.build(
        number=number,
        token="c0ffee000000",
        step=number,
        time="",
        states={},
        extras={"note": note * 40},
    )


def prune(folder, keep_last):
    """``Lineage.prune`` without the thread that closes what it removed: faults are counted by file operation."""
    for path in Lineage(folder).surplus(keep_last):
        records.remove(path)


def record_files(folder):
    """Names of the record files, oldest first."""
    return [path.name for path in records.list_records(folder)]


def litter(folder, known):
    """Files in a folder with other names than these, but for temporary files that a later save removes."""
    there = os.listdir(folder) if folder.exists() else []
    return [name for name in there if name not in known and not is_temporary(name)]


class Save:
    """A save as a checkpoint manager does it: publish a record beside two others, then prune the oldest."""

    durable = True

    def prepare(self, folder):
        """Write two older records."""
        for number in range(2):
            records.publish(folder, sealed(number), durable=False)

    def run(self, folder, mark):
        """Save, and mark the moment from which on the caller relies on the record."""
        number = records.next_number(folder)
        records.publish(folder, sealed(number), durable=True)
        mark("done")
        prune(folder, KEEP)

    def numbers(self, *, must, may):
        """The lists of record numbers that the folder may have."""
        return [[0, 1]] * (not must) + [[0, 1, 2], [1, 2]] * may

    def judge(self, folder, *, must, may):
        """Which promises are broken: a record is damaged, the new one is missing although it ``must`` exist, or exists
        although it must not (``may``), an old one was removed too early, or other files are left behind.
        """
        wrong, names = [], record_files(folder)
        for name in names:
            try:
                content = records.read_record(folder / name)
                if records.record_path(folder, content["id"]).name != name:
                    wrong.append(f"{name} holds {content['id']}")
            except (records.RecordError, OSError) as error:
                wrong.append(f"{name} is not whole: {error}")
        numbers = [int(name.split("-")[1]) for name in names]
        allowed = self.numbers(must=must, may=may)
        if numbers not in allowed:
            wrong.append(f"the folder has records {numbers}, not one of {allowed}")
        return wrong + [f"{name} is litter" for name in litter(folder, names)]

    def again(self, folder):
        """Start again: find the newest record, and save once more."""
        return self._saved_once_more(folder, self.run)

    def _saved_once_more(self, folder, run):
        before, _ = records.find(folder, None, fallback=False)
        run(folder, str)
        after, _ = records.find(folder, None, fallback=False)
        expected = 0 if before is None else before["number"] + 1
        return (
            []
            if after["number"] == expected
            else [f"the next record is {after['number']}, not {expected}"]
        )


class FirstSave(Save):
    """The first save of a run, into a folder that does not exist yet."""

    def prepare(self, folder):
        """Nothing."""

    def run(self, folder, mark):
        """Save into a new folder."""
        super().run(folder / "new" / "run", mark)

    def numbers(self, *, must, may):
        """No record, or the first."""
        return [[]] * (not must) + [[0]] * may

    def judge(self, folder, *, must, may):
        """The same for the new folder, and nothing is left beside it."""
        wrong = super().judge(folder / "new" / "run", must=must, may=may)
        return wrong + litter(folder, ["new"]) + litter(folder / "new", ["run"])

    def again(self, folder):
        """The same in the new folder."""
        return self._saved_once_more(folder / "new" / "run", super().run)


class Reseal:
    """``globidx record reseal --in-place``: one file replaced by another."""

    durable = True
    name = "record-00000000-c0ffee000000.json"

    def prepare(self, folder):
        """Write a record that was edited by hand."""
        (folder / self.name).write_bytes(self._old())

    def _old(self):
        return record.encode(sealed(0)).replace(b'"step": 0', b'"step": 7')

    def _new(self):
        return record.encode(record.seal({**sealed(0), "step": 7}))

    def run(self, folder, mark):
        """Run the command."""
        stderr = io.StringIO()
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
            code = cli.main(["record", "reseal", "--in-place", str(folder / self.name)])
        if code:
            error = SaveError(stderr.getvalue())
            error.state = next(
                (
                    s
                    for s in ("not written", "written, durability unknown")
                    if f": {s}" in str(error)
                ),
                None,
            )
            raise error
        mark("done")

    def judge(self, folder, *, must, may):
        """The file is the edited one or the sealed one."""
        path = folder / self.name
        if not path.exists():
            return [f"{self.name} is missing"]
        data = path.read_bytes()
        allowed = [self._old()] * (not must) + [self._new()] * may
        wrong = (
            []
            if data in allowed
            else [f"{self.name} is neither old nor new, or not the one it must be: {data[:60]}"]
        )
        return wrong + [f"{name} is litter" for name in litter(folder, [self.name])]

    def again(self, folder):
        """Run the command again; the record may already be sealed."""
        self.run(folder, str)
        return self.judge(folder, must=True, may=True)


def make_data(folder):
    """Write files of 2, 3 and 4 items, and a cache of the first two; the environment tells children where they are."""
    (folder / "data").mkdir()
    for count, name in enumerate("abc", 2):
        if name == "c":
            GlobalIndexManager(str(folder / "data"), key="x", cache_dir=folder / "old")
        with h5py.File(folder / "data" / f"{name}.h5", "w") as file:
            file["x"] = np.ones((count, 2), "u1")
    os.environ["FAULTS_DATA"] = str(folder)


def data_files():
    """The folder of the data files, the name of their cache, and its bytes before the last file was added."""
    folder = Path(os.environ["FAULTS_DATA"])
    (old,) = (folder / "old").glob(".*.index")
    return folder / "data", old.name, old.read_bytes()


class Index:
    """Builds an index without a cache."""

    durable = False

    def prepare(self, folder):
        """Nothing: the data files are elsewhere."""

    def run(self, folder, mark):
        """Build; the index must be right, whether or not the cache could be written."""
        manager = GlobalIndexManager(str(data_files()[0]), key="x", cache_dir=folder)
        if manager.lengths.tolist() != [2, 3, 4]:
            raise AssertionError(f"the index is wrong: {manager.lengths}")
        mark("done")

    def judge(self, folder, *, must, may):
        """There is no cache, the old one, or a whole new one, and no other file."""
        _, name, old = data_files()
        path, wrong = folder / name, []
        if path.exists() and path.read_bytes() != old:
            try:
                encoding.decode(path.read_bytes())
            except ValueError as error:
                wrong.append(f"the cache is torn: {error}")
        lock = Path(name).with_suffix(".lock").name
        return wrong + [f"{name} is litter" for name in litter(folder, [name, lock])]

    def again(self, folder):
        """The next start builds the right index from whatever is left."""
        self.run(folder, str)
        return []


class Reindex(Index):
    """Builds an index with a cache from before a file was added."""

    def prepare(self, folder):
        """Write the old cache."""
        _, name, old = data_files()
        (folder / name).write_bytes(old)


WRITERS = {
    "save": Save(),
    "first save": FirstSave(),
    "reseal": Reseal(),
    "index": Index(),
    "reindex": Reindex(),
}
RUNS = {name: writer.run for name, writer in WRITERS.items()}
