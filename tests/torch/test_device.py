"""Batches that are moved ahead of the loop: the same batches, the same errors at the same place, the same count."""

import gc
import subprocess
import sys
import threading
import weakref
from collections import OrderedDict, UserDict, deque, namedtuple

import pytest
import torch
from files import environment
from loops import HOW, reading
from processes import REPOSITORY

from globidx import DataLoader, ResumableDistributedSampler, errors
from globidx.torch.device import Ahead, ToDevice, destination, rebuilt
from tests.torch import test_loader
from tests.torch.test_loader import (  # noqa: F401 - the laws of the loader, run again below
    Ids,
    made,
    so_far,
    test_a_batch_sampler_around_it_is_counted,
    test_a_failed_batch_is_not_passed_over_in_silence,
    test_a_killed_worker_is_an_error_and_costs_only_what_was_not_delivered,
    test_a_loop_of_before_raises_when_its_sampler_moved_on,
    test_a_peek_costs_nothing,
    test_after_a_break_the_batch_nobody_asked_about_comes_again,
    test_an_exception_in_the_loop_leaves_the_batch_uncounted,
    test_any_mix_of_batches_ranks_and_stops_reads_each_id_once,
    test_batch_samplers_that_only_cut_are_counted,
    test_batches_that_do_not_divide_are_counted_by_their_ids,
    test_drop_last_of_the_loader_ends_the_epoch,
    test_only_the_newest_loop_counts,
    test_passes_follow_each_other_with_workers,
    test_state_is_counted_once_however_often_it_is_asked_for,
    test_what_is_counted_is_what_the_loop_holds_or_has_had,
)

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Moving(DataLoader):
    """A loader whose batches are moved ahead, by a mover that needs no device: the pipeline is the real one."""

    def _on_device(self, batches):
        return Ahead(super()._on_device(batches), lambda batch: lambda: batch)


@pytest.fixture(autouse=True, scope="module")
def ahead():
    """All tests of this module, those of the loader among them, run over ``Moving``."""
    test_loader.DataLoader, before = Moving, test_loader.DataLoader
    yield
    test_loader.DataLoader = before


class Story:
    """A mover, and a source of batches, that write down what happens; batch ``bad`` cannot be read."""

    def __init__(self, count, bad=None, unmovable=None):
        self.count, self.bad, self.unmovable, self.events = count, bad, unmovable, []

    def batches(self):
        for number in range(self.count):
            if number == self.bad:
                raise OSError(f"batch {number} is bad")
            yield number

    def move(self, batch):
        if batch == self.unmovable:
            raise MemoryError(f"no room for batch {batch}")
        self.events.append(f"start {batch}")

        def hand_over():
            self.events.append(f"hand over {batch}")
            return batch

        return hand_over

    def train(self):
        for batch in Ahead(self.batches(), self.move):
            self.events.append(f"train {batch}")


def test_a_batch_is_on_the_move_while_the_one_before_it_is_trained_on_and_no_other():
    """One ahead: not none, and not two."""
    story = Story(3)
    story.train()
    assert story.events == [
        "start 0",
        *("hand over 0", "start 1", "train 0"),
        *("hand over 1", "start 2", "train 1"),
        *("hand over 2", "train 2"),
    ]


@pytest.mark.parametrize("fault", [{"bad": 2}, {"unmovable": 2}])
def test_an_error_of_the_next_batch_waits_until_the_loop_asks_for_it(fault):
    """Whether it could not be read or not be moved: the batch before it is trained on first."""
    story = Story(4, **fault)
    with pytest.raises((OSError, MemoryError), match="batch 2"):
        story.train()
    assert [event for event in story.events if event.startswith("train")] == ["train 0", "train 1"]


def test_an_interrupt_does_not_wait():
    """Ctrl-C while the next batch is read is for now."""

    def batches():
        yield 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(Ahead(batches(), lambda batch: lambda: batch))


def test_an_end_is_an_end_however_often_it_is_asked_for():
    """As for any iterator."""
    stream = Ahead(iter("a"), lambda batch: lambda: batch)
    assert [next(stream, None) for _ in range(4)] == ["a", None, None, None]


class _Batches:
    """An iterator to be watched: 1, then an error."""

    def __init__(self):
        self.numbers = iter([1])

    def __next__(self):
        for number in self.numbers:
            return number
        raise OSError("bad")


def test_an_error_that_was_raised_keeps_nothing_alive():
    """Else a loader's workers would live until the garbage collector comes by."""
    gc.disable()
    try:
        batches = _Batches()
        watched = weakref.ref(batches)
        stream = Ahead(batches, lambda batch: lambda: batch)
        next(stream)
        try:
            next(stream)
        except OSError:
            pass
        del stream, batches
        assert watched() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("workers", HOW)
