"""Reference sets are what zarr-python reads through fsspec, and lead nowhere that was not allowed."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from files import numbers, run_python, settled_manager, watched_scans, write_hdf5, write_zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.disk.reading import verify
from globidx.errors import BadFilesError, MissingChunkError, NoFilesError, ReadError

fsspec = pytest.importorskip("fsspec")
hdf = pytest.importorskip("kerchunk.hdf")
pytest.importorskip("fastparquet")

from fsspec.implementations.reference import LazyReferenceMapper, ReferenceFileSystem  # noqa: E402


def references_to(path, below=""):
    """References to all chunks of the store in a folder; its metadata inline."""
    refs = {}
    for file in sorted(Path(path).rglob("*")):
        if file.is_file():
            key = below + str(file.relative_to(path))
            is_metadata = file.name in (".zarray", ".zgroup", ".zattrs", "zarr.json")
            refs[key] = file.read_text() if is_metadata else [str(file), 0, file.stat().st_size]
    return refs


def written(path, refs):
    """A JSON file of references."""
    Path(path).write_text(json.dumps({"version": 1, "refs": refs}))
    return str(path)


def samples(manager, **options):
    dataset = FileCacheDataset(manager, **options)
    return np.stack([dataset[id].numpy() for id in range(len(dataset))])


def by_zarr(source, key):
    """The array as zarr-python reads it through the same references."""
    files = ReferenceFileSystem(fo=source, asynchronous=True, skip_instance_cache=True)
    store = zarr.storage.FsspecStore(files, read_only=True, path="")
    return zarr.open_array(store, path=key, mode="r")[:]


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(1, 9),
    chunk=st.integers(1, 4),
    zarr_format=st.sampled_from([2, 3]),
    inline=st.sets(st.integers(0, 8)),
    shift=st.integers(0, 5),
)
def test_parts_of_files_are_what_zarr_reads(
    tmp_path_factory, length, chunk, zarr_format, inline, shift
):
    """Whole files, ranges of one, and chunks that are inline as text of base 64."""
    folder = tmp_path_factory.mktemp("references")
    data = numbers(length)
    write_zarr(folder / "a", {"x": data}, chunk=chunk, zarr_format=zarr_format)
    refs, blob = references_to(folder / "a"), b"#" * shift
    for number, (key, value) in enumerate(refs.items()):
        if isinstance(value, list) and number in inline:
            raw = Path(value[0]).read_bytes()
            refs[key] = "base64:" + base64.b64encode(raw).decode()
        elif isinstance(value, list) and number % 2:
            raw = Path(value[0]).read_bytes()
            refs[key] = [str(folder / "blob"), len(blob), len(raw)]
            blob += raw
    (folder / "blob").write_bytes(blob)
    path = written(folder / "a.json", refs)
    found = samples(GlobalIndexManager(path, key="x", cache_dir=folder))
    np.testing.assert_array_equal(found, data)
    np.testing.assert_array_equal(found, by_zarr(path, "x"))


def test_what_kerchunk_says_of_an_hdf5_file_is_read(tmp_path):
    """Of a real HDF5 file with chunks that are compressed by gzip."""
    data = numbers(20)
    path = write_hdf5(tmp_path / "a.h5", data, chunk=6, compression="gzip")
    with h5py.File(path) as file:
        refs = hdf.SingleHdf5ToZarr(file, path, inline_threshold=0).translate()
    (tmp_path / "a.json").write_text(json.dumps(refs))
    manager = GlobalIndexManager(tmp_path / "a.json", key="x")
    np.testing.assert_array_equal(samples(manager), data)


@pytest.mark.filterwarnings("ignore:The 'fastparquet' engine is deprecated")
def test_references_in_parquet_are_read(tmp_path):
    """As kerchunk and VirtualiZarr write them for very many chunks; their targets are looked at, too."""
    data = numbers(20)
    write_zarr(tmp_path / "in/a", {"x": data}, zarr_format=2)
    refs = references_to(tmp_path / "in/a")
    for folder in ("in", "out"):
        (tmp_path / folder).mkdir(exist_ok=True)
        mapper = LazyReferenceMapper.create(str(tmp_path / folder / "refs.parq"), record_size=3)
        for key, value in refs.items():
            mapper[key] = value.encode() if isinstance(value, str) else value
        mapper.flush()
    manager = settled_manager([tmp_path / "in/refs.parq"], key="x")
    np.testing.assert_array_equal(samples(manager), data)
    assert not manager.refresh()
    metadata = tmp_path / "in/refs.parq/.zmetadata"
    metadata.write_text(metadata.read_text().replace("20,", "21,"))
    assert manager.refresh().grown == ("refs.parq",)
    with pytest.raises(BadFilesError, match="lies outside the folder"):
        GlobalIndexManager([tmp_path / "out/refs.parq"], key="x")


def test_one_stamp_is_that_of_the_references(tmp_path, monkeypatch):
    """An unchanged file of references is not opened again; one that names more rows is seen."""
    write_zarr(tmp_path / "a", {"x": numbers(8)})
    path = written(tmp_path / "a.json", references_to(tmp_path / "a"))
    seen = watched_scans(monkeypatch)
    manager = settled_manager(path, key="x", cache_dir=tmp_path)
    assert not manager.refresh() and seen == ["a.json"]
    zarr.open_array(tmp_path / "a", path="x").resize((9, 3))
    written(path, references_to(tmp_path / "a"))
    assert manager.refresh().grown == ("a.json",)


def test_metadata_by_reference_are_looked_at_each_time(tmp_path):
    """No stamp of the file of references proves anything of another file."""
    write_zarr(tmp_path / "a", {"x": numbers(8)})
    refs = references_to(tmp_path / "a")
    refs["x/zarr.json"] = [str(tmp_path / "a/x/zarr.json")]
    manager = settled_manager(written(tmp_path / "a.json", refs), key="x", cache_dir=tmp_path)
    np.testing.assert_array_equal(samples(manager), numbers(8))
    zarr.open_array(tmp_path / "a", path="x").resize((9, 3))
    assert manager.refresh().grown == ("a.json",)


def test_an_absent_reference_is_an_absent_chunk(tmp_path):
    """An error, or the fill value, and counted."""
    write_zarr(tmp_path / "a", {"x": numbers(12)})
    refs = references_to(tmp_path / "a")
    del refs["x/c/1/0"]
    manager = GlobalIndexManager(written(tmp_path / "a.json", refs), key="x")
    with pytest.raises(MissingChunkError, match="chunk c/1/0 of array 'x' is not in the store"):
        FileCacheDataset(manager)[5]
    assert samples(manager, on_missing="fill")[4:8].sum() == 0
    [[report]] = verify.check(manager.now, decode=True, executor=None)
    assert (report.chunks, report.absent, report.unreadable) == (3, 1, ())


OUTSIDE = [
    "{secret}",
    "file://{secret}",
    "file:{secret}",
    "{folder}/../secret",
    "{folder}/link",
    "simplecache::file://{secret}",
    "memory://secret",
    "http://127.0.0.1:1/secret",
]


@pytest.mark.parametrize("target", OUTSIDE)
def test_references_that_lead_out_of_their_folder_are_refused(tmp_path, monkeypatch, target):
    """However they are spelled; with ``allow_external`` they are followed."""
    data = numbers(4)
    write_zarr(tmp_path / "in/a", {"x": data}, compressors=None)
    refs = references_to(tmp_path / "in/a")
    (tmp_path / "secret").write_bytes(data.tobytes())
    os.symlink(tmp_path / "secret", tmp_path / "in/link")
    fsspec.filesystem("memory").pipe("/secret", data.tobytes())
    # a name without a slash in front counts from here
    monkeypatch.chdir(tmp_path / "in")
    spelled = target.format(secret=tmp_path / "secret", folder=tmp_path / "in")
    refs["x/c/0/0"] = [spelled, 0, data.nbytes]
    path = written("a.json", refs)
    with pytest.raises(BadFilesError, match="lies outside the folder of .*allow_external=True"):
        GlobalIndexManager(path, key="x")
    if "::" in target:
        # fsspec takes chains for names
        return
    manager = GlobalIndexManager(path, key="x", allow_external=True)
    if target.startswith("http"):
        with pytest.raises(ReadError, match="127.0.0.1"):
            FileCacheDataset(manager)[0]
    else:
        np.testing.assert_array_equal(samples(manager), data)


def test_a_reference_to_a_pipe_is_not_opened(tmp_path):
    """It would be waited for."""
    write_zarr(tmp_path / "a", {"x": numbers(4)})
    refs = references_to(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe")
    refs["x/c/0/0"] = [str(tmp_path / "pipe"), 0, 8]
    with pytest.raises(BadFilesError, match="no regular file"):
        GlobalIndexManager(written(tmp_path / "a.json", refs), key="x")


@pytest.mark.parametrize(
    "text", ['{"version": 1, "refs": 3}', '{"version": 1', '{"refs": {"x/0": [7]}}']
)
def test_what_is_no_set_of_references_is_refused(tmp_path, text):
    """By what is wrong with it."""
    (tmp_path / "a.json").write_text(text)
    with pytest.raises((BadFilesError, NoFilesError), match=r"a\.json"):
        GlobalIndexManager(tmp_path / "a.json", key="x")


def test_without_fsspec_the_error_says_what_to_install(tmp_path):
    """The extra is named."""
    write_zarr(tmp_path / "a", {"x": numbers(4)})
    path = written(tmp_path / "a.json", references_to(tmp_path / "a"))
    code = (
        "import sys; sys.modules['fsspec.implementations.reference'] = None\n"
        "from globidx import GlobalIndexManager\n"
        "try: GlobalIndexManager(sys.argv[1], key='x')\n"
        "except Exception as error: print(error)"
    )
    assert "pip install '.[kerchunk]'" in run_python(code, path).stdout
