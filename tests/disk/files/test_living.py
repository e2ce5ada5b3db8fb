"""What lives: once each, for as long as it lives, and by what it is."""

from __future__ import annotations

import gc

from globidx.disk.files.living import Living


class Thing:
    """Equal to all others of its kind, and not hashable."""

    def __eq__(self, other):
        return isinstance(other, Thing)

    __hash__ = None


def test_a_member_is_one_for_as_long_as_it_lives():
    """Whether it is added twice, is equal to another one, or has the address of one that is gone."""
    living, kept = Living(), [Thing() for _ in range(5)]
    for one in kept * 2:
        living.add(one)
    for _ in range(100):
        living.add(Thing())
    gc.collect()
    assert sorted(map(id, living)) == sorted(map(id, kept))
    # what is listed is what lived when the listing began, and does not live by it
    listing = iter(living)
    del kept[1:], one
    gc.collect()
    assert list(map(id, listing)) == [id(kept[0])]
