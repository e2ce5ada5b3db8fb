"""Packs as samples: each token once an epoch, whatever is resumed on, and the packs of their epoch."""

import json
import pickle

import numpy as np
import pytest
import torch
from files import write_zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx import (
    CheckpointManager,
    DataLoader,
    FileCacheDataset,
    GlobalIndexManager,
    MapDataset,
    ResumableDistributedSampler,
    errors,
    merge_states,
    sample_rng,
)
from globidx.packing import PackedDataset, document_lengths, flatten, pack

LENGTHS = np.random.default_rng(0).integers(1, 20, 60).tolist()


class Documents(torch.utils.data.Dataset):
    """Documents whose tokens all differ, so that a lost or repeated one is seen. It counts its reads."""

    fingerprint = "documents-1"

    def __init__(self, lengths=LENGTHS):
        self.starts = np.cumsum([0, *lengths]).tolist()
        self.reads = []

    def __len__(self):
        return len(self.starts) - 1

    def __getitem__(self, id):
        return torch.arange(self.starts[id], self.starts[id + 1])

    def __getitems__(self, ids):
        self.reads.append(list(ids))
        return [self[id] for id in ids]


def packed(lengths=LENGTHS, budget=32, *, repack=False, pad=None, **options):
    """Those documents, in packs."""
    return PackedDataset(
        Documents(lengths), pack(lengths, budget, **options), repack=repack, pad=pad
    )


def loaders(dataset, world, batch, record, seed=7, **options):
    """The loader of each rank of a run that goes on from a record."""
    for rank in range(world):
        sampler = ResumableDistributedSampler(dataset, world, rank, seed=seed, tail="exact")
        if record is not None:
            sampler.load_state_dict(record)
        yield DataLoader(dataset, batch, sampler=sampler, collate_fn=flatten, **options)


def leg(dataset, world, batch, record, steps, **options):
    """(tokens that the ranks were given, record) of so many steps in step, or of the rest of the epoch."""
    tokens, states = [], []
    for loader in loaders(dataset, world, batch, record, **options):
        for step, row in enumerate(loader, 1):
            tokens += row["tokens"].tolist()
            if step == steps:
                # while the loop holds its batch, which then counts
                states.append(loader.sampler.state_dict())
                break
        else:
            states.append(loader.sampler.state_dict())
    # as it comes back from a file
    return tokens, json.loads(json.dumps(merge_states(states)))


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(),
    method=st.sampled_from(["first_fit_decreasing", "next_fit", "concat_and_split"]),
    repack=st.booleans(),
    lengths=st.lists(st.integers(0, 12), min_size=10, max_size=60),
)
def test_each_token_is_trained_on_once_however_often_the_run_resumes(data, method, repack, lengths):
    """Random world sizes and batch sizes, two epochs, each stopped in the middle several times."""

    def dataset():
        """As another process makes it, of nothing but the lengths."""
        return packed(
            lengths, 16, method=method, seed=3, window=25, repack=repack and method != "next_fit"
        )

    record = None
    for epoch in range(2):
        seen, left = [], len(dataset())
        for _ in range(3):
            world, batch = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
            steps = data.draw(st.integers(0, 3))
            # the last step of an epoch is the next loop's
            if steps and world * batch * steps < left:
                tokens, record = leg(dataset(), world, batch, record, steps)
                seen += tokens
                left -= world * batch * steps
                assert record["epoch"] == epoch
        tokens, record = leg(dataset(), data.draw(st.integers(1, 4)), 2, record, None)
        assert sorted(seen + tokens) == list(range(sum(lengths)))
        if left:
            assert record["epoch"] == epoch + 1


def test_a_sample_is_what_its_pack_says():
    """Tokens of its documents, one behind the other; pieces of those that are cut."""
    for method in ("first_fit_decreasing", "next_fit", "concat_and_split"):
        dataset = packed(method=method)
        starts = dataset.dataset.starts
        for id, one in enumerate(dataset.packs):
            sample, expected = dataset[id], []
            for document, start, stop in zip(*(column.tolist() for column in one), strict=True):
                expected += range(starts[document] + start, starts[document] + stop)
            assert sample["tokens"].tolist() == expected
            assert sample["documents"].tolist() == one.documents.tolist()
            assert len(sample["position_ids"]) == len(expected)


def test_padded_samples_have_one_shape():
    """So that the default collate function stacks them; values by field."""
    dataset = packed(pad={"tokens": -100})
    loader = DataLoader(dataset, 4, sampler=ResumableDistributedSampler(dataset, 1, 0))
    batch = next(iter(loader))
    most = dataset.packs.most_documents
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    row = (4, 32)
    assert shapes == {
        "tokens": row,
        "document_ids": row,
        "position_ids": row,
        "cu_seqlens": (4, most + 2),
        "max_seqlen": (4,),
        "documents": (4, most),
    }
    padding = batch["document_ids"] == -1
    assert torch.equal(padding, batch["tokens"] == -100)


