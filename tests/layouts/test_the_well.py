"""The Well: each sample is the one that the Well's own ``WellDataset`` gives for the same index, constants included."""

import h5py
import numpy as np
import pytest
import torch
from equality import assert_all_same, read_all

from globidx import FileCacheDataset, GlobalIndexManager, Window

datasets = pytest.importorskip("the_well.data.datasets")
dummy_data = pytest.importorskip("the_well.utils.dummy_data")

GROUPS = ("t0_fields", "t1_fields", "t2_fields", "scalars")
SHAPE = (6, 5)


def put(group, name, data, *, sample, time, dims=None):
    group.create_dataset(name, data=data)
    group[name].attrs.update({"sample_varying": sample, "time_varying": time})
    if dims is not None:
        group[name].attrs["dim_varying"] = dims


def write_rich(path, *, trajectories, steps, seed):
    """Writes a file with what the format allows and the Well's own dummy lacks.

    Fields of every tensor order, some of which do not vary by trajectory, by time or along an axis; scalars of every
    kind; a wall and a periodic boundary.
    """
    rng = np.random.default_rng(seed)
    both = (trajectories, steps)

    def noise(*shape):
        return rng.normal(size=shape).astype("f4")

    with h5py.File(path, "w") as file:
        file.attrs.update({"dataset_name": "rich", "grid_type": "cartesian"})
        file.attrs.update({"n_spatial_dims": 2, "n_trajectories": trajectories})
        group = file.create_group("dimensions")
        group.attrs["spatial_dims"] = ["x", "y"]
        for name, size in {"time": steps, "x": SHAPE[0], "y": SHAPE[1]}.items():
            group.create_dataset(name, data=np.linspace(0, 1, size, dtype="f4"))
            group[name].attrs["sample_varying"] = False
        group = file.create_group("scalars")
        group.attrs["field_names"] = ["reynolds", "gravity", "drive", "clock"]
        put(group, "reynolds", rng.uniform(size=trajectories), sample=True, time=False)
        put(group, "gravity", np.array(9.81), sample=False, time=False)
        put(group, "drive", rng.uniform(size=both), sample=True, time=True)
        put(group, "clock", rng.uniform(size=steps), sample=False, time=True)
        group = file.create_group("t0_fields")
        group.attrs["field_names"] = ["density", "forcing", "mask", "terrain"]
        put(group, "density", noise(*both, *SHAPE), sample=True, time=True, dims=[True, True])
        put(group, "forcing", noise(*both, SHAPE[0], 1), sample=True, time=True, dims=[True, False])
        put(group, "mask", noise(*SHAPE), sample=False, time=False, dims=[True, True])
        put(
            group,
            "terrain",
            noise(trajectories, *SHAPE),
            sample=True,
            time=False,
            dims=[True, True],
        )
        group = file.create_group("t1_fields")
        group.attrs["field_names"] = ["velocity"]
        put(group, "velocity", noise(*both, *SHAPE, 2), sample=True, time=True, dims=[True, True])
        group = file.create_group("t2_fields")
        group.attrs["field_names"] = ["stress"]
        put(group, "stress", noise(*both, *SHAPE, 2, 2), sample=True, time=True, dims=[True, True])
        group = file.create_group("boundary_conditions")
        for dim, size, kind in (("x", SHAPE[0], "WALL"), ("y", SHAPE[1], "PERIODIC")):
            boundary = group.create_group(f"{dim}_{kind.lower()}")
            boundary.attrs.update({"associated_dims": [dim], "bc_type": kind})
            boundary["mask"] = np.isin(np.arange(size), [0, size - 1])


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """Files of different numbers of trajectories and steps."""
    folder = tmp_path_factory.mktemp("rich")
    for number, (trajectories, steps) in enumerate([(2, 16), (3, 17), (1, 18)]):
        write_rich(folder / f"{number}.hdf5", trajectories=trajectories, steps=steps, seed=number)
    return folder


@pytest.fixture(scope="module")
def dummy(tmp_path_factory):
    """Files that the Well's own generator wrote."""
    folder = tmp_path_factory.mktemp("dummy")
    state = np.random.get_state()
    np.random.seed(0)
    for number in range(2):
        dummy_data.write_dummy_data(str(folder / f"{number}.hdf5"))
    np.random.set_state(state)
    return folder


