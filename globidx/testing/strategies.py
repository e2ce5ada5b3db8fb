"""Strategies for hypothesis: datasets, batches and histories of runs that stop and resume.

They need hypothesis: ``pip install '.[testing]'`` in the clone of globidx.
"""

from __future__ import annotations

from typing import NamedTuple

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError(
        "globidx.testing.strategies needs hypothesis: pip install '.[testing]' in the clone of globidx"
    ) from error

__all__ = ["Leg", "batch_sizes", "histories", "lengths", "resizes", "world_sizes"]


class Leg(NamedTuple):
    """One run on one world size, until it is killed.

    Parameters
    ----------
    world_size : int
        How many ranks.
    batch_size : int
        How many ids a batch of one rank has.
    shares : tuple of float
        How much of its ids each rank comes to, in [0, 1].

    Examples
    --------
    >>> leg = Leg(2, 4, (0.5, 1.0))
    >>> leg.ids(0, 21), leg.ids(1, 21)
    (8, 21)
    """

    world_size: int
    batch_size: int
    shares: tuple[float, ...]

    def ids(self, rank: int, left: int) -> int:
        """How many ids a rank has had when the run is killed, in whole batches.

        Parameters
        ----------
        rank : int
            The rank.
        left : int
            How many ids it had at the beginning.

        Returns
        -------
        int
            All of them for a share of 1.
        """
        share = self.shares[rank]
        if share == 1.0:
            return left
        return int(share * left) // self.batch_size * self.batch_size


def lengths(max_value: int = 90) -> st.SearchStrategy[int]:
    """Draw how many samples a dataset has.

    Parameters
    ----------
    max_value : int, default 90
        The most.

    Returns
    -------
    SearchStrategy
        Of int, from 1.
    """
    return st.integers(1, max_value)


def batch_sizes(max_value: int = 7) -> st.SearchStrategy[int]:
    """Draw how many samples a batch of one rank has.

    Parameters
    ----------
    max_value : int, default 7
        The most.

    Returns
    -------
    SearchStrategy
        Of int, from 1.
    """
    return st.integers(1, max_value)


def world_sizes(max_value: int = 6) -> st.SearchStrategy[int]:
    """Draw how many ranks there are.

    Parameters
    ----------
    max_value : int, default 6
        The most.

    Returns
    -------
    SearchStrategy
        Of int, from 1.
    """
    return st.integers(1, max_value)


def resizes(max_resumes: int = 3, max_world_size: int = 6) -> st.SearchStrategy[list[int]]:
    """Draw the world sizes of a run that is resumed: one of ``assert_resumes(world_sizes=[...])``.

    Parameters
    ----------
    max_resumes : int, default 3
        How often it is resumed at most; at least once.
    max_world_size : int, default 6
        The most ranks.

    Returns
    -------
    SearchStrategy
        Of lists of int.
    """
    return st.lists(world_sizes(max_world_size), min_size=2, max_size=max_resumes + 1)


@st.composite
def histories(
    draw: st.DrawFn,
    max_legs: int = 4,
    *,
    max_world_size: int = 6,
    max_batch_size: int = 7,
    even: bool = False,
) -> list[Leg]:
    """Draw the legs of a run, each on a world size and batch size of its own, and each killed.

    Parameters
    ----------
    max_legs : int, default 4
        How many legs at most; there may be none.
    max_world_size : int, default 6
        The most ranks.
    max_batch_size : int, default 7
        The largest batch of one rank.
    even : bool, default False
        Whether all ranks of a leg are killed after the same share of their ids.

    Returns
    -------
    SearchStrategy
        Of lists of ``Leg``.

    Examples
    --------
    >>> from hypothesis import given, settings
    >>> @settings(max_examples=5, database=None)
    ... @given(histories())
    ... def test_ranks_have_a_share_each(legs):
    ...     assert all(len(leg.shares) == leg.world_size for leg in legs)
    >>> test_ranks_have_a_share_each()
    """
    legs = []
    for _ in range(draw(st.integers(0, max_legs))):
        world_size = draw(world_sizes(max_world_size))
        count = 1 if even or not draw(st.booleans()) else world_size
        shares = [draw(st.floats(0, 1)) for _ in range(count)]
        shares *= world_size // count
        legs.append(Leg(world_size, draw(batch_sizes(max_batch_size)), tuple(shares)))
    return legs
