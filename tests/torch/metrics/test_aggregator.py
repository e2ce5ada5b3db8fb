"""Metrics over real ranks: the results of one process, on every rank, before and after resumes."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
from metric_oracle import by_hand
from processes import clean_environment, run_ranks

import globidx
from globidx import CheckpointManager, DataLoader, ResumableDistributedSampler, errors
from globidx.metrics import (
    Aggregate,
    AggregationType,
    Metric,
    MetricsAggregator,
    MetricTransform,
    StandardMetricTransform,
)
from globidx.torch.ranks.channel import Channel

WINDOW, SIZE = 37, 203


class Last(Aggregate):
    """A handler of one's own: the latest value."""

    latest = ((-1, 0, 0), None)

    def add(self, value, moment):
        self.latest = (tuple(moment), value)

    def merge(self, other):
        self.latest = max(self.latest, other.latest)

    def results(self):
        return {"": self.latest[1]}

    def state(self):
        return {"latest": [list(self.latest[0]), self.latest[1]]}

    def load(self, state):
        moment, value = state["latest"]
        self.latest = (tuple(moment), value)


class Values(MetricTransform):
    """Metrics of a sample that has an id: one of each type."""

    def _generate_metrics(self, sample):
        id = int(sample["id"])
        value = random.Random(id).choice([id, id / 7, -(2**70) * id, float("nan"), float("inf")])
        kinds = [kind for kind in AggregationType if kind != "categorical_count"]
        return [
            *(Metric(self.dataset_name, kind, value, kind) for kind in kinds),
            Metric(self.dataset_name, "kind", id % 3, AggregationType.CATEGORICAL_COUNT),
        ]


class Samples(torch.utils.data.Dataset):
    """Samples with tokens, and metrics of two transforms."""

    def __init__(self):
        self.transforms = [Values(), StandardMetricTransform()]
        for transform in self.transforms:
            transform.set_dataset_name("samples")

    def __len__(self):
        return SIZE

    def __getitem__(self, id):
        sample = {"id": id, "tokens": torch.zeros(4), "text": "a" * (id % 5)}
        for transform in self.transforms:
            sample = transform(sample)
        # in workers, too, samples differ in length only in their metrics
        return sample


def expected_of(ids):
    """The results of these samples, in this sequence, in one process, by hand."""
    dataset = Samples()
    metrics = [metric for id in ids for metric in dataset[id]["metrics"]]
    return by_hand(
        [(it.dataset_name, it.metric_name, it.value, it.agg_type) for it in metrics], WINDOW
    )


def leg(folder, batch_size, steps, *, workers=0, group=None):
    """Restore, train some steps, save; the ids of this rank, and the results before and after."""
    dataset = Samples()
    sampler = ResumableDistributedSampler(dataset, seed=3, tail="exact", group=group)
    aggregator = MetricsAggregator(WINDOW, group=group)
    objects = {"sampler": sampler, "metrics": aggregator}
    manager = CheckpointManager(folder, objects, group=group)
    manager.restore()
    restored, ids = aggregator.get_metrics(), []
    for batch in DataLoader(dataset, batch_size=batch_size, sampler=sampler, num_workers=workers):
        aggregator.update(batch.pop("metrics"))
        ids.append(batch["id"].tolist())
        if len(ids) == steps:
            # of two saves, the second one counts nothing twice
            manager.save(1)
            manager.save(2)
            break
    return ids, restored, aggregator.get_metrics()


def in_order(told):
    """The ids of all ranks in the sequence in which positions were dealt."""
    steps = zip(*(ids for ids, *_ in told), strict=True)
    return [card for hands in steps for cards in zip(*hands, strict=True) for card in cards]


def elastic(rank, folder):
    """A leg on two ranks, and the next one on three."""
    two, three = (dist.new_group(list(range(size))) for size in (2, 3))
    first = leg(folder, 4, 9, group=two) if rank < 2 else None
    dist.barrier()
    return first, leg(folder, 3, 6, group=three) if rank < 3 else None


