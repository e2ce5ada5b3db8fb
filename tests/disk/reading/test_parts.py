"""Parts of samples: whatever is selected, of whatever store, is what numpy takes of the whole array."""

import shutil
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx import FileCacheDataset, GlobalIndexManager, Window
from globidx.core.generator import CROP, START
from globidx.errors import MissingChunkError

KINDS = (
    "zarr2",
    "zarr3",
    "shards",
    "transposed",
    "hdf5",
    "contiguous",
    "lzf",
    "virtual",
    "external",
)


def write(folder, kind, data, chunks, name="a"):
    """One array in a file of its own."""
    path = Path(folder, f"{name}.h5" if kind not in KINDS[:4] else f"{name}.zarr")
    if kind == "zarr2":
        zarr.create_array(path, data=data, chunks=chunks, zarr_format=2, order="F")
    elif kind == "zarr3":
        zarr.create_array(path, data=data, chunks=chunks)
    elif kind == "shards":
        shards = tuple(2 * chunk for chunk in chunks)
        zarr.create_array(path, data=data, chunks=chunks, shards=shards)
    elif kind == "transposed":
        codec = zarr.codecs.TransposeCodec(order=tuple(reversed(range(data.ndim))))
        zarr.create_array(path, data=data, chunks=chunks, filters=[codec])
    elif kind == "virtual":
        layout = h5py.VirtualLayout(data.shape, data.dtype)
        with h5py.File(path.with_suffix(".source"), "w") as file:
            for row, item in enumerate(data):
                file[str(row)] = item
                layout[row] = h5py.VirtualSource(
                    path.with_suffix(".source").name, str(row), item.shape
                )
        with h5py.File(path, "w") as file:
            file.create_virtual_dataset("x", layout)
    elif kind == "external":
        raw = path.with_suffix(".raw")
        raw.write_bytes(data.tobytes())
        with h5py.File(path, "w") as file:
            listed = [(raw.name, 0, data.nbytes)]
            file.create_dataset("x", data.shape, data.dtype, external=listed)
    else:
        options = {"hdf5": {"compression": "gzip"}, "lzf": {"compression": "lzf"}, "contiguous": {}}
        most = None
        if kind != "contiguous":
            most = tuple(min(pair) for pair in zip(chunks, data.shape, strict=True))
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=data, chunks=most, **options[kind])
    return path


def index(path, **options):
    """The index of one such file."""
    key = "x" if path.suffix == ".h5" else None
    return GlobalIndexManager(str(path), key=key, cache_dir=path.parent / "cache", **options)


@st.composite
def cases(draw):
    """An array, how it is stored, and what is asked of it, as the user writes it."""
    ndim = draw(st.integers(2, 4))
    shape = [draw(st.integers(1, 7)) for _ in range(ndim)]
    axis = draw(st.integers(0, ndim - 1))
    select, part = {}, {}
    for other in set(range(ndim)) - {axis}:
        size = shape[other]
        element = st.integers(-size, size - 1)
        key = draw(st.sampled_from([other, other - ndim]))
        start = draw(st.integers(0, size - 1))
        slices = st.builds(
            slice, st.just(start), st.integers(start + 1, 9), st.sampled_from([None, 1, 2, 3])
        )
        kind = draw(st.sampled_from(["all", "slice", "list", "int", "part", "both"]))
        if kind in ("slice", "both"):
            select[key] = draw(slices)
        elif kind == "list":
            select[key] = draw(st.lists(element, min_size=1, max_size=6))
        elif kind == "int":
            select[key] = draw(element)
        if kind in ("part", "both"):
            of = draw(st.integers(1, 4))
            part[key] = (draw(st.integers(0, of - 1)), of)
    chunks = tuple(draw(st.integers(1, size + 1)) for size in shape)
    dtype = draw(st.sampled_from(["u1", "<i4", ">f4", "<f8"]))
    data = np.arange(1, 1 + np.prod(shape)).reshape(shape).astype(dtype)
    return data, chunks, axis, select, part


