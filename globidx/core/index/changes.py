"""What happened to the files of an index between two looks."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from globidx.core.index.table import Table


@dataclass(frozen=True)
class Changes:
    """File names, by what happened to them.

    ``appended`` stand behind all files that were there before, ``inserted`` between them; ``grown`` and ``shrunk`` have
    another number of items; ``replaced`` have as many items, but other metadata or another inode; ``rewritten`` were
    written to and have as many; ``renamed`` are pairs (old name, new name) of what is the same file; ``moved`` stand
    elsewhere in the order. ``keep_ids`` says whether every sample id is still the same item of the file of that name;
    what is in there may have changed where the file was replaced or rewritten.
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
        """The names by what happened to them, pairs as ``old -> new``."""
        lists = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "keep_ids"}
        return {
            what: [name if isinstance(name, str) else " -> ".join(name) for name in names]
            for what, names in lists.items()
        }

    def __bool__(self) -> bool:
        return any(self.by_kind.values())

    def __str__(self) -> str:
        told = []
        for what, names in self.by_kind.items():
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                told.append(f"{what}: {', '.join(ascii(name) for name in names[:3])}{more}")
        return "; ".join(told) or "nothing changed"


def compare(old: Table, new: Table) -> Changes:
    """What has to have happened for ``old`` to have become ``new``."""
    same = min(old.names.shared_with(new.names), len(old), len(new))
    before = {name: same + row for row, name in enumerate(old.names[same:])}
    after = {name: same + row for row, name in enumerate(new.names[same:])}
    kept = [(before[name], row) for name, row in after.items() if name in before]
    gone = {name: row for name, row in before.items() if name not in after}
    come = {name: row for name, row in after.items() if name not in before}
    renamed = _renamed(old, new, gone, come)
    for one, other in renamed:
        del gone[one], come[other]
    last = max((row for name, row in after.items() if name not in come), default=same - 1)
    told: dict[str, list[str]] = {}
    for name, row in come.items():
        told.setdefault("appended" if row > last else "inserted", []).append(name)
    for was, row in [(row, row) for row in _differing(old, new, same)] + kept:
        what = _kind(old, was, new, row)
        if what is not None:
            told.setdefault(what, []).append(new.names[row])
    told["moved"] = [new.names[row] for (was, row), (above, _) in zip(kept[1:], kept, strict=False) if was < above]
    lists = {what: tuple(names) for what, names in told.items()}
    return Changes(**lists, removed=tuple(gone), renamed=tuple(renamed), keep_ids=_keep_ids(old, new, same))


def _keep_ids(old: Table, new: Table, same: int) -> bool:
    """Whether the files of ``old`` that have items come first in ``new``, all as long as they were, the last at least.

    ``same`` is how many names the tables begin with together.
    """
    rows, now = np.flatnonzero(old.lengths), np.flatnonzero(new.lengths)[: np.count_nonzero(old.lengths)]
    if len(now) < len(rows):
        return False
    before, after = old.lengths[rows], new.lengths[now]
    if (before[:-1] != after[:-1]).any() or (before[-1:] > after[-1:]).any():
        return False
    other = (rows != now) | (rows >= same)
    return all(old.names[one] == new.names[two] for one, two in zip(rows[other], now[other], strict=True))


def _differing(old: Table, new: Table, count: int) -> list[int]:
    """Which of the first ``count`` files, whose names are the same, differ in anything that was noted of them."""
    differs = (old.lengths[:count] != new.lengths[:count]) | (old.digests[:count] != new.digests[:count]).any(axis=1)
    differs |= (old.stamps[:count, 0] != new.stamps[:count, 0]).any(axis=1)
    return [int(number) for number in np.flatnonzero(differs)]


def _kind(old: Table, one: int, new: Table, two: int) -> str | None:
    before, after = int(old.lengths[one]), int(new.lengths[two])
    if before != after:
        return "grown" if after > before else "shrunk"
    if (old.digests[one] != new.digests[two]).any():
        return "replaced"
    first, second = old.stamps[one, 0], new.stamps[two, 0]
    if first[3] and second[3] and first[3] != second[3]:
        return "replaced"
    proven = first[2] and second[2]
    return "rewritten" if proven and (first != second).any() else None


def _renamed(old: Table, new: Table, gone: dict[str, int], come: dict[str, int]) -> list[tuple[str, str]]:
    """Pairs of a file that is gone and one that came, which are the same by inode, length and metadata."""
    nameless = {_identity(new, number): (name, number) for name, number in come.items() if new.stamps[number, 0, 3]}
    pairs = [(name, number, nameless.get(_identity(old, number))) for name, number in gone.items()]
    return [(name, other[0]) for name, number, other in pairs if other and _as_old(old, number, new, other[1])]


def _identity(table: Table, number: int) -> tuple[int, int, int, bytes]:
    size, _, _, inode = table.stamps[number, 0].tolist()
    return inode, size, int(table.lengths[number]), table.digests[number].tobytes()


def _as_old(old: Table, one: int, new: Table, two: int) -> bool:
    """Whether two files have one mtime, as far as it is known: the inode of a file that is gone is given to another."""
    before, after = old.stamps[one, 0, 1], new.stamps[two, 0, 1]
    return bool(before == after or not before or not after)
