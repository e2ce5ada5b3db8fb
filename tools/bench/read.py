"""What reading costs: items a second of globidx, of what people do without it, and of who converts the data first.

python tools/bench/read.py [--items 8192] [--repeats 3] [--layouts "zarr3 chunk 16,hdf5 gzip"] [--folder PATH]
                           [--contestants "decode limit; ours chunk"] [--json PATH] [--plot PATH]

It makes its data, 8 files of 128 x 128 uint16 in seven layouts, and a converted copy for each peer that is installed.
A figure is the best of several fresh processes, which take turns between the contestants, since whatever else runs on a
machine only ever takes time away; CPU time an item is told besides. Everything is read from the page cache: what is
compared is the reading, not the disk. "decode limit" reads and decodes every chunk once, by the bare codec and in the
order of the files; of contiguous data it is a batch of copies out of a memory map. "full" is a full shuffle, "chunk"
``orders.ChunkShuffle`` with a window of 8 chunks (where this version has none, the same order is made here).
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import read_data
from claims import at_least, at_most
from measure import count, fresh_process, missing, seconds, table
from read_contestants import CONTESTANTS, NEEDS, PEERS

SCRIPT = Path(__file__).with_name("read_contestants.py")
LOCALITY = Path(__file__).with_name("read_locality.py")
SLOW = {"naive": 256, "cached handles": 1024, "litdata full": 256, "huggingface full": 2048}
COPY = "converted copy"
PACKAGES = (
    "torch numpy zarr numcodecs h5py zlib-ng isal litdata mosaicml-streaming datasets".split()
)
Figures = dict[tuple[str, str], dict]


def measure_all(folder: Path, cells: list[tuple[str, str]], items: int, repeats: int) -> Figures:
    """The best of every cell (layout, contestant): one round of all after the other, so that a busy minute hits all."""
    best: Figures = {}
    for _ in range(repeats):
        for layout, name in cells:
            bound = min(items, SLOW.get(name, items))
            found = fresh_process(SCRIPT, folder, layout, name, items, bound)
            known = best.setdefault((layout, name), found)
            known["items_per_s"] = max(known["items_per_s"], found["items_per_s"])
            known["cpu_us"] = min(known["cpu_us"], found["cpu_us"])
    return best


def report(figures: Figures) -> str:
    """The table: a row a contestant, with its share of the layout's decode limit."""
    lines = [
        [
            "layout",
            "contestant",
            "items/s",
            "of limit",
            "CPU an item",
            "of limit",
            "decodes a chunk",
        ]
    ]
    for (layout, name), found in figures.items():
        limit = figures.get((layout, "decode limit"))
        decodes = found.get("decodes_per_chunk")
        lines.append(
            [
                layout,
                name,
                count(found["items_per_s"]),
                f"{found['items_per_s'] / limit['items_per_s']:.2f}" if limit else "",
                seconds(found["cpu_us"] / 1e6),
                f"{limit['cpu_us'] / found['cpu_us']:.2f}" if limit else "",
                f"{decodes:.2f}" if decodes is not None else "",
            ]
        )
    return table([[row[0].ljust(16), *row[1:]] for row in lines])


def locality(folder: Path, layouts: list[str]) -> dict[str, float]:
    """Decodes a chunk with many workers and after a resume; nothing where there is no ``ChunkShuffle``."""
    from globidx import orders

    if not hasattr(orders, "ChunkShuffle") or "zarr3 chunk 16" not in layouts:
        return {}
    return fresh_process(LOCALITY, folder, "zarr3 chunk 16")


def claims(figures: Figures, decoded: dict[str, float]) -> Iterator[tuple[str, str]]:
    """What the library promises of reading, and what this run says of it."""

    def ratio(layout: str, above: str, below: str, other: str = "") -> float | None:
        one, two = figures.get((layout, above)), figures.get((other or layout, below))
        return one["items_per_s"] / two["items_per_s"] if one and two else None

    for layout in ("zarr3 chunk 16", "zarr2 blosc", "hdf5 gzip"):
        limit = ratio(layout, "ours chunk", "decode limit")
        yield f"{layout}, ChunkShuffle >= 0.6 of the decode limit", at_least(0.6, limit)
    for layout in ("zarr3 chunk 16", "hdf5 gzip"):
        handles = ratio(layout, "ours chunk", "cached handles")
        yield (
            f"{layout}, ChunkShuffle >= 15x cached handles with a full shuffle",
            at_least(15, handles),
        )
        decodes = figures.get((layout, "ours chunk"), {}).get("decodes_per_chunk")
        yield f"{layout}, ChunkShuffle <= 1.25 decodes a chunk", at_most(1.25, decodes)
    for ranks in ("4 ranks", "then 2 ranks"):
        yield (
            f"ChunkShuffle, {ranks} x 2 workers <= 1.25 decodes a chunk",
            at_most(1.25, decoded.get(ranks)),
        )
    limit = ratio("zarr3 chunk 1", "ours full", "decode limit")
    yield "zarr3 chunk 1, full shuffle >= 0.5 of the decode limit", at_least(0.5, limit)
    limit = ratio("hdf5 contiguous", "ours full", "decode limit")
    yield "hdf5 contiguous, full shuffle >= 0.5 of a copy out of a memory map", at_least(0.5, limit)
    cells = [
        *((layout, "ours chunk") for layout in ("zarr3 chunk 16", "zarr2 blosc", "hdf5 gzip")),
        ("zarr3 chunk 1", "ours full"),
        ("hdf5 contiguous", "ours full"),
    ]
    for layout, name in cells:
        for peer in ("mosaic own shuffle", "mosaic full", "litdata own shuffle"):
            if peer.startswith("mosaic") or name == "ours chunk":
                yield f"{layout}, {name} >= {peer}", at_least(1, ratio(layout, name, peer, COPY))


