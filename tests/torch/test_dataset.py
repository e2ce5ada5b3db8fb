"""The dataset: samples by id out of mixed files, the same in every process."""

from __future__ import annotations

import copy
import os
import pickle
import random
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import zarr
from files import numbers, open_descriptors, run_python, write_hdf5, write_zarr

import globidx
from globidx import FileCacheDataset, GlobalIndexManager
from globidx.errors import MissingChunkError, ReadError

LENGTHS = (5, 0, 7, 6, 9)


@pytest.fixture
def data():
    """The oracle: images and labels of all samples, in two arrays."""
    total = sum(LENGTHS)
    return numbers(total, (2, 3)), numbers(total, (), "f4", start=1000)


@pytest.fixture
def folder(tmp_path, data):
    """The samples in five files: zarr 2 and 3, sharded, HDF5 chunked and contiguous, one of them without items."""
    writers = [
        (write_zarr, "a.zarr", {"zarr_format": 2}),
        (write_hdf5, "b.h5", {}),
        (write_hdf5, "c.h5", {"chunk": 3, "compression": "gzip"}),
        (write_zarr, "d.zarr", {"chunk": 2, "shard": 4}),
        (write_hdf5, "e.h5", {}),
    ]
    start = 0
    for (write, name, options), length in zip(writers, LENGTHS, strict=True):
        images, labels = (array[start : start + length] for array in data)
        write(tmp_path / name, {"images": images, "labels": labels}, **options)
        start += length
    return tmp_path


@pytest.fixture
def manager(folder):
    return GlobalIndexManager(folder, key=["images", "labels"])


def same(sample, data, id):
    np.testing.assert_array_equal(sample["images"], data[0][id], strict=True)
    np.testing.assert_array_equal(sample["labels"], data[1][id])
    return True


@pytest.mark.parametrize(
    "options",
    [{}, {"cache_bytes": 0}, {"cache_bytes": 40}, {"max_open_files": 1}],
    ids=["default", "no-cache", "small-cache", "one-file"],
)
def test_every_sample_is_numpys(manager, data, options):
    """``ds[id]`` is item ``id`` of the data as it was written, whatever is cached."""
    dataset = FileCacheDataset(manager, **options)
    assert len(dataset) == len(data[0])
    ids = list(range(len(dataset))) * 2
    random.Random(1).shuffle(ids)
    for id in ids:
        sample = dataset[id]
        assert list(sample) == ["images", "labels"] and sample["images"].dtype == torch.uint16
        assert sample["labels"].shape == () and sample["labels"].dtype == torch.float32
        assert same(sample, data, id)
    dataset.close()


@pytest.mark.parametrize("cache_bytes", [0, 40, 2**20])
def test_a_batch_is_its_samples_in_their_sequence(manager, data, cache_bytes):
    """``__getitems__`` equals one ``ds[id]`` after the other, for unsorted, repeated, neighbouring and no ids."""
    dataset = FileCacheDataset(manager, cache_bytes=cache_bytes)
    random_ids = random.Random(2)
    batches = [
        [],
        [3],
        [3, 3, 3],
        list(range(len(dataset))),
        list(range(len(dataset)))[::-1],
        [26, 0, 26, 1, 0],
    ]
    batches += [random_ids.choices(range(len(dataset)), k=12) for _ in range(20)]
    for ids in batches:
        samples = dataset.__getitems__(ids)
        assert len(samples) == len(ids) and all(
            same(sample, data, id) for sample, id in zip(samples, ids, strict=True)
        )
    for ids in (np.array([4, 2]), torch.tensor([4, 2]), (4, 2), [np.int32(4), np.uint64(2)]):
        assert [same(s, data, id) for s, id in zip(dataset.__getitems__(ids), [4, 2], strict=True)]
    dataset.close()


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (-1, IndexError),
        (27, IndexError),
        (2**63, IndexError),
        (2**53 + 1, IndexError),
        (np.uint64(2**64 - 1), IndexError),
        (1.0, TypeError),
        (True, TypeError),
        (np.bool_(True), TypeError),
        ([1], TypeError),
        (slice(0, 2), TypeError),
        ("1", TypeError),
        (None, TypeError),
    ],
)
def test_what_is_no_sample_id_is_refused(manager, bad, error):
    """Outside ``[0, n)`` is an IndexError, also negative; what is no integer is a TypeError; also in batches."""
    dataset = FileCacheDataset(manager)
    with pytest.raises(error):
        dataset[bad]
    with pytest.raises((error, TypeError, ValueError)):
        dataset.__getitems__([bad])


