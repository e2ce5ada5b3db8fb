"""LaBraM's recordings: windows along axis 1 of ``(channels, time)``, as its ``SingleShockDataset`` cuts them.

Their code is on no package index. In words: a recording of L rows has ``(L - window) // stride + 1`` windows, the
k-th from ``k * stride`` on, recording after recording.
"""

import h5py
import numpy as np
import pytest
from equality import assert_all_same

from globidx import FileCacheDataset, GlobalIndexManager, Window

CHANNELS, RATE = 6, 200
FILES = {
    "shock_2.hdf5": {"sub2": 1000, "sub10": 399, "sub1": 200},
    "shock_10.hdf5": {"sub3": 199, "sub4": 777},
}


def write_recordings(path, lengths, seed):
    """Writes recordings as LaBraM's ``h5Dataset`` does: a group a subject, a chunk a second."""
    rng = np.random.default_rng(seed)
    recordings = {}
    with h5py.File(path, "w") as file:
        for subject, length in lengths.items():
            values = rng.normal(size=(CHANNELS, length)).astype("f4")
            chunks = (CHANNELS, min(RATE, length))
            dataset = file.create_group(subject).create_dataset("eeg", data=values, chunks=chunks)
            dataset.attrs["rsFreq"] = RATE + len(recordings)
            dataset.attrs["reference"] = f"of {subject}"
            recordings[subject] = values
    return recordings


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """The folder, and all recordings in the order in which their names count up."""
    folder = tmp_path_factory.mktemp("eeg")
    parts = []
    for number, (name, lengths) in enumerate(FILES.items()):
        written = write_recordings(folder / name, lengths, number)
        parts += [
            (subject, RATE + [*written].index(subject), written[subject])
            for subject in sorted(written, key=lambda subject: int(subject[3:]))
        ]
    return folder, parts


def opened(folder, cache_dir, window, **options):
    index = GlobalIndexManager(
        str(folder / "*.hdf5"),
        key={"eeg": "*/eeg"},
        axis={"eeg": 1},
        sequences="match",
        window=window,
        cache_dir=cache_dir,
        **options,
    )
    return FileCacheDataset(index)


def cut(parts, size, stride):
    """Windows as ``(time, channels)``: offsets are the leading axis."""
    return [
        (subject, rate, values[:, first : first + size].T)
        for subject, rate, values in parts
        for first in range(0, values.shape[1] - size + 1, stride)
    ]


@pytest.mark.parametrize(("size", "stride"), [(200, 200), (200, 50), (400, 100), (1, 97)])
def test_windows_are_cut_along_time(recordings, tmp_path, size, stride):
    """Every window of every recording; one that is shorter than a window has none."""
    folder, parts = recordings
    ours = opened(folder, tmp_path, Window(range(size), stride=stride))
    assert_all_same(ours, [window for _, _, window in cut(parts, size, stride)])


def test_attributes_of_a_recording_come_with_its_windows(recordings, tmp_path):
    """The rate as a tensor, the reference as a str."""
    folder, parts = recordings
    constants = {"rate": "*/eeg@rsFreq", "reference": "*/eeg@reference"}
    ours = opened(folder, tmp_path, Window(range(200), stride=100), constants=constants)
    expected = [
        {"eeg": window, "rate": np.int64(rate), "reference": f"of {subject}"}
        for subject, rate, window in cut(parts, 200, 100)
    ]
    assert_all_same(ours, expected)
