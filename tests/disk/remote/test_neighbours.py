"""Requests that are joined bring every piece, and never much more than was asked for."""

from hypothesis import given
from hypothesis import strategies as st

from globidx.disk.remote.neighbours import cut, grouped, span
from globidx.disk.remote.objects import Found, Piece

DATA = bytes(range(256)) * 1200
PIECES = st.builds(
    lambda key, start, size: Piece(key, start, None if size is None else start + size),
    st.sampled_from("ab"),
    st.integers(0, 200_000),
    st.none() | st.integers(1, 100_000),
)


@given(st.lists(PIECES, max_size=8))
def test_every_piece_is_what_it_would_be_alone(pieces):
    """Cut from its group's bytes, each piece once, in no other group."""
    groups = grouped(pieces)
    assert sorted(index for _, members in groups for index in members) == list(range(len(pieces)))
    for group, members in groups:
        found = Found(DATA[group.start : group.stop], len(DATA), "v")
        for index in members:
            piece = pieces[index]
            assert piece.key == group.key
            assert cut(found, group, piece) == Found(DATA[piece.start : piece.stop], len(DATA), "v")


@given(st.lists(PIECES, max_size=8), st.integers(1, 300_000))
def test_what_is_joined_has_no_more_than_the_most(pieces, most):
    """Only a piece that is larger by itself has; and a request spans all its pieces."""
    for group, members in grouped(pieces, most):
        one = [pieces[index] for index in members]
        assert span(one) == (0 if group.stop is None else group.stop - group.start)
        assert span(one) <= most or len({*one}) == 1


@given(st.lists(PIECES, max_size=8))
def test_no_more_than_a_gap_is_fetched_for_nothing(pieces):
    """64 KiB between two pieces of a request at most."""
    for group, members in grouped(pieces):
        if group.stop is not None:
            covered = sum(pieces[index].stop - pieces[index].start for index in members)
            assert group.stop - group.start <= covered + 2**16 * (len(members) - 1)
