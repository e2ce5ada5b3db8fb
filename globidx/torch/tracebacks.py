"""Errors that are kept for later.

A traceback holds its frames, those their callers, and one of them the loop: a loop that somebody left would live on,
and count the batch that it held, until the garbage collector comes by.
"""

from __future__ import annotations

import traceback
from typing import TypeVar

_Error = TypeVar("_Error", bound=BaseException)


def without_frames(error: _Error, *, noted: bool = True) -> _Error:
    """``error`` itself without tracebacks, its causes' too; with ``noted`` they are told in a note, as text.

    >>> try:
    ...     1 / 0
    ... except ZeroDivisionError as error:
    ...     kept = without_frames(error)
    >>> kept.__traceback__, "1 / 0" in kept.__notes__[0]
    (None, True)
    """
    if noted:
        error.add_note("".join(["first raised here:\n", *traceback.format_exception(error)]).rstrip())
    parts: list[BaseException | None] = [error]
    while parts:
        part = parts.pop()
        if part is not None and part.__traceback__ is not None:
            part.__traceback__ = None
            parts += [part.__cause__, part.__context__]
    return error
