"""Data that HDF5 takes from other files: found as HDF5 finds it, never waited for, never from outside unasked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from files import numbers, run_python, write_hdf5
from processes import clean_environment

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.disk.stores.hdf5 import virtual_map
from globidx.errors import BadFilesError, MissingChunkError, ReadError

KINDS = ["virtual", "link", "raw"]


def naming(path, source, kind, data):
    """A file at ``path`` whose ``x`` is ``data``, which ``source`` holds."""
    with h5py.File(path, "w") as file:
        if kind == "virtual":
            layout = h5py.VirtualLayout(data.shape, data.dtype)
            layout[...] = h5py.VirtualSource(source, "d", data.shape)
            file.create_virtual_dataset("x", layout)
        elif kind == "link":
            file["x"] = h5py.ExternalLink(source, "d")
        else:
            file.create_dataset("x", data.shape, data.dtype, external=[(source, 0, data.nbytes)])
    return path


def holding(path, kind, data):
    """The file that another one names."""
    path.parent.mkdir(exist_ok=True)
    if kind == "raw":
        path.write_bytes(data.tobytes())
    else:
        write_hdf5(path, data, key="d")
    return path


def first(path, **options):
    """Its first item."""
    dataset = FileCacheDataset(GlobalIndexManager(path, key="x", **options))
    item = dataset[0].tolist()
    dataset.close()
    return item


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("via", ["name", "link"])
def test_what_lies_outside_the_folder_is_read_only_for_who_asks(tmp_path, kind, via):
    """By an absolute name or through a symbolic link; below the folder it needs no asking."""
    data, folder = numbers(4), tmp_path / "set"
    folder.mkdir()
    outside = holding(tmp_path / "secret", kind, data)
    if via == "link":
        os.symlink(outside, folder / "s")
    path = naming(folder / "a.h5", str(outside if via == "name" else folder / "s"), kind, data)
    with pytest.raises(
        BadFilesError, match="lies outside the folder of .*pass allow_external=True"
    ):
        GlobalIndexManager(path, key="x")
    assert first(path, allow_external=True) == data[0].tolist()
    for name in ("build", "info", "check"):
        command = [sys.executable, "-m", "globidx", "index", name, str(path), "--key", "x"]
        codes = [
            subprocess.run(
                [*command, *more], env=clean_environment(), capture_output=True, check=False
            ).returncode
            for more in ([], ["--allow-external"])
        ]
        assert codes == [1, 0], name
    inside = holding(folder / "raw/s", kind, data)
    assert first(naming(folder / "b.h5", str(inside), kind, data)) == data[0].tolist()


def test_raw_storage_makes_no_samples_of_this_machines_files(tmp_path):
    """The bytes of /etc/passwd are nobody's data, nor is what has no end."""
    for name, said in (("/etc/passwd", "lies outside"), ("/dev/zero", "is no regular file")):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("x", (10,), "u1", external=[(name, 0, 10)])
        with pytest.raises(BadFilesError, match=said):
            GlobalIndexManager(tmp_path / "a.h5", key="x")
    with pytest.raises(BadFilesError, match="is no regular file"):
        GlobalIndexManager(tmp_path / "a.h5", key="x", allow_external=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("when", ["before indexing", "before reading"])
def test_a_fifo_is_never_waited_for(tmp_path, kind, when):
    """Whoever names one, and whenever it came; in a process that would be killed while it waited."""
    data = numbers(4)
    source = holding(tmp_path / "s", kind, data)
    naming(tmp_path / "a.h5", str(source), kind, data)
    code = """
import os, sys
from processes import clean_environment

from globidx import FileCacheDataset, GlobalIndexManager
path, source, when = sys.argv[1:]
def swap():
    os.remove(source)
    os.mkfifo(source)
if when == "before indexing":
    swap()
for missing in ("error", "fill"):
    try:
        manager = GlobalIndexManager(path, key="x")
        dataset = FileCacheDataset(manager, on_missing=missing)
        if os.path.isfile(source):
            swap()
        print("read", dataset[0])
    except OSError as error:
        print(error)
    except ValueError as error:
        print(error)
"""
    told = run_python(code, tmp_path / "a.h5", source, when, timeout=60).stdout
    assert told.count("is no regular file") == 2, told


def test_a_link_behind_a_link_is_looked_at_too(tmp_path):
    """Soft links, groups behind external links, external links of other files, and links in circles."""
    data = numbers(4)
    write_hdf5(tmp_path / "deep.h5", data, key="g/d")
    with h5py.File(tmp_path / "mid.h5", "w") as file:
        file["h"] = h5py.ExternalLink("deep.h5", "g")
        file["soft"] = h5py.SoftLink("/h/d")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = h5py.ExternalLink("mid.h5", "soft")
        file["y"] = h5py.SoftLink("z")
        file["z"] = h5py.SoftLink("y")
    assert first(tmp_path / "a.h5") == data[0].tolist()
    with pytest.raises(BadFilesError, match="behind more than 16 links"):
        GlobalIndexManager(tmp_path / "a.h5", key="y")
    os.remove(tmp_path / "deep.h5")
    os.mkfifo(tmp_path / "deep.h5")
    with pytest.raises(BadFilesError, match="is no regular file"):
        GlobalIndexManager(tmp_path / "a.h5", key="x")


@pytest.mark.parametrize("kind", ["virtual", "link"])
@pytest.mark.parametrize("how", ["moved", "symbolic link", "prefix"])
def test_files_are_found_where_hdf5_finds_them(tmp_path, monkeypatch, kind, how):
    """Absolute names after the folder moved, names beside what a symbolic link leads to, prefixes of the environment."""
    data, folder = numbers(4), tmp_path / "one"
    source = holding(folder / "s.h5", kind, data)
    path = naming(folder / "a.h5", str(source) if how == "moved" else "s.h5", kind, data)
    if how == "moved":
        shutil.move(folder, tmp_path / "two")
        path = tmp_path / "two/a.h5"
    elif how == "symbolic link":
        os.symlink(path, tmp_path / "sym.h5")
        path = tmp_path / "sym.h5"
    else:
        (tmp_path / "raw").mkdir()
        shutil.move(source, tmp_path / "raw/s.h5")
        variable = "HDF5_VDS_PREFIX" if kind == "virtual" else "HDF5_EXT_PREFIX"
        code = "import sys; from globidx import *; m = GlobalIndexManager(sys.argv[1], key='x'); print(FileCacheDataset(m)[0].tolist())"
        told = run_python(code, path, env={**os.environ, variable: str(tmp_path / "raw")}).stdout
        assert told.strip() == str(data[0].tolist())
        return
    with h5py.File(path) as file:
        assert file["x"][0].tolist() == data[0].tolist()
    assert first(path) == data[0].tolist()


def test_an_item_looks_at_its_own_sources_and_at_each_once(tmp_path, monkeypatch):
    """Counted: of 300 sources, a read opens those that its rows lie in; one that is incomplete spoils only its rows."""
    count, looked = 300, []
    layout = h5py.VirtualLayout((2 * count, 3), "u2")
    for number in range(count):
        with h5py.File(tmp_path / f"s{number}.h5", "w") as file:
            file.create_dataset("d", (2, 3), "u2", chunks=(1, 3))[: 1 if number == 7 else 2] = (
                number + 1
            )
        layout[2 * number : 2 * number + 2] = h5py.VirtualSource(f"s{number}.h5", "d", (2, 3))
    with h5py.File(tmp_path / "master.h5", "w", libver="latest") as file:
        file.create_virtual_dataset("x", layout)
    real = virtual_map.VirtualMap._looked_at
    monkeypatch.setattr(
        virtual_map.VirtualMap,
        "_looked_at",
        lambda self, *given: looked.append(given) or real(self, *given),
    )
    dataset = FileCacheDataset(GlobalIndexManager(tmp_path / "master.h5", key="x"))
    assert dataset[0].tolist() == [1, 1, 1] and len(looked) == 1
    assert [item.tolist()[0] for item in dataset.__getitems__([1, 598, 599, 2, 0])] == [
        1,
        300,
        300,
        2,
        1,
    ]
    assert len(looked) == 3
    with pytest.raises(MissingChunkError, match="what other files should hold"):
        dataset[15]
    assert dataset[16].tolist() == [9, 9, 9]
    dataset.close()


@pytest.mark.parametrize("part", ["indptr", "indices", "data"])
def test_the_parts_of_a_sparse_matrix_are_looked_at_too(tmp_path, part):
    """Before they are opened, and as what the file is made of."""
    os.mkfifo(tmp_path / "s")
    parts = {"indptr": np.array([0, 1, 2, 3]), "indices": np.arange(3), "data": np.arange(3.0)}
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "shape": [3, 4]})
        for name, values in parts.items():
            group[name] = h5py.ExternalLink("s", "d") if name == part else values
    code = """
import sys
from globidx import GlobalIndexManager
try:
    print(len(GlobalIndexManager(sys.argv[1], layout="anndata")))
except ValueError as error:
    print(error)
"""
    told = run_python(code, tmp_path / "a.h5ad", timeout=60).stdout
    assert "is no regular file" in told, told
    os.remove(tmp_path / "s")
    write_hdf5(tmp_path / "s", parts[part], key="d")
    entry = GlobalIndexManager(tmp_path / "a.h5ad", layout="anndata").now.entry(0)
    # its own stamp proves nothing of what lies in another file
    assert [stamp[1:3] for stamp in entry.stamps] == [(-1, 0)]


