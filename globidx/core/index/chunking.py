"""How samples are stored in chunks, which an order must know to read each about once."""

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

#: Items of a block where no file is chunked: a run of them costs little more to read than one.
UNCHUNKED = 16


@dataclass(frozen=True, eq=False)
class Chunking:
    """How the samples of some files are stored in chunks. Made by ``of``, ``single`` or ``joined``.

    Sample ids run over the files in their order, as in ``GlobalIndex``.

    Parameters
    ----------
    lengths : numpy.ndarray
        The number of items of each file, int64, read-only.
    chunks : numpy.ndarray
        The number of items in a chunk of each file, int64, read-only; never more than the file has.
    stored_chunks : numpy.ndarray
        The same as it is stored, 0 where a file is not chunked.
    even : numpy.ndarray
        Whether each file is cut into blocks of nearly equal length, none shorter than that, instead
        of at multiples of it: bool, read-only. So are files whose items begin anywhere in a chunk.

    Examples
    --------
    >>> chunking = Chunking.of([40, 7], [[16], [16]])
    >>> chunking.num_samples, chunking.chunks
    (47, array([16,  7]))
    """

    lengths: Numbers
    chunks: Numbers
    stored_chunks: Numbers
    even: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        lengths: object,
        chunk_lengths: object,
        item_bytes: object = (1,),
        *,
        even: object = False,
    ) -> Chunking:
        """Describe files of one array, or of several aligned arrays.

        Parameters
        ----------
        lengths : array_like of int
            The number of items of each file.
        chunk_lengths : array_like of int
            Items in a chunk, files x arrays. 0 says that an array is not chunked.
        item_bytes : array_like of int
            The bytes of an item of each array. Several arrays get one block length in common: one
            that decodes nearly the fewest bytes.
        even : array_like of bool
            Whether to cut a file into blocks of nearly equal length instead of at multiples of it.

        Returns
        -------
        Chunking
            A file without chunks is cut as the others usually are.
        """
        counts = np.asarray(lengths, np.int64)
        if not len(counts):
            return cls._filled(counts, counts, even)
        table = np.asarray(chunk_lengths, np.int64).reshape(len(counts), -1)
        sizes = np.broadcast_to(np.asarray(item_bytes, np.int64), table.shape[1:]).tolist()
        rows, where = np.unique(table, axis=0, return_inverse=True)
        return cls._filled(
            counts,
            np.array([common_block(row, sizes) for row in rows.tolist()], np.int64)[where.ravel()],
            even,
        )

    @classmethod
    def single(cls, num_samples: int, chunk: int) -> Chunking:
        """Describe one file.

        Parameters
        ----------
        num_samples : int
            The number of its items.
        chunk : int
            Items in a chunk.

        Returns
        -------
        Chunking
            That of the one file.
        """
        return cls._filled(np.array([num_samples], np.int64), np.array([chunk], np.int64))

    @classmethod
    def _filled(cls, lengths: Numbers, stored: Numbers, even: object = False) -> Chunking:
        """Use the usual chunk length of these files for those that are not chunked.

        Of other files none is taken.
        """
        chunked = stored > 0
        usual = (
            weighted_quantile(stored[chunked], lengths[chunked], 0.5)
            if lengths[chunked].any()
            else UNCHUNKED
        )
        lengths, stored = lengths.copy(), stored.copy()
        wanted, some = np.where(chunked, stored, usual), np.maximum(lengths, 1)
        flags = np.broadcast_to(np.asarray(even, bool), lengths.shape).copy()
        wanted = np.where(flags, -(-some // np.maximum(1, some // wanted)), wanted)
        chunks = np.minimum(wanted, some)
        for column in (lengths, chunks, stored, flags):
            column.flags.writeable = False
        return cls(lengths, chunks, stored, flags)

    @classmethod
    def joined(cls, parts: Sequence[Chunking]) -> Chunking:
        """Describe the files of several chunkings, one after the other.

        Parameters
        ----------
        parts : sequence of Chunking
            The chunkings.

        Returns
        -------
        Chunking
            That of all their files.

        Examples
        --------
        >>> Chunking.joined([Chunking.single(20, 8), Chunking.single(3, 8)]).chunks
        array([8, 3])
        """
        lengths = [part.lengths for part in parts] or [np.empty(0, np.int64)]
        stored = [part.stored_chunks for part in parts] or [np.empty(0, np.int64)]
        even = [part.even for part in parts] or [np.empty(0, bool)]
        return cls._filled(np.concatenate(lengths), np.concatenate(stored), np.concatenate(even))

    def select(self, sample_ids: Numbers) -> Chunking | None:
        """Describe a dataset that is made of some of the samples, as ``Subset`` is.

        Neighbouring chunks from which equally many samples are selected become one file.

        Parameters
        ----------
        sample_ids : numpy.ndarray
            The samples, int64, in the sequence of that dataset.

        Returns
        -------
        Chunking or None
            None if the samples of some chunk are not all next to each other.

        Examples
        --------
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
        """The first sample id of each file, and the total at the end."""
        offsets = np.zeros(len(self.lengths) + 1, np.int64)
        np.cumsum(self.lengths, out=offsets[1:])
        return offsets

    @property
    def num_samples(self) -> int:
        """The number of samples."""
        return int(self.offsets[-1])

    def first(self, num_samples: int) -> Chunking:
        """Describe the first samples.

        Parameters
        ----------
        num_samples : int
            The number of their samples.

        Returns
        -------
        Chunking
            That of the files which hold them, the last one as if it ended with them.

        Raises
        ------
        ValueError
            If there are fewer samples.
        """
        validate.integer(num_samples, "num_samples", high=self.num_samples)
        count = int(np.searchsorted(self.offsets, num_samples, side="left"))
        beyond = int(self.offsets[count]) - num_samples
        if count == len(self.lengths) and not beyond:
            return self
        lengths = self.lengths[:count].copy()
        lengths[count - 1 :] -= beyond
        # Later files do not count for the usual chunk length: a running epoch keeps its chunks when
        # files are appended.
        return self._filled(lengths, self.stored_chunks[:count], self.even[:count])

    @cached_property
    def digest(self) -> str:
        """BLAKE2b of ``lengths`` and ``chunks``: 16 bytes as hexadecimal digits."""
        digest = hashlib.blake2b(b"globidx.chunking.1 %d " % len(self.lengths), digest_size=16)
        digest.update(self.lengths.astype("<i8").tobytes())
        digest.update(self.chunks.astype("<i8").tobytes())
        return digest.hexdigest()


def common_block(chunks: list[int], item_bytes: list[int]) -> int:
    """Return one block length for aligned arrays of a file; 0 if no array is chunked.

    ``chunks`` are their chunk lengths (0: not chunked), ``item_bytes`` the bytes of an item.

    A block of b items, cut at multiples of b, lies on average in (b + c - gcd(b, c)) / c chunks of
    length c, so each byte is decoded (b + c - gcd(b, c)) / b times. Of the chunk lengths, and
    their common multiple where that is at most 4 times the longest, the shortest block within a
    tenth of the fewest bytes is taken: short blocks mix better. So small labels in long chunks do
    not stretch the blocks of large images.

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
    """Return the smallest value up to which there is at least ``share`` of all weight.

    >>> weighted_quantile(np.array([16, 4, 999]), np.array([90, 5, 5]), 0.95)
    16
    """
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    index = min(
        int(np.searchsorted(reached, share * float(reached[-1]), side="left")), len(order) - 1
    )
    return int(values[order[index]])
