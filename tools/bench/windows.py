"""What windows over sequences cost: index, decodes, first batch, and items/s beside other projects' classes.

usage: windows.py [PART ...] [--sequences N] [--items N]

index   an index of N sequences (and 10^9 windows): opened from its cache, its size, look-ups beside a searchsorted,
        the first batch of a fresh process, and its scan beside a bare loop over the same groups by h5py
decodes how often a chunk of 16 rows is decoded in an epoch of windows of 16, in the orders Shuffle and ChunkShuffle
peers   items/s in batches, beside robomimic's SequenceDataset and The Well's WellDataset reading the same files from
        disk, where they can be imported; ids at random, the same for both, in this process
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import missing, seconds

SPAN, CHUNK, BATCH = 16, 16, 32


def main(arguments: list[str] | None = None) -> None:
    """Print the figures of the parts that are asked for, by default all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--sequences", type=int, default=10**5, help="groups of the indexed file")
    parser.add_argument("--items", type=int, default=2048, help="items that peers are measured on")
    parser.add_argument("--first", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.first:
        print(_first_batch(*given.first))
        return
    for part in given.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{part}:")
            PARTS[part](Path(folder), given)


# -- the index


def _groups(path: Path, count: int) -> None:
    """An HDF5 file of so many demos, a row each: what costs is the groups."""
    import h5py

    with h5py.File(path, "w", libver="latest") as file:
        data = file.create_group("data")
        for number in range(count):
            rows = np.zeros((20 + number % 16, 4), "f4")
            data.create_group(f"demo_{number}").create_dataset("actions", data=rows)


def _manager(path: Path | str) -> Any:
    import globidx

    return globidx.GlobalIndexManager(
        path,
        key="data/*/actions",
        sequences="match",
        window=globidx.Window(range(SPAN), pad="edge"),
    )


def _index(folder: Path, given: argparse.Namespace) -> None:
    import h5py

    path = folder / "demos.hdf5"
    _groups(path, given.sequences)
    started = time.process_time()
    with h5py.File(path) as file:
        for name in file["data"]:
            dataset = file[f"data/{name}/actions"]
            _ = dataset.shape, dataset.dtype, dataset.chunks
    bare = time.process_time() - started
    # younger than its stamp can prove, the file would be scanned again
    os.utime(path, (1, 1))
    started = time.process_time()
    manager = _manager(path)
    scan = time.process_time() - started
    size = manager.cache_path.stat().st_size / 2**20
    print(
        f"  scan of {given.sequences} groups {seconds(scan)}, a bare loop by h5py {seconds(bare)}: "
        f"{scan / bare:.2f} x; the cache has {size:.1f} MiB"
    )
    again = [_timed(lambda: _manager(path)) for _ in range(5)]
    print(f"  opened from its cache in {seconds(min(again))}")
    command = [sys.executable, __file__, "--first", str(path), str(len(manager))]
    fresh = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(f"  index and first batch of a fresh process, imports left out: {seconds(fresh)}")
    _print_look_ups(given.sequences)


def _print_look_ups(sequences: int) -> None:
    """10^9 windows over the sequences: built, and looked up beside a bare searchsorted."""
    from globidx import Window
    from globidx.core.windows.anchors import Anchors

    lengths = np.full(sequences, 10**9 // sequences, np.int64)
    window = Window(range(SPAN), pad="edge")
    built = min(_timed(lambda: Anchors(lengths, window)) for _ in range(5))
    anchors = Anchors(lengths, window)
    ends = np.cumsum(lengths)
    print(f"  {len(anchors):.0e} windows over them: built in {seconds(built)}")
    for count in (32, 4096, 10**6):
        ids = np.random.default_rng(0).integers(0, len(anchors), count)
        ours = min(_timed(lambda ids=ids: anchors.locate_many(ids)) for _ in range(15))
        bare = min(_timed(lambda ids=ids: ends.searchsorted(ids, "right")) for _ in range(15))
        print(f"  locate_many of {count}: {seconds(ours)}, {ours / bare:.1f} x a bare searchsorted")


def _first_batch(path: str, samples: str) -> float:
    import globidx
    import globidx.disk.stores.hdf5.library

    # everything is imported before the clock starts
    import globidx.torch.dataset

    ids = np.random.default_rng(1).integers(0, int(samples), BATCH).tolist()
    started = time.perf_counter()
    globidx.FileCacheDataset(_manager(path)).__getitems__(ids)
    return time.perf_counter() - started


# -- decodes


def _decodes(folder: Path, given: argparse.Namespace) -> None:
    import h5py
    import zarr

    import globidx

    rng = np.random.default_rng(0)
    rows = rng.integers(0, 255, (8192, 64), dtype=np.uint8)
    ends = np.cumsum(rng.multinomial(8192 - 64 * 60, np.ones(60) / 60) + 64)
    with h5py.File(folder / "groups.hdf5", "w") as file:
        for number, part in enumerate(np.split(rows, ends[:-1])):
            file.create_dataset(f"data/{number}/x", data=part, chunks=(CHUNK, 64))
    group = zarr.open_group(str(folder / "ends.zarr"), mode="w")
    group.create_array("x", data=rows, chunks=(CHUNK, 64))
    group.create_array("ends", data=ends)
    kinds = {
        "groups": ("groups.hdf5", {"key": "data/*/x", "sequences": "match"}),
        "runs": ("ends.zarr", {"key": "x", "sequences": "ends"}),
        "a file": ("ends.zarr", {"key": "x", "sequences": "file"}),
    }
    orders = globidx.orders.Shuffle(), globidx.orders.ChunkShuffle()
    for kind, (name, options) in kinds.items():
        for order in orders:
            manager = globidx.GlobalIndexManager(
                folder / name, window=globidx.Window(range(SPAN)), **options
            )
            # as much as ChunkShuffle asks for, and far less than all
            dataset = globidx.FileCacheDataset(manager, cache_bytes=100 * CHUNK * 64)
            sampler = globidx.ResumableDistributedSampler(
                dataset, num_replicas=1, rank=0, order=order
            )
            for _ in globidx.DataLoader(dataset, batch_size=BATCH, sampler=sampler):
                pass
            chunks = -(-manager.now.units.index.lengths // CHUNK)
            told = dataset.counters().decodes / int(chunks.sum())
            print(f"  {kind:8} {type(order).__name__:13} {told:6.2f} decodes a chunk")


# -- other projects


def _peers(folder: Path, given: argparse.Namespace) -> None:
    for name, module, make in (
        ("robomimic", "robomimic", _robomimic),
        ("The Well", "the_well", _the_well),
    ):
        if missing([module]):
            print(f"  {name}: not installed")
            continue
        # one after the other: a file that another reader has open in an unusual way is read by h5py
        ours, theirs = (_rate(opened, given.items) for opened in make(folder))
        if ours[0] != theirs[0]:
            sys.exit(f"{name} has {theirs[0]} samples, globidx {ours[0]}")
        print(
            f"  {name}: {theirs[1]:.0f} items/s, globidx {ours[1]:.0f}: {ours[1] / theirs[1]:.1f} x"
        )


def _rate(opened: Callable[[], Any], items: int) -> tuple[int, float]:
    """How many samples a data set has, and how many of them it reads a second, in batches at random."""
    dataset = opened()
    ids = np.random.default_rng(0).integers(0, len(dataset), items).tolist()
    batches = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
    many = getattr(dataset, "__getitems__", lambda batch: [dataset[id] for id in batch])
    many(batches[0])

    def epoch() -> None:
        for batch in batches:
            # gone with the next one, as in a training loop
            many(batch)

    rate = items / min(_timed(epoch) for _ in range(5))
    if hasattr(dataset, "close"):
        dataset.close()
    return len(dataset), rate


def _robomimic(folder: Path) -> tuple[Callable[[], Any], Callable[[], Any]]:
    import h5py
    from robomimic.utils.dataset import SequenceDataset

    import globidx

    path = folder / "demos.hdf5"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in range(100):
            demo = file.create_group(f"data/demo_{number}")
            demo.attrs["num_samples"] = rows = 100 + number % 50
            demo.create_dataset("actions", data=rng.normal(size=(rows, 7)))
            image = rng.integers(0, 255, (rows, 84, 84, 3), dtype=np.uint8)
            demo.create_dataset("obs/agentview_image", data=image)
            demo.create_dataset("obs/robot0_eef_pos", data=rng.normal(size=(rows, 3)))
    theirs = partial(
        SequenceDataset,
        str(path),
        obs_keys=("agentview_image", "robot0_eef_pos"),
        dataset_keys=("actions",),
        frame_stack=2,
        seq_length=10,
        hdf5_cache_mode=None,
        hdf5_normalize_obs=False,
        load_next_obs=False,
    )
    window = globidx.Window(range(-1, 10), pad="edge", before=1, after=9)
    key = {
        "obs/{agentview_image,robot0_eef_pos}": "data/*/obs/{agentview_image,robot0_eef_pos}",
        "actions": "data/*/actions",
    }
    manager = globidx.GlobalIndexManager(path, key=key, sequences="match", window=window)
    return partial(globidx.FileCacheDataset, manager), theirs


def _the_well(folder: Path) -> tuple[Callable[[], Any], Callable[[], Any]]:
    from the_well.data import WellDataset

    import globidx

    path = folder / "well"
    _write_well(path)
    theirs = partial(
        WellDataset, path=str(path), n_steps_input=4, n_steps_output=1, use_normalization=False
    )
    key = {"density": "t0_fields/density", "velocity": "t1_fields/velocity"}
    manager = globidx.GlobalIndexManager(
        path, key=key, sequences="axis", window=range(5), constants={"x": "dimensions/x"}
    )
    return partial(globidx.FileCacheDataset, manager), theirs


def _write_well(folder: Path) -> None:
    """Three files as The Well has them: 4 trajectories of 50 steps on a grid of 64 x 64."""
    import h5py

    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        with h5py.File(folder / f"data_{number}.hdf5", "w") as file:
            file.attrs.update(
                dataset_name="dummy",
                grid_type="cartesian",
                n_spatial_dims=2,
                n_trajectories=4,
                simulation_parameters=["a"],
                a=0.5,
            )
            dimensions = file.create_group("dimensions")
            dimensions.attrs["spatial_dims"] = ["x", "y"]
            for name, size in (("time", 50), ("x", 64), ("y", 64)):
                one = dimensions.create_dataset(name, data=np.linspace(0, 1, size, dtype="f4"))
                one.attrs["sample_varying"] = False
            boundary = file.create_group("boundary_conditions")
            for name in ("x", "y"):
                one = boundary.create_group(f"{name}_periodic")
                one.attrs.update(
                    associated_dims=[name],
                    associated_fields=[],
                    bc_type="periodic",
                    sample_varying=False,
                    time_varying=False,
                )
                one.create_dataset("mask", data=np.zeros(64, bool))
            scalars = file.create_group("scalars")
            scalars.attrs["field_names"] = ["a"]
            one = scalars.create_dataset("a", data=np.float32(0.5))
            one.attrs.update(sample_varying=False, time_varying=False)
            for order, names in (("t0_fields", ["density"]), ("t1_fields", ["velocity"])):
                fields = file.create_group(order)
                fields.attrs["field_names"] = names
                shape = (4, 50, 64, 64) + (2,) * (order == "t1_fields")
                for name in names:
                    one = fields.create_dataset(name, data=rng.random(shape, "f4"))
                    one.attrs.update(
                        dim_varying=[True, True], sample_varying=True, time_varying=True
                    )
            file.create_group("t2_fields").attrs["field_names"] = []


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


PARTS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "index": _index,
    "decodes": _decodes,
    "peers": _peers,
}

if __name__ == "__main__":
    main()
