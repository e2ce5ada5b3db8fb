"""Ranks are dealt what remains like cards, the awkward remainder included."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import Epoch

from globidx.core.progress.partition import TAILS, share, stream, stream_length

worlds = st.integers(1, 9)


@given(st.integers(0, 40), worlds)
def test_a_share_is_a_hand(remaining, world_size):
    """None left over, none dealt twice, lengths differ by one at most."""
    hands = Epoch(list(range(remaining))).real(world_size)
    shares = [share(remaining, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert shares == [len(hand) for hand in hands]


@given(st.integers(1, 40), worlds, st.sampled_from(TAILS), st.data())
def test_a_stream_is_the_hand_with_its_tail(remaining, world_size, tail, data):
    """Padded, cut or as it was dealt; any stretch of it is the stretch of the whole."""
    if remaining < world_size and tail == "pad":
        remaining += world_size
    hands = Epoch(list(range(remaining))).deal(world_size, tail)
    for rank, hand in enumerate(hands):
        of = {"remaining": remaining, "rank": rank, "world_size": world_size}
        length = stream_length(remaining, rank=rank, world_size=world_size, tail=tail)
        assert stream(0, length, **of).tolist() == hand
        start = data.draw(st.integers(0, length))
        stop = data.draw(st.integers(start, length))
        assert stream(start, stop, **of).tolist() == hand[start:stop]


@pytest.mark.parametrize("remaining", [10**12, 2**62])
def test_it_is_arithmetic_at_any_size(remaining):
    """The last numbers of a rank, without the others."""
    length = share(remaining, rank=3, world_size=7)
    last = stream(length - 2, length, remaining=remaining, rank=3, world_size=7).tolist()
    assert last == [3 + 7 * (length - 2), 3 + 7 * (length - 1)]
    assert last[-1] < remaining <= last[-1] + 7
