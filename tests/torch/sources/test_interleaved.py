"""Interleaved datasets: shares by name, over ranks and resumes, with metrics and in each other."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
import torch

from globidx import DataLoader, ResumableDistributedSampler, collate, merge_states
from globidx.errors import RecordMismatchError
from globidx.metrics import MetricsAggregator, StandardMetricTransform
from globidx.mixture import InterleavedDataset, StopCriteria
from globidx.orders import Mixture, Sequential


def mixed(**options):
    """Numbers of three hundreds, in shares."""
    parts = {"a": range(60), "b": range(100, 130), "c": range(200, 210)}
    return InterleavedDataset(parts, {"c": 0.1, "b": 0.3, "a": 0.6}, **options)


def shares(samples):
    """How many samples are of each hundred."""
    return [Counter(int(sample) // 100 for sample in samples)[number] for number in range(3)]


def test_a_sampler_reads_it_in_its_shares():
    """With no order given, on ranks with workers; every batch is mixed."""
    dataset = mixed()
    assert ResumableDistributedSampler(dataset, 1, 0).order == dataset.order
    loaders = [
        DataLoader(
            dataset,
            5,
            sampler=ResumableDistributedSampler(dataset, 2, rank, seed=1),
            num_workers=rank,
        )
        for rank in range(2)
    ]
    for parts in zip(*loaders, strict=True):
        assert shares([sample for part in parts for sample in part]) == [6, 3, 1]


def test_a_run_goes_on_with_other_weights_by_name():
    """From a record of one mixture to one with other weights; other datasets are refused."""
    dataset = mixed(stop=StopCriteria.CYCLE_FOREVER)
    ranks = [ResumableDistributedSampler(dataset, 2, rank) for rank in range(2)]
    for sampler in ranks:
        assert len(list(islice(sampler, 10))) == 10
        sampler.commit(10)
    record = merge_states([sampler.state_dict() for sampler in ranks])
    parts = {"a": range(60), "b": range(100, 130), "c": range(200, 210)}
    other = InterleavedDataset(parts, {"a": 0.1, "b": 0.1, "c": 0.8}, stop="CYCLE_FOREVER")
    sampler = ResumableDistributedSampler(other, 1, 0)
    sampler.load_state_dict(record)
    assert shares([other[id] for id in list(sampler)[:20]]) == [2, 2, 16]
    fewer = InterleavedDataset([range(60), range(40)], [0.5, 0.5], stop="CYCLE_FOREVER")
    with pytest.raises(RecordMismatchError, match="order"):
        ResumableDistributedSampler(fewer, 1, 0).load_state_dict(record)


def test_metrics_have_the_names_of_the_datasets():
    """Each dataset's samples count for it, through a loader with workers."""
    texts = {
        name: [{"tokens": torch.ones(size)} for _ in range(20)]
        for name, size in (("web", 3), ("code", 7))
    }
    dataset = InterleavedDataset(texts, [0.75, 0.25], transform=StandardMetricTransform())
    sampler = ResumableDistributedSampler(dataset, 1, 0)
    aggregator = MetricsAggregator()
    loader = DataLoader(dataset, 4, sampler=sampler, num_workers=1, collate_fn=collate.pad())
    for step, batch in enumerate(loader):
        aggregator.update(batch["metrics"])
        if step == 4:
            break
    found = aggregator.get_metrics(prefix="train")
    assert found["train_web/samples_seen"] == 15 and found["train_code/tokens_seen"] == 5 * 7


def test_a_mixture_in_a_mixture_keeps_its_shares():
    """Half of the samples are of the inner one, three in ten of its samples of its second."""
    inner = InterleavedDataset(
        [range(70), range(100, 130)],
        [0.7, 0.3],
        dataset_name="inner",
        stop="ALL_DATASETS_EXHAUSTED",
    )
    outer = InterleavedDataset([inner, range(200, 300)], [0.5, 0.5], seed=3)
    assert outer.names == ["inner", "1"]
    assert shares(list(outer)[:100]) == [35, 15, 50]


def test_iterating_is_one_epoch_in_its_order():
    """As a loop over a dataset of torchtune's does; each dataset in the order that it was given."""
    dataset = InterleavedDataset(
        [range(6), range(100, 103)], [2 / 3, 1 / 3], orders=[Sequential()] * 2
    )
    assert sorted(dataset) == [*range(6), 100, 101, 102]
    assert [sample for sample in dataset if sample < 100] == list(range(6))
    assert dataset.order == Mixture((6, 3), (2 / 3, 1 / 3), orders=[Sequential()] * 2)


@pytest.mark.parametrize(
    ("datasets", "weights", "words"),
    [
        (
            {"a": range(3), "b": range(3)},
            {"a": 0.5, "c": 0.5},
            "weights are given for a, c, but the datasets are a, b",
        ),
        ([range(3), range(3)], [1.0], "2 datasets, 1 weights"),
    ],
)
def test_weights_are_of_the_datasets(datasets, weights, words):
    """By name, or one for each."""
    with pytest.raises(ValueError, match=words):
        InterleavedDataset(datasets, weights)


def test_names_that_occur_twice_are_refused():
    """Metrics of two datasets would be added up."""
    parts = [
        InterleavedDataset([range(3), range(3)], [0.5, 0.5], dataset_name="x") for _ in range(2)
    ]
    with pytest.raises(ValueError, match="two datasets are called 'x'"):
        InterleavedDataset(parts, [0.5, 0.5])
    with pytest.raises(TypeError, match="transform must add metrics"):
        InterleavedDataset([range(3)], [1.0], transform=str)
