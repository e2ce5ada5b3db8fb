"""Composer: a Trainer that resumes in mid-epoch, on any number of processes."""

from __future__ import annotations

from typing import Any

from globidx.torch.loader import DataLoader
from globidx.torch.sampler import ResumableDistributedSampler

try:
    from composer.core import Callback
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "globidx.integrations.composer needs Composer (pip install mosaicml), "
        f"and {error.name} is not installed"
    ) from error

_Callback: Any = Callback


class ResumableSamplerCallback(_Callback):
    """A callback that keeps the record of a sampler in Composer's checkpoints, and goes on from it.

    Composer resumes by reading again as many batches as were trained on, in the batches of today,
    and throws them away. The sampler starts after its record instead, and nothing is read again.

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
    A training loader of another class or over another sampler, and ``tail="exact"`` on several
    ranks, are refused when training starts, by a ValueError that says what to do.

    Composer keeps the callbacks' states of rank 0, which is the record of all ranks but for ids in
    quarantine, of which it has those of rank 0.

    Examples
    --------
    >>> sampler = ResumableDistributedSampler(range(10), 1, 0)
    >>> callback = ResumableSamplerCallback(sampler)     # Trainer(callbacks=[callback])
    >>> callback.state_dict()["remaining"]
    10
    """

    def __init__(self, sampler: ResumableDistributedSampler) -> None:
        super().__init__()
        if not isinstance(sampler, ResumableDistributedSampler):
            raise TypeError(
                "the callback resumes a ResumableDistributedSampler, got a "
                f"{type(sampler).__name__}: pass the sampler of the training loader"
            )
        self.sampler = sampler

    def state_dict(self) -> dict[str, Any]:
        """The sampler's record, with all batches that were trained on."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a record.

        Parameters
        ----------
        state : dict
            What ``state_dict`` returned, on any number of processes.
        """
        self.sampler.load_state_dict(state)

    def fit_start(self, state: Any, logger: Any) -> None:  # noqa: ARG002
        """Check the loader, and let Composer skip no batches of it."""
        self._refuse(state.train_dataloader)
        state.dataset_resumption["train"] = True
        if self.sampler.epoch == int(state.timestamp.epoch) + 1:
            # saved at the last batch of an epoch, whose end Composer had not counted yet
            state.timestamp = state.timestamp.to_next_epoch()

    def batch_end(self, state: Any, logger: Any) -> None:  # noqa: ARG002
        """Commit the batch: Composer may leave its loop here, and go on in another ``fit``."""
        self.sampler._ledger.settle()

    def _refuse(self, loader: Any) -> None:
        """ValueError if this callback cannot make a loader resume."""
        if not isinstance(loader, DataLoader) or loader._resumable is not self.sampler:
            raise ValueError(
                f"training reads a {type(loader).__name__}, and ResumableSamplerCallback needs a "
                "globidx.DataLoader over the sampler that it was given: pass "
                "train_dataloader=globidx.DataLoader(dataset, ..., sampler=sampler)"
            )
        if self.sampler.tail == "exact" and self.sampler.num_replicas > 1:
            raise ValueError(
                "tail='exact' may give one rank a batch more than another, and Composer ends the "
                "epoch where the first rank does: train with tail='pad' or 'drop'"
            )
