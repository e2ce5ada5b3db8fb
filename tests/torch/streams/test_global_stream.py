"""A stream delivers what its sampler would, from any workers, and resumes on any ranks and workers."""

import copy
import gc
import itertools
import multiprocessing
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_workers import as_worker, batches
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

import globidx
from globidx import CheckpointManager, ResumableDistributedSampler, merge_states
from globidx.errors import CommitError, StaleIteratorError
from globidx.stream import GlobalStream

pytestmark = [
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),  # torchdata calls it
    # on a machine of few cores
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]
RANKS, WORKERS = (1, 2, 3), (0, 1, 2, 4)
GRID = list(itertools.product(RANKS, WORKERS))


@pytest.fixture(autouse=True)
def ended_workers():
    """Workers of loops that were left end here; a later test's worker would wait for them."""
    yield
    gc.collect()


def streams(n, ranks, *, states=None, **arguments):
    """A stream for each rank, which goes on from the merged states of other ranks."""
    made = [GlobalStream(range(n), ranks, rank, **arguments) for rank in range(ranks)]
    for stream in made if states else ():
        stream.load_state_dict(states)
    return made


def run(stream, *, workers, batch_size, most=None, commit=True):
    """The ids that a loop of at most so many batches trains on, each batch committed."""
    ids = []
    for batch in itertools.islice(batches(stream, workers=workers, batch_size=batch_size), most):
        ids += batch
        if commit:
            stream.commit(len(batch))
    return ids


def collate_list(batch):
    """A batch as the list that it is."""
    return list(batch)


@settings(max_examples=60)
@given(
    n=st.integers(0, 70),
    world=st.sampled_from(GRID),
    rank=st.integers(0, 2),
    batch_size=st.integers(1, 6),
    tail=st.sampled_from(["pad", "drop", "exact"]),
    done=st.integers(0, 9),
)
def test_what_is_delivered_is_what_the_sampler_yields(n, world, rank, batch_size, tail, done):
    """In the same sequence, from any number of workers, and also in the middle of an epoch."""
    ranks, workers = world
    stream = GlobalStream(range(n), ranks, rank % ranks, seed=3, tail=tail)
    sampler = ResumableDistributedSampler(range(n), ranks, rank % ranks, seed=3, tail=tail)
    done = min(done, max(0, len(sampler) - 1))
    stream.commit(done)
    sampler.commit(done)
    expected = [int(id) for id in sampler]
    assert run(stream, workers=workers, batch_size=batch_size, commit=False) == expected


@settings(max_examples=5)
@pytest.mark.parametrize("first", GRID)
@given(
    n=st.integers(30, 90),
    second=st.sampled_from(GRID),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    steps=st.lists(st.integers(0, 6), min_size=3, max_size=3),
    later=st.integers(0, 4),
)
def test_no_sample_is_lost_or_repeated_on_any_other_ranks_and_workers(
    first, n, second, sizes, steps, later
):
    """An epoch that is read by three worlds, saved anywhere, on ranks that have come differently far, has each id once."""
    (ranks, workers), states, seen = first, None, []
    for world, size, most in (
        (first, sizes[0], steps),
        (second, sizes[1], [later] * 3),
        ((ranks, workers), sizes[0], [None] * 3),
    ):
        made = streams(n, world[0], states=states, tail="exact", seed=5)
        if made[0].epoch:
            break
        for stream, limit in zip(made, most, strict=False):
            seen += run(stream, workers=world[1], batch_size=size, most=limit)
        states = merge_states([stream.state_dict() for stream in made])
    assert sorted(seen) == list(range(n))
    assert states["epoch"] == 1


