"""Many names in one block of bytes: a million file names are two arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import overload

import numpy as np
from numpy.typing import NDArray

_BLOCK = 16384


class Names(Sequence[str]):
    """A sequence of names in one block of bytes, without a Python object for each.

    Any file name fits: bytes that are not UTF-8 are returned as Python's surrogate escapes.

    >>> names = Names.of(["a.zarr", "b.h5"])
    >>> names[1], len(names), names[:1]
    ('b.h5', 2, ['a.zarr'])
    """

    __slots__ = ("_blob", "_ends")

    def __init__(self, blob: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self._blob, self._ends = blob, ends

    @classmethod
    def of(cls, names: Iterable[str | bytes]) -> Names:
        """Encode names. Each ends in a NUL, which no file name contains."""
        blob = bytearray()
        sizes = [np.zeros(0, np.int64)]
        rest = iter(names)
        # A block at a time: a million names at once would be a million objects.
        while some := list(islice(rest, _BLOCK)):
            encoded = [name if isinstance(name, bytes) else os.fsencode(name) for name in some]
            blob += b"\0".join([*encoded, b""])
            sizes.append(np.fromiter(map(len, encoded), np.int64, len(encoded)) + 1)
        return cls(np.frombuffer(bytes(blob), np.uint8), np.cumsum(np.concatenate(sizes)))

    @classmethod
    def joined(cls, parts: Sequence[Names]) -> Names:
        """Concatenate the names of all parts."""
        blob = np.concatenate([part._blob for part in parts])
        shifts = np.cumsum([0, *(len(part._blob) for part in parts)])
        return cls(
            blob,
            np.concatenate(
                [part._ends + shift for part, shift in zip(parts, shifts, strict=False)]
            ),
        )

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        return os.fsdecode(self._blob[self._start(row) : int(self._ends[row]) - 1].tobytes())

    def __iter__(self) -> Iterator[str]:
        return map(os.fsdecode, chain.from_iterable(self.blocks()))

    def blocks(self) -> Iterator[list[bytes]]:
        """Iterate over all names as bytes, in lists."""
        return (
            self.encoded(start, min(start + _BLOCK, len(self)))
            for start in range(0, len(self), _BLOCK)
        )

    def encoded(self, start: int, stop: int) -> list[bytes]:
        """Return the names ``[start, stop)`` as bytes."""
        # one split for all, in C
        block = self._blob[self._start(start) : self._start(stop)].tobytes()
        return block.split(b"\0")[:-1]

    def part(self, start: int, stop: int) -> Names:
        """Return the names ``[start, stop)``, which share the block of bytes."""
        first = self._start(start)
        return Names(self._blob[first : self._start(stop)], self._ends[start:stop] - first)

    def take(self, rows: NDArray[np.int64]) -> Names:
        """Return the names at these indices."""
        every = self.encoded(0, len(self))
        return Names.of([every[row] for row in rows.tolist()])

    def spelled(self, count: int) -> memoryview:
        """Return the bytes of the first ``count`` names, each with its NUL."""
        return self._blob[: self._start(count)].data

    def shared_with(self, other: Names) -> int:
        """Return how many first names are equal to the first names of ``other``.

        >>> Names.of(["a", "bc", "d"]).shared_with(Names.of(["a", "bd"]))
        1
        """
        count = min(len(self._blob), len(other._blob))
        # a million names are compared as one block of bytes
        differs = self._blob[:count] != other._blob[:count]
        same = int(np.argmax(differs)) if differs.any() else count
        return int(np.searchsorted(self._ends, same, side="right"))

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the block, and the end of each name in it: what ``Names(...)`` takes."""
        return self._blob, self._ends

    def _start(self, row: int) -> int:
        return int(self._ends[row - 1]) if row else 0


def common_folder(names: Sequence[str]) -> int:
    """Return the length of the path of the deepest folder that holds all names, with its slash.

    >>> common_folder(["a/b/x.h5", "a/b/c/y.h5"])
    4
    """
    if not names:
        return 0
    # What the first and the last one in sorted order share, all share.
    shared = os.path.commonprefix([min(names), max(names)])
    return shared.rfind("/") + 1
