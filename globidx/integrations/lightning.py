"""Lightning: a Trainer that resumes in mid-epoch, on any number of processes."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any

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


class ResumableSamplerCallback(_Callback):
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
        self.sampler = sampler
        # how many batches the epoch had when Lightning counted them
        self._counted = 0
        # Lightning's counts of batches that are ready and processed
        self._progress: Any = None
        self._fits = True

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ARG002
        """Remember whether the trainer fits; it loads callbacks to validate and test, too."""
        self._fits = stage == "fit"

    # -- the record, in a checkpoint

    def state_dict(self) -> dict[str, Any]:
        """The sampler's record, with all batches that were trained on.

        Lightning's handlers of signals may save in the middle of a step: as Lightning repeats that
        batch, the record is without it.
        """
        if self._progress is not None and self._progress.ready != self._progress.processed:
            return self.sampler._ledger.without_held().to_dict()
        return self.sampler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a record; validation and tests, which read weights, leave the sampler alone.

        Parameters
        ----------
        state_dict : dict
            What ``state_dict`` returned, on any number of processes.
        """
        if self._fits:
            self.sampler.load_state_dict(state_dict)

    # -- training

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Check the loader, and let Lightning count the epoch's batches as they are now."""
        loader = self._loader_of(trainer)
        self._counted = len(loader)
        self._progress = trainer.fit_loop.epoch_loop.batch_progress.current
        if trainer.fit_loop.restarting:
            self._count_from(loader.start, trainer)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Begin an epoch with nothing done; one that a checkpoint leads into is not begun."""
        loader = self._loader_of(trainer)
        if loader.start:
            _log.info("fit begins epoch %d anew: it was read in part", self.sampler.epoch)
            self.sampler.reset()
        if len(loader) != self._counted:
            # Lightning counts batches once, and stops all epochs there; the tuner resets it alike
            trainer.fit_loop._combined_loader = None
            trainer.fit_loop.setup_data()
            self._counted = len(self._loader_of(trainer))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """End the epoch, also if Lightning's limits left some of it."""
        # Lightning counts the epoch as processed already, and its own is lower in runs by max_steps
        if self.sampler.epoch < trainer.fit_loop.epoch_progress.current.processed:
            self.sampler.finish_epoch()

    def _count_from(self, start: int, trainer: Any) -> None:
        """Let Lightning's count of the epoch's batches be ``start``, in batches of today."""
        loop = trainer.fit_loop.epoch_loop
        if self.sampler.epoch > trainer.fit_loop.epoch_progress.current.processed:
            start = self._count_of_ended(trainer)
        # of all its counts Lightning goes on from this one; it counts a batch as completed after
        # on_train_batch_end, and so once more when it resumes from there
        loop.batch_progress.current.completed = start - loop.restarted_on_train_batch_end

    def _count_of_ended(self, trainer: Any) -> int:
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
        self._refuse_other_ranks(trainer)
        return loader

    def _refuse_other_ranks(self, trainer: Any) -> None:
        sampler = self.sampler
        own = {"num_replicas": sampler.num_replicas, "rank": sampler.rank}
        given = trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}
        if own != given:
            raise ValueError(
                f"the sampler deals to rank {own['rank']} of {own['num_replicas']}, and Lightning "
                f"trains as rank {given['rank']} of {given['num_replicas']}: leave num_replicas= "
                "and rank= out, and ask the sampler nothing before fit"
            )
        if sampler.tail == "exact" and sampler.num_replicas > 1:
            raise ValueError(
                "tail='exact' may give one rank a batch more than another, which would wait for "
                "it for ever: train with tail='pad' or 'drop', and keep 'exact' for validation"
            )

    # -- validation, test and prediction

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Let validation read all, whatever the sanity check or a limit has left half-read."""
        _begin_anew(trainer.val_dataloaders)

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Let a test read all."""
        _begin_anew(trainer.test_dataloaders)

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Let a prediction read all."""
        _begin_anew(trainer.predict_dataloaders)


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
