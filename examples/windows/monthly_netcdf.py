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


def write_months(folder: Path) -> None:
    """Two ensemble members, a folder each, with a file a month: variables beside each other, one without time."""
    random = np.random.default_rng(0)
    for member in ("ic_0001", "ic_0002"):
        (folder / member).mkdir()
        begin = 0
        for month, days in {"2021-01": 31, "2021-02": 28, "2021-03": 31}.items():
            with h5py.File(folder / member / f"{month}.nc", "w") as file:  # netCDF4 is HDF5
                file["time"] = begin + np.arange(0, 24 * days, 6)
                file["time"].attrs["units"] = "hours since 2021-01-01"
                for name in ("T2m", "PRESsfc"):
                    file[name] = random.random((4 * days, 8, 16), np.float32)
                file["HGTsfc"] = random.random((8, 16), np.float32)
            begin += 24 * days


def train(folder: Path) -> None:
    steps = range(1 + N_FORWARD_STEPS)
    index = GlobalIndexManager(
        f"{folder}/*/*.nc",
        key=["T2m", "PRESsfc", "time"],
        sequences="chain",
        chain_by="parent",  # never a window over two members
        window=Window({"T2m": steps, "PRESsfc": steps, "time": 0}),
        constants={"HGTsfc": "HGTsfc"},
    )
    print(f"{len(index)} windows in {len(index.sequences)} chains of {index.sequences.lengths} steps")

    dataset = FileCacheDataset(index)
    last_of_january = dataset[index.sample_id(0, 4 * 31 - 1)]
    print(f"from hour {last_of_january['time']} on: {tuple(last_of_january['T2m'].shape)}")
    sampler = ResumableDistributedSampler(dataset, seed=7)
    for batch in DataLoader(dataset, batch_size=32, sampler=sampler):
        given, *wanted = torch.stack([batch["T2m"], batch["PRESsfc"]], 2).unbind(1)  # (batch, variable, lat, lon)
    print("given", given.shape, f"and {len(wanted)} steps wanted; static", batch["HGTsfc"].shape)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_months(Path(folder))
        train(Path(folder))
