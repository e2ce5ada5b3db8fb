"""Batches are put into slots, and come out as the same: what no slot takes, torch sends."""

import contextvars
import os
import pickle
import threading
from collections import OrderedDict, namedtuple
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from globidx.core.reading import arrays
from globidx.torch.delivery.filling import Desk, Parcel
from globidx.torch.delivery.lender import Lender
from globidx.torch.delivery.slots import FREE, SlotFile

Pair = namedtuple("Pair", "left right")


@dataclass
class Own:
    """A user's batch."""

    x: torch.Tensor
    name: str


class Both:
    """Both sides of slots, in one process."""

    def __init__(self, slots=3, file=SlotFile):
        self.file = file.made(1, slots)
        self.lender = Lender(self.file.another())
        self.desk = Desk(self.file, 0, self.lender.key)

    def sent(self, batch):
        """(what the main process gets, whether it came in a slot)."""
        before = self.counts[0]
        parcel = self.desk.sent(batch)
        assert isinstance(parcel, Parcel)
        # twice, as the queue of the loader does it
        return pickle.loads(pickle.dumps(parcel)), self.counts[0] > before

    @property
    def counts(self):
        return self.file.counts.tolist()


def same(one, other):
    """Whether two batches are of the same types, dtypes, shapes, strides and bits."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape, one.layout) == (other.dtype, other.shape, other.layout)
        assert one.layout is not torch.strided or one.stride() == other.stride()
        # numpy has no bfloat16
        one, other = (value.detach() for value in (one, other))
        if one.dtype in (torch.bfloat16, torch.float8_e4m3fn):
            one, other = (value.view(torch.uint8) for value in (one, other))
        one, other = (value.to_dense() for value in (one, other))
        return one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Own):
        return one.name == other.name and same(one.x, other.x)
    return one == other


class Short(SlotFile):
    """Shared memory that runs out: no slot has more than 8 KiB."""

    def reserve(self, slot, size):
        if size > 8192:
            raise OSError(12, "Cannot allocate memory")
        super().reserve(slot, size)


X = torch.arange(24, dtype=torch.int32).view(2, 3, 4)
BATCHES = {
    "a tensor": X,
    "a dict": {"x": X, "deep": {"y": X.double()}, "text": ["a", "b"]},
    "an ordered dict": OrderedDict(b=X, a=X.bool()),
    "a named tuple": Pair(X, [X.half(), "text"]),
    "an object": [Own(X, "one"), Own(X + 1, "two")],
    "all dtypes": [
        torch.arange(5).to(dtype)
        for dtype in (
            *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.uint32),
            *(torch.int64, torch.uint64, torch.float16, torch.bfloat16, torch.float32),
            *(torch.float64, torch.complex64, torch.complex128, torch.float8_e4m3fn),
        )
    ],
    "a scalar": {"x": torch.tensor(3.5)},
    "transposed": X.permute(2, 0, 1),
    "channels last": torch.zeros(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
}
TORCHS = {
    "sparse": torch.eye(3).to_sparse(),
    "gaps": X[:, ::2],
    "expanded": torch.ones(1, 3).expand(4, 3),
    "empty": torch.zeros(0, 3),
    "a gradient": torch.ones(3, requires_grad=True),
    "text": ["a", "b"],
    "numbers": (1, 2.5, None),
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_comes_out_of_a_slot_as_it_was_put_in(name):
    """Types, dtypes, strides and bits; and several batches do not mix."""
    both = Both()
    for _ in range(3):
        got, is_in_slot = both.sent(BATCHES[name])
        assert same(got, BATCHES[name])
        assert is_in_slot
        assert both.lender.held == [0]
        del got
    assert both.counts[:2] == [3, 0]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("name", TORCHS)
def test_what_is_no_dense_tensor_travels_as_torch_sends_it(name):
    """Alone it takes no slot; beside a tensor it is beside that."""
    both = Both()
    got, is_in_slot = both.sent(TORCHS[name])
    assert same(got, TORCHS[name])
    assert not is_in_slot
    assert both.lender.held == []
    got, is_in_slot = both.sent({"x": X, "y": TORCHS[name]})
    assert is_in_slot
    assert same(got, {"x": X, "y": TORCHS[name]})


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("file", [SlotFile, Short])
@pytest.mark.parametrize("name", ["sparse", "gaps", "a gradient"])
def test_what_travels_as_torch_sends_it_leaves_no_descriptor(name, file):
    """torch keeps one of each tensor that is pickled, until it is unpickled."""
    both, descriptors = Both(file=file), []
    for _ in range(12):
        got, _ = both.sent([TORCHS[name], torch.zeros(9000)] if file is Short else TORCHS[name])
        del got
        # of memory: sockets and pipes of others in this process may come meanwhile
        descriptors.append(sum(link.startswith(("/dev/shm/", "/memfd:")) for link in links()))
    assert descriptors[-1] <= descriptors[3] + 1


def links():
    """What the descriptors of this process lead to."""
    for entry in os.scandir("/proc/self/fd"):
        # that of the listing itself is gone
        with suppress(FileNotFoundError):
            yield os.readlink(entry.path)


def test_an_expanded_tensor_takes_no_memory_for_what_it_shows_again():
    """A mask for all, say, that is larger than any memory if it is written out."""
    mask = torch.ones(1, 1, dtype=torch.bool).expand(1 << 25, 1 << 25)
    got, is_in_slot = Both().sent({"x": X, "mask": mask})
    assert is_in_slot
    assert same(got["x"], X)
    assert (got["mask"].shape, got["mask"].stride()) == (mask.shape, (0, 0))
    assert got["mask"][-1, -1]


def test_a_tensor_that_stands_twice_in_a_batch_is_one():
    """As torch sends it."""
    got, _ = Both().sent([X, {"again": X}])
    assert got[0] is got[1]["again"]


def test_views_of_a_tensor_that_stands_before_them_are_views_of_it():
    """As torch sends them: a change in place of one is one of the other, and they take no room."""
    whole, both = torch.arange(2400).view(2, 300, 4), Both()
    views = {"row": whole[1], "flat": whole.view(-1)[5:9], "bytes": whole.view(torch.uint8)}
    gaps = {
        "gaps": whole[:, ::2],
        "turned": whole[:, 1:7:3].mT,
        "shown twice": whole[:1].expand(5, 300, 4),
    }
    other = {"apart": torch.arange(2400), "empty": whole[:0], "again": whole[:1]}
    batch = {"whole": whole, **views, **gaps, **other}
    got, _ = both.sent(batch)
    assert same(got, batch)
    got["whole"].zero_()
    assert [name for name in got if got[name].any()] == ["apart"]
    both = Both()
    assert both.sent(
        [whole, *(whole[:, ::2] for _ in range(50)), *(whole.view(-1) for _ in range(50))]
    )[1]
    assert both.counts[2] < 2 * whole.nbytes


@pytest.mark.parametrize(
    "take", [lambda x: x[:, 0], lambda x: x[:0], lambda x: x[:1].expand(9, 3, 4)]
)
def test_a_view_of_any_form_leaves_what_is_stacked_in_its_slot_there(stacking, take):
    """Nothing is moved or copied, alone and beside what it is a view of."""
    stacking.sent(default_collate([X, X]))
    for named in (False, True):
        made = default_collate([X + 1, X])[0]
        address, opened = made.data_ptr(), stacking.desk.open
        batch = {"view": take(made), "row": made[1:]} | ({"whole": made} if named else {})
        got, is_in_slot = stacking.sent(batch)
        assert is_in_slot and opened.offset_of(made) == 0 and made.data_ptr() == address
        assert same(got, batch)
        assert opened.used == 2 * X.nbytes
        got["row"].zero_()
        assert same(got, batch), "the batch here is the memory of the batch there"
        del made, batch, got


def test_what_torch_moves_beside_a_copy_is_still_known_as_its_memory():
    """A view that reaches beyond the copy travels as torch sends it, and later ones are views of the copy."""
    whole = torch.arange(2400).view(2, 300, 4)
    got, _ = Both().sent({"first": whole[:1], "beyond": whole[:, ::2], "row": whole[0, 3:7]})
    got["first"].zero_()
    assert not got["row"].any()


@pytest.mark.parametrize("first", [[], ["torchs"], ["large"], ["torchs", "large"]])
@pytest.mark.parametrize("length", [10, 40_000])
def test_arrays_of_numpys_are_right_beside_what_torch_sends_of_the_same_memory(length, first):
    """torch moves that memory, so a batch that its slot is too small for is not pickled again."""
    whole = torch.arange(4 * length).view(4, length)
    parts = {"torchs": torch.ones(4, 4)[:, ::2], "large": whole + 1}
    before = {name: parts[name] for name in first}
    batch = {**before, "array": whole.numpy(), "gaps": whole[:, ::2], "last": whole + 1}
    expected = {name: value.tolist() for name, value in batch.items()}
    got, _ = Both().sent(batch)
    assert {name: value.tolist() for name, value in got.items()} == expected


def test_what_cannot_be_pickled_is_an_error_where_it_is_collated():
    """torch would print it and wait for ever; also where no slot is free."""
    both = Both()
    held = []
    for in_slot in (True, True, True, False):
        with pytest.raises((AttributeError, TypeError, pickle.PicklingError), match="pickle"):
            both.sent([X, lambda: 0])
        held.append(both.sent(X))
        assert held[-1][1] is in_slot
    assert all(same(got, X) for got, _ in held)


def test_with_no_slot_free_a_batch_travels_as_torch_sends_it():
    """The slots that are held keep what they have; one that is freed is used again."""
    both = Both(2)
    held = [both.sent(X + n)[0] for n in range(2)]
    assert both.sent(X + 2)[1] is False
    assert [same(got, X + n) for n, got in enumerate(held)] == [True, True]
    del held[0]
    assert both.sent(X + 3)[1] is True
    assert same(held[0], X + 1)


def test_larger_batches_make_slots_grow_and_smaller_ones_do_not():
    """By at least a quarter, so that ever longer batches seldom do it; memory is bounded by the largest."""
    both, largest = Both(2), []
    for length in [*range(1, 200), 50, 150]:
        assert both.sent(torch.full((length, 1000), length, dtype=torch.uint8))[1]
        largest.append(both.counts[2])
    assert largest == sorted(largest)
    assert len(set(largest)) < 30
    assert largest[-1] <= 200_000 * 5 // 4 + 4096


def test_memory_that_runs_out_is_logged_once_and_batches_go_on(caplog):
    """What fits still travels in slots."""
    both = Both(2, Short)
    assert both.sent(X)[1]
    for _ in range(3):
        assert both.sent(torch.zeros(9000))[1] is False
    assert len(caplog.records) == 1
    assert "no shared memory for a slot of" in caplog.text
    assert "slots=" in caplog.text
    assert both.sent(X)[1]


@pytest.fixture
def stacking():
    """A desk whose process stacks into slots; torch's way is put back afterwards."""
    torchs, both = default_collate_fn_map[torch.Tensor], Both()
    with both.desk.at_work():
        yield both
    assert default_collate_fn_map[torch.Tensor] is torchs


