"""What a training script puts together of sampler, loader, records and guard, in one call."""
