"""HDF5 files by URL: metadata in pages, which HDF5 reads as a file, and data as ranges.

HDF5 asks for a few bytes at a time, as it walks through its trees. A page around them takes as long
to come, and most often has the next ones in it.
"""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any
from weakref import WeakValueDictionary

import h5py
import numpy as np
from h5py import h5fd
from numpy.typing import NDArray

from globidx.disk.local_cache.cached_objects import CachedObjects
from globidx.disk.local_cache.pages import Pages, opened
from globidx.disk.remote.ahead import Wish, themselves, wish
from globidx.disk.remote.hands import alone
from globidx.disk.remote.objects import Found, Objects, Piece, replaced
from globidx.errors import ReadError

#: Bytes of a page, and the most pages that are fetched ahead where HDF5 reads on and on.
PAGE = 2**16
_MOST_AHEAD = 16
#: Pages of an open file in memory, and those that are fetched at once into a local cache.
_MOST_PAGES = 32
_AT_ONCE = 512
#: What is larger is no metadata, and is fetched by itself.
_LARGE = 4 * PAGE
#: Rows are asked for in blocks of about so many bytes, or one by one; and where a local cache has
#: room for all files twice, of so many: a line of 1 Gbit/s brings them in 2 ms, where a request
#: waits for ten times that.
_GRAIN, _GRAIN_KEPT = 2**14, 2**18
#: How the names of such files begin, for HDF5; those of local files are absolute paths.
_PREFIX = "<by URL: "

_open: WeakValueDictionary[bytes, RangeFile] = WeakValueDictionary()


