"""Does a resume lose or repeat samples? Ours and its peers, each running its own code.

python tools/bench/loss_table.py

An epoch of 1003 samples runs on 4 ranks for 17 steps, stops, and goes on with other numbers of ranks: to the end (one
hop), or for 5 steps and then on 4 ranks to the end (two hops). Exit code 1 if ours misses anything or repeats more than
padding.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from measure import missing, table
from peers import PEERS, SEED, Leg, N, Run, flat, split

from globidx import DataLoader, ResumableDistributedSampler, merge_states

WORLDS, FIRST, STEPS, STEPS_BETWEEN = (4, 3, 2, 6, 8, 5), 4, 17, 5
GLOBAL_BATCH, RANK_BATCH = 24, 6

BATCHES: dict[str, Callable[[int], int]] = {
    f"global batch {GLOBAL_BATCH}": lambda world_size: (
        -(-GLOBAL_BATCH // world_size)
    ),  # 5 ranks: 5 each
    f"batch {RANK_BATCH} a rank": lambda world_size: RANK_BATCH,
}


class Loss(NamedTuple):
    """What became of an epoch: ids never read, ids read again, and reads of padding, which count as neither."""

    missing: int
    repeated: int
    padding: int

    @classmethod
    def of(cls, legs: list[Leg]) -> "Loss":
        """The count over all legs of an epoch; padding does not make up for a missing id."""
        real = [id for leg in legs for id in leg.ids]
        return cls(
            N - len(set(real)), len(real) - len(set(real)), sum(len(leg.padding) for leg in legs)
        )

    def __str__(self) -> str:
        return f"{self.missing}/{self.repeated}" + (f"+{self.padding}" if self.padding else "")


def rank_0(states: list[dict]) -> dict:
    """The record of a framework that keeps rank 0's copy only."""
    return states[0]


def ours(tail: str, combine: Callable[[list[dict]], dict], *arguments: Any) -> Leg:
    """A leg over ``globidx.DataLoader``; ``combine`` makes the ranks' ``state_dict()``s the record of the next leg."""
    world_size, batch, steps, record = arguments
    real, padding, states = [], [], []
    for rank in range(world_size):
        sampler = ResumableDistributedSampler(range(N), world_size, rank, seed=SEED, tail=tail)
        if record is not None:
            sampler.load_state_dict(record)
        padded = len(sampler) - sampler.num_valid
        loop = iter(DataLoader(range(N), batch_size=batch, sampler=sampler))
        batches = list(loop) if steps is None else [next(loop) for _ in range(steps)]
        states.append(
            sampler.state_dict()
        )  # while the loop holds its last batch, which it has trained on
        mine, more = split(flat(batches), padded, steps)
        real, padding = real + mine, padding + more
    return Leg(real, padding, combine(states))


OURS: dict[str, Run] = {
    f"ours, tail={tail!r}, {combine.__name__}": partial(ours, tail, combine)
    for tail in ("pad", "exact")
    for combine in (rank_0, merge_states)
}


def epoch(run: Run, legs: list[tuple[int, int, int | None]]) -> Loss:
    """One epoch in ``legs`` of (world size, batch, steps), each told what the one before left behind."""
    done: list[Leg] = []
    for world_size, batch, steps in legs:
        done.append(run(world_size, batch, steps, done[-1].left_behind if done else None))
    return Loss.of(done)


def losses(run: Run, batch: Callable[[int], int], hops: int) -> list[Loss]:
    """The epoch over each number of ranks to resume on."""
    first = [(FIRST, batch(FIRST), STEPS)]
    if hops == 1:
        return [epoch(run, [*first, (w, batch(w), None)]) for w in WORLDS]
    return [
        epoch(run, [*first, (w, batch(w), STEPS_BETWEEN), (FIRST, batch(FIRST), None)])
        for w in WORLDS
    ]


def is_clean(loss: Loss, world_size: int, exact: bool) -> bool:
    """Whether every id was read once, besides the padding that the tail allows to the last leg's ranks."""
    return loss.missing == loss.repeated == 0 and loss.padding <= (0 if exact else world_size - 1)


def main() -> int:
    """Print the four tables; the exit code says whether ours is clean in all of them."""
    runs = dict(OURS)
    for name, (run, module) in PEERS.items():
        if missing([module]):
            print(f"{name} is left out: no {module} here; pip install {module}")
        else:
            runs[name] = run
    print(
        f"{N} samples, {STEPS} steps on {FIRST} ranks, then W ranks; missing/repeated, and +padding of equal lengths"
    )
    clean = True
    for hops in (1, 2):
        for batches, batch in BATCHES.items():
            way = f"{FIRST} -> W" + (f" for {STEPS_BETWEEN} steps -> {FIRST}" if hops == 2 else "")
            rows = [[f"{way}, {batches}", *(f"W={w}" for w in WORLDS)]]
            for name, run in runs.items():
                found = losses(run, batch, hops)
                rows.append([name, *map(str, found)])
                if name in OURS:
                    last = WORLDS if hops == 1 else [FIRST] * len(WORLDS)
                    clean &= all(
                        is_clean(loss, w, "exact" in name)
                        for loss, w in zip(found, last, strict=True)
                    )
            print("\n" + table(rows))
    print(
        "\nours: "
        + (
            "0 missing in all rows, repeats only padding"
            if clean
            else "NOT CLEAN, see the rows above"
        )
    )
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
