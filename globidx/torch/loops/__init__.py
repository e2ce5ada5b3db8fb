"""The loop over a loader: which batch it holds, which loop counts, and whether it was left."""