def test_a_signal_behind_a_link_is_followed_to_its_file(tmp_path):
    """A NeXus file whose data lie in another grows with that one, and is not indexed beside it."""

    def written(length):
        (tmp_path / "raw.h5").unlink(missing_ok=True)
        with h5py.File(tmp_path / "raw.h5", "w") as file:
            file["d"] = numbers(length)
            file.attrs["signal"] = "d"
        os.utime(tmp_path / "raw.h5", (10**9, 10**9))

    written(5)
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        file.attrs["default"] = "entry"
        file.create_group("entry").attrs["signal"] = "d"
        file["entry/d"] = h5py.ExternalLink("raw.h5", "/d")
    manager = GlobalIndexManager([tmp_path / "a.nxs"], layout="nexus")
    assert len(manager) == 5
    written(8)
    manager.refresh()
    assert len(manager) == len(GlobalIndexManager([tmp_path / "a.nxs"], layout="nexus")) == 8
    with pytest.raises(
        ValueError, match=r"takes data from .*raw\.h5, and both are among the files"
    ):
        GlobalIndexManager(tmp_path, layout="nexus")


@pytest.mark.parametrize("linked", [False, True])
def test_a_virtual_file_beside_its_sources_is_refused(tmp_path, linked):
    """Every sample would come twice; under another name of the same dataset, too. Each of the two alone is right."""
    layout = h5py.VirtualLayout((10, 3), "u2")
    for number in range(2):
        with h5py.File(tmp_path / f"scan-{number}.h5", "w") as file:
            file["entry/data"] = numbers(5, start=1 + 15 * number)
            file["detector"] = file["entry/data"]
            file["other"] = numbers(5)
        name = "detector" if linked else "entry/data"
        layout[5 * number : 5 * number + 5] = h5py.VirtualSource(f"scan-{number}.h5", name, (5, 3))
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_virtual_dataset("entry/data", layout)
        file.create_virtual_dataset("other", layout)
    with pytest.raises(
        ValueError, match=r"scan\.h5 takes data from .*scan-0\.h5, and both are among the files"
    ):
        GlobalIndexManager(tmp_path, key="entry/data")
    assert len(GlobalIndexManager(tmp_path / "scan.h5", key="entry/data")) == 10
    assert len(GlobalIndexManager(str(tmp_path / "scan-*.h5"), key="entry/data")) == 10
    # other data of these files are nobody's twice
    assert len(GlobalIndexManager(tmp_path, key="other")) == 20


