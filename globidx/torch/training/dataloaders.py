"""Two loaders in one call: one to train with, one to validate with."""

from __future__ import annotations

from typing import Any, NamedTuple

from globidx.core.orders.base import Order
from globidx.core.progress.partition import Tail
from globidx.torch.loader import DataLoader
from globidx.torch.ranks.world import World
from globidx.torch.sampler import ResumableDistributedSampler

# what is decided here for each of the two, and what to write instead
_DECIDED = {
    "sampler": "make a globidx.DataLoader of your own",
    "batch_sampler": "make a globidx.DataLoader of your own",
    "shuffle": "train is shuffled and val is not; order= chooses another order for train",
    "drop_last": "val would lose samples; tail='drop' gives all ranks equally many of train",
}


class Loaders(NamedTuple):
    """A loader for training and one for validation.

    Parameters
    ----------
    train : DataLoader
        Shuffled, and as long on every rank.
    val : DataLoader
        In the sequence of the dataset, each sample once.

    Examples
    --------
    >>> loaders = dataloaders(range(100), range(10), batch_size=10)
    >>> loaders.val is loaders[1]
    True
    """

    train: DataLoader
    val: DataLoader


def dataloaders(
    train: Any,
    val: Any,
    *,
    batch_size: int,
    val_batch_size: int | None = None,
    seed: int = 0,
    tail: Tail = "pad",
    order: Order | None = None,
    **options: Any,
) -> Loaders:
    """Return a loader that trains and one that validates.

    Training data is shuffled, and every rank takes equally many steps. Validation data keeps its
    sequence, and each sample comes once over all ranks.

    Parameters
    ----------
    train, val : Dataset
        Map-style datasets.
    batch_size : int
        How many samples a batch has on each rank.
    val_batch_size : int, optional
        The same for validation, if it differs.
    seed : int, default 0
        Seed of the order that ``train`` is read in.
    tail : {"pad", "drop"}
        What happens if the samples of ``train`` do not divide by the ranks: a few are repeated, or
        left out.
    order : Order, optional
        One of ``globidx.orders`` for ``train``, instead of ``Shuffle``.
    **options
        For both loaders, as ``globidx.DataLoader`` takes them: ``num_workers``, ``collate_fn``,
        ``device``.

    Returns
    -------
    Loaders
        The pair, ``train`` and ``val``.

    Raises
    ------
    TypeError
        For an option that is decided here: ``shuffle``, ``drop_last`` or a sampler.
    ValueError
        If ``tail="exact"``, since ranks would take different numbers of steps.

    Notes
    -----
    Call it after ``init_process_group``, or under torchrun. With several ranks ``val`` has a
    sampler of its own, ``tail="exact"``: the numbers of batches may differ by rank, so no
    collective may stand in the loop over it. In one process ``val`` is a plain loader. ``train``
    always has a ``ResumableDistributedSampler`` as its ``sampler``, so that a run goes on with
    other numbers of processes, one among them.

    Examples
    --------
    >>> train, val = dataloaders(range(100), range(10), batch_size=4)
    >>> sorted(id for batch in train for id in batch.tolist()) == list(range(100))
    True
    >>> [batch.tolist() for batch in val]
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    """
    for name, instead in _DECIDED.items():
        if name in options:
            raise TypeError(f"dataloaders() takes no {name}=: {instead}")
    if tail == "exact":
        raise ValueError(
            "tail='exact' would give ranks different numbers of training steps, and the one that "
            "takes more would wait for the others for ever; pass tail='pad' or 'drop'"
        )
    shuffled = ResumableDistributedSampler(train, seed=seed, tail=tail, order=order)
    is_alone = World().resolve()[1] == 1
    exact = None if is_alone else ResumableDistributedSampler(val, shuffle=False, tail="exact")
    return Loaders(
        DataLoader(train, batch_size=batch_size, sampler=shuffled, **options),
        DataLoader(val, batch_size=val_batch_size or batch_size, sampler=exact, **options),
    )
