"""What parts of samples cost: the chunks and bytes that ranks of a mesh and readers of channels take, runs of bytes.

Also whether whole samples are read as fast as by another checkout.

    python tools/bench/parts.py mesh
    python tools/bench/parts.py channels
    python tools/bench/parts.py runs
    python tools/bench/parts.py plain --beside ../other-checkout

``plain`` reads the same files by both, in turn, each time in a new process; the figure is the least CPU time of all
turns, since other work on the machine only adds to it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import zarr

from globidx import FileCacheDataset, GlobalIndexManager

TURNS = 5


def opened(path: Path, **options) -> FileCacheDataset:
    """A dataset over one file."""
    key = "x" if path.suffix == ".h5" else None
    manager = GlobalIndexManager(str(path), key=key, cache_dir=path.parent / "cache")
    return FileCacheDataset(manager, **options)


def table(rows: list[list[object]]) -> None:
    """Print rows, the first of which is a heading."""
    print("| " + " | ".join(map(str, rows[0])) + " |")
    print("|---" * len(rows[0]) + "|")
    for row in rows[1:]:
        print("| " + " | ".join(map(str, row)) + " |")


def mesh(folder: Path) -> None:
    """Four spatial ranks over items of 4 chunks."""
    data = np.random.default_rng(0).random((64, 8, 256, 512)).astype("f4")
    zarr.create_array(folder / "a.zarr", data=data, chunks=(1, 8, 128, 256))
    rows: list[list[object]] = [["rank", "decodes", "MiB read", "ms"]]
    ranks = {f"({y}, {x}) of 2 x 2": {2: (y, 2), 3: (x, 2)} for y in range(2) for x in range(2)}
    for name, part in {"whole samples": None, **ranks}.items():
        dataset = opened(folder / "a.zarr", part=part)
        begin = time.perf_counter()
        for start in range(0, 64, 8):
            dataset.__getitems__(range(start, start + 8))
        took = time.perf_counter() - begin
        cost = dataset.counters()
        rows.append([name, cost.decodes, f"{cost.bytes_read / 2**20:.1f}", f"{1e3 * took:.0f}"])
    table(rows)


def channels(folder: Path) -> None:
    """3 of 80 channels, in chunks of one channel and without chunks."""
    data = np.random.default_rng(0).random((32, 80, 128, 128)).astype("f4")
    zarr.create_array(folder / "a.zarr", data=data, chunks=(1, 1, 128, 128))
    zarr.create_array(
        folder / "s.zarr", data=data, chunks=(1, 1, 128, 128), shards=(4, 80, 128, 128)
    )
    with h5py.File(folder / "c.h5", "w") as file:
        file.create_dataset(
            "x", data=data, chunks=(1, 1, 128, 128), compression="gzip", compression_opts=1
        )
    with h5py.File(folder / "b.h5", "w") as file:
        file["x"] = data
    rows: list[list[object]] = [
        ["file", "channels", "decodes a sample", "MiB a sample", "ms a sample"]
    ]
    files = {
        "zarr": "a.zarr",
        "zarr shards": "s.zarr",
        "hdf5 gzip": "c.h5",
        "hdf5 contiguous": "b.h5",
    }
    for name, file in files.items():
        for select in (None, {1: [3, 7, 9]}):
            dataset = opened(folder / file, select=select)
            begin = time.perf_counter()
            for id in range(32):
                dataset[id]
            took, cost = time.perf_counter() - begin, dataset.counters()
            rows.append(
                [
                    name,
                    3 if select else 80,
                    cost.decodes / 32,
                    f"{cost.bytes_read / 32 / 2**20:.2f}",
                    f"{1e3 * took / 32:.2f}",
                ]
            )
    table(rows)


def runs(folder: Path) -> None:
    """Two runs of 4 KiB with a gap: two calls, or one that reads the gap too, by the page cache."""
    path = folder / "bytes"
    path.write_bytes(os.urandom(2**24))
    descriptor = os.open(path, os.O_RDONLY)
    out = np.empty(2**21, np.uint8)
    rows: list[list[object]] = [["gap, KiB", "two calls, us", "one call, us"]]
    for gap in (1, 4, 8, 16, 32, 64, 128):
        size = 4096 + gap * 1024 + 4096
        pieces = [(0, 4096), (size - 4096, size)]
        both = {"two": pieces, "one": [(0, size)]}
        least = dict.fromkeys(both, np.inf)
        for _ in range(20):
            for name, wanted in both.items():
                begin = time.perf_counter()
                for turn in range(200):
                    at = turn * 65536
                    for start, stop in wanted:
                        os.preadv(descriptor, [out[start:stop]], at + start)
                least[name] = min(least[name], time.perf_counter() - begin)
        rows.append([gap, *(f"{least[name] / 200 * 1e6:.1f}" for name in both)])
    os.close(descriptor)
    table(rows)


LAYOUTS = {
    "zarr chunk 1": ("a.zarr", {"chunks": (1, 128, 128)}),
    "zarr chunk 16": ("b.zarr", {"chunks": (16, 128, 128)}),
    "zarr 16 chunks an item": ("c.zarr", {"chunks": (1, 32, 32)}),
    "zarr shards": ("d.zarr", {"chunks": (1, 128, 128), "shards": (64, 128, 128)}),
    "hdf5 chunk 16": (
        "e.h5",
        {"chunks": (16, 128, 128), "compression": "gzip", "compression_opts": 1},
    ),
    "hdf5 16 chunks an item": ("f.h5", {"chunks": (1, 32, 32)}),
    "hdf5 contiguous": ("g.h5", {}),
}
_READ = """
import sys, json, time
from pathlib import Path
import numpy as np
import globidx
from globidx import FileCacheDataset, GlobalIndexManager
assert Path(globidx.__file__).is_relative_to(sys.argv[2]), globidx.__file__
took = {}
for name, file in json.loads(sys.argv[1]).items():
    key = "x" if file.endswith(".h5") else None
    dataset = FileCacheDataset(GlobalIndexManager(file, key=key))
    ids = np.random.default_rng(0).permutation(len(dataset)).reshape(-1, 32).tolist()
    dataset.__getitems__(ids[0])
    begin = time.process_time()
    for batch in ids:
        dataset.__getitems__(batch)
    took[name] = time.process_time() - begin
