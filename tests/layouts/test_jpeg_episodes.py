"""Episodes with cameras as JPEG: frames at an anchor, the actions that follow it, and an instruction.

The oracle is written from RDT's ``parse_hdf5_file``, which is on no package index: it decodes by
OpenCV, repeats the first frame and the last action, and takes one step of one file at a time. It
begins where the robot first moves, which is left out here: every step is a sample.
"""

import io

import h5py
import numpy as np
import pytest
from equality import assert_all_same, assert_same, read_all

from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, Window
from globidx.errors import ReadError

cv2 = pytest.importorskip("cv2")
Image = pytest.importorskip("PIL.Image")

LENGTHS = {"episode_0": 9, "episode_10": 4, "episode_2": 7, "episode_1": 1}
CAMERAS = ("cam_high", "cam_left_wrist")
CHUNK, HISTORY = 5, 2
FRAMES = {f"images/{camera}": range(1 - HISTORY, 1) for camera in CAMERAS}
FRAME = {f"images/{camera}": 0 for camera in CAMERAS}
#: How writers keep the bytes: padded with zeros to the longest, as rows of their own lengths, or, as ACT does, as
#: numbers that are padded to the longest of the file.
KINDS = ("fixed", "vlen", "padded")


def jpegs(rng, length):
    """Frames of noise in patches, whose encoded sizes differ."""
    for _ in range(length):
        coarse = rng.integers(0, 256, (rng.integers(1, 9), 3, 3), np.uint8)
        frame = cv2.resize(coarse, (24, 16), interpolation=cv2.INTER_NEAREST)
        yield cv2.imencode(".jpg", frame)[1].tobytes()


def write_frames(group, name, frames, kind):
    longest = max(map(len, frames))
    if kind == "fixed":
        group.create_dataset(name, data=np.array(frames, f"|S{longest}"))
    elif kind == "padded":
        padded = [np.frombuffer(frame.ljust(longest, b"\0"), np.uint8) for frame in frames]
        group.create_dataset(name, data=np.stack(padded), chunks=(1, longest))
    else:
        dataset = group.create_dataset(name, (len(frames),), h5py.vlen_dtype("u1"), chunks=(1,))
        for number, frame in enumerate(frames):
            dataset[number] = np.frombuffer(frame, np.uint8)


@pytest.fixture(params=KINDS, scope="module")
def episodes(request, tmp_path_factory):
    """Files of episodes, episode 2 before episode 10."""
    folder = tmp_path_factory.mktemp(request.param)
    rng = np.random.default_rng(0)
    for name, length in LENGTHS.items():
        with h5py.File(folder / f"{name}.hdf5", "w") as file:
            file["observations/qpos"] = rng.normal(size=(length, 14)).astype("f4")
            file["action"] = rng.normal(size=(length, 14)).astype("f4")
            file["instruction"] = f"put {name} into the cup"
            images = file.create_group("observations/images")
            for camera in CAMERAS:
                write_frames(images, camera, [*jpegs(rng, length)], request.param)
    return sorted(folder.iterdir(), key=lambda path: int(path.stem[8:]))


def by_opencv(frame):
    """RDT's own line; what it gives is blue, green, red."""
    return cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR)


def by_pillow(frame):
    return np.asarray(Image.open(io.BytesIO(frame)))


def is_padded(path):
    with h5py.File(path) as file:
        return file["observations/images"][CAMERAS[0]].ndim == 2


def opened(paths, cache_dir, window, *, decoder=by_opencv, **options):
    key = {"qpos": "observations/qpos", "action": "action"}
    # rows of numbers are as long as the longest frame of their file
    brackets = "[...]" if is_padded(paths[0]) else ""
    key |= {f"images/{camera}": f"observations/images/{camera}{brackets}" for camera in CAMERAS}
    index = GlobalIndexManager(
        [str(path) for path in paths],
        key=key,
        sequences="file",
        window=window,
        constants={"instruction": "instruction"},
        cache_dir=cache_dir,
    )
    decode = {f"images/{camera}": decoder for camera in CAMERAS}
    return FileCacheDataset(index, decode=decode, **options)


