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
    """Nine subjects, a group each, with signals of their own length; all have the same channels."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in range(1, 10):
            signal = random.normal(size=(8, RATE * (20 + 5 * number) + 37)).astype(np.float32)
            eeg = file.create_dataset(f"sub-{number}/eeg", data=signal, chunks=(8, RATE), compression="gzip")
            eeg.attrs["rsFreq"], eeg.attrs["chOrder"] = RATE, ["FP1", "FP2", "C3", "C4", "P3", "P4", "O1", "O2"]


def patches(sample: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The signal (time, channels) as LaBraM takes it: (channels, seconds, samples of a second)."""
    return {**sample, "eeg": sample["eeg"].T.reshape(-1, SECONDS, RATE)}


def train(path: str) -> None:
    index = GlobalIndexManager(
        path,
        key="*/eeg",
        axis=1,
        sequences="match",
        window=Window(range(SECONDS * RATE), stride=RATE),
        constants={"rate": "*/eeg@rsFreq"},
    )
    print(f"{len(index)} windows in {len(index.sequences)} recordings, the first of {index.sequences.lengths[0]} rows")
    training, validation = index.split(0.7, seed=4)
    print("train on", *training.sequences.names, "and validate on", *validation.sequences.names)

    dataset = FileCacheDataset(training, transform=patches)
    sampler = ResumableDistributedSampler(dataset, seed=7, order=orders.ChunkShuffle(window=4))
    for batch in DataLoader(dataset, batch_size=20, sampler=sampler):
        spectra = torch.fft.rfft(batch["eeg"]).abs()
    print("eeg", batch["eeg"].shape, "spectra", spectra.shape, "rate", *batch["rate"].unique())
    chunks = sum(training.sequences.lengths // RATE)
    print(f"{dataset.counters().decodes / chunks:.2f} decodes a chunk")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_recordings(f"{folder}/recordings.hdf5")
        train(f"{folder}/recordings.hdf5")
