"""The ground: blocks of whole chunks in units, a bijection with its inverse, and neighbours share chunks."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.index.chunking import Chunking
from globidx.core.orders.ground import Ground, Tiling

files = st.lists(
    st.tuples(st.integers(0, 90), st.sampled_from([1, 4, 4, 7, 16])), min_size=1, max_size=8
)


def chunking_of(files):
    return Chunking.of([length for length, _ in files], [[chunk] for _, chunk in files])


def whole(ground, tiling):
    """All ids of the ground, and the units that they were computed in."""
    total = tiling.chunking.num_samples
    units = ground.forward_units(np.arange(-(-total // tiling.unit)))
    return units.ravel()[:total], units


@given(files, st.integers(1, 6), st.integers(1, 9), st.integers(0, 99))
def test_it_is_a_bijection_and_inverse_undoes_it(files, window, share, seed):
    """Every sample once, whatever the files, and each place is found again."""
    tiling = Tiling.of(chunking_of(files), window, share)
    ground = Ground(tiling, seed, 0)
    ids, units = whole(ground, tiling)
    assert sorted(ids.tolist()) == list(range(len(ids)))
    assert ground.inverse(ids).tolist() == list(range(len(ids)))
    for unit in range(len(units)):
        assert ground.forward_units(np.array([unit])).tolist() == [units[unit].tolist()]


@given(files, st.integers(1, 6), st.integers(0, 99))
def test_a_unit_touches_no_more_chunks_than_its_window_and_its_two_ends(files, window, seed):
    """Of the longest chunk length: that is what a cache of so many blocks is for."""
    chunking = chunking_of(files)
    tiling = Tiling.of(chunking, window, 1)
    ground = Ground(tiling, seed, 0)
    _, units = whole(ground, tiling)
    chunk_of = {}
    for file, (length, chunk) in enumerate(zip(chunking.lengths, chunking.chunks, strict=True)):
        for item in range(int(length)):
            chunk_of[len(chunk_of)] = file, item // int(chunk)
    uniform = len({int(chunk) for chunk in chunking.chunks}) == 1
    if not uniform or (chunking.lengths % chunking.chunks).any():
        return
    for unit in units[: ground.units]:
        assert len({chunk_of[id] for id in unit.tolist()}) <= window


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 9))
def test_chunks_lie_whole_and_in_their_own_order_where_all_files_are_cut_alike(chunk, count, seed):
    """A block is a run of ids, cut at multiples of the chunk."""
    tiling = Tiling.of(Chunking.of([chunk * count] * 3, [[chunk]] * 3), 2, 1)
    ids, _ = whole(Ground(tiling, seed, 0), tiling)
    blocks = ids.reshape(-1, chunk)
    assert (blocks[:, 0] % chunk == 0).all()
    assert (np.diff(blocks, axis=1) == 1).all()


def test_epochs_and_seeds_differ_and_the_same_is_the_same():
    """Blocks are dealt anew each epoch."""
    tiling = Tiling.of(Chunking.of([64] * 4, [[4]] * 4), 2, 1)
    seen = Counter(
        tuple(whole(Ground(tiling, seed, epoch), tiling)[0].tolist())
        for seed in (0, 1, 0)
        for epoch in (0, 1)
    )
    assert sorted(seen.values()) == [1, 1, 2, 2]


def test_a_terabyte_of_samples_is_arithmetic():
    """Units from the middle and back, of 10**12 samples."""
    tiling = Tiling.of(Chunking.of([10**9] * 1000, [[16]] * 1000), 8, 1)
    ground = Ground(tiling, 3, 1)
    some = np.array([0, 10**9, ground.units - 1])
    ids = ground.forward_units(some)
    places = some[:, None] * tiling.unit + np.arange(tiling.unit)
    np.testing.assert_array_equal(ground.inverse(ids.ravel()), places.ravel())
