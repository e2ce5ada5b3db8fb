"""The rows of the matrix: frameworks, and the ways to go on with each."""

from typing import NamedTuple


class Row(NamedTuple):
    """A way to train and to resume.

    Attributes
    ----------
    framework : str
        As the page calls it.
    way : str
        Which function of which file of ``ways/`` trains: ``file.function``.
    label : str
        The way's name in the table.
    note : str
        What was done, in a line.
    even_batches : bool
        Whether the framework pads the last step of an epoch to whole batches on all ranks.
    """

    framework: str
    way: str
    label: str
    note: str
    even_batches: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether the samples are dealt by our sampler."""
        return self.way.endswith(".ours")

    def most_padding(self, ranks: int, batch: int) -> int:
        """The most samples that an epoch on so many ranks is padded by."""
        return ranks * (batch if self.even_batches else 1) - 1


ROWS = (
    Row(
        "a loop of your own",
        "own_loop.restart",
        "`DistributedSampler`, the epoch again",
        "the checkpoint has the epoch, as in torch's tutorials, and that epoch is begun anew",
    ),
    Row(
        "a loop of your own",
        "own_loop.skip",
        "`DistributedSampler`, skipping steps",
        "the checkpoint has epoch and step, and as many batches are skipped",
    ),
    Row(
        "a loop of your own",
        "own_loop.ours",
        "globidx: `DataLoader`, `CheckpointManager`",
        "the loop of the README",
    ),
    Row(
        "StatefulDataLoader",
        "torchdata.stock",
        "`StatefulDistributedSampler`",
        "each rank loads the state that it saved, a new rank that of rank 0; the checkpoint has the "
        "epoch, which the state lacks",
    ),
    Row(
        "StatefulDataLoader",
        "torchdata.ours",
        "globidx: `sampler=`, `commit`",
        "the loop reports each batch, and `CheckpointManager` keeps the record",
    ),
    Row(
        "DCP",
        "dcp.stock",
        "`StatefulDataLoader`",
        "loader, epoch and model in one `dcp.save`, over `StatefulDistributedSampler`",
    ),
    Row(
        "DCP",
        "dcp.ours",
        "globidx: `ResumableState(sampler)`",
        "the record is one entry of the state, in a loop over `globidx.DataLoader`",
    ),
    Row(
        "Lightning",
        "lightning.stock",
        "`DataLoader`",
        "`fit(ckpt_path=)` alone, over a loader with `shuffle=True`",
    ),
    Row(
        "Lightning",
        "lightning.stateful",
        "`StatefulDataLoader`",
        "Lightning saves and loads the state of torchdata's loader, which is over "
        "`StatefulDistributedSampler`",
    ),
    Row(
        "Lightning",
        "lightning.ours",
        "globidx: the callback",
        "`ResumableSamplerCallback(sampler)`",
    ),
    Row(
        "Fabric",
        "fabric.skip",
        "`setup_dataloaders`, skipping steps",
        "epoch and step are in `fabric.save`, and as many batches are skipped; Fabric's loader sets "
        "the epoch itself, from 0 after a load",
    ),
    Row(
        "Fabric",
        "fabric.stateful",
        "`StatefulDataLoader`",
        "epoch and loader are in `fabric.save`; the loader, over `StatefulDistributedSampler`, is "
        "left out of `setup_dataloaders`, and the loop sets the epoch",
    ),
    Row(
        "Fabric", "fabric.ours", "globidx: the sampler in `fabric.save`", "the same over our loader"
    ),
    Row(
        "Accelerate",
        "accelerate.skip",
        "`skip_first_batches`",
        "epoch and step are registered for checkpointing, the sampler is seedable, and the loader is "
        "prepared, as the guide has it",
        even_batches=True,
    ),
    Row(
        "Accelerate",
        "accelerate.stateful",
        "`use_stateful_dataloader=True`",
        "`load_state` loads the state of the prepared loader; the epoch is registered",
        even_batches=True,
    ),
    Row(
        "Accelerate",
        "accelerate.ours",
        "globidx: `prepare(accelerator, loader)`",
        "the same loop, and nothing is skipped",
    ),
    Row(
        "transformers",
        "transformers.stock",
        "`Trainer`",
        "`train(resume_from_checkpoint=True)`, which skips the steps done",
        even_batches=True,
    ),
    Row("transformers", "transformers.ours", "globidx: the mixin", "`ResumableTrainerMixin`"),
    Row(
        "Ignite",
        "ignite.stock",
        "`DeterministicEngine`",
        "`Checkpoint` saves and loads the engine, with the length of an epoch, and it skips the steps "
        "done; a handler sets the epoch of a `DistributedSampler`",
    ),
    Row(
        "Ignite",
        "ignite.ours",
        "globidx: the sampler in `Checkpoint`",
        "an `Engine` that is told what the record says, in steps of today",
    ),
)
#: Whose versions the page names.
PACKAGES = ("torch", "torchdata", "lightning", "accelerate", "transformers", "pytorch-ignite")
