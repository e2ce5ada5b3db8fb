"""Objects of this process that are alive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

Member = TypeVar("Member")


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
        # this list is made in one step, unlike those of members
        for reference in self._members.valuerefs():
            member = reference()
            if member is not None:
                yield member

    def add(self, member: Member) -> None:
        """Count an object in."""
        self._members[id(member)] = member