def test_tensors_are_stacked_where_they_are_sent_from(stacking):
    """After the first batches, which tell how large a slot must be, nothing is copied any more."""
    addresses = []
    for number in range(6):
        batch = default_collate([{"x": X + number, "y": np.float32(number)}] * 2)
        addresses.append(batch["x"].data_ptr())
        expected = {"x": torch.stack([X + number] * 2), "y": torch.full((2,), float(number))}
        del batch["y"]
        batch["y"] = torch.full((2,), float(number))
        got, is_in_slot = stacking.sent(batch)
        assert is_in_slot
        assert same(got, expected)
        del batch, got
    maps = [mapping.address for mapping in stacking.desk._mappings.values()]
    assert all(address in maps for address in addresses[2:])


def test_batches_that_cannot_be_stacked_fail_as_torch_says_it(stacking):
    """And the next one is none the worse, nor are slots lost."""
    stacking.sent(default_collate([X, X]))
    for _ in range(5):
        with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size"):
            default_collate([X, X[:1]])
    assert stacking.sent(default_collate([X, X]))[1]
    assert stacking.counts[2] == 4096


def test_threads_of_the_dataset_make_nothing_in_slots(stacking):
    """Two at once would be given the same place; one context may be that of many threads."""
    stacking.sent(torch.zeros(10_000))
    made, context = [], contextvars.copy_context()

    def make():
        made.append(default_collate([X, X]))
        made.append(torch.from_numpy(context.run(arrays.empty, (2,), np.dtype("f4"))))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert stacking.desk.open is None
    mine = default_collate([X, X])
    opened = stacking.desk.open
    assert [opened.offset_of(one) for one in [*made, mine]] == [None, None, 0]