def test_a_batch_is_one_read():
    """Of each document once, though pieces of it lie in several packs."""
    dataset = packed([50, 50, 3], 16, method="concat_and_split")
    samples = dataset.__getitems__([0, 1, 2, 3])
    assert len(dataset.dataset.reads) == 1
    read = dataset.dataset.reads[0]
    assert len(read) == len(set(read)) <= 3
    assert all(len(sample["tokens"]) == 16 for sample in samples)


def test_fields_of_one_length_are_packed_alike(tmp_path):
    """Tokens in one zarr array with offsets, and a flag for each; lengths are those of the offsets."""
    offsets = np.cumsum([0, *LENGTHS])
    tokens = np.arange(offsets[-1])
    write_zarr(
        tmp_path / "a.zarr", {"tokens": tokens, "flag": tokens % 3, "offsets": offsets}, chunk=64
    )
    key = {"tokens": "tokens[offsets]", "flag": "flag[offsets]"}
    documents = FileCacheDataset(GlobalIndexManager(str(tmp_path), key=key))
    lengths = document_lengths(documents, "tokens")
    assert lengths.tolist() == LENGTHS
    dataset = PackedDataset(documents, pack(lengths, 32))
    sample = dataset[3]
    assert torch.equal(sample["flag"], sample["tokens"] % 3)
    of, inside = sample["documents"][sample["document_ids"]], sample["position_ids"]
    assert torch.equal(sample["tokens"], torch.from_numpy(offsets)[of] + inside)
    alone = PackedDataset(documents, pack(lengths, 32), fields="flag")
    assert "tokens" not in alone[3] and torch.equal(alone[3]["flag"], sample["flag"])


def tokens_by_epoch(dataset, epochs=3, seed=7, **options):
    """The tokens of each pack, by epoch, as sets."""
    sampler = ResumableDistributedSampler(dataset, 1, 0, seed=seed)
    loader = DataLoader(dataset, None, sampler=sampler, **options)
    return [{tuple(sample["tokens"].tolist()) for sample in loader} for _ in range(epochs)]


def test_each_epoch_has_packs_of_its_own_where_asked():
    """``packs.for_epoch``, in this process and in workers that live on; without ``repack`` all have the same."""
    found = tokens_by_epoch(packed(repack=True))
    assert found == tokens_by_epoch(packed(repack=True), num_workers=2, persistent_workers=True)
    packs = packed().packs
    for epoch, tokens in enumerate(found):
        one_epoch = PackedDataset(Documents(), packs.for_epoch(epoch))
        assert tokens == {tuple(one_epoch[id]["tokens"].tolist()) for id in range(len(one_epoch))}
    assert found[0] != found[1] != found[2]
    same = tokens_by_epoch(packed())
    assert same[0] == same[1] == same[2]


def test_a_loader_of_torch_reads_the_packs_of_the_epoch_too():
    """Its ids carry no epoch; the sampler has told the dataset."""
    dataset = packed(repack=True)
    sampler = ResumableDistributedSampler(dataset, 1, 0, seed=7)
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, sampler=sampler)
    for tokens in tokens_by_epoch(packed(repack=True)):
        found = set()
        for sample in loader:
            found.add(tuple(sample["tokens"].tolist()))
            sampler.commit(1)
        assert found == tokens
    assert dataset.packs.epoch == 2


def test_a_checkpoint_of_a_repacked_epoch_is_restored_by_its_record_alone(tmp_path):
    """Saved in epoch 1; two ranks that know the lengths and the folder go on, whatever epoch they begin at."""

    def made(world=1, rank=0):
        dataset = packed(repack=True)
        sampler = ResumableDistributedSampler(dataset, world, rank, seed=7, tail="exact")
        loader = DataLoader(dataset, 2, sampler=sampler, collate_fn=flatten)
        return CheckpointManager(tmp_path, sampler), loader

    manager, loader = made()
    assert sorted(t for row in loader for t in row["tokens"].tolist()) == list(range(sum(LENGTHS)))
    seen = []
    for step, row in enumerate(loader):
        seen += row["tokens"].tolist()
        if step == 2:
            manager.save(1)
            break
    record = manager.state_dict()["states"]["sampler"]
    assert record["epoch"] == 1
    for rank in range(2):
        _, loader = made(2, rank)
        assert loader.dataset.packs.epoch == 0
        loader.sampler.load_state_dict(record)
        seen += [t for row in loader for t in row["tokens"].tolist()]
        assert loader.dataset.packs.epoch == 1
    assert sorted(seen) == list(range(sum(LENGTHS)))


def test_documents_draw_as_samples_do():
    """A document's random numbers are those of its id, its epoch and the sampler's seed, in any pack."""

    def noisy(document, rng):
        return document * 0 + int(rng.integers(10**6))

    documents = MapDataset(Documents(), transform=noisy)
    dataset = PackedDataset(documents, pack(LENGTHS, 32), repack=True)
    sampler = ResumableDistributedSampler(dataset, 1, 0, seed=7)
    loader = DataLoader(dataset, None, sampler=sampler)
    for epoch in range(2):
        for sample in loader:
            drawn = [
                int(sample_rng(7, epoch, id).integers(10**6)) for id in sample["documents"].tolist()
            ]
            assert sample["tokens"].tolist() == [drawn[of] for of in sample["document_ids"]]


