"""The samplers that ``sampler.py`` compares, each driven by its own public code, and one measurement of one of them.

python tools/bench/contestants.py CONTESTANT KIND N IDS RECORD

measures in this process, once, and prints JSON: KIND ``first`` is the time to the first id, ``share`` the time and
memory of reading IDS ids of rank 3 of 8, ``record`` what a run stopped at 50 % leaves behind (not timed), and
``resume`` the time to the first id after it.
"""

import json
import logging
import pickle
import sys
from collections import deque
from collections.abc import Iterator
from itertools import islice
from time import perf_counter

from measure import forget_peak, memory

WORLD_SIZE, RANK, SEED = 8, 3, 7


class Samples:
    """A dataset of any size: samplers ask for nothing but its ``len()``."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n


class Ours:
    """``globidx.ResumableDistributedSampler``."""

    needs, install = ("globidx",), "pip install ."

    def __init__(self) -> None:
        from globidx import ResumableDistributedSampler

        self.sampler = ResumableDistributedSampler

    def ids(self, n: int) -> Iterator[int]:
        """From nothing to an iterator over the rank's share: what every process pays at the start of an epoch."""
        return iter(self.sampler(Samples(n), WORLD_SIZE, RANK, seed=SEED))

    def record(self, n: int) -> object:
        """What a training loop that committed half of the epoch saves."""
        stopped = self.sampler(Samples(n), WORLD_SIZE, RANK, seed=SEED)
        stopped.commit(n // WORLD_SIZE // 2)
        return stopped.state_dict()

    def resume(self, n: int, record: object) -> Iterator[int]:
        """From the record to an iterator over the rest: what every process pays after a restart."""
        sampler = self.sampler(Samples(n), WORLD_SIZE, RANK, seed=SEED)
        sampler.load_state_dict(record)
        return iter(sampler)


class Torch:
    """``torch.utils.data.DistributedSampler``, which has no state: resuming is skipping, as trainers do it."""

    needs, install = ("torch",), "pip install torch"

    def __init__(self) -> None:
        from torch.utils.data import DistributedSampler

        self.sampler = DistributedSampler

    def ids(self, n: int) -> Iterator[int]:
        """From nothing to an iterator over the rank's share."""
        return iter(self.sampler(Samples(n), WORLD_SIZE, RANK, seed=SEED))

    def record(self, n: int) -> object:
        """None: the training loop has to remember where it was."""
        return

    def resume(self, n: int, record: object) -> Iterator[int]:
        """All of the order again, and half of it thrown away."""
        return islice(self.ids(n), n // WORLD_SIZE // 2, None)


class Torchdata:
    """``torchdata``'s ``StatefulDistributedSampler``."""

    needs, install = ("torch", "torchdata"), "pip install torchdata==0.11.0"

    def __init__(self) -> None:
        from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

        self.sampler = StatefulDistributedSampler

    def ids(self, n: int) -> Iterator[int]:
        """From nothing to an iterator over the rank's share."""
        return iter(self.sampler(Samples(n), WORLD_SIZE, RANK, seed=SEED))

    def record(self, n: int) -> object:
        """Its state after half of the share was really drawn: it has no other way to get there."""
        stopped = self.sampler(Samples(n), WORLD_SIZE, RANK, seed=SEED)
        deque(islice(iter(stopped), n // WORLD_SIZE // 2), maxlen=0)
        return stopped.state_dict()

    def resume(self, n: int, record: object) -> Iterator[int]:
        """Its state loaded, and an iterator over the rest."""
        sampler = self.sampler(Samples(n), WORLD_SIZE, RANK, seed=SEED)
        sampler.load_state_dict(record)
        return iter(sampler)


class Grain:
    """grain's ``IndexSampler``, indexed as its DataLoader does; it makes a random generator for every id, too."""

    needs, install = ("grain",), "pip install grain"

    def __init__(self) -> None:
        logging.disable(logging.WARNING)  # it misses jax, which it does not need here
        from grain.python import IndexSampler, ShardOptions

        self.sampler, self.shard = IndexSampler, ShardOptions

    def ids(self, n: int, first: int = 0) -> Iterator[int]:
        """Record keys of the rank's share, one index after another."""
        shard = self.shard(shard_index=RANK, shard_count=WORLD_SIZE)
        sampler = self.sampler(n, shard_options=shard, shuffle=True, num_epochs=1, seed=SEED)
        return (
            sampler[index].record_key
            for index in range(RANK + first * WORLD_SIZE, len(sampler), WORLD_SIZE)
        )

    def record(self, n: int) -> object:
        """None: its state is its DataLoader's."""
        return

    def resume(self, n: int, record: object) -> Iterator[int]:
        """Any index can be asked for, so it starts in the middle."""
        return self.ids(n, n // WORLD_SIZE // 2)


class GrainShuffle(Grain):
    """grain's shuffle alone, without sampler and generators: the least that an id can cost there."""

    def __init__(self) -> None:
        logging.disable(logging.WARNING)
        from grain import MapDataset

        self.dataset = MapDataset

    def ids(self, n: int, first: int = 0) -> Iterator[int]:
        """The rank's slice of the shuffled range."""
        share = n // WORLD_SIZE
        shuffled = self.dataset.range(RANK * share, (RANK + 1) * share).shuffle(seed=SEED)
        return (shuffled[index] for index in range(first, share))


CONTESTANTS = {
    "globidx": Ours,
    "torch": Torch,
    "torchdata": Torchdata,
    "grain": Grain,
    "grain shuffle": GrainShuffle,
}


def measure(name: str, kind: str, n: int, ids: int, record: object) -> dict:
    """One measurement; the clock starts after the import and before the sampler is built."""
    contestant = CONTESTANTS[name]()
    if kind == "record":
        made = contestant.record(n)
        sizes = (
            {}
            if made is None
            else {"json": len(json.dumps(made)), "pickle": len(pickle.dumps(made))}
        )
        return {"record": made, **sizes}
    forget_peak()
    before, start = memory("VmRSS"), perf_counter()
    if kind == "share":
        deque(islice(contestant.ids(n), ids), maxlen=0)
    else:
        next(contestant.ids(n) if kind == "first" else contestant.resume(n, record))
    return {"seconds": perf_counter() - start, "extra": memory("VmHWM") - before}


if __name__ == "__main__":
    name, kind, n, ids, record = sys.argv[1:]
    print(json.dumps(measure(name, kind, int(n), int(ids), json.loads(record))))
