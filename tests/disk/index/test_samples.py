"""Which sequences are used: a split decides by names that stay, and tells of a side that gets none."""

import pickle

import h5py
import numpy as np
import pytest

from globidx import GlobalIndexManager


def write(path):
    """A file of four rows."""
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(4)


def sides(index):
    """For 20 splits, which sequences are on the first side, by the path of their first file."""
    return [set(index.split(0.5, seed=seed)[0].sequences.paths) for seed in range(20)]


def test_a_sequence_stays_on_its_side_when_a_neighbour_comes(tmp_path):
    """Also the first one: until then its folder was that of all files, and had no name in the index."""
    for month in ("01", "02"):
        write(tmp_path / "ic_1" / f"2021-{month}.nc")
    for options in (
        {"sequences": "chain", "chain_by": "parent"},
        {"sequences": "chain", "chain_by": lambda path: path.split("/")[-2]},
        {"sequences": "file"},
    ):
        index = GlobalIndexManager(f"{tmp_path}/*/*.nc", key="x", window=(0, 1), **options)
        known, before = set(index.sequences.paths), sides(index)
        assert any(before) and not all(before)
        write(tmp_path / "ic_2" / "2021-01.nc")
        assert index.refresh().keep_ids
        assert [side & known for side in sides(index)] == before
        (tmp_path / "ic_2" / "2021-01.nc").unlink()


def test_a_side_without_sequences_is_told(tmp_path, caplog):
    """Of two sequences, both may be on one side; but not a word where that is what was asked for."""
    for month in ("01", "02"):
        write(tmp_path / f"2021-{month}.nc")
    index = GlobalIndexManager(tmp_path, key="x", sequences="file")
    index.split(1.0)
    assert not caplog.records
    uneven = sum(0 in map(len, index.split(0.5, seed=seed)) for seed in range(20))
    assert 0 < uneven < 20
    assert len(caplog.records) == uneven
    assert "without any of 2 sequences" in caplog.text


def test_a_side_is_split_independently_of_the_first_split(tmp_path):
    """Train, validation and test by two splits of the same seed: each sequence is in one, and none of these is empty."""
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for number in range(200):
            file[f"data/demo_{number}/x"] = np.arange(2)
    index = GlobalIndexManager(tmp_path, key="data/*/x", sequences="match")
    training, rest = index.split(0.5)
    parts = [training, *rest.split(0.5)]
    names = sorted(name for part in parts for name in part.sequences.names)
    assert names == sorted(index.sequences.names)
    assert all(len(part.sequences) > 30 for part in parts)


def test_an_index_with_functions_is_pickled_without_them(tmp_path):
    """A spawned worker reads with it; it only cannot look for files again."""
    for month in ("01", "02", "03"):
        write(tmp_path / f"2021-{month}.nc")
    index = GlobalIndexManager(
        tmp_path,
        key="x",
        sequences="chain",
        chain_by=lambda path: path[-4],
        only=lambda name: name > "1",
    )
    copied = pickle.loads(pickle.dumps(index))
    assert list(copied.sequences.names) == list(index.sequences.names) == ["2", "3"]
    assert copied.fingerprint == index.fingerprint
    assert index.refresh().keep_ids
    with pytest.raises(TypeError, match="refresh the index in the process that made it"):
        copied.refresh()
