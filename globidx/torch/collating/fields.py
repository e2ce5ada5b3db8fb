"""The fields that a rule is for, as users name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from globidx.torch.collating.collate import Collate, Rule

Fields = str | Iterable[str] | None


def collate_of(
    function: str, fields: Fields, rule: Rule, arguments: Mapping[str, tuple[Any, Any]]
) -> Collate:
    """The collate function that has ``rule`` for ``fields``.

    It is written as the call of ``function`` that made it: ``arguments`` are pairs (given value,
    default) by name.
    """
    names = _names(fields)
    given = [f"{name}={one!r}" for name, (one, usual) in arguments.items() if one != usual]
    if names is None:
        return Collate({None: rule}, f"{function}({', '.join(given)})")
    first = repr(names[0]) if len(names) == 1 else repr(names)
    return Collate(dict.fromkeys(names, rule), f"{function}({', '.join([first, *given])})")


def _names(fields: Fields) -> list[str] | None:
    if fields is None:
        return None
    try:
        names = [fields] if isinstance(fields, str) else list(fields)
    except TypeError:
        names = [fields]  # type: ignore[list-item]
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"fields must be names, such as 'obs/image', got {name!r:.80}")
    if not names or "" in names or len(set(names)) < len(names):
        raise ValueError(f"fields must name at least one field, and each once, got {names}")
    return names
