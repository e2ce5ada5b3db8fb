"""Stores by URL: what fsspec can list is found here, and zarr reads it.

The extra ``remote`` brings fsspec.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from globidx.disk.files.paths import join, split_chain
from globidx.disk.remote.addresses import redacted
from globidx.disk.remote.by_fsspec import as_tries, entries_of, file_system, is_http, listed
from globidx.disk.remote.line import Line, for_scans
from globidx.disk.remote.objects import OutageError, Piece
from globidx.disk.stores.base import (
    HDF5_SUFFIXES,
    MIXED_SUFFIXES,
    ZARR_MARKERS,
    is_file_by_url,
)
from globidx.errors import GlobidxError, NoFilesError, ReadError

Result = TypeVar("Result")

_SUFFIXES = (*HDF5_SUFFIXES, *MIXED_SUFFIXES, ".zip")


def find(url: str, options: Mapping[str, Any] | None = None) -> list[str]:
    """The files that ``url`` names: a zarr store, an HDF5 or zip file, a glob, or a folder of such; sorted.

    ``options`` are those of fsspec for this URL.

    NoFilesError where there is none, or no such protocol; MissingPackageError where fsspec, or what
    it needs for this protocol, is not installed; ReadError where the server, or the package that
    asks it, refuses.
    """
    shown = redacted(url)
    files, path = file_system(url, options)
    line = for_scans(options)
    try:
        if _is_itself(line, url, path):
            return [url]
        entries = _asked(line, url, files, partial(entries_of, files, path))
        names = sorted({name.rstrip("/") for name in entries})
        urls = _urls(url, files, names)
        # each look waits for the server
        are_stores = line.map(partial(_is_one, line), list(zip(names, urls, strict=True)))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoFilesError(f"there is nothing at {shown}: {redacted(str(error))}") from None
    except GlobidxError:
        raise
    except (OSError, ValueError) as error:
        reason = redacted(f"{type(error).__name__}: {error}")
        raise ReadError(f"{shown} cannot be listed: {reason}") from None
    stores = [one for one, is_store in zip(urls, are_stores, strict=True) if is_store]
    if not stores:
        raise NoFilesError(
            f"no zarr store or HDF5 file matches {shown}, and none is in that folder"
        )
    return stores


def names(url: str, options: Mapping[str, Any] | None = None) -> Iterator[str]:
    """The names of all files with bytes in them below ``url``, relative to it, by one listing."""
    files, path = file_system(url, options)
    yield from _asked(for_scans(options), url, files, lambda: list(listed(files, path, path)))


def _asked(line: Line, url: str, files: Any, ask: Callable[[], Result]) -> Result:
    """What a call says that lists what is at a URL, by its file system."""

    def asked() -> Result:
        with as_tries(is_http=is_http(files), silence=line.bounds.timeout):
            return ask()

    try:
        return line.persistently(url, asked)
    except OutageError:
        raise
    except ReadError as error:
        raise ReadError(f"{redacted(url)} cannot be listed: {error}") from None


def _urls(url: str, files: Any, names: Sequence[str]) -> list[str]:
    """The URLs of what the file system of ``url`` calls by these names."""
    head, _, behind = split_chain(url)
    # a file system knows its own protocol, not the chain
    if head.count("::") or behind:
        paths = [name.partition("://")[2] if "://" in name else name for name in names]
        return [
            head + (path if head.endswith("file://") else path.lstrip("/")) + behind
            for path in paths
        ]
    return [files.unstrip_protocol(name) for name in names]


def _is_itself(line: Line, url: str, path: str) -> bool:
    """Whether a URL is that of one store, or of one HDF5 or zip file, which is there."""
    is_glob = glob.has_magic(path)
    if not is_glob and is_file_by_url(url):
        # fsspec would ask for all of it
        objects, key = line.at(url)
        if objects.get(Piece(key, 0, 1)) is not None:
            return True
    try:
        return _is_store(line, url)
    except ReadError:
        # a server may refuse a name that is a glob; its listing tells more
        if is_glob:
            return False
        raise


def _is_one(line: Line, named: tuple[str, str]) -> bool:
    name, url = named
    return name.lower().endswith(_SUFFIXES) or _is_store(line, url)


def _is_store(line: Line, url: str) -> bool:
    return any(_has(line, url, marker) for marker in ZARR_MARKERS)


def _has(line: Line, folder: str, name: str) -> bool:
    """Whether there is a file in the folder at a URL; a busy server did not say that there is none."""
    objects, key = line.at(folder)
    key = f"{key}/{name}" if key else name
    # of a part, fsspec asks for the size first, and takes any failure in a chain for an absence
    piece = Piece(key) if "::" in folder else Piece(key, 0, 1)
    try:
        return objects.get(piece) is not None
    except OutageError:
        raise
    except ReadError as error:
        raise ReadError(f"{redacted(join(folder, name))}: {error}") from None
