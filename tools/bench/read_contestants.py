"""Who reads, in ``read.py``: each by its own public code, and one measurement of one of them.

python tools/bench/read_contestants.py FOLDER LAYOUT CONTESTANT ITEMS BOUND

prints JSON: how many items a second, over BOUND items at most, of files that are in the page cache and open already.
"""

import json
import logging
import random
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from read_data import CHUNK, DTYPE, FILES, LAYOUTS, SHAPE, every

BATCH, WINDOW = 64, 8
ITEM = int(np.prod(SHAPE)) * np.dtype(DTYPE).itemsize
Timed = Iterator[int]  # yields how many items came, each time some came


def files(folder: Path, layout: str) -> list[Path]:
    """The eight files of a layout."""
    suffix = "zarr" if layout.startswith("zarr") else "h5"
    return [folder / layout.replace(" ", "-") / f"{number}.{suffix}" for number in range(FILES)]


def shuffled(items: int) -> list[tuple[int, int]]:
    """(file, item) of all, in a full shuffle."""
    order = every(items)
    random.Random(0).shuffle(order)
    return order


def naive(folder: Path, layout: str, items: int) -> Timed:
    """Open the file, read an item, close it."""
    opened = _opener(layout)
    paths = files(folder, layout)
    for number, item in shuffled(items):
        array, close = opened(paths[number])
        np.asarray(array[item])
        close()
        yield 1


def cached(folder: Path, layout: str, items: int) -> Timed:
    """Files opened once, items read one by one: what most people write."""
    arrays = [_opener(layout)(path)[0] for path in files(folder, layout)]
    for array in arrays:
        array[0]
    yield 0
    for number, item in shuffled(items):
        np.asarray(arrays[number][item])
        yield 1


def limit(folder: Path, layout: str, items: int) -> Timed:
    """Every chunk read and decoded once, in the order of the files, by the codec alone.

    Contiguous data: the items are copied out of a memory map, a batch at a time.
    """
    if layout == "hdf5 contiguous":
        yield from _mapped(folder, layout, items)
    elif layout.startswith("hdf5"):
        yield from _direct(folder, layout)
    else:
        yield from _decoded(folder, layout)


