"""Lightning: a Trainer that resumes in mid-epoch, on any number of processes."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any

import torch.utils.data

from globidx.integrations.dcp import ResumableState
from globidx.stream import GlobalStream, ShardStream
from globidx.torch.loader import DataLoader
from globidx.torch.sampler import ResumableDistributedSampler

_log = logging.getLogger("globidx")
#: One framework under two names; neither asks whether a callback was made for the other.
_NAMES = ("lightning.pytorch", "pytorch_lightning")


def _callback_class() -> Any:
    """The ``Callback`` of the name that is imported already, or else of one that is installed."""
    for name in sorted(_NAMES, key=lambda name: name not in sys.modules):
        with suppress(ModuleNotFoundError):
            return import_module(name).Callback
    raise ModuleNotFoundError(
        "globidx.integrations.lightning needs Lightning 2.x, which is not installed: "
        "pip install '.[lightning]'"
    )


_Callback: Any = _callback_class()


class _Resuming(_Callback):
    """What both callbacks do: load to fit only, and let each validation read all."""

    _fits = True
    #: What goes on from a record.
    _resumed: Any

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a record; validation and tests, which read weights, leave all as it is.

        Parameters
        ----------
        state_dict : dict
            What ``state_dict`` returned, on any number of processes.
        """
        if self._fits:
            self._resumed.load_state_dict(state_dict)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ARG002
        """Remember whether the trainer fits; it loads callbacks to validate and test, too."""
        self._fits = stage == "fit"

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Let validation read all, whatever the sanity check or a limit has left half-read."""
        _begin_anew(trainer.val_dataloaders)

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Let a test read all."""
        _begin_anew(trainer.test_dataloaders)

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Let a prediction read all."""
        _begin_anew(trainer.predict_dataloaders)


class ResumableSamplerCallback(_Resuming):
    """A callback that keeps the record of a sampler in Lightning's checkpoints, and goes on from it.

    An epoch that was saved at any step goes on with any number of processes and any batch size, and
    each later epoch is a whole one. Validation, too, always reads the whole of its samples.

    Parameters
    ----------
    sampler : ResumableDistributedSampler
        The sampler of the training loader, which is a ``globidx.DataLoader``.

    Raises
    ------
    TypeError
        If it is another sampler.

    Notes
    -----
    ``fit`` begins an epoch with nothing done, unless ``ckpt_path=`` leads into its middle: what
    another ``fit``, a trial of the tuner or a loop of yours has read of it is read again. So leave
    records to ``ckpt_path=``, and load none by hand.

    Each of these is refused when training starts, by a ValueError that says what to do: a training
    loader of another class or over another sampler, several of them, ranks other than Lightning's,
    and ``tail="exact"`` on several ranks.

    Lightning keeps the callbacks' states of rank 0. All ranks have come equally far, so that is the
    record of all of them, but for ids in quarantine, of which it has those of rank 0.

    Examples
    --------
    >>> sampler = ResumableDistributedSampler(range(10), 1, 0)
    >>> callback = ResumableSamplerCallback(sampler)     # Trainer(callbacks=[callback])
    >>> callback.state_dict()["remaining"]
    10
    """

    def __init__(self, sampler: ResumableDistributedSampler) -> None:
        if not isinstance(sampler, ResumableDistributedSampler):
            raise TypeError(
                "the callback resumes a ResumableDistributedSampler, got a "
                f"{type(sampler).__name__}: pass the sampler of the training loader"
            )
        self.sampler = self._resumed = sampler
        self._count = _Count(sampler)
        # Lightning's counts of batches that are ready and processed
        self._progress: Any = None

    # -- the record, in a checkpoint

    def state_dict(self) -> dict[str, Any]:
        """The sampler's record, with all batches that were trained on.

        Lightning's handlers of signals may save in the middle of a step: as Lightning repeats that
        batch, the record is without it.
        """
        if self._progress is not None and self._progress.ready != self._progress.processed:
            return self.sampler._ledger.without_held().to_dict()
        return self.sampler.state_dict()

    # -- training

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Check the loader, and let Lightning count the epoch's batches as they are now."""
        loader = self._loader_of(trainer)
        self._progress = trainer.fit_loop.epoch_loop.batch_progress.current
        self._count.take(loader, loader.start, trainer)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Begin an epoch with nothing done; one that a checkpoint leads into is not begun."""
        loader = self._loader_of(trainer)
        if loader.start:
            _log.info("fit begins epoch %d anew: it was read in part", self.sampler.epoch)
            self.sampler.reset()
        self._count.renew(loader, trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """End the epoch, also if Lightning's limits left some of it."""
        # Lightning counts the epoch as processed already, and its own is lower in runs by max_steps
        if self.sampler.epoch < trainer.fit_loop.epoch_progress.current.processed:
            self.sampler.finish_epoch()

    def _loader_of(self, trainer: Any) -> DataLoader:
        """The training loader; ValueError if this callback cannot make it resume."""
        loader = trainer.train_dataloader
        samplers = _samplers_of(loader)
        if not isinstance(loader, DataLoader) or all(one is not self.sampler for one in samplers):
            raise ValueError(
                f"training reads a {type(loader).__name__} over a {type(samplers[0]).__name__}, and "
                "ResumableSamplerCallback needs one globidx.DataLoader over the sampler that it "
                "was given: pass globidx.DataLoader(dataset, ..., sampler=sampler) to fit"
            )
        _refuse_other_ranks(self.sampler, trainer)
        if self.sampler.tail == "exact" and self.sampler.num_replicas > 1:
            raise ValueError(_EXACT)
        return loader