def test_ids_may_be_any_integer_type(manager, data):
    """numpy's and torch's integers are ids too."""
    dataset = FileCacheDataset(manager)
    for id in (np.int32(6), np.uint64(6), torch.tensor(6)):
        assert same(dataset[id], data, 6)
    dataset.close()


def test_one_field_is_a_tensor_and_several_are_a_dict(manager, data):
    """Fields come in the sequence asked for; an unknown, repeated or absent one is refused."""
    image = FileCacheDataset(manager, fields="images")[4]
    assert isinstance(image, torch.Tensor) and image.numpy().tolist() == data[0][4].tolist()
    assert list(FileCacheDataset(manager, fields=["labels", "images"])[4]) == ["labels", "images"]
    assert FileCacheDataset(manager, fields=["labels"])[4] == data[1][4]
    for fields, told in (
        ("image", "no array 'image'; there is 'images', 'labels'"),
        ([], "at least one"),
    ):
        with pytest.raises(ValueError, match=told):
            FileCacheDataset(manager, fields=fields)
    with pytest.raises(ValueError, match="each once"):
        FileCacheDataset(manager, fields=["images", "images"])


def test_an_error_of_the_transform_names_the_sample(manager):
    """Which of a batch it was; the error itself stays what it is."""

    def refuse(label):
        if float(label) == float(labels[3]):
            raise KeyError("no such class")
        return label

    labels = FileCacheDataset(manager, fields="labels").__getitems__(range(4))
    assert len({float(label) for label in labels}) == 4
    with pytest.raises(KeyError, match="no such class") as raised:
        FileCacheDataset(manager, fields="labels", transform=refuse).__getitems__([2, 3, 1])
    assert raised.value.__notes__ == ["raised by transform, for sample id 3"]


def test_the_transform_gets_the_sample_and_the_id_stands_beside_it(manager, data):
    """``transform`` sees what would have been returned; ``with_id`` returns (sample, id), id an int, in batches too."""
    dataset = FileCacheDataset(
        manager, fields="labels", transform=lambda label: float(label) + 0.5, with_id=True
    )
    assert dataset[np.int64(3)] == (data[1][3] + 0.5, 3) and type(dataset[np.int64(3)][1]) is int
    batch = dataset.__getitems__(np.array([8, 2]))
    assert batch == [(data[1][8] + 0.5, 8), (data[1][2] + 0.5, 2)] and type(batch[0][1]) is int


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"transform": 5}, TypeError),
        ({"on_missing": "zero"}, ValueError),
        ({"backend": "fast"}, ValueError),
        ({"max_open_files": 0}, ValueError),
        ({"max_open_files": True}, TypeError),
        ({"cache_bytes": -1}, ValueError),
        ({"cache_bytes": 1.5}, TypeError),
    ],
)
def test_options_are_checked_at_the_door(manager, options, error):
    """A wrong option is refused by name, before anything is read."""
    with pytest.raises(error, match=next(iter(options))):
        FileCacheDataset(manager, **options)


def test_a_dtype_that_torch_has_not_is_refused_at_once(tmp_path):
    """Better before training than in a worker: the error names array and dtype."""
    write_hdf5(tmp_path / "a.h5", np.ones((2, 2), np.longdouble))
    with pytest.raises(ValueError, match="'x' has dtype float128, which torch does not have"):
        FileCacheDataset(GlobalIndexManager(tmp_path))


