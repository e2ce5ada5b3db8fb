"""A stream, shards and packs, read in step under torchrun: RUN WORKERS [KILL_RANK KILL_STEP].

A line before every step says which samples this rank has; every third step of a run to be killed is saved.
"""

import itertools
import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist

import globidx
from globidx import CheckpointManager, ResumableDistributedSampler
from globidx.packing import PackedDataset, flatten, pack
from globidx.stream import GlobalStream, ShardStream

SAMPLES = 211
SHARDS = {f"part-{number}": 3 + 7 * number % 31 for number in range(16)}
DOCUMENTS = [1 + 5 * number % 13 for number in range(110)]


def rows_of(name):
    """The rows of a shard, no two of which are equal."""
    first = 100 * list(SHARDS).index(name)
    return range(first, first + SHARDS[name])


def documents():
    """Documents of which no two tokens are equal."""
    ends = list(itertools.accumulate(DOCUMENTS))
    return [torch.arange(end - length, end) for end, length in zip(ends, DOCUMENTS, strict=True)]


def main(run, workers, kill_rank=-1, kill_step=-1):
    """Read what is left of the epoch, a batch of each a step."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    stream = GlobalStream(range(SAMPLES), seed=3, tail="exact")
    shards = ShardStream(list(SHARDS), rows_of, seed=3)
    packed = PackedDataset(documents(), pack(DOCUMENTS, budget=24), repack=True)
    packs = ResumableDistributedSampler(packed, seed=3, tail="exact")
    manager = CheckpointManager(run, {"stream": stream, "shards": shards, "packs": packs})
    leg = int(manager.restore() is not None)
    loaders = (
        torch.utils.data.DataLoader(stream, 4, num_workers=workers),
        torch.utils.data.DataLoader(shards, 4, num_workers=workers),
        globidx.DataLoader(packed, 2, sampler=packs, num_workers=workers, collate_fn=flatten),
    )
    with Path(run, f"leg-{leg}-rank-{rank}.jsonl").open("w", buffering=1) as log:
        # ranks have different numbers of rows, and so of steps
        for step, (ids, part, pack_) in enumerate(itertools.zip_longest(*loaders), 1):
            read = {
                "stream": [] if ids is None else ids.tolist(),
                "shards": [] if part is None else part[0].tolist(),
                "packs": [] if pack_ is None else pack_["tokens"].tolist(),
            }
            log.write(json.dumps({"step": step} | read) + "\n")
            if ids is not None:
                stream.commit(len(ids))
            if part is not None:
                shards.commit(part[1])
            if (rank, step) == (kill_rank, kill_step):
                os.kill(os.getpid(), signal.SIGKILL)
            if kill_step > 0 and step % 3 == 0:
                manager.save(step)
    manager.save(1000)
    # torch's threads let go of all tensors: one that still held some could abort the exit
    dist.monitored_barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
