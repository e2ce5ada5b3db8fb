"""Exact accuracy over ranks that do not divide the samples: torch's sampler counts some of them twice, ours need not.

torchrun --nproc-per-node 4 examples/exact_evaluation.py
"""

import torch
import torch.distributed as dist
from torch.utils.data import TensorDataset
from torch.utils.data.distributed import DistributedSampler

from globidx import DataLoader, ResumableDistributedSampler

SAMPLES, BATCH = 103, 8


def predict(inputs: torch.Tensor) -> torch.Tensor:
    """The model: right for all samples but the first few, which are the ones that padding repeats."""
    return torch.where(inputs < 10, 1, 0)


def total(right: int, seen: int) -> str:
    """Accuracy over all ranks."""
    counts = torch.tensor([right, seen])
    dist.all_reduce(counts)
    return f"{int(counts[0])} of {int(counts[1])} right: {counts[0] / counts[1]:.4%}"


def main() -> None:
    dist.init_process_group("gloo")
    dataset = TensorDataset(torch.arange(SAMPLES), torch.zeros(SAMPLES, dtype=torch.int64))
    answers = {}

    right = seen = 0  # torch pads by repeating, and counts the repeats
    for inputs, labels in DataLoader(dataset, BATCH, sampler=DistributedSampler(dataset, shuffle=False)):
        right += int((predict(inputs) == labels).sum())
        seen += len(labels)
    answers["torch, padded"] = total(right, seen)

    right = seen = 0  # every id once; ranks may differ by one, so nothing collective may stand inside the loop
    sampler = ResumableDistributedSampler(dataset, shuffle=False, tail="exact")
    for inputs, labels in DataLoader(dataset, BATCH, sampler=sampler):
        right += int((predict(inputs) == labels).sum())
        seen += len(labels)
    answers["globidx, tail='exact'"] = total(right, seen)

    right = seen = 0  # equal steps on every rank, for collectives inside the loop: mask the end of the last batch
    sampler = ResumableDistributedSampler(dataset, shuffle=False)
    loader = DataLoader(dataset, BATCH, sampler=sampler)
    padding = len(sampler) - sampler.num_valid
    for number, (inputs, labels) in enumerate(loader, loader.start + 1):
        real = len(labels) - (padding if number == len(loader) else 0)
        right += int((predict(inputs) == labels)[:real].sum())
        seen += real
    answers["globidx, tail='pad', masked"] = total(right, seen)

    if dist.get_rank() == 0:
        print(f"in truth                     {SAMPLES - 10} of {SAMPLES} right: {(SAMPLES - 10) / SAMPLES:.4%}")
        for name, answer in answers.items():
            print(f"{name:28} {answer}")
    dist.monitored_barrier()  # torch's threads let go of all tensors: one that still held some could abort the exit
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
