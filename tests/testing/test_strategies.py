"""Strategies draw what their names say, and without hypothesis their import says what to install."""

import subprocess
import sys

from hypothesis import find, given
from hypothesis import strategies as st
from processes import clean_environment

from globidx.testing import strategies


@given(strategies.histories(max_legs=3, max_world_size=4, max_batch_size=5), st.integers(0, 40))
def test_legs_have_a_share_a_rank(legs, left):
    """Bounds are kept; each rank comes to whole batches, or to its end."""
    assert len(legs) <= 3
    for leg in legs:
        assert 1 <= leg.world_size == len(leg.shares) <= 4 and 1 <= leg.batch_size <= 5
        for rank in range(leg.world_size):
            ids = leg.ids(rank, left)
            assert 0 <= ids <= left
            assert ids == left or ids % leg.batch_size == 0


def test_even_legs_are_even_and_others_need_not_be():
    """``even=True`` gives all ranks one share; without it there are legs of several."""
    differs = lambda legs: any(len({*leg.shares}) > 1 for leg in legs)  # noqa: E731
    assert find(strategies.histories(), differs)

    @given(strategies.histories(even=True))
    def are_even(legs):
        assert not differs(legs)

    are_even()


@given(strategies.resizes(2, 5), strategies.lengths(9), strategies.batch_sizes(3))
def test_bounds_are_kept(sizes, n, batch):
    """A run resumes at least once."""
    assert 2 <= len(sizes) <= 3 and all(1 <= size <= 5 for size in sizes)
    assert 1 <= n <= 9 and 1 <= batch <= 3


def test_without_hypothesis_only_the_strategies_are_missing():
    """globidx.testing imports; its strategies name the extra that is to be installed."""
    program = """
import sys
sys.modules["hypothesis"] = None
import globidx
globidx.testing.assert_exact_epoch
try:
    import globidx.testing.strategies
except ImportError as error:
    assert "needs hypothesis: pip install '.[testing]'" in str(error), error
else:
    raise SystemExit("it was imported")
"""
    subprocess.run([sys.executable, "-c", program], check=True, env=clean_environment())
