"""mace's own ``train`` with the lines of its page: stopped after so many steps, or run to its end.

torchrun mace_job.py FOLDER STOP_AT
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from layouts.stubs import bare
from processes import leave
from recipe_jobs import note
from torch.nn.parallel import DistributedDataParallel

import globidx

EPOCHS, BATCH = 2, 6

# e3nn and the rest are of models, plots and files of other kinds
_UNUSED = ("e3nn", "e3nn.io", "torch_ema", "ase", "ase.data", "ase.io", "mace.data.atomic_data")
_PLOTS = ("mace.cli", "mace.cli.visualise_train")
with bare("mace", "mace.data", "mace.tools", absent=_UNUSED + _PLOTS):
    from mace.tools import checkpoint, default_keys, train, utils

    # what mace.data takes from mace.tools itself
    vars(sys.modules["mace.tools"]).update(vars(utils) | vars(default_keys))
    from mace.data.hdf5_dataset import HDF5Dataset
    from mace.tools.torch_geometric.data import Data
    from mace.tools.torch_geometric.dataloader import Collater


class Graph:
    """Graphs of what a file has, without the neighbours that mace looks for."""

    @staticmethod
    def from_config(config, **options):
        del options
        return Data(
            atoms=torch.tensor(len(config.positions)),
            energy=torch.tensor(config.properties["energy"]),
            id=torch.tensor(int(config.properties["id"])),
        )


class Stopped(BaseException):
    """What a time limit does."""


class Model(torch.nn.Module):
    """An energy for each atom; notes what it trains on, and stops."""

    def __init__(self, folder, sampler, stop_at):
        super().__init__()
        self.energy = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.folder, self.sampler, self.steps_left = folder, sampler, stop_at

    def forward(self, batch, training, **computed):
        del computed
        if training:
            if self.steps_left == 0:
                raise Stopped
            self.steps_left -= 1
            note(self.folder, self.sampler.rank, self.sampler.epoch, batch["id"].tolist())
        return {"energies": self.energy * batch["atoms"]}


def loss_fn(pred, ref):
    return (pred["energies"] - ref.energy).square().mean()


def main(folder, stop_at):
    is_distributed = dist.is_torchelastic_launched()
    if is_distributed:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if is_distributed else 0
    train_set, valid_set = (
        HDF5Dataset(folder / name, r_max=5.0, z_table=None, atomic_dataclass=Graph)
        for name in ("train.h5", "valid.h5")
    )
    collater = Collater([None], [None])
    valid_loader = torch.utils.data.DataLoader(valid_set, BATCH, collate_fn=collater)

    # as the page has it in run_train.py
    sampler = globidx.ResumableDistributedSampler(train_set, seed=123)
    loader = globidx.DataLoader(train_set, BATCH, sampler=sampler, collate_fn=collater)
    model = Model(folder, sampler, stop_at)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    state = checkpoint.CheckpointState(model, optimizer, scheduler)
    running = checkpoint.Running(folder / "run_running.pt", state, sampler)
    start_epoch = sampler.epoch if running.load("cpu") else 0
    try:
        train.train(
            model=model,
            loss_fn=loss_fn,
            train_loader=loader,
            valid_loaders={"Default": valid_loader},
            optimizer=optimizer,
            lr_scheduler=scheduler,
            start_epoch=start_epoch,
            max_num_epochs=EPOCHS,
            patience=100,
            checkpoint_handler=checkpoint.CheckpointHandler(str(folder / "best"), "run"),
            logger=utils.MetricsLogger(str(folder), f"log-{rank}"),
            eval_interval=1,
            output_args=dict.fromkeys(("forces", "virials", "stress"), False),
            device="cpu",
            log_errors="TotalRMSE",
            distributed=is_distributed,
            distributed_model=DistributedDataParallel(model) if is_distributed else None,
            train_sampler=sampler,
            running=running,
            rank=rank,
        )
    except Stopped:
        pass


main(Path(sys.argv[1]), int(sys.argv[2]))
leave()
