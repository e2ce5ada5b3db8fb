"""Stores by URL: what fsspec can list is found here, and zarr reads it. The extra ``remote`` brings fsspec."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from globidx.disk.stores import HDF5_SUFFIXES, ZARR_MARKERS
from globidx.errors import NoFilesError


def find(url: str) -> list[str]:
    """The zarr stores that ``url`` names: a store, a glob, or a folder of stores; sorted.

    NoFilesError where there is none, ImportError where fsspec, or what it needs for this protocol, is not installed.
    """
    if url.lower().endswith(tuple(HDF5_SUFFIXES)):
        raise NoFilesError(f"{url} is an HDF5 file, and those are read from local paths only; copy it to a disk first")
    files, path = _file_system(url)
    try:
        with as_os_errors():
            if _is_store(files, path):
                return [url]
            listed = files.glob(path) if glob.has_magic(path) else files.ls(path, detail=False)
            stores = sorted({name.rstrip("/") for name in listed if _is_store(files, name.rstrip("/"))})
    except FileNotFoundError as error:
        raise NoFilesError(f"there is nothing at {url}: {error}") from None
    if not stores:
        raise NoFilesError(f"no zarr store matches {url}, or lies in that folder")
    return [files.unstrip_protocol(name) for name in stores]


def exists(url: str) -> bool:
    """Whether there is anything at ``url``."""
    files, path = _file_system(url)
    return bool(files.exists(path))


@contextmanager
def as_os_errors() -> Iterator[None]:
    """Raise as OSError what HTTP clients raise that is none, so that it is told of a file as any other."""
    try:
        yield
    except _http_errors() as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _http_errors() -> tuple[type[Exception], ...]:
    aiohttp = sys.modules.get("aiohttp")  # where nobody imported it, nobody raised its errors
    return () if aiohttp is None else (aiohttp.ClientError,)


def _file_system(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise ImportError(f"reading {url} needs fsspec: pip install '.[remote]' in the clone of globidx") from None
    try:
        files, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise ImportError(f"reading {url} needs more than fsspec: {error}") from None
    return files, str(path)


def _is_store(files: Any, path: str) -> bool:
    return any(files.exists(f"{path}/{marker}") for marker in ZARR_MARKERS)
