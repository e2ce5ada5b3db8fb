"""Values of every dtype equal what h5py and zarr read, however they are stored, or are refused by name."""

from __future__ import annotations

import os
import re
from collections import Counter

import numpy as np
import pytest
from kinds import Rows, hdf5, member, refused, same, sample, small_floats, zarr_array

from globidx import FileCacheDataset, GlobalIndexManager, Window

#: More of them: ``FUZZED_KINDS=10000 pytest tests/fuzz/test_kinds.py``
CASES = int(os.environ.get("FUZZED_KINDS", "1000"))
WRITERS = [hdf5, zarr_array, small_floats]


def options_of(rng, length):
    """A window over the file, or none: its options, the anchors, its offsets and its padding."""
    if rng.random() < 0.4:
        return {}, range(length), None, None
    offsets = [int(one) for one in np.unique(rng.integers(-2, 4, rng.integers(1, 4)))]
    pad = [None, "edge", "zero"][int(rng.integers(3))]
    before, after = (max(0, -offsets[0]), max(0, offsets[-1])) if pad else (0, 0)
    anchors = range(-offsets[0] - before, length - offsets[-1] + after)
    if not anchors or not length:
        return {}, range(length), None, None
    if len(offsets) == 1 and rng.random() < 0.5:
        return (
            {"sequences": "file", "window": Window(offsets[0], pad=pad)},
            anchors,
            offsets[0],
            pad,
        )
    return {"sequences": "file", "window": Window(offsets, pad=pad)}, anchors, offsets, pad


def narrowed(rng, key, rows):
    """A member of a compound array in place of all of it, now and then."""
    while key and isinstance(rows, Rows) and rows.dtype.names is not None and rng.random() < 0.4:
        if rows.dtype.names == ("real", "imag"):
            break
        name = str(rng.choice(rows.dtype.names))
        shape = rows.dtype[name].shape
        key, rows = f"{key}/{name}", member(rows, name)
        if shape:
            break
    return key, rows


def compare(rng, world, cache):
    """What became of the case; an AssertionError where it is another value than the library's."""
    key, rows = narrowed(rng, world.key, world.rows)
    reason = refused(rows.dtype) if isinstance(rows, Rows) else ""
    length = len(rows.array if isinstance(rows, Rows) else rows)
    options, anchors, offsets, pad = options_of(rng, length)
    # the library has none of the small floats
    by_library = isinstance(rows, Rows) and rng.random() < 0.3
    try:
        manager = GlobalIndexManager(
            world.path, key=key, axis=world.axis, cache_dir=cache, **options
        )
        dataset = FileCacheDataset(
            manager,
            on_missing="fill",
            backend="library" if by_library else "auto",
            cache_bytes=int(rng.choice([0, 2**24])),
        )
    except ValueError as error:
        if reason and re.search(rf"'.*' has dtype {reason}", str(error)):
            return "refused"
        raise
    assert not reason, f"{reason} was given"
    assert len(dataset) == len(anchors), (options, len(dataset), anchors)
    ids = [int(one) for one in rng.integers(0, len(anchors), rng.integers(1, 5))]
    for number, given in zip(ids, dataset.__getitems__(ids), strict=True):
        anchor = anchors[number]
        if offsets is None:
            wanted = sample(rows, anchor, None)
        elif isinstance(offsets, int):
            wanted = sample(rows, anchor + offsets, pad)
        else:
            wanted = sample(rows, [anchor + one for one in offsets], pad)
        assert same(given, wanted), f"id {number}: {given!r}, and not {wanted!r}"
        assert same(dataset[number], wanted)
    dataset.close()
    return "equal"


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_values_equal_those_of_the_library_that_wrote_them(tmp_path, write):
    """Any dtype x filters x chunks x shape x byte order x axis x window: equal to the bit, or refused by name."""
    came = Counter()
    for case in range(CASES):
        rng = np.random.default_rng([case, WRITERS.index(write)])
        path = tmp_path / f"{case}.{'h5' if write is hdf5 else 'zarr'}"
        try:
            world = write(rng, path)
        except (TypeError, ValueError, OSError, AttributeError):
            # some combinations neither h5py nor zarr writes, or reads back
            came["not written"] += 1
            continue
        try:
            came[compare(rng, world, tmp_path / "cache")] += 1
        except Exception as error:
            error.add_note(f"case {case} of {write.__name__}: {world.told}")
            raise
    assert came["equal"] > 0.75 * CASES, came
