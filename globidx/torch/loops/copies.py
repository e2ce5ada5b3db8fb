"""Copies of a sampler, and the one they were made from, where both live in one process.

A loop over a deep-copied or unpickled loader reports to the copy. Whoever saves the original would record that nothing
was trained, so the copy leaves word.
"""

from __future__ import annotations

import uuid
from typing import ClassVar
from weakref import WeakValueDictionary

from globidx.torch.loops.passes import Passes


class Original:
    """Name of a sampler in this process, and of the one that it was copied from."""

    _living: ClassVar[WeakValueDictionary[str, Passes]] = WeakValueDictionary()

    def __init__(self, passes: Passes, parent: str | None = None) -> None:
        self.name = uuid.uuid4().hex
        self._parent = parent
        self._living[self.name] = passes

    def leave_word(self) -> None:
        """A loop over this copy begins: let the sampler that it was made from know, if that is in this process."""
        original = self._living.get(self._parent) if self._parent is not None else None
        if original is not None:
            original.copy_is_read = True
