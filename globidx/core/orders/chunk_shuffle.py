"""``ChunkShuffle``: a shuffle that decodes each chunk about once, planned for each epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from globidx.core import validate
from globidx.core.cached import cached_property
from globidx.core.datasets.known import chunking_of
from globidx.core.index.chunking import Chunking
from globidx.core.json import schema
from globidx.core.orders.base import Arrangement, Order
from globidx.core.orders.chunk_epoch import ChunkShuffled
from globidx.core.orders.ground import Tiling
from globidx.core.orders.lanes import Lanes
from globidx.core.orders.permutation import LIMIT
from globidx.errors import RecordError, RecordMismatchError

# A record may be forged: these bound what its plan allocates.
_MOST_LANES = 2**17
_MOST_IN_ALL = 2**21
_MOST = 2**40


class ChunkShuffle(Order):
    """A shuffle within windows of chunks, so that each chunk is decoded about once an epoch.

    Chunks are shuffled over the whole dataset and dealt to *lanes*, one for each loader worker of
    each rank. Within a lane, samples are shuffled in windows. A worker whose cache holds
    ``window`` decoded chunks decodes nearly every chunk once.

    Parameters
    ----------
    window : int
        Chunks in a window. A larger window mixes better and needs a larger cache.
    lanes : (int, int), optional
        The number of ranks, and of loader workers of a rank. By default, those of the sampler and
        of ``globidx.DataLoader`` when an epoch begins.
    batch : int, optional
        The global batch size: the samples of all ranks in a step. The default is found in the same
        way.
    chunk : int, optional
        How many successive samples to keep together. By default, the chunks are those of
        ``dataset.chunking``, which a ``FileCacheDataset`` has.

    See Also
    --------
    globidx.IdentifiedDataset : how another dataset describes its chunks.

    Notes
    -----
    An epoch keeps its lanes when it is resumed on other ranks. Fewer samples are then found
    decoded, until the next epoch is planned for the new ranks.

    Examples
    --------
    >>> order = ChunkShuffle(window=2, chunk=4).plan(range(24), 24, lambda: Lanes(ranks=1))
    >>> order.bind(24, seed=0, epoch=0).take(range(24)).reshape(3, 8)
    array([[ 0, 21,  1,  3, 20,  2, 23, 22],
           [12,  5,  6, 14, 15, 13,  7,  4],
           [17, 18, 16, 10,  8, 19, 11,  9]])
    """

    algorithm = "chunk-shuffle"

    def __init__(
        self,
        window: int = 8,
        lanes: tuple[int, int] | None = None,
        *,
        batch: int | None = None,
        chunk: int | None = None,
    ) -> None:
        self._window = validate.integer(window, "window", low=1, high=_MOST)
        self._lanes = None if lanes is None else _lanes(lanes)
        self._batch = None if batch is None else validate.integer(batch, "batch", low=1, high=_MOST)
        self._chunk = None if chunk is None else validate.integer(chunk, "chunk", low=1, high=_MOST)

    def parameters(self) -> dict[str, Any]:
        """Return window and chunk. The lanes are left out, because each epoch has its own."""
        # `plan` is there though it is None: torch.distributed.checkpoint loads only keys that the
        # state of a new sampler has
        return {"window": self._window, "chunk": self._chunk, "plan": None}

    def plan(
        self, dataset: Any, num_samples: int, lanes: Callable[[], Lanes]
    ) -> PlannedChunkShuffle:
        """Return the order of an epoch that begins now.

        ``lanes()`` is called for what was not passed to the constructor. TypeError if the chunks
        of ``dataset`` are not known and there is no ``chunk``.
        """
        # with both given nothing is asked, so ranks need not be known yet
        given = Lanes(1, 1, 1) if self._lanes is not None and self._batch is not None else lanes()
        most_workers = max(1, _MOST_IN_ALL // given.ranks)
        ranks, workers = self._lanes or (given.ranks, min(given.workers, most_workers))
        batch = given.batch if self._batch is None else self._batch
        return self._planned(Lanes(ranks, workers, batch), self._chunking(dataset, num_samples))

    def matches(self, described: Mapping[str, Any]) -> bool:
        """Return whether a record describes this order, for any lanes.

        RecordError if its plan is malformed.
        """
        # the plan is the epoch's, and no reason to refuse a record of another world size
        if "plan" not in described or {**described, "plan": None} != self.describe():
            return False
        _read(described["plan"])
        return True

    def recorded(
        self, described: Mapping[str, Any], dataset: Any, num_samples: int
    ) -> PlannedChunkShuffle:
        """Return the order as it was planned for the epoch of a record.

        Raises
        ------
        RecordMismatchError
            If the chunks of the data were others.
        """
        plan = _read(described["plan"])
        digest = plan.pop("chunking")
        chunking = self._chunking(dataset, num_samples)
        # other chunks would be other blocks, and every id would have another position
        if digest != chunking.digest:
            raise RecordMismatchError(
                f"the epoch of the record was ordered by chunks with digest {digest!r}, but the dataset has chunks "
                f"with digest {chunking.digest!r}, so that ids have other positions: open the files with the chunks "
                "and the key they had, or start a new run",
                field="order",
            )
        return self._planned(Lanes(**plan), chunking)

    def bind(self, num_samples: int, *, seed: int, epoch: int) -> Arrangement:
        """Return the order of one epoch as planned for one rank without workers.

        It needs ``chunk``, since there is no dataset to ask.
        """
        return self.plan(range(num_samples), num_samples, Lanes).bind(
            num_samples, seed=seed, epoch=epoch
        )

    def _planned(self, lanes: Lanes, chunking: Chunking) -> PlannedChunkShuffle:
        return PlannedChunkShuffle(self, self._window, lanes, chunking)

    def _chunking(self, dataset: Any, num_samples: int) -> Chunking:
        if self._chunk is not None:
            return Chunking.single(num_samples, self._chunk)
        try:
            return chunking_of(dataset, num_samples)
        except TypeError as error:
            raise TypeError(
                f"ChunkShuffle must know the chunks of the data, but {error}; or pass chunk=, the number of successive "
                "samples to keep together, or use orders.Shuffle()"
            ) from None

    def __repr__(self) -> str:
        options = {"lanes": self._lanes, "batch": self._batch, "chunk": self._chunk}
        given = "".join(f", {name}={value}" for name, value in options.items() if value is not None)
        return f"ChunkShuffle(window={self._window}{given})"


class PlannedChunkShuffle(Order):
    """``ChunkShuffle`` as it is planned for one epoch: what ``ChunkShuffle.plan`` returns.

    Parameters
    ----------
    order : ChunkShuffle
        The order that was planned.
    window : int
        Chunks in a window.
    lanes : Lanes
        Who reads the epoch.
    chunking : Chunking
        How the samples are stored in chunks.

    Examples
    --------
    >>> planned = ChunkShuffle(chunk=4).plan(range(24), 24, lambda: Lanes(ranks=2, workers=3, batch=8))
    >>> planned.lanes
    Lanes(ranks=2, workers=3, batch=8)
    """

    algorithm = ChunkShuffle.algorithm

    def __init__(self, order: ChunkShuffle, window: int, lanes: Lanes, chunking: Chunking) -> None:
        self._order = order
        self._window = window
        self.lanes = lanes
        self.chunking = chunking

    def parameters(self) -> dict[str, Any]:
        """Return those of the order, and the plan: lanes, and a digest of the chunks."""
        return {
            **self._order.parameters(),
            # a digest: a list of chunks would be as long as the list of files
            "plan": {**self.lanes._asdict(), "chunking": self.chunking.digest},
        }

    @cached_property
    def tiling(self) -> Tiling:
        """How the files are cut into blocks and units."""
        # a rank's share of a batch, since a window is read by one worker of one rank
        return Tiling.of(self.chunking, self._window, max(1, self.lanes.batch // self.lanes.ranks))

    def bind(self, num_samples: int, *, seed: int, epoch: int) -> Arrangement:
        """Return the order of one epoch.

        Raises
        ------
        ValueError
            For another number of samples than it was planned for.
        """
        n = validate.integer(num_samples, "num_samples", high=LIMIT)
        if n != self.chunking.num_samples:
            raise ValueError(
                f"the order was planned for {self.chunking.num_samples} samples, but is bound to {n}; call plan() again"
            )
        return ChunkShuffled(
            self.tiling,
            self.lanes,
            validate.integer(seed, "seed"),
            validate.integer(epoch, "epoch"),
        )


def _lanes(lanes: Any) -> tuple[int, int]:
    if not isinstance(lanes, (tuple, list)) or len(lanes) != 2:
        raise TypeError(f"lanes must be a pair (ranks, loader workers of a rank), got {lanes!r}")
    ranks = validate.integer(lanes[0], "lanes: ranks", low=1, high=_MOST_LANES)
    workers = validate.integer(
        lanes[1], "lanes: loader workers", low=1, high=min(_MOST_LANES, _MOST_IN_ALL // ranks)
    )
    return ranks, workers


def _read(plan: Any) -> dict[str, Any]:
    """Return the plan of a record.

    RecordError if it is malformed, or has more lanes than are allowed.
    """
    fields = schema.fields(plan, "sampler state: order: plan", _PLAN)
    # each is within its own limit, but a lane takes memory and there are this many
    if fields["ranks"] * fields["workers"] > _MOST_IN_ALL:
        raise RecordError(
            f"sampler state: order: plan: {fields['ranks']} ranks of {fields['workers']} workers are too many; "
            f"at most {_MOST_IN_ALL} lanes are allowed"
        )
    return fields


_PLAN = {
    "ranks": schema.Integer(1, _MOST_LANES),
    "workers": schema.Integer(1, _MOST_LANES),
    "batch": schema.Integer(1, _MOST),
    "chunking": schema.Text(32),
}
