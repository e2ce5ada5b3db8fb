"""An iterable dataset over files of which only whole ones can be divided."""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from globidx.core import validate
from globidx.core.streams.shard_counts import divided, parts_left, rows_in
from globidx.core.streams.shard_progress import Part, Place, ShardProgress
from globidx.core.streams.shard_state import ShardState, merged, names_of
from globidx.errors import CommitError, EpochError, RecordMismatchError
from globidx.torch.loops import callers
from globidx.torch.ranks.world import World
from globidx.torch.streams.refusals import refuse_in_worker, refuse_torchdata, refused_second_pass


class ShardStream(IterableDataset[tuple[Any, NDArray[np.int64]]]):
    """The rows of files that can be read from their beginning only: each once, on any ranks and workers.

    Whole shards are dealt to ranks, and those of a rank to the workers of its loader. A record says
    which shards are done, and how many rows of those that are begun; so a run goes on at shard and
    row, on any number of both. Where samples can be read by id, ``GlobalStream`` is better: it gives
    all ranks equally many.

    Parameters
    ----------
    shards : sequence of str or Path
        The files, or whatever else ``open_shard`` takes that is named by a string.
    open_shard : callable
        Returns the rows of a shard, as an iterable. If it has a parameter ``start`` it is given the
        first row to return; otherwise rows before that one are read and left out.
    num_replicas, rank : int, optional
        As for ``ResumableDistributedSampler``.
    shuffle : bool, default True
        Whether shards are read in another order in each epoch. Rows of a shard stay in theirs.
    seed : int, default 0
        Seed of the order, the same on all ranks.
    infinite : bool, default False
        Whether the stream goes on with the next epoch, in another order, where one ends. Ranks and
        workers may then be in different epochs, and no shard may be empty.
    lengths : sequence of int, optional
        How many rows each shard has, if that is known; see ``num_rows``.
    group, mesh : optional
        As for ``ResumableDistributedSampler``.

    Raises
    ------
    TypeError, ValueError
        If there is no shard, lengths are not those of the shards, or an argument is of another
        type.

    Notes
    -----
    It yields ``(row, place)``. Pass the places of each batch to ``commit``, in the training loop:
    only they say which shards a batch is of. Ranks have different numbers of rows, and end at
    different steps, but for an infinite stream. A shard is known by its file name; its rows must
    stay as they are.

    It has no ``len()``: torch's loader would count batches by it, and leave out the smaller batch
    that each worker ends with.

    Examples
    --------
    >>> from torch.utils.data import DataLoader
    >>> rows = {"a": [0, 1, 2], "b": [10, 11, 12, 13], "c": [20]}
    >>> stream = ShardStream(["a", "b", "c"], rows.get, num_replicas=1, rank=0, shuffle=False)
    >>> for batch, places in DataLoader(stream, batch_size=2):
    ...     stream.commit(places)
    ...     print(batch.tolist())
    ...     if 10 in batch:
    ...         break
    [0, 1]
    [2, 10]
    >>> record = ShardStream.merge_states([stream.state_dict()])
    >>> for rank in range(2):
    ...     resumed = ShardStream(["a", "b", "c"], rows.get, 2, rank, shuffle=False)
    ...     resumed.load_state_dict(record)
    ...     print([row for row, place in resumed])
    [11, 12, 13]
    [20]
    """

    def __init__(
        self,
        shards: Sequence[str | os.PathLike[str]],
        open_shard: Callable[..., Iterable[Any]],
        num_replicas: int | None = None,
        rank: int | None = None,
        *,
        shuffle: bool = True,
        seed: int = 0,
        infinite: bool = False,
        lengths: Sequence[int] | None = None,
        group: Any = None,
        mesh: Any = None,
    ) -> None:
        if isinstance(shards, str) or not len(shards):
            raise ValueError(f"shards must be a list of at least one file, got {shards!r:.80}")
        if not callable(open_shard):
            raise TypeError(f"open_shard must be a function of a shard, got {open_shard!r:.80}")
        self._shards, self._open = list(shards), open_shard
        self._seeks = _takes_start(open_shard)
        self._world = World(num_replicas, rank, group, mesh)
        self._lengths = None if lengths is None else _lengths_of(self._shards, lengths)
        # a folder may be moved between two runs
        names = names_of([os.path.basename(os.fspath(shard)) for shard in shards])
        self._state = ShardState(
            len(self._shards),
            names,
            bool(shuffle),
            validate.integer(seed, "seed"),
            infinite=bool(infinite),
        )
        # epochs before it are finished, according to the record that was loaded
        self._loaded_epoch = 0
        self._is_read = False

    @property
    def rank(self) -> int:
        """This process's rank among the data-parallel ranks."""
        return self._world.resolve()[0]

    @property
    def num_replicas(self) -> int:
        """World size: how many data-parallel ranks there are."""
        return self._world.resolve()[1]

    @property
    def epoch(self) -> int:
        """The epoch that the next pass reads: of an infinite stream that of its first row."""
        return (self._here() if self.infinite else self._state).running_epoch

    @property
    def is_begun(self) -> bool:
        """Whether some of that epoch is committed, as this rank knows."""
        return any(known != ShardProgress() for known in (self._state.start, self._state.own))

    @property
    def infinite(self) -> bool:
        """Whether it goes on with the next epoch where one ends."""
        return self._state.infinite

    @property
    def num_rows(self) -> int | None:
        """How many rows of the epoch this rank has left; None without ``lengths=``."""
        state = self._here()
        return (
            None
            if self._lengths is None
            else rows_in(state, parts_left(state, state.rank), self._lengths)
        )

    def distribution_info(self, num_workers: int = 0) -> dict[str, Any]:
        """How the shards that are left of the epoch are divided, those that are begun included.

        Of other ranks it is known what they were dealt, and not what they have read since.

        Parameters
        ----------
        num_workers : int, default 0
            That of the loader. In a worker it is known.

        Returns
        -------
        dict
            ``total``, how many shards are left over all ranks; ``per_rank``, how many each rank
            reads; ``per_worker``, how many each worker of this rank reads; ``assigned``, how many
            this worker reads or, outside workers, this rank. With ``lengths=`` there is ``rows``,
            which has the same of rows.

        Examples
        --------
        >>> stream = ShardStream(["a", "b", "c"], range, 2, 0, shuffle=False, lengths=[5, 6, 7])
        >>> info = stream.distribution_info(num_workers=2)
        >>> info.pop("rows")
        {'total': 18, 'per_rank': [12, 6], 'per_worker': [5, 7], 'assigned': 12}
        >>> info
        {'total': 3, 'per_rank': [2, 1], 'per_worker': [1, 1], 'assigned': 2}
        """
        workers = max(1, validate.integer(num_workers, "num_workers"))
        info, state = get_worker_info(), self._here()
        number = None if info is None else info.id
        count = partial(divided, state, workers if info is None else info.num_workers, number)
        shards: dict[str, Any] = count(len)
        if self._lengths is not None:
            shards["rows"] = count(partial(rows_in, state, lengths=self._lengths))
        return shards

    # -- reading

    def __iter__(self) -> Iterator[tuple[Any, NDArray[np.int64]]]:
        """This worker's rows that are not committed, each with its place."""
        callers.refuse_stream_of_accelerate(self.num_replicas)
        refuse_torchdata("use torch's DataLoader, and keep the state of the stream")
        info = get_worker_info()
        if info is not None and self._is_read:
            return refused_second_pass("")
        self._is_read = True
        state = self._here()
        number, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        # now, and not when the first row is asked for: by then a batch may be committed
        parts = itertools.islice(state.left(), number, None, workers)
        return self._rows(state, parts)

    def _rows(
        self, state: ShardState, parts: Iterable[Part]
    ) -> Iterator[tuple[Any, NDArray[np.int64]]]:
        for part in parts:
            epochs, at = divmod(part.shard, state.shards)
            (number,) = state.numbers([part.shard])
            rows = iter(self._opened(self._shards[number], part.start))
            # one ahead: only the row behind the last one says that it was that
            ahead = next(rows, _END)
            if ahead is _END and (part.start or self.infinite):
                raise _nothing_in(self._shards[number], part.start)
            for row in itertools.count(part.start):
                if ahead is _END:
                    break
                now, ahead = ahead, next(rows, _END)
                place = Place(state.epoch + epochs, at, row, ahead is _END)
                yield now, np.array(place, np.int64)

    def _opened(self, shard: Any, start: int) -> Iterable[Any]:
        if self._seeks:
            return self._open(shard, start=start)
        return itertools.islice(self._open(shard), start, None)

    def _here(self) -> ShardState:
        """The state at the current world size; CommitError if rows were committed at another."""
        rank, world_size = self._world.resolve()
        state = self._state
        if (state.rank, state.world_size) == (rank, world_size):
            return state
        if state.own != ShardProgress():
            raise CommitError(
                f"rows of epoch {state.epoch} were dealt to rank {state.rank} of {state.world_size}, but this is rank "
                f"{rank} of {world_size} now; make a new stream, and load the record of all ranks"
            )
        return replace(state, rank=rank, world_size=world_size)

    # -- changes

    def commit(self, places: Any) -> None:
        """Report that the training loop has had the rows at some places.

        Parameters
        ----------
        places : tensor or array of shape (n, 4)
            The places of a batch, as the loader delivers them.

        Raises
        ------
        globidx.errors.CommitError
            If they are of another epoch, were dealt to another rank, or are not the next ones of
            their shards.

        Examples
        --------
        >>> stream = ShardStream(["a"], lambda shard: range(3), 1, 0)
        >>> rows = list(stream)
        >>> stream.commit([place for row, place in rows[:2]])
        >>> [row for row, place in stream]
        [2]
        """
        refuse_in_worker("commit")
        # a tensor may be on a device
        given = np.asarray(places.tolist() if hasattr(places, "tolist") else places, np.int64)
        self._state = self._here().commit(given.reshape(-1, len(Place._fields)).tolist())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch to read; the running one keeps its progress, any other starts afresh.

        Call it before each pass: of a rank that is dealt nothing nobody else could say that its
        epoch is over.

        Parameters
        ----------
        epoch : int
            The epoch, from 0.

        Raises
        ------
        globidx.errors.EpochError
            If the record that was loaded calls this epoch finished.

        Examples
        --------
        >>> stream = ShardStream(["a"], lambda shard: range(3), 1, 0)
        >>> stream.set_epoch(2)
        >>> stream.epoch
        2
        """
        refuse_in_worker("set_epoch")
        if validate.integer(epoch, "epoch") < self._loaded_epoch:
            raise EpochError(
                f"set_epoch({epoch}), but epochs [0, {self._loaded_epoch}) are finished according to the loaded "
                "record; loop over range(stream.epoch, num_epochs)"
            )
        if epoch != self.epoch:
            self._state = self._state.next_epoch(epoch)

    def reset(self) -> None:
        """Forget all progress: the epoch that was set starts over, and any epoch may be set.

        Examples
        --------
        >>> stream = ShardStream(["a"], lambda shard: range(3), 1, 0)
        >>> stream.commit([place for row, place in stream])
        >>> stream.reset()
        >>> len(list(stream))
        3
        """
        refuse_in_worker("reset")
        self._state = self._state.next_epoch(self.epoch)
        self._loaded_epoch = 0

    # -- records

    def state_dict(self) -> dict[str, Any]:
        """What this rank has had.

        ``CheckpointManager(folder, {"stream": stream})`` makes the record of all ranks of it.

        Returns
        -------
        dict
            JSON values; ``merge_states`` makes of those of all ranks what any number of ranks loads.

        Examples
        --------
        >>> ShardStream(["a"], lambda shard: range(3), 1, 0).state_dict()["shards"]
        1
        """
        refuse_in_worker("state_dict")
        return self._here().to_dict()

    @staticmethod
    def merge_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Merge the ``state_dict()``s of all ranks into one record.

        Parameters
        ----------
        states : sequence of Mapping
            That of every rank, in rank order.

        Returns
        -------
        dict
            What ``load_state_dict`` takes on any number of ranks.

        Raises
        ------
        globidx.errors.RecordError, globidx.errors.RecordMismatchError
            If one is missing, or they are of different runs, epochs or records.

        Examples
        --------
        >>> ranks = [ShardStream(["a", "b"], lambda shard: range(3), 2, rank) for rank in (0, 1)]
        >>> ranks[0].commit([place for row, place in ranks[0]])
        >>> ShardStream.merge_states([rank.state_dict() for rank in ranks])["start"]["done"]
        [[0, 1]]
        """
        return merged(states)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a record of all ranks, on any number of ranks and workers.

        Parameters
        ----------
        state : Mapping
            What ``merge_states`` returned, or this rank's own state.

        Raises
        ------
        globidx.errors.RecordMismatchError
            If it is of other shards, seed or order, or of one of several other ranks.
        globidx.errors.RecordError
            If it is no state of a stream of shards.

        Examples
        --------
        >>> stream = ShardStream(["a"], lambda shard: range(3), 1, 0)
        >>> stream.load_state_dict(stream.state_dict())
        """
        refuse_in_worker("load_state_dict")
        loaded = ShardState.from_dict(state)
        self._state.refuse_other_run(loaded)
        if loaded.world_size > 1 and (loaded.rank, loaded.world_size) != self._world.resolve():
            raise RecordMismatchError(
                f"this is the state of rank {loaded.rank} of {loaded.world_size} alone, and says nothing of what the "
                "other ranks have had; save with CheckpointManager, or load ShardStream.merge_states() of all"
            )
        if loaded.world_size == 1:
            loaded = loaded.closed()
        self._state = loaded.read_by(self._state)
        self._loaded_epoch = self._state.epoch

    def __getstate__(self) -> dict[str, Any]:
        # a process group cannot be pickled, and a worker has none
        return self.__dict__ | {"_world": self._world.for_child()}


_END: Any = object()


def _takes_start(open_shard: Callable[..., Any]) -> bool:
    try:
        return "start" in inspect.signature(open_shard).parameters
    except (TypeError, ValueError):
        # of a function in C that says nothing
        return False


def _lengths_of(shards: Sequence[Any], lengths: Sequence[int]) -> list[int]:
    given: list[int] = validate.integers(lengths, "a length", 2**62).tolist()
    if len(given) != len(shards):
        raise ValueError(
            f"lengths has {len(given)} numbers for {len(shards)} shards; pass one of each"
        )
    return given


def _nothing_in(shard: Any, start: int) -> ValueError:
    if start:
        return ValueError(
            f"shard {shard!r} has no row {start}, of which rows [0, {start}) are committed: it is not as it was; "
            "restore the file, or start a new run"
        )
    return ValueError(
        f"shard {shard!r} has no rows, so an infinite stream would never know that it is read; leave it out"
    )
