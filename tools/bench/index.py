"""What an index costs: to build, to look at again, to hold, and to ask, against the bare calls it is made of.

python tools/bench/index.py [--quick] [--files 200] [--repeats 3] [--json PATH] [--only scan,refresh,...]

Everything is measured in fresh processes. Times that are compared are the least of rounds that take turns in one
process, by the clock, and by the processor's time where others on the machine would blur it; memory and the time of a
load are medians. The files lie in the page cache for all contestants. What was not
measured is not claimed.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from claims import at_least, at_most
from indexwork import BATCHES
from measure import count, fresh_process, mebibytes, median, power, seconds, table

SCRIPT = Path(__file__).with_name("indexwork.py")
PARTS = ("scan", "refresh", "hold", "locate", "cold")
PROCESSES = 64
#: name: (suffix, key, options of the writer); a v2 store is zarr_format 2
STORES = {
    "zarr v3": (".zarr", "-", {}),
    "zarr v3 sharded": (".zarr", "-", {"shards": (64, 8, 8)}),
    "zarr v3 in a group": (".zarr", "images", {}),
    "zarr v2": (".zarr", "-", {"zarr_format": 2}),
    "HDF5": (".h5", "entry/images", {}),
}


def write(folder: Path, name: str, files: int) -> str:
    """A folder of equal files of one kind, copies of one that its library wrote; returns the key."""
    suffix, key, options = STORES[name]
    folder.mkdir()
    first = folder / f"file-0000000{suffix}"
    if suffix == ".h5":
        import h5py

        with h5py.File(first, "w") as file:
            file.create_dataset(key, shape=(256, 8, 8), dtype="u2", chunks=(16, 8, 8))
    else:
        import zarr

        settings = {"shape": (256, 8, 8), "dtype": "u2", "chunks": (16, 8, 8)} | options
        if key == "-":
            zarr.create_array(first, **settings)
        else:
            zarr.create_group(first).create_array(key, **settings)
    for number in range(1, files):
        copied = folder / f"file-{number:07d}{suffix}"
        (shutil.copyfile if first.is_file() else shutil.copytree)(first, copied)
    return key


def write_cache(path: Path, files: int) -> None:
    """The cache of an index over so many files, of which there is none."""
    import numpy as np

    from globidx.core.index.names import Names
    from globidx.core.index.table import ArrayInfo, Table
    from globidx.disk.index.cache import IndexCache

    dice = np.random.default_rng(7)
    IndexCache(path).save(
        Table(
            names=Names.of(
                b"run-%04d/chunk-%07d.h5" % (number // 1000, number) for number in range(files)
            ),
            arrays=(
                ArrayInfo("entry_1/data_1/data", (128, 128), "uint16", 0, "entry_1/data_1/data"),
            ),
            lengths=dice.integers(0, 1000, files),
            kinds=np.zeros(files, np.uint8),
            chunk_lengths=np.full((files, 1), 16),
            digests=dice.integers(0, 256, (files, 16), dtype=np.uint8),
            stamps=dice.integers(1, 2**60, (files, 1, 4)),
            paths=Names.of(()),
        )
    )


def in_turns(runs: dict[str, tuple], repeats: int) -> dict[str, dict]:
    """The medians of several works, one round of all after the other, so that a busy minute hits them all."""
    found: dict[str, list[dict]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, arguments in runs.items():
            found[name].append(fresh_process(SCRIPT, *arguments))
    return {
        name: {
            figure: median([one[figure] for one in each])
            for figure in each[0]
            if isinstance(each[0][figure], (int, float))
        }
        for name, each in found.items()
    }


def measure_scan(folder: Path, files: int, repeats: int) -> Iterator[dict]:
    """A build from nothing, against the loop over all files that reads the same."""
    for number, name in enumerate(STORES):
        place = folder / f"scan{number}"
        key = write(place, name, files)
        yield {"what": name} | fresh_process(
            SCRIPT, "scan", place, key, 2 if name == "HDF5" else 1, repeats + 1
        )
        shutil.rmtree(place)


def measure_refresh(folder: Path, files: int, repeats: int) -> Iterator[dict]:
    """A refresh of what did not change, against os.stat over the same files."""
    cases = (("HDF5", "folder"), ("HDF5", "list"), ("zarr v3 in a group", "folder"))
    for name in {name for name, _ in cases}:
        write(folder / f"refresh {name}", name, files)
    time.sleep(2.2)  # younger files are looked at again, since they might have changed
    for name, how in cases:
        place = folder / f"refresh {name}"
        yield {"what": f"{name}, {how}"} | fresh_process(
            SCRIPT, "refresh", place, STORES[name][1], how, repeats + 1
        )


def measure_hold(folder: Path, files: int, repeats: int) -> dict:
    """Time and memory of an index over many files in one process and in its workers."""
    cache = folder / "many.index"
    write_cache(cache, files)
    with cache.open("rb") as file:
        while file.read(2**20):
            pass
    runs = {"load": ("load", cache), "save": ("save", cache)}
    runs |= {start: ("workers", cache, start, 4) for start in ("fork", "spawn")}
    return {"files": files, **in_turns(runs, repeats)}


def measure_cold(folder: Path, files: int, processes: int) -> Iterator[dict]:
    """Many processes that begin at once without a cache."""
    write(folder / "cold", "zarr v3", files)
    time.sleep(2.2)
    for locks in ("yes", "no"):
        found = fresh_process(SCRIPT, "cold", folder / "cold", processes, locks)
        yield {"locks": locks, "processes": processes, **found}


def report(found: dict) -> Iterator[str]:
    """The tables."""
    if "scan" in found:
        lines = [
            [
                "build from nothing, a file",
                "files",
                "plain loop",
                "ours",
                "x",
                "x cpu",
                "2 processes",
                "x",
            ]
        ]
        for row in found["scan"]:
            wall = {who: seconds(taken / row["files"]) for who, taken in row["wall"].items()}
            faster = {
                who: f"{row['wall']['plain'] / taken:.3g}" for who, taken in row["wall"].items()
            }
            cpu = f"{row['cpu']['plain'] / row['cpu']['ours']:.3g}"
            cells = [count(row["files"]), wall["plain"], wall["ours"], faster["ours"], cpu]
            lines.append([row["what"], *cells, wall.get("shared", ""), faster.get("shared", "")])
        yield table(lines)
    if "refresh" in found:
        lines = [["refresh, nothing changed, a file", "files", "os.stat", "refresh", "times"]]
        for row in found["refresh"]:
            bare, ours = row["stat"], row["refresh"]
            pair = (
                seconds(bare / row["files"]),
                seconds(ours / row["files"]),
                f"{ours / bare:.3g}",
            )
            lines.append([row["what"], count(row["files"]), *pair])
        yield table(lines)
    if "hold" in found:
        held = found["hold"]
        lines = [
            [
                f"{power(held['files'])} files, {mebibytes(held['save']['bytes'])} MiB",
                "time",
                "own MiB",
            ]
        ]
        lines += [
            ["load the cache", seconds(held["load"]["seconds"]), mebibytes(held["load"]["private"])]
        ]
        lines += [["  of that no page of the file", "", mebibytes(held["load"]["anonymous"])]]
        lines += [
            [
                "write the cache, peak",
                seconds(held["save"]["seconds"]),
                mebibytes(held["save"]["extra"]),
            ]
        ]
        lines += [
            [f"each of 4 workers, {start}", "", mebibytes(held[start]["added"])]
            for start in ("fork", "spawn")
        ]
        yield table(lines) + f"\nthe index as a pickle: {held['load']['pickle']:.0f} bytes"
    if "locate" in found:
        sizes = [str(size) for size in BATCHES]
        lines = [
            [
                "ids to places, ns an id (ours/bare)",
                *(f"batch {size}" for size in sizes),
                "one (ours/bisect)",
            ]
        ]
        lines += [
            [
                f"{power(row['files'])} files",
                *(nanoseconds(row["many"][size]) for size in sizes),
                nanoseconds(row["one"]),
            ]
            for row in found["locate"]
        ]
        yield table(lines)
    if "cold" in found:
        lines = [
            [
                f"{found['cold'][0]['processes']} processes from nothing",
                "files",
                "opened",
                "contents",
                "time",
            ]
        ]
        for row in found["cold"]:
            how = "locks lock" if row["locks"] == "yes" else "locks do not lock"
            lines.append(
                [
                    how,
                    str(row["files"]),
                    str(row["opened"]),
                    str(row["contents"]),
                    seconds(row["seconds"]),
                ]
            )
        yield table(lines)


def nanoseconds(pair: list[float]) -> str:
    """Ours, the bare search, and their ratio."""
    bare, ours = pair
    return f"{ours * 1e9:.3g}/{bare * 1e9:.3g} = {ours / bare:.2f}"


def claims(found: dict) -> Iterator[tuple[str, str]]:
    """Each promise and its verdict."""
    scanned = found.get("scan", ())
    zarr = least(
        [row["cpu"]["plain"] / row["cpu"]["ours"] for row in scanned if row["what"] != "HDF5"]
    )
    yield (
        "zarr stores are looked at in <= 1/10 of zarr.open_array's processor time, the worst",
        at_least(10, zarr),
    )
    shared = least(
        [row["wall"]["plain"] / row["wall"]["shared"] for row in scanned if "shared" in row["wall"]]
    )
    yield (
        "HDF5 files are looked at by 2 processes >= 1.6x as fast as by a loop over h5py.File",
        at_least(1.6, shared),
    )
    worst = most([row["refresh"] / row["stat"] for row in found.get("refresh", ())])
    yield (
        "a refresh of what did not change takes <= 4x os.stat over its files, the worst",
        at_most(4, worst),
    )

    held = found.get("hold", {})
    is_million = held.get("files") == 10**6
    load = held["load"] if is_million else {}
    yield "the cache of 10^6 files is loaded in <= 0.5 s", at_most(0.5, load.get("seconds"))
    yield "and takes <= 150 MiB of a process's own", at_most(150, mib(load.get("private")))
    yield "a pickle of the index is <= 1 KiB", at_most(1024, load.get("pickle"))
    for start in ("fork", "spawn"):
        added = held[start]["added"] if is_million else None
        yield (
            f"a worker ({start}) of 4 that asks for 10,000 places adds <= 20 MiB",
            at_most(20, mib(added)),
        )

    rows = found.get("locate", ())
    many = most([ours / bare for row in rows for bare, ours in row["many"].values()])
    yield "locate_many takes <= 2x np.searchsorted, the worst", at_most(2, many)
    one = most([row["one"][1] / row["one"][0] for row in rows])
    yield "locate takes <= 5x bisect, the worst", at_most(5, one)

    cold = [row for row in found.get("cold", ()) if row["processes"] == PROCESSES]
    contents = most([row["contents"] for row in cold])
    yield (
        f"{PROCESSES} processes from nothing come to one content, locks or none",
        at_most(1, contents),
    )
    opened = most([row["opened"] / row["files"] for row in cold if row["locks"] == "yes"])
    yield "and open each file about once where locks lock", at_most(1.1, opened)


def least(values: list[float]) -> float | None:
    """The smallest; None where nothing was measured."""
    return min(values, default=None)


def most(values: list[float]) -> float | None:
    """The largest; None where nothing was measured."""
    return max(values, default=None)


def mib(value: float | None) -> float | None:
    """Bytes as MiB; None stays None."""
    return None if value is None else value / 2**20


def main() -> None:
    """Measure, print the tables and the claims, and write JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer files")
    parser.add_argument(
        "--files",
        type=int,
        help="so many files of each kind, no synthetic million, and 8 processes",
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="rounds, or processes that a figure is the median of"
    )
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--json", type=Path, help="also write all figures there")
    options = parser.parse_args()
    scanned, refreshed = (
        (options.files,) * 2 if options.files else (300, 3000) if options.quick else (1000, 20000)
    )
    held = options.files or 10**6
    only, found = options.only.split(","), {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if "scan" in only:
            found["scan"] = list(measure_scan(place, scanned, options.repeats))
        if "refresh" in only:
            found["refresh"] = list(measure_refresh(place, refreshed, options.repeats))
        if "hold" in only:
            found["hold"] = measure_hold(place, held, options.repeats)
        if "locate" in only:
            sizes = sorted({min(size, held) for size in (10**3, 10**4, 10**5, 10**6)})
            found["locate"] = [
                fresh_process(SCRIPT, "locate", size, 4 * options.repeats) for size in sizes
            ]
        if "cold" in only:
            found["cold"] = list(
                measure_cold(place, min(200, scanned), 8 if options.files else PROCESSES)
            )
    print("\n\n".join(report(found)) + "\n")
    verdicts = list(claims(found))
    for text, verdict in verdicts:
        print(f"{text}: {verdict}")
    if options.json:
        options.json.write_text(
            json.dumps({"measured": found, "claims": dict(verdicts)}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
