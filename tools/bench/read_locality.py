"""How often chunks are decoded under ``orders.ChunkShuffle`` by many workers, and after a resume on fewer ranks.

python tools/bench/read_locality.py FOLDER LAYOUT

Every loader worker of every rank is played by a dataset of its own, which gets that worker's batches: worker w of two
gets each second one, as torch deals them. It keeps as many decoded chunks as two windows have, because half as many
ranks read two lanes each. Prints JSON: decodes a chunk at 4 ranks x 2 workers over half an epoch, and over the other
half on 2 ranks x 2 workers with the same global batch.
"""

import copy
import json
import sys
from pathlib import Path

from read_contestants import ITEM, WINDOW, files
from read_data import LAYOUTS

GLOBAL_BATCH, WORKERS = 64, 2


def decodes(dataset, samplers, per_rank: int) -> int:
    """Decoded chunks while each rank's workers read what they are dealt, up to ``per_rank`` samples a rank."""
    total, batch = 0, GLOBAL_BATCH // len(samplers)
    for sampler in samplers:
        ids = [id for _, id in zip(range(per_rank), sampler, strict=False)]
        sampler.commit(len(ids))
        batches = [ids[start : start + batch] for start in range(0, len(ids), batch)]
        for worker in range(WORKERS):
            own = copy.deepcopy(dataset)
            for some in batches[worker::WORKERS]:
                own.__getitems__(some)
            total += own.counters().decodes
            own.close()
    return total


def measure(folder: Path, layout: str) -> dict[str, float]:
    """Decodes a chunk of what was read, before and after the resume."""
    from globidx import (
        FileCacheDataset,
        GlobalIndexManager,
        ResumableDistributedSampler,
        merge_states,
        orders,
    )

    length = LAYOUTS[layout]
    dataset = FileCacheDataset(
        GlobalIndexManager(files(folder, layout)), cache_bytes=2 * WINDOW * length * ITEM
    )

    def ranks(count: int) -> list[ResumableDistributedSampler]:
        order = orders.ChunkShuffle(window=WINDOW, lanes=(4, WORKERS), batch=GLOBAL_BATCH)
        return [
            ResumableDistributedSampler(dataset, count, rank, order=order) for rank in range(count)
        ]

    half = len(dataset) // 2 // GLOBAL_BATCH * GLOBAL_BATCH
    first = ranks(4)
    before = decodes(dataset, first, half // 4)
    record = merge_states([sampler.state_dict() for sampler in first])
    second = ranks(2)
    for sampler in second:
        sampler.load_state_dict(record)
    after = decodes(dataset, second, len(dataset))
    return {
        "4 ranks": before / (half / length),
        "then 2 ranks": after / ((len(dataset) - half) / length),
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2])))
