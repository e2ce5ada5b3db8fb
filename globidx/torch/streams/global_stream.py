"""An iterable dataset that is divided over ranks and loader workers, and can stop anywhere."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from globidx.core import validate
from globidx.core.progress import partition
from globidx.core.streams import division
from globidx.errors import CommitError
from globidx.torch.loops import callers
from globidx.torch.loops.moments import moments_of, tell
from globidx.torch.sampler import ResumableDistributedSampler
from globidx.torch.sources.map_dataset import MapDataset
from globidx.torch.streams.begun import Begun, Reading, samples_of
from globidx.torch.streams.functions import Chain, Transform, batch_of, chosen
from globidx.torch.streams.legs import Legs, next_epoch
from globidx.torch.streams.refusals import refuse_in_worker, refuse_torchdata, refused_second_pass


class GlobalStream(IterableDataset[Any]):
    """The samples of a map-style dataset as an iterable one: each once, on any ranks and workers.

    The samples are dealt to ranks, and those of a rank to the workers of its loader, in batches.
    What the loader delivers is what a ``ResumableDistributedSampler`` would yield, in the same
    sequence, and the record is that sampler's: either resumes from the other's, on any number of
    ranks and workers.

    Parameters
    ----------
    dataset : map-style dataset
        With ``len()`` and samples by id: also a ``datasets.Dataset`` of Hugging Face.
    num_replicas, rank : int, optional
        As for ``ResumableDistributedSampler``.
    batch_size : int, optional
        That of the loader. torch's loader need not be told of: a worker sees how many samples it
        takes, and compares. Workers of another loader need it.
    infinite : bool, default False
        Whether the stream goes on with the next epoch, in another order, where one ends. A batch
        may then have samples of two epochs.
    filter_fn : callable, optional
        Which samples there are: those of which it is true. It is called when the stream is made, by
        the dataset's own ``filter`` if there is one, or else with each sample in turn.
    message_transform, model_transform, output_transform : callable, optional
        What is called with a sample, one after another, in the worker.
    **sampler
        What else ``ResumableDistributedSampler`` takes: ``shuffle``, ``seed``, ``tail``, ``order``,
        ``group``, ``mesh``, and so on.

    Attributes
    ----------
    sampler : ResumableDistributedSampler
        Who has the progress; ``CheckpointManager`` takes it, or the stream.
    batch_size : int or None
        As given.
    infinite : bool
        As given.

    Raises
    ------
    TypeError
        If the dataset is not map-style.

    Notes
    -----
    ``globidx.DataLoader(stream, batch_size=...)`` reads the stream as the map-style dataset and the
    sampler that it is, and commits by itself. With torch's ``DataLoader`` call ``commit`` after each
    batch, in the training loop.

    Workers of torch's loader are given a copy of the stream when they start, so
    ``persistent_workers=True`` is refused there in its second pass.

    Examples
    --------
    Two ranks train on two batches each; three ranks go on.

    >>> from torch.utils.data import DataLoader
    >>> stream = GlobalStream(range(10), num_replicas=2, rank=0, shuffle=False)
    >>> for batch in DataLoader(stream, batch_size=2):
    ...     stream.commit(len(batch))
    ...     print(batch.tolist())
    ...     if stream.sampler.remaining < 5:
    ...         break
    [0, 2]
    [4, 6]
    >>> record = stream.state_dict()
    >>> for rank in range(3):
    ...     resumed = GlobalStream(range(10), 3, rank, shuffle=False, tail="exact")
    ...     resumed.load_state_dict(record)
    ...     print(list(resumed))
    [8]
    [9]
    []
    """

    def __init__(
        self,
        dataset: Any,
        num_replicas: int | None = None,
        rank: int | None = None,
        *,
        batch_size: int | None = None,
        infinite: bool = False,
        filter_fn: Callable[[Any], bool] | None = None,
        message_transform: Transform | None = None,
        model_transform: Transform | None = None,
        output_transform: Transform | None = None,
        **sampler: Any,
    ) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
            raise TypeError(
                f"a stream is made of a map-style dataset, with __len__ and __getitem__, got a "
                f"{type(dataset).__name__}: of a sequence that can only be read from its beginning nobody "
                "could say which samples are left"
            )
        if batch_size is not None:
            validate.integer(batch_size, "batch_size", low=1)
        self.batch_size, self.infinite = batch_size, bool(infinite)
        source = dataset if filter_fn is None else chosen(dataset, filter_fn)
        given = (message_transform, model_transform, output_transform)
        transforms = [transform for transform in given if transform is not None]
        self._samples = MapDataset(source, transform=Chain(transforms)) if transforms else source
        self.sampler = ResumableDistributedSampler(source, num_replicas, rank, **sampler)
        self._begun = Begun()
        self._name = _new_name()
        # the pass that was committed last, and the sampler's generation after that; None if the
        # pass is over
        self._committed: tuple[Reading, int | None] | None = None
        # where it was unpickled: the process, and the stream and generation that it is a copy of
        self._copied: tuple[int, int, int] | None = None
        self._is_read = False

    # -- how far it is

    def __len__(self) -> int:
        """How many samples of the epoch are this rank's, done or not.

        TypeError for an infinite stream.
        """
        if self.infinite:
            raise TypeError(
                "an infinite stream has no len(); that of an epoch is len(stream.sampler)"
            )
        return len(self.sampler)

    @property
    def rank(self) -> int:
        """This process's rank among the data-parallel ranks."""
        return self.sampler.rank

    @property
    def num_replicas(self) -> int:
        """World size: how many data-parallel ranks there are."""
        return self.sampler.num_replicas

    @property
    def epoch(self) -> int:
        """The epoch that the next pass reads."""
        return self.sampler.epoch

    @property
    def is_begun(self) -> bool:
        """Whether some of that epoch is committed."""
        return self.sampler._ledger.done > 0

    def distribution_info(
        self, num_workers: int = 0, batch_size: int | None = None
    ) -> dict[str, Any]:
        """How what is left of the epoch is divided, to look at when samples seem to be missing.

        Parameters
        ----------
        num_workers : int, default 0
            That of the loader. In a worker it is known.
        batch_size : int, optional
            That of the loader, by default the stream's, or else 1.

        Returns
        -------
        dict
            ``total``, how many samples are left over all ranks; ``per_rank``, how many each rank
            yields; ``per_worker``, how many each worker of this rank yields; ``assigned``, how many
            this worker yields or, outside workers, this rank.

        Examples
        --------
        >>> stream = GlobalStream(range(11), num_replicas=2, rank=0, tail="exact")
        >>> stream.distribution_info(num_workers=2, batch_size=2)
        {'total': 11, 'per_rank': [6, 5], 'per_worker': [4, 2], 'assigned': 6}
        """
        workers = validate.integer(num_workers, "num_workers")
        size = batch_size if batch_size is not None else self.batch_size or 1
        validate.integer(size, "batch_size", low=1)
        info = get_worker_info()
        workers = max(1, workers) if info is None else info.num_workers
        leg = Legs(self.sampler, endless=False).first
        state, ranks = leg.state, range(leg.state.world_size)
        dealt = partial(
            partition.stream_length,
            state.progress.remaining,
            world_size=len(ranks),
            tail=state.tail,
        )
        per_worker = division.shares(leg.length, size=size, workers=workers)
        return {
            "total": state.closed().remaining,
            # as if all ranks had come as far as this one
            "per_rank": [max(0, dealt(rank=rank) - state.committed) for rank in ranks],
            "per_worker": per_worker,
            "assigned": leg.length if info is None else per_worker[info.id],
        }

    # -- reading

    def __iter__(self) -> Iterator[Any]:
        """This worker's samples of the epoch that are not committed, or this rank's."""
        self._refuse_other_readers()
        is_again = self._is_read and get_worker_info() is not None
        self._is_read = True
        # now, and not when the first sample is asked for: by then a batch may be committed
        legs = Legs(self.sampler, endless=self.infinite)
        self._begun.note(self._reading()._replace(epoch=legs.first.state.epoch))
        if is_again:
            return refused_second_pass(", or use globidx.DataLoader, whose workers may persist")
        return self._read(legs)

    def map_style(self) -> tuple[Any, ResumableDistributedSampler]:
        """The map-style dataset and the sampler that this stream is.

        Returns
        -------
        dataset
            Its samples by id, transformed.
        sampler : ResumableDistributedSampler
            The sampler of the stream.

        Examples
        --------
        >>> dataset, sampler = GlobalStream(range(4), 1, 0, output_transform=str).map_style()
        >>> dataset[3], len(sampler)
        ('3', 4)
        """
        return self._samples, self.sampler

    def _read(self, legs: Legs) -> Iterator[Any]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        # workers may be in different epochs of an infinite stream
        for moment in moments_of(self._samples) if info is not None else ():
            moment.part()
        fetch = callers.fetch_under_way()
        size, before = self._block_size(fetch, workers), 0
        for leg in legs:
            for start, stop in division.runs(
                leg.length, size=size, worker=worker, workers=workers, before=before
            ):
                if workers > 1 and (before + start) % size == 0:
                    _refuse_mid_batch()
                tell(self._samples, leg.moment)
                yield from batch_of(self._samples, leg.ids(start, stop))
            before += leg.length

    def _block_size(self, fetch: callers.Fetch | None, workers: int) -> int:
        """How many samples make a batch; ValueError if that is not what was said, or not known."""
        given = self.batch_size
        if workers == 1 or (given is not None and fetch is None):
            return given or (fetch.size if fetch is not None else 1)
        if fetch is None:
            raise ValueError(
                f"the stream is read by {workers} workers of a loader that is not torch's, which take batches in "
                "turn, so it must know their size: pass GlobalStream(..., batch_size=)"
            )
        if given not in (None, fetch.size):
            raise ValueError(
                f"the loader takes batches of {fetch.size} samples from each of {workers} workers, and the stream was "
                f"made with batch_size={given}, so what is delivered would be no prefix of the order; pass the same to "
                "both, or leave it out of GlobalStream"
            )
        return fetch.size

    def _reading(self) -> Reading:
        """The pass that would begin now."""
        ledger, copied = self.sampler._ledger, self._copied
        name, generation = self._name, ledger.passes.generation
        # a worker that was forked is as the stream was; one that was spawned has a copy
        if get_worker_info() is not None and copied is not None and copied[0] == os.getpid():
            _, name, generation = copied
        return Reading(name, ledger.running_epoch, generation, samples_of(ledger.tracker.state))

    def _refuse_other_readers(self) -> None:
        """An error for readers that would lose or repeat samples."""
        callers.refuse_ignite()
        callers.refuse_stream_of_accelerate(self.sampler.num_replicas)
        refuse_torchdata(
            "use it with the map-style dataset, StatefulDataLoader(dataset, sampler=stream.sampler), or give "
            "globidx.DataLoader the stream"
        )

    # -- changes

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch to read; see ``ResumableDistributedSampler.set_epoch``.

        Parameters
        ----------
        epoch : int
            The epoch, from 0.

        Examples
        --------
        >>> stream = GlobalStream(range(4), 1, 0)
        >>> stream.set_epoch(3)
        >>> stream.epoch
        3
        """
        refuse_in_worker("set_epoch")
        self.sampler.set_epoch(epoch)

    def reset(self) -> None:
        """Forget all progress; see ``ResumableDistributedSampler.reset``.

        Examples
        --------
        >>> stream = GlobalStream(range(4), 1, 0)
        >>> stream.commit(3)
        >>> stream.reset()
        >>> len(list(stream))
        4
        """
        refuse_in_worker("reset")
        self.sampler.reset()

    def commit(self, count: int) -> None:
        """Report that the training loop has had ``count`` more of this rank's samples.

        Parameters
        ----------
        count : int
            How many, padding included. If a batch is a dict, pass the length of one of its fields.

        Raises
        ------
        globidx.errors.CommitError
            If this rank had fewer left, if the sampler has moved on since the loop began, or if a
            ``globidx.DataLoader`` commits by itself.

        Examples
        --------
        >>> stream = GlobalStream(range(10), 1, 0)
        >>> stream.commit(4)
        >>> stream.sampler.remaining
        6
        """
        refuse_in_worker("commit")
        left, ledger = validate.integer(count, "count"), self.sampler._ledger
        with ledger.lock:
            reading = self._refuse_moved(count)
            is_first = self._committed is None or self._committed[0] != reading
            # or ids were drawn by others meanwhile
            if reading is not None and (is_first or not ledger.passes.untouched):
                ledger.read_apart()
            is_over = False
            if self.infinite and left >= ledger.left_to_deliver:
                self._refuse_other_samples()
            while left:
                now = self._of_this_epoch(left)
                epoch = ledger.running_epoch
                self.sampler.commit(now)
                left -= now
                is_over = ledger.running_epoch != epoch and not self.infinite
            if reading is not None:
                self._committed = reading, None if is_over else ledger.passes.generation

    def _of_this_epoch(self, count: int) -> int:
        """How many of ``count`` samples are of the epoch that runs; one that is over is left."""
        ledger = self.sampler._ledger
        while self.infinite and not ledger.left_to_deliver:
            next_epoch(ledger)
        return min(count, ledger.left_to_deliver) if self.infinite else count

    def _refuse_moved(self, count: int) -> Reading | None:
        """CommitError for what was delivered of a pass that is over.

        Returns the pass; None if the stream was not read in this run.
        """
        reading = self._begun.reading
        if reading.stream != self._name:
            return None
        passes, expected = self.sampler._ledger.passes, reading.generation
        # commits of the pass itself move the sampler, too
        if self._committed is not None and self._committed[0] == reading:
            if self._committed[1] is None:
                raise CommitError(
                    f"commit({count}), but all samples of the pass are committed; commit each batch once, with the "
                    "number of samples in this rank's batch, never in that of all ranks together"
                )
            expected = self._committed[1]
        if passes.generation != expected:
            raise CommitError(
                f"commit({count}), but the sampler {passes.moved} since this loop began, so what the loop had no "
                "longer counts; leave it and start a new one over the loader"
            )
        return reading

    def _refuse_other_samples(self) -> None:
        """CommitError if the next epoch is not the one that the workers go on with."""
        reading = self._begun.reading
        if reading.stream == self._name and reading.samples != self._reading().samples:
            raise CommitError(
                "skip() was called, or the dataset has changed, while a loop over an infinite stream runs, whose "
                "workers go on as before: leave the loop, and start a new one over the loader"
            )

    # -- records and copies

    def state_dict(self) -> dict[str, Any]:
        """The record of the sampler; see ``ResumableDistributedSampler.state_dict``.

        Returns
        -------
        dict
            JSON values. They load on any number of ranks and workers, into a stream or a sampler.

        Examples
        --------
        >>> GlobalStream(range(10), 1, 0).state_dict()["remaining"]
        10
        """
        refuse_in_worker("state_dict")
        return self.sampler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a record of a stream or a sampler, of any number of ranks and workers.

        Parameters
        ----------
        state : Mapping
            What ``state_dict`` or ``merge_states`` returned.

        Examples
        --------
        >>> stream = GlobalStream(range(10), 1, 0)
        >>> sampler = ResumableDistributedSampler(range(10), 1, 0)
        >>> sampler.commit(4)
        >>> stream.load_state_dict(sampler.state_dict())
        >>> len(list(stream))
        6
        """
        refuse_in_worker("load_state_dict")
        self.sampler.load_state_dict(state)

    def __getstate__(self) -> dict[str, Any]:
        reading = self._reading()
        return self.__dict__ | {"_copied": (0, reading.stream, reading.generation)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # the copy has a sampler of its own, and no loop
        self._name, self._committed, self._is_read = _new_name(), None, False
        self._copied = os.getpid(), *state["_copied"][1:]


def _new_name() -> int:
    return uuid.uuid4().int >> 66


def _refuse_mid_batch() -> None:
    """ValueError if a worker's loader asks for the first sample of a block in the middle of a batch."""
    fetch = callers.fetch_under_way()
    if fetch is not None and fetch.begun:
        raise ValueError(
            f"a batch has {fetch.begun} samples already where the stream begins one, so a dataset around the stream "
            "leaves samples out or repeats them, and what is delivered would be no prefix of the order; give the "
            "stream filter_fn= or the transforms, or use no workers"
        )
