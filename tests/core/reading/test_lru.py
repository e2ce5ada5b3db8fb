"""What is kept is what was used last, as much as fits: as a list says that is cut at its front."""

from hypothesis import given
from hypothesis import strategies as st

from globidx.core.reading.lru import ByteLru

steps = st.lists(
    st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 4) | st.integers(0, 14)), max_size=60
)


def shrunk_to(capacity, model):
    """The keys of what is cut off the front of a list of pairs, so that their sizes fit."""
    cut = []
    while sum(size for _, size in model) > capacity:
        cut.append(model.pop(0)[0])
    return cut


@given(st.integers(4, 12), steps, st.integers(0, 12))
def test_the_values_last_used_are_kept_and_no_others(capacity, steps, shrunk):
    """After any gets and puts, and after making room."""
    lru, model = ByteLru(capacity), []
    for is_put, key, size in steps:
        held = next((pair for pair in model if pair[0] == key), None)
        if is_put and size <= capacity:
            dropped = lru.put(key, f"{key}", size)
            model = [pair for pair in model if pair[0] != key] + [(key, size)]
            assert dropped == shrunk_to(capacity, model)
        elif is_put:
            assert lru.put(key, f"{key}", size) == []  # too large: what is there stays
        else:
            assert lru.get(key) == (None if held is None else f"{key}")
            if held is not None:
                model.remove(held)
                model.append(held)
        assert lru.nbytes == sum(size for _, size in model)
    assert lru.shrink(shrunk) == shrunk_to(shrunk, model)
    assert lru.nbytes == sum(size for _, size in model)
    lru.nbytes = -1
    lru.recount()
    assert lru.nbytes == sum(size for _, size in model)
    assert {key: lru.get(key) for key in range(5)} == {
        key: f"{key}" if key in dict(model) else None for key in range(5)
    }
