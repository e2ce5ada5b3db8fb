"""Two Python threads that decode beside one, with a GIL and without one; torch is not needed.

python tools/bench/free_threads.py [--items N] [--folder FOLDER]

Samples a second of a reader whose cache holds all its chunks or none, in batches of neighbours; the
cores that the threads had meanwhile; and what two do in a second of CPU beside what one does, which a
busy machine disturbs least. A free-threaded Python is measured both ways.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import read_data
from measure import count, table

from globidx import GlobalIndexManager
from globidx.disk.reading.batch import FieldSpec
from globidx.disk.reading.reader import Reader

LAYOUTS = ("zarr3 chunk 16", "hdf5 gzip", "hdf5 contiguous")
BATCH, SECONDS, TAKES = 64, 0.4, 10


def measured(folder: Path, layout: str, threads: int, *, is_kept: bool) -> tuple[float, float]:
    """Samples a second, and the cores in use, of the best of some seconds."""
    index = GlobalIndexManager(str(folder / layout.replace(" ", "-")), cache_dir=folder / "cache")
    reader = Reader(
        index,
        [FieldSpec(0)],
        max_open_files=None,
        cache_bytes=2**30 if is_kept else 0,
        on_missing="error",
        backend="auto",
    )
    reader.read_columns(range(len(index)))
    return max(_take(reader, len(index), threads) for _ in range(TAKES))


def _take(reader: Reader, length: int, threads: int) -> tuple[float, float]:
    read = [0] * threads
    batches = [range(start, start + BATCH) for start in range(0, length - BATCH + 1, BATCH)]
    start = threading.Barrier(threads + 1)

    def work(number: int) -> None:
        dice = random.Random(number)
        start.wait()
        end = perf_counter() + SECONDS
        while perf_counter() < end:
            reader.read_columns(dice.choice(batches))
            read[number] += BATCH

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    start.wait()
    began, cpu = perf_counter(), process_time()
    for thread in running:
        thread.join()
    took = perf_counter() - began
    return sum(read) / took, (process_time() - cpu) / took


def figures(folder: Path) -> dict[str, list[float]]:
    """By what is read: samples a second and cores, of one thread and of two."""
    found = {}
    for layout in LAYOUTS:
        for is_kept in (False, True) if layout != LAYOUTS[-1] else (False,):
            one, two = (measured(folder, layout, n, is_kept=is_kept) for n in (1, 2))
            name = f"{layout}, {'kept' if is_kept else 'decoded'}"
            found[name] = [*one, *two]
    return found


def with_gil(folder: Path, *, gil: bool) -> dict[str, list[float]]:
    """The figures of a process of its own."""
    command = [sys.executable, __file__, "--measure", "--folder", str(folder)]
    environment = os.environ | {"PYTHON_GIL": "1" if gil else "0"}
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        environment.pop("PYTHON_GIL")
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def told(gil: str, found: dict[str, list[float]]) -> list[list[str]]:
    """The rows of a table."""
    return [
        [
            name,
            gil,
            count(one),
            count(two),
            f"{two / one:.2f}",
            f"{busy:.2f} -> {both:.2f}",
            f"{two / both / (one / busy):.2f}",
        ]
        for name, (one, busy, two, both) in found.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=2048)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--measure", action="store_true", help="one process's part")
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(figures(options.folder)))
        return
    with TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        for layout in LAYOUTS:
            read_data.write(folder, layout, options.items)
        rows = [["samples/s", "GIL", "1 thread", "2 threads", "ratio", "cores", "for CPU"]]
        if sysconfig.get_config_var("Py_GIL_DISABLED"):
            rows += told("off", with_gil(folder, gil=False))
        rows += told("on", with_gil(folder, gil=True))
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(table(rows))


if __name__ == "__main__":
    main()
