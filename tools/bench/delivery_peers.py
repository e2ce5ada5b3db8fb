"""Other libraries' own loaders over their converted copies, beside ours over files in place, for ``delivery.py``.

python tools/bench/delivery_peers.py FOLDER CONTESTANT WORKERS

prints JSON: items a second that arrive in batches, of the best of some passes. Everyone shuffles in the way that
reads their own format fast. Those that cannot be imported sit out: Mosaic's streaming asks for an old numpy, so run
the section once more in an environment that has it.

Their copies have no codec in the first table. The second one is like for like: their copies are compressed by zstd,
too, and everybody's first pass is measured, from the moment that it is asked for. In that pass peers write what they
decompress beside the copy, and later ones read that, as in the first table: files of ours stay as they are.
"""

import json
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import read_data
from claims import at_least
from measure import count, fresh_process, missing, rate, table
from read_contestants import BATCH, NEEDS, WINDOW, files

#: Our files, none of which is converted.
LAYOUTS = ("zarr3 chunk 16", "hdf5 gzip", "hdf5 contiguous")
WORKERS = (0, 1, 2)


def peers(folder: Path, items: int, repeats: int) -> None:
    """Each figure in a fresh process; all take turns."""
    present = [name for name, module in NEEDS.items() if not missing([module])]
    for name in present:
        read_data.convert(folder, name, items)
        if name in COMPRESSED:
            compress(folder, name, items)
    for layout in LAYOUTS:
        read_data.write(folder, layout, items)
    best: dict[tuple[str, int], float] = {}
    packed = [name + ZSTD for name in present if name in COMPRESSED]
    for _ in range(repeats):
        for name in [*present, *OURS, *packed, *(name + FIRST for name in CODECS)]:
            for workers in WORKERS:
                if not workers and THREADS in name:
                    continue
                found = fresh_process(Path(__file__), folder, name, workers)["items_per_s"]
                best[name, workers] = max(best.get((name, workers), 0.0), found)
    _tell(best, present, list(OURS), list(LAYOUTS))
    if absent := sorted(set(NEEDS) - set(present)):
        print(f"not installed here: {', '.join(absent)}")
    if packed:
        print("\nfirst pass, all compressed\n")
        names = [name + FIRST for name in CODECS]
        _tell(best, packed, names, [name for name in names if THREADS not in name])


def _tell(
    best: dict[tuple[str, int], float], present: list[str], ours: list[str], layouts: list[str]
) -> None:
    """The table of peers and ours, and how the better of processes and threads stands to each."""
    rows = [["items/s delivered", *(f"{workers} workers" for workers in WORKERS)]]
    rows += [
        [name, *(count(best.get((name, workers))) for workers in WORKERS)]
        for name in [*present, *ours]
    ]
    print(table(rows) + "\n")
    for workers in WORKERS:
        for layout in layouts:
            name = layout.removesuffix(FIRST)
            hows = [name + how + layout[len(name) :] for how in ("", THREADS)]
            figure = max(best.get((how, workers), 0.0) for how in hows)
            for peer in present:
                ratio = figure / best[peer, workers]
                print(f"{name}, {workers} workers, ahead of {peer}: {at_least(1, ratio)}")


def compress(folder: Path, peer: str, items: int) -> None:
    """A copy in the format of ``peer``, compressed by zstd, unless it is there."""
    target = folder / (peer + ZSTD)
    if target.exists():
        return
    part = folder / f"{peer}-part"
    shutil.rmtree(part, ignore_errors=True)
    each = items // read_data.FILES
    COMPRESSED[peer](
        part, (one for number in range(read_data.FILES) for one in read_data.images(number, each))
    )
    part.rename(target)