def ours(
    folder: Path,
    layout: str,
    items: int,
    *,
    shuffle: str,
    workers: int = 0,
    notes: dict[str, Any] | None = None,
) -> Timed:
    """``FileCacheDataset``: batches of 64 samples as the loader asks for them, or the loader itself with workers."""
    import torch.utils.data

    from globidx import (
        DataLoader,
        FileCacheDataset,
        GlobalIndexManager,
        ResumableDistributedSampler,
        orders,
    )

    dataset = FileCacheDataset(GlobalIndexManager(files(folder, layout)))
    dataset.__getitems__(range(0, len(dataset), items // FILES))
    dataset.counters(reset=True)
    if shuffle == "chunk" and hasattr(orders, "ChunkShuffle"):
        sampler = ResumableDistributedSampler(
            dataset, 1, 0, order=orders.ChunkShuffle(window=WINDOW)
        )
        loader = partial(DataLoader, dataset, batch_size=BATCH, sampler=sampler)
        ids = [] if workers else list(sampler)
    else:
        place = {pair: id for id, pair in enumerate(every(items))}
        ids = [place[pair] for pair in shuffled(items)] if shuffle == "full" else emulated(items)
        loader = partial(torch.utils.data.DataLoader, dataset, batch_sampler=list(_batches(ids)))
    if workers:
        batches = iter(loader(num_workers=workers))
        yield len(next(batches))  # they have started
        yield 0
        yield from map(len, batches)
        return
    for number, batch in enumerate(_batches(ids)):
        if number == len(ids) // BATCH // 8:
            yield 0  # the heap has grown to what it needs
        yield len(dataset.__getitems__(batch))
    if notes is not None and LAYOUTS[layout] > 1:
        notes["decodes_per_chunk"] = dataset.counters().decodes / (items / LAYOUTS[layout])


def emulated(items: int) -> list[int]:
    """What ``ChunkShuffle`` does on one rank without workers, where it is not to be had: windows of shuffled chunks."""
    dice, blocks = (
        random.Random(0),
        [range(first, first + CHUNK) for first in range(0, items, CHUNK)],
    )
    dice.shuffle(blocks)
    ids: list[int] = []
    for first in range(0, len(blocks), WINDOW):
        window = [id for block in blocks[first : first + WINDOW] for id in block]
        dice.shuffle(window)
        ids += window
    return ids


def mosaic(folder: Path, layout: str, items: int, *, own: bool) -> Timed:
    """mosaicml-streaming over its own format: item by item in a full shuffle, or its own shuffled iteration."""
    from streaming import StreamingDataset

    dataset = StreamingDataset(local=str(folder / "mosaic"), shuffle=own, batch_size=BATCH)
    yield from _peer(
        (sample["x"] for sample in dataset) if own else (dataset[i]["x"] for i in _numbers(items))
    )


def litdata(folder: Path, layout: str, items: int, *, own: bool) -> Timed:
    """litdata over its own format, likewise."""
    from litdata import StreamingDataset

    dataset = StreamingDataset(str(folder / "litdata"), shuffle=own, seed=0)
    yield from _peer(iter(dataset) if own else (dataset[i] for i in _numbers(items)))


def huggingface(folder: Path, layout: str, items: int) -> Timed:
    """HF datasets: an arrow file, memory-mapped, items as numpy arrays."""
    from datasets import load_from_disk

    dataset = load_from_disk(str(folder / "huggingface")).with_format("numpy")
    yield from _peer(dataset[i]["x"] for i in _numbers(items))


CONTESTANTS: dict[str, Callable[..., Timed]] = {
    "decode limit": limit,
    "naive": naive,
    "cached handles": cached,
    "ours full": partial(ours, shuffle="full"),
    "ours chunk": partial(ours, shuffle="chunk"),
    "ours full, 2 workers": partial(ours, shuffle="full", workers=2),
    "ours chunk, 2 workers": partial(ours, shuffle="chunk", workers=2),
}
PEERS: dict[str, Callable[..., Timed]] = {
    "mosaic full": partial(mosaic, own=False),
    "mosaic own shuffle": partial(mosaic, own=True),
    "litdata full": partial(litdata, own=False),
    "litdata own shuffle": partial(litdata, own=True),
    "huggingface full": huggingface,
}
NEEDS = {"mosaic": "streaming", "litdata": "litdata", "huggingface": "datasets"}


def measure(folder: Path, layout: str, name: str, items: int, bound: int) -> dict[str, Any]:
    """Items a second, and CPU time an item, from the last time that a contestant said 0 to the end."""
    notes: dict[str, Any] = {}
    options = {"notes": notes} if name in ("ours full", "ours chunk") else {}
    count, start, used = 0, perf_counter(), process_time()
    for some in {**CONTESTANTS, **PEERS}[name](folder, layout, items, **options):
        count += some
        if not some:
            count, start, used = 0, perf_counter(), process_time()
        if count >= bound:
            break
    taken, used = perf_counter() - start, process_time() - used
    return {"items": count, "items_per_s": count / taken, "cpu_us": 1e6 * used / count, **notes}


def _opener(layout: str) -> Callable[[Path], tuple[Any, Callable[[], None]]]:
    if layout.startswith("zarr"):
        zarr = import_module("zarr")
        return lambda path: (zarr.open_array(path, mode="r"), lambda: None)
    h5py = import_module("h5py")

    def opened(path: Path) -> tuple[Any, Callable[[], None]]:
        file = h5py.File(path, "r")
        return file["x"], file.close

    return opened


def _mapped(folder: Path, layout: str, items: int) -> Timed:
    h5py = import_module("h5py")
    maps = []
    for path in files(folder, layout):
        with h5py.File(path) as file:
            offset, shape = file["x"].id.get_offset(), file["x"].shape
        maps.append(np.memmap(path, DTYPE, "r", offset, shape))
        maps[-1].sum()  # every page has been touched
    yield 0
    order = shuffled(items)
    for start in range(0, items, BATCH):
        batch = [np.array(maps[number][item]) for number, item in order[start : start + BATCH]]
        yield len(batch)


def _direct(folder: Path, layout: str) -> Timed:
    h5py, inflated = import_module("h5py"), inflate()
    datasets = [h5py.File(path, "r")["x"] for path in files(folder, layout)]
    yield 0
    for dataset in datasets:
        for first in range(0, len(dataset), CHUNK):
            stored = dataset.id.read_direct_chunk((first, 0, 0))[1]
            data = inflated(stored) if "gzip" in layout else stored
            yield len(data) // ITEM


def inflate() -> Callable[[Any], Any]:
    """What inflates a chunk: the fastest library that is installed."""
    for name in ("deflate", "zlib_ng.zlib_ng"):
        with suppress(ImportError):
            library: Any = import_module(name)
            if name == "deflate":
                return partial(library.zlib_decompress, originalsize=CHUNK * ITEM)
            return library.decompress
    return zlib.decompress


def _decoded(folder: Path, layout: str) -> Timed:
    codecs = import_module("numcodecs")
    decode = (codecs.Blosc() if layout == "zarr2 blosc" else codecs.Zstd()).decode
    stored = sorted(
        path
        for store in files(folder, layout)
        for path in store.rglob("*")
        if path.is_file()
        and not path.name.startswith(".z")
        and path.name not in (".zarray", "zarr.json")
    )
    stored = [str(path) for path in stored]
    count = max(1, LAYOUTS[layout])
    out = np.empty(count * ITEM, "u1")
    for path in stored[:64]:
        Path(path).read_bytes()
    yield 0
    for path in stored:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
        if layout != "zarr3 shards":
            decode(data, out=out)
            yield count
            continue
        index = np.frombuffer(data, "<u8", count=128, offset=len(data) - 16 * 64 - 4).tolist()
        for offset, size in zip(index[::2], index[1::2], strict=True):
            decode(memoryview(data)[offset : offset + size], out=out)
            yield 1


def _numbers(items: int) -> list[int]:
    numbers = list(range(items))
    random.Random(0).shuffle(numbers)
    return numbers


def _peer(samples: Iterable[Any]) -> Timed:
    """Count what a peer gives, once it has begun and opened its files."""
    iterator = iter(samples)
    for sample in islice(iterator, 64):
        assert np.asarray(sample).shape == SHAPE
    yield 0
    for _ in iterator:
        yield 1


def _batches(ids: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    folder, layout, name, items, bound = sys.argv[1:]
    print(json.dumps(measure(Path(folder), layout, name, int(items), int(bound))))
