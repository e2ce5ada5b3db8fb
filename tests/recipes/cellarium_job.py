"""cellarium-ml's data module with the lines of its page, in a Trainer that stops after so many steps, or runs to its end.

torchrun cellarium_job.py FOLDER STOP_AT
"""

import os
import sys
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from processes import leave
from recipe_jobs import bare, note, without

# the rest of cellarium.ml is models, and of google a client of its cloud
bare("cellarium", "cellarium.ml", "cellarium.ml.core")
with without("google"):
    from cellarium.ml.core.datamodule import CellariumAnnDataDataModule
    from cellarium.ml.data import DistributedAnnDataCollection
    from cellarium.ml.utilities.data import AnnDataField, densify


class Model(lightning.LightningModule):
    """Notes the cells of each step: the first gene counts them."""

    def __init__(self, folder):
        super().__init__()
        self.layer, self.folder = torch.nn.Linear(4, 1), folder

    def training_step(self, batch, number):
        assert batch["var_names_g"].tolist() == ["0", "1", "2", "3"]
        note(self.folder, self.global_rank, self.current_epoch, batch["x_ng"][:, 0].int().tolist())
        return self.layer(batch["x_ng"]).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-9)


def main(folder, stop_at):
    files = sorted(map(str, folder.glob("*.h5ad")))
    fields = {
        "x_ng": AnnDataField(attr="X", convert_fn=densify),
        "var_names_g": AnnDataField(attr="var_names"),
    }
    data = CellariumAnnDataDataModule(
        DistributedAnnDataCollection(files, limits=[30, 72], max_cache_size=2),
        batch_keys=fields,
        batch_size=4,
        shuffle=True,
        train_size=60,
    )
    data.files = files
    last = folder / "last.ckpt"
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=int(os.environ.get("WORLD_SIZE", "1")),
        max_epochs=2,
        max_steps=stop_at,
        limit_val_batches=0,
        callbacks=[ModelCheckpoint(folder, "last", every_n_train_steps=3)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    resume = last if last.exists() else None
    # its hyperparameters, the fields, are in the checkpoint
    trainer.fit(Model(folder), datamodule=data, ckpt_path=resume, weights_only=False)


main(Path(sys.argv[1]), int(sys.argv[2]))
leave()