def oracle(rows, axis, ndim, select, part):
    """By numpy, one axis after another, the last one first so that none moves the others."""
    beside = [other for other in range(ndim) if other != axis]
    for other in reversed(beside):
        place = 1 + beside.index(other)
        for key in (other, other - ndim):
            if key in select:
                rows = rows[(slice(None),) * place + (select[key],)]
            if key in part:
                number, of = part[key]
                whole = torch.from_numpy(np.ascontiguousarray(rows))
                rows = torch.tensor_split(whole, of, dim=place)[number].numpy()
    return rows


@settings(max_examples=150, deadline=None)
@given(
    case=cases(),
    kind=st.sampled_from(KINDS),
    backend=st.sampled_from(["auto", "library"]),
    cache_bytes=st.sampled_from([0, 64, 2**20]),
    on_missing=st.sampled_from(["error", "fill"]),
)
def test_parts_are_what_numpy_takes_of_the_whole(case, kind, backend, cache_bytes, on_missing):
    """Select x part x chunks x axis x store x backend x cache, in batches with repeated ids."""
    data, chunks, axis, select, part = case
    rows = np.moveaxis(data, axis, 0)
    expected = oracle(rows.astype(data.dtype.newbyteorder("=")), axis, data.ndim, select, part)
    folder = tempfile.mkdtemp()
    try:
        manager = index(write(folder, kind, data, chunks), axis=axis)
        dataset = FileCacheDataset(
            manager,
            select=select or None,
            part=part or None,
            backend=backend,
            cache_bytes=cache_bytes,
            on_missing=on_missing,
        )
        ids = np.random.default_rng(0).integers(len(rows), size=6).tolist()
        for batch in (list(range(len(rows))), ids, ids[:1]):
            got = dataset.__getitems__(batch)
            for id, sample in zip(batch, got, strict=True):
                np.testing.assert_array_equal(sample.numpy(), expected[id])
                assert sample.numpy().flags.c_contiguous or cache_bytes >= 0
        dataset.close()
    finally:
        shutil.rmtree(folder)


