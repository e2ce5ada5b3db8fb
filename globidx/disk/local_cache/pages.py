"""Metadata of files by URL, kept beside the index for all processes and later runs.

An HDF5 file and a zip file tell where their chunks lie, in many places of the one, at the end of the
other. To find that out takes requests that wait for one another, and it is the same for each worker,
rank and run, as long as the object is of the same version.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

from globidx.disk.local_cache.cached_objects import CachedObjects
from globidx.disk.local_cache.entry import ABOUT, Identity, Kept
from globidx.disk.local_cache.folder import LocalCache
from globidx.disk.remote.objects import Found, Objects, Piece

_log = logging.getLogger("globidx")
#: The folder beside an index, and the most bytes that it takes: chunk tables of 10^7 chunks.
FOLDER, BOUND = "metadata", 2**30


@lru_cache(maxsize=16)
def beside(folder: Path) -> Pages:
    """The metadata that are kept beside the indexes in ``folder``, the same ones in a process."""
    return Pages(folder)


class Pages:
    """Metadata in a folder below ``beside``, which is made when there are any. It pickles as its place."""

    def __init__(self, beside: Path) -> None:
        self._beside = beside
        self._cache: LocalCache | None = None
        self._is_lacking = False

    def __reduce__(self) -> tuple[Any, ...]:
        return beside, (self._beside,)

    def of(self, objects: Objects, key: str, told: Found) -> Objects:
        """Objects whose pieces of ``key`` are kept here, of the version that the server has just ``told``.

        ``objects`` themselves where nothing can be kept.
        """
        if self._cache is None and not self._is_lacking:
            try:
                self._cache = LocalCache(self._beside / FOLDER, BOUND)
            except (OSError, ValueError) as error:
                self._is_lacking = True
                _log.warning("metadata by URL are not kept below %s: %s", self._beside, error)
        if self._cache is None:
            return objects
        pieces = _Pieces(objects, self._cache)
        pieces.learn(key, told)
        return pieces


class _Pieces(CachedObjects):
    """Pieces that are kept of one version, which whoever opens the object is told by its server."""

    def learn(self, key: str, told: Found) -> None:
        """Take the version of an object for the one that it has now."""
        about = Identity(self._place, key, ABOUT, version=told.version)
        self._remember(Kept(about, told._replace(data=b""), self._clock()))


def opened(plain: Objects, piece: Piece, pages: Pages | None) -> tuple[Objects, Found | None]:
    """Whom to ask for metadata of an object, and a piece of it, of the version that it has now.

    That piece tells the version, and is asked for each time: a byte of it would take as long.
    All others are asked for once, and kept in ``pages``. Where ``plain`` are kept themselves, that
    is enough.
    """
    if isinstance(plain, CachedObjects):
        # an index that is old would be taken for one of chunks that are new
        plain.ask([piece.key])
        return plain, plain.get(piece)
    found = plain.get(piece)
    # nothing proves of an object without a version that what is kept is not old
    if found is None or not found.version or pages is None:
        return plain, found
    return pages.of(plain, piece.key, found), found
