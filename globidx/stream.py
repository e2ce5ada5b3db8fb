"""Streams: iterable datasets that resume on any number of ranks and loader workers.

``GlobalStream`` is a map-style dataset for those who need an iterable one: each sample once, with
the order and the record of ``ResumableDistributedSampler``. ``ShardStream`` reads files of which
only whole ones can be divided, and goes on at file and row.
"""

from __future__ import annotations

from globidx.torch.streams.global_stream import GlobalStream
from globidx.torch.streams.shard_stream import ShardStream

__all__ = ["GlobalStream", "ShardStream"]
