"""Results that were computed from an object, kept as long as the object lives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from weakref import ref

_Value = TypeVar("_Value")


class Memo:
    """The last result of each name for an object.

    It is kept until the object has another version or is collected.

    Objects are compared by identity, since datasets need not be hashable. For an object that takes
    no weak references, results are computed each time.

    >>> class Data: pass
    >>> memo, data = Memo(), Data()
    >>> memo.get(data, "size", (1,), lambda: "computed"), memo.get(data, "size", (1,), lambda: "again")
    ('computed', 'computed')
    >>> memo.get(data, "size", (2,), lambda: "of the next version")
    'of the next version'
    >>> del data
    >>> len(memo)
    0
    """

    def __init__(self) -> None:
        self._results: dict[int, dict[str, tuple[tuple[Any, ...], Any]]] = {}
        self._owners: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def get(
        self, owner: Any, name: str, version: tuple[Any, ...], compute: Callable[[], _Value]
    ) -> _Value:
        """Return what ``compute`` returned for this ``version``.

        It is called if that was not computed last.
        """
        results = self._of(owner)
        if results is None:
            return compute()
        before = results.get(name)
        if before is not None and before[0] == version:
            value: _Value = before[1]
            return value
        value = compute()
        results[name] = version, value
        return value

    def _of(self, owner: Any) -> dict[str, tuple[tuple[Any, ...], Any]] | None:
        key = id(owner)
        held = self._owners.get(key)
        if held is None or held() is not owner:
            try:
                self._owners[key] = ref(owner, lambda _: self._forget(key))
            # a list or a tuple takes no weak reference, so nothing would tell when it is gone
            except TypeError:
                return None
            self._results[key] = {}
        return self._results.get(key)

    def _forget(self, key: int) -> None:
        held = self._owners.get(key)
        # Another object may have got the same id in the meantime.
        if held is not None and held() is None:
            self._owners.pop(key, None)
            self._results.pop(key, None)
