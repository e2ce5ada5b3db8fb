"""The lines of the page on PhysicsNeMo over its own loader, reader and checkpoints; killed behind 3 steps, or run to its end.

torchrun physicsnemo_job.py FOLDER [STOP]
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from processes import leave, meet
from recipe_jobs import bare, note, without

from globidx import ResumableDistributedSampler

bare("physicsnemo", "physicsnemo.core", "physicsnemo.datapipes", "physicsnemo.utils")
bare("physicsnemo.datapipes.readers", "physicsnemo.datapipes.transforms")
# models of this class are saved in another way; that of this job is none
sys.modules["physicsnemo.core"].Module = type("Module", (), {})
with without(
    "cloudpickle",
    "importlib_metadata",
    "omegaconf",
    "orjson",
    "requests",
    "s3fs",
    "treelib",
    "warp",
):
    from physicsnemo.datapipes.dataloader import DataLoader
    from physicsnemo.datapipes.dataset import Dataset
    from physicsnemo.datapipes.readers.zarr import ZarrReader
    from physicsnemo.distributed import DistributedManager
    from physicsnemo.utils.checkpoint import load_checkpoint, save_checkpoint

folder, stops = Path(sys.argv[1]), len(sys.argv) > 2
rank = int(os.environ.get("RANK", 0))
if "RANK" in os.environ:
    dist.init_process_group("gloo")
# their manager makes groups of GPUs alone: it finds one process, and this one writes as rank 0
for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
    os.environ.pop(name, None)
DistributedManager.initialize()

subsampling = {"n_points": 5, "target_keys": ["points"]}
reader = ZarrReader(folder / "runs", fields=["points"], coordinated_subsampling=subsampling)
train_dataset = Dataset(reader, device="cpu")
train_sampler = ResumableDistributedSampler(train_dataset, seed=7)
train_loader = DataLoader(
    train_dataset, batch_size=2, sampler=train_sampler, collate_metadata=True, seed=7
)
model = torch.nn.Linear(1, 1)
ckpt_args = {"path": str(folder / "checkpoints"), "models": model}


def save():
    if rank == 0:
        record = {"sampler": train_sampler.state_dict()}
        save_checkpoint(**ckpt_args, epoch=train_sampler.epoch, metadata=record)
    meet()


def main():
    metadata = {}
    load_checkpoint(**ckpt_args, metadata_dict=metadata)
    if metadata:
        train_sampler.load_state_dict(metadata["sampler"])
    # a rank that begins late must not load what rank 0 saves at the end of its first epoch
    meet()
    for epoch in range(train_sampler.epoch, 3):
        train_loader.set_epoch(epoch)
        for step, (batch, samples) in enumerate(train_loader, 1):
            # points of a random block are read: the same ones of a sample in an epoch, whoever reads it
            drawn = [float(points.sum()) for points in batch["points"]]
            note(folder, rank, epoch, [sample["index"] for sample in samples], drawn)
            train_sampler.commit(len(samples))
            if stops and epoch == 1 and step == 3:
                save()
                return
        save()


main()
leave()