def uneven(rank):
    """The results on ranks of which some have no metrics, and the others have keys of their own."""
    aggregator = MetricsAggregator()
    if rank == 0:
        aggregator.update([Metric("a", "mean", value, AggregationType.MEAN) for value in (1, 2, 6)])
        aggregator.update([Metric("only", "rank 0", 0.5, AggregationType.SUM)])
    if rank == 2:
        aggregator.update([Metric("a", "mean", 11, AggregationType.MEAN)])
        aggregator.update([Metric("only", "rank 2", -7, AggregationType.MAX)])
    collectives, all_gather = [], Channel.all_gather
    Channel.all_gather = lambda *given: collectives.append(1) or all_gather(*given)
    told = aggregator.get_metrics(), aggregator.get_metrics(prefix="train")
    Channel.all_gather = all_gather
    return *told, len(collectives)


def refused(rank, folder):
    """What ranks that do not fit each other are told, in results and in a save; then what works again."""
    aggregator = MetricsAggregator()
    kind = AggregationType.SUM if rank == 2 else AggregationType.MEAN
    aggregator.update([Metric("a", "x", rank, kind), Metric("a", "y", rank, "sum")])
    manager = CheckpointManager(folder, {"metrics": aggregator})
    told = []
    for call in (aggregator.get_metrics, lambda: manager.save(1)):
        with pytest.raises(ValueError, match="is aggregated by") as error:
            call()
        told.append(str(error.value))
    fresh = MetricsAggregator()
    fresh.update([Metric("a", "y", rank, "sum")])
    return told, fresh.get_metrics()


