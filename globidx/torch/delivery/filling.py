"""The worker's side of slots: a batch is put into one, and a message about it travels.

A tensor of a batch that lies in a slot, whole or with gaps, is pickled as its place there. What does
not, such as sparse tensors and text, is pickled as torch does it.
"""

from __future__ import annotations

import io
import logging
import math
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.reduction import ForkingPickler
from typing import Any
from weakref import ReferenceType, ref

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from globidx.core.reading import arrays
from globidx.torch.delivery.lender import lent
from globidx.torch.delivery.mapping import Mapping
from globidx.torch.delivery.slots import (
    COUNTS,
    FREE,
    IN_SLOTS,
    LARGEST,
    OTHERWISE,
    TAKEN,
    SlotFile,
    rounded,
)

_log = logging.getLogger("globidx")
# where a tensor begins, for vector instructions and for copies to a device
_ALIGNED = 128
# where a tensor lies for which there is no room
_MISSED = -1
_SENT_BY_TORCH = torch.Tensor, torch.UntypedStorage, torch.TypedStorage


class Filling:
    """A collate function for workers, whose batches travel in slots.

    Parameters
    ----------
    collate : callable
        What makes a batch.
    file : SlotFile
        The slots of all workers.
    key : int
        That of the lender in the main process.
    """

    def __init__(self, collate: Callable[[Any], Any], file: SlotFile, key: int) -> None:
        self._collate, self._file, self._key = collate, file, key
        self._desk: Desk | None = None

    def __call__(self, samples: Any) -> Any:
        """The batch, or a ``Parcel`` that becomes the batch in the main process."""
        desk = self._desk
        if desk is None:
            worker = get_worker_info()
            assert worker is not None
            desk = self._desk = Desk(self._file, worker.id, self._key)
            # until the process ends
            self._at_work = ExitStack()
            self._at_work.enter_context(desk.at_work())
        return desk.sent(self._collate(samples))


