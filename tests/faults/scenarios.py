"""Damaged and foreign files. Each function runs in a child and returns (number of faults, broken promises)."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from writers import prune, record_files, sealed

from globidx.core.datasets.identity import DatasetIdentity
from globidx.core.json import strict
from globidx.core.orders.plain import Sequential, Shuffle
from globidx.core.progress import tracker
from globidx.core.progress.merge import merge_states
from globidx.core.progress.segments import Progress
from globidx.core.progress.state import SamplerState
from globidx.core.records import record
from globidx.disk.files import atomic
from globidx.disk.index.manager import GlobalIndexManager
from globidx.disk.records import folder as records
from globidx.errors import RecordError, RecordMismatchError, SaveError

GOLDEN = Path(__file__).parents[1] / "golden" / "record-1.json"


def planted(folder, mark):
    """A link to another file already has the name that the temporary file will get."""
    atomic.secrets = type("Fixed", (), {"token_hex": staticmethod(lambda size: "00" * size)})
    path, victim = records.record_path(folder, sealed(0)["id"]), folder / "victim"
    temporary = folder / atomic.temporary_name(path.name)
    wrong = []
    for plant in (lambda: os.link(victim, temporary), lambda: os.symlink("victim", temporary)):
        victim.write_bytes(b"theirs")
        plant()
        try:
            records.publish(folder, sealed(0), durable=True)
            wrong.append("the record was written through the link")
        except SaveError:
            pass
        if victim.read_bytes() != b"theirs":
            wrong.append("their file was written to")
        for left in (temporary, path):
            left.unlink(missing_ok=True)
    return 2, wrong


def foreign(folder, mark):
    """Old files whose names resemble ours, and damaged or misnamed records, stay while a run saves and prunes."""
    whole = [records.publish(folder, sealed(number), durable=False).name for number in range(6)]
    damaged, mistaken, linked = (folder / name for name in whole[:3])
    damaged.write_bytes(damaged.read_bytes()[:-20])
    mistaken.write_bytes((folder / whole[5]).read_bytes())
    linked.rename(folder / "elsewhere.json")
    linked.symlink_to("elsewhere.json")
    ours = atomic.temporary_name("record-00000000-c0ffee000000.json")
    young = atomic.temporary_name("record-00000000-c0ffee000000.json")
    alike = [
        ours.replace("c0ffee", "coffee"),
        ".model.pt.tmp",
        f".model.0123456789ab01234567{atomic.TEMPORARY_SUFFIX}",
        f"x{atomic.TEMPORARY_SUFFIX}",
        "record-00000000-c0ffee000000.json.bak",
    ]
    for name in (ours, young, *alike):
        (folder / name).write_bytes(b"half")
    for path in folder.iterdir():
        if path.name != young:
            os.utime(path, (time.time() - 200_000,) * 2, follow_symlinks=False)
    before = set(os.listdir(folder))
    records.publish(folder, sealed(6), durable=True)
    prune(folder, 1)
    gone, expected = before - set(os.listdir(folder)), {ours, *whole[3:6]}
    wrong = [f"{name} was removed" for name in gone - expected] + [
        f"{name} stays" for name in expected - gone
    ]
    return len(before), wrong


def flips(folder, mark):
    """Each bit of a record is flipped, and the record is truncated at each byte."""
    data, good = GOLDEN.read_bytes(), record.decode(GOLDEN.read_bytes(), "x")
    damaged = {f"cut to {length}": data[:length] for length in range(len(data) - 1)}
    for at in range(len(data)):
        for bit in range(8):
            damaged[f"bit {bit} of byte {at}"] = (
                data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            )
    return len(damaged), [
        what for what, bytes_ in damaged.items() if not _refused_or_same(bytes_, good)
    ]


def _refused_or_same(data, good):
    try:
        # A change of white space alone is harmless.
        return record.decode(data, "x") == good
    except RecordError:
        return True


def other_run(folder, mark):
    """An undamaged record of other data, another seed or another order."""
    mine = SamplerState(
        DatasetIdentity(1003, 2, "ab"),
        Shuffle().describe(),
        5,
        0,
        "pad",
        Progress(1003).extend((40,)),
    )
    data = type("Data", (), {"__len__": lambda _: 1003, "num_files": 2, "fingerprint": "ab"})()
    strangers = [
        replace(mine, dataset=DatasetIdentity(1003, 2, "cd")),
        replace(mine, dataset=DatasetIdentity(1004, 2, "ab"), progress=Progress(1004)),
        replace(mine, dataset=DatasetIdentity(1003, 3, "ab")),
        replace(mine, seed=6),
        replace(mine, order=Sequential().describe()),
    ]
    wrong = []
    for index, stranger in enumerate(strangers):
        state = SamplerState.from_dict(merge_states([stranger.to_dict()]))
        try:
            tracker.refuse_other_run(state, dataset=data, order=Shuffle(), seed=5)
            wrong.append(f"the record of stranger {index} is loaded")
        except RecordMismatchError:
            pass
    return len(strangers), wrong


def replaced_file(folder, mark):
    """A data file is replaced by a longer or shorter one after its row was cached."""
    (folder / "data").mkdir()
    wrong = []
    for count in (3, 4, 2):
        with h5py.File(folder / "new.h5", "w") as file:
            file["x"] = np.ones((count, 2), "u1")
        os.replace(folder / "new.h5", folder / "data" / "a.h5")
        # The same time as the file before it, as rsync leaves it.
        os.utime(folder / "data" / "a.h5", (1e9, 1e9))
        length = len(GlobalIndexManager(str(folder / "data"), key="x", cache_dir=folder))
        if length != count:
            wrong.append(f"the index has {length} items, the file {count}")
    return 3, wrong


def other_content(folder, mark):
    """The newest record is replaced by a pickle, an archive, NULs, or JSON that is too deep, too long or ambiguous."""
    good = records.publish(folder, sealed(0), durable=False)
    bad = records.record_path(folder, sealed(1)["id"])
    body = strict.pretty(sealed(1))
    contents = [
        b"",
        b"\0" * len(body),
        b"\x80\x04}.",
        b"PK\x03\x04" + body,
        b"\x93NUMPY" + body,
        b"[" * 100_000,
        b"9" * 100_000,
        body + body,
        body + b"x",
        b"\xef\xbb\xbf" + body,
        body.decode().encode("utf-16"),
        body.replace(b'"step": 1', b'"step": 1, "step": 1'),
        body.replace(b'"step": 1', b'"step": true'),
        body.replace(b'"step": 1', b'"step": 1.0'),
        body.replace(b'"step": 1', b'"step": NaN'),
        body.replace(b'"step": 1', b'"step": 1e999'),
    ]
    wrong = []
    for index, content in enumerate(contents):
        bad.write_bytes(content)
        try:
            records.find(folder, None, fallback=False)
            wrong.append(f"content {index} is accepted as a record")
        except RecordError as error:
            if bad.name not in str(error):
                wrong.append(f"content {index} is refused without the name of its file")
        older, damaged = records.find(folder, None, fallback=True)
        if older["id"] != sealed(0)["id"] or len(damaged) != 1:
            wrong.append(f"content {index} hides the older record")
    return len(contents), wrong + [
        f"{name} is gone" for name in {good.name, bad.name} - set(record_files(folder))
    ]


RUNS = {
    "planted temporary file": planted,
    "foreign files": foreign,
    "bit flips and truncations": flips,
    "other content": other_content,
    "another run's record": other_run,
    "a file replaced after indexing": replaced_file,
}