def plot(figures: Figures, path: Path) -> None:
    """Bars, a group a layout, items a second on a logarithmic scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    layouts = list(dict.fromkeys(layout for layout, _ in figures))
    figure, axes = pyplot.subplots(
        len(layouts), 1, figsize=(8, 1.9 * len(layouts)), sharex=True, squeeze=False
    )
    for layout, ax in zip(layouts, axes[:, 0], strict=True):
        names = [name for found, name in figures if found == layout]
        rates = [figures[layout, name]["items_per_s"] for name in names]
        colours = [
            "tab:blue" if n.startswith("ours") else "0.4" if n == "decode limit" else "0.75"
            for n in names
        ]
        bars = ax.barh(names[::-1], rates[::-1], color=colours[::-1])
        ax.bar_label(bars, [count(rate) for rate in rates[::-1]], padding=3, fontsize=7)
        ax.set_title(layout, loc="left", fontsize=9)
        ax.tick_params(labelsize=7)
        ax.set_xscale("log")
    axes[-1, 0].set_xlabel("items a second (128 x 128 uint16)")
    figure.tight_layout()
    figure.savefig(path)


def environment() -> dict[str, str | int | None]:
    """Where the figures were taken, for whoever compares them with others."""
    found: dict[str, str | int | None] = {
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found | {"cpus": os.cpu_count()}


def run(folder: Path, options: argparse.Namespace) -> None:
    """Make the data, measure, and print."""
    layouts = options.layouts.split(",") if options.layouts else list(read_data.LAYOUTS)
    for layout in layouts:
        read_data.write(folder, layout, options.items)
    wanted = options.contestants.split("; ") if options.contestants else [*CONTESTANTS, *PEERS]
    cells = [(layout, name) for layout in layouts for name in CONTESTANTS if name in wanted]
    for peer, module in NEEDS.items():
        names = [name for name in PEERS if name.startswith(peer) and name in wanted]
        if names and missing([module]):
            print(f"{peer} is left out: no {module} here; pip install '.[readbench]'")
        elif names:
            read_data.convert(folder, peer, options.items)
            cells += [(COPY, name) for name in names]
    figures = measure_all(folder, cells, options.items, options.repeats)
    verdicts = dict(claims(figures, locality(folder, layouts)))
    print(
        f"{options.items} items in {read_data.FILES} files, best of {options.repeats} fresh processes\n"
    )
    print(report(figures) + "\n")
    for text, verdict in verdicts.items():
        print(f"{text}: {verdict}")
    if options.json:
        rows = [
            {"layout": layout, "contestant": name, **found}
            for (layout, name), found in figures.items()
        ]
        options.json.write_text(
            json.dumps(
                {"environment": environment(), "measured": rows, "claims": verdicts}, indent=1
            )
            + "\n"
        )
    if options.plot:
        plot(figures, options.plot)


def main() -> None:
    """Read the options; the data goes into a temporary folder unless one is given, where it is found again."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--items",
        type=int,
        default=8192,
        help="a multiple of 1024, so that chunks and shards are full",
    )
    parser.add_argument("--repeats", type=int, default=3, help="processes a figure is the best of")
    parser.add_argument("--layouts", help="these only, separated by commas")
    parser.add_argument("--contestants", help='these only, separated by "; "')
    parser.add_argument("--folder", type=Path, help="where to keep the data")
    parser.add_argument("--json", type=Path, help="also write all figures there")
    parser.add_argument("--plot", type=Path, help="also draw them there; needs matplotlib")
    options = parser.parse_args()
    if options.items % 1024:
        sys.exit("--items must be a multiple of 1024")
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
        run(options.folder, options)
    else:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder), options)


if __name__ == "__main__":
    main()
