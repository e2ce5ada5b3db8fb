"""Legs of blocks: members and positions both ways, and what a leg leaves to the next one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.orders.blocks import Cut, Leg

SIZES = st.lists(st.integers(0, 25), min_size=1, max_size=5).filter(any)


def leg_of(sizes, batch, rest, lead=0, start=0):
    """A leg that begins at a position."""
    return Leg(Cut(start, batch, lead, 0), np.array(sizes), rest, seed=1, epoch=2, number=0)


@given(
    SIZES,
    st.integers(1, 6),
    st.sampled_from(["merge", "pad", "drop"]),
    st.integers(0, 5),
    st.integers(0, 9),
)
def test_members_and_positions_lead_to_each_other(sizes, batch, rest, lead, start):
    """Each member stands at the position that leads to it; members that repeat say where."""
    leg = leg_of(sizes, batch, rest, lead % batch, start)
    positions = np.arange(start, leg.end)
    groups, members = leg.forward(positions)
    found = {}
    for position, group, member in zip(
        positions.tolist(), groups.tolist(), members.tolist(), strict=True
    ):
        assert 0 <= member < sizes[group]
        found.setdefault((group, member), []).append(position)
    for group, size in enumerate(sizes):
        for member in range(size):
            at = int(leg.inverse(np.array([group]), np.array([member]))[0])
            again = leg.repeats(group, member).tolist() if at >= 0 else []
            assert sorted([at, *again] if at >= 0 else []) == sorted(found.get((group, member), []))


@given(
    SIZES,
    st.integers(1, 6),
    st.sampled_from(["merge", "pad", "drop"]),
    st.integers(0, 5),
    st.data(),
)
def test_a_remainder_is_what_the_blocks_before_do_not_hold(sizes, batch, rest, lead, data):
    """Counted from 0 in the sequence of the members, both ways."""
    leg = leg_of(sizes, batch, rest, lead % batch)
    position = leg.begun(data.draw(st.integers(0, max(0, leg.end))))
    if not leg.has_blocks_after(position):
        return
    left, remainder = leg.left(position), leg.remainder(position)
    for group, size in enumerate(sizes):
        # a member that fills up a block is not gone by that
        at = leg.inverse(np.full(size, group), np.arange(size))
        expected = np.flatnonzero((at < 0) | (at >= position)).tolist()
        assert left[group] == len(expected)
        own, here = np.full(len(expected), group), np.arange(len(expected))
        assert remainder.forward(own, here).tolist() == expected
        assert remainder.inverse(own, np.array(expected, np.int64)).tolist() == here.tolist()
