"""Attributes that are computed once."""

from __future__ import annotations

import copy
import pickle
import threading

from globidx.core.cached import cached_property


class Circle:
    """Counts how often its area is computed."""

    radius = 2

    def __init__(self):
        self.computed = 0

    @cached_property
    def area(self):
        """Three times the square of the radius."""
        self.computed += 1
        return 3 * self.radius**2


def test_a_value_is_computed_once_an_object():
    """Copies and pickles have the value of their original; another object computes its own."""
    circle = Circle()
    assert [
        circle.area,
        circle.area,
        copy.copy(circle).area,
        pickle.loads(pickle.dumps(circle)).area,
    ] == [12] * 4
    assert circle.computed == 1
    assert (Circle().area, Circle().computed) == (12, 0)


def test_the_class_shows_the_property_itself():
    """So that documentation finds its docstring."""
    assert isinstance(Circle.area, cached_property)
    assert Circle.area.__doc__ == "Three times the square of the radius."


def test_nobody_waits_for_another_thread():
    """While one thread is inside the computation, another one computes the value; both get that one."""

    class Slow:
        inside, released = threading.Event(), threading.Event()

        @cached_property
        def value(self):
            if threading.current_thread() is not threading.main_thread():
                self.inside.set()
                assert self.released.wait(10)
            return object()

    slow, others = Slow(), []
    thread = threading.Thread(target=lambda: others.append(slow.value))
    thread.start()
    assert slow.inside.wait(10)
    mine = slow.value
    slow.released.set()
    thread.join(10)
    # caches go by it: under another key, nothing would be found again
    assert others == [mine] and slow.value is mine