class Described:
    """What a Well file says of its arrays: which are windowed, which come whole, and how they make up a sample."""

    def __init__(self, path):
        self.keys, self.axes, self.constants, self.expanded = [], {}, {}, {}
        with h5py.File(path) as file:
            for group in GROUPS:
                for name in file[group].attrs["field_names"]:
                    self._add(f"{group}/{name}", file[f"{group}/{name}"].attrs)
            self.arrays = [*self.keys]  # in the order in which the Well puts them together
            self.keys = [key for key in self.keys if key not in self.constants]
            self.dims = list(file["dimensions"].attrs["spatial_dims"])
            self.keys.append("dimensions/time")
            self.axes["dimensions/time"] = 0
            self.constants |= {f"dimensions/{dim}": f"dimensions/{dim}" for dim in self.dims}
            self.boundaries = {}
            for name, boundary in file["boundary_conditions"].items():
                self.boundaries[name] = boundary.attrs["associated_dims"][0]
                path = f"boundary_conditions/{name}"
                self.constants |= {
                    f"{path}/mask": f"{path}/mask",
                    f"{path}/type": f"{path}@bc_type",
                }

    def _add(self, key, attributes):
        self.keys.append(key)
        if not attributes["time_varying"]:
            self.constants[key] = f"{key}[*]" if attributes["sample_varying"] else key
        elif not attributes["sample_varying"]:
            self.axes[key] = 0  # all trajectories share it
        if "dim_varying" in attributes:
            self.expanded[key] = np.flatnonzero(~attributes["dim_varying"])


def at(sample, key):
    for name in key.split("/"):
        sample = sample[name]
    return sample


class AsWell:
    """Puts a sample together as the Well does: channels last, variable beside constant, input before output."""

    def __init__(self, described, n_input):
        self.described, self.n_input = described, n_input

    def _value(self, sample, key):
        value = at(sample, key)
        repeats = [1] * value.ndim
        for axis in self.described.expanded.get(key, ()):
            repeats[axis + (key in self.described.keys)] = SHAPE[axis]
        return torch.tile(value, repeats)

    def _channels(self, sample, *, of_fields, variable):
        parts = []
        for key in self.described.arrays:
            if key.startswith("scalars/") is of_fields:
                continue
            if (key in self.described.keys) is variable:
                order = int(key[1]) if of_fields else 0
                parts.append(self._value(sample, key).unsqueeze(-1).flatten(-order - 1))
        return torch.cat(parts, dim=-1) if parts else torch.tensor([])

    def _boundaries(self, sample):
        sides = torch.ones(len(self.described.dims), 2)
        for name, dim in self.described.boundaries.items():
            boundary = sample["boundary_conditions"][name]
            for side in (0, 1):
                if boundary["mask"][-side]:
                    code = datasets.BoundaryCondition[boundary["type"]].value
                    sides[self.described.dims.index(dim), side] = code
        return sides

    def __call__(self, sample):
        n, time = self.n_input, sample["dimensions"]["time"]
        time = time - time.min()
        grid = [sample["dimensions"][dim] for dim in self.described.dims]
        fields = self._channels(sample, of_fields=True, variable=True)
        scalars = self._channels(sample, of_fields=False, variable=True)
        parts = {
            "input_fields": fields[:n],
            "output_fields": fields[n:],
            "constant_fields": self._channels(sample, of_fields=True, variable=False),
            "input_scalars": scalars[:n],
            "output_scalars": scalars[n:],
            "constant_scalars": self._channels(sample, of_fields=False, variable=False),
            "boundary_conditions": self._boundaries(sample),
            "space_grid": torch.stack(torch.meshgrid(*grid, indexing="ij"), -1),
            "input_time_grid": time[:n],
            "output_time_grid": time[n:],
        }
        return {name: part for name, part in parts.items() if part.numel()}


def opened(folder, n_input, n_output, stride, cache_dir):
    described = Described(folder / "0.hdf5")
    index = GlobalIndexManager(
        str(folder / "*.hdf5"),
        key={key: key for key in described.keys},
        axis=described.axes,
        sequences="axis",
        window=Window(range(0, (n_input + n_output) * stride, stride)),
        constants=described.constants,
        cache_dir=cache_dir,
    )
    return FileCacheDataset(index, transform=AsWell(described, n_input))


