"""Train on recordings as LaBraM keeps them: HDF5 arrays (channels, time), cut along time.

python examples/windows/eeg.py
"""

import tempfile

import h5py
import numpy as np
import torch

from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler, Window, orders

RATE, SECONDS = 200, 4


def write_recordings(path: str) -> None:
    """Six subjects, a group each, with signals of their own length; all have the same channels."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in range(1, 7):
            samples = RATE * (20 + 5 * number) + 37
            signal = random.normal(size=(8, samples)).astype(np.float32)
            eeg = file.create_dataset(f"sub-{number}/eeg", data=signal, chunks=(8, RATE), compression="gzip")
            eeg.attrs["rsFreq"], eeg.attrs["chOrder"] = RATE, ["FP1", "FP2", "C3", "C4", "P3", "P4", "O1", "O2"]


def patches(sample: dict[str, torch.Tensor]) -> torch.Tensor:
    """(time, channels) as LaBraM wants it: (channels, seconds, samples of a second)."""
    return sample["eeg"].T.reshape(-1, SECONDS, RATE)


def train(path: str) -> None:
    index = GlobalIndexManager(
        path,
        key="*/eeg",
        axis=1,
        sequences="match",
        window=Window(range(SECONDS * RATE), stride=RATE),
        constants={"rate": "*/eeg@rsFreq"},
    )
    print(f"{len(index)} windows in {len(index.sequences.names)} recordings, {index.sequences.lengths[0]} samples first")
    print(f"a sample without transform: {tuple(FileCacheDataset(index)[0]['eeg'].shape)}")
    training, validation = index.split(0.7, seed=0)
    print(f"train on {list(training.sequences.names)}, validate on {list(validation.sequences.names)}")
    dataset = FileCacheDataset(training, transform=patches)
    sampler = ResumableDistributedSampler(dataset, seed=7, order=orders.ChunkShuffle(window=4))
    for batch in DataLoader(dataset, batch_size=16, sampler=sampler):
        torch.fft.rfft(batch).abs()  # here goes the model
    print(f"{len(dataset)} windows trained on, in batches of {tuple(batch.shape)}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_recordings(f"{folder}/recordings.hdf5")
        train(f"{folder}/recordings.hdf5")
