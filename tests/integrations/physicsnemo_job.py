"""A job over PhysicsNeMo's datapipes, as docs/howto/trainers/physicsnemo.md has it, that is saved and resumed.

python -m integrations.legs physicsnemo_job FOLDER
"""

import json

import torch.distributed as dist
from integrations.legs import BATCH, EPOCHS
from physicsnemo.datapipes import DataLoader, Dataset, NumpyReader

from globidx import ResumableDistributedSampler


def leg(folder, stop_at, seen):
    # its DistributedManager gives torch a device, which that of a CPU is refused as
    dist.init_process_group("gloo")
    dataset = Dataset(NumpyReader(folder.parent / "ids.npz"), device="cpu")
    sampler = ResumableDistributedSampler(dataset, seed=7)
    loader = DataLoader(dataset, batch_size=BATCH, sampler=sampler)
    record = folder / "record.json"
    if record.exists():
        sampler.load_state_dict(json.loads(record.read_text()))

    for epoch in range(sampler.epoch, EPOCHS):
        loader.set_epoch(epoch)
        for batch in loader:
            seen.note(epoch, batch["ids"].flatten())
            sampler.commit(len(batch))
            if seen.steps == stop_at:
                if sampler.rank == 0:
                    record.write_text(json.dumps(sampler.state_dict()))
                return
