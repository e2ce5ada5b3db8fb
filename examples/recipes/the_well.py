"""The loop of The Well's trainer with a record in its checkpoints: killed in mid-epoch on 2 ranks, resumed on 3.

python examples/recipes/the_well.py
"""

import tempfile
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import torch

import globidx

N_IN, N_OUT, MAX_DT_STRIDE, EPOCHS = 2, 1, 3, 2


def write_simulations(folder: Path) -> None:
    """A file for each parameter: fields (trajectory, time, x, y), and what all its trajectories share."""
    random = np.random.default_rng(0)
    for rayleigh in (1e6, 1e7):
        with h5py.File(folder / f"rayleigh_{rayleigh:.0e}.hdf5", "w") as file:
            file["t0_fields/buoyancy"] = random.random((3, 15, 8, 8), np.float32)
            file["t0_fields/pressure"] = random.random((3, 15, 8, 8), np.float32)
            file["scalars/Rayleigh"] = rayleigh


def as_well_sample(sample: dict, rng: np.random.Generator) -> dict:
    """What ``WellDataset`` gives, its random stride in time included: the same after any resume."""
    rows = slice(None, None, int(rng.integers(1, MAX_DT_STRIDE + 1)))
    fields = torch.stack([sample["buoyancy"], sample["pressure"]], -1)[rows][: N_IN + N_OUT]
    return {"input_fields": fields[:N_IN], "output_fields": fields[N_IN:], "constant_scalars": sample["Rayleigh"]}


class Trainer:
    """``the_well/benchmark/trainer/training.py``, as far as it reads, saves and resumes."""

    def __init__(self, folder: Path, rank: int, world_size: int) -> None:
        index = globidx.GlobalIndexManager(
            str(folder),
            key={name: f"t0_fields/{name}" for name in ("buoyancy", "pressure")},
            sequences="axis",
            window=globidx.Window(range((N_IN + N_OUT - 1) * MAX_DT_STRIDE + 1)),
            constants={"Rayleigh": "scalars/Rayleigh"},
        )
        dataset = globidx.FileCacheDataset(index, transform=as_well_sample, with_id=True)
        self.sampler = globidx.ResumableDistributedSampler(dataset, world_size, rank, seed=7)
        self.train_dataloader = globidx.DataLoader(dataset, batch_size=4, sampler=self.sampler)
        self.model, self.starting_epoch, self.trained = torch.nn.Linear(N_IN, N_OUT), 1, Counter()
        self.checkpoint, self.rank = folder / "recent.pt", rank
        if self.checkpoint.exists():
            self.load_checkpoint()

    def save_model(self) -> None:
        if self.rank == 0:
            state = {"model_state_dict": self.model.state_dict(), "sampler": self.sampler.state_dict()}
            torch.save(state, self.checkpoint)

    def load_checkpoint(self) -> None:
        state = torch.load(self.checkpoint)
        self.model.load_state_dict(state["model_state_dict"])
        self.sampler.load_state_dict(state["sampler"])
        self.starting_epoch = max(1, self.sampler.epoch)  # was: checkpoint["epoch"] + 1

    def train_one_epoch(self, epoch: int, stop_after: int | None) -> bool:
        """Whether the epoch was read to its end."""
        for step, (batch, ids) in enumerate(self.train_dataloader, self.train_dataloader.start + 1):
            given = batch["input_fields"].movedim(1, -1)
            (self.model(given) - batch["output_fields"].movedim(1, -1)).square().mean().backward()
            self.trained.update((epoch, id) for id in ids.tolist())
            if step == stop_after:
                self.save_model()
                return False
        self.save_model()
        return True

    def train(self, stop_after: int | None = None) -> Counter:
        """How often each (epoch, id) was trained on; saved and killed after so many steps."""
        for epoch in range(self.starting_epoch, EPOCHS + 1):
            self.sampler.set_epoch(epoch)
            if not self.train_one_epoch(epoch, stop_after):
                break
        return self.trained


def run(folder: Path, ranks: int, stop_after: int | None = None) -> Counter:
    """A job of so many ranks, played one after the other."""
    trainers = [Trainer(folder, rank, ranks) for rank in range(ranks)]
    return sum((trainer.train(stop_after) for trainer in trainers), Counter())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_simulations(Path(folder))
        first, rest = run(Path(folder), 2, stop_after=3), run(Path(folder), 3)
    print(f"epoch 1: {first.total()} samples on 2 ranks, {sum(epoch == 1 for epoch, _ in rest)} on 3")
    assert first + rest == Counter((epoch, id) for epoch in (1, 2) for id in range(54))
    print("54 samples, each trained on once in epoch 1 and once in epoch 2")
