"""The main process's side of slots: it lends out what workers have filled, as long as it is used.

A *block* is the buffer of a slot for one batch. All tensors of the batch are made over it, so it
lives until the last of them is freed, with the views, numpy arrays and graphs that have a part of
them. Then the slot is given back to its worker.

A forked child has all tensors of its parent, and gives nothing back: it makes copies of what it has
of slots. Its parent waits for that, and frees no slot meanwhile.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Protocol
from weakref import ReferenceType, WeakValueDictionary, ref

from globidx.disk.files.living import alive
from globidx.torch.delivery.mapping import Mapping
from globidx.torch.delivery.slots import FREE, SlotFile

#: How long a fork waits for its child, in seconds. A child that takes longer was stopped, or ended
#: in a way that no end of file tells.
_COPY_SECONDS = 30.0
#: When a fork's handlers are surely over, in seconds.
_MOMENT_SECONDS = 0.05

_keys = itertools.count()
_lenders: WeakValueDictionary[int, Lender] = WeakValueDictionary()


class Pins(Protocol):
    """What makes memory such that a device can copy it by itself."""

    def pin(self, mapping: Mapping) -> None:
        """Pin it until it is unmapped, if that is possible."""


class Lender:
    """The slots of the workers of one iterator, in the main process.

    Parameters
    ----------
    file : SlotFile
        The slots.
    pins : Pins, optional
        What pins them.

    Attributes
    ----------
    key : int
        By which ``lent`` finds it.
    """

    def __init__(self, file: SlotFile, pins: Pins | None = None) -> None:
        self.file, self._pins, self._states = file, pins, file.states
        self.key = next(_keys)
        self._mappings: dict[int, Mapping] = {}
        self._held: dict[int, ReferenceType[Any]] = {}
        self._returns: deque[int] = deque()
        # not by its name: names of a module are gone when the interpreter ends
        self._forks = _Fork
        # not of this object: a bound method would keep it alive
        self._give_back: Callable[[Lender, int], None] = Lender._free
        _lenders[self.key] = self

    def lend(self, slot: int, size: int) -> Any:
        """A block of the first bytes of a slot, at least ``size``, that a worker has filled."""
        mapping = self._mappings.get(slot)
        if mapping is None or mapping.size < size:
            mapping = self._mappings[slot] = self.file.map(slot, size)
            if self._pins is not None:
                self._pins.pin(mapping)
        block = mapping.block()
        # A lender whose iterator is gone is in no more than a cycle with its weak references, and a
        # fork would not find the blocks of one that was collected.
        block.lender = self
        self._held[slot] = ref(block, partial(self._returned, slot))
        return block

    @property
    def held(self) -> list[int]:
        """Which slots are used now."""
        return sorted(self._held)

    def close(self) -> None:
        """Free all memory that is not used, and the rest when it no longer is.

        The workers have ended.
        """
        if self._give_back is _keep:
            return
        self._give_back = Lender._end
        for slot in set(range(len(self._states))) - set(self._held):
            self._end(slot)

    def _free(self, slot: int) -> None:
        self._states[slot] = FREE

    def _end(self, slot: int) -> None:
        self._mappings.pop(slot, None)
        self.file.give_back(slot)

    def _returned(self, slot: int, _: ReferenceType[Any]) -> None:
        """Called when the last tensor over a slot was freed, by any thread and at any moment."""
        del self._held[slot]
        # noted before one looks whether somebody forks: who ends a fork looks in here afterwards
        self._returns.append(slot)
        self._settle()

    def _settle(self) -> None:
        while self._returns and not self._forks.under_way:
            try:
                slot = self._returns.popleft()
            except IndexError:
                # another thread has it
                return
            # looked at again: a fork may have begun before this slot was returned
            if self._forks.under_way:
                self._returns.append(slot)
            else:
                self._give_back(self, slot)

    def _leave_to_child(self) -> None:
        """Use no slot again, since a child that has made no copy may have any of them."""
        self._give_back = _keep

    def _leave_to_parent(self) -> None:
        """In a forked child: keep a copy of what it has, and forget the rest."""
        self._give_back = _keep
        # in case that a thread of the parent was at it
        self._returns.clear()
        for slot in self._held:
            self._mappings[slot].make_private()
        for slot in self._mappings.keys() - self._held.keys():
            self._mappings.pop(slot).on_unmap = None
        self.file.close()


def _keep(lender: Lender, slot: int) -> None:
    """Do not give a slot back."""


def lent(key: int, slot: int, size: int) -> Any:
    """What a worker's message of a filled slot becomes in the main process: a block."""
    return _lenders[key].lend(slot, size)


