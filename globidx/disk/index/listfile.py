"""List files: a text file with a path a line, or a table with a column of them."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

from globidx.disk.files.paths import is_remote
from globidx.disk.stores import base as stores
from globidx.errors import NoFilesError

_TABLES = (".csv", ".tsv")
_HEADINGS = frozenset({"path", "file", "filename", "file_path", "filepath"})


def read_list(path: Path) -> list[str]:
    """Paths from a list file.

    One a line, or the first column, or the one headed ``path`` or ``file``; relative ones count
    from the list file.
    """
    try:
        # a byte order mark is no part of the first name, and a name need not be text
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise NoFilesError(f"the list file {path} cannot be read: {error}") from None
    if stores.is_zip(path):
        try:
            stores.format_of(path)
        except ValueError as error:
            raise NoFilesError(f"{path} cannot be read: {error}") from None
    if "\0" in text:
        raise NoFilesError(
            f"{path} is neither a zarr store, an HDF5 file, nor a text file with a path a line"
        )
    _refuse_json(path, text)
    rows = _rows(path, text)
    if not rows:
        raise NoFilesError(f"the list file {path} names no file")
    column = next(
        (index for index, cell in enumerate(rows[0]) if cell.strip().lower() in _HEADINGS), None
    )
    # in a plain list the first line may be a file called "path"
    is_headed = column is not None and path.suffix.lower() in _TABLES
    names = [
        row[column or 0 : (column or 0) + 1] if is_headed else row[:1]
        for row in rows[int(is_headed) :]
    ]
    empty = [row for row, cell in enumerate(names) if not cell or not cell[0].strip()]
    if empty:
        raise NoFilesError(
            f"the list file {path} names no file in its entry {empty[0] + 1}; every row needs a path"
        )
    if not names:
        raise NoFilesError(f"the list file {path} names no file")
    listed = (cell[0].strip() for cell in names)
    return [name if is_remote(name) else os.path.join(path.parent, name) for name in listed]


def _refuse_json(path: Path, text: str) -> None:
    """NoFilesError where the file is JSON, as references of kerchunk are.

    Its lines are no paths.
    """
    begins = text.lstrip()[:1] in ("{", "[")
    if path.suffix.lower() != ".json" and not begins:
        return
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        if path.suffix.lower() != ".json":
            # a name may begin with a bracket
            return
        value = None
    if isinstance(value, dict) and ("refs" in value or ".zgroup" in value):
        raise NoFilesError(
            f"{path} holds references of kerchunk of an old version, which are not read; write them as version 1 "
            '({"version": 1, "refs": ...}), or name the stores that they refer to'
        )
    raise NoFilesError(
        f"{path} is JSON, and a list file is text or CSV with a path a line; write the paths so"
    )


def _rows(path: Path, text: str) -> list[list[str]]:
    """The cells of each line, those of empty lines and comments left out."""
    suffix = path.suffix.lower()
    if suffix in _TABLES:
        try:
            rows = list(
                csv.reader(
                    io.StringIO(text, newline=""), delimiter="\t" if suffix == ".tsv" else ","
                )
            )
        except csv.Error as error:
            raise NoFilesError(
                f"the list file {path} is no {suffix[1:].upper()}: {error}"
            ) from None
    else:
        # a comma may be part of a name
        rows = [[line] for line in text.split("\n")]
    return [
        row
        for row in rows
        if any(cell.strip() for cell in row) and not row[0].lstrip().startswith("#")
    ]