@pytest.mark.parametrize(
    ("first", "second"), [((1, 4), (2, 1)), ((2, 1), (1, 2)), ((3, 2), (2, 0))]
)
def test_torchs_own_workers_lose_and_repeat_nothing(first, second):
    """The same with processes, batches that do not divide the samples, and a break in the middle."""
    n, seen, states = 53, [], None
    for (ranks, workers), size, most in ((first, 4, 3), (second, 3, None)):
        made = streams(n, ranks, states=states, tail="exact")
        for stream in made:
            loader = DataLoader(stream, batch_size=size, num_workers=workers)
            for batch in itertools.islice(loader, most):
                seen += batch.tolist()
                stream.commit(len(batch))
        states = merge_states([stream.state_dict() for stream in made])
    assert sorted(seen) == list(range(n)) and states["epoch"] == 1


@pytest.mark.slow
def test_spawned_workers_know_the_stream():
    """A pickled copy reads the rest of the epoch, and the main process takes its batches for those of its own."""
    stream = GlobalStream(range(40), 1, 0, seed=2)
    stream.set_epoch(3)
    stream.commit(7)
    expected = [int(id) for id in copy.copy(stream.sampler)]
    loader = DataLoader(stream, batch_size=4, num_workers=2, multiprocessing_context="spawn")
    seen = []
    for batch in loader:
        seen += batch.tolist()
        stream.commit(len(batch))
    assert seen == expected and stream.epoch == 4


def test_workers_begin_where_the_pass_does_however_late_they_are():
    """A worker that is asked for its first sample after batches of others were committed does not begin behind them."""
    stream = GlobalStream(range(24), 1, 0, shuffle=False)
    seen = []
    for batch in batches(stream, workers=3, batch_size=4):
        stream.commit(len(batch))
        seen += batch
    assert seen == list(range(24))


def test_each_pass_is_another_epoch():
    """Workers that are started anew follow the commits of the pass before, and set_epoch."""
    stream = GlobalStream(range(12), 1, 0)
    passes = [run(stream, workers=2, batch_size=5) for _ in range(2)]
    stream.set_epoch(7)
    passes.append(run(stream, workers=2, batch_size=5))
    sampler = ResumableDistributedSampler(range(12), 1, 0)
    for epoch, ids in zip((0, 1, 7), passes, strict=True):
        sampler.set_epoch(epoch)
        assert ids == [int(id) for id in sampler]
    assert stream.epoch == 8


def test_an_exact_tail_ends_the_epoch_on_ranks_with_fewer_samples():
    """Rank 1 of 2 has one of three samples; its next pass is the next epoch."""
    made = streams(3, 2, tail="exact", shuffle=False)
    for epoch in range(3):
        ids = [run(stream, workers=2, batch_size=1) for stream in made]
        assert ids == [[0, 2], [1]], epoch


# -- infinite streams


@settings(max_examples=20)
@given(
    n=st.integers(1, 20),
    world=st.sampled_from(GRID),
    batch_size=st.integers(1, 7),
    tail=st.sampled_from(["pad", "exact"]),
)
def test_an_infinite_stream_is_its_epochs_one_after_another(n, world, batch_size, tail):
    """Each epoch in its own order, batches across their ends, and the record that of the sampler."""
    ranks, workers = world
    # a rank that is dealt nothing by any epoch is refused
    n = max(n, ranks)
    for rank in range(ranks):
        stream = GlobalStream(range(n), ranks, rank, infinite=True, tail=tail, seed=1)
        ids = run(stream, workers=workers, batch_size=batch_size, most=12)
        sampler, expected, epoch = (
            ResumableDistributedSampler(range(n), ranks, rank, tail=tail, seed=1),
            [],
            0,
        )
        share = len(sampler)
        for epoch in itertools.count():
            sampler.set_epoch(epoch)
            if len(expected) + share > len(ids):
                break
            expected += [int(id) for id in sampler]
        rest = len(ids) - len(expected)
        expected += [int(id) for id in itertools.islice(sampler, rest)]
        assert ids == expected
        assert stream.sampler._ledger.done == (rest or stream.sampler._ledger.done)


