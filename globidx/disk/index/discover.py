"""Finds the files that a user names.

A directory, a glob, a list of paths, or a text or CSV file with a path a line; or the same by URL.
"""

from __future__ import annotations

import errno
import glob
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from globidx.core.index.names import Names
from globidx.disk.files.paths import Paths, is_remote, split_chain
from globidx.disk.index.listfile import read_list
from globidx.disk.remote import addresses
from globidx.disk.stores import base as stores
from globidx.disk.stores import remote
from globidx.errors import NoFilesError

_log = logging.getLogger("globidx")
_SUFFIXES_SHOWN = 8
#: Zip files may hold a zarr store; what is in them decides.
_ZIP = ".zip"
_PROTOCOL = re.compile(r"(?:^|(?<=::))[A-Za-z][A-Za-z0-9+.-]*(?=://)")
_DIGITS = re.compile(rb"\d+")


def absolute_names(files: Any) -> str | Sequence[str]:
    """One name or a list of paths, made absolute, since the working folder may change."""
    if isinstance(files, (str, os.PathLike)):
        return _absolute(_path(files))
    if isinstance(files, Iterable) and not isinstance(files, (bytes, dict)):
        return Names.of(_absolute(_path(path)) for path in files)
    raise TypeError(
        f"files must be a directory, a glob, a list of paths or a list file, got {type(files).__name__}"
    )


def find_files(files: Any, storage_options: Mapping[str, Any] | None = None) -> Paths:
    """Absolute paths of the files; ``storage_options`` are fsspec's, for URLs.

    Directories and globs come sorted by their bytes, lists in the order given. NoFilesError where
    nothing matches; ValueError where a list names a path twice, or local paths and URLs together.
    """
    named = absolute_names(files)
    if isinstance(named, str) and not is_remote(named):
        passed: Counter[str] = Counter()
        paths = Paths.of(_named(os.fsencode(named), passed))
        over = f"; passed over {_counted(passed)}" if passed else ""
        if not len(paths):
            raise NoFilesError(f"no zarr store or HDF5 file below the directory {named}{over}")
        if passed:
            _log.info("%s: %d files taken%s", named, len(paths), over)
        return paths
    listed = remote.find(named, storage_options) if isinstance(named, str) else list(named)
    if not listed:
        raise NoFilesError("the list of files is empty; pass at least one path")
    return Paths.of(_listed(listed))


def count_by_suffix(paths: Iterable[str]) -> str:
    """How many paths there are of each suffix, in words.

    >>> count_by_suffix(["a/b.txt", "c.json", "d.TXT", "README"])
    '2 .txt, 1 .json, 1 without a suffix'
    """
    return _counted(Counter(map(_suffix, paths)))


def _counted(suffixes: Counter[str]) -> str:
    shown = sorted(suffixes.items(), key=lambda item: (-item[1], not item[0], item[0]))[
        :_SUFFIXES_SHOWN
    ]
    parts = [f"{count} {suffix or 'without a suffix'}" for suffix, count in shown]
    more = suffixes.total() - sum(count for _, count in shown)
    return ", ".join(parts) + (f" and {more} others" if more else "")


def _suffix(path: str) -> str:
    suffix = os.path.splitext(path)[1].lower()
    return suffix if suffix.isprintable() and len(suffix) <= 16 else ""


def _named(path: bytes, passed: Counter[str]) -> Iterable[bytes]:
    name = os.fsdecode(path)
    if _is_store(Path(name)):
        return [path]
    if stores.is_n5(Path(name)):
        raise NoFilesError(f"{name} is an N5 container, which is not read; {stores.FROM_N5}")
    if os.path.isdir(path):
        stores_found = list(_stores_below(path, set(), passed))
        _refuse_side_by_side(stores_found)
        return stores_found
    if os.path.isfile(path):
        return _listed(read_list(Path(name)))
    if os.path.lexists(path):
        raise NoFilesError(f"{name} is neither a regular file nor a directory")
    if not glob.has_magic(name):
        raise NoFilesError(f"there is no file or directory {name}")
    matches = _matches(name)
    if not matches:
        raise NoFilesError(f"no file matches {name}")
    return [os.fsencode(os.path.abspath(match)) for match in matches]


