"""Does the next batch reach the device while the loop trains? Step time against copy and compute alone, in one run.

python tools/bench/transfer.py [--mebibytes 256] [--steps 60] [--repeats 3] [--json PATH]

Batches lie in pinned memory already, so that nothing but the copy stands beside the compute: matrix products, as many
as make compute about as long as a copy, three times as long, and a third. Each loop runs once as it is written, the
host far ahead of the device, and once waiting for its result in every step, as a loop does that prints its loss. What a
step costs is held against the larger of the two alone: 1.00 is a copy, or a compute, that costs nothing.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from measure import seconds, table

import globidx

SIDE = 4096  # of the matrices; a product of two is far longer than it takes to queue it
CASES = {"copy = compute": 1.0, "compute 3x": 3.0, "copy 3x": 1 / 3}
WARM_UP, TARGET = 4, 1.10


class Pinned(torch.utils.data.Dataset):
    """Sample ``id`` is a whole batch, in pinned memory, one of a few that take turns."""

    def __init__(self, steps: int, mebibytes: int) -> None:
        rows = mebibytes * 2**20 // 2 // SIDE
        self.steps = steps
        self.batches = [torch.randn(SIDE).half().repeat(rows, 1).pin_memory() for _ in range(3)]

    def __len__(self) -> int:
        return self.steps

    def __getitems__(self, ids: list[int]) -> torch.Tensor:
        """The batch of the only id in ``ids``."""
        return self.batches[ids[0] % len(self.batches)]


class Work:
    """``products`` matrix products on a batch."""

    def __init__(self, products: int, *, waiting: bool) -> None:
        self.products, self.waiting = products, waiting
        self.weight = torch.randn(SIDE, SIDE, device="cuda").half() / SIDE

    def __call__(self, batch: torch.Tensor) -> None:
        """Queue the products, and wait for them where that is the manner."""
        value = batch[:SIDE]
        for _ in range(self.products):
            value = value @ self.weight
        if self.waiting:
            value[0, 0].item()


def step_seconds(batches: Iterable[torch.Tensor], work: Callable[[torch.Tensor], object]) -> float:
    """Seconds a step, the first few left out."""
    torch.cuda.synchronize()
    steps = -WARM_UP
    for batch in batches:
        if steps == 0:
            torch.cuda.synchronize()
            began = time.perf_counter()
        work(batch)
        steps += 1
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps


def loader(dataset: Pinned, device: str | None) -> globidx.DataLoader:
    """A loader of ours over whole batches, with a sampler that counts."""
    sampler = globidx.ResumableDistributedSampler(dataset, 1, 0)
    return globidx.DataLoader(
        dataset,
        batch_size=1,
        sampler=sampler,
        collate_fn=lambda batch: batch,
        pin_memory=True,
        device=device,
    )


def in_loop(batches: Iterable[torch.Tensor]) -> Iterable[torch.Tensor]:
    """What one writes without ``device=``: the copy on the stream that computes."""
    return (batch.to("cuda", non_blocking=True) for batch in batches)


def measured(dataset: Pinned, ratio: float, waiting: bool, repeats: int) -> dict[str, float]:
    """Medians of one case, its contestants taking turns."""
    resident = dataset.batches[0].cuda()
    copy = step_seconds(in_loop(loader(dataset, None)), lambda batch: None)
    product = step_seconds([resident] * len(dataset), Work(20, waiting=False)) / 20
    work = Work(max(1, round(ratio * copy / product)), waiting=waiting)
    taken: dict[str, list[float]] = {name: [] for name in ("copy", "compute", "in_loop", "device")}
    for _ in range(repeats):
        taken["copy"].append(step_seconds(in_loop(loader(dataset, None)), lambda batch: None))
        taken["compute"].append(step_seconds([resident] * len(dataset), work))
        taken["in_loop"].append(step_seconds(in_loop(loader(dataset, None)), work))
        taken["device"].append(step_seconds(loader(dataset, "cuda"), work))
    found = {name: statistics.median(values) for name, values in taken.items()}
    return found | {"ratio": found["device"] / max(found["copy"], found["compute"])}


def main() -> None:
    """Measure, print the table and the verdict, and write JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mebibytes", type=int, default=256, help="a batch; 32 at least")
    parser.add_argument("--steps", type=int, default=60, help="steps of a measurement")
    parser.add_argument(
        "--repeats", type=int, default=3, help="measurements a figure is the median of"
    )
    parser.add_argument("--json", type=Path, help="also write all figures there")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: nothing to measure")
        return
    if (
        options.mebibytes * 2**20 < 2 * SIDE * SIDE
        or options.steps <= WARM_UP
        or options.repeats < 1
    ):
        parser.error(
            f"--mebibytes must be 32 or more, --steps more than {WARM_UP}, --repeats 1 or more"
        )
    dataset = Pinned(options.steps, options.mebibytes)
    rows = []
    for waiting in (False, True):
        for name, ratio in CASES.items():
            found = measured(dataset, ratio, waiting, options.repeats)
            rows.append({"case": name, "loop": "waits" if waiting else "runs on", **found})
    name = torch.cuda.get_device_name()
    peak = torch.cuda.max_memory_allocated()
    print(
        f"{name}, torch {torch.__version__}, batches of {options.mebibytes} MiB, medians of {options.repeats}\n"
    )
    head = ["case", "loop", "copy", "compute", ".to() in the loop", "device=", "device= / larger"]
    figures = ("copy", "compute", "in_loop", "device")
    cells = [
        [row["case"], row["loop"], *(seconds(row[key]) for key in figures), f"{row['ratio']:.2f}"]
        for row in rows
    ]
    print(table([head, *cells]) + "\n")
    worst = max(row["ratio"] for row in rows)
    verdict = "yes" if worst <= TARGET else "no"
    print(f"most memory on the device: {peak / 2**20:.0f} MiB")
    print(f"step time within 10 % of the larger of copy and compute: {verdict} (worst {worst:.2f})")
    if options.json:
        found = {
            "device": name,
            "torch": torch.__version__,
            "mebibytes": options.mebibytes,
            "peak_bytes": peak,
        }
        options.json.write_text(
            json.dumps(found | {"measured": rows, "within_10_percent": verdict}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