def test_two_samplers_of_one_dataset_read_their_own_epochs():
    """A batch brings its epoch with it, for the packs and for the random numbers of documents."""

    def noisy(document, rng):
        return document * 0 + int(rng.integers(10**6))

    documents = MapDataset(Documents(), transform=noisy)
    dataset = PackedDataset(documents, pack(LENGTHS, 32), repack=True)
    loops = []
    for epoch in (1, 2):
        sampler = ResumableDistributedSampler(dataset, 1, 0, seed=7)
        sampler.set_epoch(epoch)
        loops.append(iter(DataLoader(dataset, 1, sampler=sampler, collate_fn=flatten)))
    seen = {1: [], 2: []}
    for rows in zip(*loops, strict=True):
        for epoch, row in zip(seen, rows, strict=True):
            ids = row["documents"].tolist()
            drawn = [int(sample_rng(7, epoch, id).integers(10**6)) for id in ids]
            assert row["tokens"].tolist() == [drawn[of] for of in row["document_ids"]]
            seen[epoch].append(ids)
    for epoch, packs in seen.items():
        expected = [one.documents.tolist() for one in pack(LENGTHS, 32, epoch=epoch)]
        assert sorted(packs) == sorted(expected)


def test_a_record_refuses_other_packs_and_other_documents(tmp_path):
    """By the fingerprint, which says all that a pack depends on."""
    dataset = packed()
    sampler = ResumableDistributedSampler(dataset, 1, 0)
    sampler.commit(3)
    record = sampler.state_dict()
    ResumableDistributedSampler(packed(), 1, 0).load_state_dict(record)
    renamed = Documents()
    renamed.fingerprint = "documents-2"
    others = [
        packed(seed=1),
        packed(epoch=1),
        packed(repack=True),
        packed(shuffle=False),
        PackedDataset(renamed, pack(LENGTHS, 32)),
        PackedDataset([torch.arange(n) for n in LENGTHS], pack(LENGTHS, 32)),
    ]
    for other in others:
        assert len(other) == len(dataset)
        with pytest.raises(errors.RecordMismatchError, match=r"dataset\.fingerprint"):
            ResumableDistributedSampler(other, 1, 0).load_state_dict(record)


def test_documents_without_a_fingerprint_are_known_by_their_lengths():
    """Packs of other lengths are refused all the same."""
    one, other = [3, 4, 5], [3, 5, 4]
    made = [
        PackedDataset([torch.zeros(n) for n in lengths], pack(lengths, 12))
        for lengths in (one, other, one)
    ]
    assert made[0].fingerprint == made[2].fingerprint != made[1].fingerprint


def test_a_pickle_reads_the_same():
    """As workers of spawned processes get it."""
    dataset = packed(repack=True)
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[2]["tokens"], dataset[2]["tokens"])
    assert again.fingerprint == dataset.fingerprint
    assert "PackedDataset" in repr(again)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"packs": [[0], [1]]}, "packs must be made by"),
        ({"packs": pack([3, 4], 8)}, "packs were made of 2 documents, and the dataset has 60"),
        ({"pad": "0"}, "pad must be a number"),
        ({"packs": pack(LENGTHS, 32, method="next_fit"), "repack": True}, "next_fit makes more"),
        ({"packs": pack(LENGTHS, 32, shuffle=False), "repack": True}, "with shuffle=False"),
    ],
)
def test_what_is_no_packed_dataset_is_refused(arguments, told):
    """One sentence that says what to do."""
    with pytest.raises((TypeError, ValueError), match=told):
        PackedDataset(**{"dataset": Documents(), "packs": pack(LENGTHS, 32)} | arguments)


def test_documents_that_may_be_replaced_are_refused(tmp_path):
    """Another document has another length."""
    write_zarr(tmp_path / "a.zarr", np.zeros((4, 3)))
    documents = FileCacheDataset(GlobalIndexManager(str(tmp_path)), on_error="substitute")
    with pytest.raises(ValueError, match="on_error='raise'"):
        PackedDataset(documents, pack([3] * 4, 8))


@pytest.mark.parametrize(
    ("document", "options", "told"),
    [
        (torch.zeros(4), {}, "document 0 has 3 tokens where packs were made, and field 'tokens'"),
        (torch.zeros(()), {}, r"field 'tokens' has shape \(\)"),
        ({"x": torch.zeros(3), "label": 1}, {}, "field 'label' has shape"),
        ({"x": torch.zeros(3)}, {"fields": "y"}, "document 0 has no field 'y'; it has 'x'"),
        ({"position_ids": torch.zeros(3)}, {}, "name the others in fields="),
        ({"x": torch.zeros(3, dtype=torch.uint8)}, {"pad": -1}, "no value that field 'x' can hold"),
        ({"x": torch.zeros(3)}, {"pad": {"y": 1}}, "no value that field 'x' can hold"),
    ],
)
def test_documents_that_do_not_fit_their_packs_are_named(document, options, told):
    """Which, and what it was to be."""
    dataset = PackedDataset([document], pack([3], 8), **options)
    with pytest.raises(ValueError, match=told):
        dataset[0]