def parsed(path, step, decoder=by_opencv):
    """What RDT's ``parse_hdf5_file`` makes of one step of a file."""
    with h5py.File(path, "r") as file:
        actions = file["action"][step : step + CHUNK]
        if actions.shape[0] < CHUNK:
            last = np.tile(actions[-1:], (CHUNK - actions.shape[0], 1))
            actions = np.concatenate([actions, last], axis=0)
        images = {}
        for camera in CAMERAS:
            frames = [
                decoder(file["observations/images"][camera][number])
                for number in range(max(step - HISTORY + 1, 0), step + 1)
            ]
            stacked = np.stack(frames)
            if stacked.shape[0] < HISTORY:
                first = np.tile(stacked[:1], (HISTORY - stacked.shape[0], 1, 1, 1))
                stacked = np.concatenate([first, stacked], axis=0)
            images[camera] = stacked
        valid = min(step + 1, HISTORY)
        return {
            "qpos": file["observations/qpos"][step : step + 1],
            "action": actions,
            "images": images,
            "instruction": file["instruction"][()].decode(),
            "image_mask": np.array([False] * (HISTORY - valid) + [True] * valid),
        }


def steps(paths):
    for path in paths:
        with h5py.File(path) as file:
            length = len(file["action"])
        for step in range(length):
            yield path, step


def image_mask(sample):
    """RDT has one mask for the frames of a camera, and none for actions."""
    masks = sample.pop("mask")
    left, right = (masks["images"][camera] for camera in CAMERAS)
    assert left.equal(right)
    return {**sample, "image_mask": left}


@pytest.mark.parametrize("decoder", [by_opencv, by_pillow])
def test_frames_and_actions_are_rdts(episodes, tmp_path, decoder):
    """Two frames of each camera up to the step, five actions from it on, whatever decodes the frames."""
    window = Window({**FRAMES, "qpos": (0,), "action": range(CHUNK)}, pad="edge", mask=True)
    ours = opened(episodes, tmp_path, window, decoder=decoder, transform=image_mask)
    assert_all_same(ours, [parsed(path, step, decoder) for path, step in steps(episodes)])


def test_one_frame_has_no_axis_of_its_own(episodes, tmp_path):
    """An int as offset: the frame at the anchor beside the actions."""
    window = Window({**FRAME, "qpos": 0, "action": range(CHUNK)}, pad="edge")
    expected = []
    for path, step in steps(episodes):
        sample = parsed(path, step)
        del sample["image_mask"]
        sample["qpos"] = sample["qpos"][0]
        sample["images"] = {name: frames[-1] for name, frames in sample["images"].items()}
        expected.append(sample)
    assert_all_same(opened(episodes, tmp_path, window), expected)


def test_a_frame_of_many_windows_of_a_batch_is_decoded_once(episodes, tmp_path):
    """Eight steps of an episode with two frames each: eight frames of each camera, not sixteen."""
    calls = []

    def counted(frame):
        calls.append(frame)
        return by_opencv(frame)

    window = Window({**FRAMES, "qpos": 0, "action": 0}, pad="edge")
    dataset = opened(episodes, tmp_path, window, decoder=counted)
    dataset.__getitems__(range(8))
    assert len(calls) == 8 * len(CAMERAS)


def test_batches_of_frames_come_out_of_workers(episodes, tmp_path):
    """Decoding happens in the worker; instructions are a list."""
    window = Window({**FRAME, "qpos": 0, "action": range(CHUNK)}, pad="edge")
    dataset = opened(episodes, tmp_path, window)
    samples = read_all(dataset)
    seen = 0
    for batch in DataLoader(dataset, batch_size=4, num_workers=2):
        for number, instruction in enumerate(batch["instruction"]):
            sample = samples[seen]
            assert instruction == sample["instruction"]
            images = {name: frames[number] for name, frames in batch["images"].items()}
            assert_same(images, sample["images"], f"sample {seen}")
            seen += 1
    assert seen == sum(LENGTHS.values())


def test_a_broken_frame_is_named(tmp_path):
    """The error has the file, the field, the id and what the decoder said."""
    path = tmp_path / "episode_0.hdf5"
    with h5py.File(path, "w") as file:
        frames = [*jpegs(np.random.default_rng(0), 3)]
        frames[1] = b"no jpeg"
        write_frames(file, "frames", frames, "vlen")
    index = GlobalIndexManager(str(path), key="frames", cache_dir=tmp_path)
    dataset = FileCacheDataset(index, decode={"frames": by_pillow})
    assert dataset[2].shape == (16, 24, 3)
    with pytest.raises(
        ReadError, match="sample id 1.*'frames' raised UnidentifiedImageError"
    ) as error:
        dataset.__getitems__([0, 1])
    assert "episode_0.hdf5" in str(error.value)
