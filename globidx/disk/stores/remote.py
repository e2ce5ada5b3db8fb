"""Stores by URL: what fsspec can list is found here, and zarr reads it.

The extra ``remote`` brings fsspec.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from globidx.disk.files.paths import split_chain
from globidx.disk.stores.base import HDF5_SUFFIXES, ZARR_MARKERS
from globidx.errors import GlobidxError, MissingPackageError, NoFilesError, ReadError

_NO_BACK_ENDS = ("builtins", "globidx", "numpy", "zarr", "json")


def find(url: str, options: Mapping[str, Any] | None = None) -> list[str]:
    """The zarr stores that ``url`` names: a store, a glob, or a folder of stores; sorted.

    ``options`` are those of fsspec for this URL.

    NoFilesError where there is none, or no such protocol; MissingPackageError where fsspec, or what
    it needs for this protocol, is not installed; ReadError where the server, or the package that
    asks it, refuses.
    """
    if url.lower().endswith(tuple(HDF5_SUFFIXES)):
        raise NoFilesError(
            f"{url} is an HDF5 file, and those are read from local paths only; copy it to a disk first"
        )
    files, path = file_system(url, options)
    try:
        with as_os_errors():
            if _is_store(files, path):
                return [url]
            listed = files.glob(path) if glob.has_magic(path) else files.ls(path, detail=False)
            stores = sorted(
                {name.rstrip("/") for name in listed if _is_store(files, name.rstrip("/"))}
            )
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoFilesError(f"there is nothing at {url}: {error}") from None
    except GlobidxError:
        raise
    except (OSError, ValueError) as error:
        raise ReadError(f"{url} cannot be listed: {type(error).__name__}: {error}") from error
    if not stores:
        raise NoFilesError(f"no zarr store matches {url}, and none is in that folder")
    head, _, behind = split_chain(url)
    # a file system knows its own protocol, not the chain
    if head.count("::") or behind:
        paths = [name.partition("://")[2] if "://" in name else name for name in stores]
        return [
            head + (path if head.endswith("file://") else path.lstrip("/")) + behind
            for path in paths
        ]
    return [files.unstrip_protocol(name) for name in stores]


def exists(url: str, options: Mapping[str, Any] | None = None) -> bool:
    """Whether there is anything at ``url``."""
    files, path = file_system(url, options)
    return bool(files.exists(path))


def names(url: str, options: Mapping[str, Any] | None = None) -> Iterator[str]:
    """The names of all files with bytes in them below ``url``, relative to it, by one listing."""
    files, path = file_system(url, options)
    base = files._strip_protocol(path).rstrip("/") + "/"
    for name, about in files.find(path, detail=True).items():
        # a server that does not tell sizes tells None
        if about.get("size") != 0:
            yield name.removeprefix(base)


@contextmanager
def as_os_errors() -> Iterator[None]:
    """Turn errors of the packages below fsspec into OSError.

    So they are reported for a file like any other.

    There are as many bases of errors as there are protocols: aiohttp's, botocore's, google's,
    azure's, paramiko's, zipfile's. What they have in common: neither Python nor numpy, zarr or this
    package defines them.
    """
    try:
        yield
    except BaseException as error:
        if not _is_of_a_back_end(error):
            raise
        raise OSError(f"{type(error).__name__}: {error}") from error


def _is_of_a_back_end(error: BaseException) -> bool:
    package = type(error).__module__.partition(".")[0]
    return (
        isinstance(error, Exception)
        and not isinstance(error, OSError)
        and package not in _NO_BACK_ENDS
    )


def file_system(url: str, options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """The file system of fsspec that a URL names, and the path in it."""
    try:
        import fsspec
    except ImportError:
        raise MissingPackageError(
            f"reading {url} needs fsspec: pip install '.[remote]' in the clone of globidx"
        ) from None
    try:
        with as_os_errors():
            files, path = fsspec.core.url_to_fs(url, **(options or {}))
    except ImportError as error:
        raise MissingPackageError(f"reading {url} needs more than fsspec: {error}") from None
    except ValueError as error:
        raise NoFilesError(f"{url} names no place that fsspec knows: {error}") from None
    except FileNotFoundError as error:
        raise NoFilesError(f"there is nothing at {url}: {error}") from None
    except OSError as error:
        raise ReadError(f"{url} cannot be opened: {type(error).__name__}: {error}") from error
    return files, str(path)


def _is_store(files: Any, path: str) -> bool:
    return any(files.exists(f"{path}/{marker}") for marker in ZARR_MARKERS)
