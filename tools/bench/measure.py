"""What the benchmarks share: measurements in fresh processes, memory as the kernel counts it, tables."""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

#: How long passes are repeated, in seconds: the best of them was disturbed least.
_SECONDS = 3.0


def fresh_process(script: Path, *arguments: object) -> dict:
    """The JSON that ``script`` prints last, run in a process of its own, so that no measurement warms up another."""
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(
            f"{script.name} {' '.join(map(str, arguments))} failed with exit code {done.returncode}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def missing(modules: Sequence[str]) -> list[str]:
    """Which of these top-level modules cannot be imported here: their contestants sit out."""
    return [module for module in modules if find_spec(module) is None]


def memory(what: str) -> int:
    """Bytes of this process: ``VmRSS``, resident now, or ``VmHWM``, the most that ever were.

    ``ru_maxrss`` is not asked: a child begins with its parent's.
    """
    line = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(what + ":")
    )
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    """Let ``VmHWM`` start again from what is resident now, so that a peak while importing hides no later one."""
    Path("/proc/self/clear_refs").write_text("5")


def median(values: Sequence[float | None]) -> float | None:
    """The median; None where there is nothing to measure."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def rate(batches: Iterable[Any], size: Callable[[Any], int] = len) -> float:
    """Items a second from the first batch on, ``size`` of each, of the best pass of some seconds."""
    best, end = 0.0, perf_counter() + _SECONDS
    while not best or perf_counter() < end:
        stream = iter(batches)
        next(stream)
        start, items = perf_counter(), sum(map(size, stream))
        best = max(best, items / (perf_counter() - start))
    return best


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the first one the heading, as aligned columns: the first to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(w) if not at else cell.rjust(w)
            for at, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def seconds(value: float | None) -> str:
    """A duration, as one reads it."""
    if value is None:
        return "-"
    for unit, size in (("s ", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.3g} us"


def count(value: float | None) -> str:
    """A number with a suffix for its thousands."""
    if value is None:
        return "-"
    for suffix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def mebibytes(value: float | None) -> str:
    """Bytes in MiB."""
    return "-" if value is None else f"{value / 2**20:.1f}"


def power(n: int) -> str:
    """A number of samples, short where it is a power of ten."""
    zeros = len(str(n)) - 1
    return f"10^{zeros}" if n == 10**zeros else str(n)
