"""Fields of other kinds beside the loop over h5py that people write, and zip stores beside folders.

    python tools/bench/fields.py

CPU time of this process, the least of several runs, files in the page cache. Ratios above 1 mean
that globidx takes longer.
"""

from __future__ import annotations

import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr

from globidx import FileCacheDataset, GlobalIndexManager

RUNS = 5
GROUPS, FRAMES, JETS, RUNS_OF_ROWS, ITEMS = 2_000, 500, 100_000, 20_000, 2_000


def spent(function: Callable[[], object]) -> float:
    """The least CPU time of several calls, in milliseconds."""
    function()
    times = []
    for _ in range(RUNS):
        began = time.process_time()
        function()
        times.append(time.process_time() - began)
    return min(times) * 1e3


def write(path: Path) -> None:
    """One file with groups, frames, a compound table and runs of rows."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in range(GROUPS):
            atoms = int(rng.integers(5, 40))
            group = file.create_group(f"groups/config_{number}")
            group["positions"] = rng.normal(size=(atoms, 3))
            group["forces"] = rng.normal(size=(atoms, 3))
            group["numbers"] = rng.integers(1, 20, atoms)
            group["cell"], group["energy"], group["type"] = np.eye(3), 1.0, "Default"
        frames = [rng.integers(1, 256, 20_000, np.uint8) for _ in range(FRAMES)]
        file["fixed"] = np.array([frame.tobytes() for frame in frames])
        varying = file.create_dataset("varying", (FRAMES,), h5py.vlen_dtype(np.uint8))
        for number, frame in enumerate(frames):
            varying[number] = frame
        jets = np.zeros(JETS, [(f"m{number}", "f4") for number in range(20)])
        file.create_dataset("jets", data=jets, chunks=(1000,), compression="lzf")
        offsets = np.r_[0, np.cumsum(rng.integers(1, 80, RUNS_OF_ROWS))]
        tokens = rng.integers(0, 30_000, offsets[-1]).astype("i4")
        file["offsets"] = offsets
        file.create_dataset("tokens", data=tokens, chunks=(16_384,), compression="gzip")


def dataset_of(path: Path, cache: str, **options: Any) -> FileCacheDataset:
    """All of a file's samples under these keys."""
    return FileCacheDataset(GlobalIndexManager(str(path), cache_dir=cache, **options))


def told(what: str, ours: float, theirs: float, than: str) -> None:
    """A line of the table."""
    print(f"{what:44} {ours:9.2f} ms  {than:22} {theirs:9.2f} ms  {ours / theirs:5.2f}")


def by_loop(file: h5py.File, names: Sequence[str]) -> list[dict[str, Any]]:
    """Each group as a dict, by h5py alone."""
    return [{name: one[()] for name, one in file[group].items()} for group in names]


def of_fields(folder: Path) -> None:
    """Groups, frames, members and runs of rows of one HDF5 file."""
    path = folder / "a.h5"
    write(path)
    rng = np.random.default_rng(1)
    with h5py.File(path) as file:
        ids = rng.permutation(GROUPS)[:500].tolist()
        whole = {"key": "groups/*", "sequences": "match", "window": "all"}
        groups = dataset_of(path, str(folder), **whole)
        names = [f"groups/config_{id}" for id in ids]
        ours, theirs = spent(lambda: groups.__getitems__(ids)), spent(lambda: by_loop(file, names))
        told("500 random groups of 6 datasets", ours, theirs, "h5py, dataset by dataset")
        for key in ("fixed", "varying"):
            frames, taken = dataset_of(path, str(folder), key=key), rng.permutation(FRAMES)[:64]
            ours = spent(lambda: frames.__getitems__(taken.tolist()))  # noqa: B023
            theirs = spent(lambda: [file[key][id] for id in taken])  # noqa: B023
            told(f"64 random frames of 20 kB, {key}", ours, theirs, "h5py, row by row")
        near = list(range(5_000, 6_000))
        jets = dataset_of(path, str(folder), key="jets/{m0,m3,m7}")
        ours, theirs = (
            spent(lambda: jets.__getitems__(near)),
            spent(lambda: file["jets"][5000:6000]),
        )
        told("1,000 rows, 3 of 20 members, a sample each", ours, theirs, "h5py, one slice")
        runs, offsets = dataset_of(path, str(folder), key="tokens[offsets]"), file["offsets"][:]
        some = rng.permutation(RUNS_OF_ROWS)[:256].tolist()
        ours = spent(lambda: runs.__getitems__(some))
        spans = [slice(offsets[id], offsets[id + 1]) for id in some]
        theirs = spent(lambda: [file["tokens"][span] for span in spans])
        told("256 random runs of rows, chunks kept", ours, theirs, "h5py, run by run")


def of_zips(folder: Path) -> None:
    """The same arrays in a zip file and in a folder, in batches of 32 random items."""
    batches = np.random.default_rng(2).permutation(ITEMS).reshape(-1, 40).tolist()
    kinds: dict[str, dict[str, Any]] = {
        "raw, 32 KiB a chunk": {"chunks": (1, 32_768), "compressors": None},
        "zstd, 16 items a chunk": {"chunks": (16, 32_768)},
        "shards": {"chunks": (1, 32_768), "shards": (100, 32_768)},
    }
    data = np.random.default_rng(3).integers(0, 8, (ITEMS, 32_768), np.uint8)
    for number, (kind, options) in enumerate(kinds.items()):
        plain, packed = folder / f"{number}.zarr", folder / f"zip{number}.zarr.zip"
        zarr.create_array(plain, data=data, **options)
        with zipfile.ZipFile(packed, "w") as file:
            for one in sorted(plain.rglob("*")):
                if one.is_file():
                    file.write(one, one.relative_to(plain))
        times = []
        for path in (packed, plain):
            dataset = FileCacheDataset(
                GlobalIndexManager(str(path), cache_dir=str(folder)), cache_bytes=0
            )
            times.append(spent(lambda: [dataset.__getitems__(batch) for batch in batches]))  # noqa: B023
        told(f"2,000 items of a zip file, {kind}", *times, "of a folder")


def main() -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as folder:
        of_fields(Path(folder))
        of_zips(Path(folder))


if __name__ == "__main__":
    main()
