"""Metrics of samples: aggregations as values that merge, whatever the world size and the sequence of merges."""
