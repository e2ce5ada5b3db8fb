"""Streams: iterable datasets that resume on any number of ranks and loader workers.

``GlobalStream`` is a map-style dataset for those who need an iterable one: each sample once, with
the order and the record of ``ResumableDistributedSampler``.
"""

from __future__ import annotations

from globidx.torch.streams.global_stream import GlobalStream

__all__ = ["GlobalStream"]
