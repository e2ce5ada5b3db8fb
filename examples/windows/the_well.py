"""Train on simulations as The Well and PDEBench write them: trajectories along axis 0 of an array, time along axis 1.

python examples/windows/the_well.py
"""

import tempfile

import h5py
import numpy as np
import torch

from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler, Window, orders

N_IN, N_OUT, MAX_DT_STRIDE = 4, 1, 4
LAST = N_IN + N_OUT - 1  # the last step of a sample, in strides from its first


def write_simulations(folder: str) -> None:
    """A file for each parameter: fields (trajectory, time, x, y, ...), and what all its trajectories share."""
    random, shape = np.random.default_rng(0), (6, 20, 16, 8)
    for rayleigh in (1e6, 1e7, 1e8):
        with h5py.File(f"{folder}/rayleigh_{rayleigh:.0e}.hdf5", "w") as file:
            buoyancy = random.random(shape, np.float32)
            file.create_dataset("t0_fields/buoyancy", data=buoyancy, chunks=(1, 5, 16, 8), compression="gzip")
            file["t1_fields/velocity"] = random.random((*shape, 2), np.float32)
            file["scalars/Rayleigh"], file["dimensions/x"] = rayleigh, np.linspace(0, 4, 16)


def random_stride(sample: dict, rng: np.random.Generator) -> dict:
    """Every stride-th step of a window, with a stride from 1 to MAX_DT_STRIDE, or to what the trajectory has left."""
    left = int(sample["mask"].sum()) - 1
    stride = int(rng.integers(1, min(MAX_DT_STRIDE, left // LAST), endpoint=True))
    steps = {name: sample[name][: LAST * stride + 1 : stride] for name in ("buoyancy", "velocity")}
    return {**steps, "stride": stride, "Rayleigh": sample["Rayleigh"], "x": sample["x"]}


if __name__ == "__main__":
    folder = tempfile.TemporaryDirectory()
    write_simulations(folder.name)
    index = GlobalIndexManager(
        folder.name,
        key={"buoyancy": "t0_fields/buoyancy", "velocity": "t1_fields/velocity"},
        sequences="axis",
        # all steps that the largest stride may take; where a trajectory ends before these, `mask` says so
        window=Window(range(LAST * MAX_DT_STRIDE + 1), pad="edge", after=LAST * (MAX_DT_STRIDE - 1), mask=True),
        constants={"Rayleigh": "scalars/Rayleigh", "x": "dimensions/x"},
    )
    print(f"{len(index)} windows in {len(index.sequences)} trajectories of {index.num_files} files")

    dataset = FileCacheDataset(index, transform=random_stride)
    sampler = ResumableDistributedSampler(dataset, seed=7, order=orders.ChunkShuffle(window=4))
    model = torch.nn.Conv2d(3 * N_IN, 3 * N_OUT, 3, padding=1)
    for batch in DataLoader(dataset, batch_size=16, sampler=sampler):
        steps = torch.cat([batch["buoyancy"][..., None], batch["velocity"]], -1)  # (batch, time, x, y, field)
        given, wanted = (part.movedim(-1, 2).flatten(1, 2) for part in steps.split([N_IN, N_OUT], 1))
        (model(given) - wanted).square().mean().backward()
    print("given", given.shape, "wanted", wanted.shape, "strides", batch["stride"].tolist()[:8])
    print(f"{dataset.counters().decodes} chunks decoded, of {3 * 6 * 4}")
    folder.cleanup()