def with_peers(rank, folder):
    """Two data-parallel ranks of two tensor-parallel peers each, which have the same samples."""
    group = [dist.new_group([peer, peer + 2]) for peer in range(2)][rank % 2]
    aggregator = MetricsAggregator(group=group)
    aggregator.update([Metric("a", "samples_seen", 10 + rank // 2, "sum")])
    CheckpointManager(folder, {"metrics": aggregator}).save(1)
    resumed = MetricsAggregator(group=group)
    CheckpointManager(folder, {"metrics": resumed}).restore()
    return aggregator.get_metrics(), resumed.get_metrics()


def left_alone(rank):
    """Rank 3 asks for nothing; which ranks the others are told of, and how."""
    aggregator = MetricsAggregator(timeout=2)
    if rank == 3:
        return None
    with pytest.raises(errors.LostRankError) as told:
        aggregator.get_metrics()
    return told.value.ranks, str(told.value)


def everything(rank, world_size, folder):
    """All that is done on four ranks, in one job: it takes seconds to start one."""
    return {
        "elastic": elastic(rank, folder / "elastic"),
        "uneven": uneven(rank),
        "refused": refused(rank, folder / "refused"),
        "with_peers": with_peers(rank, folder / "peers"),
        "left_alone": left_alone(rank),
    }


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The folder of a job of four ranks, and what was done on each, by its name."""
    folder = tmp_path_factory.mktemp("job")
    ranks = run_ranks(4, everything, folder)
    return folder, {name: [rank[name] for rank in ranks] for name in ranks[0]}


@pytest.mark.slow
def test_a_run_on_two_then_three_then_one_rank_has_the_metrics_of_one_process(job):
    """To the last bit, on every rank, by records of sampler and metrics; workers load in the last leg."""
    folder, told = job
    two, three = ([leg for leg in legs if leg] for legs in zip(*told["elastic"], strict=True))
    one = [leg(folder / "elastic", 5, 4, workers=2)]
    seen = []
    for ranks in (two, three, one):
        for _, restored, _ in ranks:
            assert restored == expected_of(seen)
        seen += in_order(ranks)
        for _, _, results in ranks:
            assert results == expected_of(seen)
            assert {type(results[name]) for name in results if "s_seen" in name} == {int}
    assert len(set(seen)) == len(seen) == 2 * 4 * 9 + 3 * 3 * 6 + 5 * 4


@pytest.mark.slow
def test_a_rank_without_metrics_neither_hangs_nor_distorts(job):
    """All ranks have the same results, by one gathering a call; a mean weighs by count."""
    told = job[1]["uneven"]
    plain, prefixed, collectives = told[0]
    assert told == [told[0]] * 4
    assert plain == {"a/mean": 5.0, "only/rank 0": 0.5, "only/rank 2": -7}
    assert prefixed == {f"train_{name}": value for name, value in plain.items()}
    assert collectives == 2


@pytest.mark.slow
def test_ranks_that_aggregate_a_key_differently_are_told_so_on_all_of_them(job):
    """One error on every rank, and nothing is saved; other aggregators go on."""
    folder, told = job
    assert told["refused"] == [told["refused"][0]] * 4
    texts, afterwards = told["refused"][0]
    for text in texts:
        assert (
            "metric 'x' of dataset 'a' is aggregated by mean on rank 0, and by sum on rank 2"
            in text
        )
    assert afterwards == {"a/y": 6} and not list((folder / "refused").glob("*.json"))


@pytest.mark.slow
def test_tensor_parallel_peers_count_once(job):
    """In results and in records, given the group of the data-parallel ranks."""
    assert job[1]["with_peers"] == [({"a/samples_seen": 21},) * 2] * 4


@pytest.mark.slow
def test_a_rank_that_does_not_ask_is_named_in_time(job):
    """As in every other collective here."""
    *others, _ = job[1]["left_alone"]
    for ranks, text in others:
        assert ranks == (3,) and text.startswith("get_metrics: not all ranks answered within 2 s")


@pytest.fixture
def as_rank(monkeypatch):
    """Makes an aggregator that believes itself to be a rank, as torchrun's variables tell it, until the next one is made."""

    def make(rank, world_size, window=WINDOW):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(world_size))
        return MetricsAggregator(window)

    return make


def test_a_state_is_taken_over_by_one_rank_whoever_loads_it(as_rank):
    """Each rank its own, or all of them one: nothing is counted twice, and with fewer ranks nothing is lost."""
    states = []
    for rank in range(4):
        aggregator = as_rank(rank, 4)
        aggregator.update([Metric("a", "x", 10**rank, "sum")])
        states.append(aggregator.state_dict())
    merged = aggregator.merge_states(states)

    def total(world_size, state_of):
        parts = []
        for rank in range(world_size):
            aggregator = as_rank(rank, world_size)
            for state in state_of(rank):
                aggregator.load_state_dict(state)
            parts.append(aggregator.state_dict())
        return aggregator.merge_states(parts)["metrics"].get("a", {"x": {"state": {"sum": 0}}})["x"]

    assert total(4, lambda rank: [states[rank]])["state"]["sum"] == 1111
    assert total(4, lambda _: [states[2]])["state"]["sum"] == 100
    assert total(2, lambda _: [states[3]])["state"]["sum"] == 1000
    for world_size in (1, 2, 7):
        assert total(world_size, lambda _: [merged])["state"]["sum"] == 1111
        assert total(world_size, lambda _: [merged, merged])["state"]["sum"] == 1111


def test_after_a_resume_on_more_ranks_new_values_are_the_latest_on_all(as_rank):
    """A rank that began anew at update 0 would have its values taken for old ones."""
    before = as_rank(0, 1, window=2)
    for value in range(50):
        before.update([Metric("a", "x", value, "distribution")])
    merged, states = before.merge_states([before.state_dict()]), []
    for rank in range(2):
        resumed = as_rank(rank, 2, window=2)
        resumed.load_state_dict(merged)
        resumed.update([Metric("a", "x", 100 + rank, "distribution")])
        states.append(resumed.state_dict())
    total = as_rank(0, 1, window=2)
    total.load_state_dict(total.merge_states(states))
    results = total.get_metrics()
    assert (results["a/x_stat_min"], results["a/x_stat_max"]) == (100, 101)


def test_a_window_of_another_size_takes_what_it_has_room_for():
    """The size is the aggregator's, and not the record's."""
    first = MetricsAggregator(10)
    first.update([Metric("a", "x", value, "distribution") for value in range(10)])
    for size, expected in ((3, [7, 3]), (20, [0, 10])):
        resumed = MetricsAggregator(size)
        resumed.load_state_dict(first.state_dict())
        results = resumed.get_metrics()
        assert [results["a/x_stat_min"], results["a/x_stat_count"]] == expected


def test_a_handler_of_ones_own_is_saved_and_restored(tmp_path):
    """By its name; without it the record is refused, and says what to do."""
    aggregator = MetricsAggregator()
    aggregator.register("last", Last)
    for rate in (0.1, 0.01):
        aggregator.update([Metric("train", "lr", rate, "last")])
    CheckpointManager(tmp_path, {"metrics": aggregator}).save(1)
    resumed = MetricsAggregator()
    manager = CheckpointManager(tmp_path, {"metrics": resumed})
    with pytest.raises(errors.RecordMismatchError, match="by 'last', which has no handler here"):
        manager.restore()
    resumed.register("last", Last)
    manager.restore()
    assert resumed.get_metrics() == {"train/lr": 0.01}


@pytest.mark.parametrize("handler", [list, lambda: None])
def test_a_handler_that_makes_no_aggregate_is_refused(handler):
    """At once, and not at the first metric."""
    with pytest.raises(TypeError, match="the handler of last must make a globidx.metrics.Aggreg"):
        MetricsAggregator().register("last", handler)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, None])