def test_a_batch_on_its_way_is_not_counted(workers):
    """State asked for while batch k is held counts k; asked for while k + 1 is awaited, from another thread, k + 0."""
    seen = []

    class Watched(DataLoader):
        def _on_device(self, batches):
            def move(batch):
                thread = threading.Thread(target=lambda: seen.append(so_far(sampler)[1]))
                thread.start()
                thread.join()
                return lambda: batch

            return Ahead(super()._on_device(batches), move)

    sampler = ResumableDistributedSampler(Ids(12), 1, 0, shuffle=False)
    held = [so_far(sampler)[1] for _ in Watched(Ids(12), 4, sampler=sampler, **reading(workers))]
    assert held == [4, 8, 0]
    assert seen == [
        0,
        0,
        4,
    ]  # batch 0 before any is held; 1 while 0 is handed over; 2 when 0 is done, 1 handed over


@pytest.mark.parametrize("workers", HOW)
def test_the_batch_before_a_bad_one_stays_counted(workers):
    """The error of the next is no reason to give it again."""
    sampler, loader = made(20, 4, workers, dataset=test_loader.Broken(20))
    trained = []
    with pytest.raises(ValueError, match="sample 9 is bad"):
        for batch in loader:
            trained.append(batch.tolist()[0])
            assert so_far(sampler)[1] == 4 * len(trained)
    assert (trained, so_far(sampler)) == ([0, 4], (0, 8))


@pytest.mark.parametrize("workers", HOW)
@pytest.mark.parametrize(
    ("dataset", "last", "counted"),
    [
        (test_loader.Broken(20), 4, (0, 4)),
        (Ids(20), 16, (1, 0)),
    ],  # a pass whose last batch was handed out is over
    ids=["error", "end"],
)
def test_a_loop_that_was_left_holds_nothing_whatever_comes_next(dataset, last, counted, workers):
    """An error or the end, kept for later, must not keep the loop alive: it would count the batch it was left with."""
    gc.disable()
    try:
        sampler, loader = made(20, 4, workers, dataset=dataset)
        for batch in loader:
            if batch[0] == last:
                break
        assert so_far(sampler) == counted
        assert sampler._ledger.passes._loop() is None
    finally:
        gc.enable()


def test_an_error_that_waited_tells_where_it_was_raised():
    """Its frames are gone, their text is not."""
    _, loader = made(20, 4, dataset=test_loader.Broken(20))
    with pytest.raises(ValueError, match="sample 9 is bad") as caught:
        list(loader)
    assert 'raise ValueError("sample 9 is bad")' in "".join(caught.value.__notes__)


Pair = namedtuple("Pair", "image label")


class Bag(dict):
    """A mapping with more to it than its items."""

    note = "kept"


@pytest.mark.parametrize(
    "data",
    [
        torch.ones(2),
        [torch.ones(2), "text", 3, None],
        (torch.ones(2), (torch.zeros(1),)),
        {"a": torch.ones(1), "b": {"c": [torch.ones(1)]}},
        OrderedDict(a=torch.ones(1)),
        UserDict(a=torch.ones(1)),
        Pair(torch.ones(2), 5),
        deque([torch.ones(1)]),
        torch.Size([2, 3]),
        b"bytes",
        bytearray(b"x"),
    ],
    ids=lambda data: type(data).__name__,
)
def test_every_tensor_is_moved_and_nothing_else_changes(data):
    """Containers come out as what they were, with every tensor in them replaced; the batch itself is left alone."""

    def flat(value):
        if isinstance(value, (dict, UserDict)):
            return [leaf for key in value for leaf in (key, *flat(value[key]))]
        if isinstance(value, (list, tuple, deque)):
            return [leaf for item in value for leaf in flat(item)]
        return [value]

    before = flat(data)
    doubled = rebuilt(data, lambda part: part * 2 if isinstance(part, torch.Tensor) else part)
    assert type(doubled) is type(data)
    assert all(one is other for one, other in zip(flat(data), before, strict=True))
    for old, new in zip(before, flat(doubled), strict=True):
        assert torch.equal(new, 2 * old) if isinstance(old, torch.Tensor) else new == old


def test_a_mapping_keeps_what_else_it_has():
    """A subclass of dict comes out as itself, attributes and all."""
    bag = Bag(x=torch.ones(1))
    bag.note = "mine"
    moved = rebuilt(bag, lambda part: part + 1)
    assert (type(moved), moved.note, moved["x"].item(), bag["x"].item()) == (Bag, "mine", 2, 1)


