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
    >>> lru.put("a", "A", 4); lru.put("b", "B", 4)
    >>> lru.get("a")
    'A'
    >>> lru.put("c", "C", 4)
    >>> lru.get("b") is None, lru.get("a"), lru.nbytes
    (True, 'A', 8)
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.nbytes = capacity, 0
        self._kept: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()

    def get(self, key: Hashable) -> Value | None:
        """The value under ``key``, which is then the last one used; None if it is not kept."""
        pair = self._kept.get(key)
        if pair is None:
            return None
        self._kept.move_to_end(key)
        return pair[0]

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Keep a value of ``size`` bytes, unless it alone exceeds the capacity."""
        # it would push out all else, and itself be gone at the next one
        if size > self.capacity:
            return
        _, old = self._kept.pop(key, (None, 0))
        self._kept[key] = value, size
        self.nbytes += size - old
        self.shrink(self.capacity)

    def shrink(self, nbytes: int) -> None:
        """Drop values until at most ``nbytes`` bytes are kept."""
        while self._kept and self.nbytes > nbytes:
            self.nbytes -= self._kept.popitem(last=False)[1][1]

    def recount(self) -> None:
        """Sum the sizes again, after a fork in the middle of a ``put``."""
        self.nbytes = sum(size for _, size in self._kept.values())
