"""robomimic demonstrations: each sample is the one that robomimic's own ``SequenceDataset`` gives for the same index."""

import itertools
import json

import h5py
import numpy as np
import pytest
from equality import assert_all_same, assert_same, read_all

from globidx import FileCacheDataset, GlobalIndexManager, Window

SequenceDataset = pytest.importorskip("robomimic.utils.dataset").SequenceDataset

DATA = ("actions", "rewards", "dones")
OBS = ("object", "agentview_image")
LONGEST = 10


def write_demos(path, lengths):
    """Writes demos as robomimic's ``dataset_states_to_obs.py`` does, and a filter as ``create_hdf5_filter_key`` does."""
    rng = np.random.default_rng(len(lengths))
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for name, length in lengths.items():
            demo = data.create_group(name)
            demo.create_dataset("actions", data=rng.uniform(-1, 1, (length, 7)))
            demo.create_dataset("states", data=rng.normal(size=(length, 5)))
            demo.create_dataset("rewards", data=rng.uniform(size=length))
            demo.create_dataset("dones", data=np.arange(length) // max(1, length - 1))
            for group in ("obs", "next_obs"):
                image = rng.integers(0, 256, (length, 6, 6, 3), np.uint8)
                demo.create_dataset(f"{group}/agentview_image", data=image, compression="gzip")
                demo.create_dataset(f"{group}/object", data=rng.normal(size=(length, 10)))
            demo.attrs["model_file"] = f"<mujoco model='{name}'/>"
            demo.attrs["num_samples"] = length
        data.attrs["total"] = sum(lengths.values())
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1})
        file["mask/train"] = np.array([*lengths][::2], dtype="S")
    return path


@pytest.fixture(scope="module")
def long_demos(tmp_path_factory):
    """Demos that hold the longest window without padding."""
    lengths = {"demo_10": 12, "demo_2": 14, "demo_1": 13, "demo_11": 12}
    return write_demos(tmp_path_factory.mktemp("long") / "demos.hdf5", lengths)


@pytest.fixture(scope="module")
def short_demos(tmp_path_factory):
    """Demos that are shorter than most windows, one of a single row."""
    lengths = {"demo_0": 3, "demo_10": 1, "demo_2": 12, "demo_9": 7, "demo_3": 2}
    return write_demos(tmp_path_factory.mktemp("short") / "demos.hdf5", lengths)


def keys(groups=("obs", "next_obs")):
    names = [*DATA, *(f"{group}/{name}" for group in groups for name in OBS)]
    return {name: f"data/*/{name}" for name in names}


def window_of(frame_stack, seq_length, pad_frame_stack, pad_seq_length, *, mask=False):
    """The window that says what robomimic's four arguments say."""
    offsets = range(1 - frame_stack, seq_length)
    if not pad_frame_stack and not pad_seq_length:
        return Window(offsets, mask=mask)
    before = frame_stack - 1 if pad_frame_stack else 0
    after = seq_length - 1 if pad_seq_length else 0
    return Window(offsets, pad="edge", before=before, after=after, mask=mask)


def opened(files, cache_dir, window, *, key=None, transform=None, **options):
    index = GlobalIndexManager(
        files if isinstance(files, list) else str(files),
        key=keys() if key is None else key,
        sequences="match",
        window=window,
        cache_dir=cache_dir,
        **options,
    )
    return FileCacheDataset(index, transform=transform)


def peer(path, frame_stack, seq_length, pad_frame_stack, pad_seq_length, **options):
    return SequenceDataset(
        str(path),
        obs_keys=OBS,
        dataset_keys=DATA,
        frame_stack=frame_stack,
        seq_length=seq_length,
        pad_frame_stack=pad_frame_stack,
        pad_seq_length=pad_seq_length,
        hdf5_cache_mode=None,
        hdf5_use_swmr=False,  # HDF5 opens no file in two ways at once in one process
        **options,
    )


def samples(dataset):
    return [dataset[index] for index in range(len(dataset))]


@pytest.mark.parametrize("frame_stack", [1, 2, 3])
@pytest.mark.parametrize(
    ("pad_frame_stack", "pad_seq_length"), [*itertools.product([True, False], repeat=2)]
)
def test_windows_are_robomimics(long_demos, tmp_path, frame_stack, pad_frame_stack, pad_seq_length):
    """For each frame stack, sequence length and padding, every sample is the peer's."""
    for seq_length in range(1, LONGEST + 1):
        how = (frame_stack, seq_length, pad_frame_stack, pad_seq_length)
        ours = opened(long_demos, tmp_path, window_of(*how))
        assert_all_same(ours, samples(peer(long_demos, *how)))


@pytest.mark.parametrize("frame_stack", [1, 2, 3])
def test_demos_shorter_than_the_window_are_padded_on_both_sides(short_demos, tmp_path, frame_stack):
    """Padding repeats the ends of a demo, also where a window is longer than all of it; the mask says where."""
    for seq_length in range(1, LONGEST + 1):
        how = (frame_stack, seq_length, True, True)
        expected = samples(peer(short_demos, *how, get_pad_mask=True))
        for sample in expected:
            masks = [part.pop("pad_mask") for part in (sample["obs"], sample["next_obs"], sample)]
            sample["mask"] = masks[0][:, 0]
        ours = opened(short_demos, tmp_path, window_of(*how, mask=True))
        assert_all_same(ours, expected)


