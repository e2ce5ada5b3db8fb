"""Which samples a stream has, and how they are asked for."""

import pickle

from globidx.torch.streams.functions import Chain, batch_of, chosen


class Filtering(list):
    """A dataset that filters by itself."""

    def filter(self, function):
        """Those that it is true of."""
        return Filtering(filter(function, self))


class Batched:
    """A dataset that reads batches."""

    def __getitems__(self, ids):
        return [-id for id in ids]


def test_a_dataset_filters_by_itself_if_it_can():
    """Of any other, ids are chosen; samples stay where they are."""
    assert type(chosen(Filtering(range(5)), bool)) is Filtering
    subset = chosen(["", "a", "", "b"], bool)
    assert (subset.indices, list(subset)) == ([1, 3], ["a", "b"])


def test_functions_are_called_in_turn_also_in_a_spawned_worker():
    """No function at all leaves a sample as it is."""
    assert pickle.loads(pickle.dumps(Chain([str, len, float])))(123) == 3.0
    assert Chain([])("x") == "x"


def test_a_batch_is_asked_for_as_torch_does():
    """At once if the dataset can."""
    assert batch_of(Batched(), [1, 2]) == [-1, -2]
    assert batch_of([5, 6, 7], [2, 0]) == [7, 5]
