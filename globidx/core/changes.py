"""What happened to the files of an index between two looks."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from globidx.core.table import Table


@dataclass(frozen=True)
class Changes:
    """File names, by what happened to them.

    ``appended`` stand behind all files that were there before, ``inserted`` between them; ``grown`` and ``shrunk`` have
    another number of items; ``replaced`` have as many items, but other metadata or another inode; ``rewritten`` were
    written to and have as many; ``renamed`` are pairs (old name, new name) of what is the same file; ``moved`` stand
    elsewhere in the order.
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

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))

    @property
    def keep_ids(self) -> bool:
        """Whether every sample id still means the same item of the same file: nothing but new files behind the others,
        or files written to that kept their number of items."""
        return not any(getattr(self, field.name) for field in fields(self) if field.name not in _HARMLESS)

    def __str__(self) -> str:
        told = []
        for field in fields(self):
            names = [" -> ".join((name,) if isinstance(name, str) else name) for name in getattr(self, field.name)]
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                told.append(f"{field.name}: {', '.join(ascii(name) for name in names[:3])}{more}")
        return "; ".join(told) or "nothing changed"


_HARMLESS = ("appended", "rewritten")


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
    return Changes(**{what: tuple(names) for what, names in told.items()}, removed=tuple(gone), renamed=tuple(renamed))


def _differing(old: Table, new: Table, count: int) -> list[int]:
    """Which of the first ``count`` files, whose names are the same, differ in anything that was noted of them."""
    differs = (old.lengths[:count] != new.lengths[:count]) | (old.digests[:count] != new.digests[:count]).any(axis=1)
    if old.stamps.shape[1:] == new.stamps.shape[1:]:
        differs |= (old.stamps[:count] != new.stamps[:count]).any(axis=(1, 2))
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
    nameless = {_identity(new, number): name for name, number in come.items()}
    pairs = ((name, nameless.pop(_identity(old, number), None)) for name, number in gone.items())
    return [(name, other) for name, other in pairs if other is not None]


def _identity(table: Table, number: int) -> tuple[int, int, bytes]:
    return int(table.stamps[number, 0, 3]), int(table.lengths[number]), table.digests[number].tobytes()
