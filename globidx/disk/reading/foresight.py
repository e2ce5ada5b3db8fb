"""What a batch will ask servers for, and those that come after it: asked for before they are read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain

from globidx.disk.files import forks
from globidx.disk.files.lru import HandleCache
from globidx.disk.index.snapshot import Snapshot
from globidx.disk.reading.batch import Batch, FieldSpec, Need
from globidx.disk.reading.open_file import OpenFile
from globidx.disk.reading.sources import FarSource
from globidx.disk.remote.ahead import Wish
from globidx.disk.remote.hands import Hands
from globidx.disk.remote.line import Line
from globidx.disk.stores import base as stores

Ids = tuple[int, ...]


class Foresight:
    """Plans batches of a reader, by a thread of its own, and lets its line fetch what they need.

    ``batch`` makes the plan of some ids. Errors are left to be told by whoever reads the batch.
    """

    def __init__(
        self,
        line: Line,
        handles: HandleCache[tuple[Snapshot, int], OpenFile],
        fields: Sequence[FieldSpec],
    ) -> None:
        self._line, self._handles, self._fields = line, handles, fields
        self._start()
        forks.renew_in_child(self, Foresight._start)

    def before(self, ids: Sequence[int], batch: Callable[[Ids], Batch], now: Snapshot) -> None:
        """Ask for all that a batch of ``ids`` needs at once, and then for what those after it do.

        ``ids`` may know the latter, as ``coming``.
        """
        tickets = list(dict.fromkeys([tuple(ids), *map(tuple, getattr(ids, "coming", ()))]))
        unknown = set(self._line.ahead.expect(tickets))
        new = {ids_of: _Plan(self, ids_of, batch, now) for ids_of in tickets if ids_of in unknown}
        with self._lock:
            self._plans |= new
            for gone in self._plans.keys() - self._line.ahead.expected:
                del self._plans[gone]
            plan = self._plans.get(tickets[0])
        for ids_of in tickets[1:]:
            if ids_of in new:
                self._planner.put(new[ids_of])
        if plan is not None:
            plan.make(first=True)

    def _wish(self, batch: Batch, now: Snapshot) -> list[Wish]:
        """What a batch asks servers for, its files opened at the same time."""
        needs = list(batch.needs(self._fields))
        files = dict.fromkeys(need.file for need in needs)

        def opened(file: int) -> None:
            with suppress(*stores.UNREADABLE), self._handles.use((now, file)):
                pass

        self._line.map(opened, list(files))
        found: list[list[Wish]] = [[] for _ in needs]
        waits = []
        for place, need in enumerate(needs):
            with suppress(*stores.UNREADABLE), self._handles.use((now, need.file)) as file:
                source = _source(file, need)
                if isinstance(source, FarSource):
                    if source.waits:
                        waits.append((place, source, need))
                    else:
                        found[place] = source.pieces(need.start, need.stop)

        def looked_up(one: tuple[int, FarSource, Need]) -> None:
            place, source, need = one
            found[place] = source.pieces(need.start, need.stop)

        self._line.map(looked_up, waits)
        return list(chain.from_iterable(found))

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._plans: dict[Ids, _Plan] = {}
        self._planner = Hands(1)


def _source(file: OpenFile, need: Need) -> object:
    column, selection = need.field.column, need.field.selection
    if selection is None:
        return file.source(column, need.number)
    return file.part(column, need.number, selection)


class _Plan:
    """What a batch needs, found out once: by the planner, or by whoever reads it before."""

    def __init__(
        self, foresight: Foresight, ids: Ids, batch: Callable[[Ids], Batch], now: Snapshot
    ) -> None:
        self._foresight, self._ids = foresight, ids
        self._batch, self._now = batch, now
        self._lock, self._is_made = threading.Lock(), False

    def make(self, *, first: bool = False) -> None:
        with self._lock:
            if self._is_made:
                return
            self._is_made = True
            foresight = self._foresight
            with suppress(*stores.UNREADABLE, IndexError):
                wishes = foresight._wish(self._batch(self._ids), self._now)
                foresight._line.ahead.want(self._ids, wishes, first=first)

    def drop(self) -> None:
        pass
