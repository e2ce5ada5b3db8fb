"""An iterable dataset over files of which only whole ones can be divided."""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from globidx.core import validate
from globidx.core.streams.shard_progress import Part, Place, ShardProgress, dealt
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
    group, mesh : optional
        As for ``ResumableDistributedSampler``.

    Raises
    ------
    TypeError, ValueError
        If there is no shard, or an argument is of another type.

    Notes
    -----
    It yields ``(row, place)``. Pass the places of each batch to ``commit``, in the training loop:
    only they say which shards a batch is of. Ranks have different numbers of rows, and end at
    different steps. A shard is known by its file name; its rows must stay as they are.

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
        # a folder may be moved between two runs
        names = names_of([os.path.basename(os.fspath(shard)) for shard in shards])
        self._state = ShardState(
            len(self._shards), names, bool(shuffle), validate.integer(seed, "seed")
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
        """The epoch that the next pass reads."""
        return self._state.epoch

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
        return self._rows(state, dealt(state.left(), number=number, of=workers))

    def _rows(
        self, state: ShardState, parts: Sequence[Part]
    ) -> Iterator[tuple[Any, NDArray[np.int64]]]:
        order = state.order()
        for part in parts:
            rows = iter(self._opened(self._shards[order[part.shard]], part.start))
            # one ahead: only the row behind the last one says that it was that
            ahead = next(rows, _END)
            for row in itertools.count(part.start):
                if ahead is _END:
                    break
                now, ahead = ahead, next(rows, _END)
                yield now, np.array(Place(state.epoch, part.shard, row, ahead is _END), np.int64)

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
        if epoch != self._state.epoch:
            self._state = self._state.next_epoch(epoch)

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
            loaded = replace(loaded, start=loaded.start | loaded.own, own=ShardProgress())
        self._state, self._loaded_epoch = loaded, loaded.epoch

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
