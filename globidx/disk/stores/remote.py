"""Stores by URL: what fsspec can list is found here, and zarr reads it.

The extra ``remote`` brings fsspec.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from globidx.disk.files.paths import split_chain
from globidx.disk.remote.addresses import redacted
from globidx.disk.remote.by_fsspec import as_os_errors, file_system, listed
from globidx.disk.remote.line import for_scans
from globidx.disk.remote.objects import Piece
from globidx.disk.stores.base import (
    HDF5_SUFFIXES,
    MIXED_SUFFIXES,
    ZARR_MARKERS,
    is_file_by_url,
)
from globidx.errors import GlobidxError, NoFilesError, ReadError

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
    try:
        with as_os_errors():
            if _is_file(url, path, options) or _is_store(files, path):
                return [url]
            listed = files.glob(path) if glob.has_magic(path) else files.ls(path, detail=False)
            names = sorted({name.rstrip("/") for name in listed})
            # each look waits for the server
            found = for_scans(options).map(partial(_is_one, files), names)
            stores = [name for name, is_one in zip(names, found, strict=True) if is_one]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoFilesError(f"there is nothing at {shown}: {redacted(str(error))}") from None
    except GlobidxError:
        raise
    except (OSError, ValueError) as error:
        reason = redacted(f"{type(error).__name__}: {error}")
        raise ReadError(f"{shown} cannot be listed: {reason}") from None
    if not stores:
        raise NoFilesError(
            f"no zarr store or HDF5 file matches {shown}, and none is in that folder"
        )
    head, _, behind = split_chain(url)
    # a file system knows its own protocol, not the chain
    if head.count("::") or behind:
        paths = [name.partition("://")[2] if "://" in name else name for name in stores]
        return [
            head + (path if head.endswith("file://") else path.lstrip("/")) + behind
            for path in paths
        ]
    return [files.unstrip_protocol(name) for name in stores]


def names(url: str, options: Mapping[str, Any] | None = None) -> Iterator[str]:
    """The names of all files with bytes in them below ``url``, relative to it, by one listing."""
    files, path = file_system(url, options)
    return listed(files, path, path)


def _is_file(url: str, path: str, options: Mapping[str, Any] | None) -> bool:
    """Whether a URL is that of one HDF5 or zip file, which is there."""
    if not is_file_by_url(url) or glob.has_magic(path):
        return False
    # fsspec would ask for all of it
    objects, key = for_scans(options).at(url)
    return objects.get(Piece(key, 0, 1)) is not None


def _is_one(files: Any, name: str) -> bool:
    return name.lower().endswith(_SUFFIXES) or _is_store(files, name)


def _is_store(files: Any, path: str) -> bool:
    return any(files.exists(f"{path}/{marker}") for marker in ZARR_MARKERS)
