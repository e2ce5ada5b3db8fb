"""``globidx index check`` over real damage: what is absent, what cannot be read, and what nobody could tell."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numcodecs
import numpy as np
import pytest
import zarr
from files import numbers, write_hdf5, write_zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

from globidx.cli import main


def check(capsys, *arguments):
    """Exit code and JSON of a check."""
    code = main(["index", "check", *map(str, arguments), "--json", "--workers", "1"])
    return code, json.loads(capsys.readouterr().out)


def counts(told):
    return told["num_files"], told["chunks"], told["absent"], told["unreadable"]


@pytest.fixture
def store(tmp_path):
    """Ten items in three chunks, each with a checksum."""
    write_zarr(tmp_path / "s.zarr", numbers(10), key="x", compressors=Crc32cCodec())
    return tmp_path / "s.zarr"


def test_whole_data_is_no_problem(tmp_path, store, capsys):
    """Exit code 0: every chunk of every file is counted and none complained of."""
    write_hdf5(tmp_path / "a.h5", numbers(10), chunk=4, fletcher32=True)
    code, told = check(capsys, tmp_path)
    assert (
        code == 0
        and counts(told) == (2, 6, 0, 0)
        and told["without_checksums"] == []
        and told["problems"] == []
    )
    assert main(["index", "check", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "files      2",
        "chunks     6: 0 absent, 0 unreadable",
        "checksums  in every array",
    ]


def directory(chunk):
    chunk.unlink()
    chunk.mkdir()


@pytest.mark.parametrize(
    "damage",
    [Path.unlink, lambda chunk: chunk.write_bytes(b""), directory],
    ids=["deleted", "zero-length", "directory"],
)
@pytest.mark.parametrize("more", [[], ["--no-decode"]])
def test_an_absent_chunk_is_a_problem_unless_the_writer_skips_them(store, capsys, damage, more):
    """Counted with file and array; ``--on-missing fill`` makes it no problem."""
    damage(store / "x/c/1/0")
    code, told = check(capsys, store, *more)
    torn = int(
        (store / "x/c/1/0").is_file() and not more
    )  # this codec does not take no bytes for fill value
    assert code == 1 and counts(told) == (1, 3, 1, torn)
    (problem,) = told["problems"]
    assert (
        problem["path"] == str(store)
        and problem["array"] == "x"
        and (problem["absent"], problem["chunks"]) == (1, 3)
    )
    code, told = check(capsys, store, *more, "--on-missing", "fill")
    assert code == torn and counts(told) == (1, 3, 1, torn) and len(told["problems"]) == torn
    assert main(["index", "check", str(store)]) == 1
    assert f"problem    {store}, array 'x': 1 of 3 chunks absent" in capsys.readouterr().out


@pytest.mark.parametrize("more", [[], ["--no-decode"]])
def test_chunks_that_are_not_in_their_shard_are_absent(tmp_path, capsys, more):
    """A shard with a chunk left out, one that is not there, and chunks beyond the array's end, which are none."""
    array = zarr.create_array(
        tmp_path / "s.zarr", shape=(14, 3), chunks=(2, 2), shards=(4, 4), dtype="u2", fill_value=0
    )
    array[:2], array[4:8], array[12:] = 1, 1, 1
    code, told = check(capsys, tmp_path, *more)
    assert code == 1 and counts(told) == (1, 14, 6, 0)
    assert check(capsys, tmp_path, *more, "--on-missing", "fill")[0] == 0


def test_what_a_dataset_would_refuse_is_a_problem(tmp_path, capsys):
    """Bytes behind a Blosc frame, which zarr-python takes without a word."""
    write_zarr(tmp_path / "s.zarr", numbers(10), compressors=BloscCodec())
    chunk = tmp_path / "s.zarr/c/1/0"
    chunk.write_bytes(chunk.read_bytes() + b"more")
    code, told = check(capsys, tmp_path)
    assert code == 1 and counts(told) == (1, 3, 0, 1)


