"""What the error about an absent chunk says beyond the chunk: how much is absent, and what to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from globidx.disk.index.absent import Extent, choice, extent_within
from globidx.disk.index.snapshot import Snapshot

#: An error may come this much later for saying how much is absent.
SECONDS = 2.0
#: Arrays whose absent chunks are told of in one error.
_MOST_ARRAYS = 5


class Advice:
    """Said at the end of errors about absent chunks; the first time, with how many there are.

    ``columns`` are the arrays that are read.
    """

    def __init__(
        self,
        columns: Sequence[int],
        *,
        allow_external: bool,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._columns = list(dict.fromkeys(columns))
        self._allow_external = allow_external
        self._seconds, self._clock = seconds, clock
        self._is_first = True

    def of(self, now: Snapshot, file: int, column: int) -> str:
        """The advice for an array of a file."""
        arrays = now.table.arrays
        # members of a compound array are filled together
        fields = [
            arrays[one].name for one in self._columns if arrays[one].path == arrays[column].path
        ]
        how = f"if the writer left it out on purpose, {choice(fields)} reads its fill value"
        if not self._is_first:
            return f"; {how}"
        self._is_first = False
        extent = extent_within(
            self._seconds,
            now,
            self._columns,
            first=file,
            allow_external=self._allow_external,
            clock=self._clock,
        )
        return f". {in_words(extent, self._seconds)}{how[0].upper()}{how[1:]}"


def in_words(extent: Extent, seconds: float) -> str:
    """How much is absent, as sentences; nothing where that could not be counted."""
    if not extent.lacking and (extent.is_part or extent.unknown):
        return ""
    if not extent.lacking:
        return (
            "Each chunk has a file, so the one of this chunk holds no bytes, as after a crash, and is "
            "lost: restore it. "
        )
    told = list(map(str, extent.lacking[:_MOST_ARRAYS]))
    more = len(extent.lacking) - _MOST_ARRAYS
    told += [f"{more} more arrays lack chunks"] if more > 0 else []
    files = f"all {extent.num_files} files"
    if extent.is_part:
        files = f"the first {extent.looked_at} of {extent.num_files} files, after {seconds:g} s, at least"
    unknown = f" ({len(extent.unknown)} not looked at)" if extent.unknown else ""
    return f"Counted over {files}{unknown}: {'. '.join(told)}. "
