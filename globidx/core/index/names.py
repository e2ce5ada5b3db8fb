"""Many names in one block of bytes: a million file names as two arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import overload

import numpy as np
from numpy.typing import NDArray

_BLOCK = 16384


class Names(Sequence[str]):
    """Many names in one block of bytes, so that a million of them cost their letters and no Python objects.

    Any file name fits: bytes that are no UTF-8 come back as Python's surrogate escapes.

    >>> names = Names.of(["a.zarr", "b.h5"])
    >>> names[1], len(names), names[:1]
    ('b.h5', 2, ['a.zarr'])
    """

    __slots__ = ("_blob", "_ends")

    def __init__(self, blob: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self._blob, self._ends = blob, ends

    @classmethod
    def of(cls, names: Iterable[str | bytes]) -> Names:
        """The names, encoded; each ends in a NUL, which no file name contains."""
        blob, sizes, rest = bytearray(), [np.zeros(0, np.int64)], iter(names)
        while some := list(islice(rest, _BLOCK)):  # a million names at once would be a million objects
            encoded = [name if isinstance(name, bytes) else os.fsencode(name) for name in some]
            blob += b"\0".join([*encoded, b""])
            sizes.append(np.fromiter(map(len, encoded), np.int64, len(encoded)) + 1)
        return cls(np.frombuffer(bytes(blob), np.uint8), np.cumsum(np.concatenate(sizes)))

    @classmethod
    def joined(cls, parts: Sequence[Names]) -> Names:
        """The names of all parts, one after the other."""
        blob = np.concatenate([part._blob for part in parts])
        shifts = np.cumsum([0, *(len(part._blob) for part in parts)])
        return cls(blob, np.concatenate([part._ends + shift for part, shift in zip(parts, shifts, strict=False)]))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        return os.fsdecode(self._blob[self._start(number) : int(self._ends[number]) - 1].tobytes())

    def __iter__(self) -> Iterator[str]:
        return map(os.fsdecode, chain.from_iterable(self.blocks()))

    def blocks(self) -> Iterator[list[bytes]]:
        """All names as bytes, some at a time."""
        return (self.encoded(start, min(start + _BLOCK, len(self))) for start in range(0, len(self), _BLOCK))

    def encoded(self, start: int, stop: int) -> list[bytes]:
        """The names ``[start, stop)`` as bytes, all at once."""
        block = self._blob[self._start(start) : self._start(stop)].tobytes()
        return block.split(b"\0")[:-1]

    def part(self, start: int, stop: int) -> Names:
        """The names ``[start, stop)``, which go on sharing these bytes."""
        first = self._start(start)
        return Names(self._blob[first : self._start(stop)], self._ends[start:stop] - first)

    def take(self, places: NDArray[np.int64]) -> Names:
        """The names at ``places``."""
        every = self.encoded(0, len(self))
        return Names.of([every[place] for place in places.tolist()])

    def spelled(self, count: int) -> memoryview:
        """The first ``count`` names as they are kept: each with its NUL."""
        return self._blob[: self._start(count)].data

    def shared_with(self, other: Names) -> int:
        """How many of the first names are the first names of ``other``, too.

        >>> Names.of(["a", "bc", "d"]).shared_with(Names.of(["a", "bd"]))
        1
        """
        count = min(len(self._blob), len(other._blob))
        differs = self._blob[:count] != other._blob[:count]
        same = int(np.argmax(differs)) if differs.any() else count
        return int(np.searchsorted(self._ends, same, side="right"))

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The block and the end of each name in it: what ``Names(...)`` takes."""
        return self._blob, self._ends

    def _start(self, number: int) -> int:
        return int(self._ends[number - 1]) if number else 0


def common_folder(names: Sequence[str]) -> int:
    """How many leading characters of each name spell the deepest folder that holds all of them.

    >>> common_folder(["a/b/x.h5", "a/b/c/y.h5"])
    4
    """
    if not names:
        return 0
    shared = os.path.commonprefix([min(names), max(names)])  # what the extremes share, all share
    return shared.rfind("/") + 1
