"""What a sampler costs: first id, ids a second, resume, memory and record, ours against its peers in the same run.

python tools/bench/sampler.py [--quick] [--sizes 1000,10000] [--repeats 3] [--json PATH]

Every figure is the median over fresh processes, which take turns between the contestants. Peers that are not installed
are left out, and what was not measured is not claimed.
"""

import argparse
import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from claims import OURS, claims, times
from contestants import CONTESTANTS, WORLD_SIZE
from measure import count, fresh_process, mebibytes, median, missing, power, seconds, table

SCRIPT = Path(__file__).with_name("contestants.py")
SIZES, OURS_ONLY, LARGEST_PEER = [10**6, 10**7, 10**8], [10**3, 10**12], 10**8
BOUND = {
    OURS: 2 * 10**7,
    "grain": 10**5,
    "grain shuffle": 10**5,
}  # ids read at most; the others: always all
KINDS = ("first", "share", "resume")


def plan(names: list[str], sizes: list[int], ours_only: list[int]) -> list[tuple[str, int]]:
    """Which contestant runs at which n: peers keep the order in memory, 40 bytes an id, so they stop at 10^8."""
    cells = [(name, n) for n in sorted({*sizes, *ours_only}) for name in names]
    return [(name, n) for name, n in cells if name == OURS or (n in sizes and n <= LARGEST_PEER)]


def measure_all(cells: list[tuple[str, int]], repeats: int) -> list[dict]:
    """Every figure of every cell; one round of all contestants after the other, so that a busy minute hits them all."""
    records = {cell: fresh_process(SCRIPT, cell[0], "record", cell[1], 0, "null") for cell in cells}
    results: dict[tuple[str, int], dict[str, list[dict]]] = {
        cell: {kind: [] for kind in KINDS} for cell in cells
    }
    for _ in range(repeats):
        for kind in KINDS:
            for name, n in cells:
                record = json.dumps(records[name, n]["record"])
                results[name, n][kind].append(
                    fresh_process(SCRIPT, name, kind, n, ids_read(name, n), record)
                )
    return [row(name, n, result, records[name, n]) for (name, n), result in results.items()]


def ids_read(name: str, n: int) -> int:
    """How many ids the end-to-end figure is over: the share of one rank, or the bound where that would take long."""
    return min(n // WORLD_SIZE, BOUND.get(name, n))


def row(name: str, n: int, runs: dict[str, list[dict]], record: dict) -> dict:
    """The medians of one contestant at one n."""
    taken = {kind: median([run["seconds"] for run in runs[kind]]) for kind in KINDS}
    return {
        "contestant": name,
        "n": n,
        "first_id_s": taken["first"],
        "ids_read": ids_read(name, n),
        "whole_share": ids_read(name, n) == n // WORLD_SIZE,
        "ids_per_s": ids_read(name, n) / taken["share"],
        "share_s": taken["share"],
        "resume_s": taken["resume"],
        "extra_bytes": max(run["extra"] for kind in KINDS for run in runs[kind]),
        "record_json_bytes": record.get("json"),
        "record_pickle_bytes": record.get("pickle"),
        "runs": runs,
    }


def report(rows: list[dict]) -> str:
    """The table; ratios say how many times better ours is at the same n."""
    ours = {row["n"]: row for row in rows if row["contestant"] == OURS}
    head = [
        "contestant",
        "n",
        "first id",
        "x",
        "ids read",
        "ids/s",
        "x",
        "resume 50%",
        "x",
        "extra MiB",
        "x",
        "record B",
    ]
    lines = [head]
    for row in rows:
        own = ours[row["n"]]
        lines.append(
            [
                row["contestant"],
                power(row["n"]),
                *(seconds(row["first_id_s"]), ratio(row, own, "first_id_s")),
                f"{row['ids_read']} {'all' if row['whole_share'] else 'of ' + count(row['n'] // WORLD_SIZE)}",
                *(count(row["ids_per_s"]), ratio(own, row, "ids_per_s")),
                *(seconds(row["resume_s"]), ratio(row, own, "resume_s")),
                *(mebibytes(row["extra_bytes"]), ratio(row, own, "extra_bytes")),
                "-"
                if row["record_json_bytes"] is None
                else f"{row['record_json_bytes']}/{row['record_pickle_bytes']}",
            ]
        )
    return table(lines)


def ratio(above: dict, below: dict, figure: str) -> str:
    """``above`` by ``below``, blank for a contestant against itself."""
    return "" if above is below else f"{times(above, below, figure):.3g}"


def environment() -> dict[str, str | int | None]:
    """Where the figures were taken, for whoever compares them with others."""
    found: dict[str, str | int | None] = {
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    for package in ("torch", "numpy", "torchdata", "grain"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found | {"cpus": os.cpu_count(), "world_size": WORLD_SIZE}


def main() -> None:
    """Measure, print the table and the claims, and write JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="leave out 10^8, where the peers take seconds each time",
    )
    parser.add_argument("--sizes", help="these n only, separated by commas, for every contestant")
    parser.add_argument(
        "--repeats", type=int, default=3, help="processes a figure is the median of"
    )
    parser.add_argument("--json", type=Path, help="also write all figures there")
    options = parser.parse_args()
    names = []
    for name, contestant in CONTESTANTS.items():
        if lacking := missing(contestant.needs):
            print(f"{name} is left out: no {' and no '.join(lacking)} here; {contestant.install}")
        else:
            names.append(name)
    if OURS not in names:
        sys.exit("without ours there is nothing to compare")
    sizes = (
        [int(size) for size in options.sizes.split(",")]
        if options.sizes
        else SIZES[: 2 if options.quick else 3]
    )
    rows = measure_all(plan(names, sizes, [] if options.sizes else OURS_ONLY), options.repeats)
    verdicts = list(claims(rows))
    print(
        f"rank 3 of {WORLD_SIZE}, shuffled; medians of {options.repeats} fresh processes, memory their largest;"
    )
    print("x: how many times better globidx is; record: bytes as JSON/as pickle\n")
    print(report(rows) + "\n")
    for text, verdict in verdicts:
        print(f"{text}: {verdict}")
    if options.json:
        found = {"environment": environment(), "measured": rows, "claims": dict(verdicts)}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
