"""Ranks that build an index together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from globidx.torch.ranks.agreement import Agreement


class RankPeers:
    """The ranks of a process group, each of which scans a share of an index's files.

    ``GlobalIndexManager(files, peers=RankPeers())`` is then a collective: every rank calls it with
    the same files, and all have the same index afterwards, or all raise.

    Parameters
    ----------
    group : ProcessGroup, optional
        The ranks that share the work, by default those of the default process group. Without any
        process group this process does it all.
    timeout : float, default 1800.0
        Seconds that the slowest rank may take longer than the fastest.

    Examples
    --------
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
        """Collect the result of every rank's work. Collective.

        Parameters
        ----------
        work : callable
            Called without arguments; returns bytes.

        Returns
        -------
        list of bytes
            In rank order, on every rank.

        Raises
        ------
        Exception
            On every rank, if any rank's work raised; the message names the rank.
        globidx.errors.LostRankError
            If a rank did not come within the timeout; ``ranks`` names it.

        Examples
        --------
        >>> RankPeers().gather(lambda: b"files 0 to 9")
        [b'files 0 to 9']
        """
        with self._agreement.turn("index"):
            return self._agreement.all_gather(work)