def test_big_endian_files_become_tensors(tmp_path):
    """torch knows only the machine's own byte order."""
    write_zarr(tmp_path / "a.zarr", numbers(4, (3,), ">i4"))
    assert FileCacheDataset(GlobalIndexManager(tmp_path))[2].tolist() == [7, 8, 9]


def test_writing_to_a_sample_changes_no_later_one(manager, data):
    """Every sample is the caller's own: repeats in one batch, and what is read from the cache afterwards."""
    dataset = FileCacheDataset(manager)
    first, second = dataset.__getitems__([6, 6])
    first["images"].fill_(0)
    first["labels"].fill_(0)
    assert same(second, data, 6) and same(dataset[6], data, 6)
    dataset.close()


# -- processes


def collated(dataset, workers, method):
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=4,
        num_workers=workers,
        multiprocessing_context=method if workers else None,
    )
    return list(loader)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*:DeprecationWarning"
)  # Python 3.12, about fork
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_read_the_same_bytes_however_they_are_started(manager, data, method):
    """Workers of a dataset with open files and warm caches read what their parent reads."""
    dataset = FileCacheDataset(manager, with_id=True)
    dataset.__getitems__(range(len(dataset)))
    here = collated(dataset, 0, None)
    for batches in (here, collated(dataset, 2, method)):
        ids = torch.cat([ids for _, ids in batches]).tolist()
        assert ids == list(range(len(data[0])))
        np.testing.assert_array_equal(
            np.concatenate([sample["images"] for sample, _ in batches]), data[0]
        )
        np.testing.assert_array_equal(
            np.concatenate([sample["labels"] for sample, _ in batches]), data[1]
        )
    assert same(dataset[6][0], data, 6)
    dataset.close()


def test_a_pickled_dataset_has_no_files_and_no_data(folder, data):
    """It is small, opens its own files, and its copies do not close the first one's."""
    dataset = FileCacheDataset(GlobalIndexManager(folder, key=["images", "labels"]))
    before = len(pickle.dumps(dataset))
    dataset.__getitems__(range(len(dataset)))
    assert len(pickle.dumps(dataset)) == before < 8000
    for twin in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
        assert same(twin[20], data, 20) and twin.fingerprint == dataset.fingerprint
        twin.close()
    assert same(dataset[20], data, 20)
    dataset.close()


def test_random_reads_hold_no_more_descriptors_than_allowed(tmp_path):
    """Thousands of reads over 12 files with two open at most leave as many descriptors open as the first ones did."""
    for number in range(12):
        write, name = (write_hdf5, f"{number}.h5") if number % 2 else (write_zarr, f"{number}.zarr")
        write(tmp_path / name, numbers(4), key="x")
    dataset = FileCacheDataset(GlobalIndexManager(tmp_path), max_open_files=2, cache_bytes=0)
    ids = random.Random(3)
    dataset.__getitems__(ids.choices(range(48), k=20))
    dataset.close()
    before = open_descriptors()
    for _ in range(60):
        dataset.__getitems__(ids.choices(range(48), k=20))
        assert open_descriptors() <= before + 2
    dataset.close()
    assert open_descriptors() == before


def test_a_process_that_may_open_few_files_reads_all(tmp_path, data):
    """Where other things took the descriptors, open files are given back: a hundred files, room for a handful."""
    for number in range(100):
        write_hdf5(tmp_path / f"{number:02}.h5", numbers(2, start=10 * number + 1))
    code = """
import os, resource, sys
from globidx import FileCacheDataset, GlobalIndexManager
dataset = FileCacheDataset(GlobalIndexManager(sys.argv[1]), max_open_files=100)
dataset[0]
resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    for descriptor in held[-12:]:
        os.close(descriptor)
print([int(dataset[id][0]) for id in range(0, 200, 2)] == [10 * number + 1 for number in range(100)])
"""
    assert run_python(code, tmp_path).stdout == "True\n"


