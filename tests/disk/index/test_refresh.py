"""What ``refresh`` says happened to real files, and what ``stat`` proves of a million of them."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from files import numbers, run_python, settled_manager, write_hdf5, write_zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.core.index.table import ArrayInfo, Entry, Table
from globidx.disk.files.paths import Paths
from globidx.disk.index import stamps
from globidx.disk.stores import base as stores

WRITERS = {"h5": write_hdf5, "zarr": write_zarr}


@pytest.fixture(params=["h5", "zarr"])
def suffix(request):
    return request.param


def write(path, length, start=1):
    return WRITERS[str(path).rsplit(".", 1)[1]](
        path, numbers(length, start=start), key="x", chunk=2
    )


def resize(path, length):
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file["x"].resize(length, axis=0)
    else:
        zarr.open_array(path / "x", mode="r+").resize((length, 3))


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def metadata(path):
    """The file whose stamp is noted."""
    return path / "x/zarr.json" if path.is_dir() else path


def rewrite(path):
    """The same bytes in the same file, written again."""
    file = metadata(path)
    file.write_bytes(file.read_bytes())


def replace(path):
    """Another file of as many items takes its place."""
    write(path.with_name(f"new.{path.suffix[1:]}"), 3, start=70)
    remove(path)
    path.with_name(f"new.{path.suffix[1:]}").rename(path)


def test_everything_that_happens_to_real_files_is_told(tmp_path, suffix):
    """One of each at once: the names come back under what was done to them, in their own kind of file."""
    names = [f"{name}.{suffix}" for name in ("b", "c", "d", "e", "f", "g", "h")]
    for name in names:
        write(tmp_path / name, 3)
    manager = settled_manager(tmp_path)
    assert not manager.refresh()
    resize(tmp_path / names[0], 5)
    resize(tmp_path / names[1], 1)
    replace(tmp_path / names[2])
    rewrite(tmp_path / names[3])
    remove(tmp_path / names[4])
    (tmp_path / names[5]).rename(tmp_path / f"a.{suffix}")
    write(tmp_path / f"bb.{suffix}", 4)
    write(tmp_path / f"z.{suffix}", 4)
    changes = manager.refresh()
    assert changes.grown == (names[0],) and changes.shrunk == (names[1],)
    assert changes.replaced == (names[2],) and changes.rewritten == (names[3],)
    assert changes.removed == (names[4],) and changes.renamed == ((names[5], f"a.{suffix}"),)
    assert changes.inserted == (f"bb.{suffix}",) and changes.appended == (f"z.{suffix}",)
    assert changes.moved == () and not changes.keep_ids
    assert not manager.refresh()


def test_files_in_another_sequence_are_moved(tmp_path, suffix):
    """A list file is edited: what stands elsewhere is named."""
    for name in "abc":
        write(tmp_path / f"{name}.{suffix}", 2)
    lines = tmp_path / "list.txt"
    lines.write_text(f"a.{suffix}\nb.{suffix}\nc.{suffix}\n")
    manager = settled_manager(lines)
    lines.write_text(f"b.{suffix}\nc.{suffix}\na.{suffix}\n")
    changes = manager.refresh()
    assert changes.moved == (f"a.{suffix}",) and not changes.keep_ids
    assert (changes.appended, changes.removed, changes.renamed) == ((), (), ())


def test_appending_keeps_every_id(tmp_path, suffix):
    """Round after round: ids of before stay where they were, and only the new file is opened."""
    write(tmp_path / f"a0.{suffix}", 3)
    manager = settled_manager(tmp_path)
    places = [manager.locate(id) for id in range(3)]
    for count in range(1, 5):
        write(tmp_path / f"a{count}.{suffix}", count % 3)
        changes = manager.refresh()
        assert changes.appended == (f"a{count}.{suffix}",) and changes.keep_ids
        assert [manager.locate(id) for id in range(len(places))] == places
        places = [manager.locate(id) for id in range(len(manager))]


@pytest.mark.parametrize("how", ["folder", "glob", "list file"])
def test_files_appended_in_another_folder_are_appended(tmp_path, suffix, how):
    """The deepest folder that holds all moves up with them; nobody was renamed."""
    for folder in ("s", "t"):
        (tmp_path / folder).mkdir()
    write(tmp_path / f"s/a.{suffix}", 3)
    (tmp_path / "list.txt").write_text(f"s/a.{suffix}\n")
    asked = {
        "folder": tmp_path,
        "glob": tmp_path / f"*/*.{suffix}",
        "list file": tmp_path / "list.txt",
    }[how]
    manager = settled_manager(asked)
    place = manager.locate(2)
    write(tmp_path / f"t/b.{suffix}", 2)
    (tmp_path / "list.txt").write_text(f"s/a.{suffix}\nt/b.{suffix}\n")
    changes = manager.refresh()
    assert (
        changes.appended == (f"t/b.{suffix}",) and changes.keep_ids and str(changes).count(":") == 1
    )
    assert manager.locate(2) == place
    remove(tmp_path / f"t/b.{suffix}")
    (tmp_path / "list.txt").write_text(f"s/a.{suffix}\n")
    changes = manager.refresh()
    assert changes.removed == (f"t/b.{suffix}",) and not changes.keep_ids and not changes.renamed


@settings(max_examples=25)
@given(st.data())
def test_keep_ids_is_what_locate_says_over_any_history(data):
    """Real files, some steps between two looks: ``keep_ids`` is true exactly when every old id is located as before."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(3):
            write(
                folder / f"f{number}.{data.draw(st.sampled_from(['h5', 'zarr']))}",
                data.draw(st.integers(0, 3)),
            )
        manager = settled_manager(folder)
        for _ in range(2):
            before = [manager.locate(id) for id in range(len(manager))]
            for _ in range(data.draw(st.integers(0, 2))):
                files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
                chosen = data.draw(st.sampled_from(files))
                match data.draw(st.sampled_from(["add", "remove", "rename", "resize", "rewrite"])):
                    case "add":
                        letter = data.draw(st.sampled_from("azz"))
                        path = (
                            folder
                            / f"{letter}{len(files)}.{data.draw(st.sampled_from(['h5', 'zarr']))}"
                        )
                        if not path.exists():
                            write(path, data.draw(st.integers(0, 2)))
                    case "remove" if len(files) > 1:
                        remove(chosen)
                    case "rename":
                        chosen.rename(
                            chosen.with_name(f"{data.draw(st.sampled_from('az'))}{chosen.name}")
                        )
                    case "resize":
                        resize(chosen, data.draw(st.integers(0, 4)))
                    case _:
                        rewrite(chosen)
            changes = manager.refresh()
            after = [manager.locate(id) for id in range(len(manager))]
            assert changes.keep_ids == (before == after[: len(before)])
            assert (
                manager.fingerprint
                == settled_manager(folder, cache_dir=folder / ".other").fingerprint
            )


