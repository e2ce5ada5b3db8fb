"""diffusion-policy's replay buffer: ``create_indices`` and ``SequenceSampler``, as an oracle of our own says them.

Their code is on no package index. In words: for an episode of L rows, samples start at each of ``-pad_before ..
L - horizon + pad_after``; a row before the episode is its first, a row after it its last. Image keys may want the
first k of the horizon's rows only.
"""

import itertools
import shutil

import numpy as np
import pytest
import zarr
from equality import assert_all_same

from globidx import FileCacheDataset, GlobalIndexManager, Window

LENGTHS = (5, 1, 11, 3, 8)


class Sampler:
    """Each start of each episode, with its rows clipped to the episode, one after the other."""

    def __init__(
        self,
        arrays,
        episode_ends,
        horizon,
        *,
        pad_before=0,
        pad_after=0,
        first_k=None,
        episodes=None,
    ):
        self.arrays, self.horizon, self.first_k = arrays, horizon, first_k or {}
        self.samples = []
        begin = 0
        for episode, end in enumerate(episode_ends):
            length = int(end) - begin
            if episodes is None or episode in episodes:
                for start in range(-pad_before, length - horizon + pad_after + 1):
                    rows = [
                        begin + min(max(start + step, 0), length - 1) for step in range(horizon)
                    ]
                    self.samples.append(rows)
            begin = int(end)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, number):
        rows = self.samples[number]
        return {
            name: np.stack([array[row] for row in rows[: self.first_k.get(name, self.horizon)]])
            for name, array in self.arrays.items()
        }


def write_buffer(path, lengths=LENGTHS, *, seed=0, zarr_format=2):
    """Writes a replay buffer; episodes lie end to end, chunks cross their borders."""
    rng = np.random.default_rng(seed)
    total = sum(lengths)
    arrays = {
        "img": rng.integers(0, 256, (total, 6, 6, 3), np.uint8),
        "state": rng.normal(size=(total, 5)).astype("f4"),
        "action": rng.normal(size=(total, 2)).astype("f4"),
    }
    root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    for name, array in arrays.items():
        chunks = ((4 if name == "img" else 7), *array.shape[1:])
        root.create_array(f"data/{name}", data=array, chunks=chunks)
    ends = np.cumsum(lengths).astype("i8")
    root.create_array("meta/episode_ends", data=ends, chunks=ends.shape)
    return arrays, ends


KEY = {"img": "data/img", "state": "data/state", "action": "data/action"}


def opened(path, window, **options):
    index = GlobalIndexManager(
        [str(path)],
        key=KEY,
        sequences="meta/episode_ends",
        window=window,
        cache_dir=path.parent / "cache",
        **options,
    )
    return FileCacheDataset(index)


def samples(sampler):
    return [sampler[number] for number in range(len(sampler))]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(("pad_before", "pad_after"), [*itertools.product([0, 1, 7], repeat=2)])
def test_windows_are_the_samplers(tmp_path, pad_before, pad_after, zarr_format):
    """For each padding, every sample is the one that the sampler gives for the same number."""
    path = tmp_path / "pusht.zarr"
    arrays, ends = write_buffer(path, zarr_format=zarr_format)
    for horizon in (1, 2, 8):
        padding = {
            "pad_before": min(pad_before, horizon - 1),
            "pad_after": min(pad_after, horizon - 1),
        }
        window = Window(
            range(horizon),
            pad="edge",
            before=padding["pad_before"],
            after=padding["pad_after"],
        )
        assert_all_same(opened(path, window), samples(Sampler(arrays, ends, horizon, **padding)))


def test_a_zipped_buffer_is_read_where_it_lies(tmp_path):
    """UMI's ``.zarr.zip``, named as fsspec names what lies in an archive."""
    pytest.importorskip("fsspec")
    arrays, ends = write_buffer(tmp_path / "umi.zarr")
    shutil.make_archive(str(tmp_path / "umi.zarr"), "zip", tmp_path / "umi.zarr")
    index = GlobalIndexManager(
        [f"zip://::{tmp_path}/umi.zarr.zip"],
        key=KEY,
        sequences="meta/episode_ends",
        window=Window(range(4), pad="edge", before=1, after=3),
        cache_dir=tmp_path / "cache",
    )
    sampler = Sampler(arrays, ends, 4, pad_before=1, pad_after=3)
    assert_all_same(FileCacheDataset(index), samples(sampler))


