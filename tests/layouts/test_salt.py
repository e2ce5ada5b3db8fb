"""Jets and their tracks: each batch is what salt's ``SaltDataset`` returns for the same slice.

Files are written by ``ftag``, which salt takes its mock files from.
"""

import shutil
from copy import deepcopy

import h5py
import numpy as np
import pytest
import torch
from equality import assert_all_same, assert_same
from numpy.lib.recfunctions import structured_to_unstructured
from stubs import bare

from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler

with bare("ftag", "ftag.utils", "salt", "salt.data", absent=("ftag.utils.logging",)):
    import ftag
    from ftag.cuts import Cuts

    # classes of flavours that are made while training are not in a file
    ftag.Cuts, ftag.Labeller = Cuts, None
    from ftag.mock import get_mock_file
    from salt.data.datasets import SaltDataset

VARIABLES = {
    # in another order than in the file, whole numbers among floats, one twice as a label
    "jets": ["eta", "pt", "n_tracks", "MockTagger_pb"],
    "tracks": ["z0SinTheta", "d0", "numberOfPixelHits", "leptonID"],
}
LABELS = {"jets": ["flavour_label", "pt"], "tracks": ["numberOfSCTSharedHits", "phiUncertainty"]}
JETS = 203


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two files of jets: one as ftag writes it, the other in compressed chunks, with members in another order."""
    folder = tmp_path_factory.mktemp("jets")
    plain, packed = str(folder / "train_0.h5"), str(folder / "train_1.h5")
    get_mock_file(JETS, plain)[1].close()
    with h5py.File(plain) as source, h5py.File(packed, "w") as file:
        for name in ("jets", "tracks"):
            rows = source[name][()][::-1]
            members = [*reversed(rows.dtype.names)]
            other = np.empty(rows.shape, [(member, rows.dtype[member]) for member in members])
            for member in members:
                other[member] = rows[member]
            file.create_dataset(name, data=other, chunks=(50, *rows.shape[1:]), compression="lzf")
    return [plain, packed]


def opened(paths, cache_dir, **options):
    """A dict for each array, with those of its members that are variables or labels."""
    wanted = {name: dict.fromkeys([*VARIABLES[name], *LABELS[name]]) for name in VARIABLES}
    wanted["tracks"]["valid"] = None
    key = {name: f"{name}/{{{','.join(members)}}}" for name, members in wanted.items()}
    return FileCacheDataset(GlobalIndexManager(paths, key=key, cache_dir=cache_dir), **options)


def as_salt(sample):
    """Inputs, masks and labels as salt has them: variables on a last axis of float32, labels as they are."""
    inputs = {
        name: torch.stack([sample[name][one].to(torch.float32) for one in members], -1)
        for name, members in VARIABLES.items()
    }
    masks = {"tracks": ~sample["tracks"]["valid"]}
    inputs["tracks"][masks["tracks"]] = 0
    labels = {
        name: {one: _label(sample[name][one]) for one in members}
        for name, members in LABELS.items()
    }
    return inputs, masks, labels


def _label(values):
    return values if values.is_floating_point() else values.long()


def slices(path, batch_size=JETS, **options):
    """What salt returns for one slice after the other."""
    # HDF5 opens no file in two ways at once in one process, and salt opens it as one that is written
    copied = shutil.copy(path, f"{path}.salt")
    theirs = SaltDataset(copied, {}, VARIABLES, "train", labels=LABELS, **options)
    assert len(theirs) == JETS
    starts = range(0, JETS, batch_size)
    # labels lie in one buffer, which the next slice is read into
    return [deepcopy(theirs[start : min(start + batch_size, JETS)]) for start in starts]


def test_each_jet_is_salts(files, tmp_path):
    """Inputs, padding masks and labels of every jet of every file, in shuffled batches."""
    ours = opened(files, tmp_path, transform=lambda sample: dict(enumerate(as_salt(sample))))
    expected = []
    for path in files:
        ((inputs, masks, labels),) = slices(path)
        expected += [
            dict(enumerate((_row(inputs, row), _row(masks, row), _row(labels, row))))
            for row in range(JETS)
        ]
    assert_all_same(ours, expected)


def _row(values, row):
    if isinstance(values, dict):
        return {name: _row(one, row) for name, one in values.items()}
    return values[row]


@pytest.mark.parametrize("batch_size", [1, 10, 64])
def test_contiguous_batches_are_salts(files, tmp_path, batch_size):
    """A loader's batches in the order of ids are the slices that salt's sampler asks for."""
    for number, path in enumerate(files):
        dataset = opened(path, tmp_path / str(number))
        sampler = ResumableDistributedSampler(dataset, shuffle=False)
        loader = DataLoader(dataset, batch_size=batch_size, sampler=sampler)
        for batch, theirs in zip(loader, slices(path, batch_size), strict=True):
            for ours, expected in zip(as_salt(batch), theirs, strict=True):
                assert_same(ours, expected, path)


def test_tracks_of_salts_selection_are_salts(files, tmp_path):
    """Cuts of a track in ``transform``: salt's, where members are those of a structured array."""
    cuts = {"tracks": ["d0 < 3.5", "numberOfPixelHits <= 0"]}

    def selected(sample):
        tracks = sample["tracks"]
        cut = tracks["valid"] & ~((tracks["d0"] < 3.5) & (tracks["numberOfPixelHits"] <= 0))
        for values in tracks.values():
            if values.is_floating_point():
                values[cut] = torch.nan
            else:
                values[cut] = -1 if values.dtype.is_signed else 0
        return as_salt(sample)[0]

    ours = opened(files[1], tmp_path, transform=selected)
    ((inputs, _, _),) = slices(files[1], selections=cuts)
    assert_all_same(ours, [_row(inputs, row) for row in range(JETS)])


def test_a_whole_compound_array_is_a_dict_of_all_its_members(files, tmp_path):
    """``key="jets"``: every member, of the dtype that is in the file."""
    for number, path in enumerate(files):
        index = GlobalIndexManager(path, key="jets", cache_dir=tmp_path / str(number))
        with h5py.File(path) as file:
            jets = file["jets"][()]
        expected = [{name: jets[name][row] for name in jets.dtype.names} for row in range(JETS)]
        assert_all_same(FileCacheDataset(index), expected)


def test_members_are_made_one_array_as_numpy_makes_them(files, tmp_path):
    """``structured_to_unstructured`` in ``transform``, by the sequence of names that it is given."""
    members = ",".join(VARIABLES["jets"])

    def flat(sample):
        return torch.stack([one.to(torch.float32) for one in sample["jets"].values()])

    key = {"jets": f"jets/{{{members}}}"}
    index = GlobalIndexManager(files[0], key=key, cache_dir=tmp_path)
    with h5py.File(files[0]) as file:
        jets = file["jets"][()][VARIABLES["jets"]]
    expected = structured_to_unstructured(jets, dtype=np.float32)
    assert_all_same(FileCacheDataset(index, transform=flat), [*expected])
