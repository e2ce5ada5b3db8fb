"""Families of files by one word: the same samples as with the arrays and sequences spelled out."""

import h5py
import numpy as np
import pytest
import zarr

from globidx import FileCacheDataset, GlobalIndexManager, Window
from globidx.core.index.families import FAMILIES


def numbers(*shape):
    return np.arange(1, np.prod(shape) + 1, dtype="i4").reshape(shape)


def write_robomimic(folder):
    with h5py.File(folder / "demos.hdf5", "w") as file:
        for demo, rows in (("demo_10", 4), ("demo_2", 6)):
            for name in ("actions", "obs/image", "obs/pos", "next_obs/pos", "dones"):
                file[f"data/{demo}/{name}"] = numbers(rows, len(name))
            file[f"data/{demo}/obs/scale"] = 3.5  # no rows: no field
        file["mask/train"] = np.array([b"demo_2"])
    names = ["actions", "obs/image", "obs/pos", "next_obs/pos", "dones"]
    return "demos.hdf5", {name: f"data/*/{name}" for name in names}, "match"


def write_diffusion_policy(folder):
    group = zarr.open_group(str(folder / "buffer.zarr"), mode="w", zarr_format=2)
    group.create_array("data/action", data=numbers(9, 2))
    group.create_array("data/img", data=numbers(9, 3, 3))
    group.create_array("meta/episode_ends", data=np.array([4, 9]))
    return "buffer.zarr", {"action": "data/action", "img": "data/img"}, "meta/episode_ends"


def write_aloha(folder):
    for number, rows in ((1, 4), (2, 5), (10, 3)):
        with h5py.File(folder / f"episode_{number}.hdf5", "w") as file:
            for name in ("action", "observations/qpos", "observations/images/top"):
                file[name] = numbers(rows, number)[:, :1] * np.ones((1, 2), "i4")
    names = ["action", "observations/qpos", "observations/images/top"]
    return "*.hdf5", {name: name for name in names}, "file"


def write_the_well(folder):
    with h5py.File(folder / "well.hdf5", "w") as file:
        for name, varies in (("t0_fields/density", True), ("t0_fields/mask", False)):
            file[name] = numbers(2, 5, 4) if varies else numbers(4)
            file[name].attrs.update(sample_varying=varies, time_varying=varies)
        file["t1_fields/velocity"] = numbers(2, 5, 4, 2)
    names = ["t0_fields/density", "t1_fields/velocity"]
    return "well.hdf5", {name: name for name in names}, "axis"


def write_eiger(folder):
    with h5py.File(folder / "run_master.h5", "w") as master:
        for number, rows in ((1, 4), (2, 5), (10, 3)):
            name = f"data_{number:06}"
            with h5py.File(folder / f"run_{name}.h5", "w") as file:
                file["entry/data/data"] = number * numbers(rows, 2, 3)
            master[f"entry/data/{name}"] = h5py.ExternalLink(f"run_{name}.h5", "/entry/data/data")
    return "run_master.h5", {"data": "entry/data/data_*"}, "match"


WRITERS = {
    "aloha": write_aloha,
    "diffusion-policy": write_diffusion_policy,
    "eiger": write_eiger,
    "robomimic": write_robomimic,
    "the-well": write_the_well,
}


def test_each_family_is_tried():
    """A family that is added is compared below."""
    assert FAMILIES.keys() == WRITERS.keys()


@pytest.mark.parametrize("layout", sorted(FAMILIES))
def test_one_word_is_the_same_as_all_of_it(tmp_path, layout):
    """Names, sequences, order and every sample; arrays without rows are left out."""
    files, key, sequences = WRITERS[layout](tmp_path)
    window = Window((0, 1), pad="edge")
    named = GlobalIndexManager(tmp_path / files, layout=layout, window=window)
    spelled = GlobalIndexManager(tmp_path / files, key=key, sequences=sequences, window=window)
    assert {info.name: info.path for info in named.arrays} == {
        info.name: info.path for info in spelled.arrays
    }
    assert list(named.sequences.names) == list(spelled.sequences.names)
    assert named.sequences.lengths.tolist() == spelled.sequences.lengths.tolist()
    one, other = FileCacheDataset(named), FileCacheDataset(spelled)
    assert len(one) == len(other) > 0
    for id in range(len(one)):
        assert flat(one[id]) == flat(other[id])


def flat(sample, above=""):
    """A nested sample as one dict of lists."""
    if not isinstance(sample, dict):
        return {above: sample.tolist()}
    return {
        name: part for key in sample for name, part in flat(sample[key], f"{above}/{key}").items()
    }


def test_a_user_s_own_sequences_win(tmp_path):
    """A layout says what a sequence is only where nothing else does; the rest can be given as ever."""
    files, _, _ = write_robomimic(tmp_path)
    index = GlobalIndexManager(tmp_path / files, layout="robomimic", only="mask/train")
    assert list(index.sequences.names) == ["demo_2"]
    write_diffusion_policy(tmp_path)
    buffer = GlobalIndexManager(
        tmp_path / "buffer.zarr", layout="diffusion-policy", sequences="file", window=range(9)
    )
    assert len(buffer) == 1


@pytest.mark.parametrize("layout", sorted(FAMILIES))
def test_other_files_are_refused_by_what_the_family_has(tmp_path, layout):
    """The layout, the file, and the arrays that were looked for; a key beside it has no use."""
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = numbers(3)
    with pytest.raises(ValueError, match=rf"layout '{layout}': .*other\.h5: its arrays are not"):
        GlobalIndexManager(tmp_path, layout=layout)
    with pytest.raises(ValueError, match="key='x' has no use"):
        GlobalIndexManager(tmp_path, layout=layout, key="x")
