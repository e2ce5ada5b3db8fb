"""The items that ``read.py`` reads, in every layout, and converted copies for those who read only their own format."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numcodecs
import numpy as np
import zarr

SHAPE, DTYPE, FILES, CHUNK = (128, 128), "uint16", 8, 16

# name: how many items are decoded together
LAYOUTS = {
    "zarr3 chunk 1": 1,
    "zarr3 chunk 16": CHUNK,
    "zarr3 shards": 1,
    "zarr2 blosc": CHUNK,
    "hdf5 contiguous": 0,
    "hdf5 gzip": CHUNK,
    "hdf5 chunk 16": CHUNK,
}


def images(number: int, count: int) -> np.ndarray:
    """Items of one file: a smooth background with a few counts of noise, as a detector has; zstd halves them."""
    random = np.random.default_rng(number)
    ramp = np.add.outer(np.arange(SHAPE[0]), np.arange(SHAPE[1]))
    return (100 + ramp // 16 + random.poisson(4, (count, *SHAPE))).astype(DTYPE)


def write(folder: Path, layout: str, items: int) -> None:
    """Eight files of ``layout`` in ``folder``, unless they are there."""
    target = folder / layout.replace(" ", "-")
    if target.exists():
        return
    part = target.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for number in range(FILES):
        data = images(number, items // FILES)
        if layout.startswith("zarr"):
            _zarr(part / f"{number}.zarr", layout, data)
        else:
            with h5py.File(part / f"{number}.h5", "w") as file:
                options = {} if layout == "hdf5 contiguous" else {"chunks": (CHUNK, *SHAPE)}
                file.create_dataset(
                    "x",
                    data=data,
                    **options,
                    **({"compression": "gzip"} if "gzip" in layout else {}),
                )
    part.rename(target)


def _zarr(path: Path, layout: str, data: np.ndarray) -> None:
    options = {"chunks": (LAYOUTS[layout], *SHAPE)}
    if layout == "zarr3 shards":
        options["shards"] = (64, *SHAPE)
    if layout == "zarr2 blosc":
        options |= {
            "zarr_format": 2,
            "compressors": numcodecs.Blosc("zstd", 3, numcodecs.Blosc.SHUFFLE),
        }
    zarr.create_array(path, data=data, **options)


def convert(folder: Path, peer: str, items: int) -> None:
    """A copy in the format of ``peer``, unless it is there."""
    target = folder / peer
    if target.exists():
        return
    part = folder / f"{peer}-part"
    shutil.rmtree(part, ignore_errors=True)
    CONVERTERS[peer](part, items)
    part.rename(target)


def every(items: int) -> list[tuple[int, int]]:
    """(file, item) of all of them, in order."""
    return [(number, item) for number in range(FILES) for item in range(items // FILES)]


def _mosaic(target: Path, items: int) -> None:
    from streaming import MDSWriter

    column = f"ndarray:{DTYPE}:{','.join(map(str, SHAPE))}"
    with MDSWriter(out=str(target), columns={"x": column}) as writer:
        for number in range(FILES):
            for image in images(number, items // FILES):
                writer.write({"x": image})


def _litdata(target: Path, items: int) -> None:
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(target), chunk_bytes="64MB")
    for number in range(FILES):
        for place, image in enumerate(images(number, items // FILES)):
            writer[number * (items // FILES) + place] = image
    writer.done()
    writer.merge()


def _huggingface(target: Path, items: int) -> None:
    from datasets import Array2D, Dataset, Features

    def generate():
        for number in range(FILES):
            for image in images(number, items // FILES):
                yield {"x": image}

    features = Features({"x": Array2D(SHAPE, DTYPE)})
    Dataset.from_generator(
        generate, features=features, cache_dir=str(target) + "-cache"
    ).save_to_disk(str(target))
    shutil.rmtree(str(target) + "-cache", ignore_errors=True)


CONVERTERS: dict[str, Callable[[Path, int], None]] = {
    "mosaic": _mosaic,
    "litdata": _litdata,
    "huggingface": _huggingface,
}
