"""Read damaged files, one after the other: a process of its own, which may crash.

usage: damage.py SEED FIRST STOP globidx|library FOLDER

A line comes before each file, so that whoever started this knows which one it did not survive.
"""

from __future__ import annotations

import random
import resource
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
from seeds import SEEDS, WIDTH

#: A damaged size must not make the machine swap.
MEMORY = 2 * 2**30


def telling_places(path: Path, whole: bytes) -> list[int]:
    """Where an HDF5 file has metadata that are not zero."""
    if not h5py.is_hdf5(path):
        return []
    spans: list[tuple[int, int]] = []
    with h5py.File(path, "r") as file:
        dataset = file["x"]
        if dataset.chunks is None:
            spans.append((dataset.id.get_offset(), dataset.id.get_storage_size()))
        else:
            dataset.id.chunk_iter(lambda info: spans.append((info.byte_offset, info.size)))
    data = {place for start, size in spans for place in range(start, start + size)}
    return [place for place, byte in enumerate(whole) if byte and place not in data]


def mutated(whole: bytes, telling: list[int], chance: random.Random) -> bytes:
    """``whole`` with one to three faults: flipped bits, other numbers, numbers from elsewhere, holes, a cut."""
    data = bytearray(whole)
    for _ in range(chance.choice((1, 1, 2, 3))):
        # most bytes of a small file are data or zeros; what says where the data are is neither
        place = (
            chance.choice(telling)
            if telling and chance.random() < 0.8
            else chance.randrange(len(data))
        )
        place %= len(data)
        size = min(chance.choice((1, 2, 4, 8)), len(data) - place)
        fault = chance.randrange(6)
        if fault <= 1:
            data[place] ^= 1 << chance.randrange(8)
        elif fault == 2:
            data[place : place + size] = chance.choice((b"\0", b"\xff", b"\x7f")) * size
        elif fault == 3:
            there = chance.randrange(len(data) - size + 1)
            data[place : place + size] = data[there : there + size]
        elif fault == 4:
            number = int.from_bytes(data[place : place + size], "little") + chance.choice(
                (-1, 1, 8, 256)
            )
            data[place : place + size] = (number % 256**size).to_bytes(size, "little")
        elif chance.random() < 0.2:
            del data[max(1, place) :]
    return bytes(data)


def by_globidx(path: Path, cache: Path, on_missing: str) -> None:
    """Index and read as a dataset does; what cannot be is an error of globidx."""
    from globidx.disk.index.manager import GlobalIndexManager
    from globidx.disk.reading.batch import FieldSpec
    from globidx.disk.reading.reader import Reader
    from globidx.errors import GlobidxError

    try:
        manager = GlobalIndexManager(path, key="x", cache_dir=cache)
    except (GlobidxError, ValueError):
        return
    if manager.arrays[0].item_bytes > 2**20:
        return
    reader = Reader(
        manager,
        [FieldSpec(0)],
        max_open_files=4,
        cache_bytes=2**20,
        on_missing=on_missing,
        backend="auto",
    )
    for item in range(min(len(manager), 48)):
        try:
            reader.read([item])
        except GlobidxError:
            continue
    reader.close()


def by_library(path: Path, cache: Path, on_missing: str) -> None:
    """The same by h5py or zarr alone."""
    import zarr

    file = None
    try:
        if path.is_dir():
            array = zarr.open_group(path, mode="r")["x"]
        else:
            file = h5py.File(path, "r", rdcc_nbytes=0)
            array = file["x"]
        if np.prod(array.shape[1:], dtype=float) * array.dtype.itemsize > 2**20:
            return
        for item in range(min(len(array), 48)):
            try:
                array[item]
            except Exception:  # noqa: BLE001 - an error of any kind is right
                continue
    except Exception:  # noqa: BLE001 - the same
        return
    finally:
        if file is not None:
            file.close()


def main(name: str, first: int, stop: int, how: str, folder: Path) -> None:
    """Damage and read files ``first`` to ``stop`` of a seed."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    seed = next(seed for seed in SEEDS if seed.name == name)
    whole = folder / "whole"
    seed.write(whole)
    parts = sorted(
        path for path in ([whole] if whole.is_file() else whole.rglob("*")) if path.is_file()
    )
    read = by_globidx if how == "globidx" else by_library
    for number in range(first, stop):
        chance = random.Random(f"{name} {number}")
        part = chance.choice(parts)
        kept = part.read_bytes()
        telling = telling_places(part, kept)
        print(number, flush=True)
        part.write_bytes(mutated(kept, telling, chance))
        read(whole, folder / "cache", "fill" if number % 2 else "error")
        part.write_bytes(kept)
    shutil.rmtree(folder)


if __name__ == "__main__":
    assert WIDTH
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], Path(sys.argv[5]))