def touched(size, length, taken):
    """How many chunks of an axis hold some of it."""
    return len({element // length for element in np.atleast_1d(np.arange(size)[taken]).tolist()})


@settings(max_examples=60, deadline=None)
@given(case=cases(), kind=st.sampled_from(["zarr3", "shards", "hdf5", "lzf"]))
def test_only_the_chunks_that_are_touched_are_decoded(case, kind):
    """On all axes: of one sample, the product of those that each axis touches; the sizes of the raw ones prove it."""
    data, chunks, axis, select, _ = case
    if kind == "zarr3":
        chunks = tuple(min(pair) for pair in zip(chunks, data.shape, strict=True))
    folder = tempfile.mkdtemp()
    try:
        path = write(folder, kind, data, chunks)
        if kind == "zarr3":
            shutil.rmtree(path)
            zarr.create_array(path, data=data, chunks=chunks, compressors=None)
        if kind in ("hdf5", "lzf"):
            chunks = tuple(min(pair) for pair in zip(chunks, data.shape, strict=True))
        dataset = FileCacheDataset(index(path, axis=axis), select=select or None)
        dataset[0]
        by_axis = {key % data.ndim: value for key, value in select.items()}
        wanted = np.prod(
            [
                touched(size, length, by_axis.get(other, slice(None)))
                for other, (size, length) in enumerate(zip(data.shape, chunks, strict=True))
                if other != axis
            ]
        )
        counters = dataset.counters()
        is_all = all(
            np.array_equal(np.arange(data.shape[other])[value], np.arange(data.shape[other]))
            for other, value in by_axis.items()
        )
        # of whole samples, a row of chunks counts as one, as ever
        assert counters.decodes == (1 if is_all else wanted)
        if kind == "zarr3":
            assert counters.bytes_read == wanted * np.prod(chunks) * data.dtype.itemsize
        dataset.close()
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", ["zarr3", "shards", "hdf5", "lzf"])
def test_a_mesh_of_ranks_decodes_each_its_own_chunk(tmp_path, kind):
    """2 x 2 ranks over 4 chunks an item: one each, together the item, and no byte of another's."""
    data = np.random.default_rng(0).random((8, 3, 32, 48)).astype("f4")
    manager = index(write(tmp_path, kind, data, (4, 3, 16, 24)))
    stored, parts = 0, {}
    for row in range(2):
        for column in range(2):
            dataset = FileCacheDataset(manager, part={2: (row, 2), 3: (column, 2)})
            parts[row, column] = dataset[5]
            assert dataset.counters().decodes == 1
            stored += dataset.counters().bytes_read
            dataset.__getitems__([4, 6, 7])
            assert (dataset.counters().decodes, dataset.counters().hits) == (1, 1)
    whole = torch.cat([torch.cat([parts[row, 0], parts[row, 1]], -1) for row in range(2)], -2)
    np.testing.assert_array_equal(whole.numpy(), data[5])
    dataset = FileCacheDataset(manager)
    dataset[5]
    assert dataset.counters().bytes_read == stored


@pytest.mark.parametrize("kind", ["zarr2", "shards", "hdf5", "lzf"])
def test_three_of_eighty_channels_decode_three_chunks(tmp_path, kind):
    """With and without a cache that holds them."""
    data = np.arange(1, 1 + 2 * 80 * 6, dtype="i4").reshape(2, 80, 6)
    manager = index(write(tmp_path, kind, data, (2, 1, 6)))
    dataset = FileCacheDataset(manager, select={1: [3, 79, 7]})
    np.testing.assert_array_equal(dataset[1].numpy(), data[1][[3, 79, 7]])
    assert dataset.counters().decodes == 3 and dataset.counters().bytes_useful == 72
    dataset[0]
    assert dataset.counters().decodes == 3 and dataset.counters().hits == 1
    assert (
        "of each (80, 6) the part (3, 6), 3 of the chunks beside one another" in dataset.explain()
    )


def test_two_selections_of_one_array_do_not_mix(tmp_path):
    """Under two names, in one batch, with one cache."""
    data = np.arange(1, 1 + 8 * 5 * 6, dtype="i4").reshape(8, 5, 6)
    write(tmp_path, "hdf5", data, (4, 2, 6))
    manager = GlobalIndexManager(
        str(tmp_path / "a.h5"), key={"u": "x", "v": "x", "w": "x"}, cache_dir=tmp_path
    )
    dataset = FileCacheDataset(manager, select={"u": {1: [0, 2]}, "v": {1: slice(1, 3)}})
    for _ in range(2):
        for id, sample in enumerate(dataset.__getitems__(range(8))):
            np.testing.assert_array_equal(sample["u"].numpy(), data[id][[0, 2]])
            np.testing.assert_array_equal(sample["v"].numpy(), data[id][1:3])
            np.testing.assert_array_equal(sample["w"].numpy(), data[id])


def test_a_cached_block_holds_what_was_selected_alone(tmp_path):
    """A cache that is too small for whole rows holds all parts of them."""
    data = np.arange(1, 1 + 16 * 10 * 10, dtype="i4").reshape(16, 10, 10)
    path = write(tmp_path, "zarr3", data, (4, 5, 10))
    dataset = FileCacheDataset(index(path), select={1: 0}, cache_bytes=16 * 10 * 4)
    for _ in range(3):
        dataset.__getitems__(range(16))
    assert dataset.counters().decodes == 4


@pytest.mark.parametrize("kind", ["zarr3", "shards", "hdf5", "lzf"])
@pytest.mark.parametrize("backend", ["auto", "library"])
def test_an_absent_chunk_matters_only_to_who_touches_it(tmp_path, kind, backend):
    """Beside the part it is not looked for; in it, it is an error, or filled if so asked."""
    data = np.arange(1, 1 + 4 * 8 * 6, dtype="i4").reshape(4, 8, 6)
    chunks, hole = (2, 2, 6), slice(4, 8 if kind == "shards" else 6)
    if kind in ("hdf5", "lzf"):
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            made = file.create_dataset(
                "x",
                data.shape,
                "i4",
                chunks=chunks,
                compression="gzip" if kind == "hdf5" else "lzf",
            )
            made[:, : hole.start], made[:, hole.stop :] = (
                data[:, : hole.start],
                data[:, hole.stop :],
            )
    else:
        path = tmp_path / "a.zarr"
        shards = (2, 4, 6) if kind == "shards" else None
        made = zarr.create_array(path, shape=data.shape, dtype="i4", chunks=chunks, shards=shards)
        made[:, : hole.start] = data[:, : hole.start]
        if hole.stop < 8:
            made[:, hole.stop :] = data[:, hole.stop :]
    # on both sides of the hole, where that is no shard
    some = [0, 3] if kind == "shards" else [0, 7]
    beside = FileCacheDataset(index(path), select={1: some}, backend=backend)
    np.testing.assert_array_equal(beside[1].numpy(), data[1][some])
    inside = FileCacheDataset(index(path), select={1: [0, 4]}, backend=backend)
    with pytest.raises(MissingChunkError, match="sample id 1"):
        inside[1]
    filled = FileCacheDataset(index(path), select={1: [4, 0]}, backend=backend, on_missing="fill")
    np.testing.assert_array_equal(filled[1].numpy(), [np.zeros(6), data[1][0]])


def test_by_url_only_the_files_of_the_part_are_asked_for():
    """A server is asked for what is touched, and for no chunk beside it that is absent."""
    data = np.arange(1, 1 + 4 * 8 * 6, dtype="i4").reshape(4, 8, 6)
    url = "memory://parts/a.zarr"
    made = zarr.create_array(url, shape=data.shape, dtype="i4", chunks=(2, 2, 6), overwrite=True)
    made[:, :4], made[:, 6:] = data[:, :4], data[:, 6:]
    folder = tempfile.mkdtemp()
    manager = GlobalIndexManager([url], cache_dir=folder)
    dataset = FileCacheDataset(manager, select={1: [7, 0, 3], 2: slice(1, 6, 2)})
    for id, sample in enumerate(dataset.__getitems__(range(4))):
        np.testing.assert_array_equal(sample.numpy(), data[id][[7, 0, 3], 1:6:2])
    with pytest.raises(MissingChunkError, match="sample id 3"):
        FileCacheDataset(manager, select={1: 5})[3]
    shutil.rmtree(folder)


def test_a_virtual_dataset_is_asked_for_the_part_alone(tmp_path):
    """A source that was not written matters only where the part lies in it."""
    data = np.arange(1, 1 + 3 * 4 * 2, dtype="i4").reshape(3, 4, 2)
    layout = h5py.VirtualLayout(data.shape, "i4")
    for half in range(2):
        with h5py.File(tmp_path / f"half{half}.h5", "w") as file:
            source = file.create_dataset("x", (3, 2, 2), "i4", chunks=(1, 2, 2))
            if half == 0:
                source[...] = data[:, :2]
        layout[:, 2 * half : 2 * half + 2] = h5py.VirtualSource(f"half{half}.h5", "x", (3, 2, 2))
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("x", layout)
    there = FileCacheDataset(index(path), part={1: (0, 2)})
    np.testing.assert_array_equal(there[2].numpy(), data[2, :2])
    with pytest.raises(MissingChunkError, match="what other files should hold"):
        FileCacheDataset(index(path), part={1: (1, 2)})[2]


@pytest.mark.parametrize("kind", ["zarr3", "hdf5", "contiguous", "lzf"])
def test_parts_of_windows_over_stacked_sequences(tmp_path, kind):
    """(sequence, time, y, x): the part of each row of the window, also where padding repeats one, or is zero."""
    data = np.arange(1, 1 + 3 * 6 * 4 * 5, dtype="f4").reshape(3, 6, 4, 5)
    path = write(tmp_path, kind, data, (1, 2, 2, 5))
    for pad, mask in (("edge", False), ("zero", True)):
        window = Window(range(-1, 2), pad=pad, mask=mask)
        manager = index(path, sequences="axis", window=window)
        dataset = FileCacheDataset(manager, select={2: [3, 0]}, part=(1, 2))
        for id in range(len(manager)):
            sequence, time = divmod(id, 6)
            rows = np.clip(np.arange(time - 1, time + 2), 0, 5)
            expected = data[sequence, rows][:, [3, 0]][:, :, 3:]
            sample = dataset[id]
            if pad == "zero":
                expected = expected * ((np.arange(time - 1, time + 2) == rows)[:, None, None])
                sample = sample[next(name for name in sample if name != "mask")]
            np.testing.assert_array_equal(sample.numpy(), expected)


def test_runs_with_wide_gaps_are_read_alone(tmp_path):
    """Of contiguous rows of 2 MiB: the bytes that are taken, and no page between; of narrow ones all in one piece."""
    wide = np.arange(4 * 8 * 65536, dtype="f4").reshape(4, 8, 65536)
    dataset = FileCacheDataset(index(write(tmp_path, "contiguous", wide, None)), select={1: [6, 1]})
    np.testing.assert_array_equal(dataset[3].numpy(), wide[3][[6, 1]])
    assert dataset.counters().bytes_read == 2 * 65536 * 4
    narrow = np.arange(100 * 80, dtype=">f4").reshape(100, 80)
    path = write(tmp_path, "contiguous", narrow, None, name="b")
    dataset = FileCacheDataset(index(path), select={1: [70, 3, 3]})
    got = torch.stack(dataset.__getitems__(range(100)))
    np.testing.assert_array_equal(got.numpy(), narrow[:, [70, 3, 3]])
    assert dataset.counters().bytes_read == (99 * 80 + 70 - 3 + 1) * 4


def test_sparse_rows_are_cut_when_they_are_dense(tmp_path):
    """Genes of AnnData."""
    dense = np.zeros((5, 6), "f4")
    dense[[0, 1, 1, 3, 4], [5, 0, 3, 3, 2]] = [1, 2, 3, 4, 5]
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "shape": dense.shape})
        rows, columns = np.nonzero(dense)
        group["data"], group["indices"] = dense[rows, columns], columns.astype("i4")
        group["indptr"] = np.searchsorted(rows, np.arange(6)).astype("i4")
    manager = GlobalIndexManager(str(tmp_path / "a.h5ad"), layout="anndata", cache_dir=tmp_path)
    dataset = FileCacheDataset(manager, select={1: [3, 0]})
    got = torch.stack(dataset.__getitems__(range(5)))
    np.testing.assert_array_equal(got.numpy(), dense[:, [3, 0]])