def test_threads_share_a_dataset(manager, data):
    """Four threads over two open files read what one reads."""
    dataset = FileCacheDataset(manager, max_open_files=2, cache_bytes=100)
    wrong = []

    def work(seed):
        ids = random.Random(seed)
        for _ in range(100):
            id = ids.randrange(len(dataset))
            if dataset[id]["images"].numpy().tolist() != data[0][id].tolist():
                wrong.append(id)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    dataset.close()
    assert not wrong


# -- what goes wrong


def _rewrite_shorter(path):
    write_hdf5(
        path.with_suffix(".new"), {"images": numbers(3, (2, 3)), "labels": numbers(3, (), "f4")}
    )
    os.replace(path.with_suffix(".new"), path)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("c.h5", Path.unlink, "No such file"),
        ("c.h5", _rewrite_shorter, "changed since it was indexed"),
        (
            "c.h5",
            lambda path: path.write_bytes(path.read_bytes()[:900]),
            r"OSError|truncated|Unable",
        ),
        ("c.h5", lambda path: path.write_bytes(b"garbage"), "OSError|signature"),
        ("d.zarr", lambda path: path.rename(path.with_suffix(".gone")), "No such file"),
        (
            "d.zarr",
            lambda path: zarr.open_array(path / "images", mode="r+").resize((5, 2, 3)),
            "changed|not aligned",
        ),
        ("d.zarr", lambda path: (path / "labels/zarr.json").write_text("[]"), "node_type"),
    ],
)
def test_a_file_that_is_not_what_was_indexed_is_told_with_item_and_id(
    manager, folder, data, name, change, told
):
    """Deleted, replaced, cut or overwritten since: ReadError names the id, the item and the file, others still read."""
    dataset = FileCacheDataset(manager)
    change(folder / name)
    id = manager.sample_id(folder / name, 2)
    with pytest.raises(ReadError, match=rf"sample id {id}: item 2 of .*/{name}: .*({told})"):
        dataset[id]
    with pytest.raises(ReadError, match=rf"items? .* of .*/{name}"):
        dataset.__getitems__([0, id, id + 1])
    assert same(dataset[0], data, 0)
    dataset.close()


def test_a_missing_chunk_is_an_error_with_item_and_id_unless_filled(manager, folder, data):
    """MissingChunkError, a ReadError, by name; with on_missing="fill" the fill value; other chunks read."""
    (folder / "a.zarr/images/1.0.0").unlink()
    dataset = FileCacheDataset(manager, fields="images")
    with pytest.raises(
        MissingChunkError,
        match=r"sample id 4: item 4 of .*a\.zarr: chunk 1\.0\.0 of array 'images'",
    ):
        dataset[4]
    assert dataset[3].numpy().tolist() == data[0][3].tolist()
    assert (
        FileCacheDataset(manager, fields="images", on_missing="fill")[4].tolist() == [[0] * 3] * 2
    )
    assert FileCacheDataset(manager, fields="labels")[4] == data[1][4]


