"""The keyed permutation against statistics of a uniform one."""

import pytest
import shuffle_quality

from globidx.core.orders import permutation


@pytest.mark.slow
@pytest.mark.parametrize("name", shuffle_quality.TESTS)
def test_shuffle_is_as_random_as_a_uniform_permutation(name):
    """Correlations, neighbours, fixed points, all permutations of small n, pairs and avalanche: within 5 sigma."""
    assert abs(shuffle_quality.TESTS[name](shuffle_quality.ours)) < 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rounds", "name"),
    [
        ("_ROUNDS_SMALL", "all permutations equally likely, n = 5"),
        ("_ROUNDS", "position-value correlation, n = 1,000,003"),
        ("_ROUNDS", "neighbours' distance, n = 100,003"),
    ],
)
def test_the_statistics_would_catch_a_bad_mixer(monkeypatch, rounds, name):
    """With two rounds each of these is far out."""
    monkeypatch.setattr(permutation, rounds, 2)
    assert abs(shuffle_quality.TESTS[name](shuffle_quality.ours)) > 5
