"""What a rank's work came to, as bytes: the result as JSON, or the error in words.

Other ranks' bytes are parsed as JSON and never unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from globidx import errors
from globidx.errors import SaveError

# attributes of errors that travel with the message
_ATTRIBUTES = ("field", "state")
_BUILT_IN = {
    "TypeError": TypeError,
    "ValueError": ValueError,
    "NotADirectoryError": NotADirectoryError,
}
_MOST_CHARACTERS = 4000


class Outcome(NamedTuple):
    """``payload`` for the other ranks, and the error that was raised here, if any."""

    payload: bytes
    error: Exception | None = None


def outcome_of(work: Callable[[], Any]) -> Outcome:
    """The result of ``work()`` as JSON, no bytes for None, or the error that it raised."""
    try:
        value = work()
        return Outcome(b"" if value is None else json.dumps(value).encode())
    # any error must reach the other ranks, which wait for this one, before it is raised here
    except Exception as error:  # noqa: BLE001
        return Outcome(encode(error), error)


def encode(error: Exception) -> bytes:
    """Class, message and attributes of an error.

    >>> decode(encode(ValueError("no such step")), "rank 1: ")
    ValueError('rank 1: no such step')
    """
    attributes = {name: getattr(error, name, None) for name in _ATTRIBUTES}
    kept = {name: value for name, value in attributes.items() if isinstance(value, str)}
    return json.dumps(
        {"error": type(error).__name__, "message": str(error)[:_MOST_CHARACTERS], **kept}
    ).encode()


def decode(payload: bytes, prefix: str) -> Exception:
    """The error that another rank encoded.

    It has the same class if that is ours or built in, and else is a SaveError.
    """
    fields = json.loads(payload)
    # names from another rank are looked up among these only, and never imported
    kind = getattr(errors, fields["error"], None) or _BUILT_IN.get(fields["error"])
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        kind = SaveError
    error = kind(prefix + fields["message"])
    for name in _ATTRIBUTES:
        if name in fields:
            setattr(error, name, fields[name])
    return error