def test_an_infinite_stream_resumes_in_a_later_epoch():
    """On other ranks and workers; what is left of that epoch comes first, each sample once."""
    n, made = 30, streams(30, 2, infinite=True, seed=4)
    read = [run(stream, workers=2, batch_size=4, most=5) for stream in made]
    states = merge_states([stream.state_dict() for stream in made])
    assert states["epoch"] == 1
    (alone,) = streams(n, 1, states=states, infinite=True, seed=4)
    left = alone.sampler.remaining
    rest = run(alone, workers=4, batch_size=5, most=left // 5 + 1)[:left]
    of_epoch = [id for ids in read for id in ids[n // 2 :]]
    assert sorted(of_epoch + rest) == list(range(n))


def test_an_infinite_stream_that_deals_a_rank_nothing_is_refused():
    """It would look for a sample for ever."""
    stream = GlobalStream(range(1), 2, 1, infinite=True, tail="exact")
    with pytest.raises(ValueError, match="deal nothing to rank 1 of 2"):
        next(iter(stream))


def test_skip_while_an_infinite_stream_runs_is_refused():
    """Workers went on without it, so the next epoch would be counted wrongly."""
    stream = GlobalStream(range(8), 1, 0, infinite=True)
    reading = batches(stream, workers=2, batch_size=4)
    stream.commit(len(next(reading)))
    stream.sampler.skip([3])
    with pytest.raises(CommitError, match=r"skip\(\) was called"):
        stream.commit(len(next(reading)))
    # a new loop gives that batch again, and then an epoch without it
    assert 3 not in run(stream, workers=2, batch_size=4, most=3)[4:] and stream.epoch == 2


# -- globidx.DataLoader


@pytest.mark.parametrize("most", [2, 5])
def test_torchs_loader_goes_on_where_globidx_loader_was_left(most):
    """The batch that was left is delivered again; after the last one the next epoch begins."""
    stream = GlobalStream(range(20), 1, 0)
    loader = iter(globidx.DataLoader(stream, batch_size=4))
    had = [id for _ in range(most) for id in next(loader).tolist()]
    # it was not come back for, and the last one of an epoch need not be
    del loader
    if most == 2:
        del had[4:]
    rest = run(stream, workers=2, batch_size=3)
    assert sorted(had + rest if most == 2 else rest) == list(range(20))
    assert stream.epoch == (1 if most == 2 else 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_globidx_loader_reads_a_stream_as_its_sampler_and_commits(workers):
    """A break in the middle, and another batch size: the epoch has each sample once."""
    stream = GlobalStream(range(20), 1, 0, output_transform=float)
    seen = []
    for batch in globidx.DataLoader(stream, batch_size=4, num_workers=workers):
        if len(seen) == 8:
            break
        seen += batch.tolist()
    loader = globidx.DataLoader(stream, batch_size=3, num_workers=workers)
    assert loader.sampler is stream.sampler and stream.sampler.remaining == 12
    for batch in loader:
        seen += batch.tolist()
    assert sorted(seen) == [float(id) for id in range(20)] and stream.epoch == 1


def test_globidx_loader_goes_on_without_end():
    """An infinite stream gives epoch after epoch, and what is left of one after a break; it has no length."""
    stream = GlobalStream(range(10), 1, 0, infinite=True)
    loader = globidx.DataLoader(stream, batch_size=4)
    read = [batch.tolist() for batch in itertools.islice(loader, 7)]
    assert list(map(len, read)) == [4, 4, 2, 4, 4, 2, 4]
    assert [sorted(itertools.chain(*read[at : at + 3])) for at in (0, 3)] == [list(range(10))] * 2
    assert loader.steps_per_epoch == 3 and stream.epoch == 2
    with pytest.raises(TypeError, match="no len"):
        len(loader)
    with pytest.raises(TypeError, match="no len"):
        len(stream)


def test_globidx_loader_without_a_batch_in_an_epoch_is_refused():
    """It would look for one for ever."""
    loader = globidx.DataLoader(GlobalStream(range(3), 1, 0, infinite=True), 4, drop_last=True)
    with pytest.raises(ValueError, match="no batch on this rank"):
        next(iter(loader))


def test_records_are_those_of_the_sampler(tmp_path):
    """A manager saves the stream's sampler, and either loads what the other wrote."""
    stream = GlobalStream(range(10), 1, 0)
    stream.commit(4)
    CheckpointManager(tmp_path, stream.sampler).save(1)
    sampler = ResumableDistributedSampler(range(10), 1, 0)
    CheckpointManager(tmp_path, sampler).restore()
    assert sampler.remaining == stream.sampler.remaining == 6
    back = GlobalStream(range(10), 1, 0)
    back.load_state_dict(sampler.state_dict())
    assert list(back) == list(stream)


# -- samples


class Batched:
    """A dataset that reads batches, and notes how they were asked for."""

    def __init__(self, n):
        self.n, self.asked = n, []

    def __len__(self):
        return self.n

    def __getitem__(self, id):
        raise AssertionError("not one by one")

    def __getitems__(self, ids):
        self.asked.append(len(ids))
        return [{"id": id} for id in ids]


def test_transforms_are_called_in_turn_and_samples_read_in_batches():
    """Message, model, output; a dataset that reads batches is asked for one at a time."""
    dataset = Batched(10)
    stream = GlobalStream(
        dataset,
        1,
        0,
        shuffle=False,
        message_transform=lambda sample: [sample["id"]],
        model_transform=lambda sample: [*sample, "model"],
        output_transform=tuple,
    )
    read = [sample for batch in DataLoader(stream, 4, collate_fn=collate_list) for sample in batch]
    assert read == [(id, "model") for id in range(10)] and dataset.asked == [4, 4, 2]


def test_a_filter_chooses_samples_before_they_are_dealt():
    """By the dataset's own method if there is one, so that lengths are exact and the record needs no more."""
    made = [GlobalStream(range(20), 2, rank, filter_fn=lambda id: id % 3 == 0) for rank in (0, 1)]
    assert [len(stream) for stream in made] == [4, 4]
    assert sorted({id for stream in made for id in stream}) == [0, 3, 6, 9, 12, 15, 18]

    class Filtering(list):
        def filter(self, function):
            return Filtering(filter(function, self))

    assert len(GlobalStream(Filtering(range(9)), 1, 0, filter_fn=lambda id: id > 4)) == 4


class Random(torch.utils.data.Dataset):
    """A dataset whose samples are the seed and epoch that they are drawn for."""

    def __init__(self):
        from globidx.torch.loops.moments import SharedMoment

        self.moment = SharedMoment()

    def __len__(self):
        return 6

    def __getitem__(self, id):
        return torch.tensor(self.moment.of([id]))


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_are_drawn_for_their_own_epoch(workers):
    """Workers of an infinite stream may be in different epochs at a time."""
    stream = GlobalStream(Random(), 1, 0, infinite=True, seed=9)
    loader = iter(DataLoader(stream, 4, num_workers=workers))
    epochs = torch.cat([next(loader) for _ in range(6)])
    assert epochs[:, 0].tolist() == [9] * 24
    assert epochs[:, 1].tolist() == [place // 6 for place in range(24)]


class Meeting(Random):
    """The same, where two workers wait for one another before they read: each has said its epoch by then."""

    def __init__(self):
        super().__init__()
        self.barrier = multiprocessing.get_context("fork").Barrier(2, timeout=60)

    def __getitems__(self, ids):
        self.barrier.wait()
        return [self[id] for id in ids]


def test_workers_do_not_disturb_one_another():
    """One is an epoch ahead of the other, in each of the first batches."""
    stream = GlobalStream(Meeting(), 1, 0, infinite=True)
    loader = iter(DataLoader(stream, 6, num_workers=2, multiprocessing_context="fork"))
    assert [sorted({epoch for _, epoch in next(loader).tolist()}) for _ in range(2)] == [[0], [1]]


# -- what is known


@pytest.mark.parametrize("tail", ["pad", "drop", "exact"])
def test_distribution_info_says_what_is_read(tail):
    """Counted by reading it."""
    for ranks, workers in GRID:
        for rank in range(ranks):
            stream = GlobalStream(range(25), ranks, rank, tail=tail)
            stream.commit(2)
            info = stream.distribution_info(workers, batch_size=3)
            count = len(run(stream, workers=workers, batch_size=3, commit=False))
            assert info["total"] == 25 - 2 * ranks
            assert info["per_rank"][rank] == info["assigned"] == sum(info["per_worker"]) == count
            assert len(info["per_rank"]) == ranks and len(info["per_worker"]) == max(1, workers)


class Telling(IterableDataset):
    """What a stream says of its division, in each worker, and how much it then reads there."""

    def __init__(self, stream):
        self.stream = stream

    def __iter__(self):
        info = self.stream.distribution_info()
        yield info["assigned"], len(list(self.stream)), get_worker_info().id


def test_a_worker_knows_what_it_is_assigned():
    """In a worker, the number of workers need not be passed."""
    stream = GlobalStream(range(11), 1, 0)
    told = [
        sample
        for batch in DataLoader(Telling(stream), 1, num_workers=3, collate_fn=collate_list)
        for sample in batch
    ]
    assert sorted(told, key=lambda one: one[2]) == [(4, 4, 0), (4, 4, 1), (3, 3, 2)]


# -- what is refused


def test_another_batch_size_than_the_loaders_is_refused():
    """With workers it would deliver no prefix; without, nothing depends on it."""
    stream = GlobalStream(range(20), 1, 0, batch_size=5)
    with pytest.raises(ValueError, match=r"batches of 4 .* made with batch_size=5"):
        list(DataLoader(stream, batch_size=4, num_workers=2))
    assert len(list(DataLoader(stream, batch_size=4))) == 5


class Halved(IterableDataset):
    """Every second sample of a stream."""

    def __init__(self, stream):
        self.stream = stream

    def __iter__(self):
        return itertools.islice(self.stream, 0, None, 2)


def test_a_dataset_around_the_stream_that_leaves_samples_out_is_refused():
    """Its batches would not be those that the stream counts."""
    with pytest.raises(
        ValueError, match="a batch has 3 samples already where the stream begins one"
    ):
        list(batches(Halved(GlobalStream(range(40), 1, 0)), workers=2, batch_size=5))


class Mapped(Halved):
    """Each sample of a stream, changed."""

    def __iter__(self):
        for id in self.stream:
            yield -id


def test_a_dataset_around_the_stream_that_keeps_all_samples_is_read():
    """Samples may be changed one by one."""
    stream = GlobalStream(range(23), 1, 0, shuffle=False)
    read = [id for batch in batches(Mapped(stream), workers=3, batch_size=4) for id in batch]
    assert read == [-id for id in range(23)]


def test_workers_of_an_unknown_loader_need_the_batch_size():
    """Nobody else says where a batch ends."""
    from torch.utils.data._utils.worker import WorkerInfo

    for size in (None, 2):
        stream = GlobalStream(range(8), 1, 0, shuffle=False, batch_size=size)
        with as_worker(WorkerInfo(id=1, num_workers=2, seed=0, dataset=stream)):
            if size:
                assert list(stream) == [2, 3, 6, 7]
            else:
                with pytest.raises(ValueError, match="pass GlobalStream"):
                    next(iter(stream))


def test_persistent_workers_are_refused_in_their_second_pass():
    """They hold the stream as it was when they started."""
    stream = GlobalStream(range(8), 1, 0)
    loader = DataLoader(stream, 2, num_workers=1, persistent_workers=True)
    for batch in loader:
        stream.commit(len(batch))
    with pytest.raises(StaleIteratorError, match="persistent_workers"):
        next(iter(loader))


@pytest.mark.parametrize(
    ("move", "why"),
    [
        (lambda stream: stream.set_epoch(4), "was set to epoch 4"),
        (lambda stream: stream.sampler.reset(), "was reset"),
        (lambda stream: stream.sampler.finish_epoch(), "finished epoch 0"),
        (lambda stream: stream.load_state_dict(stream.state_dict()), "was loaded with a record"),
    ],
)
@pytest.mark.parametrize("committed", [0, 2])
def test_what_a_loop_had_before_the_sampler_moved_on_cannot_be_committed(move, why, committed):
    """A new loop can."""
    stream = GlobalStream(range(20), 1, 0)
    reading = batches(stream, workers=2, batch_size=2)
    for _ in range(committed):
        stream.commit(len(next(reading)))
    move(stream)
    with pytest.raises(CommitError, match=why):
        stream.commit(len(next(reading)))
    left = stream.sampler.remaining
    assert len(run(stream, workers=2, batch_size=2)) == left


def test_more_than_the_pass_had_cannot_be_committed():
    """The batch of all ranks in place of one's own would end the epoch at half of it, and then the next."""
    stream = GlobalStream(range(16), 2, 0)
    reading = batches(stream, workers=2, batch_size=2)
    for _ in range(2):
        stream.commit(2 * len(next(reading)))
    with pytest.raises(CommitError, match=r"commit\(4\), but all samples of the pass"):
        stream.commit(2 * len(next(reading)))


def test_more_than_an_exact_tail_dealt_cannot_be_committed():
    """Other ranks have a sample more, so the epoch is not over, and this one's is."""
    _, stream = streams(3, 2, tail="exact")
    assert len(run(stream, workers=2, batch_size=1)) == 1
    with pytest.raises(CommitError, match="only 0 ids left"):
        stream.commit(1)


def test_a_worker_is_no_training_loop():
    """Its copy of the stream knows nothing of what was delivered."""
    from torch.utils.data._utils.worker import WorkerInfo

    stream = GlobalStream(range(8), 1, 0)
    with as_worker(WorkerInfo(id=0, num_workers=2, seed=0, dataset=stream)):
        for call in (stream.state_dict, lambda: stream.commit(1), lambda: stream.set_epoch(1)):
            with pytest.raises(CommitError, match="call it in the training loop"):
                call()


def test_torchdatas_loader_is_refused():
    """It keeps a state of each worker."""
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    with pytest.raises(CommitError, match="StatefulDataLoader"):
        list(stateful.StatefulDataLoader(GlobalStream(range(8), 1, 0), batch_size=2))


def test_a_copy_is_read_and_committed_by_itself():
    """Neither knows of the other's loops."""
    stream = GlobalStream(range(12), 1, 0)
    stream.set_epoch(1)
    run(stream, workers=2, batch_size=2, most=2)
    for made in (copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))):
        # of what another process has had, say
        made.commit(2)
        assert len(run(made, workers=2, batch_size=2)) == 6 and made.epoch == 2
    assert stream.sampler.remaining == 8
    assert len(run(stream, workers=2, batch_size=2)) == 8


@pytest.mark.parametrize(
    ("dataset", "arguments", "match"),
    [
        (Halved(range(4)), {}, "map-style dataset"),
        ({1, 2}, {}, "map-style dataset"),
        (range(4), {"batch_size": 0}, "batch_size"),
        (range(4), {"tails": "exact"}, "tails"),
    ],
)
def test_bad_arguments_are_refused(dataset, arguments, match):
    """What, which value, and which rule."""
    with pytest.raises((TypeError, ValueError), match=match):
        GlobalStream(dataset, 1, 0, **arguments)
