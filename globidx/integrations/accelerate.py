"""Accelerate: ``prepare`` stands in for ``accelerator.prepare(loader)``.

The loader is not wrapped in Accelerate's own, which would deal its batches to the ranks a second
time. What that one does besides is done here: Accelerate learns where the loader ends, batches are
moved, and padding is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import recursively_apply

from globidx.torch.device import destination
from globidx.torch.loader import DataLoader
from globidx.torch.sampler import ResumableDistributedSampler


def prepare(accelerator: Accelerator, loader: DataLoader) -> PreparedLoader:
    """Take ``loader`` for Accelerate as it is: its sampler deals to the ranks already.

    Call it on every rank, in place of ``accelerator.prepare(loader)``.

    Parameters
    ----------
    accelerator : accelerate.Accelerator
        Its ``save_state`` and ``load_state`` carry the sampler's record from here on, and its
        ``gather_for_metrics`` drops the padding that the sampler adds.
    loader : DataLoader
        A ``globidx.DataLoader`` over a ``ResumableDistributedSampler``.

    Returns
    -------
    PreparedLoader
        The loader to iterate over. Gradient accumulation steps at its last batch; batches are on
        the accelerator's device, if that is CUDA and ``device_placement`` was left on.

    Raises
    ------
    TypeError
        If the loader is another one, or its sampler cannot resume.
    ValueError
        With ``split_batches`` or ``dispatch_batches``; with ``even_batches`` and
        ``tail="exact"``; if the sampler deals to other ranks than the accelerator's.

    Examples
    --------
    >>> from accelerate import Accelerator
    >>> from globidx import DataLoader, ResumableDistributedSampler
    >>> sampler = ResumableDistributedSampler(range(10), shuffle=False)
    >>> loader = prepare(Accelerator(cpu=True), DataLoader(range(10), 4, sampler=sampler))
    >>> [(batch.tolist(), loader.end_of_dataloader) for batch in loader]
    [([0, 1, 2, 3], False), ([4, 5, 6, 7], False), ([8, 9], True)]
    """
    if isinstance(loader, PreparedLoader):
        return loader
    sampler = getattr(loader, "_resumable", None)
    if not isinstance(sampler, ResumableDistributedSampler):
        raise TypeError(
            "prepare takes a globidx.DataLoader over a ResumableDistributedSampler, got a "
            f"{type(loader).__name__}; give any other loader to accelerator.prepare"
        )
    refuse_settings(accelerator, sampler)
    if accelerator.device_placement and loader.device is None:
        loader.device = destination(accelerator.device)
        # slots are pinned without torch's thread
        loader.pin_memory = loader.pin_memory or (loader.device is not None and not loader.slots)
    if not hasattr(accelerator.gather_for_metrics, "drops_padding"):
        accelerator.register_for_checkpointing(_Accumulation(accelerator))
        _drop_padding(accelerator)
    accelerator.register_for_checkpointing(sampler)
    return PreparedLoader(loader, sampler, accelerator.gradient_state)


def refuse_settings(accelerator: Accelerator, sampler: ResumableDistributedSampler) -> None:
    """ValueError if Accelerate is asked to deal samples otherwise than the sampler does."""
    if accelerator.split_batches:
        raise ValueError(
            "split_batches=True deals one batch to all ranks, but the sampler gives each rank "
            "batches of its own; leave it out, and divide batch_size by the number of ranks"
        )
    if accelerator.dispatch_batches:
        raise ValueError(
            "dispatch_batches=True lets rank 0 read for all, but the sampler deals to every rank; "
            "leave it out: each rank reads its own samples"
        )
    if accelerator.even_batches and sampler.tail == "exact":
        raise ValueError(
            "even_batches=True asks for equally many samples on each rank, and tail='exact' may "
            "give one more to some; leave tail= out, since gather_for_metrics drops its padding, "
            "or pass DataLoaderConfiguration(even_batches=False)"
        )
    ranks = (accelerator.process_index, accelerator.num_processes)
    if (sampler.rank, sampler.num_replicas) != ranks:
        raise ValueError(
            f"the sampler is rank {sampler.rank} of {sampler.num_replicas}, the accelerator is "
            f"process {ranks[0]} of {ranks[1]}; leave num_replicas=, rank= and mesh= out"
        )


class PreparedLoader:
    """A loader that tells Accelerate where it ends; all else is the loader's.

    Parameters
    ----------
    loader : DataLoader
        The loader to iterate over.
    sampler : ResumableDistributedSampler
        Its sampler.
    gradient_state : accelerate.state.GradientState
        What is to know of the running loop.

    Attributes
    ----------
    end_of_dataloader : bool
        Whether the batch that the loop holds is the last of its pass.
    """

    # Accelerate and its users take such a loader as it is
    _is_accelerate_prepared = True
    # gather_for_metrics drops padding by rank, not at the end; see _drop_padding
    remainder = 0

    def __init__(
        self, loader: DataLoader, sampler: ResumableDistributedSampler, gradient_state: Any
    ) -> None:
        self._loader, self._sampler, self._state = loader, sampler, gradient_state
        self.end_of_dataloader = False
        # how many samples of the batch are no padding, of each rank, and how many there are
        self._real: tuple[list[int], int] = [], 0

    def __getattr__(self, name: str) -> Any:
        # a copy is asked for attributes before it has any
        if name == "_loader":
            raise AttributeError(name)
        return getattr(self._loader, name)

    def __len__(self) -> int:
        """How many batches the epoch has on this rank."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        ledger = self._sampler._ledger
        self.end_of_dataloader = False
        self._state._add_dataloader(self)
        try:
            for batch in self._loader:
                # noted at once: a save may settle the batch
                self.end_of_dataloader = ledger.holds_last
                self._real = ledger.held_by_rank, ledger.held_ids
                yield batch
        finally:
            self._state._remove_dataloader(self)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch to read, as ``sampler.set_epoch``.

        Parameters
        ----------
        epoch : int
            The epoch, from 0.

        Examples
        --------
        >>> from accelerate import Accelerator
        >>> from globidx import DataLoader, ResumableDistributedSampler
        >>> sampler = ResumableDistributedSampler(range(4))
        >>> loader = prepare(Accelerator(cpu=True), DataLoader(range(4), sampler=sampler))
        >>> loader.set_epoch(3)
        >>> sampler.epoch
        3
        """
        self._sampler.set_epoch(epoch)

    def without_padding(self, gathered: Any) -> Any:
        """What ``gather`` made of all ranks' batches, without their padding.

        Parameters
        ----------
        gathered : tensor, list, or containers of tensors
            Rows of all ranks, in rank order. What has another length is no such thing, and stays.

        Returns
        -------
        same as gathered
            The rows of real samples.

        Examples
        --------
        >>> from accelerate.state import GradientState
        >>> from globidx import DataLoader, ResumableDistributedSampler
        >>> sampler = ResumableDistributedSampler(range(4), 3, 0, shuffle=False)
        >>> plain = DataLoader(range(4), 2, sampler=sampler)
        >>> loader = PreparedLoader(plain, sampler, GradientState())
        >>> for batch in loader:
        ...     print(loader.without_padding(torch.tensor([0, 3, 1, 0, 2, 1])).tolist())
        [0, 3, 1, 2]
        """
        real, size = self._real
        total = size * len(real)
        if self._sampler.tail != "pad" or sum(real) == total:
            return gathered
        rows = [rank * size + row for rank, count in enumerate(real) for row in range(count)]

        def are_rows(value: Any) -> bool:
            return isinstance(value, torch.Tensor) and value.dim() > 0 and len(value) == total

        # objects, and tensors that were gathered as such, come as one list of rows
        if isinstance(gathered, list) and not any(map(are_rows, gathered)):
            return [gathered[row] for row in rows] if len(gathered) == total else gathered
        return recursively_apply(lambda value: value[rows] if are_rows(value) else value, gathered)


class _Accumulation:
    """How many batches of the step are accumulated, as a checkpoint has it for all ranks.

    Accelerate keeps it beside each rank's random state, which a rank that is new does not have: it
    would step at other batches than the rest, and all would wait for one another.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator

    def state_dict(self) -> dict[str, int]:
        return {"step": self._accelerator.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._accelerator.step = state["step"]


def _drop_padding(accelerator: Accelerator) -> None:
    """Let ``accelerator.gather_for_metrics`` drop the padding of prepared loaders.

    Accelerate's own cuts the end of what was gathered. That is right where one rank repeats samples
    at its end; the sampler repeats at most one on each of several ranks.
    """
    gather = accelerator.gather_for_metrics

    def gather_for_metrics(input_data: Any, use_gather_object: bool = False) -> Any:
        """Gather ``input_data`` of all ranks, without what pads the last batch."""
        gathered = gather(input_data, use_gather_object)
        loader = accelerator.gradient_state.active_dataloader
        return loader.without_padding(gathered) if isinstance(loader, PreparedLoader) else gathered

    gather_for_metrics.drops_padding = True  # type: ignore[attr-defined]
    accelerator.gather_for_metrics = gather_for_metrics