def test_a_window_of_no_size_is_refused(size):
    """By name."""
    with pytest.raises((TypeError, ValueError), match="dist_window_size must be"):
        MetricsAggregator(size)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.tensor(0.5), 0.5),
        (torch.tensor(3), 3),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
    ],
)
def test_a_tensor_without_axes_is_a_number(value, expected):
    """As a loss is; one with axes is refused."""
    aggregator = MetricsAggregator()
    aggregator.update([Metric("a", "x", value, "sum")])
    assert aggregator.get_metrics() == {"a/x": expected}
    with pytest.raises(TypeError, match="which is no number"):
        aggregator.update([Metric("a", "x", torch.ones(1), "sum")])


def test_results_are_fresh_and_ask_changes_nothing():
    """A state taken later is the one from before."""
    aggregator = MetricsAggregator()
    aggregator.update([Metric("a", "x", np.float32(1), "distribution")])
    before = json.dumps(aggregator.state_dict())
    aggregator.get_metrics().clear()
    assert json.dumps(aggregator.state_dict()) == before and aggregator.get_metrics()
    assert repr(aggregator) == "MetricsAggregator(dist_window_size=1000)"


def test_ranks_that_have_no_process_group_yet_are_told_so():
    """Each of them would otherwise report its own metrics as those of all."""
    program = """
from globidx.metrics import MetricsAggregator
try:
    MetricsAggregator().get_metrics()
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment(RANK="3", WORLD_SIZE="8"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "rank 3 of 8, as the environment says" in done.stdout
    assert "call init_process_group before get_metrics" in done.stdout
    assert os.environ.get("WORLD_SIZE") is None


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("loader", [globidx.DataLoader, torch.utils.data.DataLoader])
def test_metrics_travel_with_samples_through_workers(workers, loader):
    """What was read ahead does not count; any loader has them joined that collates with globidx.collate.default."""
    dataset = Samples()
    aggregator = MetricsAggregator(WINDOW)
    batches = loader(dataset, batch_size=8, num_workers=workers, collate_fn=globidx.collate.default)
    for number, batch in enumerate(batches):
        metrics = batch.pop("metrics")
        assert all(type(metric) is Metric for metric in metrics)
        aggregator.update(metrics)
        assert batch["text"] == ["a" * (id % 5) for id in batch["id"].tolist()]
        if number == 3:
            break
    assert aggregator.get_metrics() == expected_of(range(32))
