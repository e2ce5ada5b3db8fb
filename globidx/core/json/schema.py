"""What a record may hold: a schema made of checkers.

A checker takes a parsed JSON value and its path for messages, and returns the value or raises
RecordError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from globidx.core.validate import bound
from globidx.errors import RecordError, RecordVersionError

Checker = Callable[[Any, str], Any]


def Integer(low: int, high: int) -> Checker:  # noqa: N802 - checkers read as types
    """Make a checker of an int in ``[low, high]``; it refuses true and 1.0."""

    def check(value: Any, where: str) -> int:
        # isinstance would let True through, which is an int
        if type(value) is not int or not low <= value <= high:
            raise RecordError(
                f"{where} must be an integer in [{bound(low)}, {bound(high)}], got {value!r:.80}"
            )
        return value

    return check


def Text(most: int) -> Checker:  # noqa: N802
    """Make a checker of a string of at most ``most`` characters."""

    def check(value: Any, where: str) -> str:
        if type(value) is not str or len(value) > most:
            raise RecordError(
                f"{where} must be a string of at most {most} characters, got {value!r:.80}"
            )
        return value

    return check


def OneOf(choices: tuple[str, ...]) -> Checker:  # noqa: N802
    """Make a checker of one of the given strings."""

    def check(value: Any, where: str) -> str:
        if type(value) is not str or value not in choices:
            raise RecordError(f"{where} must be one of {', '.join(choices)}, got {value!r:.80}")
        return value

    return check


def Optional(checker: Checker) -> Checker:  # noqa: N802
    """Make a checker of None, or of what ``checker`` accepts."""
    return lambda value, where: None if value is None else checker(value, where)


def List(  # noqa: N802
    checker: Checker, *, at_least: int = 0, at_most: int | None = None
) -> Checker:
    """Make a checker of a list of what ``checker`` accepts."""

    def check(value: Any, where: str) -> list[Any]:
        if (
            type(value) is not list
            or len(value) < at_least
            or (at_most is not None and len(value) > at_most)
        ):
            size = f"{at_least} to {at_most}" if at_most is not None else f"at least {at_least}"
            raise RecordError(f"{where} must be a list of {size}, got {value!r:.80}")
        return [checker(item, f"{where}[{index}]") for index, item in enumerate(value)]

    return check


def Json(values: Checker | None = None) -> Checker:  # noqa: N802
    """Make a checker of an object with any keys.

    Its values are checked by ``values``, or elsewhere.
    """

    def check(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise RecordError(f"{where} must be an object, got {value!r:.80}")
        return (
            {key: values(item, f"{where}: {key}") for key, item in value.items()}
            if values
            else value
        )

    return check


def Fields(**checkers: Checker) -> Checker:  # noqa: N802
    """Make a checker of an object with exactly these keys."""
    return lambda value, where: fields(value, where, checkers)


def fields(value: Any, where: str, checkers: Mapping[str, Checker]) -> dict[str, Any]:
    """Return the checked values of an object with exactly the keys of ``checkers``.

    ``format`` and ``version`` may be there too; ``header`` checks them.

    >>> fields({"seed": 7}, "state", {"seed": Integer(0, 9)})
    {'seed': 7}
    >>> fields({"sead": 7}, "state", {"seed": Integer(0, 9)})
    Traceback (most recent call last):
    ...
    globidx.errors.RecordError: state: missing seed, unknown sead; pass what globidx wrote, unchanged
    """
    if not isinstance(value, Mapping):
        raise RecordError(f"{where} must be an object, got {value!r:.80}")
    present = [key for key in value if key not in ("format", "version")]
    missing = [key for key in checkers if key not in value]
    unknown = [
        # a name from a hostile file is shown escaped and short
        key[:40] if key.isidentifier() else f"{key!a:.40}"
        for key in present
        if key not in checkers
    ]
    if missing or unknown:
        lists = [
            f"{word} {', '.join(keys)}"
            for word, keys in (("missing", missing), ("unknown", unknown))
            if keys
        ]
        raise RecordError(f"{where}: {', '.join(lists)}; pass what globidx wrote, unchanged")
    return {key: check(value[key], f"{where}: {key}") for key, check in checkers.items()}


def header(value: Any, where: str, format: str, version: int) -> None:
    """RecordError unless ``value`` is an object of this format.

    RecordVersionError if its version is newer.
    """
    name = value.get("format") if isinstance(value, Mapping) else None
    if name != format:
        has = f"its format is {name!r:.80}" if name is not None else f"it is {value!r:.80}"
        raise RecordError(
            f"{where} is not of format {format!r}, which it must name under the key 'format': {has}; "
            "pass what globidx wrote, unchanged"
        )
    written = value.get("version")
    # before anything else is read: a newer version may have any fields
    if type(written) is not int or written < 1:
        raise RecordError(
            f"{where}: version must be a positive integer, got {written!r:.80}; the file was edited or damaged"
        )
    if written > version:
        raise RecordVersionError(
            f"{where}: written in version {written} of {format}, but this globidx reads up to {version}; upgrade it"
        )
