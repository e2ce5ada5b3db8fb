"""Copies of a sampler, and the sampler that they were made from, in one process.

A loop over a deep-copied or unpickled loader reports to the copy. Whoever saves the original would
record that nothing was trained on, so the copy notes at the original that it is read.
"""

from __future__ import annotations

import uuid
from typing import ClassVar
from weakref import WeakValueDictionary

from globidx.torch.loops.passes import Passes


class Original:
    """Name of a sampler in this process, and of the sampler that it was copied from."""

    _living: ClassVar[WeakValueDictionary[str, Passes]] = WeakValueDictionary()

    def __init__(self, passes: Passes, parent: str | None = None) -> None:
        # an id could be that of another sampler by the time a pickle is read
        self.name = uuid.uuid4().hex
        self._parent = parent
        self._living[self.name] = passes

    def note_loop(self) -> None:
        """Note at the original that a loop reads the copy.

        In another process there is no original, and nothing to note.
        """
        original = self._living.get(self._parent) if self._parent is not None else None
        if original is not None:
            original.copy_is_read = True
