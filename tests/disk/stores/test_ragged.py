"""Rows that are arrays of their own shapes, against a plain loop over what was written."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx import FileCacheDataset, GlobalIndexManager, Window
from globidx.errors import BadFilesError, ReadError

KINDS = ("zarr", "hdf5")
#: Chunks of zeros as well, which zarr leaves out otherwise.
EVERY_CHUNK = {"write_empty_chunks": True}


def write(path: Path, kind: str, arrays: dict, chunk: int | None = None) -> str:
    """A file of these arrays, all in chunks of ``chunk`` rows."""
    if kind == "zarr":
        group = zarr.open_group(path, mode="w")
        for name, values in arrays.items():
            sizes = (chunk, *values.shape[1:]) if chunk else values.shape
            chunks = tuple(max(1, size) for size in sizes)
            group.create_array(name, data=values, chunks=chunks, config=EVERY_CHUNK)
        return str(path)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            chunks = (chunk, *values.shape[1:]) if chunk else None
            file.create_dataset(
                name,
                data=values,
                chunks=chunks,
                maxshape=(None, *values.shape[1:]) if chunk else None,
            )
    return str(path)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=12),
    chunk=st.sampled_from([None, 1, 3, 7]),
    width=st.sampled_from([(), (2,)]),
    data=st.data(),
)
def test_runs_are_the_rows_between_their_offsets(
    tmp_path_factory, kind, lengths, chunk, width, data
):
    """Empty runs are samples as well; by offsets or ends, and by starts and lengths or stops in any sequence."""
    offsets = np.cumsum([0, *lengths])
    rows = np.arange(offsets[-1] * (2 if width else 1), dtype="f4").reshape(-1, *width)
    wanted = [rows[begin:end] for begin, end in pairwise(offsets)]
    shuffled = data.draw(st.permutations(range(len(lengths))))
    arrays = {
        "rows": rows,
        "offsets": offsets,
        "ends": offsets[1:].astype("u1"),
        "stops": offsets[1:][shuffled],
        "starts": offsets[:-1][shuffled],
        "lengths": np.diff(offsets)[shuffled],
        "label": np.arange(len(lengths)),
    }
    if not len(rows):
        return
    path = write(tmp_path_factory.mktemp("runs") / "a", kind, arrays, chunk)
    ids = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8))
    keys = {
        "rows[offsets]": range(len(lengths)),
        "rows[:ends]": range(len(lengths)),
        "rows[starts,lengths]": shuffled,
        "rows[starts:stops]": shuffled,
    }
    for key, order in keys.items():
        manager = GlobalIndexManager(path, key={"x": key, "y": "label"})
        dataset = FileCacheDataset(manager)
        assert len(dataset) == len(lengths)
        for id, sample in zip(ids, dataset.__getitems__(ids), strict=True):
            assert np.array_equal(sample["x"].numpy(), wanted[order[id]])
            assert sample["x"].dtype.is_floating_point and int(sample["y"]) == id


@pytest.mark.parametrize("kind", KINDS)
def test_samples_own_their_runs(tmp_path, kind):
    """What a loop writes into one is in no other sample, and not in what is kept for the next batch."""
    arrays = {"x": np.arange(6.0), "offsets": np.array([0, 2, 6])}
    path = write(tmp_path / "a", kind, arrays, 2)
    dataset = FileCacheDataset(GlobalIndexManager(path, key="x[offsets]"))
    first, again, _ = dataset.__getitems__([1, 1, 0])
    first[:] = -1
    assert again.tolist() == dataset[1].tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("kind", KINDS)
def test_runs_in_windows(tmp_path, kind):
    """Several runs of a window are a list of tensors, and padding is an empty run."""
    arrays = {"x": np.arange(6.0), "offsets": np.array([0, 2, 3, 6])}
    path = write(tmp_path / "a", kind, arrays)
    window = Window((-1, 0), pad="zero")
    dataset = FileCacheDataset(
        GlobalIndexManager(path, key="x[offsets]", sequences="file", window=window)
    )
    assert [[run.tolist() for run in dataset[id]] for id in range(3)] == [
        [[], [0, 1]],
        [[0, 1], [2]],
        [[2], [3, 4, 5]],
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("tell", "key", "message"),
    [
        (
            {"o": np.array([0.0, 2])},
            "x[o]",
            "'o' for runs, which has shape .* it must hold a row of",
        ),
        ({"o": np.array([[0, 2]])}, "x[o]", r"shape \(1, 2\)"),
        ({"s": np.array([0]), "n": np.array([1, 1])}, "x[s,n]", "'s' and 'n' differ in length"),
        ({}, "x[o]", "names 'o', which is no array"),
        ({"o": np.array([0, 2])}, "y[o]", "names 'y', which is no array"),
        ({"o": np.array([2, 4])}, "x[o]", r"'o' begins with 2, as do the ends of runs.*'x\[:o\]'"),
        ({"o": np.array([], int)}, "x[o]", r"'o' is empty; offsets of n runs have n \+ 1 entries"),
        ({"o": np.array([2, 4]), "s": np.array([0])}, "x[s:o]", "'s' and 'o' differ in length"),
        ({"o": np.array([0.0, 2])}, "x[:o]", "'o' for runs, which has shape"),
    ],
)
def test_arrays_that_tell_no_runs_are_refused_when_they_are_scanned(
    tmp_path, kind, tell, key, message
):
    """The error says which array, and what it holds."""
    path = write(tmp_path / "a", kind, {"x": np.arange(4), **tell})
    with pytest.raises(BadFilesError, match=message):
        GlobalIndexManager(path, key=key)


@pytest.mark.parametrize("kind", KINDS)
def test_ends_that_begin_with_zero_are_known_by_what_nwb_calls_them(tmp_path, kind):
    """A first run without rows looks like offsets, which would leave it out and shift all others."""
    path = write(tmp_path / "a", kind, {"x": np.arange(4), "o": np.array([0, 2, 4])})
    root = zarr.open_group(path) if kind == "zarr" else h5py.File(path, "a")
    root["o"].attrs["neurodata_type"] = "VectorIndex"
    if kind == "hdf5":
        root.close()
    with pytest.raises(BadFilesError, match=r"'o' is a VectorIndex of NWB, .*'x\[:o\]'"):
        GlobalIndexManager(path, key="x[o]")
    dataset = FileCacheDataset(GlobalIndexManager(path, key="x[:o]"))
    assert [dataset[id].tolist() for id in range(3)] == [[], [0, 1], [2, 3]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("tell", "message"),
    [
        ({"o": np.array([0, 3, 2])}, "tell no runs of rows in"),
        ({"o": np.array([0, 3, 9])}, "ends before row 9, to which 'o' leads"),
        ({"o": np.array([-2, 1, 2])}, "tell no runs"),
    ],
)
def test_runs_that_lead_nowhere_are_an_error_when_they_are_read(tmp_path, kind, tell, message):
    """The error says the file and the ids."""
    path = write(tmp_path / "a", kind, {"x": np.arange(4), **tell})
    dataset = FileCacheDataset(GlobalIndexManager(path, key="x[o]"))
    with pytest.raises(ReadError, match=f"sample id .*{message}"):
        dataset.__getitems__([0, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_appended_runs_are_growth(tmp_path, kind):
    """Another offset and the rows before it, after a refresh."""
    path = write(tmp_path / "a", kind, {"x": np.arange(4), "o": np.array([0, 1])}, 2)
    manager = GlobalIndexManager(path, key="x[o]")
    dataset = FileCacheDataset(manager)
    assert len(dataset) == 1 and dataset[0].tolist() == [0]
    dataset.close()
    write(tmp_path / "a", kind, {"x": np.arange(4), "o": np.array([0, 1, 4])}, 2)
    manager.refresh()
    assert [dataset[id].tolist() for id in range(2)] == [[0], [1, 2, 3]]


# -- a file, or a group, as one sample


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_group_is_one_sample(tmp_path_factory, kind, data):
    """Every array of it, each of its own shape, single values and text too, and its attributes."""
    groups = {}
    for number in range(data.draw(st.integers(1, 4))):
        atoms = data.draw(st.integers(0, 3))
        groups[f"config_{number}"] = {
            "positions": np.arange(atoms * 3.0).reshape(atoms, 3),
            "pair": np.full((atoms, 2 * atoms), number, "i4"),
            "cell/a": np.eye(3) * number,
            "energy": np.array(float(number)),
            "name": f"é{number}",
        }
    path = tmp_path_factory.mktemp("groups") / "a"
    opened = zarr.open_group(path, mode="w") if kind == "zarr" else h5py.File(path, "w")
    for group, arrays in groups.items():
        inside = opened.create_group(f"all/{group}")
        inside.attrs["weight"] = int(group[-1])
        for name, values in arrays.items():
            if isinstance(values, str):
                inside.attrs[name] = values
            elif kind == "zarr":
                chunks = tuple(max(1, n) for n in values.shape)
                inside.create_array(name, data=values, chunks=chunks, config=EVERY_CHUNK)
            else:
                inside[name] = values
    if kind == "hdf5":
        opened.close()
    manager = GlobalIndexManager(str(path), key="all/*", sequences="match", window="all")
    dataset = FileCacheDataset(manager)
    assert len(dataset) == len(groups)
    for id, sample in enumerate(dataset.__getitems__(range(len(groups)))):
        wanted = dict(groups[f"config_{id}"])
        assert sample.pop("name") == wanted.pop("name") and int(sample.pop("weight")) == id
        cell = sample.pop("cell")["a"]
        assert np.array_equal(cell.numpy(), wanted.pop("cell/a"))
        assert sample.keys() == wanted.keys()
        for name, values in sample.items():
            assert tuple(values.shape) == wanted[name].shape, name
            assert np.array_equal(values.numpy(), wanted[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_one_sample(tmp_path, kind):
    """Without a key, all that lies in it; with keys, these."""
    for number in range(3):
        arrays = {"bag": np.full((number + 1, 4), number), "label": np.array([number])}
        write(tmp_path / f"{number}.{'zarr' if kind == 'zarr' else 'h5'}", kind, arrays)
    options = {"sequences": "file", "window": "all"}
    dataset = FileCacheDataset(GlobalIndexManager(tmp_path, **options))
    assert [tuple(dataset[id]["bag"].shape) for id in range(3)] == [(1, 4), (2, 4), (3, 4)]
    one = FileCacheDataset(GlobalIndexManager(tmp_path, key="bag", **options))
    assert one[2].tolist() == np.full((3, 4), 2).tolist()


def test_a_group_that_lacks_an_array_of_the_first_is_refused(tmp_path):
    """It would be another sample than the rest."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["all/0/x"], file["all/0/y"], file["all/1/x"] = 1.0, 2.0, 3.0
    with pytest.raises(BadFilesError, match="match '1' has no array 'all/1/y'"):
        GlobalIndexManager(tmp_path, key="all/*", sequences="match", window="all")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("extra", ["y", "deep/y"])
