"""How batches get from loader workers to the training loop."""
