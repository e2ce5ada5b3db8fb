"""Datasets made of others as torch makes them, without torch: recognised by their attributes alone."""

from __future__ import annotations

from itertools import accumulate, count

from hypothesis import strategies as st

from globidx.core.index.chunking import Chunking


class Files:
    """Samples (name, file, item); it tells of its files by naming them."""

    def __init__(self, name, lengths, chunk=4):
        self.name, self.lengths, self.chunk = name, tuple(lengths), chunk

    def __len__(self):
        return sum(self.lengths)

    def __getitem__(self, id):
        return [
            (self.name, file, item)
            for file, length in enumerate(self.lengths)
            for item in range(length)
        ][id]

    @property
    def num_files(self):
        return len(self.lengths)

    @property
    def fingerprint(self):
        return self.fingerprint_of(self.num_files)

    def fingerprint_of(self, num_files):
        return f"{self.name}{self.lengths[:num_files]}"

    @property
    def chunking(self):
        return Chunking.of(self.lengths, [self.chunk] * len(self.lengths))


class Picked:
    """As ``torch.utils.data.Subset``."""

    def __init__(self, dataset, indices):
        self.dataset, self.indices = dataset, indices

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, id):
        return self.dataset[self.indices[id]]


class Joined:
    """As ``torch.utils.data.ConcatDataset``."""

    def __init__(self, datasets):
        self.datasets = list(datasets)
        self.cumulative_sizes = list(accumulate(map(len, self.datasets)))

    def __len__(self):
        return self.cumulative_sizes[-1]

    def __getitem__(self, id):
        return [part[item] for part in self.datasets for item in range(len(part))][id]


LEAVES = st.builds(
    Files, st.sampled_from("ab"), st.lists(st.integers(0, 5), min_size=1, max_size=3)
)


def of_others(inner):
    """Selections and concatenations of what ``inner`` draws."""
    picked = inner.flatmap(
        lambda d: st.lists(st.integers(0, max(0, len(d) - 1)), max_size=6 if len(d) else 0).map(
            lambda ids: Picked(d, ids)
        )
    )
    return picked | st.lists(inner, min_size=1, max_size=3).map(Joined)


TREES = st.recursive(LEAVES, of_others, max_leaves=4)


def samples(dataset):
    """What the ids mean, one after another."""
    return [dataset[id] for id in range(len(dataset))]


def renamed(dataset, names=None):
    """The same construction over files that all differ, so that no sample is another's by accident."""
    names = map(str, count()) if names is None else names
    if isinstance(dataset, Picked):
        return Picked(renamed(dataset.dataset, names), dataset.indices)
    if isinstance(dataset, Joined):
        return Joined([renamed(part, names) for part in dataset.datasets])
    return Files(next(names), dataset.lengths)


def grown(dataset, more):
    """The same construction after files were appended to each leaf."""
    if isinstance(dataset, Picked):
        return Picked(grown(dataset.dataset, more), dataset.indices)
    if isinstance(dataset, Joined):
        return Joined([grown(part, more) for part in dataset.datasets])
    return Files(dataset.name, dataset.lengths + more)