def test_without_padding_episodes_shorter_than_the_horizon_have_no_sample(tmp_path):
    """Windows lie inside an episode: none goes from one to the next."""
    path = tmp_path / "pusht.zarr"
    arrays, ends = write_buffer(path)
    for horizon in (1, 4, 9):
        assert_all_same(
            opened(path, Window(range(horizon))), samples(Sampler(arrays, ends, horizon))
        )


def test_images_take_the_first_rows_of_the_horizon_only(tmp_path):
    """``key_first_k``: two images and states, sixteen actions, over the same samples."""
    path = tmp_path / "pusht.zarr"
    arrays, ends = write_buffer(path)
    offsets = {"img": range(2), "state": range(2), "action": range(8)}
    window = Window(offsets, pad="edge", before=1, after=7)
    sampler = Sampler(arrays, ends, 8, pad_before=1, pad_after=7, first_k={"img": 2, "state": 2})
    assert_all_same(opened(path, window), samples(sampler))


def test_episodes_of_several_buffers_follow_one_another(tmp_path):
    """Two buffers have the samples of the first, then those of the second."""
    parts = []
    for number, lengths in enumerate([(4, 6), (3, 9, 2)]):
        arrays, ends = write_buffer(tmp_path / f"{number}.zarr", lengths, seed=number)
        parts += samples(Sampler(arrays, ends, 3, pad_before=2, pad_after=2))
    index = GlobalIndexManager(
        [str(tmp_path / f"{number}.zarr") for number in range(2)],
        key=KEY,
        sequences="meta/episode_ends",
        window=Window(range(3), pad="edge", before=2, after=2),
        cache_dir=tmp_path / "cache",
    )
    assert_all_same(FileCacheDataset(index), parts)


def test_an_episode_mask_leaves_whole_episodes(tmp_path):
    """``only`` with the names of some episodes is the sampler's ``episode_mask``."""
    path = tmp_path / "pusht.zarr"
    arrays, ends = write_buffer(path)
    names = list(opened(path, range(4)).index_manager.sequences.names)
    window = Window(range(4), pad="edge", before=1, after=3)
    ours = opened(path, window, only=[names[0], names[2], names[4]])
    sampler = Sampler(arrays, ends, 4, pad_before=1, pad_after=3, episodes={0, 2, 4})
    assert_all_same(ours, samples(sampler))


def test_starts_and_lengths_say_the_same_as_ends(tmp_path):
    """Episodes may be given by their first row and length: the same samples."""
    path = tmp_path / "pusht.zarr"
    arrays, ends = write_buffer(path)
    root = zarr.open_group(path, mode="r+")
    root.create_array("ep_offset", data=ends - LENGTHS)
    root.create_array("ep_len", data=np.array(LENGTHS))
    window = Window(range(3), pad="edge", before=1, after=2)
    index = GlobalIndexManager(
        [str(path)],
        key=KEY,
        sequences=("ep_offset", "ep_len"),
        window=window,
        cache_dir=tmp_path / "cache",
    )
    sampler = Sampler(arrays, ends, 3, pad_before=1, pad_after=2)
    assert_all_same(FileCacheDataset(index), samples(sampler))


def test_the_layout_diffusion_policy_takes_all_of_a_buffer(tmp_path):
    """``layout="diffusion-policy"`` stands for all arrays below data, and for the episodes."""
    path = tmp_path / "pusht.zarr"
    arrays, ends = write_buffer(path)
    index = GlobalIndexManager(
        [str(path)],
        layout="diffusion-policy",
        window=Window(range(4), pad="edge", before=1, after=3),
        cache_dir=tmp_path / "cache",
    )
    sampler = Sampler(arrays, ends, 4, pad_before=1, pad_after=3)
    assert_all_same(FileCacheDataset(index), samples(sampler))
