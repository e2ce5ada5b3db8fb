"""Train on weather in monthly netCDF files, as ACE does: steps that follow one another across the ends of months.

python examples/windows/monthly_netcdf.py
"""

import tempfile
from pathlib import Path

import h5py
import numpy as np
import torch

from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler, Window

N_FORWARD_STEPS = 2
DAYS = {"2021-01": 31, "2021-02": 28, "2021-03": 31}


def write_months(folder: Path) -> None:
    """Two ensemble members, a folder each, with a file a month: variables beside each other, one without time."""
    random = np.random.default_rng(0)
    for member in ("ic_0001", "ic_0002"):
        (folder / member).mkdir()
        hours = 0
        for month, days in DAYS.items():
            steps = 4 * days
            with h5py.File(folder / member / f"{month}.nc", "w") as file:
                file["time"] = np.arange(hours, hours + 6 * steps, 6)
                file["time"].attrs["units"] = "hours since 2021-01-01"
                for name in ("T2m", "PRESsfc"):
                    file[name] = random.random((steps, 8, 16), np.float32)
                file["HGTsfc"] = random.random((8, 16), np.float32)
            hours += 6 * steps


def train(folder: Path) -> None:
    index = GlobalIndexManager(
        f"{folder}/*/*.nc",
        key=["T2m", "PRESsfc", "time"],
        sequences="chain",
        chain_by="parent",
        window=Window({"T2m": range(1 + N_FORWARD_STEPS), "PRESsfc": range(1 + N_FORWARD_STEPS), "time": 0}),
        constants={"HGTsfc": "HGTsfc"},
    )
    print(f"{len(index)} windows in {len(index.sequences.names)} chains of {index.sequences.lengths.tolist()} steps")
    last = index.sample_id(0, 4 * 31 - 1)
    print(f"the window that begins with the last step of January: {index.where(last).rows['T2m'].tolist()}")
    dataset = FileCacheDataset(index)
    print(f"its time is {dataset[last]['time']} h, its shape {tuple(dataset[last]['T2m'].shape)}")
    sampler = ResumableDistributedSampler(dataset, seed=7)
    for batch in DataLoader(dataset, batch_size=32, sampler=sampler):
        steps = torch.stack([batch["T2m"], batch["PRESsfc"]], 2)  # (batch, time, variable, lat, lon)
    print(tuple(steps.shape), tuple(batch["HGTsfc"].shape))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_months(Path(folder))
        train(Path(folder))