class Parcel:
    """A batch on its way: bytes that unpickle to the batch itself."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __reduce__(self) -> Any:
        return pickle.loads, (self.content,)


class Desk:
    """The slots of one worker, one of which is open: the next batch is put there.

    Parameters
    ----------
    file : SlotFile
        The slots of all workers.
    worker : int
        Whose.
    key : int
        That of the lender in the main process.
    """

    def __init__(self, file: SlotFile, worker: int, key: int) -> None:
        self._file, self._worker, self.key = file, worker, key
        self._thread = threading.get_ident()
        self._mine = range(worker * file.slots, (worker + 1) * file.slots)
        self._mappings: dict[int, Mapping] = {}
        # the newest block of each: this process, too, may hold what was made over it
        self._blocks: dict[int, ReferenceType[Any]] = {}
        #: The most bytes that a batch needed.
        self._needed = 1
        #: So many were not to be had.
        self._limit: float = math.inf
        self._reads_into_slots = True
        self.open: Open | None = None

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let batches be made in slots in the first place: where they are read, and stacked.

        That is what ``default_collate`` stacks, whoever calls it in this process.
        """
        torchs = default_collate_fn_map[torch.Tensor]

        def stacked(batch: Any, *, collate_fn_map: Any = None) -> Any:
            made = self._stacked(batch)
            return torchs(batch, collate_fn_map=collate_fn_map) if made is None else made

        default_collate_fn_map[torch.Tensor] = stacked
        try:
            with arrays.made_by(self.array):
                yield
        finally:
            default_collate_fn_map[torch.Tensor] = torchs

    def sent(self, batch: Any) -> Any:
        """The parcel that travels for ``batch``; by torch's means where no slot is free for it.

        What cannot be sent is an error of this batch: a thread of torch's would only print it, and
        the loop would wait for ever.
        """
        in_slots = self._file.counts[COUNTS * self._worker + IN_SLOTS]
        content = self._packed(batch)
        # once more if it was too large for the slot
        if content is None and self.open is None:
            content = self._packed(batch)
        if self._file.counts[COUNTS * self._worker + IN_SLOTS] == in_slots:
            self._file.counts[COUNTS * self._worker + OTHERWISE] += 1
        return Parcel(bytes(ForkingPickler.dumps(batch)) if content is None else content)

    def _packed(self, batch: Any) -> bytes | None:
        """The bytes of a batch, whose tensors are in a slot now as far as one takes them.

        None if there is no slot, or if that was too small: it is closed, and the next one will be
        larger.
        """
        slot = self._opened(self._needed)
        if slot is None:
            return None
        # where memory was short, no larger slot is waited for
        packer = Packer(*slot, self.key, may_miss=self._limit == math.inf)
        content = packer.packed(batch)
        needed = slot[0].used + packer.missed
        # Nothing is there: the slot is left for the next batch. What was pickled must be sent, for
        # torch keeps a descriptor of each tensor until somebody unpickles it.
        if not (packer.missed or packer.sent):
            return content
        self.open, self._needed = None, max(self._needed, needed)
        if packer.is_lost or not packer.sent:
            return None if packer.is_lost else content
        # a transform, say, made other tensors of what was read: that needs no room in slots
        if self._reads_into_slots and 4 * packer.sent < 3 * needed:
            self._reads_into_slots, self._needed = False, packer.sent + _ALIGNED
        # from here on it is the main process's
        self._file.states[slot[0].number] = TAKEN
        self._file.counts[COUNTS * self._worker + IN_SLOTS] += 1
        return content

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array for the next batch, in its slot if there is room."""
        place = self._place(math.prod(shape) * dtype.itemsize) if self._reads_into_slots else None
        if place is None:
            return np.empty(shape, dtype)
        block, offset = place
        return np.frombuffer(block, dtype, math.prod(shape), offset).reshape(shape)

    def _place(self, size: int) -> tuple[Any, int] | None:
        """Where to put so many bytes of the next batch: a block, and an offset there."""
        # threads of the dataset's own would be given the same place
        if threading.get_ident() != self._thread:
            return None
        slot = self._opened(max(size, self._needed)) if size else None
        offset = None if slot is None else slot[0].place(size)
        return None if slot is None or offset is None else (slot[1], offset)

    def _stacked(self, batch: Any) -> torch.Tensor | None:
        """A batch of tensors as one, or None if torch shall do it."""
        first = batch[0]
        if not is_plain(first):
            return None
        shape = len(batch), *first.shape
        place = self._place(math.prod(shape) * first.itemsize)
        if place is None:
            # memory of its own is cheaper than a new file of shared memory, if it is copied anyway
            return None if self.open is None else torch.stack(batch, 0)
        block, offset = place
        return torch.stack(batch, 0, out=tensor(block, first.dtype, shape, None, offset))

    def _opened(self, size: int) -> tuple[Open, Any] | None:
        """The open slot and its block; where there is none, one of at least ``size`` bytes.

        None if none is free.
        """
        # of a batch that failed nothing is left, and so its slot is free
        block = None if self.open is None else self.open.block()
        if self.open is not None and block is not None:
            return self.open, block
        free = [slot for slot in self._mine if self._is_free(slot)]
        fitting = [slot for slot in free if slot in self._mappings]
        fitting = [slot for slot in fitting if self._mappings[slot].size >= size] or free
        if not fitting:
            return None
        mapping = self._mapped(fitting[0], size)
        if mapping is None:
            return None
        block = mapping.block()
        self._blocks[fitting[0]] = ref(block)
        self.open = Open(fitting[0], mapping, ref(block))
        return self.open, block

    def _is_free(self, slot: int) -> bool:
        block = self._blocks.get(slot)
        return self._file.states[slot] == FREE and (block is None or block() is None)

    def _mapped(self, slot: int, size: int) -> Mapping | None:
        """The memory of a slot, which grows to ``size``; None if there is not so much."""
        mapping = self._mappings.get(slot)
        if size >= self._limit or (mapping is not None and mapping.size >= size):
            return mapping
        # batches that become longer and longer shall not make a slot grow with each
        size = rounded(size if mapping is None else max(size, mapping.size * 5 // 4))
        try:
            self._file.reserve(slot, size)
            mapping = self._mappings[slot] = self._file.map(slot, size)
        except OSError as error:
            self._limit = min(self._limit, size)
            self._needed = max((one.size for one in self._mappings.values()), default=1)
            self._log_once(size, error)
            return None
        largest = COUNTS * self._worker + LARGEST
        self._file.counts[largest] = max(self._file.counts[largest], size)
        return mapping

    def _log_once(self, size: int, error: OSError) -> None:
        # once for all workers
        if not self._file.is_logged[0]:
            self._file.is_logged[0] = 1
            _log.warning(
                "no shared memory for a slot of %d bytes (%s), so batches travel as torch sends "
                "them; give the process more memory, or pass fewer slots= or num_workers=",
                size,
                error,
            )


class Open:
    """The slot that is being filled, as long as something is made over its block."""

    def __init__(self, number: int, mapping: Mapping, block: ReferenceType[Any]) -> None:
        self.number, self.block, self.used = number, block, 0
        self.size, self._address = mapping.size, mapping.address

    def place(self, size: int) -> int | None:
        """Where to put so many bytes; None if there is no room."""
        offset = self.used + -self.used % _ALIGNED
        if offset + size > self.size:
            return None
        self.used = offset + size
        return offset

    def offset_of(self, part: torch.Tensor) -> int | None:
        """Where a tensor lies in it; None if it lies elsewhere."""
        offset = part.data_ptr() - self._address
        return offset if 0 <= offset < self.size else None


class Packer(ForkingPickler):
    """Pickles a batch; dense tensors are put into a slot, and pickled as their place.

    So is any view of what lies there, which torch would move away from it.

    With ``may_miss=False`` torch sends what the slot has no room for. So it does in any case after
    it has sent something else: what torch pickles is moved to shared memory, and arrays of numpy's
    that have the same memory do not move with it, so a batch cannot be pickled once more.

    Attributes
    ----------
    missed : int
        How many bytes a larger slot would have had room for.
    is_lost : bool
        Whether the result is of no use, since something is in neither way.
    sent : int
        How many bytes of tensors lie in the slot.
    """

    def __init__(self, slot: Open, block: Any, key: int, *, may_miss: bool = True) -> None:
        self._buffer = io.BytesIO()
        super().__init__(self._buffer, pickle.HIGHEST_PROTOCOL)
        self._slot, self._block, self._may_miss = slot, block, may_miss
        self._sent = Block(key, slot.number, slot.size)
        # By storage, the first tensor of it that was copied, and where it is. Not by its address,
        # which changes when torch moves it.
        self._copied: dict[int, tuple[torch.Tensor, int]] = {}
        self._is_torchs = self.is_lost = False
        self.missed = self.sent = 0

    def packed(self, batch: Any) -> bytes:
        """The bytes of a batch."""
        self.dump(batch)
        return self._buffer.getvalue()

    def reducer_override(self, part: Any) -> Any:
        """How pickle takes a value apart."""
        if not isinstance(part, _SENT_BY_TORCH):
            return NotImplemented
        if type(part) is not torch.Tensor or not is_plain(part):
            return self._left_to_torch()
        if not part.numel():
            # torch would move all of the storage that it is a view of
            return _empty, (part.dtype, tuple(part.shape), part.stride())
        stride = None if part.is_contiguous() else part.stride()
        size = part.itemsize * _extent(part.shape, part.stride())
        offset = self._offset_of(part, size)
        if offset is None and (stride is None or _is_dense(part)):
            offset = self._copy_of(part, size, stride)
        if offset is None or offset == _MISSED:
            return self._left_to_torch()
        self.sent += size
        return tensor, (self._sent, part.dtype, tuple(part.shape), stride, offset)

    def _left_to_torch(self) -> Any:
        if self.is_lost:
            return int, ()
        self._is_torchs = True
        return NotImplemented

    def _copy_of(self, part: torch.Tensor, size: int, stride: tuple[int, ...] | None) -> int:
        """Where a tensor is copied to, if there is room."""
        offset = self._slot.place(size)
        if offset is None:
            self.missed += size + _ALIGNED if self._may_miss else 0
            self.is_lost |= self._may_miss and not self._is_torchs
            offset = _MISSED
        else:
            tensor(self._block, part.dtype, tuple(part.shape), stride, offset).copy_(part)
        self._copied.setdefault(part.untyped_storage()._cdata, (part, offset))
        return offset

    def _offset_of(self, part: torch.Tensor, size: int) -> int | None:
        """Where a tensor lies in the slot; None if neither it nor what it is a view of is there."""
        offset = self._slot.offset_of(part)
        if offset is not None or not self._copied:
            return offset
        known, start = self._copied.get(part.untyped_storage()._cdata, (part, 0))
        within = part.data_ptr() - known.data_ptr()
        if known is part or not 0 <= within <= known.numel() * known.itemsize - size:
            return None
        return start if start == _MISSED else start + within


class Block:
    """Is pickled to what ``lent`` returns."""

    def __init__(self, *place: int) -> None:
        self._place = place

    def __reduce__(self) -> Any:
        return lent, self._place


def is_plain(part: torch.Tensor) -> bool:
    """Whether a tensor is numbers in this process's memory, and no more."""
    return (
        part.layout is torch.strided
        and part.device.type == "cpu"
        and not part.requires_grad
        and not part.is_quantized
        and not part.is_nested
        and not part.is_conj()
        and not part.is_neg()
    )


def tensor(
    block: Any,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    stride: tuple[int, ...] | None,
    offset: int,
) -> torch.Tensor:
    """The tensor that lies at ``offset`` of a block."""
    count = math.prod(shape) if stride is None else _extent(shape, stride)
    flat = torch.frombuffer(block, dtype=dtype, count=count, offset=offset)
    return flat.view(shape) if stride is None else flat.as_strided(shape, stride)


def _empty(dtype: torch.dtype, shape: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
    """A tensor without elements."""
    return torch.empty_strided(shape, stride, dtype=dtype)


def _extent(shape: Sequence[int], stride: Sequence[int]) -> int:
    """How many elements lie from the first to the last of a tensor, with those in its gaps."""
    return 1 + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))


def _is_dense(part: torch.Tensor) -> bool:
    """Whether a tensor has no gaps, and no element twice."""
    # without memory: an expanded one may be far larger than what it takes
    return torch.empty_like(part, device="meta").stride() == part.stride()
