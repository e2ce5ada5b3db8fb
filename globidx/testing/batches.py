"""The sample ids of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: What reads the ids out of a batch.
Ids = Callable[[Any], Any]


def ids_of(batch: Any, read: Ids | None = None) -> list[int]:
    """Return the ids of a batch: what ``read`` gives, or the last part of a ``with_id=True`` batch.

    >>> ids_of((["a", "b"], [3, 5])), ids_of({"index": [7]}, lambda batch: batch["index"])
    ([3, 5], [7])
    """
    given = _last(batch) if read is None else read(batch)
    ids = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(ids, int):
        ids = [ids]
    if not isinstance(ids, (list, tuple)) or not all(type(id) is int for id in ids):
        where = "the last part of the batch" if read is None else "what ids= returned"
        raise TypeError(
            f"{where} is no list of sample ids, but {given!r:.80}; make the dataset with "
            "with_id=True, or pass ids=, a function that reads the ids out of a batch"
        )
    return list(ids)


def _last(batch: Any) -> Any:
    if isinstance(batch, (list, tuple)) and len(batch) > 1:
        return batch[-1]
    raise TypeError(
        f"a batch is a {type(batch).__name__}, not (samples, ids), so its sample ids are not known; "
        "make the dataset with with_id=True, or pass ids=, a function that reads them out of a batch"
    )
