"""From what a user names to a list of files.

A directory, a glob, a list of paths, or a text or CSV file with a path a line.
"""

from __future__ import annotations

import csv
import glob
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from globidx.core.table import Names
from globidx.disk import stores
from globidx.errors import NoFilesError

_TABLES = (".csv", ".tsv")
_HEADINGS = frozenset({"path", "file", "filename", "file_path", "filepath"})


def given(files: Any) -> str | Sequence[str]:
    """What a user gave, as it is kept: one name, or a list of paths, absolute, since the working folder may change."""
    if isinstance(files, (str, os.PathLike)):
        return os.path.abspath(_path(files))
    if isinstance(files, Iterable) and not isinstance(files, (bytes, dict)):
        return Names.of(os.path.abspath(_path(path)) for path in files)
    raise TypeError(f"files must be a directory, a glob, a list of paths or a list file, got {type(files).__name__}")


def find_files(files: Any) -> list[str]:
    """Absolute paths of the files, each once.

    Directories and globs come sorted by their bytes, lists in the order given. NoFilesError where nothing matches;
    ValueError where a file is named twice.
    """
    named = given(files)
    found = _named(named) if isinstance(named, str) else named
    if not found:
        raise NoFilesError("the list of files is empty")
    absolute = [os.path.abspath(path) for path in found]
    _refuse_repeats(absolute)
    return absolute


def _named(name: str) -> list[str]:
    path = Path(name)
    if _is_store(path):
        return [name]
    if path.is_dir():
        found = sorted(_stores_below(path), key=os.fsencode)
        if not found:
            raise NoFilesError(f"no zarr store or HDF5 file below the directory {name}")
        return found
    if path.is_file():
        return _listed(path)
    if os.path.lexists(path):
        raise NoFilesError(f"{name} is neither a regular file nor a directory")
    if not glob.has_magic(name):
        raise NoFilesError(f"there is no file or directory {name}")
    matches = _matches(name)
    if not matches:
        raise NoFilesError(f"no file matches {name}")
    return matches


def _matches(pattern: str) -> list[str]:
    """What a glob matches, ``**`` walked by ourselves: glob's own follows links in circles, two of them for ever."""
    head, stars, tail = pattern.partition("**")
    if not stars or (head and not head.endswith("/")) or (tail and not tail.startswith("/")):
        return sorted(glob.glob(pattern), key=os.fsencode)
    bases = glob.glob(head) if head else ["."]
    folders = (folder for base in bases if os.path.isdir(base) for folder, _, _ in _walk(base))
    rest = tail.lstrip("/") or "*"
    found = (match for folder in folders for match in _matches(os.path.join(glob.escape(folder), rest)))
    return sorted(set(found), key=os.fsencode)


def _is_store(path: Path) -> bool:
    try:
        stores.module_name(path)
    except (OSError, stores.UnknownKindError):
        return False
    return True


def _stores_below(directory: Path) -> Iterator[str]:
    """Every zarr store and HDF5 file in a tree, hidden ones left out."""
    for folder, subfolders, names in _walk(directory):
        stores_here = [name for name in subfolders if _looks_like_store(Path(folder, name))]
        subfolders[:] = [name for name in subfolders if name not in stores_here]
        yield from (os.path.join(folder, name) for name in stores_here)
        yield from (os.path.join(folder, name) for name in names if _looks_like_hdf5(name))


def _walk(directory: str | Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """``os.walk``, each folder once: links are followed, but never in a circle, and hidden folders are left out."""
    seen: set[tuple[int, int]] = set()
    for folder, subfolders, names in os.walk(directory, onerror=_raise, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield folder, subfolders, names


def _raise(error: OSError) -> None:
    raise error  # a folder that cannot be listed must not be one without files


def _looks_like_store(path: Path) -> bool:
    return path.suffix == ".zarr" or any((path / marker).exists() for marker in stores.ZARR_MARKERS)


def _looks_like_hdf5(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in stores.HDF5_SUFFIXES


def _listed(path: Path) -> list[str]:
    """Paths from a list file.

    One a line, or the first column, or the one headed ``path`` or ``file``; relative ones count from the list file.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise NoFilesError(f"the list file {path} cannot be read: {error}") from None
    if "\0" in text:
        raise NoFilesError(f"{path} is neither a zarr store, an HDF5 file, nor a text file with a path a line")
    rows = _rows(path, text)
    if not rows:
        raise NoFilesError(f"the list file {path} names no file")
    column = next((place for place, cell in enumerate(rows[0]) if cell.strip().lower() in _HEADINGS), None)
    is_headed = column is not None and path.suffix.lower() in _TABLES  # in a plain list it may be a file of that name
    names = [row[column or 0 : (column or 0) + 1] if is_headed else row[:1] for row in rows[int(is_headed) :]]
    empty = [number for number, cell in enumerate(names) if not cell or not cell[0].strip()]
    if empty:
        raise NoFilesError(f"the list file {path} names no file in its entry {empty[0] + 1}; every row needs a path")
    if not names:
        raise NoFilesError(f"the list file {path} names no file")
    return [os.path.join(path.parent, cell[0].strip()) for cell in names]


def _rows(path: Path, text: str) -> list[list[str]]:
    """The cells of each line, those of empty lines and comments left out."""
    suffix = path.suffix.lower()
    if suffix in _TABLES:
        try:
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t" if suffix == ".tsv" else ","))
        except csv.Error as error:
            raise NoFilesError(f"the list file {path} is no {suffix[1:].upper()}: {error}") from None
    else:
        rows = [[line] for line in text.split("\n")]  # a comma may be part of a name
    return [row for row in rows if any(cell.strip() for cell in row) and not row[0].lstrip().startswith("#")]


def _path(item: Any) -> str:
    if not isinstance(item, (str, os.PathLike)):
        raise TypeError(f"files must be paths, got {item!r} ({type(item).__name__})")
    path = os.fspath(item)
    if not isinstance(path, str):
        raise TypeError(f"files must be paths of str, got {path!r}")
    return path


def _refuse_repeats(paths: Sequence[str]) -> None:
    """ValueError naming two paths of one file, under whatever names: its samples would be trained on twice."""
    first: dict[tuple[int, int] | str, str] = {}
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            identity: tuple[int, int] | str = path  # told later, with all other files that cannot be read
        else:
            identity = (status.st_dev, status.st_ino)
        if identity in first:
            raise ValueError(f"{path} and {first[identity]} are the same file; name each file once")
        first[identity] = path
