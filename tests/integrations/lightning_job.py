"""A job of Lightning that writes which ids each rank has trained and validated on, a line a batch.

``python lightning_job.py FOLDER NAME=JSON ...`` under torchrun: one fit for each name.
"""

import json
import logging
import os
import sys
import warnings
from importlib import import_module
from pathlib import Path

import torch
from processes import leave

from globidx import DataLoader, ResumableDistributedSampler
from globidx.integrations.lightning import EpochCallback, ResumableSamplerCallback
from globidx.stream import GlobalStream, ShardStream

warnings.filterwarnings("ignore")


def make(name, **given):
    """Lightning by one of its two names, a module that notes ids, and what fit needs."""
    lightning = import_module(name)
    logging.getLogger(name).setLevel(logging.ERROR)

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.lr = 1e-6
            self.layer = torch.nn.Linear(1, 1)
            self.seen = []

        def note(self, kind, batch):
            self.seen.append([kind, self.current_epoch, batch.tolist()])

        def training_step(self, batch, index):
            if isinstance(batch, list):
                # of shards: rows with their places, the first number of which is the stream's epoch
                batch, places = batch
                for epoch in places[:, 0].unique().tolist():
                    self.seen.append(["row", epoch, batch[places[:, 0] == epoch].tolist()])
            self.note("train", batch)
            return self.layer(batch.float()[:, None]).mean()

        def validation_step(self, batch, index):
            self.note("sanity" if self.trainer.sanity_checking else "val", batch)

        def test_step(self, batch, index):
            self.note("test", batch)

        def on_train_batch_end(self, *_):
            stop = given.get("stop_at")
            if stop is not None and self.trainer.fit_loop.total_batch_idx + 1 == stop:
                self.trainer.save_checkpoint(given["save"])
                self.trainer.should_stop = True

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr)

    return lightning, Model()


def loaders(samples, batch, val, workers=0, tail=None):
    """The training loader and, for ``val`` samples, one of validation with an exact tail."""
    train = ResumableDistributedSampler(range(samples), seed=7, tail=tail)
    loader = DataLoader(
        range(samples), batch, sampler=train, num_workers=workers, persistent_workers=workers > 0
    )
    exact = ResumableDistributedSampler(range(val), shuffle=False, tail="exact") if val else None
    return train, loader, exact and DataLoader(range(val), 4, sampler=exact)


def streamed(kind, samples, batch, workers):
    """A stream that torch's loader reads: of samples, or of as many rows in 11 shards, without end."""
    if kind == "samples":
        stream = GlobalStream(range(samples), seed=7)
    else:
        shards = [str(number) for number in range(11)]
        stream = ShardStream(
            shards,
            lambda shard: range(int(shard), samples, 11),
            seed=7,
            infinite=kind == "rows",
        )
    return EpochCallback(stream), torch.utils.data.DataLoader(stream, batch, num_workers=workers)


def fit(folder, leg, **given):
    """Train as ``given`` says."""
    lightning, model = make(given.get("name", "lightning.pytorch"), **given)
    sampler, loader, val = loaders(
        given.get("samples", 203),
        given.get("batch", 4),
        given.get("val", 0),
        given.get("workers", 0),
        given.get("tail"),
    )
    callback = ResumableSamplerCallback(sampler)
    if "stream" in given:
        batch, workers = given.get("batch", 4), given.get("workers", 0)
        callback, loader = streamed(given["stream"], given.get("samples", 203), batch, workers)
    keep = []
    if "kept" in given:
        path = Path(given["save"])
        keep = [
            lightning.callbacks.ModelCheckpoint(
                path.parent, path.stem, save_on_train_epoch_end=given["kept"]
            )
        ]
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=int(os.environ["WORLD_SIZE"]),
        strategy="ddp",
        callbacks=[callback, *keep],
        enable_checkpointing=bool(keep),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **given["trainer"],
    )
    trainer.fit(model, loader, val, ckpt_path=given.get("resume"))
    rank = trainer.global_rank
    Path(folder, f"seen-{leg}-{rank}.json").write_text(json.dumps(model.seen))


if __name__ == "__main__":
    for fits in sys.argv[2:]:
        leg, _, text = fits.partition("=")
        fit(sys.argv[1], leg, **json.loads(text))
    leave()