print(json.dumps(took))
"""


def plain(folder: Path, beside: Path) -> None:
    """Whole samples, by this checkout and by another."""
    data = np.random.default_rng(0).integers(0, 200, (512, 128, 128)).astype("u2")
    for file, options in LAYOUTS.values():
        if file.endswith(".h5"):
            with h5py.File(folder / file, "w") as opened_file:
                opened_file.create_dataset("x", data=data, **options)
        else:
            zarr.create_array(folder / file, data=data, **options)
    files = json.dumps({name: str(folder / file) for name, (file, _) in LAYOUTS.items()})
    trees = {"here": Path(__file__).parents[2], "beside": beside.resolve()}
    least = {tree: dict.fromkeys(LAYOUTS, np.inf) for tree in trees}
    for turn in range(2 * TURNS):
        # each goes first as often as the other
        for tree in sorted(trees, reverse=turn % 2 == 1):
            environment = {**os.environ, "PYTHONPATH": str(trees[tree])}
            command = [sys.executable, "-c", _READ, files, str(trees[tree])]
            done = subprocess.run(
                command, env=environment, cwd=folder, capture_output=True, check=True
            )
            for name, took in json.loads(done.stdout).items():
                least[tree][name] = min(least[tree][name], took)
    rows: list[list[object]] = [["layout", "here, us an item", "beside, us an item", "ratio"]]
    for name in LAYOUTS:
        here, there = (least[tree][name] / 512 * 1e6 for tree in ("here", "beside"))
        rows.append([name, f"{here:.1f}", f"{there:.1f}", f"{here / there:.3f}"])
    table(rows)


def main() -> None:
    """Run the one that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("mesh", "channels", "runs", "plain"))
    parser.add_argument("--beside", type=Path, help="another checkout, for plain")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.what == "plain":
            if given.beside is None:
                parser.error("plain compares with another checkout: --beside DIRECTORY")
            plain(folder, given.beside)
        else:
            {"mesh": mesh, "channels": channels, "runs": runs}[given.what](folder)


if __name__ == "__main__":
    main()
