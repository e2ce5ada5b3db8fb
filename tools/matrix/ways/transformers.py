"""transformers' Trainer."""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from matrix.leg import BATCH, EPOCHS, SEED, Leg
from matrix.training import dataset, network
from torch import nn

from globidx.integrations.transformers import ResumableTrainerMixin


class Samples(torch.utils.data.Dataset):
    """The samples as dicts, as transformers takes them."""

    def __init__(self) -> None:
        self.ids = dataset()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, id: int) -> dict[str, torch.Tensor]:
        return {"ids": self.ids[id]}


class Model(nn.Module):
    """The model, which returns its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss."""
        return {"loss": self.network(ids[:, None]).mean()}


class SaveAndStop(transformers.TrainerCallback):
    """What a time limit does: a checkpoint after a step, and the end. ``epoch_of`` says which epoch begins."""

    def __init__(self, leg: Leg, epoch_of: Callable[[Any, Any], int]) -> None:
        self.leg, self.epoch_of, self.epoch = leg, epoch_of, 0

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        """Note which epoch begins."""
        self.epoch = self.epoch_of(state, given["train_dataloader"])

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Save after the step, and stop."""
        control.should_save = control.should_training_stop = self.leg.is_over


class Noting:
    """A Trainer that notes what it trains on."""

    def training_step(self, model: Any, inputs: Any, *others: Any) -> Any:
        """Note the batch."""
        self.watch.leg.saw(self.watch.epoch, inputs["ids"])
        return super().training_step(model, inputs, *others)


class Stock(Noting, transformers.Trainer):
    """transformers' own."""


class Ours(Noting, ResumableTrainerMixin, transformers.Trainer):
    """With one base more."""


def train(leg: Leg, make: type, epoch_of: Callable[[Any, Any], int]) -> None:
    """Train from the checkpoint, if there is one."""
    args = transformers.TrainingArguments(
        str(leg.checkpoint),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=True,
        seed=SEED,
    )
    watch = SaveAndStop(leg, epoch_of)
    trainer = make(Model(), args, train_dataset=Samples(), callbacks=[watch])
    trainer.watch = watch
    trainer.train(resume_from_checkpoint=leg.resumes)


def stock(leg: Leg) -> None:
    """transformers' own; which epoch it resumes it tells from the number of steps."""
    train(leg, Stock, lambda state, loader: state.global_step // len(loader))


def ours(leg: Leg) -> None:
    """With the mixin; the record says which epoch is resumed."""
    train(leg, Ours, lambda state, loader: loader.sampler.epoch)  # noqa: ARG005
