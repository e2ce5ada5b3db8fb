"""A Trainer of transformers that is stopped in the middle of an epoch, and goes on: start it twice.

torchrun --nproc-per-node 2 examples/integrations/resume_transformers.py /tmp/run
torchrun --nproc-per-node 3 examples/integrations/resume_transformers.py /tmp/run
"""

import sys
from pathlib import Path

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from globidx.integrations.transformers import ResumableTrainerMixin

STOP_AT = 5


class Regression(nn.Module):
    """A line through the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 1)

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the loss, as models of transformers do."""
        return {"loss": nn.functional.mse_loss(self.inner(inputs)[:, 0], labels)}


class MyTrainer(ResumableTrainerMixin, Trainer):
    """Was: Trainer."""


class Stop(TrainerCallback):
    """What a time limit does."""

    def on_step_end(self, args, state, control, **others):
        """Save and stop."""
        control.should_save = control.should_training_stop = state.global_step == STOP_AT


def main(folder: Path) -> None:
    torch.manual_seed(0)
    dataset = [{"inputs": torch.randn(8), "labels": torch.tensor(float(id))} for id in range(100)]
    args = TrainingArguments(
        str(folder),
        per_device_train_batch_size=4,
        num_train_epochs=2,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    resume = any(folder.glob("checkpoint-*"))
    trainer = MyTrainer(Regression(), args, train_dataset=dataset)
    if not resume:
        trainer.add_callback(Stop())
    trainer.train(resume_from_checkpoint=resume)
    if args.process_index == 0:
        print(f"{trainer.state.global_step} of {trainer.state.max_steps} steps")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    if torch.distributed.is_initialized():
        torch.distributed.monitored_barrier()  # torch's threads let go of all tensors before the exit
        torch.distributed.destroy_process_group()