def test_a_broken_chunk_is_an_error_with_item_and_id(manager, folder, data):
    """What a codec raises over garbage comes out as a ReadError that names the sample."""
    (folder / "a.zarr/images/0.0.0").write_bytes(b"garbage")
    dataset = FileCacheDataset(manager, fields="images")
    with pytest.raises(ReadError, match=r"sample id 1: item 1 of .*a\.zarr: "):
        dataset[1]
    assert dataset[4].numpy().tolist() == data[0][4].tolist()


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*:DeprecationWarning"
)  # Python 3.12, about fork
def test_errors_come_out_of_a_worker_as_what_they_are(manager, folder, data):
    """The class and the message of a ReadError survive the way out of a DataLoader worker, which then goes on."""
    (folder / "c.h5").write_bytes(b"garbage")
    (folder / "a.zarr/images/0.0.0").unlink()
    part = torch.utils.data.Subset(FileCacheDataset(manager), [0, 5, 12])
    batches = iter(torch.utils.data.DataLoader(part, num_workers=1, multiprocessing_context="fork"))
    with pytest.raises(MissingChunkError, match=r"sample id 0: item 0 of .*a\.zarr"):
        next(batches)
    with pytest.raises(ReadError, match=r"sample id 5: item 0 of .*c\.h5"):
        next(batches)
    assert [batch["labels"].item() for batch in batches] == [data[1][12]]


def test_every_error_class_survives_pickling():
    """Each takes one string and comes back as itself."""
    classes = [
        c for c in vars(globidx.errors).values() if isinstance(c, type) and issubclass(c, Exception)
    ]
    assert len(classes) > 10
    for kind in classes:
        error = pickle.loads(pickle.dumps(kind("file a.h5, item 3")))
        assert type(error) is kind and str(error) == "file a.h5, item 3"


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_a_refresh_under_a_dataset_moves_ids_not_data(manager, folder, cache_bytes):
    """When a refresh puts a file before the others, open files and cached chunks of the old numbers are not used."""
    dataset = FileCacheDataset(manager, fields="labels", cache_bytes=cache_bytes)
    before = [float(label) for label in dataset.__getitems__(range(len(dataset)))]
    write_hdf5(
        folder / "0.h5", {"images": numbers(2, (2, 3)), "labels": numbers(2, (), "f4", start=1)}
    )
    manager.refresh()
    assert [float(label) for label in dataset.__getitems__(range(len(dataset)))] == [
        1.0,
        2.0,
        *before,
    ]
    dataset.close()


def test_a_refresh_in_another_thread_mixes_no_batch(tmp_path):
    """Every batch is of the files before a refresh or of those after it, or an error that names a file; never of both."""
    import threading

    from globidx.errors import ReadError

    write_hdf5(tmp_path / "b.h5", np.arange(100, 104).reshape(4, 1))
    manager = GlobalIndexManager(tmp_path)
    dataset = FileCacheDataset(manager)
    stop, wrong = threading.Event(), []

    def read():
        while not stop.is_set():
            try:
                got = [int(item) for item in dataset.__getitems__([0, 3])]
            except ReadError as error:  # the file of the old look has gone
                if "a.h5" not in str(error):
                    raise
                continue
            if got not in ([100, 103], [0, 3]):
                wrong.append(got)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(10):
        write_hdf5(tmp_path / "a.h5", np.arange(4).reshape(4, 1))
        manager.refresh()
        (tmp_path / "a.h5").rename(tmp_path / "a.gone")
        (tmp_path / "a.gone").rename(tmp_path / "elsewhere")
        manager.refresh()
    stop.set()
    reader.join()
    assert not wrong