def test_what_the_worker_itself_keeps_is_not_written_over(stacking):
    """A collate function that remembers its last batch, say."""
    kept = [default_collate([X + n, X]) for n in range(1)]
    for n in range(1, 3):
        got, _ = stacking.sent(kept[-1])
        assert same(got, torch.stack([X + n - 1, X]))
        del got
        kept.append(default_collate([X + n, X]))
    stacking.sent(kept[-1])
    for _ in range(5):
        stacking.sent(default_collate([X * 0, X * 0]))
    assert all(same(batch, torch.stack([X + n, X])) for n, batch in enumerate(kept))


HOLD = (
    lambda tensor: tensor,
    lambda tensor: tensor[1:],
    lambda tensor: tensor.numpy()[::2],
    lambda tensor: [tensor.view(torch.uint8)],
    lambda tensor: np.from_dlpack(tensor).ravel()[3:],
)


def bits(holder):
    """A copy of what a holder sees."""
    holder = holder[0] if isinstance(holder, list) else holder
    return (holder.numpy() if isinstance(holder, torch.Tensor) else holder).tobytes()


@settings(max_examples=60, deadline=None)
@given(
    slots=st.integers(1, 4),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.integers(1, 40)),
            st.tuples(st.just("receive"), st.integers(0, 4)),
            st.tuples(st.just("drop"), st.integers(0, 20)),
        ),
        max_size=60,
    ),
)
def test_no_slot_is_used_while_somebody_holds_a_part_of_it(slots, steps):
    """A model of it: whatever is sent, taken, held as views and dropped, in any sequence, held bits never change."""
    both, waiting, held = Both(slots), [], []
    for number, (step, value) in enumerate(steps):
        if step == "send":
            batch = torch.full((value, 1000), number, dtype=torch.int32)
            before = both.counts[0]
            parcel = both.desk.sent(batch)
            is_in_slot = both.counts[0] > before
            occupied = sum(was_in_slot for *_, was_in_slot in waiting) + len(both.lender.held)
            # a slot is free if and only if it is used
            assert is_in_slot == (occupied < slots)
            waiting.append((parcel, number, value, is_in_slot))
        elif step == "receive" and waiting:
            parcel, sent, length, _ = waiting.pop(0)
            got = pickle.loads(parcel.content)
            assert got.eq(sent).all()
            assert got.shape == (length, 1000)
            holder = HOLD[value](got)
            held.append((holder, bits(holder)))
            del got, holder, parcel
        elif held:
            held.pop(value % len(held))
        assert all(bits(holder) == expected for holder, expected in held)
    del held, waiting
    both.lender.close()