def test_an_array_that_only_a_later_group_has_is_told_by_name(tmp_path, kind, extra):
    """A key of groups means all that lies in them; one of arrays leaves the others out."""
    path = tmp_path / "a"
    opened = zarr.open_group(path, mode="w") if kind == "zarr" else h5py.File(path, "w")
    for name in ("all/0/deep/x", "all/1/deep/x", f"all/1/{extra}"):
        above, _, last = name.rpartition("/")
        opened.require_group(above).create_array(last, data=np.ones(3)) if kind == "zarr" else (
            opened.create_dataset(name, data=np.ones(3))
        )
    if kind == "hdf5":
        opened.close()
    options = {"sequences": "match", "window": "all"}
    told = rf"match '1' has the array 'all/1/{extra}'.* in key=, such as 'all/\*/deep/x'"
    with pytest.raises(BadFilesError, match=told):
        GlobalIndexManager(str(path), key="all/*", **options)
    dataset = FileCacheDataset(GlobalIndexManager(str(path), key="all/*/deep/x", **options))
    assert [dataset[id].tolist() for id in range(2)] == [[1.0] * 3] * 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", [None, "in"])
def test_an_array_that_only_a_later_file_has_is_told_by_name(tmp_path, kind, key):
    """A file that is a sample, or a group of it, is all that lies in there."""
    suffix = "zarr" if kind == "zarr" else "h5"
    for number in range(2):
        opener = zarr.open_group if kind == "zarr" else h5py.File
        opened = opener(tmp_path / f"{number}.{suffix}", mode="w")
        inside = opened.create_group("in")
        for name in ("x", "y")[: number + 1]:
            create = inside.create_array if kind == "zarr" else inside.create_dataset
            create(name, data=np.ones(3))
        if kind == "hdf5":
            opened.close()
    with pytest.raises(BadFilesError, match=rf"1\.{suffix}: it has the array 'in/y'"):
        GlobalIndexManager(tmp_path, key=key, sequences="file", window="all")


