"""Errors that are stored and raised later, without the frames of their tracebacks.

A traceback refers to its frames, those to their callers, and one of them is the training loop: an
abandoned loop would stay alive, and count the batch that it held, until the next garbage
collection.
"""

from __future__ import annotations

import traceback
from typing import TypeVar

_Error = TypeVar("_Error", bound=BaseException)


def without_frames(error: _Error, *, noted: bool = True) -> _Error:
    """``error`` itself without its tracebacks and those of its causes.

    ``noted`` keeps them as text, in a note.

    >>> try:
    ...     1 / 0
    ... except ZeroDivisionError as error:
    ...     kept = without_frames(error)
    >>> kept.__traceback__, "1 / 0" in kept.__notes__[0]
    (None, True)
    """
    if noted:
        error.add_note(
            "".join(["first raised here:\n", *traceback.format_exception(error)]).rstrip()
        )
    parts: list[BaseException | None] = [error]
    while parts:
        part = parts.pop()
        if part is not None and part.__traceback__ is not None:
            # causes have tracebacks of their own, and through them the same frames
            part.__traceback__ = None
            parts += [part.__cause__, part.__context__]
    return error
