"""Batches of any samples: torch's where torch has one, Python's objects else, in any worker."""

import collections
import pickle

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import default_collate
from unreadable import opened, write_files

import globidx
from globidx import collate
from globidx.collate import SparseRow
from globidx.metrics import Metric
from globidx.torch.device import rebuilt
from globidx.torch.loops.quarantine import SubstitutedSamples

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning"),
    # said by torch where it rebuilds one that came from a worker
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly:UserWarning"),
]
Pair = collections.namedtuple("Pair", ["a", "b"])


def same(one, other):
    """Whether two batches are of the same types, dtypes and values, to the bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, collections.abc.Mapping):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


# -- the default is torch's

LEAF = st.sampled_from(
    [
        *(torch.arange(3), torch.ones(2, 2, dtype=torch.bfloat16), np.arange(2.0), np.int16(3)),
        *(1, 2.5, True, "text", b"bytes"),
    ]
)
SAMPLES = st.recursive(
    LEAF,
    lambda inner: (
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        | st.dictionaries(st.sampled_from("abc"), inner).map(collections.OrderedDict)
        | st.lists(inner, max_size=3).map(tuple)
        | st.lists(inner, min_size=1, max_size=3).map(lambda part: [1, *part])
        | st.tuples(inner, inner).map(lambda pair: Pair(*pair))
    ),
    max_leaves=8,
)


@given(SAMPLES, st.integers(1, 3))
def test_the_default_is_torchs_wherever_torch_has_one(sample, size):
    """Tensors, arrays, numbers, texts, in dicts, tuples and lists: the same, to the type and the bit."""
    assert same(collate.default([sample] * size), default_collate([sample] * size))


@given(SAMPLES, st.integers(1, 3))
def test_beside_an_object_it_is_still_torchs(sample, size):
    """A field that torch does not have changes nothing about the others."""
    batch = collate.default([{"x": sample, "other": None}] * size)
    assert batch.keys() == {"x", "other"} and batch["other"] == [None] * size
    assert same(batch["x"], default_collate([sample] * size))


def test_what_no_tensor_can_hold_stays():
    """Texts of a window as a list of lists, of any lengths; None and objects as a list."""
    thing = object()
    samples = [
        {
            "text": "a",
            "window": ["a", "b"],
            "deep": [["a"], []],
            "none": None,
            "thing": thing,
            "x": 1,
        },
        {"text": "c", "window": ["c"], "deep": [], "none": None, "thing": 3j, "x": 2},
    ]
    batch = collate.default(samples)
    for name in ("text", "window", "deep", "none", "thing"):
        assert batch[name] == [sample[name] for sample in samples]
    assert batch["x"].tolist() == [1, 2]
    assert collate.default([["a", "b"], ["c", "d"]]) == [["a", "b"], ["c", "d"]]


@pytest.mark.parametrize("collate_fn", [collate.default, collate.pad("x"), collate.nested()])
def test_lists_of_metrics_become_one(collate_fn):
    """In the sequence of the samples, of which some may have none; beside any rule."""
    metrics = [Metric("a", "length", number, "sum") for number in range(5)]
    samples = [
        {"x": torch.ones(2), "metrics": metrics[low:high]} for low, high in ((0, 2), (2, 2), (2, 5))
    ]
    assert collate_fn(samples)["metrics"] == metrics
    assert collate_fn([samples[1]] * 2)["metrics"] == []
    nested = [{"in": sample} for sample in samples]
    assert collate.default(nested)["in"]["metrics"] == metrics


def test_what_else_is_called_metrics_is_collated_as_ever():
    """Numbers become tensors, texts lists."""
    batch = collate.default([{"metrics": [1.0, 2.0]}] * 2)
    assert [column.tolist() for column in batch["metrics"]] == [[1.0, 1.0], [2.0, 2.0]]
    assert collate.default([{"metrics": ["a"]}] * 2)["metrics"] == [["a"], ["a"]]


def test_sparse_rows_become_a_matrix():
    """In the default, and beside any rule."""
    samples = [
        {"x": SparseRow(torch.tensor([n]), torch.ones(1), 3), "y": torch.ones(n)} for n in (1, 2)
    ]
    for batch in (
        collate.default([{"x": sample["x"]} for sample in samples]),
        collate.pad("y")(samples),
        collate.pad()(samples),
    ):
        assert batch["x"].layout == torch.sparse_csr
        assert batch["x"].to_dense().tolist() == [[0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("samples", "error", "words"),
    [
        (
            [{"a": {"b": torch.ones(2)}}, {"a": {"b": torch.ones(3)}}],
            ValueError,
            r"field 'a/b' has shape \(2,\)",
        ),
        ([{"a": 1}, {"b": 1}], ValueError, r"the sample has the keys \['a'\].*\['b'\] in sample 1"),
        ([{"a": {"b": 1}}, {"a": 3}], ValueError, r"field 'a' has the keys \['b'\].*3 in sample 1"),
        (
            [{"a": [1]}, {"a": [1, 2]}],
            ValueError,
            r"field 'a' has 1 elements.*sample 1 has \[1, 2\]",
        ),
        ([{"a": 1}, {"a": None}], TypeError, "field 'a' is a int.*None in sample 1"),
        ([{"a": None}, {"a": 1}], TypeError, "field 'a' is a NoneType.*1 in sample 1"),
        ([None, None], TypeError, "a sample is None: let the dataset's __getitem__"),
        ([], ValueError, "a batch needs a sample"),
    ],
)
def test_what_makes_no_batch_is_told_with_its_field(samples, error, words):
    """In one sentence, by the default and by rules alike."""
    for fn in (collate.default, collate.pad("z")):
        with pytest.raises(error, match=words):
            fn(samples)


def test_what_torch_itself_says_is_not_replaced():
    """An error that is not of the samples comes through."""

    class Odd(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if func is torch.stack:
                raise RuntimeError("out of luck")
            return super().__torch_function__(func, types, args, kwargs or {})

    with pytest.raises(RuntimeError, match="out of luck"):
        collate.default([torch.ones(2).as_subclass(Odd)] * 2)


# -- samples of any make


def test_a_bare_tensor_gives_a_pair_and_an_id_stays_an_id():
    """(sample, id) is that of with_id=True; names are those of the sample."""
    bare = [torch.ones(2), torch.ones(1)]
    values, mask = collate.pad()(bare)
    (again, _), ids = collate.pad()([(one, id) for id, one in enumerate(bare)])
    assert torch.equal(values, again) and ids.tolist() == [0, 1] and mask.shape == (2, 2)
    batch, ids = collate.concat("x")([({"x": one}, id) for id, one in enumerate(bare)])
    assert batch["offsets"]["x"].tolist() == [0, 2, 3] and ids.tolist() == [0, 1]


def test_a_tensor_in_a_tuple_of_a_field_has_the_name_of_its_place():
    """As keys have theirs."""
    samples = [{"pair": (torch.ones(n), torch.ones(3))} for n in (2, 3)]
    batch = collate.pad("pair/0")(samples)
    assert batch["pair"][0].shape == batch["pair"][1].shape == (2, 3)
    assert batch["mask"]["pair"]["0"].shape == (2, 3)


def test_a_field_that_is_not_there_is_told_with_those_that_are():
    """A misspelt name pads nothing in silence."""
    with pytest.raises(ValueError, match="no field 'positons'; there is 'positions', 'y'"):
        collate.pad("positons")([{"positions": torch.ones(1), "y": 1}])


def test_a_mapping_keeps_its_type():
    """As in torch: a subclass may have attributes besides its items."""
    sample = collections.OrderedDict(x=torch.ones(2), y="a")
    assert type(collate.pad("x")([sample])) is collections.OrderedDict


# -- in loaders


class Ragged(torch.utils.data.Dataset):
    """Sample ``id`` has id % 4 rows, two of which are its id."""

    def __len__(self):
        return 12

    def __getitem__(self, id):
        length = id % 4
        return {
            "rows": torch.full((length, 2), id),
            "nest": torch.full((length,), float(id)),
            "other": torch.full((length,), float(id)),
            "image": torch.full((1 + length, 5 - length), id, dtype=torch.uint8),
            "sparse": SparseRow(torch.arange(length), torch.ones(length), 4),
            "texts": [str(id)] * length,
            "fixed": id,
        }


EVERY = (
    collate.concat("rows")
    | collate.nested(["nest", "other"])
    | collate.pad("image", axis=(0, 1), value=255)
    | collate.sparse("sparse")
)


def check(batch, ids):
    """The batch of ``Ragged`` samples, taken apart, is these samples."""
    samples = [Ragged()[id] for id in ids]
    bounds = batch["offsets"]["rows"].tolist()
    total = (batch["nest"] + batch["other"]).unbind()
    for number, sample in enumerate(samples):
        assert torch.equal(batch["rows"][bounds[number] : bounds[number + 1]], sample["rows"])
        assert torch.equal(batch["nest"].unbind()[number], sample["nest"])
        assert torch.equal(total[number], 2 * sample["nest"])
        inside = batch["mask"]["image"][number]
        assert torch.equal(batch["image"][number][inside], sample["image"].flatten())
        assert (batch["image"][number][~inside] == 255).all()
        assert torch.equal(batch["sparse"].to_dense()[number], sample["sparse"].dense())
        assert batch["texts"][number] == sample["texts"]
    assert batch["fixed"].tolist() == list(ids)


@pytest.mark.parametrize("method", [None, "fork", "spawn"])
def test_batches_come_out_of_workers_as_they_went_in(method):
    """Nested, sparse, padded and joined, with texts; and the sampler counts them."""
    sampler = globidx.ResumableDistributedSampler(Ragged(), 1, 0, shuffle=False)
    workers = {"num_workers": 2, "multiprocessing_context": method} if method else {}
    loader = globidx.DataLoader(
        Ragged(), batch_size=5, sampler=sampler, collate_fn=EVERY, **workers
    )
    seen = []
    for batch in loader:
        check(batch, batch["fixed"].tolist())
        seen.append((batch["fixed"].tolist(), sampler.remaining))
    assert [ids for ids, _ in seen] == [[*range(5)], [*range(5, 10)], [10, 11]]
    assert sampler.state_dict()["epoch"] == 1


def test_it_can_be_pickled():
    """For spawned workers."""
    again = pickle.loads(pickle.dumps(EVERY))
    assert repr(again) == repr(EVERY)
    check(again([Ragged()[id] for id in range(4)]), range(4))


def test_substitutes_are_still_told_to_the_sampler():
    """The list that knows them goes into any collate function as a list."""
    samples = SubstitutedSamples(
        [{"x": torch.ones(2), "y": ["a"]}, {"x": torch.ones(1), "y": []}], (1,)
    )
    assert collate.pad("x")(samples)["mask"]["x"].tolist() == [[True, True], [True, False]]
    texts = collate.default(SubstitutedSamples([["a"], ["b"]], (1,)))
    assert type(texts) is list and texts == [["a"], ["b"]]


def test_the_sampler_lists_what_was_replaced_in_padded_batches(tmp_path):
    """Two samples of a file whose chunk is gone; their batch is padded like any other."""
    dataset = opened(write_files(tmp_path), transform=lambda x: x.repeat(int(x) % 3))
    sampler = globidx.ResumableDistributedSampler(dataset, 1, 0, shuffle=False)
    fn = collate.pad()
    for values, mask in globidx.DataLoader(dataset, batch_size=4, sampler=sampler, collate_fn=fn):
        assert len(values) == len(mask) == 4
    assert sampler.quarantined.pairs == ((8, 10),)


def test_a_mover_of_batches_reaches_every_tensor_and_leaves_texts():
    """Nested and sparse ones are seen as tensors, each once; rebuilt is what ``device=`` walks with."""
    batch = EVERY([Ragged()[id] for id in range(4)])
    moved = []

    def move(part):
        if isinstance(part, torch.Tensor):
            moved.append(part.layout)
            return part.to("cpu", copy=True)
        return part

    again = rebuilt(batch, move)
    check(again, range(4))
    count = collections.Counter(moved)
    assert (count[torch.jagged], count[torch.sparse_csr]) == (2, 1)
    assert again["texts"] == batch["texts"] and again["image"] is not batch["image"]


class Texts(torch.utils.data.Dataset):
    """A window of texts for each sample."""

    def __len__(self):
        return 4

    def __getitem__(self, id):
        return {"texts": ["a", str(id)], "x": torch.tensor(id)}


def test_the_loader_keeps_texts_where_no_collate_function_was_given():
    """One that was given is left alone, torch's own too, and so is the loader without batches."""
    batch = next(iter(globidx.DataLoader(Texts(), batch_size=2)))
    assert batch["texts"] == [["a", "0"], ["a", "1"]] and batch["x"].tolist() == [0, 1]
    for loader in (
        globidx.DataLoader(Texts(), batch_size=2, collate_fn=default_collate),
        globidx.DataLoader(Texts(), 2, None, None, None, 0, default_collate),
    ):
        assert loader.collate_fn is default_collate
        assert next(iter(loader))["texts"] == [("a", "a"), ("0", "1")]
    plain = torch.utils.data.DataLoader(Texts(), batch_size=None)
    assert globidx.DataLoader(Texts(), batch_size=None).collate_fn is plain.collate_fn


