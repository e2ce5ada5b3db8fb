"""ALOHA: a file an episode, one image at the anchor beside the actions that follow it, and a text.

The oracle is written from ACT's and RDT's rules, whose code is on no package index.
"""

import h5py
import numpy as np
import pytest
from equality import assert_all_same

from globidx import FileCacheDataset, GlobalIndexManager, Window

LENGTHS = {"episode_0": 20, "episode_10": 3, "episode_2": 17, "episode_1": 1}
KEY = {
    "image": "observations/images/cam_high",
    "qpos": "observations/qpos",
    "action": "action",
}
CHUNK = 16


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    """The folder, and the episodes as arrays, episode 2 before episode 10."""
    folder = tmp_path_factory.mktemp("aloha")
    rng = np.random.default_rng(0)
    written = {}
    for name, length in LENGTHS.items():
        episode = {
            "image": rng.integers(0, 256, (length, 8, 6, 3), np.uint8),
            "qpos": rng.normal(size=(length, 14)).astype("f4"),
            "action": rng.normal(size=(length, 14)).astype("f4"),
        }
        with h5py.File(folder / f"{name}.hdf5", "w", rdcc_nbytes=1024**2 * 2) as file:
            file.attrs["sim"] = False
            file.attrs["instruction"] = f"put {name} into the cup"
            file["action"], file["observations/qpos"] = episode["action"], episode["qpos"]
            images = file.create_group("observations/images")
            images.create_dataset("cam_high", data=episode["image"], chunks=(1, 8, 6, 3))
        written[name] = {**episode, "instruction": f"put {name} into the cup"}
    return folder, [written[name] for name in sorted(written, key=lambda name: int(name[8:]))]


def opened(folder, cache_dir, window, *, key=None, **options):
    index = GlobalIndexManager(
        str(folder / "*.hdf5"),
        key=KEY if key is None else key,
        sequences="file",
        window=window,
        cache_dir=cache_dir,
        **options,
    )
    return FileCacheDataset(index)


def test_an_image_and_the_actions_that_follow_it(episodes, tmp_path):
    """RDT: image and state at a time, sixteen actions from it on, the last repeated; the instruction beside them."""
    folder, written = episodes
    expected = []
    for episode in written:
        for time in range(len(episode["action"])):
            actions = [
                episode["action"][min(time + k, len(episode["action"]) - 1)] for k in range(CHUNK)
            ]
            expected.append(
                {
                    "image": episode["image"][time],
                    "qpos": episode["qpos"][time],
                    "action": np.stack(actions),
                    "instruction": episode["instruction"],
                }
            )
    window = Window({"image": 0, "qpos": 0, "action": range(CHUNK)}, pad="edge")
    constants = {"instruction": "@instruction"}
    assert_all_same(opened(folder, tmp_path, window, constants=constants), expected)


def test_actions_after_the_end_are_zero_and_masked(episodes, tmp_path):
    """ACT: actions from the time on, zeros after them, and ``is_pad`` where there are zeros."""
    folder, written = episodes
    longest = max(LENGTHS.values())
    expected = []
    for episode in written:
        for time in range(len(episode["action"])):
            actions = np.zeros((longest, 14), "f4")
            actions[: len(episode["action"]) - time] = episode["action"][time:]
            is_pad = np.arange(longest) >= len(episode["action"]) - time
            masks = {"qpos": np.array(True), "action": ~is_pad}
            expected.append({"qpos": episode["qpos"][time], "action": actions, "mask": masks})
    window = Window({"qpos": 0, "action": range(longest)}, pad="zero", mask=True)
    key = {name: KEY[name] for name in ("qpos", "action")}
    assert_all_same(opened(folder, tmp_path, window, key=key), expected)


def test_two_images_before_and_at_the_anchor(episodes, tmp_path):
    """Offsets may reach back: the image before the first one is the first one again."""
    folder, written = episodes
    expected = [
        {
            "image": episode["image"][[max(time - 1, 0), time]],
            "qpos": episode["qpos"][time],
            "action": episode["action"][time : time + 1],
        }
        for episode in written
        for time in range(len(episode["action"]))
    ]
    window = Window({"image": (-1, 0), "qpos": 0, "action": (0,)}, pad="edge")
    assert_all_same(opened(folder, tmp_path, window), expected)


def test_an_episode_is_one_sample(episodes, tmp_path):
    """``window="all"``: all rows of a file."""
    folder, written = episodes
    ours = opened(folder, tmp_path, "all", key={"action": "action"})
    assert_all_same(ours, [episode["action"] for episode in written])


def test_the_layout_aloha_takes_the_arrays_of_an_episode(episodes, tmp_path):
    """``layout="aloha"`` stands for actions, states and all cameras, and for files as episodes."""
    folder, written = episodes
    index = GlobalIndexManager(
        str(folder / "*.hdf5"), layout="aloha", window=Window((0, 1)), cache_dir=tmp_path
    )
    expected = [
        {
            "action": episode["action"][time : time + 2],
            "observations": {
                "qpos": episode["qpos"][time : time + 2],
                "images": {"cam_high": episode["image"][time : time + 2]},
            },
        }
        for episode in written
        for time in range(len(episode["action"]) - 1)
    ]
    assert_all_same(FileCacheDataset(index), expected)
