"""makani's loop with a record in its checkpoints, and epochs shorter than the data: killed on 2 ranks, resumed on 3.

python examples/recipes/makani.py
"""

import tempfile
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader

import globidx

IN_CHANNELS, OUT_CHANNELS, N_HISTORY, N_FUTURE, DT = [0, 2, 3], [0, 2], 1, 1, 2
N_SAMPLES_PER_EPOCH, MAX_EPOCHS, GLOBAL_BATCH_SIZE = 24, 9, 12


def write_years(folder: Path) -> None:
    """A file a year: ``fields (time, channel, lat, lon)``."""
    random = np.random.default_rng(0)
    for year in (2015, 2016, 2017):
        with h5py.File(folder / f"{year}.h5", "w") as file:
            file["fields"] = random.random((26, 4, 4, 8), np.float32)
            file["timestamp"] = np.arange(26) + 26 * (year - 2015)


def open_dataset(folder: Path) -> globidx.FileCacheDataset:
    """What ``MultifilesDataset`` gives: windows across the ends of years, of some channels."""
    given, wanted = range(0, DT * (N_HISTORY + 1), DT), range(DT * (N_HISTORY + 1), DT * (N_HISTORY + N_FUTURE + 2), DT)
    years = globidx.GlobalIndexManager(
        f"{folder}/*.h5",
        key={"inp": "fields", "tar": "fields"},
        sequences="chain",
        window=globidx.Window({"inp": given, "tar": wanted}),
    )
    return globidx.FileCacheDataset(years, select={"inp": {1: IN_CHANNELS}, "tar": {1: OUT_CHANNELS}}, with_id=True)


class Trainer:
    """``makani/utils/training/deterministic_trainer.py``, as far as it reads, saves and resumes."""

    def __init__(self, folder: Path, shard: int, shards: int) -> None:
        dataset = open_dataset(folder)
        self.train_sampler = globidx.ResumableDistributedSampler(
            dataset, num_replicas=shards, rank=shard, epoch_size=N_SAMPLES_PER_EPOCH
        )
        self.train_dataloader = DataLoader(dataset, GLOBAL_BATCH_SIZE // shards, sampler=self.train_sampler)
        self.trained, self.start_epoch, self.is_main = Counter(), 0, shard == 0
        iterator = iter(self.train_dataloader)
        (data, _ids) = next(iterator)  # the model is made for the shapes of a first batch
        assert data["inp"].shape[1:3] == (N_HISTORY + 1, len(IN_CHANNELS))
        self.checkpoint = folder / "ckpt_mp0.tar"
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint)
            self.start_epoch = state["epoch"]
            self.train_sampler.load_state_dict(state["sampler"])

    def train(self, max_epochs: int) -> Counter:
        """How often each id was trained on."""
        for epoch in range(self.start_epoch, max_epochs):
            self.train_sampler.set_epoch(epoch)
            for _data, ids in self.train_dataloader:
                self.trained.update(ids.tolist())
                self.train_sampler.commit(len(ids))  # inp.shape[0]
            if self.is_main:
                state = {"epoch": epoch + 1, "sampler": self.train_sampler.state_dict()}
                torch.save(state, self.checkpoint)
        return self.trained


def run(folder: Path, shards: int, max_epochs: int) -> Counter:
    """A job of so many ranks, played one after the other."""
    trainers = [Trainer(folder, shard, shards) for shard in range(shards)]
    return sum((trainer.train(max_epochs) for trainer in trainers), Counter())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        write_years(Path(name))
        trained = run(Path(name), 2, max_epochs=1) + run(Path(name), 3, max_epochs=MAX_EPOCHS)
    print(f"{MAX_EPOCHS} epochs of {N_SAMPLES_PER_EPOCH} samples, the first on 2 ranks and the others on 3")
    assert trained == Counter(dict.fromkeys(range(72), 3))
    print("72 samples, each trained on 3 times")