@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")])
def test_on_the_cpu_it_is_torchs_own_iterator(device):
    """Nothing is between, nothing is pinned."""
    loader = DataLoader(Ids(8), batch_size=4, device=device)
    assert type(iter(loader)) is type(iter(torch.utils.data.DataLoader(Ids(8))))
    assert (loader.device, loader.pin_memory) == (None, False)
    _, loader = made(8, 4, device=device)
    assert [batch.device.type for batch in loader] == ["cpu", "cpu"]


@pytest.mark.parametrize("device", ["cuda:99", "nonsense", "meta", 1.5, "cuda:-1"])
def test_a_device_that_is_not_there_is_refused_when_the_loader_is_built(device):
    """Not at the first batch, and in one sentence."""
    with pytest.raises(ValueError, match="device"):
        made(8, 4, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_the_error_says_so():
    """How many there are, and what to do."""
    with pytest.raises(
        ValueError,
        match="device 'cuda' does not exist: this process sees 0 CUDA devices; leave device= out",
    ):
        destination("cuda")


class Images(Ids):
    """Sample ``id`` is a megabyte of ``id``, and its id."""

    def __getitem__(self, id):
        return {
            "image": torch.full((2**18,), float(id)),
            "id": id,
            "pair": Pair(torch.tensor([id]), f"n{id}"),
        }


@cuda
@pytest.mark.parametrize("workers", HOW)
def test_batches_come_on_the_device_in_order_and_whole(workers):
    """Work that is queued and not waited for reads the batch it was given, however soon its memory is freed."""
    sampler, loader = made(256, 8, workers, dataset=Images(256), device="cuda")
    weight = torch.rand(2048, 2048, device="cuda")
    sums, ids = [], []
    for number, batch in enumerate(loader, 1):
        assert (
            batch["image"].is_cuda
            and batch["pair"].image.is_cuda
            and batch["pair"].label[0].startswith("n")
        )
        for _ in range(4):
            weight = torch.nn.functional.normalize(
                weight @ weight
            )  # the device falls behind the loop
        sums.append((batch["image"].double().mean(1) - batch["id"]).abs().max())
        ids.append(batch["id"])
        assert so_far(sampler) == ((0, 8 * number) if number < 32 else (1, 0))
        del batch
    assert torch.cat(ids).tolist() == list(range(256))
    assert torch.stack(sums).max().item() == 0


@cuda
def test_a_break_on_the_device_costs_the_batch_that_was_held_and_no_more():
    """The one on its way was never counted."""
    sampler, loader = made(20, 4, device="cuda")
    for batch in loader:
        if batch[0].item() == 8:
            break
    assert so_far(sampler) == (0, 8)
    assert [batch[0].item() for batch in loader] == [8, 12, 16]


class Own:
    """A batch of the user's own, whose ``to`` takes a device and no more."""

    def __init__(self, tensor):
        self.tensor = tensor

    def to(self, device):
        return Own(self.tensor.to(device))


@cuda
def test_what_has_a_to_of_its_own_is_moved_by_it():
    """Objects, packed sequences and sparse tensors too."""
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(3), torch.ones(2)])
    batch = [Own(torch.ones(2)), packed, torch.eye(3).to_sparse(), torch.arange(3).pin_memory()]
    own, sequence, sparse, plain = ToDevice(torch.device("cuda"))(batch)()
    assert own.tensor.is_cuda and sequence.data.is_cuda and sparse.is_cuda and plain.is_cuda
    assert not sequence.batch_sizes.is_cuda and type(batch) is list


@cuda
def test_a_loop_that_runs_ahead_does_not_fill_the_device():
    """However slow its work is, no more than a few batches lie there."""
    dataset = Images(400)
    loader = DataLoader(dataset, batch_size=4, device="cuda")
    weight = torch.rand(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for _ in loader:
        for _ in range(8):
            weight = weight @ weight
    most = torch.cuda.max_memory_allocated() - before
    assert most < 2 * weight.nbytes + 8 * 4 * 2**20


@cuda
def test_errors_of_the_sampler_and_of_the_dataset_come_as_they_do_without_a_device():
    """A loop of before raises; a batch that cannot be read raises when it is its turn."""
    sampler, loader = made(20, 4, device="cuda", dataset=test_loader.Broken(20))
    stream = iter(loader)
    assert [next(stream)[0].item() for _ in range(2)] == [0, 4]
    with pytest.raises(ValueError, match="sample 9 is bad"):
        next(stream)
    assert so_far(sampler) == (0, 8)
    stream = iter(loader)
    sampler.reset()
    with pytest.raises(errors.StaleIteratorError):
        next(stream)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_benchmark_says_that_there_is_nothing_to_measure():
    """In words and without failing, where there is no device."""
    tool = REPOSITORY / "tools" / "bench" / "transfer.py"
    done = subprocess.run(
        [sys.executable, tool], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "no CUDA device: nothing to measure\n"
