"""The loop over a loader: which loop counts, which batch it holds, and whether it was abandoned."""