def _listed(names: Sequence[str]) -> list[bytes]:
    """The paths of a list; each may stand in it once."""
    remote = sum(map(is_remote, names))
    if remote not in (0, len(names)):
        raise ValueError(
            f"{remote} of {len(names)} files are URLs; an index is over local paths or over URLs, not both"
        )
    paths = [os.fsencode(_absolute(name)) for name in names]
    # each sample would be read twice in an epoch, under two ids
    if len(set(paths)) < len(paths):
        twice = next(path for path, count in Counter(paths).items() if count > 1)
        raise ValueError(
            f"{os.fsdecode(twice)} and {os.fsdecode(twice)} are the same file; name each file once"
        )
    return paths


def _matches(pattern: str) -> list[str]:
    """What a glob matches, with ``**`` walked by ourselves.

    glob's own follows links in circles, two of them for ever.
    """
    head, stars, tail = pattern.partition("**")
    if not stars or (head and not head.endswith("/")) or (tail and not tail.startswith("/")):
        # by bytes: the order must not depend on a locale or a file system
        return sorted(glob.glob(pattern), key=os.fsencode)
    bases = glob.glob(head) if head else ["."]
    folders = (folder for base in bases if os.path.isdir(base) for folder in _folders(base))
    rest = tail.lstrip("/") or "*"
    matches = (
        match for folder in folders for match in _matches(os.path.join(glob.escape(folder), rest))
    )
    return sorted(set(matches), key=os.fsencode)


def _is_store(path: Path) -> bool:
    try:
        stores.format_of(path)
    except (OSError, stores.UnknownKindError):
        return False
    except ValueError:
        # a damaged one, which the scan tells by its name
        return True
    return True


def _stores_below(
    folder: bytes, seen: set[tuple[int, int]], passed: Counter[str]
) -> Iterator[bytes]:
    """Every zarr store and HDF5 file in a tree, sorted by the bytes of their paths.

    Hidden ones are left out.

    Files are taken by their suffix, so that a folder costs no more than listing it; ``passed``
    counts the others.

    Links are followed, but no folder is entered twice.
    """
    if _seen_before(folder, seen):
        return
    entries, base = [], os.path.join(folder, b"")
    # a folder that cannot be listed must not be one without files
    with os.scandir(folder) as listing:
        for entry in listing:
            name = entry.name
            if name.startswith(b"."):
                continue
            if _is_folder(entry):
                entries.append(name if _looks_like_store(entry.path) else name + b"/")
            elif name.endswith(b".zarr") or _looks_like_file(name):
                # also if it is a broken link: opening it raises
                entries.append(name)
            else:
                passed[_suffix(os.fsdecode(name))] += 1
    _refuse_packed_twice(folder, entries)
    # a folder sorts with its "/", so that the whole tree is sorted
    for name in sorted(entries):
        if name.endswith(b"/"):
            yield from _stores_below(base + name[:-1], seen, passed)
        else:
            yield base + name


def _refuse_packed_twice(folder: bytes, names: Sequence[bytes]) -> None:
    """NoFilesError where a store lies beside a zip file of its name, as when it was unpacked.

    Its samples would be trained on twice.
    """
    zips = {name for name in names if name.endswith(b".zip")}
    for name in names:
        if name + b".zip" in zips:
            both = " and ".join(os.fsdecode(one) for one in (name, name + b".zip"))
            raise NoFilesError(
                f"{os.fsdecode(folder)} holds {both}, which seem to be one store, unpacked and packed; "
                "name the one to read, by a glob or a list"
            )


