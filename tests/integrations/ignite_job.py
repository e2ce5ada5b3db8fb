"""A job of Ignite, as docs/howto/trainers/ignite.md has it, that is saved and resumed.

python -m integrations.legs ignite_job FOLDER
"""

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver
from integrations.legs import BATCH, EPOCHS, SAMPLES

from globidx import DataLoader, ResumableDistributedSampler


def leg(folder, stop_at, seen):
    idist.initialize("gloo")
    sampler = ResumableDistributedSampler(range(SAMPLES), seed=7)
    loader = DataLoader(range(SAMPLES), BATCH, sampler=sampler)
    model = idist.auto_model(torch.nn.Linear(1, 1))
    parts = {"model": model, "sampler": sampler}
    if stop_at is None:
        Checkpoint.load_objects(parts, checkpoint=torch.load(next(folder.glob("*.pt"))))

    def step(engine, ids):
        seen.note(engine.state.epoch - 1, ids)
        model(ids[:, None].float()).mean().backward()
        if seen.steps == stop_at:
            engine.terminate()

    def samples_done(*_):
        return (sampler.epoch + 1) * SAMPLES - sampler.remaining

    trainer = Engine(step)
    saver = DiskSaver(str(folder), require_empty=False)
    save = Checkpoint(parts, saver, global_step_transform=samples_done)
    if stop_at is not None:
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=stop_at), save)

    whole = loader.steps_per_epoch
    trainer.load_state_dict(
        {
            "iteration": EPOCHS * whole - loader.steps_left(EPOCHS),
            "epoch_length": whole,
            "max_epochs": EPOCHS,
        }
    )
    trainer.run(loader)
