"""The ids that a wrapper's ids stand for are those that it reads its datasets by, whatever lies in what."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.core.datasets.inner_ids import inner_ids


class Leaf:
    """Samples that are read one by one, and note that."""

    def __init__(self, size):
        self.size, self.read = size, []

    def __len__(self):
        return self.size

    def __getitem__(self, id):
        assert 0 <= id < self.size
        self.read.append(id)


class Subset:
    def __init__(self, dataset, indices):
        self.dataset, self.indices = dataset, indices

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, id):
        self.dataset[int(self.indices[id])]


class Joined:
    def __init__(self, datasets):
        self.datasets = datasets

    @property
    def cumulative_sizes(self):
        return np.cumsum([len(one) for one in self.datasets]).tolist()

    def __len__(self):
        return sum(map(len, self.datasets))

    def __getitem__(self, id):
        for one in self.datasets:
            if id < len(one):
                return one[id]
            id -= len(one)
        raise AssertionError


class Same:
    def __init__(self, dataset):
        self.same_ids_as = dataset

    def __len__(self):
        return len(self.same_ids_as)

    def __getitem__(self, id):
        self.same_ids_as[id]


@st.composite
def datasets(draw, leaves):
    """A dataset of some of these leaves, and wrappers in one another."""
    made = [draw(st.sampled_from(leaves)) for _ in range(draw(st.integers(1, 3)))]
    for _ in range(draw(st.integers(0, 4))):
        one = draw(st.sampled_from(made))
        places = st.lists(st.integers(0, len(one) - 1), min_size=1, max_size=6)
        made += draw(
            st.sampled_from(
                [
                    [Subset(one, draw(places))],
                    [Subset(one, np.array(draw(places)))],
                    [Joined([one, draw(st.sampled_from(made))])],
                    [Same(one)],
                ]
            )
        )
    return made[-1]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_ids_inside_are_those_that_are_read(data):
    """By sets, batch by batch: who reads it one by one is the oracle."""
    leaves = [Leaf(size) for size in (1, 3, 7)]
    dataset = data.draw(datasets(leaves))
    batch = st.lists(st.integers(0, len(dataset) - 1), max_size=4)
    batches = data.draw(st.lists(batch, min_size=1, max_size=4))
    found = {id(one): ids for one, ids in inner_ids(dataset, batches, lambda one: one in leaves)}
    for number, ids in enumerate(batches):
        for leaf in leaves:
            leaf.read.clear()
        for one in ids:
            dataset[one]
        for leaf in leaves:
            told = found.get(id(leaf), [[]] * len(batches))
            assert sorted(told[number]) == sorted(leaf.read)


def test_what_is_not_wanted_or_not_known_is_not_told():
    """Nor what a wrapper that holds itself would tell for ever."""
    leaf = Leaf(3)
    circle = Same(None)
    circle.same_ids_as = Joined([leaf])
    circle.same_ids_as.datasets = [circle]
    circle.__class__ = type("Circle", (Same,), {"__len__": lambda self: 3})
    assert inner_ids(circle, [[0]], lambda one: one is leaf) == []
    assert inner_ids(Same(leaf), [[0]], lambda one: False) == []
    assert inner_ids(Subset(leaf, [5]), [[0]], lambda one: one is leaf) == []