def test_a_filter_key_leaves_the_demos_that_it_lists(long_demos, tmp_path):
    """``only`` names the mask in the file, or lists the demos, or decides by name: all as ``filter_by_attribute``."""
    how = (2, 4, True, True)
    expected = samples(peer(long_demos, *how, filter_by_attribute="train"))
    with h5py.File(long_demos) as file:
        listed = [name.decode() for name in file["mask/train"]]
    for number, only in enumerate(["mask/train", listed, lambda name: name in listed]):
        ours = opened(long_demos, tmp_path / str(number), window_of(*how), only=only)
        assert_all_same(ours, expected)


def test_demos_of_several_files_follow_one_another(long_demos, short_demos, tmp_path):
    """Files have demos of the same names; each file's own filter decides which of them stay."""
    how = (2, 3, True, True)
    both = [str(long_demos), str(short_demos)]
    whole = [sample for path in both for sample in samples(peer(path, *how))]
    assert_all_same(opened(both, tmp_path / "whole", window_of(*how)), whole)
    some = [s for path in both for s in samples(peer(path, *how, filter_by_attribute="train"))]
    ours = opened(both, tmp_path / "some", window_of(*how), only="mask/train")
    assert_all_same(ours, some)


def test_samples_are_told_where_they_come_from(long_demos, tmp_path):
    """An id is of the demo and the row that robomimic takes it from, demo_2 before demo_10."""
    how = (2, 5, False, True)
    theirs = peer(long_demos, *how)
    index = opened(long_demos, tmp_path, window_of(*how)).index_manager
    assert list(index.sequences.names) == theirs.demos
    for sample_id in range(len(index)):
        where, demo = index.where(sample_id), theirs._index_to_demo_id[sample_id]
        assert index.sequences.names[where.sequence] == demo
        assert where.anchor == sample_id - theirs._demo_id_to_start_indices[demo] + 1
        assert index.sample_id(where.sequence, where.anchor) == sample_id


def test_the_last_row_of_a_demo_is_the_goal(short_demos, tmp_path):
    """Arrays of the demo as constants, of which a transform takes the last row, are ``goal_mode="last"``."""
    how = (1, 3, True, True)

    def last(sample):
        sample["goal_obs"] = {name: rows[-1] for name, rows in sample["goal_obs"].items()}
        return sample

    constants = {f"goal_obs/{name}": f"data/*/next_obs/{name}" for name in OBS}
    ours = opened(short_demos, tmp_path, window_of(*how), transform=last, constants=constants)
    assert_all_same(ours, samples(peer(short_demos, *how, goal_mode="last")))


def test_attributes_of_a_demo_come_with_each_of_its_samples(short_demos, tmp_path):
    """A text is a str, a number a tensor; both are of the sample's own demo."""
    constants = {"model": "data/*@model_file", "length": "data/*@num_samples"}
    constants["env"] = "data@env_args"
    index = opened(short_demos, tmp_path, range(2), constants=constants).index_manager
    for sample_id, sample in enumerate(read_all(FileCacheDataset(index))):
        name = index.sequences.names[index.where(sample_id).sequence]
        with h5py.File(short_demos) as file:
            attributes = file[f"data/{name}"].attrs
            assert_same(sample["model"], attributes["model_file"], name)
            assert_same(sample["length"], attributes["num_samples"], name)
            assert_same(sample["env"], file["data"].attrs["env_args"], name)


def test_patterns_in_a_list_name_fields_by_what_follows_the_wildcard(long_demos, tmp_path):
    """``data/*/obs/object`` is the field ``obs/object``: the same samples as with names given."""
    how = (1, 4, True, True)
    listed = opened(long_demos, tmp_path / "list", window_of(*how), key=[*keys().values()])
    assert_all_same(listed, read_all(opened(long_demos, tmp_path / "map", window_of(*how))))


def test_fields_have_offsets_of_their_own(long_demos, tmp_path):
    """One image beside a chunk of actions: an int takes no axis, and the anchors are those of all offsets together."""
    how = (1, LONGEST, True, True)
    key = {"image": "data/*/obs/agentview_image", "action": "data/*/actions"}
    window = Window({"image": 0, "action": range(LONGEST)}, pad="edge", mask=True)
    expected = [
        {
            "image": sample["obs"]["agentview_image"][0],
            "action": sample["actions"],
            "mask": {"image": np.array(True), "action": sample["pad_mask"][:, 0]},
        }
        for sample in samples(peer(long_demos, *how, get_pad_mask=True))
    ]
    assert_all_same(opened(long_demos, tmp_path, window, key=key), expected)


def test_the_layout_robomimic_takes_all_of_a_demo(long_demos, tmp_path):
    """``layout="robomimic"`` stands for all arrays of a demo, and for demos as sequences."""
    how = (2, 5, True, True)
    index = GlobalIndexManager(
        str(long_demos), layout="robomimic", window=window_of(*how), cache_dir=tmp_path
    )
    theirs = peer(long_demos, *how)
    theirs.dataset_keys = (*DATA, "states")
    assert_all_same(FileCacheDataset(index), samples(theirs))
