"""A job of transformers' Trainer that trains for some epochs, or saves and stops; what each step saw is written.

torchrun ... transformers_job.py FOLDER SAMPLES BATCH EPOCHS STOP_AT ACCUMULATE IGNORE_DATA_SKIP
"""

import json
import sys
from pathlib import Path

import torch
from processes import leave
from transformers import Trainer, TrainerCallback, TrainingArguments

from globidx.integrations.transformers import ResumableTrainerMixin


class Samples(torch.utils.data.Dataset):
    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return self.samples

    def __getitem__(self, id):
        return {"ids": torch.tensor([float(id)])}


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(1, 1)

    def forward(self, ids):
        return {"loss": self.inner(ids).mean()}


class Watch(TrainerCallback):
    """Notes the epoch, and stops after a step; tests compare the schedule's length, too."""

    def __init__(self, stop_at):
        self.stop_at, self.epoch, self.counts = stop_at, None, {}

    def on_epoch_begin(self, args, state, control, train_dataloader, **others):
        self.epoch = train_dataloader.sampler.epoch

    def on_step_end(self, args, state, control, **others):
        self.counts = {"step": state.global_step, "max_steps": state.max_steps}
        if state.global_step == self.stop_at:
            control.should_save = control.should_training_stop = True


class MyTrainer(ResumableTrainerMixin, Trainer):
    def training_step(self, model, inputs, *others):
        line = {"epoch": self.watch.epoch, "ids": inputs["ids"].flatten().tolist()}
        self.seen.write(json.dumps(line) + "\n")
        return super().training_step(model, inputs, *others)


def main(folder, samples, batch, epochs, stop_at, accumulate, ignore_data_skip):
    args = TrainingArguments(
        str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulate,
        ignore_data_skip=bool(ignore_data_skip),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=True,
        data_seed=3,
    )
    watch = Watch(stop_at)
    trainer = MyTrainer(Model(), args, train_dataset=Samples(samples), callbacks=[watch])
    resume = any(Path(folder).glob("checkpoint-*"))
    with Path(folder, f"seen-{int(resume)}-{args.process_index}.jsonl").open("w") as seen:
        trainer.seen, trainer.watch = seen, watch
        trainer.train(resume_from_checkpoint=resume)
    if args.process_index == 0:
        Path(folder, f"counts-{int(resume)}.json").write_text(json.dumps(watch.counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    leave()
