"""How samples lie in chunks: what an order must know of the files to read each chunk about once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, lcm

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate
from globidx.core.cached import cached_property

Numbers = NDArray[np.int64]

#: Items taken for a block where no file is chunked: reading a run of them costs little more than reading one.
UNCHUNKED = 16


@dataclass(frozen=True, eq=False)
class Chunking:
    """Item count and items per chunk of each file, in order: two int64 arrays, read-only.

    A chunk is never longer than its file. Sample ids run over the files in order, as in ``GlobalIndex``.

    >>> chunking = Chunking.of([40, 7], [[16], [16]])
    >>> chunking.num_samples, chunking.chunks
    (47, array([16,  7]))
    """

    lengths: Numbers
    chunks: Numbers
    told: Numbers  # the same, but 0 where a file is not chunked

    @classmethod
    def of(cls, lengths: object, chunk_lengths: object, item_bytes: object = (1,)) -> Chunking:
        """From ``chunk_lengths`` in items (files x arrays, 0: not chunked) and the bytes of an item of each array.

        Several aligned arrays have one block in common (``common_block``). Files without chunks are cut as long as
        the usual chunk of the others, or ``UNCHUNKED``.
        """
        counts = np.asarray(lengths, np.int64)
        if not len(counts):
            return cls._filled(counts, counts)
        table = np.asarray(chunk_lengths, np.int64).reshape(len(counts), -1)
        sizes = np.broadcast_to(np.asarray(item_bytes, np.int64), table.shape[1:]).tolist()
        rows, where = np.unique(table, axis=0, return_inverse=True)
        return cls._filled(
            counts, np.array([common_block(row, sizes) for row in rows.tolist()], np.int64)[where.ravel()]
        )

    @classmethod
    def single(cls, num_samples: int, chunk: int) -> Chunking:
        """Samples of one file, ``chunk`` to a chunk."""
        return cls._filled(np.array([num_samples], np.int64), np.array([chunk], np.int64))

    @classmethod
    def _filled(cls, lengths: Numbers, told: Numbers) -> Chunking:
        """With the usual chunk of these files, and no others, for those that are not chunked."""
        chunked = told > 0
        usual = weighted_quantile(told[chunked], lengths[chunked], 0.5) if lengths[chunked].any() else UNCHUNKED
        lengths, told = lengths.copy(), told.copy()
        chunks = np.minimum(np.where(chunked, told, usual), np.maximum(lengths, 1))
        lengths.flags.writeable = chunks.flags.writeable = told.flags.writeable = False
        return cls(lengths, chunks, told)

    @classmethod
    def joined(cls, parts: Sequence[Chunking]) -> Chunking:
        """Those of ``parts``, one behind the other.

        >>> Chunking.joined([Chunking.single(20, 8), Chunking.single(3, 8)]).chunks
        array([8, 3])
        """
        lengths = [part.lengths for part in parts] or [np.empty(0, np.int64)]
        told = [part.told for part in parts] or [np.empty(0, np.int64)]
        return cls._filled(np.concatenate(lengths), np.concatenate(told))

    def select(self, sample_ids: Numbers) -> Chunking | None:
        """That of a dataset made of these samples, in this sequence; None where those of a chunk do not stand together.

        Neighbouring chunks from which equally many are taken become one file.

        >>> chosen = Chunking.single(20, 8).select(np.array([0, 1, 2, 8, 9, 10, 16]))
        >>> chosen.lengths, chosen.chunks
        (array([6, 1]), array([3, 1]))
        """
        files = np.searchsorted(self.offsets, sample_ids, side="right") - 1
        first_chunks = np.zeros(len(self.chunks) + 1, np.int64)
        np.cumsum(-(-self.lengths // self.chunks), out=first_chunks[1:])
        chunks = first_chunks[files] + (sample_ids - self.offsets[files]) // self.chunks[files]
        starts = np.flatnonzero(np.diff(chunks, prepend=-1))
        if len(np.unique(chunks[starts])) < len(starts):
            return None
        taken = np.diff(starts, append=len(chunks))
        runs = np.flatnonzero(np.diff(taken, prepend=0))
        lengths = taken[runs] * np.diff(runs, append=len(taken))
        return self._filled(lengths.astype(np.int64), taken[runs].astype(np.int64))

    @cached_property
    def offsets(self) -> Numbers:
        """First sample id of each file, and the total at the end."""
        offsets = np.zeros(len(self.lengths) + 1, np.int64)
        np.cumsum(self.lengths, out=offsets[1:])
        return offsets

    @property
    def num_samples(self) -> int:
        """How many samples there are."""
        return int(self.offsets[-1])

    def first(self, num_samples: int) -> Chunking:
        """That of the first files, as many as hold ``num_samples``; ValueError where those end inside a file."""
        validate.integer(num_samples, "num_samples", high=self.num_samples)
        count = int(np.searchsorted(self.offsets, num_samples, side="left"))
        if self.offsets[count] != num_samples:
            raise ValueError(
                f"the first {num_samples} samples end inside file {count - 1}, which holds ids "
                f"[{self.offsets[count - 1]}, {self.offsets[count]}); an order is made over whole files"
            )
        # files behind them have no say: an epoch that runs keeps its chunks when they are appended
        return self if count == len(self.lengths) else self._filled(self.lengths[:count], self.told[:count])

    @cached_property
    def digest(self) -> str:
        """What tells this chunking from others: BLAKE2b of both columns, 16 bytes as hex digits."""
        digest = hashlib.blake2b(b"globidx.chunking.1 %d " % len(self.lengths), digest_size=16)
        digest.update(self.lengths.astype("<i8").tobytes())
        digest.update(self.chunks.astype("<i8").tobytes())
        return digest.hexdigest()


def common_block(chunks: list[int], item_bytes: list[int]) -> int:
    """One block length for aligned arrays of a file with these chunk lengths (0: not chunked) and bytes per item.

    A block of b items, cut at multiples of b, lies on average in (b + c - gcd(b, c)) / c chunks of length c, so each
    byte is decoded (b + c - gcd(b, c)) / b times. Of the chunk lengths, and their common multiple where that is at most
    4 times the longest, the shortest block within a tenth of the fewest bytes is taken: short blocks mix better. So
    small labels in long chunks do not stretch the blocks of large images. 0 where no array is chunked.

    >>> common_block([16, 1024], [32768, 8]), common_block([10, 16], [64, 64]), common_block([4, 6], [1, 1])
    (16, 16, 12)
    """
    cut = [(chunk, size) for chunk, size in zip(chunks, item_bytes, strict=True) if chunk > 0]
    if not cut:
        return 0
    lengths = sorted({chunk for chunk, _ in cut})
    if lcm(*lengths) <= 4 * lengths[-1]:
        lengths = sorted({*lengths, lcm(*lengths)})
    decoded = [sum(max(s, 1) * (b + c - gcd(b, c)) / b for c, s in cut) for b in lengths]
    return next(b for b, cost in zip(lengths, decoded, strict=True) if cost <= 1.1 * min(decoded))


def weighted_quantile(values: Numbers, weights: Numbers, share: float) -> int:
    """The smallest value such that those up to it have at least ``share`` of all weight.

    >>> weighted_quantile(np.array([16, 4, 999]), np.array([90, 5, 5]), 0.95)
    16
    """
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    place = min(int(np.searchsorted(reached, share * float(reached[-1]), side="left")), len(order) - 1)
    return int(values[order[place]])
