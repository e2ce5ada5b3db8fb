"""The on-disk cache of an index.

A file that may be missing, old, torn or another's, and must never make the index wrong.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from globidx.core import tablefile
from globidx.core.table import Entry, Table
from globidx.disk.atomic import write_atomic
from globidx.disk.indexing import unchanged
from globidx.errors import RecordVersionError

_log = logging.getLogger("globidx")


class IndexCache:
    """One cache file.

    Whatever is read from it is proved file by file before use, so its name only has to find it again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._newer = False

    def load(self) -> Table | None:
        """The table in the file; None, with a line in the log, where there is none to use."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("index cache %s cannot be read, building without it: %s", self.path, error)
            return None
        try:
            return tablefile.decode(data)
        except RecordVersionError as error:
            self._newer = True
            _log.warning("index cache %s is left alone: %s", self.path, error)
        except ValueError as error:
            _log.warning("index cache %s is damaged and will be written anew: %s", self.path, error)
        return None

    def recall(self, paths: Sequence[str], root: str) -> list[Entry | None]:
        """What the cache knows of each path and the file's own stamp proves to be still so; None for the others."""
        table = self.load()
        rows = {} if table is None else {os.path.join(root, name): number for number, name in enumerate(table.names)}
        entries = (None if table is None or path not in rows else table.entry(rows[path]) for path in paths)
        return [
            entry if entry is not None and unchanged(path, entry) else None
            for path, entry in zip(paths, entries, strict=True)
        ]

    def save(self, table: Table) -> None:
        """Write the table, unless a newer globidx wrote the file.

        A cache that cannot be written is a line in the log, not an error.
        """
        if self._newer:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(
                self.path, tablefile.encode(table), durable=False
            )  # losing it costs a rebuild, a torn one is seen
        except OSError as error:
            _log.warning("index cache %s cannot be written, going on without: %s", self.path, error)


def cache_path(root: str, spec: str, keys: tuple[str, ...] | None, axis: int, cache_dir: Path | None) -> Path:
    """Where the cache of these files lies.

    In ``cache_dir``, else ``$GLOBIDX_CACHE_DIR``, else beside the data where that can be written, else in the user's
    cache folder. Beside the data its name does not depend on where the data is, so that it moves along.
    """
    told = cache_dir or os.environ.get("GLOBIDX_CACHE_DIR")
    beside = not told and os.access(root, os.W_OK)
    folder = Path(told) if told else Path(root) if beside else _user_cache()
    identity = repr((None if beside else root, spec, keys, axis))
    token = hashlib.blake2b(os.fsencode(identity), digest_size=8).hexdigest()
    return folder / f".globidx-{token}.index"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "globidx"
