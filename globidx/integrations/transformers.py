"""transformers: ``class MyTrainer(ResumableTrainerMixin, Trainer)`` trains on each sample once an epoch.

``Trainer`` counts epochs and batches by its global step, which has another meaning on another
number of processes, and skips batches when it resumes. Here the sampler's record says both; it is a
file of the checkpoint folder.
"""

from __future__ import annotations

import math
import os
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import Sampler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, seed_worker

from globidx.core.json import strict
from globidx.disk.files.atomic import write_atomic
from globidx.errors import RecordCorruptError, RecordError
from globidx.integrations.accelerate import refuse_settings
from globidx.torch.loader import DataLoader
from globidx.torch.sampler import ResumableDistributedSampler

#: The record's file, beside ``trainer_state.json``.
RECORD_NAME = "globidx.json"


class ResumableTrainerMixin:
    """A ``transformers.Trainer`` that resumes in the middle of an epoch, on any number of processes.

    Put it before ``Trainer`` among the bases. ``train(resume_from_checkpoint=...)`` then goes on
    from the sampler's record of that checkpoint, whatever ``ignore_data_skip`` says.

    Notes
    -----
    The sampler is made by ``_get_train_sampler``; override it to choose an order or a tail. The
    learning-rate schedule is that of the steps that the run really has: those done, and those left
    at today's number of processes, batch size and accumulation.

    Examples
    --------
    >>> from transformers import Trainer
    >>> class MyTrainer(ResumableTrainerMixin, Trainer):
    ...     def _get_train_sampler(self, train_dataset=None):
    ...         return ResumableDistributedSampler(train_dataset, seed=7, tail="drop")
    """

    # of Trainer
    accelerator: Any
    args: Any
    data_collator: Any
    state: Any
    train_dataset: Any
    # the checkpoint that the run goes on from, and the loader of its samples
    _resumed_from: str | None = None
    _resumable_loader: DataLoader | None = None

    # -- what a user may override or call

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[Any] | None:
        """The sampler of the training samples, made anew for each run."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return ResumableDistributedSampler(dataset, seed=seed)

    def get_train_dataloader(self) -> DataLoader:
        """The loader of the training samples, where the checkpoint that is resumed says.

        Returns
        -------
        DataLoader
            A ``globidx.DataLoader`` with the Trainer's settings, not prepared by Accelerate, which
            would deal its batches once more. The Trainer moves batches itself.

        Raises
        ------
        TypeError
            If ``_get_train_sampler`` returns a sampler that cannot resume.
        globidx.errors.RecordError
            If the checkpoint has no record of a sampler, or that of another run.

        Examples
        --------
        >>> import torch
        >>> from transformers import Trainer, TrainingArguments
        >>> class MyTrainer(ResumableTrainerMixin, Trainer): ...
        >>> args = TrainingArguments(per_device_train_batch_size=4, use_cpu=True)
        >>> trainer = MyTrainer(torch.nn.Linear(1, 1), args, train_dataset=[{"x": 0.0}] * 10)
        >>> len(trainer.get_train_dataloader())
        3
        """
        dataset, collate = self._train_data()
        sampler = self._get_train_sampler(dataset)
        if not isinstance(sampler, ResumableDistributedSampler):
            raise TypeError(
                "_get_train_sampler must return a ResumableDistributedSampler, got a "
                f"{type(sampler).__name__}; leave ResumableTrainerMixin out to train with it"
            )
        refuse_settings(self.accelerator, sampler)
        if self._resumed_from is not None:
            sampler.load_state_dict(_read(self._resumed_from))
        self._resumable_loader = self._loader_over(dataset, collate, sampler)
        return self._resumable_loader

    # -- what Trainer calls

    def _inner_training_loop(
        self,
        batch_size: Any = None,
        args: Any = None,
        resume_from_checkpoint: str | None = None,
        trial: Any = None,
        ignore_keys_for_eval: Any = None,
    ) -> Any:
        # the one place that knows which checkpoint is meant before a loader is made
        self._resumed_from = resume_from_checkpoint
        try:
            return super()._inner_training_loop(  # type: ignore[misc]
                batch_size, args, resume_from_checkpoint, trial, ignore_keys_for_eval
            )
        finally:
            self._resumed_from = None

    def set_initial_training_values(self, args: Any, dataloader: Any) -> Any:
        """What the Trainer counts in advance, from what the record leaves to do.

        Parameters
        ----------
        args : transformers.TrainingArguments
            ``max_steps`` stands, if it is given.
        dataloader : DataLoader
            What ``get_train_dataloader`` returned.

        Returns
        -------
        tuple
            As ``Trainer`` returns it.
        """
        values = super().set_initial_training_values(args, dataloader)  # type: ignore[misc]
        loader = self._resumable_loader
        if loader is None or self._resumed_from is None:
            return values
        epochs, _, *others, max_steps = values
        epoch = dataloader.sampler.epoch
        now, later = self._updates(_batches_left(loader)), self._updates(loader.steps_per_epoch)
        done = _steps_done(self._resumed_from)
        if args.max_steps > 0:
            # more passes than these cannot be needed
            epochs = epoch + 1 + max(0, math.ceil((max_steps - done - now) / later))
        else:
            unread = math.floor((epochs - args.num_train_epochs) * later)
            max_steps = done
            if epoch < epochs:
                max_steps += now + (epochs - epoch - 1) * later - unread
        return (epochs, later, *others, max_steps)

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        trained = super()._init_training_state(*args, **kwargs)  # type: ignore[misc]
        if self._resumable_loader is None or self._resumed_from is None:
            return trained  # type: ignore[no-any-return]
        # the sampler starts after what is committed: there is nothing to skip
        sampler: Any = self._resumable_loader.sampler
        return sampler.epoch, 0

    def _run_epoch(self, **values: Any) -> None:
        loader = values["train_dataloader"]
        if isinstance(loader, DataLoader) and loader is self._resumable_loader:
            # a pass that resumes has fewer batches than the others, which the Trainer counts once
            batches = _batches_left(loader)
            values["steps_in_epoch"] = batches
            values["num_update_steps_per_epoch"] = self._updates(batches)
        super()._run_epoch(**values)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # before the rest: a checkpoint that the Trainer can resume always has a record
        if self.args.should_save and self._resumable_loader is not None:
            run = self._get_output_dir(trial=trial)  # type: ignore[attr-defined]
            folder = Path(run, f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
            folder.mkdir(parents=True, exist_ok=True)
            sampler: Any = self._resumable_loader.sampler
            write_atomic(folder / RECORD_NAME, strict.pretty(sampler.state_dict()))
        super()._save_checkpoint(model, trial)  # type: ignore[misc]

    # -- inside

    def _train_data(self) -> tuple[Any, Any]:
        """The training samples, and the function that collates them, without columns that the model does not take."""
        if self.train_dataset is None:
            raise ValueError("Trainer: training requires a train_dataset.")
        trainer: Any = self
        if hasattr(self.train_dataset, "column_names") and hasattr(
            self.train_dataset, "remove_columns"
        ):
            return trainer._remove_unused_columns(
                self.train_dataset, "Training"
            ), self.data_collator
        collate = trainer._get_collator_with_removed_columns(self.data_collator, "Training")
        return self.train_dataset, collate

    def _loader_over(self, dataset: Any, collate: Any, sampler: Any) -> DataLoader:
        args = self.args
        seeded = partial(
            seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index
        )
        return DataLoader(
            dataset,
            batch_size=self._train_batch_size,  # type: ignore[attr-defined]
            sampler=sampler,
            collate_fn=collate,
            drop_last=args.dataloader_drop_last,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            worker_init_fn=seeded,
        )

    def _updates(self, batches: int) -> int:
        """How many optimizer steps so many batches are."""
        return -(-batches // int(self.args.gradient_accumulation_steps))


def _batches_left(loader: DataLoader) -> int:
    """How many batches the next pass over ``loader`` delivers."""
    sampler: Any = loader.sampler
    return loader.steps_left(sampler.epoch + 1)


def _read(checkpoint: str) -> Any:
    path = Path(checkpoint, RECORD_NAME)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RecordError(
            f"{os.fspath(path)} does not exist: the checkpoint was written without "
            "ResumableTrainerMixin, and does not say which samples are done; resume from a "
            "checkpoint that has a record, or load its model and start a new run"
        ) from None
    try:
        return strict.parse(data)
    except ValueError as error:
        raise RecordCorruptError(
            f"{os.fspath(path)} is no record: {error}; resume from another checkpoint"
        ) from None


def _steps_done(checkpoint: str) -> int:
    """The global step of a checkpoint."""
    from transformers import TrainerState
    from transformers.trainer import TRAINER_STATE_NAME

    return int(
        TrainerState.load_from_json(os.path.join(checkpoint, TRAINER_STATE_NAME)).global_step
    )