def crop(rng, shape):
    """A square of 5 anywhere."""
    return {axis: slice(at := int(rng.integers(shape[axis] - 4)), at + 5) for axis in (-2, -1)}


@pytest.mark.parametrize("kind", ["zarr3", "hdf5", "contiguous", "lzf"])
def test_crops_are_chosen_by_the_samples_generator(tmp_path, kind):
    """Any batch, any process: the same crop of a sample; only the chunks below it are decoded."""
    data = np.arange(6 * 2 * 16 * 16, dtype="i4").reshape(6, 2, 16, 16)
    manager = index(write(tmp_path, kind, data, (2, 2, 4, 4)))
    dataset = FileCacheDataset(manager, select=crop)
    expected = {}
    for id in range(6):
        chosen = crop(START.rng(id, CROP), (1, 2, 16, 16))
        expected[id] = data[id][:, chosen[-2], chosen[-1]]
    for batch in ([0, 1, 2, 3, 4, 5], [5, 5, 0], [3]):
        for id, sample in zip(batch, dataset.__getitems__(batch), strict=True):
            np.testing.assert_array_equal(sample.numpy(), expected[id])
            sample += 1
    assert len({(int(one[0, 0, 0]) % 256) for one in expected.values()}) > 1
    loader = torch.utils.data.DataLoader(dataset, batch_size=3, num_workers=1)
    for number, batch in enumerate(loader):
        np.testing.assert_array_equal(batch.numpy(), [expected[3 * number + at] for at in range(3)])
    assert dataset._reader.cached.nbytes == 0
    if kind != "contiguous":
        dataset.counters(reset=True)
        dataset[4]
        y, x = (chosen.start for chosen in crop(START.rng(4, CROP), (1, 2, 16, 16)).values())
        assert dataset.counters().decodes == len({y // 4, (y + 4) // 4}) * len(
            {x // 4, (x + 4) // 4}
        )


def test_a_crop_may_leave_a_part_to_each_rank(tmp_path):
    """First the crop, then the part of it; also of windows, all rows of which have one crop."""
    data = np.arange(6 * 16 * 16, dtype="i4").reshape(6, 16, 16)
    path = write(tmp_path, "zarr3", data, (2, 4, 4))
    manager = index(path, sequences="file", window=Window(range(2)))
    dataset = FileCacheDataset(manager, select=crop, part=(1, 2))
    chosen = crop(START.rng(3, CROP), (1, 16, 16))
    expected = data[3:5, chosen[-2], chosen[-1]][:, :, 3:]
    np.testing.assert_array_equal(dataset[3].numpy(), expected)


def test_an_error_of_a_crop_names_the_sample(tmp_path):
    """What the function raises, and what it returns that is none."""
    path = write(tmp_path, "zarr3", np.zeros((3, 4, 4), "f4"), (1, 4, 4))
    with pytest.raises(ZeroDivisionError) as raised:
        FileCacheDataset(index(path), select=lambda rng, shape: 1 // 0)[2]
    assert raised.value.__notes__ == ["raised by select, for sample id 2"]
    with pytest.raises(
        ValueError, match=r"select\[1\] is slice\(9, 12, None\), which takes nothing"
    ):
        FileCacheDataset(index(path), select=lambda rng, shape: {1: slice(9, 12)})[2]


@pytest.mark.parametrize("kind", ["zarr3", "contiguous", "lzf"])
def test_a_rank_without_a_part_gets_nothing_and_reads_nothing(tmp_path, kind):
    """Where there are more parts than elements, as of torch.tensor_split."""
    path = write(tmp_path, kind, np.ones((3, 4, 2), "f4"), (1, 4, 2))
    dataset = FileCacheDataset(index(path), part=(2, 3))
    assert dataset[1].shape == (4, 0) and dataset.counters().decodes == 0


def test_a_part_is_decoded_as_the_whole_is(tmp_path):
    """By a function of the part; by netCDF's conventions, the scaled values of it."""
    data = np.arange(1, 1 + 3 * 4 * 5, dtype="i2").reshape(3, 4, 5)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=data, chunks=(1, 2, 5)).attrs.update(
            {"scale_factor": 0.5, "add_offset": 3.0, "_FillValue": np.int16(7)}
        )
    manager = index(path)
    dataset = FileCacheDataset(manager, select={1: [3, 0]}, decode={"x": lambda row: row.sum()})
    assert dataset[1] == data[1][[3, 0]].sum()
    dataset = FileCacheDataset(manager, select={1: [1, 0]}, decode="cf")
    expected = np.where(data[0] == 7, np.nan, data[0] * 0.5 + 3.0)[[1, 0]]
    np.testing.assert_array_equal(dataset[0].numpy(), expected)
    assert dataset.counters().decodes == 1


def test_a_member_of_a_compound_array_has_a_part(tmp_path):
    """Axes are those of the array; each chunk is read once for all its members."""
    data = np.zeros((3, 6), [("pt", "f4"), ("q", "i1"), ("eta", "f8")])
    data["pt"], data["eta"] = np.arange(18).reshape(3, 6), -np.arange(18).reshape(3, 6)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=data, chunks=(1, 2))
    for backend in ("auto", "library"):
        dataset = FileCacheDataset(index(path), select={1: [5, 4, 0, 5]}, backend=backend)
        for id in range(3):
            for name, member in dataset[id].items():
                np.testing.assert_array_equal(member.numpy(), data[name][id][[5, 4, 0, 5]])
        assert dataset.counters().decodes == 6
