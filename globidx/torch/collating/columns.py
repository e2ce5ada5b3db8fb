"""The samples of a batch, and the batch that they are already: a tensor of all for each field."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, SupportsIndex

#: Methods of a list that give nobody a sample, and change none.
_HARMLESS = {
    "__len__",
    "__init__",
    "__new__",
    "__getattribute__",
    "__class_getitem__",
    "__sizeof__",
}


class ColumnedSamples(list[Any]):
    """The samples of a batch, in a list that knows their columns as long as nobody looks into it.

    ``columns()`` is what a sample is, with all samples' values in place of one's: a tensor whose
    rows they are, in the same memory, or a list of them. Who has had a sample may have changed it,
    and who has had the columns owns them. So after any use of the list, and after ``take_columns``,
    there are none.

    Whoever looks into the list after its columns were taken, a dataset that keeps it for its next
    epochs say, is given samples that ``again()`` reads anew: its own may have been changed.

    >>> samples = ColumnedSamples([1, 2], lambda: "columns")
    >>> len(samples), samples.take_columns(), samples.take_columns()
    (2, 'columns', None)
    >>> samples = ColumnedSamples([1, 2], lambda: "columns")
    >>> samples.reverse(); samples, samples.take_columns()
    ([2, 1], None)
    """

    def __init__(
        self,
        samples: Iterable[Any],
        columns: Callable[[], Any],
        again: Callable[[], Iterable[Any]] | None = None,
    ) -> None:
        super().__init__(samples)
        self._columns: Callable[[], Any] | None = columns
        self._again, self._is_taken = again, False

    def take_columns(self) -> Any:
        """The columns, once; None if they were taken, or a sample was."""
        self._renew()
        columns, self._columns = self._columns, None
        self._is_taken = columns is not None
        return None if columns is None else columns()

    def _renew(self) -> None:
        """Have samples that are nobody else's, if the columns were taken."""
        if self._is_taken and self._again is not None:
            self._is_taken = False
            list.__init__(self, self._again())

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        # a copy is a plain list
        return list, (list(self),)


def _forgetting(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def forget(self: ColumnedSamples, *args: Any, **kwargs: Any) -> Any:
        self._renew()
        self._columns = None
        return method(self, *args, **kwargs)

    return forget


for _name, _method in vars(list).items():
    if callable(_method) and _name not in _HARMLESS:
        setattr(ColumnedSamples, _name, _forgetting(_method))