def test_a_slot_is_not_free_before_its_batch_is_received():
    """Sent and not yet taken by the main process, it belongs to nobody else."""
    both = Both(1)
    parcel = both.desk.sent(X)
    assert both.file.states[0] != FREE
    assert both.sent(X + 1)[1] is False
    assert same(pickle.loads(parcel.content), X)
    assert both.sent(X + 2)[1] is True


def test_arrays_that_are_read_for_a_batch_are_in_its_slot(stacking):
    """Nothing is copied after the first batch: the tensors over them are sent as places."""
    addresses = []
    for number in range(6):
        read = [arrays.empty((4, 100), np.dtype("<f8")), arrays.empty((4,), np.dtype("i2"))]
        for array in read:
            array[...] = number
        batch = dict(zip("ab", map(torch.from_numpy, read), strict=True))
        addresses.append(batch["a"].data_ptr())
        got, is_in_slot = stacking.sent(batch)
        assert is_in_slot
        assert same(got, {key: torch.full_like(value, number) for key, value in batch.items()})
        del batch, got, read, array
    maps = [mapping.address for mapping in stacking.desk._mappings.values()]
    assert all(address in maps for address in addresses[1:])


def test_what_is_read_and_not_sent_takes_no_room_in_slots(stacking):
    """A transform makes other tensors of it: after a batch or two, slots are as large as these."""
    for _ in range(6):
        read = arrays.empty((1000,), np.dtype("f8"))
        assert stacking.sent(torch.from_numpy(read[::10] + 1))[1]
        del read
    address = arrays.empty((100,), np.dtype("f8")).ctypes.data
    for mapping in stacking.desk._mappings.values():
        assert not 0 <= address - mapping.address < mapping.size
    assert stacking.desk._needed <= 800 + 128


def test_slots_are_no_larger_than_a_batch_with_what_is_read_and_stacked_on_the_way_to_it(stacking):
    """And a quarter: that is what the page of delivery says of memory."""
    for _ in range(6):
        read = torch.from_numpy(arrays.empty((8, 5000), np.dtype("f8")))
        stacked = [default_collate([row[:100] * crop for crop in range(4)]) for row in read]
        batch = default_collate(stacked)
        assert stacking.sent(batch)[1]
        on_the_way = read.nbytes + 2 * batch.nbytes
        assert stacking.counts[2] <= on_the_way * 5 // 4 + 10 * 128 + 4096
        del read, stacked, batch


def test_a_batch_that_was_read_and_failed_leaves_its_slot_to_the_next(stacking):
    """Slots grow for batches, and not for what becomes none."""
    for _ in range(20):
        arrays.empty((1000,), np.dtype("u1"))
        with suppress(ValueError):
            raise ValueError("a bad sample")
    assert stacking.sent(torch.zeros(1000, dtype=torch.uint8))[1]
    assert stacking.counts[2] == 4096


def test_objects_and_dates_are_read_into_slots_as_numpy_has_them(stacking):
    """Whatever dtype a file has; objects are numpy's own."""
    assert arrays.empty((3,), np.dtype(object)).tolist() == [None] * 3
    for dtype in ("M8[ns]", "S5", "U3", ">i4", "?", [("x", "f4"), ("y", "u1")]):
        array = arrays.empty((2, 3), np.dtype(dtype))
        assert (array.dtype, array.shape) == (np.dtype(dtype), (2, 3))
        assert array.flags.c_contiguous
        assert array.flags.writeable
    assert arrays.empty((0, 3), np.dtype("f4")).shape == (0, 3)
