"""Errors and warnings about deliveries that were not reported, or not as they happened."""

from __future__ import annotations

import warnings

from globidx.errors import CommitError
from globidx.torch.loops.passes import Passes


def refuse_second_reporter(passes: Passes) -> None:
    """CommitError for a commit by hand while a loader commits by itself."""
    if passes.is_looped_over:
        raise CommitError(
            "commit() while a loop runs over a globidx.DataLoader, which commits by itself; "
            "remove the call"
        )


def refuse_undrawn(passes: Passes, committed: int, amount: int) -> None:
    """CommitError for more ids than were drawn.

    In an epoch of which nothing was drawn any count is accepted, so that a run which another
    sampler has begun can be taken over.
    """
    # after a break only that batch may still be committed: what workers have drawn beyond it the
    # loop never had
    if passes.abandoned is not None:
        drawn, since = len(passes.abandoned.ids), "the last batch"
    elif not passes.untouched:
        drawn, since = max(0, passes.issued - committed), "the last commit"
    else:
        return
    if amount > drawn:
        raise CommitError(
            f"commit({amount}), but only {drawn} ids were drawn since {since}; pass the number of "
            "samples in this rank's batch: for a dict of fields len(batch[field]), not "
            "len(batch), and never the batch of all ranks together"
        )


def refuse_drawn_ahead(passes: Passes, amount: int) -> None:
    """CommitError for a loader that draws the next pass before this one was delivered."""
    if passes.draws_ahead:
        raise CommitError(
            f"commit({amount}), but a second iterator draws already. It began when the one before "
            "it had drawn the whole epoch and its ids were not committed, so a loader that "
            "repeats itself with workers would train on those ids twice. Use globidx.DataLoader, "
            "or call sampler.set_epoch(epoch) before the loader draws an epoch"
        )


def refuse_unreported(passes: Passes, epoch: int) -> None:
    """CommitError where ids were drawn and nobody reports deliveries."""
    if passes.lacks_reports:
        raise CommitError(_unreported(passes, epoch))


class Reminders:
    """Warnings about passes without reports, each given once."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def of_draws(self, passes: Passes, epoch: int) -> None:
        """Warn that a pass was drawn to its end and nothing of it was committed."""
        if passes.only_drawn:
            self._warn(
                "only drawn",
                f"epoch {epoch} was read to its end and nothing of it was committed, so it is "
                "read again in the same order; use globidx.DataLoader, or call "
                "sampler.commit(len(batch)) after every batch, or sampler.set_epoch(epoch)",
            )

    def of_missing_reports(self, passes: Passes, epoch: int) -> None:
        """Warn that a loader reads, or a copy is read, and deliveries are not reported."""
        if passes.lacks_reports and (passes.read_by_loader or passes.copy_is_read):
            self._warn("unreported", _unreported(passes, epoch))

    def of_single_ranks(self, world_size: int) -> None:
        """Warn that a state is that of one rank alone, because its batch sampler may regroup ids."""
        self._warn(
            "single rank",
            "batches are made by a batch sampler of your own, so the state of this rank says nothing of what the "
            f"other {world_size - 1} have had, and will not be loaded alone; save with globidx.CheckpointManager, "
            "or load globidx.merge_states() of the states of all ranks",
        )

    def expect_all_ranks(self) -> None:
        """Do not warn of states of single ranks: somebody gathers those of all."""
        self._given.add("single rank")

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._given:
            self._given.add(kind)
            # the line that calls the sampler, which calls its ledger, which calls one of the above
            warnings.warn(message, stacklevel=5)


def _unreported(passes: Passes, epoch: int) -> str:
    if passes.copy_is_read:
        return (
            "a copy of this sampler is being read (the one of a copied loader, say), and its "
            "deliveries are not reported to this sampler, so a record would repeat everything; "
            "read and save the same sampler: loader.sampler"
        )
    return (
        f"ids of epoch {epoch} were drawn, but no delivery was reported, so a record would repeat "
        "all of them; use globidx.DataLoader, or call sampler.commit(len(batch)) after every "
        "batch"
    )