def _refuse_side_by_side(stores: Sequence[bytes]) -> None:
    """NoFilesError where arrays of one folder look like the arrays of one store.

    No group's metadata binds them.

    ``images`` and ``labels`` would be read one after the other, as two files. Numbered names are
    those of files, and so are names that end with ``.zarr``; of the others, one of each kind of
    name is looked into.
    """
    named: dict[tuple[bytes, bytes], bytes] = {}
    folders: Counter[bytes] = Counter()
    for path in stores:
        folder, _, name = path.rpartition(b"/")
        kind = _DIGITS.sub(b"0", name)
        if b"." not in name and (folder, kind) not in named:
            named[folder, kind] = path
            folders[folder] += 1
    arrays: dict[bytes, list[str]] = {}
    for (folder, _), path in named.items():
        if folders[folder] > 1 and _is_bare_array(path):
            arrays.setdefault(folder, []).append(os.path.basename(os.fsdecode(path)))
    for folder, names in arrays.items():
        if len(names) > 1:
            shown = ", ".join(map(repr, names[:8]))
            raise NoFilesError(
                f"{os.fsdecode(folder)} holds zarr arrays {shown} side by side and no metadata of a group, so they may "
                "be one store, whose arrays would be read as files one after the other; if they are one store, write "
                "its metadata (zarr.open_group), and if they are files, pass a glob or a list of them"
            )


def _is_bare_array(path: bytes) -> bool:
    try:
        with open(path + b"/zarr.json", "rb") as file:
            metadata = json.load(file)
    except (OSError, ValueError, RecursionError):
        return os.path.exists(path + b"/.zarray")
    return isinstance(metadata, dict) and metadata.get("node_type") == "array"


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        # a link in a circle leads to no folder
        return False


def _folders(directory: str) -> Iterator[str]:
    """A folder and all below it, each once; links are followed, hidden folders are left out."""
    seen: set[tuple[int, int]] = set()
    for folder, subfolders, _ in os.walk(directory, onerror=_raise, followlinks=True):
        if _seen_before(folder, seen):
            subfolders.clear()
            continue
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield folder


def _seen_before(folder: bytes | str, seen: set[tuple[int, int]]) -> bool:
    status = os.stat(folder)
    # links may lead in a circle, or to one folder by two names
    identity = status.st_dev, status.st_ino
    known = identity in seen
    seen.add(identity)
    return known


def _raise(error: OSError) -> None:
    # a folder that cannot be listed must not be one without files
    raise error


def _looks_like_store(path: bytes) -> bool:
    return (
        path.endswith(b".zarr")
        or any(os.path.exists(path + b"/" + marker) for marker in _MARKERS)
        or stores.is_elsewhere(os.fsdecode(path)) is not None
        # no store, but a thing in itself, with thousands of folders in it: told, and not entered
        or stores.is_n5(Path(os.fsdecode(path)))
    )


def _looks_like_file(name: bytes) -> bool:
    return name[name.rfind(b".") :].lower() in _SUFFIXES


def _path(item: Any) -> str:
    if not isinstance(item, (str, os.PathLike)):
        raise TypeError(f"files must be paths, got {item!r} ({type(item).__name__})")
    path = os.fspath(item)
    if not isinstance(path, str):
        raise TypeError(f"files must be paths of str, got {path!r}")
    if "\0" in path:
        raise ValueError(f"files must be paths, got {path!r}: no path has a zero byte in it")
    return path


def _absolute(path: str) -> str:
    if not is_remote(path):
        return os.path.abspath(path)
    addresses.refuse_secrets(path)
    # protocols may be written in capitals, and no package knows them so
    head, inner, behind = split_chain(_PROTOCOL.sub(lambda found: found[0].lower(), path))
    return head + inner.rstrip("/") + behind.rstrip("/")


_MARKERS = tuple(os.fsencode(marker) for marker in stores.ZARR_MARKERS)
_SUFFIXES = frozenset(
    os.fsencode(suffix) for suffix in stores.HDF5_SUFFIXES | stores.MIXED_SUFFIXES | {_ZIP}
)
