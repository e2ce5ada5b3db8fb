"""ACE's trainer, with the lines of its page, over ids; windows grow after the first epoch, which then has fewer.

torchrun ace_job.py FOLDER [KILL_AT]

It is killed behind so many batches, or between training and validation of an epoch, as ``-1``.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from processes import leave
from recipe_jobs import bare, note, without

bare("fme", "fme.core")
sys.modules["fme"].get_device = lambda: torch.device("cpu")
with without("dacite", "torch_harmonics", "fme.core.wandb", "fme.core.cli", "fme.core.loss"):
    from fme.core.distributed import Distributed
    from fme.core.ema import EMATracker
    from fme.core.generics.data import GriddedDataABC, SizedMap
    from fme.core.generics.dataloader import GenericDataLoader
    from fme.core.generics.dataset import GenericDataset
    from fme.core.generics.trainer import Trainer, TrainerParams

folder, kill_at = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None


class Killed(Exception):
    """Ends a job on all ranks at the same step."""


class Windows(GenericDataset):
    """Ids of windows; there are fewer of longer ones."""

    first_time = last_time = None
    length = 60

    def __getitem__(self, index):
        return index

    def __len__(self):
        return self.length

    def set_epoch(self, epoch):
        self.length = 60 if epoch < 2 else 58


class Data(GriddedDataABC):
    """What ``GriddedData`` does beside moving batches to a device."""

    n_samples = n_batches = batch_size = 3

    def __init__(self, loader):
        self._loader = loader

    @property
    def loader(self):
        return SizedMap(lambda batch: batch, self._loader)

    def subset_loader(self, start_batch=None, stop_batch=None):
        subset = self._loader.subset(start_batch=start_batch, stop_batch=stop_batch)
        return SizedMap(lambda batch: batch, subset)

    def set_epoch(self, epoch):
        self._loader.set_epoch(epoch)

    def alternate_shuffle(self):
        self._loader.alternate_shuffle()

    def log_info(self, name):
        """Say nothing."""


class Stepper:
    """Notes what it trains on; what is only evaluated comes with another optimization."""

    modules = torch.nn.ModuleList([torch.nn.Linear(1, 1)])

    def train_on_batch(self, batch, optimization, evaluate_all_steps=False):
        if isinstance(optimization, Optimization):
            if trainer.num_batches_seen == kill_at:
                raise Killed
            note(folder, Distributed.get_instance().rank, trainer._epochs_trained + 1, batch)
        return SimpleNamespace(get_metrics=dict)

    def get_state(self):
        return {}

    def load_state(self, state):
        """Keep no state."""

    set_epoch = update_training_history = load_state

    def set_train(self):
        """Do nothing."""

    set_eval = set_train

    def seed_eval(self, seed):
        """Do nothing."""


class Optimization:
    """Steps nothing."""

    learning_rate = 0.0

    def step_scheduler(self, valid_loss=None, is_iteration=False):
        """Do nothing."""

    def get_state(self):
        return {}

    def load_state(self, state):
        """Keep no state."""


class Aggregator:
    """Counts what was evaluated."""

    batches = 0

    def record_batch(self, stepped):
        self.batches += 1

    def get_summary(self, label):
        assert self.batches == 2
        return SimpleNamespace(logs={}, loss=0.0)

    def flush_diagnostics(self, subdir):
        """Write nothing."""


def validate(epoch):
    """Be killed before the validation of an epoch, or find no loss."""
    if kill_at == -epoch:
        raise Killed
    return {}, 0.0


params = TrainerParams(
    experiment_dir=str(folder),
    checkpoint_dir=str(folder),
    max_epochs=2,
    save_checkpoint=True,
    validate_using_ema=False,
    log_train_every_n_batches=0,
    train_evaluation_batches=2,
    checkpoint_every_n_batches=4,
    segment_epochs=None,
    checkpoint_save_epochs=None,
    ema_checkpoint_save_epochs=None,
    evaluate_before_training=False,
    save_best_inference_epoch_checkpoints=False,
    lr_tuning=None,
)
with Distributed.context(handle_signals=False):
    windows = Windows()
    loader = GenericDataLoader(
        windows,
        collate_fn=list,
        batch_size=3,
        sampler=Distributed.get_instance().get_sampler(windows, shuffle=True),
    )
    trainer = Trainer(
        train_data=Data(loader),
        stepper=Stepper(),
        build_optimization=lambda modules: Optimization(),
        build_ema=lambda modules: EMATracker(modules, decay=0.9),
        params=params,
        aggregator_builder=SimpleNamespace(get_train_aggregator=Aggregator),
        validation_callback=validate,
    )
    try:
        trainer.train()
    except Killed:
        pass
    # before the context ends the group by which ranks meet
    leave()
