"""What batches ask servers for, those that are read and those that come after them: asked for at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from globidx.disk.files import forks
from globidx.disk.remote.ahead import Ahead, Wish
from globidx.disk.remote.hands import Hands

Ids = tuple[int, ...]
#: Finds out what is asked for, each part of it before what follows from that; it may wait for servers.
Parts = Iterable[Sequence[Wish]]
#: Notes that what has this key is counted on, and what would find out what to ask for if it went.
Rely = Callable[[Hashable, "Again"], object]
Again = Callable[[Rely], Parts]
#: Finds out what a batch asks for, and notes what it counts on.
Wishes = Callable[[Ids, Rely], Parts]


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
            lost = [plans for key in keys if (plans := self._relied.pop(key, None))]
        for plans in lost:
            self._planner.put(_Loss(self, plans))

    def rely(self, plans: Iterable[_Plan], key: Hashable, again: Again) -> None:
        """Note that plans, as far as they are expected, count on what has this key."""
        with self._lock:
            for plan in plans:
                if self._plans.get(plan.batch) is plan:
                    self._relied.setdefault(key, {})[plan] = again
                    plan.relied.add(key)

    def _expect(self, tickets: list[Ids], wishes: Wishes, *, aside: int | None = None) -> None:
        # at once, or another thread would find a batch expected that has no plan
        with self._lock:
            first = self._plans.get(tickets[0]) if tickets else None
            anew = first is not None and first.has_had(tickets[0])
            # of no ids there is nothing to find out
            unknown = set(self.ahead.expect(tickets, aside=aside, anew=anew)) - {()}
            new: dict[Hashable, _Plan] = {
                batch: _Plan(self, batch, wishes) for batch in tickets if batch in unknown
            }
            for gone in (self._plans.keys() - self.ahead.expected) | new.keys():
                self._forget(self._plans.pop(gone, None))
            self._plans |= new
        for plan in new.values():
            self._planner.put(plan)

    def _forget(self, plan: _Plan | None) -> None:
        if plan is None:
            return
        for key in plan.relied:
            plans = self._relied.get(key, {})
            plans.pop(plan, None)
            if not plans:
                self._relied.pop(key, None)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._plans: dict[Hashable, _Plan] = {}
        #: By key, the plans that count on it.
        self._relied: dict[Hashable, dict[_Plan, Again]] = {}
        self._planner = Hands(1)


class _Plan:
    """What a batch needs, found out by the planner, and once more by whoever reads it.

    What was decoded and kept when the planner looked may have gone since.
    """

    def __init__(self, foresight: Foresight, batch: Ids, wishes: Wishes) -> None:
        self._ahead, self.batch, self._wishes = foresight.ahead, batch, wishes
        self._rely = partial(foresight.rely, [self])
        #: The keys that it counts on, or has.
        self.relied: set[Hashable] = set()
        self._members = frozenset(batch)
        self._lock = threading.Lock()
        self._is_made = self._is_complete = False

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
                for some in self._wishes(self.batch, self._rely):
                    self._ahead.want(self.batch, some, since=since)

    def want_again(self, wishes: Sequence[Wish], since: int) -> None:
        """Want what was lost, unless whoever reads the batch has looked himself."""
        with self._lock:
            if not self._is_complete:
                self._ahead.want(self.batch, wishes, since=since, again=True)

    def complete(self) -> None:
        is_made = self._is_made
        self._make()
        with self._lock:
            if is_made and not self._is_complete and self.batch in self._ahead.expected:
                # the first part: to find out what follows takes pieces that the batch takes, too
                since = self._ahead.taken
                first = next(iter(self._wishes(self.batch, _Plan._ignore)), ())
                self._ahead.want(self.batch, first, since=since, again=True)
            self._is_complete = True

    @staticmethod
    def _ignore(key: Hashable, again: Again) -> None:
        """It is read now."""

    def drop(self) -> None:
        """Nothing: what is not planned ahead is planned when it is read."""


class _Loss:
    """Something that has gone, and the plans that counted on it."""

    def __init__(self, foresight: Foresight, plans: Mapping[_Plan, Again]) -> None:
        self._foresight, self._plans = foresight, plans

    def make(self) -> None:
        # as where a plan is made
        with suppress(BaseException):
            ahead = self._foresight.ahead
            expected, since = ahead.expected, ahead.taken
            coming = [plan for plan in self._plans if plan.batch in expected]
            if not coming:
                return
            # one look for all: it may have been decoded again
            again = self._plans[coming[0]]
            for some in again(partial(self._foresight.rely, coming)):
                for plan in coming:
                    plan.want_again(some, since)

    def drop(self) -> None:
        """Nothing, as of a plan."""
