"""Atomistic configurations: each sample is what mace-torch's ``HDF5Dataset`` hands to its data class.

Files are written by mace's own function. The class of graphs that it would make is left out: of it
a configuration is compared, which is all that is read of a file.
"""

import h5py
import numpy as np
import pytest
from equality import assert_all_same
from stubs import bare

from globidx import (
    DataLoader,
    FileCacheDataset,
    GlobalIndexManager,
    ResumableDistributedSampler,
    collate,
)

# what stands in makes graphs, or reads other files
_UNUSED = ("mace.tools", "mace.tools.utils", "mace.data.atomic_data", "ase", "ase.data", "ase.io")
with bare("mace", "mace.data", absent=_UNUSED):
    from mace.data.hdf5_dataset import HDF5Dataset
    from mace.data.utils import Configuration, save_configurations_as_HDF5

KEY = "config_batch_*/config_*"


class Recorded:
    """A data class that keeps the configuration as it was read, by the names of what is in a file."""

    @staticmethod
    def from_config(config, **options):
        del options
        # the head is an argument of the class, and in no file
        return {name: value for name, value in vars(config).items() if name != "head"}


def configurations(count, seed=0):
    """Configurations of 1 to 9 atoms, some without a label, a cell or a type of their own."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        atoms = int(rng.integers(1, 10))
        is_labelled = number % 3 != 1
        made.append(
            Configuration(
                atomic_numbers=rng.integers(1, 90, atoms),
                positions=rng.normal(size=(atoms, 3)),
                properties={
                    "energy": float(rng.normal()),
                    "forces": rng.normal(size=(atoms, 3)),
                    "stress": rng.normal(size=(3, 3)) if is_labelled else None,
                    "charges": rng.normal(size=atoms).astype("f4") if number % 5 else None,
                    "total_spin": 1 if is_labelled else 2.5,
                },
                property_weights={"energy": 1.0, "forces": float(is_labelled), "stress": 0.5},
                cell=rng.normal(size=(3, 3)) if number % 4 else None,
                pbc=(True, True, False) if number % 4 else None,
                weight=float(rng.uniform()),
                config_type="Default" if number % 2 else f"dîmère {number}",
            )
        )
    return made


def write(path, batches):
    """A group for each batch, as mace's preprocessing wrote them; today's writes one a file."""
    with h5py.File(path, "w") as file:
        file.attrs["drop_last"] = False
        for number, batch in reversed([*enumerate(batches)]):
            save_configurations_as_HDF5(batch, 0, file)
            if number:
                file.move("config_batch_0", f"config_batch_{number}")
    return path


def missing_as_none(sample):
    """mace stores what is missing as the text "None", and takes it for missing again."""
    return {
        name: missing_as_none(value) if isinstance(value, dict) else _or_none(value)
        for name, value in sample.items()
    }


def _or_none(value):
    return None if isinstance(value, str) and value == "None" else value


def opened(files, cache_dir, **options):
    index = GlobalIndexManager(
        files, key=KEY, sequences="match", window="all", cache_dir=cache_dir, **options
    )
    return FileCacheDataset(index, transform=missing_as_none)


def peers(path):
    peer = HDF5Dataset(str(path), r_max=5.0, z_table=None, atomic_dataclass=Recorded)
    samples = [peer[number] for number in range(len(peer))]
    peer.file.close()
    return samples


@pytest.mark.parametrize(("batches", "size"), [(1, 30), (12, 1), (11, 13)])
def test_configurations_are_maces(tmp_path, batches, size):
    """Each configuration by mace's number: config_batch_10 behind config_batch_9, config_2 before config_10."""
    made = configurations(batches * size)
    path = write(
        tmp_path / "train.h5", [made[at * size : (at + 1) * size] for at in range(batches)]
    )
    assert_all_same(opened(str(path), tmp_path / "cache"), peers(path))


def test_sharded_files_follow_one_another(tmp_path):
    """A file for each process that preprocessed, with batches of their own sizes, in the order of their numbers."""
    folder = tmp_path / "train"
    folder.mkdir()
    paths = [
        write(folder / f"train_{number}.h5", [configurations(3 + number % 4, number)])
        for number in range(11)
    ]
    expected = [sample for path in paths for sample in peers(path)]
    assert_all_same(opened(str(folder), tmp_path / "cache"), expected)


def test_atoms_of_a_batch_lie_one_behind_the_other(tmp_path):
    """``collate.concat`` makes of configurations what a batch of graphs holds."""
    made = configurations(20)
    path = write(tmp_path / "train.h5", [made])
    index = GlobalIndexManager(
        str(path),
        key=[f"{KEY}/positions", f"{KEY}/properties/forces"],
        sequences="match",
        window="all",
    )
    dataset = FileCacheDataset(index)
    sampler = ResumableDistributedSampler(dataset, shuffle=False)
    loader = DataLoader(dataset, batch_size=5, sampler=sampler, collate_fn=collate.concat())
    for number, batch in enumerate(loader):
        part = made[5 * number : 5 * number + 5]
        assert batch["offsets"]["positions"].diff().tolist() == [len(one.positions) for one in part]
        assert np.array_equal(batch["positions"], np.concatenate([one.positions for one in part]))
        forces = np.concatenate([one.properties["forces"] for one in part])
        assert np.array_equal(batch["properties"]["forces"], forces)
