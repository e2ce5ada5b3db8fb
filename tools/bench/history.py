"""What it costs to go on from a long and uneven history: ``python tools/bench/history.py [--json]``.

Records are written of many segments of many uneven ranks, of which one rank never commits anything, so that none is
forgotten. A fresh process reads each and enumerates what remains of the epoch: how long it takes to read the record;
from there to the first id, to 64 ids, and for each id of a large block; and how much memory the process grows by.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import count, forget_peak, fresh_process, mebibytes, memory, seconds, table

from globidx.core.orders.plain import Shuffle
from globidx.core.progress.segments import Progress
from globidx.core.progress.state import DatasetIdentity, SamplerState
from globidx.core.progress.view import EpochView
from globidx.core.records import record
from globidx.disk.records.folder import read_record
from globidx.errors import RecordError

SAMPLES, BLOCK = 10**12, 2**14
SHAPES = [
    (1, 2),
    (1, 4096),
    (1, 2**17),
    (50, 64),
    (50, 4096),
    (64, 4096),
    (256, 1024),
    (1000, 2),
    (1000, 64),
    (1000, 256),
]
COUNTS = {
    "a few each": lambda dice, ranks: [dice.randrange(40) for _ in range(ranks)],
    "batches of 32": lambda dice, ranks: [32 * dice.randrange(40) for _ in range(ranks)],
    "all different": lambda dice, ranks: dice.sample(range(0, 50 * ranks, 50), ranks),
    "far apart": lambda dice, ranks: [dice.randrange(10**6) for _ in range(ranks)],
}


def main() -> None:
    """Measure each shape; print a table, or JSON."""
    found = [measured(layers, ranks, style) for layers, ranks in SHAPES for style in COUNTS]
    if "--json" in sys.argv:
        return print(json.dumps(found))
    rows = [["segments x ranks, counts", "record", "read", "first id", "64 ids", "an id", "MiB"]]
    for shape in found:
        name = f"{shape['layers']} x {shape['ranks']}, {shape['counts']}"
        if "refused" in shape:
            rows.append([name, shape["refused"]])
            continue
        times = [seconds(shape[key]) for key in ("read", "first", "64", "id")]
        rows.append([name, count(shape["bytes"]), *times, mebibytes(shape["memory"])])
    return print(table(rows))


def measured(layers: int, ranks: int, style: str) -> dict[str, object]:
    """One shape's figures, or why there is no such record."""
    shape = {"layers": layers, "ranks": ranks, "counts": style}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "record-00000000-000000000000.json")
        try:
            path.write_bytes(written(layers, ranks, style))
        except RecordError as error:
            return shape | {"refused": str(error)}
        return (
            shape | {"bytes": path.stat().st_size} | fresh_process(Path(__file__), "--go-on", path)
        )


def written(layers: int, ranks: int, style: str) -> bytes:
    """The bytes of such a record."""
    dice, progress = random.Random(0), Progress(SAMPLES)
    for _ in range(layers):
        counts = COUNTS[style](dice, ranks)
        counts[dice.randrange(ranks - 1)] = 0
        counts[-1] = max(counts[-1], 1)
        progress = progress.extend(counts)
    state = SamplerState(
        DatasetIdentity(SAMPLES), Shuffle().describe(), 0, 0, "exact", progress
    ).to_dict()
    sealed = record.build(
        number=0, token="0" * 12, step=1, time="", states={"sampler": state}, extras={}
    )
    return record.encode(sealed)


def go_on(path: Path) -> dict[str, float]:
    """Read the record, and enumerate what remains; one of two ranks."""
    Shuffle().bind(SAMPLES, seed=0, epoch=0).take(np.arange(100))  # what any process does once
    forget_peak()
    before, times = memory("VmHWM"), [time.perf_counter()]
    state = SamplerState.from_dict(read_record(path)["states"]["sampler"])
    times.append(time.perf_counter())
    view = EpochView(
        Shuffle().bind(state.dataset.num_samples, seed=state.seed, epoch=state.epoch),
        state.progress,
    )
    for start, stop in ((0, 1), (0, 64), (64, 64 + BLOCK)):
        view.stream(start, stop, rank=0, world_size=2)
        times.append(time.perf_counter())
    read, first, more, block = (
        later - earlier for earlier, later in zip(times, times[1:], strict=False)
    )
    return {
        "read": read,
        "first": first,
        "64": first + more,
        "id": block / BLOCK,
        "memory": memory("VmHWM") - before,
    }


if __name__ == "__main__":
    if "--go-on" in sys.argv:
        print(json.dumps(go_on(Path(sys.argv[-1]))))
    else:
        main()
