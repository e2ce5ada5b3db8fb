"""Doing something on all ranks or on none.

What any rank raises, every rank raises, and no rank is left waiting.

A round is first a row of integers from every rank (what it calls, whether it failed, how many bytes
it brings), and then the bytes. So the other ranks learn that a rank failed before they wait for its
bytes, and ranks that call different things notice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from globidx.errors import LostRankError, SaveError
from globidx.torch.ranks import outcome
from globidx.torch.ranks.channel import Channel
from globidx.torch.ranks.outcome import Outcome, outcome_of
from globidx.torch.ranks.world import is_initialized

# what all ranks may call together; a row carries the index
CALLS = ("save", "restore", "wait", "should_stop", "index", "get_metrics")
_FORMAT = 1
# of all ranks together, because rank 0 holds them in memory at once
_MOST_BYTES = 2**30


class Agreement:
    """The ranks of ``group``, resolved when they are first needed.

    A call ends within ``timeout`` seconds.

    A rank that does not come is waited for a little less than that: the rest is for the roll call
    that names it. All ranks make the calls of one ``purpose`` in the same sequence; other purposes
    have connections of their own.
    """

    def __init__(self, group: Any, timeout: float, *, purpose: str) -> None:
        if not isinstance(timeout, (int, float)) or not timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds, got {timeout!r}")
        self._group = group
        self._purpose = purpose
        self._timeout = timeout
        # seconds for the roll call
        self._grace = min(1.0, timeout / 5)
        self._channel: Channel | None = None
        self._call = self._subject = ""
        self._deadline = 0.0
        self._has_met = False

    @property
    def rank(self) -> int:
        """This rank."""
        return self._reach().rank

    @property
    def world_size(self) -> int:
        """How many ranks agree."""
        return self._reach().world_size

    @property
    def patience(self) -> float:
        """Seconds that are left for waiting."""
        # twice, since the roll call may take half as long again (`Channel.give_up`)
        return max(self._deadline - time.monotonic() - 2 * self._grace, 0.01)

    @contextmanager
    def turn(self, call: str, what: str = "") -> Iterator[None]:
        """Make a call, one of ``CALLS``, which every rank must make; its time starts.

        ``what`` tells it from others of its kind and is the same on every rank: the step that is
        saved, say.
        """
        self._call, self._subject = call, f"{call} {what}".strip()
        self._deadline = time.monotonic() + self._timeout
        self._has_met = False
        channel = self._reach()
        # a handler below a save would wait for the very call that it interrupted
        if not channel.take(self.patience):
            raise SaveError(
                f"{call}() while another call with the same ranks is under way, in another thread "
                "or below this signal handler; make one call after the other. Nothing was saved: "
                "not written"
            )
        try:
            yield
        finally:
            channel.release()

    def gather(self, work: Callable[[], Any]) -> list[bytes]:
        """``work()`` of every rank, as JSON in rank order, on rank 0; an empty list on the others.

        Where any rank's work raised, all raise the same error, naming the first such rank.
        """
        mine = outcome_of(work)
        sizes = self._sizes(mine, of_all=True)
        parts: list[bytes] = self._communicate(
            lambda channel: _then_barrier(
                channel, channel.gather(mine.payload, sizes) if any(sizes) else []
            )
        )
        return parts

    def all_gather(self, work: Callable[[], bytes]) -> list[bytes]:
        """``work()`` of every rank, in rank order, on every rank.

        Where any rank's raised, all raise the same.
        """
        # bytes go as they are; an outcome would make JSON of them
        made: list[bytes] = []
        mine = outcome_of(lambda: made.append(work()))
        if made:
            mine = Outcome(made[0])
        sizes = self._sizes(mine, of_all=True)
        parts: list[bytes] = self._communicate(
            lambda channel: _then_barrier(channel, channel.all_gather(mine.payload, sizes))
        )
        return parts

    def broadcast(self, work: Callable[[], Any], *, lost: str = "") -> Any:
        """``work()`` of rank 0, on every rank: JSON values. Where it raised, all raise.

        ``lost`` is added to the error if a rank is lost: it is not known then whether rank 0 has
        done the work.
        """
        mine = outcome_of(work) if self._talk().rank == 0 else Outcome(b"")
        sizes = self._sizes(mine, of_all=False, lost=lost)
        result = self._communicate(
            lambda channel: _then_barrier(channel, channel.broadcast(mine.payload, sizes[0])),
            lost=lost,
        )
        return json.loads(result or b"null")

    def any(self, flag: bool) -> bool:
        """Whether any rank's flag is set, by one all_reduce; the same answer on every rank."""
        return bool(self._communicate(lambda channel: channel.all_reduce_max(int(flag))))

    def barrier(self) -> None:
        """Wait for all ranks after the last collective for now, so that the process may exit."""
        self._communicate(lambda channel: channel.barrier())

    # -- inside

    def _sizes(self, mine: Outcome, *, of_all: bool, lost: str = "") -> list[int]:
        """How many bytes each rank brings; if any rank failed, all raise its error."""
        # before any payload, so that whoever failed is heard before anybody waits for its part
        row = [_FORMAT, CALLS.index(self._call), int(mine.error is not None), len(mine.payload)]
        rows = self._communicate(lambda channel: channel.all_gather_row(row), lost=lost)
        # one rank alone raises its own error, with its traceback
        if mine.error is not None and len(rows) == 1:
            raise mine.error
        self._refuse_other_calls(rows)
        failed = [rank for rank, (_, _, has_failed, _) in enumerate(rows) if has_failed]
        sizes = [size for _, _, _, size in rows]
        if failed:
            self._raise_of(failed, sizes, mine, of_all=of_all, lost=lost)
        # before anything is allocated for what another rank says it brings
        if max(sizes) * len(sizes) > _MOST_BYTES:
            raise SaveError(
                f"rank {sizes.index(max(sizes))} brings {max(sizes)} bytes, of {len(sizes)} ranks "
                f"each may bring {_MOST_BYTES // len(sizes)}; keep less in state_dict(). Nothing "
                "is saved: not written"
            )
        return sizes

    def _raise_of(
        self, failed: Sequence[int], sizes: Sequence[int], mine: Outcome, *, of_all: bool, lost: str
    ) -> None:
        """Raise the error of the first rank that failed."""
        lengths = [size if rank in failed else 0 for rank, size in enumerate(sizes)]
        payload = mine.payload if mine.error is not None else b""
        payloads = self._communicate(
            lambda channel: _then_barrier(channel, channel.all_gather(payload, lengths)), lost=lost
        )
        # in a broadcast only rank 0 does the work, and nobody asks whose error it is
        prefix = f"rank {failed[0]}: " if of_all else ""
        raise outcome.decode(payloads[failed[0]], prefix) from mine.error

    def _refuse_other_calls(self, rows: Sequence[Sequence[int]]) -> None:
        first_format, first_call, *_ = rows[0]
        for rank, (format, call, _, _) in enumerate(rows):
            if format != first_format:
                raise SaveError(
                    f"rank {rank} runs another version of globidx than rank 0; install one version"
                )
            if call != first_call:
                raise SaveError(
                    f"rank {rank} called {CALLS[call]}() while rank 0 called "
                    f"{CALLS[first_call]}(); every rank must make the same calls, equally often"
                )

    def _reach(self) -> Channel:
        """The channel to the other ranks, on which nothing was sent yet."""
        channel = self._channel
        # a manager may be older than the process group, or outlive it
        if channel is not None and not channel.is_alone and channel.is_stale:
            if self._group is not None or not is_initialized():
                raise SaveError(
                    "the process group of these ranks was destroyed; save before "
                    "destroy_process_group, and after another init_process_group make a new "
                    "manager with the new group"
                )
            channel = None
        if channel is None or (channel.is_alone and is_initialized()):
            channel = Channel.of(self._purpose, self._group)
        self._channel = channel
        return channel

    def _talk(self) -> Channel:
        """The channel to the other ranks, which have met for this turn."""
        channel = self._reach()
        if not self._has_met:
            # once a turn: all rounds of a call are between ranks that have met for it
            self._bounded(channel, lambda: self._meet(channel), "")
            self._has_met = True
        return channel

    def _meet(self, channel: Channel) -> None:
        # should_stop is called at each training step, and does without asking the store each time
        if not channel.meet(self._subject, self.patience, look=self._call != "should_stop"):
            late = LostRankError(
                f"{self._call}: the other ranks have waited {self._timeout:g} seconds for this "
                f"one, rank {channel.rank}, and given up; raise timeout= if it may be that late. "
                f"Nothing is saved: not written. The next {self._call}() meets them again"
            )
            late.ranks = (channel.rank,)
            raise late

    def _communicate(self, talk: Callable[[Channel], Any], *, lost: str = "") -> Any:
        channel = self._talk()
        channel.limit(self.patience)
        return self._bounded(channel, lambda: talk(channel), lost)

    def _bounded(self, channel: Channel, talk: Callable[[], Any], lost: str) -> Any:
        try:
            return talk()
        except LostRankError:
            raise
        # torch's DistError and gloo's own errors
        except RuntimeError as error:
            # its frames hold the process group, which must be freed
            failure = error.with_traceback(None)
        # outside of the handler, so that its frames are gone when the connections are closed
        raise self._lost(channel.give_up(self._subject, self._grace), failure, lost)

    def _lost(self, missing: list[int] | None, error: Exception, lost: str) -> LostRankError:
        if missing is None:
            who = (
                "nor does the store by which the ranks found each other: it is gone, with its host"
            )
        elif missing:
            noun = "rank" if len(missing) == 1 else "ranks"
            who = f"missing: {noun} {', '.join(map(str, missing))}"
        else:
            who = "all are there now, so one came too late, or a connection broke"
        loss = LostRankError(
            f"{self._call}: not all ranks answered within {self._timeout:g} seconds; {who}. A "
            "missing rank has died, is stopped, or is slower than that: raise timeout=, and call "
            f"this on every rank. {lost} ({type(error).__name__}: {str(error)[:200]})"
        )
        loss.ranks = tuple(missing or ())
        if lost:
            loss.state = "written, durability unknown"
        return loss


def _then_barrier(channel: Channel, result: Any) -> Any:
    channel.barrier()
    return result
