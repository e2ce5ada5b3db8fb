"""Packs: which documents share a budget of tokens, as one frozen value."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate
from globidx.core.cached import cached_property
from globidx.core.json import strict
from globidx.core.orders.permutation import Permutation
from globidx.core.packing.bins import first_fit_decreasing, next_fit
from globidx.core.packing.pieces import TOO_LONG, Pieces, TooLong, concatenated, within

Numbers = NDArray[np.integer]
Method = Literal["first_fit_decreasing", "next_fit", "concat_and_split"]
METHODS: tuple[Method, ...] = ("first_fit_decreasing", "next_fit", "concat_and_split")
#: Boundaries of documents are int32 for attention, and so a pack is shorter than that.
MOST_TOKENS = 2**31 - 1


class Pack(NamedTuple):
    """The documents of one pack: tokens ``[starts[i], stops[i])`` of ``documents[i]``.

    Parameters
    ----------
    documents : numpy.ndarray
        Ids of documents, in the sequence in which they lie in the pack.
    starts, stops : numpy.ndarray
        Which tokens of each: all of them, but where a document was cut.

    Examples
    --------
    >>> Pack(np.array([4, 0]), np.array([0, 0]), np.array([5, 2])).tokens
    7
    """

    documents: Numbers
    starts: Numbers
    stops: Numbers

    @property
    def tokens(self) -> int:
        """How many tokens are in it."""
        return int((self.stops - self.starts).sum())


@dataclass(frozen=True)
class Plan:
    """How documents are packed, whatever their lengths.

    Parameters
    ----------
    budget, method, seed, epoch, shuffle, window, too_long
        As for ``pack``, and checked.

    Raises
    ------
    TypeError, ValueError
        If one of them is of another type or value.

    Examples
    --------
    >>> pack([5, 3], budget=8).plan.method
    'first_fit_decreasing'
    """

    budget: int
    method: Method
    seed: int
    epoch: int
    shuffle: bool
    window: int
    too_long: TooLong

    def __post_init__(self) -> None:
        validate.integer(self.budget, "budget", low=1, high=MOST_TOKENS)
        for name, low in (("seed", 0), ("epoch", 0), ("window", 1)):
            validate.integer(getattr(self, name), name, low=low)
        if not isinstance(self.shuffle, bool):
            raise TypeError(f"shuffle must be True or False, got {self.shuffle!r}")
        for name, known in (("method", METHODS), ("too_long", TOO_LONG)):
            if getattr(self, name) not in known:
                given = getattr(self, name)
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {given!r}")

    @property
    def refusal(self) -> str | None:
        """Why packs cannot be made anew in each epoch, as many as before; None if they can."""
        if not self.shuffle:
            return "with shuffle=False the packs of all epochs are the same"
        if self.method == "next_fit":
            return "next_fit makes more packs in some epochs than in others"
        return None


class Packs:
    """Which documents share a pack; made by ``pack``, and never changed.

    ``packs[i]`` is a ``Pack``, and ``len(packs)`` is how many there are. Two are equal if all their
    packs are, and were made in the same way.

    Parameters
    ----------
    lengths : numpy.ndarray
        The lengths of all documents.
    plan : Plan
        How packs are made of them.
    contents : tuple
        The pieces of documents, pack by pack, and where each pack begins among them.
    dropped : numpy.ndarray
        Ids of the documents that are left out because they are too long.

    Attributes
    ----------
    lengths, plan, dropped
        As above, read-only.

    Notes
    -----
    Memory is 12 bytes a piece of a document, 8 a pack, and 4 for the length of each document: some
    180 MB for 10^7 documents. Ids, or lengths, from 2**31 on take twice as much.

    Examples
    --------
    >>> packs = pack([5, 3, 2, 6], budget=8, shuffle=False)
    >>> [pack.documents.tolist() for pack in packs], packs.efficiency
    ([[3, 2], [0, 1]], 1.0)
    """

    def __init__(
        self, lengths: Numbers, plan: Plan, contents: tuple[Pieces, Numbers], dropped: Numbers
    ) -> None:
        self.lengths, self.plan, self.dropped = lengths, plan, dropped
        self._pieces, self._offsets = contents
        for array in (lengths, dropped, self._offsets, *self._pieces):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, pack: int) -> Pack:
        number = validate.sample_id(pack, len(self))
        start, stop = self._offsets[number : number + 2].tolist()
        return Pack(*self._pieces.take(slice(start, stop)))

    def __iter__(self) -> Iterator[Pack]:
        return map(self.__getitem__, range(len(self)))

    @property
    def budget(self) -> int:
        """The most tokens of a pack."""
        return self.plan.budget

    @property
    def epoch(self) -> int:
        """The epoch that these packs were made for."""
        return self.plan.epoch

    @cached_property
    def tokens(self) -> int:
        """How many tokens are in all packs."""
        return int(self._pieces.lengths.sum(dtype=np.int64))

    @property
    def efficiency(self) -> float:
        """The share of all packs that is filled: tokens by packs times budget; 1.0 of no packs."""
        return self.tokens / (len(self) * self.budget) if len(self) else 1.0

    @cached_property
    def most_documents(self) -> int:
        """How many documents, or pieces of them, the fullest pack has."""
        return int(np.diff(self._offsets).max(initial=0))

    @cached_property
    def digest(self) -> str:
        """A digest of these packs, and of how they were made."""
        return _digest(self.plan, self.lengths, self._offsets, *self._pieces)

    @cached_property
    def digest_of_epochs(self) -> str:
        """A digest of the packs of all epochs: of the lengths, and of how packs are made of them."""
        return _digest(replace(self.plan, epoch=0), self.lengths)

    def for_epoch(self, epoch: int) -> Packs:
        """Make the packs of an epoch, of the same documents in the same way.

        Parameters
        ----------
        epoch : int
            The epoch.

        Returns
        -------
        Packs
            These, if they are that epoch's.

        Examples
        --------
        >>> packs = pack([2, 2, 2, 2], budget=4)
        >>> [sorted(packs.for_epoch(epoch)[0].documents.tolist()) for epoch in range(3)]
        [[0, 1], [1, 3], [1, 2]]
        """
        if epoch == self.epoch:
            return self
        return _packs(self.lengths, replace(self.plan, epoch=epoch))

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Packs) and self.digest == other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return (
            f"Packs({len(self)} of {self.budget} tokens, {len(self.lengths)} documents, "
            f"{self.plan.method}, epoch {self.epoch}: {self.efficiency:.1%} filled)"
        )


def pack(
    lengths: Any,
    budget: int,
    *,
    method: Method = "first_fit_decreasing",
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    window: int = 2**20,
    too_long: TooLong = "error",
) -> Packs:
    """Pack documents of known lengths into packs of at most ``budget`` tokens.

    The same arguments make the same packs, on any platform.

    Parameters
    ----------
    lengths : array_like of int
        How many tokens each document has. Those without tokens are in no pack.
    budget : int
        The most tokens of a pack, below 2**31.
    method : {"first_fit_decreasing", "next_fit", "concat_and_split"}
        ``"first_fit_decreasing"`` takes documents from the longest to the shortest, and puts each
        into the first pack that has room for it. ``"next_fit"`` puts a document into the pack of
        the one before it, or else into a new one. ``"concat_and_split"`` puts all tokens one behind
        the other and cuts after each ``budget`` of them, so that all packs but the last are full,
        and documents are cut.
    seed, epoch : int, default 0
        Which of the documents of equal length are together (first-fit-decreasing), or the sequence
        of all documents (the others).
    shuffle : bool, default True
        With False, seed and epoch do not matter: documents are taken in the sequence of their ids.
    window : int, default 2**20
        First-fit-decreasing packs so many documents of successive ids at a time. A pack has
        documents of one window, so smaller ones keep what is read together closer.
    too_long : {"error", "split", "drop"}, default "error"
        What a document of more tokens than the budget is: an error, cut into pieces of ``budget``
        tokens and a rest, or left out. ``"concat_and_split"`` cuts all documents alike.

    Returns
    -------
    Packs
        Which documents, and which of their tokens, each pack has.

    Raises
    ------
    TypeError, ValueError
        If lengths are no integers from 0 on, or an option is none of the above. If a document is
        too long, with ``"error"``.

    Notes
    -----
    All methods are arithmetic over arrays, and take seconds for 10^7 documents. First-fit-decreasing
    takes time for each distinct length in a window times the packs of the window.

    Examples
    --------
    >>> lengths = [6, 1, 5, 3, 2, 7]
    >>> for method in ("first_fit_decreasing", "next_fit", "concat_and_split"):
    ...     packs = pack(lengths, budget=8, method=method, shuffle=False)
    ...     print([pack.documents.tolist() for pack in packs], packs.efficiency)
    [[5, 1], [0, 4], [2, 3]] 1.0
    [[0, 1], [2, 3], [4], [5]] 0.75
    [[0, 1, 2], [2, 3, 4], [4, 5]] 1.0
    """
    plan = Plan(budget, method, seed, epoch, shuffle, window, too_long)
    given = validate.int64s(lengths, "length")
    if len(given) and given.min() < 0:
        raise ValueError(
            f"document {int(given.argmin())} has {given.min()} tokens; lengths are from 0 on"
        )
    if len(given) > MOST_TOKENS or given.max(initial=0) > MOST_TOKENS:
        return _packs(given.copy(), plan)
    return _packs(given.astype(np.int32), plan)


def _packs(lengths: Numbers, plan: Plan) -> Packs:
    documents: Numbers = _sequence(len(lengths), plan).astype(lengths.dtype)
    firsts: Numbers
    if plan.method == "concat_and_split":
        pieces, bins = concatenated(lengths, documents, plan.budget)
        firsts, dropped = np.flatnonzero(np.diff(bins, prepend=-1)), documents[:0]
    else:
        pieces, dropped = within(lengths, documents, plan.budget, plan.too_long)
        if plan.method == "next_fit":
            firsts = next_fit(pieces.lengths, plan.budget)
        else:
            pieces, firsts = _decreasing(pieces, plan)
    offsets = np.append(firsts, len(pieces.documents)).astype(np.int64)
    contents = Pieces(*(column.astype(lengths.dtype) for column in pieces)), offsets
    return Packs(lengths, plan, contents, np.sort(dropped))


def _sequence(count: int, plan: Plan) -> NDArray[np.int64]:
    """The documents in the sequence in which they are packed."""
    ids = np.arange(count)
    if not plan.shuffle or not count:
        return ids
    keys = Permutation(count, seed=plan.seed, epoch=plan.epoch, purpose="packing.1")
    return keys.forward(ids)


def _decreasing(pieces: Pieces, plan: Plan) -> tuple[Pieces, Numbers]:
    """Pieces in the sequence of their packs, and the first piece of each pack."""
    windows = pieces.documents // plan.window
    parts, firsts, before = [], list[Numbers](), 0
    by_length = _sorted(-pieces.lengths)
    by_window = by_length[_sorted(windows[by_length])]
    ends = np.cumsum(np.bincount(windows))
    for rows in np.split(by_window, ends[:-1]):
        bins = first_fit_decreasing(pieces.lengths[rows], plan.budget)
        placed = np.argsort(bins, kind="stable")
        parts.append(rows[placed])
        firsts.append(before + np.flatnonzero(np.diff(bins[placed], prepend=-1)))
        before += len(rows)
    return pieces.take(np.concatenate(parts)), np.concatenate(firsts)


def _sorted(keys: Numbers) -> NDArray[np.int64]:
    """The rows by rising keys, those of equal keys in their sequence."""
    if len(keys) and max(abs(int(keys.min())), abs(int(keys.max()))) < 2**15:
        # numpy sorts these in linear time
        keys = keys.astype(np.int16)
    return np.argsort(keys, kind="stable")


def _digest(plan: Plan, *arrays: Numbers) -> str:
    digest = hashlib.blake2b(b"globidx.packs.1 ", digest_size=16)
    digest.update(strict.canonical([asdict(plan), *map(len, arrays)]))
    for array in arrays:
        # little-endian, so that a record is the same on every platform
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()
