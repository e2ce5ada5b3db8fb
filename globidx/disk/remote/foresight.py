"""What the batch that is read asks servers for, and those that come after it: asked for ahead of time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from globidx.disk.files import forks
from globidx.disk.remote.ahead import Ahead, Wish
from globidx.disk.remote.hands import Hands

Ids = tuple[int, ...]
#: Finds out what a batch asks for; it may wait for servers, and raises nothing.
Wishes = Callable[[Ids], list[Wish]]


class Foresight:
    """Lets ``ahead`` fetch what batches need, planned by a thread of its own."""

    def __init__(self, ahead: Ahead) -> None:
        self.ahead = ahead
        self._start()
        forks.renew_in_child(self, Foresight._start)

    def before(self, ids: Sequence[int], wishes: Wishes) -> None:
        """Ask for all that the batch of ``ids`` needs at once, and then for what those after it do.

        ``ids`` may know the latter, as ``coming``.
        """
        batches = list(dict.fromkeys([tuple(ids), *map(tuple, getattr(ids, "coming", ()))]))
        # under one lock: a batch that another thread has expected has its plan
        with self._lock:
            unknown = set(self.ahead.expect(batches))
            new = {batch: _Plan(self.ahead, batch, wishes) for batch in batches if batch in unknown}
            self._plans |= new
            for gone in self._plans.keys() - self.ahead.expected:
                del self._plans[gone]
            plan = self._plans.get(batches[0])
        for batch in batches[1:]:
            if batch in new:
                self._planner.put(new[batch])
        if plan is not None:
            plan.make(first=True)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._plans: dict[Ids, _Plan] = {}
        self._planner = Hands(1)


class _Plan:
    """What a batch needs, found out once: by the planner, or by whoever reads it before."""

    def __init__(self, ahead: Ahead, batch: Ids, wishes: Wishes) -> None:
        self._ahead, self._batch, self._wishes = ahead, batch, wishes
        self._lock, self._is_made = threading.Lock(), False

    def make(self, *, first: bool = False) -> None:
        with self._lock:
            if not self._is_made and self._batch in self._ahead.expected:
                self._is_made = True
                self._ahead.want(self._batch, self._wishes(self._batch), first=first)

    def drop(self) -> None:
        pass
