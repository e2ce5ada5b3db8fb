"""What was worked out of an object, kept as long as the object lives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from weakref import ref

_Value = TypeVar("_Value")


class Memo:
    """The last answer to each question about an object, for as long as what it was made from is the same.

    Objects are told apart by identity, since datasets need not be hashable. One that takes no weak references is asked
    anew each time.

    >>> class Data: pass
    >>> memo, data = Memo(), Data()
    >>> memo.ask(data, "size", (1,), lambda: "worked out"), memo.ask(data, "size", (1,), lambda: "again")
    ('worked out', 'worked out')
    >>> memo.ask(data, "size", (2,), lambda: "of something else")
    'of something else'
    >>> del data
    >>> len(memo)
    0
    """

    def __init__(self) -> None:
        self._answers: dict[int, dict[str, tuple[tuple[Any, ...], Any]]] = {}
        self._owners: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def ask(self, owner: Any, question: str, source: tuple[Any, ...], answer: Callable[[], _Value]) -> _Value:
        """What ``answer`` returned when it was last called for this ``source``, whose parts are compared by ``==``."""
        answers = self._of(owner)
        if answers is None:
            return answer()
        before = answers.get(question)
        if before is not None and before[0] == source:
            value: _Value = before[1]
            return value
        value = answer()
        answers[question] = source, value
        return value

    def _of(self, owner: Any) -> dict[str, tuple[tuple[Any, ...], Any]] | None:
        key = id(owner)
        held = self._owners.get(key)
        if held is None or held() is not owner:
            try:
                self._owners[key] = ref(owner, lambda _: self._forget(key))
            except TypeError:
                return None
            self._answers[key] = {}
        return self._answers.get(key)

    def _forget(self, key: int) -> None:
        held = self._owners.get(key)
        if held is not None and held() is None:  # not where another object has got the same id since
            self._owners.pop(key, None)
            self._answers.pop(key, None)