def test_what_belongs_to_the_index_is_said_to(tmp_path):
    """A dataset over a path with key=: TypeError that shows the call as it should be; other words are Python's own."""
    write_hdf5(tmp_path / "a.h5", numbers(3))
    for first in (str(tmp_path), GlobalIndexManager(tmp_path)):
        with pytest.raises(
            TypeError,
            match=r"key and axis belong to the index.*GlobalIndexManager\(.*, key=..., axis=...\)",
        ):
            FileCacheDataset(first, key="x", axis=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'cach_bytes'"):
        FileCacheDataset(GlobalIndexManager(tmp_path), cach_bytes=1)
    with pytest.raises(TypeError, match=r"pass GlobalIndexManager\(files, key=...\)"):
        FileCacheDataset(str(tmp_path))


@pytest.mark.parametrize("backend", ["auto", "library"])
@pytest.mark.parametrize("kind", ["zarr2", "zarr3", "sharded", "hdf5"])
def test_absent_chunks_are_filled_in_the_fields_that_say_so(tmp_path, kind, backend):
    """And an error in the others, in whichever sequence they are read; the old spelling is of all."""
    arrays = {name: np.arange(16).reshape(8, 2) for name in ("images", "mask")}
    path = tmp_path / ("a.h5" if kind == "hdf5" else "a.zarr")
    if kind == "hdf5":
        with h5py.File(path, "w") as file:
            for name, data in arrays.items():
                made = file.create_dataset(name, (8, 2), "i8", chunks=(4, 2), fillvalue=3)
                made[:4] = data[:4]
    else:
        data = {name: np.where(data < 8, data, 3) for name, data in arrays.items()}
        sizes = {"chunk": 2, "shard": 4} if kind == "sharded" else {"chunk": 4}
        zarr_format = 2 if kind == "zarr2" else 3
        write_zarr(path, data, fill_value=3, zarr_format=zarr_format, **sizes)
    manager = GlobalIndexManager(path, key=["images", "mask"])
    for fields in (["images", "mask"], ["mask", "images"]):
        chosen = FileCacheDataset(
            manager, fields=fields, on_missing={"mask": "fill"}, backend=backend
        )
        assert chosen[1]["mask"].tolist() == chosen[1]["images"].tolist() == [2, 3]
        with pytest.raises(MissingChunkError, match="images"):
            chosen[5]
        alone = FileCacheDataset(
            manager, fields="mask", on_missing={"mask": "fill"}, backend=backend
        )
        assert alone[5].tolist() == [3, 3]
    for given in ("fill", {"mask": "fill", "images": "fill"}):
        both = FileCacheDataset(manager, on_missing=given, backend=backend)
        assert both[5]["mask"].tolist() == both[5]["images"].tolist() == [3, 3]
    for given in ("error", {}, {"mask": "error"}, {"images": "fill"}):
        with pytest.raises(MissingChunkError, match="mask"):
            FileCacheDataset(manager, on_missing=given, backend=backend)[5]


def test_what_is_filled_is_asked_for_by_fields_that_are_read(tmp_path):
    """Another name, another word, and two ways for one array are each one clear error."""
    array = zarr.create_group(tmp_path / "a.zarr").create_array("x", shape=(4,), dtype="u2")
    array[:] = 1
    manager = GlobalIndexManager(tmp_path, key={"one": "x", "two": "x"})
    for given, match in (
        ({"tow": "fill"}, "on_missing names 'tow', which is none of the fields .*: 'one', 'two'"),
        ({"one": "zero"}, r"on_missing\['one'\] must be one of error, fill, got 'zero'"),
        ({"one": "fill"}, "says 'error' of field 'two' and another of a field that reads the same"),
        (["one"], r"on_missing must be one of error, fill, got \['one'\]"),
    ):
        with pytest.raises(ValueError, match=match):
            FileCacheDataset(manager, on_missing=given)
    with pytest.raises(ValueError, match="'two', which is none of the fields"):
        FileCacheDataset(manager, fields="one", on_missing={"two": "fill"})
    assert FileCacheDataset(manager, fields="one", on_missing={"one": "fill"})[0].item() == 1


def test_explain_says_which_fields_are_filled(tmp_path):
    """In its first line."""
    root = zarr.create_group(tmp_path / "a.zarr")
    for name in ("x", "y"):
        root.create_array(name, shape=(4,), dtype="u2")[:] = 1
    manager = GlobalIndexManager(tmp_path, key=["x", "y"])
    firsts = [
        FileCacheDataset(manager, on_missing=given).explain().splitlines()[0]
        for given in ("fill", {"y": "fill"}, {"y": "error"})
    ]
    assert [line.partition("missing chunks: ")[2] for line in firsts] == [
        "fill",
        "fill in 'y', else error",
        "error",
    ]