def peer(folder, n_input, n_output, stride):
    return datasets.WellDataset(
        path=str(folder),
        n_steps_input=n_input,
        n_steps_output=n_output,
        min_dt_stride=stride,
        max_dt_stride=stride,
        return_grid=True,
    )


@pytest.mark.parametrize("files", ["rich", "dummy"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("n_output", [1, 2])
@pytest.mark.parametrize("n_input", [1, 2, 3, 4])
def test_samples_are_the_wells(request, tmp_path, files, n_input, n_output, stride):
    """For each number of input and output steps and each stride, every sample is the peer's."""
    folder = request.getfixturevalue(files)
    if files == "dummy" and (n_input + n_output - 1) * stride >= 10:
        n_input = 2  # the generator writes ten steps
    theirs = peer(folder, n_input, n_output, stride)
    ours = opened(folder, n_input, n_output, stride, tmp_path)
    assert_all_same(ours, [theirs[index] for index in range(len(theirs))])


def test_samples_are_told_where_they_come_from(rich, tmp_path):
    """File, trajectory and step of an id are those that the Well passes to an augmentation."""
    seen = []

    def note(data, metadata):
        seen.append((metadata.file_idx, metadata.sample_idx, metadata.time_idx))
        return data

    theirs = peer(rich, 2, 1, 2)
    theirs.transform = note
    index = opened(rich, 2, 1, 2, tmp_path).index_manager
    first_of_file = np.cumsum([0, *theirs.n_trajectories_per_file])
    assert len(index) == len(theirs)
    for sample_id in range(len(theirs)):
        theirs[sample_id]
        file, trajectory, step = seen[-1]
        where = index.where(sample_id)
        assert where.path == theirs.files_paths[file]
        assert (where.sequence, where.anchor) == (first_of_file[file] + trajectory, step)
        assert index.sample_id(where.sequence, where.anchor) == sample_id


def test_a_whole_trajectory_is_one_sample(rich, tmp_path):
    """``window="all"`` gives what ``full_trajectory_mode`` does, for trajectories of one length."""
    theirs = datasets.WellDataset(
        path=str(rich), include_filters=["1.hdf5"], full_trajectory_mode=True, n_steps_input=1
    )
    index = GlobalIndexManager(
        [str(rich / "1.hdf5")],
        key={"velocity": "t1_fields/velocity"},
        sequences="axis",
        window="all",
        cache_dir=tmp_path,
    )
    expected = []
    for number in range(len(theirs)):
        fields = theirs[number]
        steps = torch.cat([fields["input_fields"], fields["output_fields"]])
        expected.append(steps[..., 2:4])  # after density and forcing
    assert_all_same(FileCacheDataset(index), expected)


def test_a_file_of_the_well_is_read_as_it_lies(rich, tmp_path):
    """Without a window each step of each trajectory is a sample, trajectories one after the other."""
    index = GlobalIndexManager(
        [str(rich / "0.hdf5")],
        key={"velocity": "t1_fields/velocity"},
        sequences="axis",
        window=0,
        cache_dir=tmp_path,
    )
    with h5py.File(rich / "0.hdf5") as file:
        velocity = file["t1_fields/velocity"][:]
    assert_all_same(FileCacheDataset(index), [*velocity.reshape(-1, *velocity.shape[2:])])


def test_the_layout_the_well_takes_the_fields_that_vary(rich, tmp_path):
    """``layout="the-well"`` stands for the fields that vary by trajectory and by time, and for their sequences."""
    window = Window(range(3))
    varying = ["t0_fields/density", "t0_fields/forcing", "t1_fields/velocity", "t2_fields/stress"]
    files = str(rich / "*.hdf5")
    named = GlobalIndexManager(files, layout="the-well", window=window, cache_dir=tmp_path / "a")
    spelled = GlobalIndexManager(
        files,
        key={name: name for name in varying},
        sequences="axis",
        window=window,
        cache_dir=tmp_path / "b",
    )
    assert_all_same(FileCacheDataset(named), read_all(FileCacheDataset(spelled)))
