"""Doing a thing on all ranks or on none: what any rank raises, every rank raises, and nobody is left waiting.

A round is a row of numbers from every rank first (what it is doing, whether it can, how many bytes it brings), and
the bytes second. So a rank that failed is heard before anybody waits for its part, and ranks that do different things
find out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from globidx import errors
from globidx.errors import LostRankError, SaveError
from globidx.torch.ranks.siblings import Siblings
from globidx.torch.ranks.world import Channel, is_initialized

DOINGS = ("save", "restore", "wait", "should_stop", "index")
_FORMAT = 1
_MOST_BYTES = 2**30  # of all ranks together, as they come to lie in the memory of rank 0
_TOLD = ("field", "state")  # what an error says besides its message
_OTHERS = {"TypeError": TypeError, "ValueError": ValueError, "NotADirectoryError": NotADirectoryError}


class Agreement:
    """The ranks of ``group``, asked when they are first needed; what was begun ends within ``timeout`` seconds.

    A rank that does not come is waited for a little less than that: the rest is for the roll call that names it.
    Where several groups of a job agree under one ``name``, only one of them does what ``by_first`` asks for. What is
    done for one ``purpose`` is done in the same sequence on every rank; other purposes have connections of their own.
    """

    def __init__(self, group: Any, timeout: float, *, purpose: str, name: str = "") -> None:
        self._group = group
        self._purpose = purpose
        self._name = name
        self._siblings: Siblings | None = None
        self._timeout = timeout
        self._grace = min(1.0, timeout / 5)
        self._channel: Channel | None = None
        self._doing, self._over, self._until = "", "", 0.0
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
        return max(self._until - time.monotonic() - 2 * self._grace, 0.01)

    @contextmanager
    def turn(self, doing: str, what: str = "") -> Iterator[None]:
        """``doing`` within, one of ``DOINGS``, which every rank must do; its time starts.

        ``what`` tells it from others of its kind, the same on every rank: the step that is saved, say.
        """
        self._doing, self._over, self._until = doing, f"{doing} {what}".strip(), time.monotonic() + self._timeout
        self._has_met = False
        channel = self._reach()
        if not channel.take(self.patience):
            raise SaveError(
                f"{doing}() while something else with the same ranks is under way, in another thread or below this "
                "signal handler; make one after the other. Nothing was saved: not written"
            )
        try:
            yield
        finally:
            channel.release()

    def by_all(self, work: Callable[[], Any]) -> list[bytes]:
        """``work()`` of every rank, as JSON in rank order, on rank 0; nothing on the others.

        Where any rank's raised, all raise the same, naming the first such rank; a rank alone raises what it was.
        """
        told, error = _told(work)
        sizes = self._agreed(told, error, of_all=True)
        parts: list[bytes] = self._reached(
            lambda channel: _then_rest(channel, channel.collect(told, sizes) if any(sizes) else [])
        )
        return parts

    def shared(self, work: Callable[[], bytes]) -> list[bytes]:
        """``work()`` of every rank, in rank order, on every rank; where any rank's raised, all raise the same."""
        made: list[bytes] = []
        told, error = _told(lambda: made.append(work()))
        brought = made[0] if made else told
        sizes = self._agreed(brought, error, of_all=True)
        parts: list[bytes] = self._reached(lambda channel: _then_rest(channel, channel.share(brought, sizes)))
        return parts

    def by_first(
        self, work: Callable[[], Any], *, check: Callable[[Any], None] = lambda _: None, lost: str = ""
    ) -> Any:
        """``work()`` of rank 0, on every rank: JSON values. Where it raised, all raise.

        Of several groups one does it; rank 0 of each other one takes over what came of it, and raises what ``check``
        raises over that. Once in a turn. ``lost`` is what follows where a rank is lost: whether rank 0 has done it is
        not known then.
        """
        first = self._talk().rank == 0
        told, error = _told(lambda: self._here_or_elsewhere(work, check, lost)) if first else (b"", None)
        sizes = self._agreed(told, error, of_all=False, lost=lost)
        return json.loads(
            self._reached(lambda channel: _then_rest(channel, channel.spread(told, sizes[0])), lost=lost) or b"null"
        )

    def any(self, flag: bool) -> bool:
        """Whether any rank's flag is up, the same on every rank: one collective on one number, or none where alone."""
        return bool(self._reached(lambda channel: channel.greatest(int(flag))))

    def rest(self) -> None:
        """Nothing more will be agreed for now: the process may exit."""
        self._reached(lambda channel: channel.rest())

    # -- inside

    def _here_or_elsewhere(self, work: Callable[[], Any], check: Callable[[Any], None], lost: str) -> Any:
        """Rank 0 of a group: ``work()``, where it acts for all groups, or what came of it where another does."""
        if self._siblings is None:
            return work()
        if self._siblings.acts:
            told, error = _told(work)
            self._tell((b"=" if error is None else b"!") + told)
            if error is not None:
                raise error
            return json.loads(told or b"null")
        try:
            outcome = self._siblings.hear(0.8 * self.patience)
        except RuntimeError as error:
            raise self._lost([], error, lost, "nothing was heard of the group that acts for all groups") from None
        if outcome.startswith(b"!"):
            raise _raised(outcome[1:], "")
        value = json.loads(outcome[1:] or b"null")
        check(value)
        return value

    def _tell(self, outcome: bytes) -> None:
        """Tell other groups what came of this turn, if there are any and this one acts for them."""
        if self._siblings is not None and self._siblings.acts:
            self._siblings.tell(outcome)

    def _agreed(self, told: bytes, error: Exception | None, *, of_all: bool, lost: str = "") -> list[int]:
        """The sizes of what the ranks bring, once all said that they can; what is raised, is raised on all."""
        row = [_FORMAT, DOINGS.index(self._doing), int(error is not None), len(told)]
        rows = self._reached(lambda channel: channel.exchange(row), lost=lost)
        if error is not None and len(rows) == 1:
            if of_all:
                self._tell(b"!" + _spoken(error))
            raise error
        sizes = [size for _, _, _, size in rows]
        self._refuse_other_doings(rows)
        failed = [rank for rank, (_, _, has_failed, _) in enumerate(rows) if has_failed]
        if failed:
            messages = [size if rank in failed else 0 for rank, size in enumerate(sizes)]
            said = self._reached(
                lambda channel: _then_rest(channel, channel.share(told if error is not None else b"", messages)),
                lost=lost,
            )
            told_by = f"rank {failed[0]}: " if of_all else ""
            if of_all:  # other groups wait for what comes of this turn
                self._tell(b"!" + _spoken(_raised(said[failed[0]], told_by)))
            raise _raised(said[failed[0]], told_by) from error
        if max(sizes) * len(sizes) > _MOST_BYTES:
            raise SaveError(
                f"rank {sizes.index(max(sizes))} brings {max(sizes)} bytes, of {len(sizes)} ranks each may bring "
                f"{_MOST_BYTES // len(sizes)}; keep less in state_dict(). Nothing is saved: not written"
            )
        return sizes

    def _refuse_other_doings(self, rows: Sequence[Sequence[int]]) -> None:
        for rank, (format, doing, _, _) in enumerate(rows):
            if format != rows[0][0]:
                raise SaveError(f"rank {rank} runs another version of globidx than rank 0; install one version")
            if doing != rows[0][1]:
                raise SaveError(
                    f"rank {rank} called {DOINGS[doing]}() while rank 0 called {DOINGS[rows[0][1]]}(); every rank must "
                    "call the same, equally often"
                )

    def _reach(self) -> Channel:
        """The way to the other ranks, over which nothing has been sent yet."""
        channel = self._channel
        if channel is not None and not channel.is_alone and channel.is_stale:
            if self._group is not None or not is_initialized():
                raise SaveError(
                    "the process group that this talked over is destroyed; save before destroy_process_group, and "
                    "after another init_process_group make a new manager with the new group"
                )
            channel = None
        if channel is None or (channel.is_alone and is_initialized()):
            channel = Channel.of(self._purpose, self._group)
            self._siblings = None
        self._channel = channel
        return channel

    def _talk(self) -> Channel:
        """The way to the other ranks, which have met for this turn."""
        channel = self._reach()
        if not self._has_met:
            self._bounded(channel, lambda: self._meet(channel), "")
            self._has_met = True
            if self._siblings is None and channel.rank == 0:
                self._siblings = channel.siblings(self._name)
            if self._siblings is not None:
                self._siblings.begin(self._over)
        return channel

    def _meet(self, channel: Channel) -> None:
        # a question at each training step does without asking the store each time
        if not channel.meet(self._over, self.patience, look=self._doing != "should_stop"):
            told = LostRankError(
                f"{self._doing}: the other ranks have waited {self._timeout:g} seconds for this one, rank "
                f"{channel.rank}, and given up; raise timeout= if it may be that late. Nothing is saved: not written. "
                f"The next {self._doing}() finds them again"
            )
            told.ranks = (channel.rank,)
            raise told

    def _reached(self, talk: Callable[[Channel], Any], *, lost: str = "") -> Any:
        channel = self._talk()
        channel.limit(self.patience)
        return self._bounded(channel, lambda: talk(channel), lost)

    def _bounded(self, channel: Channel, talk: Callable[[], Any], lost: str) -> Any:
        try:
            return talk()
        except LostRankError:
            raise
        except RuntimeError as error:  # torch's DistError and gloo's own
            failure = error.with_traceback(None)  # whose frames hold the group, which has to go
        raise self._lost(channel.give_up(self._over, self._grace), failure, lost)

    def _lost(self, missing: list[int] | None, error: Exception, lost: str, who: str = "") -> LostRankError:
        if missing is None:
            who = "nor does the store by which the ranks found each other: it is gone, with its host"
        elif missing:
            who = f"missing: {'rank' if len(missing) == 1 else 'ranks'} {', '.join(map(str, missing))}"
        who = who or "all are there now, so one came too late, or a connection broke"
        told = LostRankError(
            f"{self._doing}: not all ranks answered within {self._timeout:g} seconds; {who}. One that is missing is "
            f"gone, stopped, or slower than that: raise timeout=, and call this on every rank. {lost}"
            f" ({type(error).__name__}: {str(error)[:200]})"
        )
        told.ranks = tuple(missing or ())
        if lost:
            told.state = "written, durability unknown"
        return told


def _then_rest(channel: Channel, result: Any) -> Any:
    channel.rest()
    return result


def _told(work: Callable[[], Any]) -> tuple[bytes, Exception | None]:
    """What ``work`` returned, as JSON (None is nothing at all), or what it raised, to be told, and that error."""
    try:
        value = work()
        return b"" if value is None else json.dumps(value).encode(), None
    except Exception as error:  # noqa: BLE001 - the other ranks must hear of it before it is raised
        return _spoken(error), error


def _spoken(error: Exception) -> bytes:
    more = {name: getattr(error, name) for name in _TOLD if isinstance(getattr(error, name, None), str)}
    return json.dumps({"error": type(error).__name__, "message": str(error)[:4000], **more}).encode()


def _raised(said: bytes, where: str) -> Exception:
    """The error that a rank told of: of the same class, as far as that takes one string; SaveError for any other."""
    told = json.loads(said)
    kind = getattr(errors, told["error"], None) or _OTHERS.get(told["error"])
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        kind = SaveError
    error = kind(where + told["message"])
    for name in _TOLD:
        if name in told:
            setattr(error, name, told[name])
    return error
