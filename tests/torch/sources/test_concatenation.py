"""Sources one after the other: the samples that torch's ``ConcatDataset`` gives, each source asked once a batch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset

from globidx.core.generator import Moment
from globidx.torch.loops.moments import DatedIds, SharedMoment
from globidx.torch.loops.quarantine import SubstitutedSamples
from globidx.torch.sources.concatenation import Concatenated


class Batched:
    """Samples (name, item), and the batches that were asked for."""

    def __init__(self, name, length, replaces=()):
        self.name, self.length, self.replaces = name, length, replaces
        self.asked = []

    def __len__(self):
        return self.length

    def __getitem__(self, id):
        if not 0 <= id < self.length:
            raise IndexError(id)
        return (self.name, id)

    def __getitems__(self, ids):
        self.asked.append(ids)
        replaced = tuple(place for place, id in enumerate(ids) if id in self.replaces)
        samples = [self[id] for id in ids]
        return SubstitutedSamples(samples, replaced) if replaced else samples


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.data())
def test_samples_are_those_of_a_concatenation_and_each_source_is_asked_once(lengths, data):
    """For any lengths, none of them included, and any batch; some sources give one sample at a time."""
    sources = [
        Batched(number, length) if number % 2 else [(number, item) for item in range(length)]
        for number, length in enumerate(lengths)
    ]
    whole, total = Concatenated(sources), sum(lengths)
    ids = data.draw(st.lists(st.integers(0, total - 1), max_size=8) if total else st.just([]))
    plain = [(number, item) for number, length in enumerate(lengths) for item in range(length)]
    assert len(whole) == total
    assert whole.ends == ConcatDataset(sources).cumulative_sizes
    assert whole.__getitems__(ids) == [plain[id] for id in ids]
    assert all(len(source.asked) <= 1 for source in sources[1::2])


def test_concatenations_inside_are_read_by_their_parts():
    """``ConcatDataset`` has no ``__getitems__``."""
    parts = [Batched("a", 3), Batched("b", 2), Batched("c", 2)]
    whole = Concatenated([ConcatDataset([ConcatDataset(parts[:2]), parts[2]]), "xy"])
    ids = [8, 0, 6, 4, 2, 5, 7]
    expected = ["y", ("a", 0), ("c", 1), ("b", 1), ("a", 2), ("c", 0), "x"]
    assert whole.__getitems__(ids) == expected
    assert [part.asked for part in parts] == [[[0, 2]], [[1]], [[1, 0]]]


def test_substitutes_are_told_by_their_places_in_the_batch():
    """Where the batch has samples of other sources between."""
    whole = Concatenated([Batched("a", 4, replaces=[1]), Batched("b", 4, replaces=[0, 3])])
    assert whole.__getitems__([7, 2, 1, 5, 4]).replaced == (0, 2, 4)
    assert type(whole.__getitems__([0, 5])) is list


def test_only_the_last_source_may_grow():
    """Ids of a source behind one that grows would come to mean other samples."""
    sources = [[1, 2], [3]]
    whole = Concatenated(sources)
    sources[1].append(4)
    assert len(whole) == 4 and whole.__getitems__([2, 3]) == [3, 4]
    sources[0].append(9)
    assert len(whole) == 4 and whole.__getitems__([1, 2, 3]) == [2, 3, 4]


def test_sources_that_draw_learn_the_moment_and_others_get_a_list():
    """A class of another library is given nothing that it does not know."""
    drawing, other = Batched("a", 2), Batched("b", 2)
    drawing.moment = SharedMoment()
    Concatenated([drawing, other]).__getitems__(DatedIds([3, 1], Moment(7, 2)))
    assert drawing.asked[0].moment == Moment(7, 2)
    assert type(other.asked[0]) is list
    Concatenated([ConcatDataset([other, drawing])]).__getitems__(DatedIds([3], Moment(7, 4)))
    assert drawing.asked[1].moment == Moment(7, 4)


def test_errors_name_the_source_and_its_own_ids():
    """The id that the sampler yields is another number."""
    with pytest.raises(IndexError) as failed:
        Concatenated([Batched("a", 2), Batched("b", 2)]).__getitems__([0, 3, 99])
    assert failed.value.__notes__ == ["raised by the source Batched, for its sample ids 1, 97"]


def test_a_source_that_returns_another_number_of_samples_is_refused():
    """As one that reads the ids as columns, or drops what it cannot read."""
    short = Batched("a", 3)
    short.__class__ = type("Short", (Batched,), {"__getitems__": lambda self, ids: {"x": [1, 2]}})
    with pytest.raises(ValueError, match="of Short returned 1 samples for 2 ids"):
        Concatenated([short]).__getitems__([0, 1])
