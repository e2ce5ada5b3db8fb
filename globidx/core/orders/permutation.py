"""The private primitive of ``Shuffle``: a keyed permutation of ``[0, n)``.

It is computed a block at a time.

Values below n are written on a grid of a rows and b columns, a = ceil(sqrt(n)), b = ceil(n / a).
Rounds alternate: the row moves by a keyed function of the column, modulo a; the column by one of
the row, modulo b. Each round can be undone, so together they permute the grid: the generalised
Feistel network of Black and Rogaway, "Ciphers with Arbitrary Finite Domains" (CT-RSA 2002). The
grid has fewer than a cells too many; a value that lands there is sent through again until it
comes out below n ("cycle walking", same paper), which keeps it a permutation of [0, n). The keyed
function is a 32-bit finaliser (xor-shift-multiply, constants of C. Wellons' "lowbias32", public
domain) with one key before and one key between its multiplications; it is reduced to [0, m) by
taking the high half of its product with m.

For n up to 2**16 the halves are too few bits for 8 rounds to mix well: 24 rounds are run. All
arithmetic is on unsigned integers, so the result is the same on every platform and in every numpy
version; golden vectors pin it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from math import isqrt

import numpy as np
from numpy.typing import NDArray

# a side of the grid is then at most 2**31, so that the sum of two of its coordinates fits 32 bits
LIMIT = 2**62

# At n = 5, six rounds have a chi-square of 2283 where 119 is expected.
_SMALL = 2**16
_ROUNDS = 8
_ROUNDS_SMALL = 24
_U32 = np.uint32
_HALF = np.uint64(32)

Words = NDArray[np.uint32]
_Move = Callable[[Words, int, Words, Words], None]


class Permutation:
    """Permutation of ``[0, n)``, 1 <= n <= 2**62, keyed by ``(seed, epoch)``.

    It holds a few hundred bytes.

    ``purpose`` tells permutations of one epoch apart: each has keys of its own.

    >>> shuffled = Permutation(10, seed=7, epoch=0)
    >>> sorted(shuffled.forward(np.arange(10)).tolist()) == list(range(10))
    True
    >>> shuffled.inverse(shuffled.forward(np.arange(4)))
    array([0, 1, 2, 3])
    """

    __slots__ = ("_columns", "_keys", "_n", "_rows")

    def __init__(self, n: int, *, seed: int, epoch: int, purpose: str = "shuffle.1") -> None:
        self._n = n
        self._rows = isqrt(n - 1) + 1
        self._columns = -(-n // self._rows)
        self._keys = _round_keys(purpose, seed, epoch, _ROUNDS_SMALL if n <= _SMALL else _ROUNDS)

    def forward(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Image of each value, int64, same length; values are trusted to be in ``[0, n)``."""
        return self._walk(values, _add, self._keys)

    def inverse(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """The values whose images these are."""
        return self._walk(images, _subtract, self._keys[::-1])

    def _walk(self, values: NDArray[np.int64], move: _Move, keys: Words) -> NDArray[np.int64]:
        images = self._grid(values, move, keys)
        # Fewer than one in sqrt(n) cells is outside, so nearly every value takes one trip. A walk
        # ends: it is on a cycle of the grid's permutation that began inside.
        outside = np.flatnonzero(images >= self._n)
        while len(outside):
            images[outside] = self._grid(images[outside], move, keys)
            outside = outside[images[outside] >= self._n]
        return images

    def _grid(self, values: NDArray[np.int64], move: _Move, keys: Words) -> NDArray[np.int64]:
        """All rounds, on the whole grid."""
        wide = values.astype(np.uint64)
        columns = np.uint64(self._columns)
        # 32-bit halves: twice as many fit a vector register and a cache line as of 64 bits
        row = (wide // columns).astype(_U32)
        column = (wide - row.astype(np.uint64) * columns).astype(_U32)
        scratch = np.empty_like(row), np.empty_like(row), wide
        # There is an even number of rounds, the first of which moves the row. The inverse undoes
        # them from the last one on, which moved the column.
        for turn, key in enumerate(keys, start=0 if move is _add else 1):
            if turn % 2 == 0:
                move(row, self._rows, _mixed(column, key, self._rows, scratch), scratch[1])
            else:
                move(column, self._columns, _mixed(row, key, self._columns, scratch), scratch[1])
        return (row.astype(np.uint64) * columns + column).astype(np.int64)


def _mixed(
    half: Words, key: Words, modulus: int, scratch: tuple[Words, Words, NDArray[np.uint64]]
) -> Words:
    """The keyed function of one round: each of ``half`` to a value in ``[0, modulus)``.

    Overwrites ``scratch``.
    """
    # each step writes into memory that is there, so that a block stays in the cache of one core
    mixed, shifted, wide = scratch
    np.bitwise_xor(half, key[0], out=mixed)
    np.right_shift(mixed, _U32(16), out=shifted)
    np.bitwise_xor(mixed, shifted, out=mixed)
    np.multiply(mixed, _U32(0x7FEB352D), out=mixed)
    np.add(mixed, key[1], out=mixed)
    np.right_shift(mixed, _U32(15), out=shifted)
    np.bitwise_xor(mixed, shifted, out=mixed)
    np.multiply(mixed, _U32(0x846CA68B), out=mixed)
    np.right_shift(mixed, _U32(16), out=shifted)
    np.bitwise_xor(mixed, shifted, out=mixed)
    # 32 random bits times the modulus: the high half is below it, and no division was needed
    np.multiply(mixed, np.uint64(modulus), out=wide, dtype=np.uint64)
    np.right_shift(wide, _HALF, out=wide)
    np.copyto(mixed, wide, casting="unsafe")
    return mixed


def _add(half: Words, modulus: int, amount: Words, scratch: Words) -> None:
    """``half = (half + amount) % modulus`` in place, without a division.

    Below the modulus the subtraction wraps round to a huge number, so the smaller of the two is
    the remainder.
    """
    np.add(half, amount, out=half)
    np.subtract(half, _U32(modulus), out=scratch)
    np.minimum(half, scratch, out=half)


def _subtract(half: Words, modulus: int, amount: Words, scratch: Words) -> None:
    """``half = (half - amount) % modulus`` in place, by the same trick."""
    np.subtract(half, amount, out=half)
    np.add(half, _U32(modulus), out=scratch)
    np.minimum(half, scratch, out=half)


def _round_keys(purpose: str, seed: int, epoch: int, rounds: int) -> Words:
    """Two 32-bit keys a round.

    They are little-endian words of BLAKE2b over the text ``globidx.PURPOSE SEED EPOCH BLOCK``.
    """
    blocks = -(-rounds * 8 // 64)
    text = (f"globidx.{purpose} {seed} {epoch} {block}" for block in range(blocks))
    stream = b"".join(hashlib.blake2b(line.encode()).digest() for line in text)
    return np.frombuffer(stream[: rounds * 8], "<u4").astype(_U32).reshape(rounds, 2)
