"""Ranks that build an index together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from globidx.torch.ranks.agreement import Agreement


class RankPeers:
    """The ranks of a process group, each to look at a share of an index's files.

    ``GlobalIndexManager(files, peers=RankPeers())`` is then a collective: every rank calls it with the same files, and
    all have the same index afterwards, or all raise. ``group`` is the default process group unless one is given;
    without any, this process does it all. A rank that takes more than ``timeout`` seconds longer than the fastest is an
    error that names it.

    >>> peers = RankPeers()
    >>> peers.rank, peers.world_size, peers.gather(lambda: b"mine")
    (0, 1, [b'mine'])
    """

    def __init__(self, group: Any = None, *, timeout: float = 1800.0) -> None:
        self._agreement = Agreement(group, timeout, purpose="index")

    @property
    def rank(self) -> int:
        """This rank."""
        return self._agreement.rank

    @property
    def world_size(self) -> int:
        """How many ranks share the files."""
        return self._agreement.world_size

    def gather(self, work: Callable[[], bytes]) -> list[bytes]:
        """``work()`` of every rank, in rank order, on every rank; where any rank's raised, all raise."""
        with self._agreement.turn("index"):
            return self._agreement.shared(work)
