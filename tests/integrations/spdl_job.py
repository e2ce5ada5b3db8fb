"""A job over SPDL's loaders, as docs/howto/trainers/spdl.md has it, that is saved and resumed.

python -m integrations.legs spdl_job FOLDER
"""

import json

import torch.distributed as dist
from integrations.legs import BATCH, EPOCHS, SAMPLES
from spdl.dataloader import get_pytorch_dataloader
from spdl.pipeline import PipelineBuilder
from torch.utils.data import BatchSampler

from globidx import ResumableDistributedSampler


def loader_over(sampler, stop_at):
    """The loader that torch's is replaced by in the first leg, and a pipeline in those that resume."""
    if stop_at is not None:
        return get_pytorch_dataloader(
            range(SAMPLES), BATCH, sampler=sampler, in_order=True, num_workers=2
        )
    builder = PipelineBuilder().add_source(BatchSampler(sampler, BATCH, drop_last=False))
    builder.pipe(fetch, concurrency=2, output_order="input")
    return builder.add_sink(3)


def fetch(ids):
    """A batch of what is stored."""
    return [range(SAMPLES)[id] for id in ids]


def passes(loader):
    """One pass over a loader, or over a new pipeline of it."""
    if not isinstance(loader, PipelineBuilder):
        yield from loader
        return
    pipeline = loader.build(num_threads=2)
    with pipeline.auto_stop():
        yield from pipeline


def leg(folder, stop_at, seen):
    dist.init_process_group("gloo")
    sampler = ResumableDistributedSampler(range(SAMPLES), seed=7)
    record = folder / "record.json"
    if record.exists():
        sampler.load_state_dict(json.loads(record.read_text()))
    loader = loader_over(sampler, stop_at)
    for epoch in range(sampler.epoch, EPOCHS):
        for ids in passes(loader):
            seen.note(epoch, ids)
            sampler.commit(len(ids))
            if seen.steps == stop_at:
                if dist.get_rank() == 0:
                    record.write_text(json.dumps(sampler.state_dict()))
                break
        if seen.steps == stop_at:
            break