def _compress_litdata(target: Path, images: Iterable[Any]) -> None:
    from litdata.streaming.writer import BinaryWriter

    # by chunks: its default, frames of some items, has written no frames of numpy arrays in 0.2.76
    options = {"compression": "zstd", "compression_level": "chunk"}
    try:
        writer = BinaryWriter(str(target), chunk_bytes="64MB", **options)
    except TypeError:
        # older ones know no other way
        writer = BinaryWriter(str(target), chunk_bytes="64MB", compression="zstd")
    for index, image in enumerate(images):
        writer[index] = image
    writer.done()
    writer.merge()


def _compress_mosaic(target: Path, images: Iterable[Any]) -> None:
    from streaming import MDSWriter

    column = f"ndarray:{read_data.DTYPE}:{','.join(map(str, read_data.SHAPE))}"
    with MDSWriter(out=str(target), columns={"x": column}, compression="zstd") as writer:
        for image in images:
            writer.write({"x": image})


def first_rate(batches: Iterable[Any]) -> float:
    """Items a second of one pass, its beginning included."""
    begun = perf_counter()
    items = sum(map(_size, batches))
    return items / (perf_counter() - begun)


def _size(batch: Any) -> int:
    """The items of a batch, which some give in a dict."""
    return len(batch["x"] if isinstance(batch, dict) else batch)


def ours(folder: Path, workers: int, *, layout: str, how: str) -> Iterable[Any]:
    """``globidx.DataLoader``, of which each pass reads another epoch."""
    import globidx

    dataset = globidx.FileCacheDataset(globidx.GlobalIndexManager(files(folder, layout)))
    order = globidx.orders.ChunkShuffle(window=WINDOW)
    sampler = globidx.ResumableDistributedSampler(dataset, 1, 0, order=order)
    return globidx.DataLoader(dataset, BATCH, sampler=sampler, num_workers=workers, workers=how)


def litdata(folder: Path, workers: int, copy: str = "litdata") -> Iterable[Any]:
    """Its loader over its format, whose chunks it shuffles."""
    from litdata import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(str(folder / copy), shuffle=True, seed=0)
    return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers)


def mosaic(folder: Path, workers: int, copy: str = "mosaic") -> Iterable[Any]:
    """Its loader over its format, with its default shuffle."""
    from streaming import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(local=str(folder / copy), shuffle=True, batch_size=BATCH)
    return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers)


def huggingface(folder: Path, workers: int) -> Iterable[Any]:
    """torch's loader over an arrow file, as numpy arrays, which takes half the time of tensors."""
    from datasets import load_from_disk
    from torch.utils.data import DataLoader

    dataset = load_from_disk(str(folder / "huggingface")).with_format("numpy")
    return DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=workers)


THREADS = ", threads"
OURS: dict[str, Callable[..., Iterable[Any]]] = {
    **{layout: partial(ours, layout=layout, how="processes") for layout in LAYOUTS},
    **{layout + THREADS: partial(ours, layout=layout, how="threads") for layout in LAYOUTS},
}
PEERS: dict[str, Callable[..., Iterable[Any]]] = {
    "litdata": litdata,
    "mosaic": mosaic,
    "huggingface": huggingface,
}

COMPRESSED: dict[str, Callable[[Path, Iterable[Any]], None]] = {
    "litdata": _compress_litdata,
    "mosaic": _compress_mosaic,
}
ZSTD, FIRST = " zstd", ", first pass"
CODECS = [name for name in OURS if "contiguous" not in name]


def measure(folder: Path, name: str, workers: int) -> float:
    """The items a second of a contestant: of the first pass over a fresh copy, or of the best of some."""
    if name.endswith(FIRST):
        return first_rate(OURS[name.removesuffix(FIRST)](folder, workers))
    if not name.endswith(ZSTD):
        return rate({**OURS, **PEERS}[name](folder, workers), _size)
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as scratch:
        shutil.copytree(folder / name, Path(scratch) / name, copy_function=os.link)
        return first_rate(PEERS[name.removesuffix(ZSTD)](Path(scratch), workers, name))


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    folder, name, workers = sys.argv[1:]
    print(json.dumps({"items_per_s": measure(Path(folder), name, int(workers))}))
