"""Which sample stands in for one that cannot be read."""

import errno
import logging
import shutil

import numpy as np
import pytest
import torch
from files import numbers, write_hdf5
from unreadable import opened, write_files

from globidx import (
    FileCacheDataset,
    GlobalIndexManager,
    errors,
)
from globidx.torch.substitutes import Substitutes, neighbours


@pytest.fixture
def folder(tmp_path):
    """Three files, a chunk of which is gone."""
    return write_files(tmp_path)


@pytest.mark.parametrize(
    ("start", "stop", "n"), [(0, 1, 1), (0, 9, 9), (5, 6, 20), (40, 1000, 3000), (0, 10**6, 10**9)]
)
def test_neighbours_are_ids_of_the_file_first_each_once_and_few(start, stop, n):
    """Never the sample itself, nothing outside; logarithmically many, and both ends of the dataset come into reach."""
    for item in {start, (start + stop) // 2, stop - 1}:
        tried = list(neighbours(item, start, stop, n))
        assert len(set(tried)) == len(tried) and item not in tried
        assert all(0 <= id < n for id in tried)
        own = [start <= id < stop for id in tried]
        assert own == sorted(own, reverse=True)
        assert len(tried) <= 2 * (n.bit_length() + 1) * 2
        if n > 1:
            assert abs(tried[0] - item) == 1
        if stop < n:
            assert max(tried) >= (n + stop) // 2 - 1


def test_a_neighbour_stands_in_and_all_else_is_what_was_asked_for(folder, caplog):
    """The nearest readable one of the same file; one line in the log, which names the file, the sample and the reason."""
    dataset = opened(folder)
    with caplog.at_level(logging.WARNING, "globidx"):
        samples = dataset.__getitems__([0, 8, 19, 9, 8])
    assert [int(sample) - 1 for sample in samples] == [0, 7, 19, 10, 7]
    assert samples.replaced == (1, 3, 4)
    assert int(dataset[9]) - 1 == 10
    assert type(dataset.__getitems__([0, 7, 10])) is list
    (line,) = caplog.messages
    assert (
        "1 read of" in line
        and "b.zarr" in line
        and "sample id 8" in line
        and "sample id 7 is delivered in place of 8" in line
    )


def test_failures_are_counted_in_the_log(folder, caplog):
    """The first of a file, the 10th and the 100th in this process: neither silence nor a flood."""
    dataset = opened(folder)
    for _ in range(60):
        dataset.__getitems__([8, 9])
    assert [line.split()[0] for line in caplog.messages] == ["1", "10", "100"]


def test_where_a_whole_file_is_gone_its_neighbours_files_stand_in(folder):
    """And where nothing can be read, that is an error, which says how many were tried."""
    dataset = opened(folder)
    shutil.rmtree(folder / "b.zarr")
    assert {int(dataset[id]) - 1 for id in range(6, 14)} <= {*range(6), *range(14, 20)}
    shutil.rmtree(folder / "a.zarr")
    shutil.rmtree(folder / "c.zarr")
    dataset.close()
    with pytest.raises(
        errors.ReadError, match=r"sample id 8: .*nor could any of \d+ samples around it be read"
    ):
        dataset[8]


def test_the_id_that_is_returned_is_that_of_the_sample_that_is_given(folder):
    """The one asked for would be a lie about the data."""
    dataset = opened(folder, with_id=True, transform=lambda sample: int(sample) - 1)
    assert dataset.__getitems__([8, 3, 9]) == [(7, 7), (3, 3), (10, 10)]
    assert dataset[8] == (7, 7)
    assert all(type(id) is int for _, id in dataset.__getitems__([8, 9]))


def test_by_default_and_for_other_errors_it_raises(folder):
    """No sample is replaced unasked; ids that are none, and errors of the transform, are nobody's bad data."""
    with pytest.raises(errors.MissingChunkError, match="sample id 8"):
        opened(folder, on_error="raise")[8]
    with pytest.raises(IndexError):
        opened(folder)[20]
    with pytest.raises(IndexError):
        opened(folder).__getitems__([8, 20])

    def broken(sample):
        raise errors.ReadError("the transform's own")

    with pytest.raises(errors.ReadError, match="the transform's own"):
        opened(folder, transform=broken).__getitems__([0, 8])
    with pytest.raises(
        ValueError, match="on_error must be one of raise, substitute or a function, got 'skip'"
    ):
        opened(folder, on_error="skip")


def test_a_function_names_the_replacement_or_raises(folder):
    """It gets the id and the error; what it names must be an id, and readable."""
    asked, kept = [], []

    def choose(id, error):
        asked.append((id, type(error), f"sample id {id}" in str(error)))
        kept.append(error)
        return np.int64(id - 8)

    assert [int(sample) - 1 for sample in opened(folder, on_error=choose).__getitems__([9, 5])] == [
        1,
        5,
    ]
    assert asked == [(9, errors.MissingChunkError, True)]
    for answer, kind in (
        (8, errors.MissingChunkError),
        (20, IndexError),
        (None, TypeError),
        (1.5, TypeError),
    ):
        with pytest.raises(kind):
            opened(folder, on_error=lambda id, error, answer=answer: answer)[9]

    def refuse(id, error):
        raise ZeroDivisionError(f"no {id}")

    with pytest.raises(ZeroDivisionError, match="no 9"):
        opened(folder, on_error=refuse)[9]


@pytest.mark.parametrize(
    ("returned", "error"), [(None, TypeError), (99, IndexError), ("7", TypeError), (-1, IndexError)]
)
def test_a_function_that_returns_no_id_is_told_what_it_returned(folder, returned, error):
    """Its value, for which sample, and what it must do."""
    dataset = opened(folder, on_error=lambda id, failure: returned)
    told = f"on_error returned {returned!r} for sample id 8: it must return the id of another sample, or raise"
    with pytest.raises(error, match=told):
        dataset[8]


@pytest.mark.parametrize("cause", [OSError(errno.EMFILE, "too many open files"), MemoryError()])
def test_a_process_that_is_short_of_something_is_not_bad_data(folder, cause):
    """Files or memory that run out say nothing about the sample: it raises, and quarantines nothing."""

    def read(ids, moment):
        if 3 in ids:
            raise errors.ReadError("sample id 3: no") from cause
        return ids

    manager = GlobalIndexManager(str(folder))
    assert Substitutes(read, manager, "substitute").read([2, 4]) == ([2, 4], [2, 4], ())
    with pytest.raises(errors.ReadError, match="sample id 3: no"):
        Substitutes(read, manager, "substitute").read([2, 3])


def test_truncated_hdf5_is_replaced_too(tmp_path):
    """Whatever the store, as long as it says that it cannot read."""
    write_hdf5(tmp_path / "a.h5", numbers(40, (100,)), chunk=1, compression="gzip")
    dataset = FileCacheDataset(GlobalIndexManager(str(tmp_path)), on_error="substitute")
    whole = [tensor.clone() for tensor in dataset.__getitems__(list(range(40)))]
    data = bytearray((tmp_path / "a.h5").read_bytes())
    import h5py

    with h5py.File(tmp_path / "a.h5") as file:
        place = file["x"].id.get_chunk_info(20)
    data[place.byte_offset : place.byte_offset + place.size] = bytes(place.size)
    dataset.close()
    (tmp_path / "a.h5").write_bytes(data)
    samples = dataset.__getitems__(list(range(40)))
    assert samples.replaced == (20,)
    expected = [*whole[:20], whole[21], *whole[21:]]
    assert all(torch.equal(one, other) for one, other in zip(samples, expected, strict=True))
