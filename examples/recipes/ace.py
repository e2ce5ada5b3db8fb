"""ACE's loop with a record in ``ckpt.tar``: killed in mid-epoch on 2 ranks, resumed on 3, killed before validation.

python examples/recipes/ace.py
"""

import itertools
import tempfile
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import torch

import globidx

N_FORWARD_STEPS, MAX_EPOCHS, CHECKPOINT_EVERY_N_BATCHES = 2, 2, 4


def write_months(folder: Path) -> None:
    """Two ensemble members with a netCDF4 file a month: variables beside each other, one without time."""
    random = np.random.default_rng(0)
    for member, month in itertools.product(("ic_0001", "ic_0002"), (1, 2, 3, 4)):
        (folder / member).mkdir(exist_ok=True)
        with h5py.File(folder / member / f"2021-{month:02}.nc", "w") as file:
            file["T2m"], file["PRESsfc"] = random.random((2, 10, 4, 8), np.float32)
            file["HGTsfc"] = random.random((4, 8), np.float32)


class Trainer:
    """``fme/core/generics/trainer.py`` and ``dataloader.py``, as far as they read, save and resume."""

    def __init__(self, folder: Path, rank: int, ranks: int) -> None:
        months = globidx.GlobalIndexManager(
            f"{folder}/*/*.nc",
            key=["T2m", "PRESsfc"],
            sequences="chain",
            chain_by="parent",
            window=globidx.Window(range(1 + N_FORWARD_STEPS)),
            constants={"HGTsfc": "HGTsfc"},
        )
        self.dataset = globidx.FileCacheDataset(months, with_id=True)
        self.sampler = globidx.ResumableDistributedSampler(self.dataset, ranks, rank, seed=5)
        self.loader = globidx.DataLoader(self.dataset, batch_size=2, sampler=self.sampler)
        self.num_batches_seen = self.epochs_trained = 0
        self.checkpoint, self.is_root, self.trained = folder / "ckpt.tar", rank == 0, Counter()
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint)
            self.num_batches_seen, self.epochs_trained = state["num_batches_seen"], state["epoch"]
            self.sampler.load_state_dict(state["sampler"])

    def save_checkpoint(self) -> None:
        state = {"num_batches_seen": self.num_batches_seen, "epoch": self.epochs_trained}
        if self.is_root:
            torch.save({**state, "sampler": self.sampler.state_dict()}, self.checkpoint)

    def evaluation_batches(self, count: int):
        """``alternate_shuffle`` and ``subset``: a shuffle of its own, so that the sampler stays where it is."""
        ranks = self.sampler.num_replicas, self.sampler.rank
        ids = torch.utils.data.DistributedSampler(self.dataset, *ranks, seed=1000 + self.sampler.epoch)
        return itertools.islice(torch.utils.data.DataLoader(self.dataset, batch_size=2, sampler=ids), count)

    def train_one_epoch(self, kill_at: int | None) -> bool:
        """Whether the job goes on."""
        epoch = self.epochs_trained + 1
        is_trained = self.sampler.epoch > epoch  # saved between training and validation
        if not is_trained:
            self.sampler.set_epoch(epoch)
        if self.num_batches_seen == 0:
            next(iter(self.loader))  # logs the loss of the first batch, which is trained on all the same
        for _batch, ids in () if is_trained else self.loader:
            self.num_batches_seen += 1
            self.trained.update((epoch, id) for id in ids.tolist())
            if self.num_batches_seen % CHECKPOINT_EVERY_N_BATCHES == 0:
                self.save_checkpoint()
                if kill_at == self.num_batches_seen:
                    return False
        assert len(list(self.evaluation_batches(3))) == 3
        self.save_checkpoint()  # before the epoch counts, so that a resumed run validates
        self.epochs_trained += 1
        return kill_at != -epoch and self.epochs_trained < MAX_EPOCHS


def run(folder: Path, ranks: int, kill_at: int | None = None) -> Counter:
    """A job of so many ranks, played one after the other: how often each (epoch, id) was trained on."""
    trainers = [Trainer(folder, rank, ranks) for rank in range(ranks)]
    for trainer in trainers:
        while trainer.train_one_epoch(kill_at):
            pass
    return sum((trainer.trained for trainer in trainers), Counter())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        write_months(Path(name))
        legs = [run(Path(name), 2, kill_at=4), run(Path(name), 3, kill_at=-1), run(Path(name), 1)]
    print("samples of epoch 1:", *(sum(epoch == 1 for epoch, _ in leg) for leg in legs))
    assert sum(legs, Counter()) == Counter((epoch, id) for epoch in (1, 2) for id in range(76))
    print("76 samples, each trained on once in epoch 1 and once in epoch 2")
