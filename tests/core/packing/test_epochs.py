"""Packs of their own epochs are read in orders whose epochs are whole, and in no others."""

import pytest
import torch

from globidx import ResumableDistributedSampler
from globidx.mixture import InterleavedDataset
from globidx.packing import PackedDataset, pack


def packed(*, repack):
    """Four documents in two packs."""
    return PackedDataset([torch.zeros(2)] * 4, pack([2] * 4, 4), repack=repack)


@pytest.mark.parametrize("options", [{"epoch_size": 1}, {"epoch_steps": 1}])
def test_epochs_of_the_trainers_size_are_refused_over_packs_of_their_own_epochs(options):
    """An epoch of the sampler is then no whole one of the dataset; packs that stay the same have no epochs."""
    ResumableDistributedSampler(packed(repack=False), 1, 0, **options)
    for dataset in (packed(repack=True), torch.utils.data.Subset(packed(repack=True), [0, 1])):
        ResumableDistributedSampler(dataset, 1, 0)
        with pytest.raises(
            ValueError, match="with epoch_size= or epoch_steps= .* leave out repack"
        ):
            ResumableDistributedSampler(dataset, 1, 0, **options)


def test_mixtures_are_refused_over_packs_of_their_own_epochs():
    """Each dataset of a mixture has passes of its own."""
    for repack in (False, True):
        mixed = InterleavedDataset([packed(repack=repack), range(4)], [0.5, 0.5])
        if not repack:
            ResumableDistributedSampler(mixed, 1, 0)
            continue
        with pytest.raises(ValueError, match="with a mixture .* leave out repack"):
            ResumableDistributedSampler(mixed, 1, 0)
