"""A job that saves by torch.distributed.checkpoint in mid-epoch, or loads and ends its epochs; ids are written by step.

torchrun ... dcp_job.py FOLDER save|load CASE...     # a case: "save" or "async", a tail, "even" or "ahead"
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from integrations.jobs import end

import globidx
from globidx.integrations.dcp import ResumableState

SAMPLES, BATCH, EPOCHS, STOP_AT = 203, 4, 3, 11


def main(folder, what, own):
    """One case: ``folder`` gets the checkpoint, and what each rank of this leg has seen."""
    how, tail, ranks = folder.name.split("-")
    sampler = globidx.ResumableDistributedSampler(range(SAMPLES), seed=3, tail=tail)
    loader = globidx.DataLoader(range(SAMPLES), BATCH, sampler=sampler)
    state = {"weights": torch.arange(6.0), "progress": ResumableState(sampler)}
    if what == "load":
        dcp.load(state, checkpoint_id=folder / "checkpoint")
    # a rank may be a batch ahead where no step has a collective
    stop = STOP_AT + (ranks == "ahead" and dist.get_rank() == 0)
    folder.mkdir(exist_ok=True)
    with (folder / f"seen-{what}-{dist.get_rank()}.jsonl").open("w") as seen:
        for epoch in range(sampler.epoch, EPOCHS):
            stops_at = stop if (what, epoch) == ("save", 1) else None
            for number, batch in enumerate(loader, 1):
                if stops_at is None or number <= stops_at:
                    seen.write(json.dumps({"epoch": epoch, "ids": batch.tolist()}) + "\n")
                if number == stops_at and how == "save":
                    return dcp.save(state, checkpoint_id=folder / "checkpoint")
                if number == stops_at:
                    saved = dcp.async_save(
                        state, checkpoint_id=folder / "checkpoint", process_group=own
                    )
                # these two steps die with the job: they are in no checkpoint
                if stops_at is not None and number == stops_at + 2:
                    return saved.result()


if __name__ == "__main__":
    dist.init_process_group("gloo")
    # the thread of async_save must not meet the collectives of the loop
    own = dist.new_group(backend="gloo")
    for case in sys.argv[3:]:
        main(Path(sys.argv[1], case), sys.argv[2], own)
    end()
