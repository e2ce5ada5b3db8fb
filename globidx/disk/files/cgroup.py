"""How much memory a process may still have: of its machine, and of the control groups that it is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_PROC, _MOUNTED = Path("/proc"), Path("/sys/fs/cgroup")


class _Names(NamedTuple):
    """How a version of control groups calls the files of a group, and its page cache."""

    most: str
    used: str
    cached: tuple[str, ...]


_V2 = _Names("memory.max", "memory.current", ("inactive_file", "active_file"))
_V1 = _Names(
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)


def free_memory() -> int:
    """The bytes that this process may still have without another one going.

    Of what the control groups bound, also those above its own. The page cache counts as free, as it
    does for the machine: it goes when there is need for room.
    """
    free = 1024 * _told(_PROC / "meminfo", ":")["MemAvailable"]
    for group, names in _groups():
        # "max" where there is no bound
        with suppress(OSError, ValueError):
            most, used = (int((group / name).read_text()) for name in (names.most, names.used))
            cached = _told(group / "memory.stat", " ")
            free = min(free, most - used + sum(cached.get(name, 0) for name in names.cached))
    return max(0, free)


def _groups() -> Iterator[tuple[Path, _Names]]:
    """The groups of this process that may bound its memory, and those above them."""
    with suppress(OSError):
        for line in (_PROC / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            top, names = (_MOUNTED / "memory", _V1) if controllers else (_MOUNTED, _V2)
            # in a container its own group is mounted, and a path from outside leads nowhere
            own = PurePosixPath(path.lstrip("/"))
            yield from ((top / group, names) for group in (own, *own.parents))


def _told(path: Path, separator: str) -> dict[str, int]:
    """The numbers of a file of names and numbers, in its units."""
    lines = (line.split(separator, 1) for line in path.read_text().splitlines())
    return {name: int(rest.split()[0]) for name, rest in lines}
