"""Pieces and what comes of them are values: they travel between processes and name their defaults."""

import pickle

from globidx.disk.remote.objects import Found, Piece


def test_a_piece_is_all_of_an_object_unless_it_says_less():
    """Bytes [0, end) of a key; equal pieces are one in a dict, and a pickle of one is equal to it."""
    assert Piece("a/b") == Piece("a/b", 0, None)
    assert len({Piece("a"), Piece("a", 0), Piece("a", 1)}) == 2
    for value in (Piece("a", 2, 5), Found(b"x", 9, "v")):
        assert pickle.loads(pickle.dumps(value)) == value
