"""Samples of files as The Well writes them, with random strides and torchvision's transforms."""

from functools import partial

import h5py
import numpy as np
import torch
from integrations import vision  # noqa: F401
from the_well.data.datasets import WellDataset
from torchvision.transforms import v2

from globidx import FileCacheDataset, GlobalIndexManager, MapDataset, Window

N_IN, N_OUT, MAX_STRIDE = 2, 1, 4
LAST = N_IN + N_OUT - 1
TRAJECTORIES, STEPS, SHAPE = 3, 12, (8, 8)
FILES = 2
#: As many windows as for stride 1.
SAMPLES = FILES * TRAJECTORIES * (STEPS - LAST)


def write(folder):
    """Two files of The Well: a scalar and a vector field of some trajectories, periodic in both directions."""
    rng = np.random.default_rng(0)
    both = (TRAJECTORIES, STEPS)
    for number in range(FILES):
        with h5py.File(f"{folder}/{number}.hdf5", "w") as file:
            file.attrs.update({"dataset_name": "small", "grid_type": "cartesian"})
            file.attrs.update({"n_spatial_dims": 2, "n_trajectories": TRAJECTORIES})
            group = file.create_group("dimensions")
            group.attrs["spatial_dims"] = ["x", "y"]
            for name, size in {"time": STEPS, "x": SHAPE[0], "y": SHAPE[1]}.items():
                group[name] = np.linspace(0, 1, size, dtype="f4")
                group[name].attrs["sample_varying"] = False
            for name, field, more in (
                ("t0_fields", "density", ()),
                ("t1_fields", "velocity", (2,)),
                ("t2_fields", None, (2, 2)),
                ("scalars", None, ()),
            ):
                group = file.create_group(name)
                group.attrs["field_names"] = [field] if field else []
                if field:
                    group[field] = rng.random((*both, *SHAPE, *more), np.float32)
                    varies = {
                        "sample_varying": True,
                        "time_varying": True,
                        "dim_varying": [True] * 2,
                    }
                    group[field].attrs.update(varies)
            group = file.create_group("boundary_conditions")
            for dim, size in zip("xy", SHAPE, strict=True):
                boundary = group.create_group(f"{dim}_periodic")
                boundary.attrs.update({"associated_dims": [dim], "bc_type": "PERIODIC"})
                boundary["mask"] = np.isin(np.arange(size), [0, size - 1])


def opened(folder, transform):
    """All steps that the largest stride may take; ``mask`` says how many the trajectory has."""
    index = GlobalIndexManager(
        str(folder),
        key={"density": "t0_fields/density", "velocity": "t1_fields/velocity"},
        sequences="axis",
        window=Window(
            range(LAST * MAX_STRIDE + 1), pad="edge", after=LAST * (MAX_STRIDE - 1), mask=True
        ),
    )
    return FileCacheDataset(index, transform=transform, seed_transforms=True)


def random_steps(sample, rng):
    """(steps, channels, x, y) of a random stride, and the stride."""
    left = int(sample["mask"].sum()) - 1
    stride = int(rng.integers(1, min(MAX_STRIDE, left // LAST), endpoint=True))
    fields = torch.cat([sample["density"][..., None], sample["velocity"]], -1)
    return fields[: LAST * stride + 1 : stride].movedim(-1, 1), stride


def augmentation():
    """Crops, flips, turns, colours and noise of torchvision, which draw from torch's global generator."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(6, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomRotation(30),
            v2.ColorJitter(0.2, 0.2),
            v2.GaussianNoise(),
            v2.RandomErasing(),
        ]
    )


def augmented_steps(sample, rng, augment):
    """What a model is given: (steps, channels, x, y)."""
    return augment(random_steps(sample, rng)[0])


def theirs(folder, min_stride=1, max_stride=MAX_STRIDE):
    """The Well's own dataset, which draws strides from numpy's global generator."""
    return WellDataset(
        path=str(folder),
        n_steps_input=N_IN,
        n_steps_output=N_OUT,
        min_dt_stride=min_stride,
        max_dt_stride=max_stride,
    )


def from_well(sample, augment):
    """(steps, channels, x, y) of a sample of The Well."""
    steps = torch.cat([sample["input_fields"], sample["output_fields"]])
    return augment(steps.movedim(-1, 1))


def seeded_well(folder, seed_transforms=True):
    """The Well's own dataset: its strides and torchvision's transforms are drawn for each sample."""
    return MapDataset(
        theirs(folder, min_stride=1, max_stride=4),
        transform=partial(from_well, augment=augmentation()),
        seed_transforms=seed_transforms,
        fingerprint="small well, strides 1 to 4",
    )


def dataset(folder, what):
    """``files``: ours over the files. ``well``: The Well's own, seeded. ``plain``: the same, not seeded."""
    if what == "files":
        return opened(folder, partial(augmented_steps, augment=augmentation()))
    return seeded_well(folder, seed_transforms=what == "well")
