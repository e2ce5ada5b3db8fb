"""Objects of this process that are alive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

Member = TypeVar("Member")


def alive(members: WeakValueDictionary[Any, Member]) -> Iterator[Member]:
    """The values that live, none of which is kept alive.

    Their references are listed in one step: other threads may add some, where ``values()`` raises.

    >>> class Store: pass
    >>> store = Store()
    >>> list(alive(WeakValueDictionary({"a": store, "b": Store()}))) == [store]
    True
    """
    for reference in members.valuerefs():
        member = reference()
        if member is not None:
            yield member


class Living(Generic[Member]):
    """Objects, which are members for as long as they live, and which it does not keep alive.

    Threads may add some while others look at all of them, where a ``WeakSet`` raises. It has no
    lock, which a fork could leave locked.

    >>> class Store: pass
    >>> living, store = Living(), Store()
    >>> living.add(store); living.add(store)
    >>> list(living) == [store]
    True
    >>> del store
    >>> list(living)
    []
    """

    def __init__(self) -> None:
        self._members: WeakValueDictionary[int, Member] = WeakValueDictionary()

    def __iter__(self) -> Iterator[Member]:
        return alive(self._members)

    def add(self, member: Member) -> None:
        """Count an object in."""
        self._members[id(member)] = member
