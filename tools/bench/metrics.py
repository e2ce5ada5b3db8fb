"""What metrics cost: an update by type of aggregation, and get_metrics on one and two ranks.

    python tools/bench/metrics.py [--updates 2000] [--calls 200] [--one-rank]

Batches of 32 samples with one metric each; two ranks are two processes on this machine, over gloo.
The state is that of six metrics, of which one is a distribution with a full window of 1,000.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import torch.distributed as dist

from globidx.core.json import strict
from globidx.metrics import AggregationType, Metric, MetricsAggregator

BATCH = 32


def batch(kind: AggregationType, step: int) -> list[Metric]:
    """The metrics of a batch: lengths of a few hundred, or halves of them, or their last digits."""
    lengths = [100 + (37 * (BATCH * step + item)) % 900 for item in range(BATCH)]
    values: dict[AggregationType, list[Any]] = {
        AggregationType.MEAN: [length / 7 for length in lengths],
        AggregationType.CATEGORICAL_COUNT: [length % 10 for length in lengths],
    }
    return [Metric("bench", kind, value, kind) for value in values.get(kind, lengths)]


def nanoseconds(kind: AggregationType, updates: int) -> float:
    """Of processor time that an update takes, for each metric in it."""
    aggregator = MetricsAggregator()
    batches = [batch(kind, step) for step in range(updates)]
    began = time.process_time()
    for metrics in batches:
        aggregator.update(metrics)
    return (time.process_time() - began) / (updates * BATCH) * 1e9


def filled() -> MetricsAggregator:
    """One that has had a full window of each type."""
    aggregator = MetricsAggregator()
    for step in range(1000 // BATCH + 1):
        aggregator.update([metric for kind in AggregationType for metric in batch(kind, step)])
    return aggregator


def milliseconds(calls: int) -> float:
    """Of a call of get_metrics: the median."""
    aggregator, took = filled(), []
    aggregator.get_metrics()
    for _ in range(calls):
        began = time.perf_counter()
        aggregator.get_metrics()
        took.append(time.perf_counter() - began)
    return sorted(took)[calls // 2] * 1e3


def rank_of_two(rank: int, meeting: str, calls: int, queue: Any) -> None:
    """One of two ranks, which tells its figure."""
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    queue.put(milliseconds(calls))
    dist.barrier()
    dist.destroy_process_group()


def on_two_ranks(calls: int) -> float:
    """The slower one's median."""
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{Path(folder, 'meeting')}"
        ranks = [
            spawn.Process(target=rank_of_two, args=(rank, meeting, calls, queue))
            for rank in range(2)
        ]
        for process in ranks:
            process.start()
        figures = [queue.get(timeout=120) for _ in ranks]
        for process in ranks:
            process.join()
    return max(figures)


def main() -> None:
    """Print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--one-rank", action="store_true", help="start no other process")
    given = parser.parse_args()
    for kind in AggregationType:
        print(f"update, {kind:<17} {nanoseconds(kind, given.updates):7.0f} ns a metric")
    print(f"get_metrics, one rank      {milliseconds(given.calls):7.2f} ms")
    if not given.one_rank:
        print(f"get_metrics, two ranks     {on_two_ranks(given.calls):7.2f} ms")
    print(f"state in a record          {len(strict.pretty(filled().state_dict())) / 1e3:7.1f} kB")


if __name__ == "__main__":
    main()