def test_a_refresh_of_what_did_not_change_opens_nothing(tmp_path, suffix, monkeypatch):
    """Only files that something happened to are opened: here one of four."""
    for number in range(4):
        write(tmp_path / f"{number}.{suffix}", 2)
    manager = settled_manager(tmp_path)
    real, seen = stores.scan, []

    def counted(path, *rest):
        seen.append(path)
        return real(path, *rest)

    monkeypatch.setattr(stores, "scan", counted)
    assert not manager.refresh() and seen == []
    resize(tmp_path / f"2.{suffix}", 3)
    assert manager.refresh().grown == (f"2.{suffix}",) and [
        os.path.basename(path) for path in seen
    ] == [f"2.{suffix}"]


# -- stamps


def one_by_one(path, entry):
    """Whether a file is provably as it was, told with a ``stat`` of each of its files."""
    if entry.kind == "hdf5":
        files = [path]
    else:
        marker = ".zarray" if entry.kind == "zarr2" else "zarr.json"
        files = [os.path.join(path, info.path, marker) for info in entry.arrays]
    for file, noted in zip(files, entry.stamps, strict=False):
        try:
            found = os.stat(file)
        except OSError:
            return False
        if (
            noted[2] == 0
            or (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino) != noted
        ):
            return False
    return True


