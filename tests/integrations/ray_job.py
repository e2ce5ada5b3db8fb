"""A job of Ray Train, as docs/howto/trainers/ray.md has it, that is saved on two workers and resumed.

python ray_job.py FOLDER
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import ray
import ray.train.torch
from integrations.legs import BATCH, EPOCHS, SAMPLES, STOP_AT, Seen
from ray.train import Checkpoint, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from globidx import DataLoader, ResumableDistributedSampler


def train(config):
    """The loop of a worker."""
    rank = ray.train.get_context().get_world_rank()
    seen = Seen(config["folder"], int(config["stop_at"] is None), rank)
    sampler = ResumableDistributedSampler(range(SAMPLES), seed=7)
    loader = DataLoader(range(SAMPLES), BATCH, sampler=sampler, device=ray.train.torch.get_device())
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            sampler.load_state_dict(json.loads(Path(folder, "sampler.json").read_text()))

    for epoch in range(sampler.epoch, EPOCHS):
        for ids in loader:
            seen.note(epoch, ids)
            if seen.steps == config["stop_at"]:
                with tempfile.TemporaryDirectory() as folder:
                    record = json.dumps(sampler.state_dict())
                    Path(folder, "sampler.json").write_text(record)
                    whole = Checkpoint.from_directory(folder) if rank == 0 else None
                    ray.train.report({}, checkpoint=whole)
                return


def leg(ranks, folder, stop_at):
    """Train on so many workers; a run of the same name and path goes on from its last checkpoint."""
    TorchTrainer(
        train,
        train_loop_config={"folder": str(folder), "stop_at": stop_at},
        scaling_config=ScalingConfig(num_workers=ranks, resources_per_worker={"CPU": 0.1}),
        run_config=RunConfig(name="run", storage_path=str(folder)),
    ).fit()


if __name__ == "__main__":
    saved = Path(sys.argv[1], "saved")
    saved.mkdir()
    # sockets' paths are short
    with tempfile.TemporaryDirectory(prefix="ray") as session:
        ray.init(num_cpus=4, include_dashboard=False, _temp_dir=session)
        leg(2, saved, STOP_AT)
        for ranks in (1, 2, 3):
            leg(ranks, shutil.copytree(saved, Path(sys.argv[1], str(ranks))), None)
        ray.shutdown()