def test_the_samples_of_files_are_padded(tmp_path):
    """Ragged rows, texts and ids of FileCacheDataset, in workers; padding is taken off again."""
    rows = [np.arange(number % 3, dtype="f4") + number for number in range(8)]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        ragged = file.create_dataset("rows", len(rows), h5py.vlen_dtype("f4"))
        for number, row in enumerate(rows):
            ragged[number] = row
        file["obs/name"] = [f"row {number}" for number in range(len(rows))]
    index = globidx.GlobalIndexManager(tmp_path, key={"obs/rows": "rows", "obs/name": "obs/name"})
    dataset = globidx.FileCacheDataset(index, with_id=True)
    sampler = globidx.ResumableDistributedSampler(dataset, 1, 0, seed=5)
    fn = collate.pad("obs/rows", value=-1)
    seen = []
    for batch, ids in globidx.DataLoader(
        dataset, batch_size=3, sampler=sampler, collate_fn=fn, num_workers=2
    ):
        assert batch["obs"]["name"] == [f"row {id}" for id in ids.tolist()]
        masks = batch["mask"]["obs"]["rows"]
        for id, row, inside in zip(ids.tolist(), batch["obs"]["rows"], masks, strict=True):
            assert row[inside].tolist() == rows[id].tolist() and (row[~inside] == -1).all()
        seen += ids.tolist()
    assert sorted(seen) == list(range(8)) and sampler.epoch == 1
    with pytest.raises(ValueError, match="field 'obs/rows' has shape"):
        next(iter(globidx.DataLoader(dataset, batch_size=3)))