@settings(max_examples=60)
@given(data=st.data())
def test_many_files_are_proven_as_one_by_one(data, tmp_path_factory):
    """Any mix of kinds, arrays at one place or several, stamps right, wrong, young or of files that are gone."""
    folder = tmp_path_factory.mktemp("stat")
    width = data.draw(st.integers(1, 2))
    count = data.draw(st.integers(1, 6))
    alike = data.draw(st.booleans())
    names, entries = [], []
    for number in range(count):
        kind = data.draw(st.sampled_from(["hdf5", "zarr2", "zarr3"]))
        path = folder / str(number)
        infos = []
        for place in range(width):
            where = (
                f"k{place}" if alike else data.draw(st.sampled_from([f"k{place}", f"g/{place}"]))
            )
            infos.append(ArrayInfo(f"k{place}", (), "uint8", 0, where))
        files = (
            [path]
            if kind == "hdf5"
            else [path / i.path / (".zarray" if kind == "zarr2" else "zarr.json") for i in infos]
        )
        noted = []
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x" * number)
            found = os.stat(file)
            stamp = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
            match data.draw(st.sampled_from(["", "", "", "wrong", "young", "gone"])):
                case "wrong":
                    stamp[data.draw(st.integers(0, 3))] += 1
                case "young":
                    stamp[1] = stamp[2] = 0
                case "gone":
                    file.unlink()
            noted.append(tuple(stamp))
        names.append(str(number))
        entries.append(Entry(kind, 1, tuple(infos), bytes(16), tuple(noted)))
    table = Table.of(names, entries)
    paths = Paths.of(os.fsencode(folder / name) for name in names)
    chosen = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1)))
    rows = np.array(chosen, np.int64)
    stamps._BLOCK, block = data.draw(st.sampled_from([1, 2, 16384])), stamps._BLOCK
    try:
        found = stamps.unchanged(table, rows, Paths(os.fspath(folder), paths.names), rows).tolist()
    finally:
        stamps._BLOCK = block
    assert found == [
        one_by_one(os.fspath(folder / names[place]), entries[place]) for place in chosen
    ]


def test_inode_numbers_of_64_bits_are_kept(tmp_path):
    """Some file systems use them all; a stamp is int64."""
    assert stamps.stamps_of([b"/nowhere"]).tolist() == [[-1, 0, 0, 0]]
    real = os.stat

    def large(path, **options):
        found = list(real(path, **options))
        found[1] = 2**64 - 5
        return os.stat_result(
            [*found, 1.0, 2.0, 3.0, 4, 5, 6, 512, 8, 0][: os.stat_result.n_fields]
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "stat", large)
        assert stamps.stamps_of([os.fsencode(tmp_path)])[0, 3] == 2**63 - 5


def test_an_hdf5_file_that_grew_while_it_was_open_is_seen_as_it_is(tmp_path):
    """Where nothing locks files: HDF5 answers from what the process knows of a file that it has open."""
    code = """
import os, subprocess, sys
from globidx import FileCacheDataset, GlobalIndexManager
path, grow = sys.argv[1:]
os.utime(path, (10**9, 10**9))
options = {"key": "x", "settled_after": 0}
manager = GlobalIndexManager(path, **options)
both = [FileCacheDataset(manager), FileCacheDataset(manager)]
print(len(manager), *(dataset[2][0].item() for dataset in both))
for length in (5, 7, 9, 11):
    subprocess.run([sys.executable, "-c", grow, path, str(length)], check=True)
    manager.refresh()
    # the second one still has it open as it was, and after it the first as it was then
    print(len(manager), len(GlobalIndexManager(path, **options)), both[0][length - 1][0].item())
    if length < 11:
        continue
    other = "from globidx import *; import sys; print(len(GlobalIndexManager(sys.argv[1], key='x')))"
    asked = subprocess.run([sys.executable, "-c", other, path], check=True, capture_output=True)
    print(int(asked.stdout), both[1][length - 1][0].item())
"""
    grow = """
import h5py, sys
with h5py.File(sys.argv[1], "r+") as file:
    length = int(sys.argv[2])
    file["x"].resize(length, axis=0)
    file["x"][length - 2:] = length
"""
    write(tmp_path / "a.h5", 3)
    told = run_python(code, tmp_path / "a.h5", grow, env={"HDF5_USE_FILE_LOCKING": "FALSE"}).stdout
    # at last by another process, from the cache that this one wrote, and by the second one
    assert told.splitlines() == ["3 7 7", "5 5 5", "7 7 7", "9 9 9", "11 11 11", "11 11"]
