"""The rule of what a reader keeps: what was used last, as much as fits into its bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class ByteLru(Generic[Value]):
    """Values by key, at most ``capacity`` bytes of them; the least recently used are dropped first.

    The reader keeps decoded chunks in one, and the estimate plays an epoch out in another. It takes
    no lock.

    >>> lru = ByteLru[str](10)
    >>> lru.put("a", "A", 4), lru.put("b", "B", 4)
    ([], [])
    >>> lru.get("a")
    'A'
    >>> lru.put("c", "C", 4)
    ['b']
    >>> lru.get("b") is None, lru.get("a"), lru.nbytes
    (True, 'A', 8)
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.nbytes = capacity, 0
        # apart from the sizes, so that a look-up, of which there is one a sample, costs least
        self._kept: OrderedDict[Hashable, Value] = OrderedDict()
        self._sizes: dict[Hashable, int] = {}

    def get(self, key: Hashable) -> Value | None:
        """The value under ``key``, which is then the last one used; None if it is not kept."""
        value = self._kept.get(key)
        if value is not None:
            self._kept.move_to_end(key)
        return value

    def has(self, key: Hashable) -> bool:
        """Whether there is a value under ``key``, which does not count as a use."""
        return key in self._kept

    def put(self, key: Hashable, value: Value, size: int) -> list[Hashable]:
        """Keep a value of ``size`` bytes, unless it alone exceeds the capacity; what was dropped for it."""
        # it would push out all else, and itself be gone at the next one
        if size > self.capacity:
            return []
        self._kept.pop(key, None)
        self.nbytes += size - self._sizes.get(key, 0)
        self._sizes[key] = size
        self._kept[key] = value
        return self.shrink(self.capacity)

    def shrink(self, nbytes: int) -> list[Hashable]:
        """Drop values until at most ``nbytes`` bytes are kept; their keys."""
        dropped = []
        while self._kept and self.nbytes > nbytes:
            key, _ = self._kept.popitem(last=False)
            self.nbytes -= self._sizes.pop(key)
            dropped.append(key)
        return dropped

    def recount(self) -> None:
        """Sum the sizes again, after a fork in the middle of a ``put``."""
        self._sizes = {key: self._sizes[key] for key in self._kept}
        self.nbytes = sum(self._sizes.values())
        # what was kept last may have come before others went for it
        self.shrink(self.capacity)
