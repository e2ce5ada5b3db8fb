"""The torch layer: sampler, loader, dataset and checkpoints, around the pure core."""
