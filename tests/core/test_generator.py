"""The generator of a sample: pinned, and another one for every seed, epoch and id."""

import subprocess
import sys

import numpy as np
import pytest
from processes import clean_environment

import globidx

#: (seed, epoch, id): the first raw numbers, which may never change.
GOLDEN = {
    (7, 3, 0): [15665444681854826299, 9185488454504783653],
    (7, 3, 1): [4459087795831071721, 8439673484453321579],
    (7, 3, 2**40): [2406037549717041483, 5864264242970228466],
}


@pytest.mark.parametrize("key", GOLDEN)
def test_raw_numbers_are_pinned(key):
    """A change here is a new version of the algorithm."""
    assert globidx.sample_rng(*key).bit_generator.random_raw(2).tolist() == GOLDEN[key]


def test_it_is_philox_as_its_docstring_says():
    """By the standard library and numpy alone."""
    import hashlib

    digest = hashlib.blake2b(b"globidx.sample.1 7 3", digest_size=16).digest()
    key = [int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")]
    own = np.random.Philox(key=np.array(key, np.uint64), counter=[0, 0, 5, 0])
    assert (own.random_raw(9) == globidx.sample_rng(7, 3, 5).bit_generator.random_raw(9)).all()


def test_no_two_samples_epochs_or_seeds_share_their_numbers():
    """27 neighbours in all three, 100 numbers each, all different."""
    drawn = [
        globidx.sample_rng(seed, epoch, id).bit_generator.random_raw(100)
        for seed in range(3)
        for epoch in range(3)
        for id in range(3)
    ]
    assert len(np.unique(np.concatenate(drawn))) == 2700


def test_it_remembers_nothing_and_asks_for_no_torch():
    """Again from its beginning, whatever was drawn before; a new process has the same."""
    globidx.sample_rng(1, 2, 3).random(100)
    value = globidx.sample_rng(1, 2, 3).bit_generator.random_raw()
    code = (
        "import sys, globidx; print(globidx.sample_rng(1, 2, 3).bit_generator.random_raw()); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=clean_environment(),
    )
    assert done.stdout == f"{value}\n"


@pytest.mark.parametrize("key", [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 2**63)])
def test_what_is_out_of_range_is_refused(key):
    """Rather than taken modulo something."""
    with pytest.raises(ValueError, match="must be in"):
        globidx.sample_rng(*key)


def test_a_float_is_no_id():
    """Nor is a bool a seed."""
    with pytest.raises(TypeError, match="sample id must be an integer"):
        globidx.sample_rng(0, 0, 1.0)
    with pytest.raises(TypeError, match="seed must be an integer"):
        globidx.sample_rng(True, 0, 1)