class RangeFile(io.RawIOBase):
    """An object as a file for h5py, which reads it under its lock.

    All that is read of it is of one version: the one that its first page had. Pages are kept in
    ``pages``, unless ``objects`` are kept themselves.

    FileNotFoundError where there is no such object.
    """

    def __init__(self, objects: Objects, key: str, pages: Pages | None = None) -> None:
        super().__init__()
        self.objects, self.key = objects, key
        # HDF5's lock is held while it reads: what waits for a thread that waits for this lock
        # would wait for ever, so that it asks by itself
        self._plain = themselves(objects)
        self._metadata, first = opened(self._plain, Piece(key, 0, PAGE), pages)
        if first is None:
            raise FileNotFoundError(f"there is nothing at {objects.url}/{key}")
        self.size, self.version = first.size, first.version
        self._pages = OrderedDict({0: first.data})
        self._at, self._ahead, self._next = 0, 1, 1
        self._is_whole = False
        #: Bytes of a block of rows that is asked for as one.
        self.grain = _GRAIN
        if isinstance(self._plain, CachedObjects) and 2 * self.size <= self._plain.room:
            # the rows around the wanted ones are wanted later in the epoch, and will be there
            self.grain = _GRAIN_KEPT
        _open[self.name] = self

    @property
    def how_whole(self) -> str:
        """What becomes of arrays that HDF5 itself must read."""
        if isinstance(self._plain, CachedObjects):
            return "by URL, so all of the file is fetched into the local cache"
        return "by URL, which takes local_cache="

    @property
    def identity(self) -> Hashable:
        """What identifies the bytes of the file."""
        return self.objects.url, self.key, self.size, self.version

    @property
    def name(self) -> bytes:
        """The name that h5py gives it."""
        return repr(self).encode("ascii", "replace")

    def __repr__(self) -> str:
        return f"{_PREFIX}{self.objects.url}/{self.key} {id(self):x}>"

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the place of the next byte."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, as far as there are bytes."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self.size - self._at))
        if count >= _LARGE and not self._is_whole:
            piece = Piece(self.key, self._at, self._at + count)
            view[:count] = self._checked(self._plain.get(piece), piece)
        else:
            self._fill(view[:count])
        self._at += count
        return count

    def fetch(self, start: int, stop: int) -> bytes:
        """Bytes ``[start, stop)``; ReadError where the object is no longer what it was."""
        piece = Piece(self.key, start, stop)
        return self._checked(self.objects.get(piece), piece)

    def part(self, begin: int, end: int, start: int, stop: int) -> bytes:
        """Bytes ``[start, stop)`` of ``[begin, end)``, which are asked for as one piece."""
        kept = self._plain
        # while a cache is being filled, pieces are on their way, and are taken from there
        if isinstance(kept, CachedObjects) and kept.is_filled:
            found = kept.part(Piece(self.key, begin, end), start, stop)
            if found is not None:
                return self._checked(found, Piece(self.key, begin + start, begin + stop))
        return self.fetch(begin, end)[start:stop]

    def keep_all(self) -> None:
        """Fetch what is lacking of the file into the local cache, once, so that it is read from there.

        ReadError where there is none.
        """
        if self._is_whole:
            return
        if not isinstance(self._plain, CachedObjects):
            raise ReadError(
                "it is read by HDF5 itself, and by URL that takes all of the file: give FileCacheDataset a "
                "local_cache=, or copy the file to a disk"
            )
        pages = range(-(-self.size // PAGE))
        for start in range(0, len(pages), _AT_ONCE):
            self._fetched(pages[start : start + _AT_ONCE])
        self._is_whole = True

    def _fill(self, view: memoryview) -> None:
        at, done = self._at, 0
        while done < len(view):
            number, begin = divmod(at + done, PAGE)
            part = self._page(number)[begin : begin + len(view) - done]
            view[done : done + len(part)] = part
            done += len(part)

    def _page(self, number: int) -> bytes:
        page = self._pages.get(number)
        if page is not None:
            self._pages.move_to_end(number)
            return page
        numbers = self._run(number)
        # under HDF5's lock, for which all hands may wait that open other files
        with alone():
            pages = self._fetched(numbers)
        self._pages.update(zip(numbers, pages, strict=True))
        while len(self._pages) > _MOST_PAGES:
            self._pages.popitem(last=False)
        return pages[0]

    def _run(self, number: int) -> range:
        """The pages from this one on that are fetched by one request."""
        # twice as many each time that one is asked for behind the last, as the kernel does
        self._ahead = min(2 * self._ahead, _MOST_AHEAD) if number == self._next else 1
        stop = min(number + self._ahead, -(-self.size // PAGE))
        if isinstance(self._metadata, CachedObjects):
            kept = (one for one in range(number, stop) if self._metadata.has(self._piece(one)))
            stop = max(number + 1, next(kept, stop))
        self._next = stop
        return range(number, stop)

    def _piece(self, number: int) -> Piece:
        return Piece(self.key, number * PAGE, min((number + 1) * PAGE, self.size))

    def _fetched(self, numbers: range) -> list[bytes]:
        pieces = [self._piece(number) for number in numbers]
        found = self._metadata.get_many(pieces)
        return [self._checked(one, piece) for one, piece in zip(found, pieces, strict=True)]

    def _checked(self, found: Found | None, piece: Piece) -> bytes:
        if found is None:
            raise ReadError("it was there when it was opened, and is no longer")
        before, now = (self.size, self.version), (found.size, found.version)
        if now != before:
            raise replaced("it", before, now)
        if piece.stop is not None and len(found.data) != piece.stop - piece.start:
            raise ReadError(
                f"{len(found.data)} bytes came of [{piece.start}, {piece.stop}) of a file of {self.size}"
            )
        return found.data


def range_file_of(file: Any) -> RangeFile | None:
    """The object that an open HDF5 file is read from; None of a local one.

    Parameters
    ----------
    file : h5py.h5f.FileID
        Its low-level id, or that of a dataset in it.
    """
    if file.get_access_plist().get_driver() != h5fd.fileobj_driver:
        return None
    return _open.get(h5py.h5f.get_name(file))


def is_by_url(name: str) -> bool:
    """Whether the name of an open file, as h5py has it, is that of a file by URL."""
    return name.startswith(_PREFIX)


def place_of(name: str) -> str | RangeFile:
    """What h5py opens a file by once more, whose name it gave."""
    return _open.get(name.encode("ascii", "replace"), name)


def beyond(dataset: str, offset: int, size: int, end: int) -> ReadError:
    """The error for bytes that a dataset claims, and its file of ``end`` bytes does not have."""
    return ReadError(
        f"dataset {dataset} claims bytes [{offset}, {offset + size}) of a file of {end}: "
        "the file was cut or damaged"
    )


class RangedBytes:
    """The bytes of a dataset's file by URL, as ``fast.RawFile`` has those of a local one."""

    def __init__(self, dataset: Any, file: RangeFile) -> None:
        self._name, self._file = dataset.name, file

    @property
    def grain(self) -> int:
        """Bytes of a block of rows that is asked for as one."""
        return self._file.grain

    def fill(self, offset: int, out: NDArray[Any]) -> int:
        """Fill ``out``, C-contiguous, with the bytes from ``offset`` on; how many those are."""
        out.reshape(-1).view(np.uint8)[:] = np.frombuffer(self.read(offset, out.nbytes), np.uint8)
        return out.nbytes

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on."""
        if not size:
            return b""
        self._refuse_beyond(offset, size)
        return self._file.fetch(offset, offset + size)

    def part(self, offset: int, size: int, start: int, stop: int) -> bytes:
        """Bytes ``[start, stop)`` of those that ``read`` gives, which it asks for."""
        if start == stop:
            return b""
        self._refuse_beyond(offset, size)
        return self._file.part(offset, offset + size, start, stop)

    def wish(self, offset: int, size: int) -> Wish:
        """What ``read`` asks for."""
        return wish(self._file.objects, Piece(self._file.key, offset, offset + size), size)

    def _refuse_beyond(self, offset: int, size: int) -> None:
        if not self.has(offset, size):
            raise beyond(self._name, offset, size, self._file.size)

    def has(self, offset: int, size: int) -> bool:
        """Whether the file has these bytes; a damaged index may claim others."""
        return 0 <= offset <= self._file.size - size