class EpochCallback(_Resuming):
    """A callback that commits what a stream gives, sets its epoch, and keeps its record in checkpoints.

    It is for a stream that torch's ``DataLoader`` reads. An epoch that was saved at any step goes on
    with any number of processes and workers, and each later one is whole.

    Parameters
    ----------
    stream : GlobalStream or ShardStream
        The dataset of the training loader.
    places : callable, optional
        Of a ``ShardStream``: returns the places of a batch. By default that is ``batch[1]``, as
        torch's collate has them.

    Raises
    ------
    TypeError
        If it is no stream.

    Notes
    -----
    Lightning's epochs are those of the stream. Those of an infinite stream are not: it goes on where
    it is, and ``limit_train_batches=`` or ``max_steps=`` says how long one of Lightning's is.

    The record is that of all ranks, even if they have come differently far: all of them meet
    wherever Lightning saves. Call no ``commit`` in the training step.

    Refused when training starts, by a ValueError that says what to do: another loader, several of
    them, ranks other than Lightning's, and a stream that may give one rank a batch more than another:
    ``tail="exact"``, or a ``ShardStream`` that is not infinite.

    Examples
    --------
    >>> stream = GlobalStream(range(10), 1, 0)
    >>> callback = EpochCallback(stream)     # Trainer(callbacks=[callback])
    >>> list(callback.state_dict())
    ['record']
    """

    def __init__(
        self, stream: GlobalStream | ShardStream, *, places: Callable[[Any], Any] | None = None
    ) -> None:
        if not isinstance(stream, (GlobalStream, ShardStream)):
            raise TypeError(
                f"the callback follows a GlobalStream or ShardStream, got a {type(stream).__name__}: pass the "
                "dataset of the training loader, or give a sampler to ResumableSamplerCallback"
            )
        self.stream = stream
        self._places = places or _second
        self._resumed = ResumableState({"stream": stream})
        # other streams have no length that Lightning would count
        self._count = (
            _Count(stream.sampler)
            if isinstance(stream, GlobalStream) and not stream.infinite
            else None
        )

    # -- the record, in a checkpoint

    def state_dict(self) -> dict[str, Any]:
        """The record of all ranks. Collective, as Lightning's saves are."""
        return dict(self._resumed.state_dict())

    # -- training

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Check the loader, and let Lightning count the epoch's batches as they are now."""
        loader = self._loader_of(trainer)
        if not self.stream.infinite and self.stream.epoch < trainer.current_epoch:
            # saved after the last batch of an epoch, which Lightning then counts as over
            self._set_epoch(trainer)
        if self._count is not None:
            size, left = _size_of(loader), self._count.sampler._ledger.left_to_deliver
            batches = left // size if loader.drop_last else -(-left // size)
            self._count.take(loader, len(loader) - batches, trainer)

    def on_train_batch_end(
        self,
        trainer: Any,
        pl_module: Any,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Any,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Commit the batch; callbacks that save come after this one."""
        if isinstance(self.stream, ShardStream):
            self.stream.commit(self._places(batch))
            return
        size = _size_of(trainer.train_dataloader)
        # a rank's samples are whole batches, but for the last one of an epoch
        if not self.stream.infinite:
            size = min(size, self.stream.sampler._ledger.left_to_deliver)
        self.stream.commit(size)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Set the epoch, with nothing done; one that a checkpoint leads into is not begun."""
        if self.stream.infinite:
            return
        if self.stream.epoch != trainer.current_epoch or self.stream.is_begun:
            _log.info("fit begins epoch %d of the stream anew", trainer.current_epoch)
            self._set_epoch(trainer)
        if self._count is not None:
            self._count.renew(trainer.train_dataloader, trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """End the epoch, also if Lightning's limits left some of it."""
        # now, as Lightning will begin to read the next one only once
        ended = trainer.fit_loop.epoch_progress.current.processed
        if not self.stream.infinite and self.stream.epoch < ended:
            self.stream.set_epoch(ended)

    def _set_epoch(self, trainer: Any) -> None:
        self.stream.set_epoch(trainer.current_epoch)
        if self.stream.is_begun:
            self.stream.reset()
        # workers may have begun where the stream was
        _reload(trainer)

    def _loader_of(self, trainer: Any) -> Any:
        """The training loader; ValueError if this callback cannot make it resume."""
        loader, stream = trainer.train_dataloader, self.stream
        if not isinstance(loader, torch.utils.data.DataLoader) or loader.dataset is not stream:
            given = type(getattr(loader, "dataset", loader)).__name__
            raise ValueError(
                f"training reads a {given}, and EpochCallback needs one torch.utils.data.DataLoader of the stream "
                "that it was given; with globidx.DataLoader take ResumableSamplerCallback(stream.sampler)"
            )
        _refuse_other_ranks(stream, trainer)
        if stream.num_replicas > 1 and not stream.infinite:
            if isinstance(stream, ShardStream):
                raise ValueError(
                    "ranks of a ShardStream have different numbers of rows, and would wait for each other for ever: "
                    "pass infinite=True, and limit_train_batches= or max_steps= to the Trainer"
                )
            if stream.sampler.tail == "exact":
                raise ValueError(_EXACT)
        return loader


class _Count:
    """How many batches of an epoch Lightning counts, kept equal to what a sampler has."""

    def __init__(self, sampler: ResumableDistributedSampler) -> None:
        self.sampler = sampler
        # how many batches the epoch had when Lightning counted them
        self._counted = 0

    def take(self, loader: Any, start: int, trainer: Any) -> None:
        """Remember Lightning's count; on a resume let ``start`` be how many of them are done."""
        self._counted = len(loader)
        if trainer.fit_loop.restarting:
            self._go_on_from(start, trainer)

    def renew(self, loader: Any, trainer: Any) -> None:
        """Let Lightning count again if there are other numbers of batches now."""
        if len(loader) != self._counted:
            # Lightning counts batches once, and stops all epochs there; the tuner resets it alike
            _reload(trainer)
            self._counted = len(trainer.train_dataloader)

    def _go_on_from(self, start: int, trainer: Any) -> None:
        """Let Lightning's count of the epoch's batches be ``start``, in batches of today."""
        loop = trainer.fit_loop.epoch_loop
        if self.sampler.epoch > trainer.fit_loop.epoch_progress.current.processed:
            start = self._ended(trainer)
        # of all its counts Lightning goes on from this one; it counts a batch as completed after
        # on_train_batch_end, and so once more when it resumes from there
        loop.batch_progress.current.completed = start - loop.restarted_on_train_batch_end

    def _ended(self, trainer: Any) -> int:
        """The count at which Lightning ends, without a batch, an epoch saved in its last validation."""
        due: float | None = trainer.val_check_batch
        if not trainer.fit_loop.epoch_loop._should_check_val_epoch() or due in (None, math.inf):
            raise ValueError(
                f"the checkpoint was saved in the validation after all batches of epoch "
                f"{self.sampler.epoch - 1}, and this Trainer has none there, so it would train "
                "some of them again: pass the validation loader and val_check_interval as before"
            )
        # Lightning sets the epoch that it ends, which the sampler would refuse as finished
        self.sampler.reset()
        return int(due or 0)


_EXACT = (
    "tail='exact' may give one rank a batch more than another, which would wait for "
    "it for ever: train with tail='pad' or 'drop', and keep 'exact' for validation"
)


def _refuse_other_ranks(dealer: Any, trainer: Any) -> None:
    """ValueError if a sampler or stream deals to other ranks than Lightning's."""
    own = {"num_replicas": dealer.num_replicas, "rank": dealer.rank}
    given = trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}
    if own != given:
        what = "sampler" if isinstance(dealer, ResumableDistributedSampler) else "stream"
        raise ValueError(
            f"the {what} deals to rank {own['rank']} of {own['num_replicas']}, and Lightning "
            f"trains as rank {given['rank']} of {given['num_replicas']}: leave num_replicas= "
            f"and rank= out, and ask the {what} nothing before fit"
        )


def _reload(trainer: Any) -> None:
    """Let Lightning ask for the training loader again, and read it from its beginning."""
    trainer.fit_loop._combined_loader = None
    trainer.fit_loop.setup_data()


def _size_of(loader: Any) -> int:
    """How many samples a batch has; without batches one."""
    return loader.batch_size or 1


def _second(batch: Any) -> Any:
    return batch[1]


def _begin_anew(loaders: Any) -> None:
    for loader in _flat(loaders):
        for sampler in _samplers_of(loader):
            if isinstance(sampler, ResumableDistributedSampler):
                sampler.reset()


def _samplers_of(loader: Any) -> tuple[Any, Any]:
    """The sampler of a loader, and that of its batch sampler."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    return getattr(loader, "sampler", None), getattr(batch_sampler, "sampler", None)


def _flat(loaders: Any) -> Iterator[Any]:
    """The loaders in a collection, as Lightning takes them."""
    if isinstance(loaders, dict):
        loaders = list(loaders.values())
    if isinstance(loaders, (list, tuple)):
        for one in loaders:
            yield from _flat(one)
    else:
        yield loaders
