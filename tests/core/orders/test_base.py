"""Orders are bijections that depend on nothing but their own parameters."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import clean_environment

from globidx.orders import Order, Sequential, Shuffle

GOLDEN = Path(__file__).parents[2] / "golden" / "shuffle-1.json"

seeds = st.integers(0, 2**63 - 1)


@given(
    n=st.integers(0, 3000),
    seed=seeds,
    epoch=st.integers(0, 100),
    order=st.sampled_from([Shuffle(), Sequential()]),
)
def test_an_order_is_a_bijection_with_its_inverse(n, seed, epoch, order):
    """Every id stands at exactly one position, and position() finds it."""
    bound = order.bind(n, seed=seed, epoch=epoch)
    ids = bound.take(range(n)).tolist()
    assert sorted(ids) == list(range(n))
    assert bound.inverse(np.array(ids, np.int64)).tolist() == list(range(n))
    if n:
        assert bound.position(ids[n // 2]) == n // 2


@given(n=st.integers(2**40, 2**62), seed=seeds, data=st.data())
def test_shuffle_undoes_itself_at_any_size(n, seed, data):
    """Up to 2**62 samples, positions come back from ids, and no two positions share one."""
    bound = Shuffle().bind(n, seed=seed, epoch=3)
    positions = np.array(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=2, max_size=50))))
    ids = bound.take(positions)
    assert 0 <= ids.min() <= ids.max() < n
    assert len(set(ids.tolist())) == len(positions)
    assert bound.inverse(ids).tolist() == positions.tolist()


@given(
    n=st.integers(1, 500),
    start=st.integers(0, 500),
    step=st.integers(1, 9),
    block=st.integers(1, 70),
    data=st.data(),
)
def test_blocks_are_the_strided_range_cut_up(n, start, step, block, data):
    """ids(start, stop, step) in blocks is the plain range, whatever the block."""
    stop = data.draw(st.integers(0, n))
    bound = Shuffle().bind(n, seed=5, epoch=0)
    blocks = list(bound.ids(start, stop, step, block=block))
    assert all(0 < len(some) <= block for some in blocks)
    whole = bound.take(range(n)).tolist()
    assert [id for some in blocks for id in some.tolist()] == whole[start:stop:step]


def test_golden_vectors():
    """The numbers of shuffle version 1 are what they always were: another platform or numpy must not change a resumed run."""
    for case in json.loads(GOLDEN.read_text()):
        bound = Shuffle().bind(case["n"], seed=case["seed"], epoch=case["epoch"])
        assert bound.take(case["positions"]).tolist() == case["ids"], case


def test_an_order_does_not_depend_on_the_hash_seed():
    """Another process with another PYTHONHASHSEED computes the same order."""
    program = "from globidx.orders import Shuffle; print(Shuffle().bind(99, seed=1, epoch=2).take(range(99)).tolist())"
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=clean_environment(PYTHONHASHSEED=seed),
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert said == {
        str(Shuffle().bind(99, seed=1, epoch=2).take(range(99)).tolist()).encode() + b"\n"
    }


def test_epochs_and_seeds_have_orders_of_their_own():
    """Neighbouring seeds and epochs, and their swaps, are unrelated orders."""
    orders = {
        (seed, epoch): Shuffle().bind(1000, seed=seed, epoch=epoch).take(range(1000))
        for seed in range(4)
        for epoch in range(4)
    }
    for one, other in itertools.combinations(orders.values(), 2):
        assert (one == other).sum() < 12
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.2


@pytest.mark.parametrize("bad", [-1, 2**63, 1.0, True, None, "7"])
def test_bad_seeds_and_epochs_are_refused(bad):
    """Nothing is truncated or taken modulo silently."""
    with pytest.raises((TypeError, ValueError), match="seed"):
        Shuffle().bind(10, seed=bad, epoch=0)
    with pytest.raises((TypeError, ValueError), match="epoch"):
        Shuffle().bind(10, seed=0, epoch=bad)


def test_orders_are_values():
    """Equal by what they describe; the description names algorithm and version."""
    assert Shuffle() == Shuffle() != Sequential()
    assert len({Shuffle(), Shuffle(), Sequential()}) == 2
    assert all(
        isinstance(order, Order) and set(order.describe()) >= {"algorithm", "version"}
        for order in [Shuffle(), Sequential()]
    )