def test_groups_without_the_arrays_of_the_first_are_told_apart(tmp_path):
    """One that has others alone would be no sample; one that has none at all is something else."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["all/0/x"], file["all/2/y"] = 1.0, 2.0
        file.create_group("all/1")
    with pytest.raises(BadFilesError, match="match '2' has the array 'all/2/y'"):
        GlobalIndexManager(tmp_path, key="all/*", sequences="match", window="all")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sequences", ["match", "file"])
def test_an_empty_array_beside_others_hides_no_sample(tmp_path, kind, sequences):
    """A molecule of one atom has no bonds, and is a sample all the same; one without atoms is none."""
    suffix = "zarr" if kind == "zarr" else "h5"
    for number in range(3):
        atoms = (2, 1, 0)[number]
        arrays = {"bonds": np.zeros((atoms // 2, 2)), "charges": np.arange(atoms)}
        write(tmp_path / f"{number}.{suffix}", kind, {f"a/{key}": v for key, v in arrays.items()})
    key = "*" if sequences == "match" else None
    manager = GlobalIndexManager(tmp_path, key=key, sequences=sequences, window="all")
    samples = FileCacheDataset(manager).__getitems__(range(len(manager)))
    given = [sample if sequences == "match" else sample["a"] for sample in samples]
    assert [one["charges"].tolist() for one in given] == [[0, 1], [0]]
    assert [tuple(one["bonds"].shape) for one in given] == [(1, 2), (0, 2)]


def test_a_key_that_matches_no_array_and_no_group_says_so(tmp_path):
    """Before anything is scanned."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = 1.0
    with pytest.raises(ValueError, match=r"a\.h5: there is no array in what key 'none/\*' matches"):
        GlobalIndexManager(tmp_path, key="none/*", sequences="match", window="all")


