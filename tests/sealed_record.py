"""A record for tests, and JSON values to change it by."""

from hypothesis import strategies as st
from sampling import Sampler

from globidx import merge_states
from globidx.core.records import record


def sealed(**changes):
    """A record of one sampler in mid-epoch, with uneven ranks behind it."""
    ranks = [Sampler(range(1003), 3, rank, seed=5) for rank in range(3)]
    for rank, count in zip(ranks, (40, 38, 40), strict=True):
        rank.commit(count)
    state = merge_states([rank.state_dict() for rank in ranks])
    told = {
        "number": 7,
        "token": "0123456789ab",
        "step": 40,
        "time": "2026-01-01T00:00:00+00:00",
        "extras": {"loss": 0.25},
    }
    return record.build(**told | {"states": {"train": state}} | changes)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
