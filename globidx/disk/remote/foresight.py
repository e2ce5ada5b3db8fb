"""What batches ask servers for, those that are read and those that come after them: asked for at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress

from globidx.disk.files import forks
from globidx.disk.remote.ahead import Ahead, Wish
from globidx.disk.remote.hands import Hands

Ids = tuple[int, ...]
#: Finds out what is asked for, each part of it before what follows from that; it may wait for servers.
Parts = Iterable[Sequence[Wish]]
#: By key, what a batch counts on finding decoded, and what would be asked for if it went.
Relied = dict[Hashable, Callable[[], Parts]]
#: Finds out what a batch asks for, and notes what it counts on.
Wishes = Callable[[Ids, Relied], Parts]


class Foresight:
    """Lets ``ahead`` fetch what batches need, planned by a thread of its own."""

    def __init__(self, ahead: Ahead) -> None:
        self.ahead = ahead
        self._start()
        forks.renew_in_child(self, Foresight._start)

    def tell(self, batches: Sequence[Sequence[int]], wishes: Wishes) -> None:
        """Learn which batches a loop of this thread reads, the first of them now; others are forgotten.

        What they need is found out and asked for meanwhile. The first may be empty: nothing is read
        here, but of what others read next to it.
        """
        self._expect(list(dict.fromkeys(map(tuple, batches))), wishes)

    def before(self, ids: Sequence[int], wishes: Wishes) -> None:
        """Have all asked for that the batch needs which this thread was told of, or else these ``ids`` do.

        They may be a part of that batch, as where a wrapper reads one after the other, also where it
        reads others between them.
        """
        plans = [self._plans[one] for one in self.ahead.now if one in self._plans]
        plan = next((one for one in plans if one.covers(ids)), None)
        if plan is None or plan.has_had(ids):
            self._expect([tuple(ids)], wishes, aside=len(ids))
            plan = self._plans.get(tuple(ids))
        else:
            self.ahead.go_on(plan.batch)
        if plan is not None:
            plan.complete()

    def gone(self, keys: Iterable[Hashable]) -> None:
        """Have asked for what was decoded when batches were planned that count on it, and has gone since."""
        with self._lock:
            plans = list(self._plans.values())
        for plan in plans:
            for again in plan.lost(keys):
                self._planner.put(_Loss(plan, again))

    def _expect(self, tickets: list[Ids], wishes: Wishes, *, aside: int | None = None) -> None:
        # at once, or another thread would find a batch expected that has no plan
        with self._lock:
            first = self._plans.get(tickets[0]) if tickets else None
            anew = first is not None and first.has_had(tickets[0])
            # of no ids there is nothing to find out
            unknown = set(self.ahead.expect(tickets, aside=aside, anew=anew)) - {()}
            new: dict[Hashable, _Plan] = {
                batch: _Plan(self.ahead, batch, wishes) for batch in tickets if batch in unknown
            }
            self._plans |= new
            for gone in self._plans.keys() - self.ahead.expected:
                del self._plans[gone]
        for plan in new.values():
            self._planner.put(plan)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._plans: dict[Hashable, _Plan] = {}
        self._planner = Hands(1)


class _Plan:
    """What a batch needs, found out by the planner, and once more by whoever reads it.

    What was decoded and kept when the planner looked may have gone since.
    """

    def __init__(self, ahead: Ahead, batch: Ids, wishes: Wishes) -> None:
        self._ahead, self.batch, self._wishes = ahead, batch, wishes
        self._members = frozenset(batch)
        self._lock = threading.Lock()
        self._is_made = self._is_complete = False
        self._relied: Relied = {}

    def covers(self, ids: Sequence[int]) -> bool:
        return self._members.issuperset(ids)

    def has_had(self, ids: Sequence[int]) -> bool:
        """Whether the whole batch was read before, which these ids are."""
        return self._is_complete and self.batch == tuple(ids)

    def make(self) -> None:
        # of a function of the user's, which is called once more where the sample is read
        with suppress(BaseException):
            self._make()

    def _make(self) -> None:
        with self._lock:
            if not self._is_made and self.batch in self._ahead.expected:
                self._is_made, since = True, self._ahead.taken
                for some in self._wishes(self.batch, self._relied):
                    self._ahead.want(self.batch, some, since=since)

    def lost(self, keys: Iterable[Hashable]) -> list[Callable[[], Parts]]:
        """What was counted on of these keys."""
        lost = [self._relied.pop(key, None) for key in keys] if self._relied else []
        return [again for again in lost if again is not None]

    def want_again(self, again: Callable[[], Parts]) -> None:
        """Want what was lost, unless whoever reads the batch has looked himself."""
        with self._lock:
            if not self._is_complete and self.batch in self._ahead.expected:
                since = self._ahead.taken
                for some in again():
                    self._ahead.want(self.batch, some, since=since, again=True)

    def complete(self) -> None:
        is_made = self._is_made
        self._make()
        with self._lock:
            if is_made and not self._is_complete and self.batch in self._ahead.expected:
                # the first part: to find out what follows takes pieces that the batch takes, too
                since = self._ahead.taken
                first = next(iter(self._wishes(self.batch, {})), ())
                self._ahead.want(self.batch, first, since=since, again=True)
            self._is_complete = True
            self._relied.clear()

    def drop(self) -> None:
        """Nothing: what is not planned ahead is planned when it is read."""


class _Loss:
    """Something that a batch counted on and that has gone."""

    def __init__(self, plan: _Plan, again: Callable[[], Parts]) -> None:
        self._plan, self._again = plan, again

    def make(self) -> None:
        with suppress(Exception):
            self._plan.want_again(self._again)

    def drop(self) -> None:
        """Nothing, as of a plan."""
