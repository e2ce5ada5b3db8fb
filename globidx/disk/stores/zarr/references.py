"""Reference sets of kerchunk and VirtualiZarr: zarr stores whose chunks are parts of other files.

One is a JSON file, or a folder of Parquet files. fsspec reads them; the extra ``kerchunk`` brings
what it needs.

https://fsspec.github.io/kerchunk/spec.html
"""

from __future__ import annotations

import glob
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from typing import Any

from globidx.errors import MissingPackageError

#: How a JSON file of references begins, whatever comes first in it.
_BEGINS = re.compile(rb'\s*\{\s*"(version"\s*:\s*1\b|refs"|templates"|gen")')
_SNIFFED = 256


def is_json(path: str) -> bool:
    """Whether a file begins as a JSON file of references does."""
    with open(path, "rb") as file:
        return _BEGINS.match(file.read(_SNIFFED)) is not None


def is_parquet(folder: str) -> bool:
    """Whether a folder holds references in Parquet files."""
    return os.path.isfile(f"{folder}/.zmetadata") and bool(
        glob.glob(f"{glob.escape(folder)}/**/refs.*.parq*", recursive=True)
    )


def file_system(path: str, options: Mapping[str, Any] | None, *, allow_external: bool) -> Any:
    """The file system of fsspec in which the keys of the store are files.

    Parameters
    ----------
    path : str
        The JSON file, or the folder of Parquet files.
    options : mapping, optional
        Options of ``ReferenceFileSystem``, such as ``remote_protocol`` and ``remote_options``.
    allow_external : bool
        Whether chunks may lie outside the folder that holds ``path``, and in stores by URL.

    Raises
    ------
    ValueError
        If a chunk lies where it may not, or the file holds no references.
    MissingPackageError
        If fsspec, or a package that it needs, is not installed.
    """
    is_folder = os.path.isdir(path)
    options = dict(options or {})
    # as zarr asks: of file systems that know how, and the others take it for nothing
    options["remote_options"] = {"asynchronous": True, **options.get("remote_options", {})}
    try:
        from fsspec.implementations.reference import ReferenceFileSystem

        references = path if is_folder else _loaded(path)
        if not allow_external:
            targets = _parquet_targets(path) if is_folder else _targets(references)
            _refuse_outside(path, targets, options)
        return ReferenceFileSystem(
            fo=references, asynchronous=True, skip_instance_cache=True, **options
        )
    except ImportError as error:
        raise MissingPackageError(
            f"{path} holds references of kerchunk, and reading them needs more than is installed ({error}): "
            "pip install '.[kerchunk]' in the clone of globidx"
        ) from None


def are_inline(path: str) -> bool:
    """Whether all metadata of a store is in the file of references itself, so that its stamp proves it."""
    if os.path.isdir(path):
        return True
    refs = _loaded(path)["refs"]
    return all(
        isinstance(value, (str, dict))
        for key, value in refs.items()
        if key.rpartition("/")[2] in (".zarray", ".zgroup", ".zattrs", "zarr.json")
    )


def _loaded(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no regular file; it is not opened")
        try:
            value = json.load(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"its references are no JSON: {error}") from error
    if not isinstance(value, dict) or not isinstance(value.get("refs"), dict):
        raise ValueError('it is JSON without "refs", so it holds no references of kerchunk')
    return value


def _targets(references: Any) -> Iterable[str]:
    """The files and URLs that chunks are parts of."""
    if references.get("gen") or references.get("templates"):
        # they are written by a program in the file, and known once that has run
        from fsspec.implementations.reference import ReferenceFileSystem

        written = ReferenceFileSystem(fo=references, asynchronous=True, skip_instance_cache=True)
        refs = written.references
    else:
        refs = references["refs"]
    for key, value in refs.items():
        if isinstance(value, (list, tuple)):
            if not value or not isinstance(value[0], str):
                raise ValueError(f"its reference {key!r} is {value!r:.80}, which names no file")
            yield value[0]


def _parquet_targets(folder: str) -> Iterable[str]:
    import pandas

    for file in sorted(glob.glob(f"{glob.escape(folder)}/**/refs.*.parq*", recursive=True)):
        # the engine that fsspec takes
        paths = pandas.read_parquet(file, columns=["path"], engine="fastparquet")["path"]
        yield from (path for path in paths.dropna().unique() if path)


def _refuse_outside(path: str, targets: Iterable[str], options: Mapping[str, Any]) -> None:
    from fsspec.implementations.local import LocalFileSystem

    folder = os.path.join(os.path.realpath(os.path.dirname(os.path.abspath(path))), "")
    is_far = options.get("remote_protocol", "file") not in ("file", "local")
    for target in dict.fromkeys(targets):
        scheme, _, behind = target.partition("://")
        is_url = bool(behind) and scheme not in ("file", "local")
        # as fsspec will open it; a link in the folder may lead out of it
        real = os.path.realpath(LocalFileSystem._strip_protocol(target))
        if is_far or is_url or "::" in target or not real.startswith(folder):
            raise ValueError(
                f"its references lead to {target!r}, which lies outside the folder of {path}; "
                "if you trust the file, pass allow_external=True to GlobalIndexManager (--allow-external)"
            )
        if os.path.exists(real) and not os.path.isfile(real):
            raise ValueError(
                f"its references lead to {target!r}, which is no regular file; it is not opened"
            )
