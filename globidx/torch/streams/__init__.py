"""Streams: iterable datasets with the order and the record of a sampler."""
