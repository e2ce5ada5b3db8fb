"""Other libraries' own loaders over their converted copies, beside ours over files in place, for ``delivery.py``.

python tools/bench/delivery_peers.py FOLDER CONTESTANT WORKERS

prints JSON: items a second that arrive in batches, of the best of some passes. Everyone shuffles in the way that
reads their own format fast. Those that cannot be imported sit out: Mosaic's streaming asks for an old numpy, so run
the section once more in an environment that has it.
"""

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
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
    for layout in LAYOUTS:
        read_data.write(folder, layout, items)
    best: dict[tuple[str, int], float] = {}
    for _ in range(repeats):
        for name in [*present, *OURS]:
            for workers in WORKERS:
                if not workers and name.endswith(THREADS):
                    continue
                found = fresh_process(Path(__file__), folder, name, workers)["items_per_s"]
                best[name, workers] = max(best.get((name, workers), 0.0), found)
    _tell(best, present)


def _tell(best: dict[tuple[str, int], float], present: list[str]) -> None:
    rows = [["items/s delivered", *(f"{workers} workers" for workers in WORKERS)]]
    rows += [
        [name, *(count(best.get((name, workers))) for workers in WORKERS)]
        for name in [*present, *OURS]
    ]
    print(table(rows) + "\n")
    if absent := sorted(set(NEEDS) - set(present)):
        print(f"not installed here: {', '.join(absent)}")
    for workers in WORKERS:
        for layout in LAYOUTS:
            ours = max(best.get((layout + how, workers), 0.0) for how in ("", THREADS))
            for peer in present:
                ratio = ours / best[peer, workers]
                print(f"{layout}, {workers} workers, ahead of {peer}: {at_least(1, ratio)}")


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


def litdata(folder: Path, workers: int) -> Iterable[Any]:
    """Its loader over its format, whose chunks it shuffles."""
    from litdata import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(str(folder / "litdata"), shuffle=True, seed=0)
    return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers)


def mosaic(folder: Path, workers: int) -> Iterable[Any]:
    """Its loader over its format, with its default shuffle."""
    from streaming import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(local=str(folder / "mosaic"), shuffle=True, batch_size=BATCH)
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

if __name__ == "__main__":
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    folder, name, workers = sys.argv[1:]
    made = {**OURS, **PEERS}[name](Path(folder), int(workers))
    print(json.dumps({"items_per_s": rate(made, _size)}))