class _Fork(threading.local):
    """The fork that this thread is in: the ends of a pipe, which the child closes when it is done."""

    #: The threads that fork.
    under_way: ClassVar[set[int]] = set()
    #: The pipes of all of them: a child has the ends of the others, too, and would keep them waiting.
    pipes: ClassVar[set[tuple[int, int]]] = set()
    pipe: tuple[int, int] | None = None


_fork = _Fork()


def _before_fork() -> None:
    # before one looks: what another thread returns from here on is used when the fork is over
    _Fork.under_way.add(threading.get_ident())
    # Also where nothing is lent yet: other handlers run after this one, and may wait while a batch
    # comes.
    if next(alive(_lenders), None) is not None:
        _fork.pipe = os.pipe()
        _Fork.pipes.add(_fork.pipe)


def _after_in_parent() -> None:
    is_copied, raised = False, None
    try:
        # where nothing is lent there is nothing to copy, and workers start at once
        is_copied = not any(lender._mappings for lender in alive(_lenders))
        # without a pipe, the lender is younger than the handler above, and the child says nothing
        if _fork.pipe is not None:
            is_closed, raised = _awaited(0.0 if is_copied else _COPY_SECONDS)
            is_copied |= is_closed
    # whatever a handler of a signal raises
    except BaseException as error:  # noqa: BLE001
        raised = error
    finally:
        for lender in alive(_lenders):
            if not is_copied:
                lender._leave_to_child()
        _Fork.under_way.discard(threading.get_ident())
        for lender in alive(_lenders):
            lender._settle()
    if raised is not None:
        _raise_later(raised)


def _awaited(seconds: float) -> tuple[bool, BaseException | None]:
    """Wait for the child: whether it has its copies, and what a signal's handler raised meanwhile."""
    assert _fork.pipe is not None
    # before its numbers may be those of other files
    _Fork.pipes.discard(_fork.pipe)
    (end, other), _fork.pipe = _fork.pipe, None
    os.close(other)
    closed, raised = select.poll(), None
    closed.register(end)
    until = time.monotonic() + seconds
    try:
        while True:
            try:
                return bool(closed.poll(1000 * max(0.0, until - time.monotonic()))), raised
            except BaseException as error:  # noqa: BLE001
                raised = error
    finally:
        os.close(end)


def _raise_later(raised: BaseException) -> None:
    """Raise it in this thread in a moment: of what is raised here, Python says that it is ignored."""
    own = signal.getsignal(signal.SIGINT)
    # only the main thread runs handlers, and only Python's can be put back
    if own is None or threading.current_thread() is not threading.main_thread():
        raise raised

    def handler(*_: object) -> None:
        signal.signal(signal.SIGINT, own)
        raise raised

    signal.signal(signal.SIGINT, handler)
    # a signal, since that ends what the thread may be waiting for by then
    arguments = threading.get_ident(), signal.SIGINT
    threading.Timer(_MOMENT_SECONDS, signal.pthread_kill, arguments).start()


def _after_in_child() -> None:
    _Fork.under_way.clear()
    for lender in alive(_lenders):
        lender._leave_to_parent()
    for pipe in _Fork.pipes:
        for end in pipe:
            os.close(end)
    _Fork.pipes.clear()
    _fork.pipe = None


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
