"""robomimic's training script, with the lines of its page, up to an epoch.

python robomimic_job.py FOLDER DEMOS EPOCHS
"""

import sys
from pathlib import Path

import torch
from recipe_jobs import note, without

with without("imageio", "matplotlib", "tensorboardX", "torchvision", "diffusers"):
    from robomimic.algo.bc import BC
    from robomimic.config import config_factory
    from robomimic.scripts.train import train
    from robomimic.utils import train_utils

folder, demos, epochs = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
their_batch = BC.process_batch_for_training


class Numbered(train_utils.SequenceDataset):
    """Samples that say which they are."""

    def __getitem__(self, index):
        return {**super().__getitem__(index), "id": index}


def noted_batch(self, batch):
    """Note the samples of a step, which is then theirs."""
    note(folder, 0, 0, batch["id"].tolist())
    return their_batch(self, batch)


def main():
    train_utils.SequenceDataset = Numbered
    BC.process_batch_for_training = noted_batch
    config = config_factory("bc")
    with config.values_unlocked():
        config.train.data, config.train.output_dir = demos, str(folder)
        config.train.batch_size, config.train.num_epochs = 12, epochs
        config.train.hdf5_cache_mode = None
        config.experiment.epoch_every_n_steps, config.experiment.validate = 4, False
        config.experiment.rollout.enabled = config.experiment.save.enabled = False
        config.experiment.logging.log_tb = False
        config.experiment.logging.terminal_output_to_txt = False
        config.observation.modalities.obs.low_dim = ["object"]
    train(config, torch.device("cpu"))


main()