# -- items of any shape


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("backend", ["auto", "library"])
def test_items_of_any_shape(tmp_path, kind, chunk, backend):
    """Each file may have items of its own shape, where the key says so; samples own theirs."""
    suffix = "zarr" if kind == "zarr" else "h5"
    images = [np.arange(5 * size * 3, dtype=">f4").reshape(5, size, 3) for size in (2, 4)]
    for number, values in enumerate(images):
        arrays = {"image": values, "label": np.arange(5)}
        write(tmp_path / f"{number}.{suffix}", kind, arrays, chunk)
    with pytest.raises(BadFilesError, match=r"key='name\[...\]', which leaves shapes open"):
        GlobalIndexManager(tmp_path, key=["image", "label"])
    manager = GlobalIndexManager(tmp_path, key=["image[...]", "label"])
    dataset = FileCacheDataset(manager, backend=backend)
    wanted = [row for values in images for row in values]
    order = [7, 1, 9, 0, 7]
    samples = dataset.__getitems__(order)
    for id, sample in zip(order, samples, strict=True):
        assert sample["image"].shape == wanted[id].shape
        assert np.array_equal(sample["image"].numpy(), wanted[id])
    samples[0]["image"][:] = -1
    assert np.array_equal(samples[4]["image"].numpy(), wanted[7])
    assert np.array_equal(dataset[7]["image"].numpy(), wanted[7])
    assert [tuple(one.shape) for one in (dataset[0]["image"], dataset[9]["image"])] == [
        (2, 3),
        (4, 3),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_items_of_any_shape_in_groups(tmp_path, kind):
    """Rows of groups whose recordings have other numbers of channels, in windows along axis 1."""
    path = tmp_path / "a"
    opened = zarr.open_group(path, mode="w") if kind == "zarr" else h5py.File(path, "w")
    recordings = [np.arange(channels * 6).reshape(channels, 6) for channels in (2, 3)]
    for number, values in enumerate(recordings):
        if kind == "zarr":
            opened.create_array(f"{number}/eeg", data=values, config=EVERY_CHUNK)
        else:
            opened[f"{number}/eeg"] = values
    if kind == "hdf5":
        opened.close()
    manager = GlobalIndexManager(
        str(path), key="*/eeg[...]", axis=1, sequences="match", window=Window((0, 1))
    )
    dataset = FileCacheDataset(manager)
    assert len(dataset) == 10
    for id in range(10):
        sequence, anchor = divmod(id, 5)
        rows = recordings[sequence][:, anchor : anchor + 2].T
        assert [row.tolist() for row in dataset[id]] == rows.tolist()
