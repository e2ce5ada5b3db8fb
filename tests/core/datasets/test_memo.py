"""Results are kept with the object that they were computed from: for its version, and as long as it lives."""

import gc

from hypothesis import given
from hypothesis import strategies as st

from globidx.core.datasets.memo import Memo


class Data:
    """Has a hash of no use, as a dataset may."""

    __hash__ = None

    def __eq__(self, other):
        return True


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.integers(0, 2))))
def test_a_result_is_computed_again_only_for_another_version(asked):
    """By object and name, as a dict of the last versions says."""
    objects, memo = [Data() for _ in range(3)], Memo()
    last, computed = {}, []
    for number, (which, name, version) in enumerate(asked):
        before = last.get((which, name))
        found = memo.get(
            objects[which],
            name,
            (version,),
            lambda number=number: computed.append(number) or number,
        )
        if before is None or before[0] != version:
            assert found == number
            assert computed[-1:] == [number]
            last[which, name] = version, number
        else:
            assert found == before[1]
    assert len(memo) == len({which for which, _, _ in asked})


def test_nothing_is_kept_of_an_object_that_is_gone():
    """Another one may get its id: it is not taken for the first."""
    memo, results = Memo(), set()
    for number in range(100):
        data = Data()
        results.add(memo.get(data, "x", (), lambda number=number: number))
        del data
        gc.collect()
    assert results == set(range(100))
    assert len(memo) == 0


def test_an_object_without_weak_references_is_computed_for_each_time():
    """Rather than kept for ever, or confused."""
    memo = Memo()
    assert [memo.get([], "x", (), lambda n=n: n) for n in range(3)] == [0, 1, 2]
    assert len(memo) == 0


def test_a_failure_is_no_result():
    """The next call computes again."""
    memo, data = Memo(), Data()
    for _ in range(2):
        try:
            memo.get(data, "x", (), lambda: 1 // 0)
        except ZeroDivisionError:
            continue
        raise AssertionError
    assert memo.get(data, "x", (), lambda: 7) == 7
