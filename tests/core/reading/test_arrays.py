"""Arrays of a batch are made where the reader of that batch says, and nobody else's are."""

from __future__ import annotations

import contextvars
import threading
from contextlib import suppress

import numpy as np

from globidx.core.reading import arrays

U1 = np.dtype("u1")


class Slots:
    """An allocator that remembers what it made."""

    def __init__(self):
        self.made = []

    def __call__(self, shape, dtype):
        self.made.append(np.full(shape, 7, dtype))
        return self.made[-1]


def test_the_innermost_allocator_makes_an_array_and_none_outside_of_its_block():
    """Also after an error in the block."""
    outer, inner = Slots(), Slots()
    with arrays.made_by(outer):
        with suppress(KeyError), arrays.made_by(inner):
            assert arrays.empty((2, 3), U1) is inner.made[0]
            raise KeyError
        assert arrays.empty((4,), U1) is outer.made[0]
    assert arrays.empty((2,), U1).flags.owndata
    assert (len(outer.made), len(inner.made)) == (1, 1)


def test_an_allocator_is_that_of_its_thread():
    """Another thread, which reads another batch meanwhile, has numpy's memory."""
    slots, others = Slots(), []
    with arrays.made_by(slots):
        # not one that was inherited, as threads of free-threaded Python do
        run = contextvars.Context().run
        thread = threading.Thread(target=run, args=(lambda: others.append(arrays.empty((1,), U1)),))
        thread.start()
        thread.join()
    assert not slots.made and others[0].shape == (1,)


def test_objects_are_never_made_elsewhere():
    """An address means nothing in shared memory."""
    slots = Slots()
    with arrays.made_by(slots):
        made = arrays.empty((3,), np.dtype(object))
        arrays.empty((3,), np.dtype([("a", object), ("b", "u1")]))
    assert not slots.made and made.tolist() == [None] * 3
