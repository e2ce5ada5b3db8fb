"""A leg of a run, as its ranks see it: from the start to the save, or from the checkpoint to the end."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

SAMPLES, BATCH, EPOCHS, SEED = 203, 5, 4, 7
#: The save comes after so many batches of an epoch that is neither the first nor the last.
SAVED_EPOCH, SAVED_STEP = 1, 9


class Leg:
    """What a way of training is given.

    Attributes
    ----------
    checkpoint : Path
        A folder for what is saved, which all ranks share; that of the first leg, if this one resumes.
    rank, world_size : int
        This rank, and how many there are.
    resumes : bool
        Whether to go on from the checkpoint.
    is_over : bool
        Whether the ranks are to save now, and to stop; True on all of them after the same step.
    """

    def __init__(self, checkpoint: Path, seen: Path, resumes: bool) -> None:
        self.checkpoint, self.resumes = checkpoint, resumes
        self.rank, self.world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.is_over = False
        self._seen = seen / f"{self.rank}.jsonl"
        self._to_save = SAVED_STEP

    def saw(self, epoch: int, ids: Iterable[float]) -> bool:
        """Write down the samples of a step, and return ``is_over``."""
        with self._seen.open("a") as lines:
            lines.write(json.dumps([epoch, [int(id) for id in ids]]) + "\n")
        if epoch == SAVED_EPOCH and not self.resumes:
            self._to_save -= 1
            self.is_over = self._to_save == 0
        return self.is_over