def test_a_flipped_bit_under_a_checksum_is_found(store, capsys):
    """Every bit of a chunk: its rows are named, the others are read on."""
    chunk = store / "x/c/1/0"
    whole = chunk.read_bytes()
    for place in range(0, 8 * len(whole), 37):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        chunk.write_bytes(damaged)
        code, told = check(capsys, store)
        assert code == 1 and counts(told) == (1, 3, 0, 1)
        (reason,) = told["problems"][0]["unreadable"]
        assert reason.startswith("rows [4, 8): ReadError")
    assert check(capsys, store, "--no-decode")[0] == 0  # which reads nothing


def test_a_truncated_gzip_chunk_of_hdf5_is_found(tmp_path, capsys):
    """Its bytes are overwritten in place, where HDF5 keeps them."""
    path = write_hdf5(tmp_path / "a.h5", numbers(12, (50,)), chunk=4, compression="gzip")
    with h5py.File(path) as file:
        chunk = file["x"].id.get_chunk_info(1)
    with open(path, "r+b") as file:
        file.seek(chunk.byte_offset + chunk.size // 2)
        file.write(bytes(chunk.size - chunk.size // 2))
    code, told = check(capsys, path)
    assert code == 1 and counts(told) == (1, 3, 0, 1) and told["without_checksums"] == []
    assert told["problems"][0]["unreadable"][0].startswith("rows [4, 8): ReadError")


def test_chunks_that_nobody_wrote_are_absent_in_hdf5_too(tmp_path, capsys):
    """Chunked in part, contiguous as a whole; an empty dataset has nothing to miss."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("x", shape=(10, 3), dtype="u2", chunks=(4, 3))
        dataset[:4] = numbers(4)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("x", shape=(10, 3), dtype="u2")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("x", shape=(0, 3), dtype="u2")
    code, told = check(capsys, tmp_path)
    assert code == 1 and counts(told) == (3, 5, 3, 0)
    assert [(Path(p["path"]).name, p["absent"]) for p in told["problems"]] == [
        ("a.h5", 2),
        ("b.h5", 1),
    ]


def test_a_file_that_went_since_is_a_problem(tmp_path, capsys, monkeypatch):
    """Between index and check: told, not raised."""
    from globidx.disk.reading import verify

    write_hdf5(tmp_path / "a.h5", numbers(4))
    write_hdf5(tmp_path / "b.h5", numbers(4))
    real = verify._check_file
    monkeypatch.setattr(
        verify, "_check_file", lambda path, *rest: (Path(path).unlink(), real(path, *rest))[1]
    )
    code, told = check(capsys, tmp_path / "a.h5")
    assert code == 1 and "FileNotFoundError" in told["problems"][0]["unreadable"][0]


CHECKED = {
    "zarr2 zlib": (True, 2, numcodecs.Zlib()),
    "zarr2 gzip": (True, 2, numcodecs.GZip()),
    "zarr2 bz2": (True, 2, numcodecs.BZ2()),
    "zarr2 zstd checked": (True, 2, numcodecs.Zstd(checksum=True)),
    "zarr2 zstd": (False, 2, numcodecs.Zstd()),
    "zarr2 blosc": (False, 2, numcodecs.Blosc()),
    "zarr2 none": (False, 2, None),
    "zarr3 gzip": (True, 3, GzipCodec()),
    "zarr3 crc32c": (True, 3, Crc32cCodec()),
    "zarr3 zstd checked": (True, 3, ZstdCodec(checksum=True)),
    "zarr3 zstd": (False, 3, ZstdCodec()),
    "zarr3 blosc": (False, 3, BloscCodec()),
    "zarr3 none": (False, 3, None),
}


@pytest.mark.parametrize(
    ("codec", "sharded"),
    [
        (codec, sharded)
        for codec in CHECKED
        for sharded in (False, True)
        if codec[4] == "3" or not sharded
    ],
)
def test_arrays_without_checksums_are_named_by_what_a_flipped_bit_does(
    tmp_path, capsys, codec, sharded
):
    """The list is held against the truth: of arrays it says are checked, no damaged payload reads as other data."""
    is_checked, zarr_format, compressor = CHECKED[codec]
    data = np.random.default_rng(1).integers(1, 9, (4, 64), "u1")
    options = {"shard": 4, "chunk": 2} if sharded else {"chunk": 4}
    write_zarr(
        tmp_path / "s.zarr", data, zarr_format=zarr_format, compressors=compressor, **options
    )
    assert check(capsys, tmp_path / "s.zarr")[1]["without_checksums"] == (
        [] if is_checked else [""]
    )
    chunk = tmp_path / "s.zarr" / ("0.0" if zarr_format == 2 else "c/0/0")
    whole, wrong = chunk.read_bytes(), 0
    array = zarr.open_array(tmp_path / "s.zarr", mode="r")
    payload = range(20, (len(whole) - 40) if sharded else len(whole) - 8, 3)
    for place in payload:
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        chunk.write_bytes(damaged)
        try:
            wrong += not np.array_equal(array[:], data)
        except Exception:  # noqa: BLE001 - an error of any kind is right
            continue
    assert wrong == 0 if is_checked else wrong > 0


@pytest.mark.parametrize(
    ("options", "is_checked"),
    [
        ({"chunk": 4, "fletcher32": True}, True),
        ({"chunk": 4, "compression": "gzip"}, True),
        ({"chunk": 4, "compression": "lzf"}, False),
        ({"chunk": 4}, False),
        ({}, False),
    ],
)
def test_hdf5_datasets_without_checksums_are_named(tmp_path, capsys, options, is_checked):
    """gzip has one in its stream, fletcher32 is one; the others have none."""
    write_hdf5(tmp_path / "a.h5", numbers(8), key="g/x", **options)
    assert check(capsys, tmp_path)[1]["without_checksums"] == ([] if is_checked else ["g/x"])


@pytest.mark.parametrize(("form", "shape"), [("csr", [2, 9]), ("csc", [9, 2])])
def test_the_parts_of_a_sparse_matrix_are_checked(tmp_path, capsys, form, shape):
    """indptr, indices and data, each an array of its own, by row or by column."""
    group = zarr.create_group(tmp_path / "a.zarr").create_group("X")
    group.attrs.update({"encoding-type": f"{form}_matrix", "shape": shape})
    for name, values in (
        ("indptr", [0, 3, 6]),
        ("indices", [1, 4, 5, 1, 2, 8]),
        ("data", [1, 2, 3, 4, 5, 6]),
    ):
        group.create_array(name, data=np.array(values, "i4"), chunks=(3,))
    code, told = check(capsys, tmp_path / "a.zarr", "--layout", "anndata")
    assert code == 0 and counts(told) == (1, 5, 0, 0)
    assert told["without_checksums"] == ["X/data", "X/indices", "X/indptr"]
    (tmp_path / "a.zarr/X/data/c/1").unlink()
    code, told = check(capsys, tmp_path / "a.zarr", "--layout", "anndata")
    assert code == 1 and [(p["array"], p["absent"]) for p in told["problems"]] == [("X/data", 1)]


def test_tokens_and_other_axes_are_read_to_their_end(tmp_path, capsys):
    """What is left over of a token array, and chunks along another axis, are looked at, too."""
    write_zarr(tmp_path / "t.zarr", numbers(11, ()), compressors=Crc32cCodec())
    chunk = tmp_path / "t.zarr/c/2"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"\xff")
    code, told = check(capsys, tmp_path / "t.zarr", "--layout", "tokens:4")
    assert code == 1 and told["problems"][0]["unreadable"][0].startswith("rows [8, 11): ")
    write_zarr(tmp_path / "a.zarr", numbers(10), axis=1, compressors=Crc32cCodec())
    chunk = tmp_path / "a.zarr/c/0/2"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"\xff")
    code, told = check(capsys, tmp_path / "a.zarr", "--axis", "1")
    assert code == 1 and told["problems"][0]["unreadable"][0].startswith("rows [8, 10): ")


def test_many_problems_are_shown_in_part(tmp_path, capsys):
    """Ten arrays for people, all of them as JSON."""
    for number in range(13):
        write_zarr(tmp_path / f"{number:02}.zarr", numbers(4), key="x")
        (tmp_path / f"{number:02}.zarr/x/c/0/0").unlink()
    assert main(["index", "check", str(tmp_path), "--workers", "1"]) == 1
    out = capsys.readouterr().out
    assert out.count("problem ") == 10 and "and 3 more arrays with problems" in out
    assert len(check(capsys, tmp_path)[1]["problems"]) == 13
