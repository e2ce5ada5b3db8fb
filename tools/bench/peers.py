"""The peers of ``loss_table.py``: how each is stopped and resumed by its own code, all ranks in one process.

A leg is called with world size, batch size, steps (None: all that is left) and what the leg before left behind (None:
it is the first), and says what its ranks read. Nothing of a peer is written anew here: it is called as users do.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, NamedTuple

from torch.distributed.elastic.utils.data import ElasticDistributedSampler
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler

N, SEED = 1003, 7


class Leg(NamedTuple):
    """What the ranks of one leg read: ids, ids that are known to be padding, and what the next leg is told."""

    ids: list[int]
    padding: list[int]
    left_behind: Any


Run = Callable[[int, int, int | None, Any], Leg]


def flat(batches: Iterable[Any]) -> list[int]:
    """The ids of some batches of a loader."""
    return [int(id) for batch in batches for id in batch]


def split(ids: list[int], padded: int, steps: int | None) -> tuple[list[int], list[int]]:
    """A rank's ids without its last ``padded`` ones, and those; a leg that stops early does not get to them."""
    end = len(ids) - (0 if steps is not None else padded)
    return ids[:end], ids[end:]


def torch_skip(world_size: int, batch: int, steps: int | None, skip: int | None) -> Leg:
    """torch's ``DistributedSampler``, and a training loop that skips as many batches as it has done steps."""
    real, padding, done = [], [], skip or 0
    for rank in range(world_size):
        sampler = DistributedSampler(range(N), world_size, rank, seed=SEED)
        loader = DataLoader(range(N), batch_size=batch, sampler=sampler)
        ids = flat(islice(loader, done, None if steps is None else done + steps))
        mine, more = split(ids, len(sampler) - len(range(rank, N, world_size)), steps)
        real, padding = real + mine, padding + more
    return Leg(real, padding, done + (steps or 0))


def elastic(world_size: int, batch: int, steps: int | None, start: int | None) -> Leg:
    """torch's ``ElasticDistributedSampler``, with ``start_index`` as its documentation has it: where to go on."""
    real, padding, begin = [], [], start or 0
    for rank in range(world_size):
        sampler = ElasticDistributedSampler(range(N), world_size, rank, start_index=begin)
        ids = flat(islice(DataLoader(range(N), batch_size=batch, sampler=sampler), steps))
        mine, more = split(ids, len(sampler) - len(range(begin + rank, N, world_size)), steps)
        real, padding = real + mine, padding + more
    return Leg(real, padding, begin + world_size * batch * (steps or 0))


def torchdata_state(world_size: int, batch: int, steps: int | None, state: dict | None) -> Leg:
    """torchdata's ``StatefulDataLoader`` over its ``StatefulDistributedSampler``; every rank loads rank 0's state."""
    from torchdata.stateful_dataloader import StatefulDataLoader
    from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

    real, padding, states = [], [], []
    for rank in range(world_size):
        sampler = StatefulDistributedSampler(range(N), world_size, rank, seed=SEED)
        loader = StatefulDataLoader(range(N), batch_size=batch, sampler=sampler)
        if state is not None:
            loader.load_state_dict(state)
        ids = flat(islice(loader, steps))
        states.append(loader.state_dict())
        mine, more = split(ids, len(sampler) - len(range(rank, N, world_size)), steps)
        real, padding = real + mine, padding + more
    return Leg(real, padding, states[0])


def accelerate_skip(world_size: int, batch: int, steps: int | None, skip: int | None) -> Leg:
    """What accelerate's ``skip_first_batches`` does to a prepared loader. Its padding counts as repeats."""
    from accelerate.data_loader import BatchSamplerShard, SeedableRandomSampler, SkipBatchSampler

    real, done = [], skip or 0
    for rank in range(world_size):
        batches = BatchSampler(
            SeedableRandomSampler(range(N), data_seed=SEED), batch, drop_last=False
        )
        shard = BatchSamplerShard(batches, num_processes=world_size, process_index=rank)
        loader = DataLoader(range(N), batch_sampler=SkipBatchSampler(shard, skip_batches=done))
        real += flat(islice(loader, steps))
    return Leg(real, [], done + (steps or 0))


#: Name in the table: the leg, and what must be installed for it.
PEERS: dict[str, tuple[Run, str]] = {
    "torch DistributedSampler + skip": (torch_skip, "torch"),
    "torchdata StatefulDataLoader": (torchdata_state, "torchdata"),
    "torch ElasticDistributedSampler": (elastic, "torch"),
    "accelerate SkipBatchSampler": (accelerate_skip, "accelerate"),
}
