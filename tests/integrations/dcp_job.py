"""A job that saves by torch.distributed.checkpoint in mid-epoch, or loads and ends its epochs; ids are written by step.

torchrun ... dcp_job.py FOLDER save|load CASE...

A case says how to save ("save", "async", or "bare": the sampler as it is), the tail, whether ranks are "even" or one is
"ahead", and whose loader it is.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from processes import leave
from torchdata.stateful_dataloader import StatefulDataLoader

import globidx
from globidx.integrations.dcp import ResumableState

SAMPLES, BATCH, EPOCHS, STOP_AT = 203, 4, 3, 11


def by_torchdata(sampler, workers):
    """Batches of StatefulDataLoader, each committed at once."""
    for batch in StatefulDataLoader(range(SAMPLES), BATCH, sampler=sampler, num_workers=workers):
        sampler.commit(len(batch))
        yield batch


def save(how, state, checkpoint, own, batches):
    """Save at once, or while two more steps are made, which no checkpoint has."""
    if how != "async":
        dcp.save(state, checkpoint_id=checkpoint)
    else:
        saved = dcp.async_save(state, checkpoint_id=checkpoint, process_group=own)
        next(batches), next(batches)
        saved.result()


def main(folder, what, own):
    """One case: ``folder`` gets the checkpoint, and what each rank of this leg has seen."""
    how, tail, ranks, whose = folder.name.split("-")
    folder.mkdir(exist_ok=True)
    sampler = globidx.ResumableDistributedSampler(range(SAMPLES), seed=3, tail=tail)
    loader = globidx.DataLoader(range(SAMPLES), BATCH, sampler=sampler)
    progress = sampler if how == "bare" else ResumableState(sampler)
    state = {"weights": torch.arange(6.0), "progress": progress}
    if what == "load":
        dcp.load(state, checkpoint_id=folder / "checkpoint")
    # a rank may be a batch ahead where no step has a collective
    stop = STOP_AT + (ranks == "ahead" and dist.get_rank() == 0)
    with (folder / f"seen-{what}-{dist.get_rank()}.jsonl").open("w") as seen:
        for epoch in range(sampler.epoch, EPOCHS):
            # workers before the save, none after it
            theirs = by_torchdata(sampler, 2 if what == "save" else 0)
            batches = theirs if whose == "torchdata" else iter(loader)
            for number, batch in enumerate(batches, 1):
                seen.write(json.dumps({"epoch": epoch, "ids": batch.tolist()}) + "\n")
                if (what, epoch, number) == ("save", 1, stop):
                    save(how, state, folder / "checkpoint", own, batches)
                    return


if __name__ == "__main__":
    dist.init_process_group("gloo")
    # the thread of async_save must not meet the collectives of the loop
    own = dist.new_group(backend="gloo")
    for case in sys.argv[3:]:
        main(Path(sys.argv[1], case), sys.argv[2], own)
    leave()
