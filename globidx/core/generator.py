"""Randomness that belongs to a sample: a generator computed from seed, epoch and sample id."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate


def sample_rng(seed: int, epoch: int, id: int) -> np.random.Generator:
    """Make the random generator of a sample in an epoch.

    It is the same on any rank, worker and world size, with any start method, and after any resume,
    since nothing is remembered.

    Parameters
    ----------
    seed : int
        The seed of the run, such as that of its sampler.
    epoch : int
        The epoch.
    id : int
        The sample id.

    Returns
    -------
    numpy.random.Generator
        A new generator, at its beginning.

    Raises
    ------
    TypeError, ValueError
        If one of them is no integer in [0, 2**63 - 1].

    Notes
    -----
    The bit generator is Philox4x64-10. Its key is BLAKE2b of the text ``globidx.sample.1 SEED
    EPOCH``, 16 bytes, as two little-endian words; its counter begins at ``[0, 0, id, 0]`` (the last
    word is 1 for crops, 2 for global generators and 3 for whole batches). So the generators of two
    samples share no number of an epoch, and raw numbers are the same on every
    platform and with every version of numpy. How numpy makes floats or choices of raw numbers may
    change between its versions.

    References
    ----------
    Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

    Examples
    --------
    >>> rng = sample_rng(seed=7, epoch=0, id=41)
    >>> again = sample_rng(seed=7, epoch=0, id=41)
    >>> bool(rng.integers(2**32) == again.integers(2**32))
    True
    """
    return Moment(validate.integer(seed, "seed"), validate.integer(epoch, "epoch")).rng(
        validate.integer(id, "sample id")
    )


class Moment(NamedTuple):
    """The seed and the epoch that samples are drawn for.

    >>> int(Moment(7, 0).rng(41).integers(100)) == int(sample_rng(7, 0, 41).integers(100))
    True
    """

    seed: int
    epoch: int

    def rng(self, number: int, stream: int = 0) -> np.random.Generator:
        """The generator of a sample; another one, which shares no number with it, for each stream."""
        counter = np.array([0, 0, number, stream], np.uint64)
        key = _key(self.seed, self.epoch)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))


#: The moment of samples that no sampler draws.
START = Moment(0, 0)
#: What the streams of a sample are for: the transform, crops, global generators, and whole batches.
TRANSFORM, CROP, GLOBALS, BATCH = range(4)


@lru_cache(16)
def _key(seed: int, epoch: int) -> NDArray[Any]:
    text = f"globidx.sample.1 {seed} {epoch}"
    key = np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), "<u8")
    return key.astype(np.uint64)
