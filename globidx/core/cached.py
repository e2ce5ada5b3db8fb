"""Attributes that are computed when they are first read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Value = TypeVar("Value")


class cached_property(Generic[Value]):  # noqa: N801 - it stands in for the one of functools
    """``functools.cached_property`` as in Python 3.12: without a lock.

    In Python 3.11 it has one lock for all instances of a class. A child that is forked while
    another thread holds it would wait forever. Without the lock, two threads may both compute a
    value; the first one to end gives it to both, so that it is one object.

    >>> class Circle:
    ...     radius = 2
    ...     @cached_property
    ...     def area(self):
    ...         print("computing")
    ...         return 3 * self.radius**2
    >>> circle = Circle()
    >>> circle.area + circle.area
    computing
    24
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> cached_property[Value]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object | None, owner: type) -> cached_property[Value] | Value:
        if instance is None:
            return self
        # read there from now on: an attribute of the instance goes before this descriptor, which
        # has no `__set__`
        value: Value = instance.__dict__.setdefault(self._name, self._compute(instance))
        return value