@pytest.mark.slow
@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_workers_with_virtual_datasets_open_exit_whole(tmp_path, context):
    """HDF5 ends with an error of memory where a virtual dataset is open when it does."""
    holding(tmp_path / "s.h5", "virtual", numbers(8))
    naming(tmp_path / "a.h5", "s.h5", "virtual", numbers(8))
    (tmp_path / "run.py").write_text(
        "import sys, torch, globidx\n"
        "if __name__ == '__main__':\n"
        "    dataset = globidx.FileCacheDataset(globidx.GlobalIndexManager(sys.argv[1], key='x'))\n"
        "    dataset[0]\n"
        "    loader = torch.utils.data.DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context=sys.argv[2])\n"
        "    print(sum(int(batch.sum()) for batch in loader))\n"
    )
    done = subprocess.run(
        [sys.executable, tmp_path / "run.py", tmp_path / "a.h5", context],
        capture_output=True,
        text=True,
        timeout=120,
        env=clean_environment(),
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(int(numbers(8).sum()))), done.stderr


def test_a_file_that_came_to_lie_outside_is_refused_when_it_is_opened(tmp_path):
    """Between indexing and reading a folder may change."""
    data = numbers(4)
    source = holding(tmp_path / "set/s.h5", "virtual", data)
    path = naming(tmp_path / "set/a.h5", "s.h5", "virtual", data)
    dataset = FileCacheDataset(GlobalIndexManager(path, key="x"))
    shutil.move(source, tmp_path / "s.h5")
    os.symlink(tmp_path / "s.h5", source)
    with pytest.raises(ReadError, match="lies outside"):
        dataset[0]
    assert np.array_equal(first(path, allow_external=True), data[0])
