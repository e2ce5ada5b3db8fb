"""robomimic's loop, whose epochs are a number of steps, with a record: killed on 1 process, resumed on 3, then on 1.

python examples/recipes/robomimic.py
"""

import tempfile
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import torch

import globidx

EPOCH_EVERY_N_STEPS, NUM_EPOCHS = 4, 7


def write_demos(path: Path) -> None:
    """Groups ``data/demo_k``, and a list of those to train on."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in range(6):
            demo, length = file.create_group(f"data/demo_{number}"), 13 + number
            demo["actions"] = random.random((length, 7), np.float32)
            demo["obs/robot0_eef_pos"] = random.random((length, 3), np.float32)
            demo["obs/agentview_image"] = random.integers(0, 256, (length, 8, 8, 3), np.uint8)
            demo.attrs["num_samples"] = length
        file["mask/train"] = [f"demo_{number}" for number in range(5)]


class Endless:
    """Batches of one epoch after the other, however long the loops are that take them."""

    def __init__(self, loader: globidx.DataLoader) -> None:
        self.loader, self.batches = loader, self.forever()

    def forever(self):
        while True:
            yield from self.loader

    def __iter__(self):
        return self.batches

    def __len__(self) -> int:
        return len(self.loader)


def run_epoch(model, data_loader, num_steps, trained: list) -> None:
    """``robomimic.utils.train_utils.run_epoch``, unchanged as far as it reads."""
    data_loader_iter = iter(data_loader)
    for _ in range(len(data_loader) if num_steps is None else num_steps):
        try:
            batch, ids = next(data_loader_iter)
        except StopIteration:
            data_loader_iter = iter(data_loader)
            batch, ids = next(data_loader_iter)
        (model(batch["obs"]["robot0_eef_pos"]) - batch["actions"]).square().mean().backward()
        trained.extend(ids.tolist())


def train(folder: Path, rank: int, ranks: int, until: int) -> list[int]:
    """``robomimic/scripts/train.py`` on one rank, up to an epoch; the ids that it trained on."""
    index = globidx.GlobalIndexManager(
        str(folder / "image.hdf5"),
        key="data/*/{obs/{robot0_eef_pos,agentview_image},actions}",
        sequences="match",
        only="mask/train",
        window=globidx.Window({"obs/agentview_image": (-1, 0), "obs/robot0_eef_pos": 0, "actions": 0}, pad="edge"),
    )
    trainset = globidx.FileCacheDataset(index, with_id=True)
    sampler = globidx.ResumableDistributedSampler(trainset, ranks, rank, seed=7)
    train_loader = Endless(globidx.DataLoader(trainset, batch_size=12 // ranks, sampler=sampler))
    model, first_epoch, trained, checkpoint = torch.nn.Linear(3, 7), 1, [], folder / "last.pth"
    if checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        sampler.load_state_dict(state["sampler"])
        first_epoch = state["epoch"] + 1
    for _epoch in range(first_epoch, until + 1):
        run_epoch(model, train_loader, EPOCH_EVERY_N_STEPS, trained)
    if rank == ranks - 1:  # the last one to be played
        state = {"model": model.state_dict(), "sampler": sampler.state_dict(), "epoch": until}
        torch.save(state, checkpoint)
    return trained


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_demos(Path(folder) / "image.hdf5")
        trained = Counter()
        for ranks, until in ((1, 1), (3, 4), (1, NUM_EPOCHS)):
            for rank in range(ranks):
                trained.update(train(Path(folder), rank, ranks, until))
    print(f"{NUM_EPOCHS} epochs of {EPOCH_EVERY_N_STEPS} steps, on 1, 3 and 1 processes")
    assert trained == Counter(dict.fromkeys(range(75), 4))
    print("75 samples, each trained on 4 times")
