"""What happened to the files of an index between two scans."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from globidx.core.index.table import Table


@dataclass(frozen=True)
class Changes:
    """The names of files, by what happened to them. False if nothing did.

    Parameters
    ----------
    appended, inserted : tuple of str
        New files, after all files that were there before, or between them.
    grown, shrunk : tuple of str
        Files with more items, or with fewer.
    replaced : tuple of str
        Files with as many items, but other metadata or another inode.
    rewritten : tuple of str
        Files with as many items that were written to.
    removed : tuple of str
        Files that are gone.
    renamed : tuple of (str, str)
        The old and the new name of a file that is the same.
    moved : tuple of str
        Files that have another rank in the order of files.
    keep_ids : bool
        Whether every sample id is still the same item of the file of that name. The data of the
        item may be new where the file was replaced or rewritten.

    Examples
    --------
    >>> changes = Changes(appended=("d.zarr", "e.zarr"))
    >>> bool(changes), changes.keep_ids
    (True, True)
    >>> print(changes)
    appended: 'd.zarr', 'e.zarr'
    """

    appended: tuple[str, ...] = ()
    inserted: tuple[str, ...] = ()
    grown: tuple[str, ...] = ()
    shrunk: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    moved: tuple[str, ...] = ()
    keep_ids: bool = True

    @property
    def by_kind(self) -> dict[str, list[str]]:
        """The names by what happened to them; renamed files as ``old -> new``."""
        lists = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name != "keep_ids"
        }
        return {
            what: [name if isinstance(name, str) else " -> ".join(name) for name in names]
            for what, names in lists.items()
        }

    def __bool__(self) -> bool:
        return any(self.by_kind.values())

    def __str__(self) -> str:
        lists = []
        for what, names in self.by_kind.items():
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                lists.append(f"{what}: {', '.join(ascii(name) for name in names[:3])}{more}")
        return "; ".join(lists) or "nothing changed"


def compare(old: Table, new: Table) -> Changes:
    """Return what changed from ``old`` to ``new``."""
    # nearly always all names are the same: only those behind the first difference become strings
    same = min(old.names.shared_with(new.names), len(old), len(new))
    before = {name: same + row for row, name in enumerate(old.names[same:])}
    after = {name: same + row for row, name in enumerate(new.names[same:])}
    kept = [(before[name], row) for name, row in after.items() if name in before]
    gone = {name: row for name, row in before.items() if name not in after}
    come = {name: row for name, row in after.items() if name not in before}
    renamed = _renamed(old, new, gone, come)
    for one, other in renamed:
        del gone[one], come[other]
    # appended is what comes behind every file that was there before
    last = max((row for name, row in after.items() if name not in come), default=same - 1)
    changed: dict[str, list[str]] = {}
    for name, row in come.items():
        changed.setdefault("appended" if row > last else "inserted", []).append(name)
    for was, row in [(row, row) for row in _differing(old, new, same)] + kept:
        what = _kind(old, was, new, row)
        if what is not None:
            changed.setdefault(what, []).append(new.names[row])
    changed["moved"] = [
        new.names[row]
        for (was, row), (above, _) in zip(kept[1:], kept, strict=False)
        if was < above
    ]
    lists = {what: tuple(names) for what, names in changed.items()}
    return Changes(
        **lists, removed=tuple(gone), renamed=tuple(renamed), keep_ids=_keep_ids(old, new, same)
    )


def _keep_ids(old: Table, new: Table, same: int) -> bool:
    """Return whether ``new`` begins with the files of ``old`` that have items.

    Each must have as many items as before; the last one may have more. ``same`` is how many first
    names are equal.
    """
    rows, now = (
        np.flatnonzero(old.lengths),
        np.flatnonzero(new.lengths)[: np.count_nonzero(old.lengths)],
    )
    if len(now) < len(rows):
        return False
    before, after = old.lengths[rows], new.lengths[now]
    if (before[:-1] != after[:-1]).any() or (before[-1:] > after[-1:]).any():
        return False
    other = (rows != now) | (rows >= same)
    return all(
        old.names[one] == new.names[two] for one, two in zip(rows[other], now[other], strict=True)
    )


def _differing(old: Table, new: Table, count: int) -> list[int]:
    """Return which of the first ``count`` files, whose names are equal, differ.

    They may in length, digest or stamp.
    """
    differs = (old.lengths[:count] != new.lengths[:count]) | (
        old.digests[:count] != new.digests[:count]
    ).any(axis=1)
    # a file that was rewritten alike has the same metadata and another stamp
    differs |= (old.stamps[:count, 0] != new.stamps[:count, 0]).any(axis=1)
    return [int(row) for row in np.flatnonzero(differs)]


def _kind(old: Table, one: int, new: Table, two: int) -> str | None:
    before, after = int(old.lengths[one]), int(new.lengths[two])
    if before != after:
        return "grown" if after > before else "shrunk"
    if (old.digests[one] != new.digests[two]).any():
        return "replaced"
    first, second = old.stamps[one, 0], new.stamps[two, 0]
    if first[3] and second[3] and first[3] != second[3]:
        return "replaced"
    # a stamp without times proves nothing, and so no change either
    proven = first[2] and second[2]
    return "rewritten" if proven and (first != second).any() else None


def _renamed(
    old: Table, new: Table, gone: dict[str, int], come: dict[str, int]
) -> list[tuple[str, str]]:
    """Return pairs of a removed and a new file that are the same.

    They are if inode, size, length and metadata are.
    """
    by_identity = {
        _identity(new, row): (name, row) for name, row in come.items() if new.stamps[row, 0, 3]
    }
    pairs = []
    for name, row in gone.items():
        other, there = by_identity.get(_identity(old, row), ("", -1))
        if there >= 0 and _as_old(old, row, new, there):
            pairs.append((name, other))
    return pairs


def _identity(table: Table, row: int) -> tuple[int, int, int, bytes]:
    size, _, _, inode = table.stamps[row, 0].tolist()
    return inode, size, int(table.lengths[row]), table.digests[row].tobytes()


def _as_old(old: Table, one: int, new: Table, two: int) -> bool:
    """Return whether two files have the same mtime, or an unknown one.

    The inode alone proves nothing: a file system gives that of a removed file to another one.
    """
    before, after = old.stamps[one, 0, 1], new.stamps[two, 0, 1]
    return bool(before == after or not before or not after)
