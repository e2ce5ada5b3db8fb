"""Train on an HCS plate as VisCy does: Lightning, a data module, windows of slices at each time of each position.

python examples/recipes/viscy.py
"""

import hashlib
import tempfile
from collections import Counter
from pathlib import Path

import lightning
import numpy as np
import torch
import zarr
from lightning.pytorch.callbacks import ModelCheckpoint

from globidx import DataLoader, ResumableDistributedSampler
from globidx.integrations.lightning import ResumableSamplerCallback

Z_WINDOW, SETTINGS = 3, {"accelerator": "cpu", "strategy": "ddp_fork", "max_epochs": 2, "logger": False}


def write_plate(path: Path) -> None:
    wells = [{"path": well} for well in ("A/1", "A/2", "B/1")]
    plate = zarr.create_group(path, zarr_format=2, attributes={"plate": {"wells": wells}})
    for number, well in enumerate(wells):
        group = plate.create_group(well["path"], attributes={"well": {"images": [{"path": "0"}, {"path": "1"}]}})
        for image in range(2):
            data = np.random.default_rng(0).integers(1, 999, (2 * (1 + number) + image, 2, 8, 16, 16), "u2")
            group.create_array(f"{image}/0", data=data, chunks=(1, 1, 1, 16, 16))


class SlidingWindowDataset(torch.utils.data.Dataset):
    """What theirs gives, and a fingerprint: a record is refused over other positions, or in another sequence."""

    def __init__(self, plate: Path, positions: list[str]):
        self.arrays = {position: zarr.open_array(plate / position / "0", mode="r") for position in positions}
        shapes = {position: array.shape for position, array in self.arrays.items()}
        self.windows = []
        for position, (times, _, slices, *_) in shapes.items():
            self.windows += [(position, t, z) for t in range(times) for z in range(slices - Z_WINDOW + 1)]
        self.fingerprint = hashlib.sha256(f"{Z_WINDOW} slices of {shapes}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict:
        position, t, z = self.windows[index]
        source, target = torch.from_numpy(self.arrays[position][t, :, z : z + Z_WINDOW].astype("f4"))
        return {"index": f"{position} {t} {z}", "source": source, "target": target}


class HCSDataModule(lightning.LightningDataModule):
    """Theirs, but for the seed of the order of positions, the sampler and the loader."""

    def __init__(self, plate: Path):
        super().__init__()
        self.plate = plate

    def setup(self, stage: str) -> None:
        wells = zarr.open_group(self.plate, mode="r").attrs["plate"]["wells"]
        positions = [f"{well['path']}/{image}" for well in wells for image in range(2)]
        chosen = torch.randperm(6, generator=torch.Generator().manual_seed(1))[:5]
        self.train_dataset = SlidingWindowDataset(self.plate, [positions[one] for one in chosen])
        self.sampler = ResumableDistributedSampler(self.train_dataset, seed=7)
        self.trainer.callbacks.insert(0, ResumableSamplerCallback(self.sampler))

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train_dataset, batch_size=6, sampler=self.sampler)


class Stain(lightning.LightningModule):
    """One channel from the other."""

    def __init__(self, trained: Path):
        super().__init__()
        self.net, self.trained = torch.nn.Conv2d(Z_WINDOW, Z_WINDOW, 3, padding=1), trained

    def training_step(self, batch: dict, number: int) -> torch.Tensor:
        with open(self.trained, "a") as file:
            print(*(f"{self.current_epoch} {index}" for index in batch["index"]), sep="\n", file=file)
        return (self.net(batch["source"]) - batch["target"]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        write_plate(Path(name, "plate.zarr"))
        trained, last = Path(name, "trained.txt"), Path(name, "last.ckpt")
        for processes, stop in ((2, 4), (3, -1)):
            save = ModelCheckpoint(name, "last", every_n_train_steps=4, enable_version_counter=False)
            trainer = lightning.Trainer(devices=processes, max_steps=stop, callbacks=[save], **SETTINGS)
            data, resume = HCSDataModule(Path(name, "plate.zarr")), last if last.exists() else None
            trainer.fit(Stain(trained), datamodule=data, ckpt_path=resume)
            windows = Counter(trained.read_text().splitlines())
            print(f"{processes} processes end with {windows.total()} windows")
        assert windows.total() == len(windows) == 2 * 126
