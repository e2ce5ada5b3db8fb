"""Any layout: random files, sequences, windows, paddings and gaps give the samples that are taken by hand."""

import contextlib
import functools
import os
import tempfile

import by_hand
import h5py
import numpy as np
import pytest
import zarr
from equality import assert_all_same
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx import FileCacheDataset, GlobalIndexManager, Window
from globidx.core.index.patterns import natural

DTYPES = ("f4", "f8", "i8", "i2", "u1", "?")
SUFFIX = {"hdf5": ".hdf5", "zarr 2": ".zarr", "zarr 3": ".zarr"}


class Writer:
    """Writes random files of one kind, and says what it wrote as sequences of rows."""

    def __init__(self, random, folder, store, fields):
        self.random, self.folder, self.store = random, folder, store
        self.fields = {
            name: (tuple(random.randint(1, 3) for _ in range(random.randint(0, 2))), dtype)
            for name, dtype in zip("abc", random.choices(DTYPES, k=fields), strict=False)
        }
        self.values = np.random.default_rng(random.randint(0, 2**32))

    @contextlib.contextmanager
    def file(self, name):
        path = os.path.join(self.folder, name + SUFFIX[self.store])
        if self.store == "hdf5":
            with h5py.File(path, "w") as file:
                yield path, file
        else:
            yield path, zarr.open_group(path, mode="w", zarr_format=int(self.store[-1]))

    def put(self, root, name, data):
        """Writes an array in random chunks, or in one piece."""
        options = {}
        if data.size and self.random.random() < 0.7:
            options["chunks"] = tuple(self.random.randint(1, size) for size in data.shape) or None
        if self.store == "hdf5":
            root.create_dataset(name, data=data, **options)
        else:
            # a chunk of nothing but zeros would not be stored, and be taken for lost
            options.setdefault("chunks", "auto")
            options["chunks"] = options["chunks"] or "auto"
            root.create_array(name, data=data, config={"write_empty_chunks": True}, **options)

    def rows(self, *lead):
        """Random values of each field, with these leading axes."""
        made = {}
        for name, (shape, dtype) in self.fields.items():
            values = self.values.integers(0, 2 if dtype == "?" else 200, (*lead, *shape))
            made[name] = values.astype(dtype)
        return made

    def length(self):
        return self.random.choice([0, 1, 2, 3, 5, 8, 13])

    def parts(self):
        """Lengths of the sequences of a file that has several."""
        return [self.length() for _ in range(self.random.randint(1, 4))]


def write_file(writer, name):
    """One sequence: the rows of a file."""
    rows = writer.rows(writer.length())
    with writer.file(name) as (path, root):
        for field, values in rows.items():
            writer.put(root, field, values)
        root.attrs["text"] = name
    return [(name + SUFFIX[writer.store], path, rows, {"text": name})]


def write_runs(writer, name):
    """Sequences end to end in the same arrays, an entry of an array for each."""
    lengths = writer.parts()
    ends = np.cumsum(lengths)
    rows = writer.rows(int(ends[-1]))
    entries = writer.values.normal(size=(len(ends), 2))
    with writer.file(name) as (path, root):
        arrays = {"meta/ends": ends, "starts": ends - lengths, "lengths": np.array(lengths)}
        for field, values in {**rows, **arrays, "entries": entries}.items():
            writer.put(root, field, values)
    return [
        (
            str(number),
            path,
            {field: values[end - length : end] for field, values in rows.items()},
            {"text": entry},
        )
        for number, (length, end, entry) in enumerate(zip(lengths, ends, entries, strict=True))
    ]


def write_groups(writer, name):
    """A sequence a group, each with arrays of its own and an attribute."""
    found = []
    with writer.file(name) as (path, root):
        for number in writer.random.sample(range(15), len(lengths := writer.parts())):
            rows = writer.rows(lengths[len(found)])
            for field, values in rows.items():
                writer.put(root, f"data/demo_{number}/{field}", values)
            root[f"data/demo_{number}"].attrs["text"] = f"{number} of {name}"
            found.append((f"demo_{number}", path, rows, {"text": f"{number} of {name}"}))
    return sorted(found, key=lambda one: natural(one[0]))


def write_stacks(writer, name):
    """Sequences along axis 0, rows along axis 1."""
    count = writer.random.randint(1, 3)
    rows = writer.rows(count, writer.random.randint(1, 9))
    entries = writer.values.normal(size=count)
    with writer.file(name) as (path, root):
        for field, values in {**rows, "entries": entries}.items():
            writer.put(root, field, values)
    return [
        (
            str(place),
            path,
            {field: values[place] for field, values in rows.items()},
            {"text": entries[place]},
        )
        for place in range(count)
    ]


def joined(sequences):
    """Sequences as one: a chain, whose constants are those of the first file with rows."""
    first = next((one for one in sequences if one.numbers), sequences[0])
    fields = {
        name: np.concatenate([one.fields[name] for one in sequences]) for name in first.fields
    }
    numbers = [number for one in sequences for number in one.numbers]
    return first._replace(name="", fields=fields, numbers=numbers)


KINDS = {
    "file": (write_file, "{}", "@text"),
    "chain": (write_file, "{}", "@text"),
    "meta/ends": (write_runs, "{}", "entries[*]"),
    ("starts", "lengths"): (write_runs, "{}", "entries[*]"),
    "match": (write_groups, "data/*/{}", "data/*@text"),
    "axis": (write_stacks, "{}", "entries[*]"),
}


def random_offsets(random):
    kind = random.choice(["one", "range", "several"])
    if kind == "one":
        return random.randint(-3, 3)
    if kind == "range":
        first = random.randint(-3, 2)
        return range(first, first + random.randint(1, 6), random.choice([1, 1, 2]))
    return tuple(random.randint(-4, 4) for _ in range(random.randint(1, 4)))


def random_window(random, fields):
    """Arguments of a window; with padding ``before`` and ``after`` may be among them."""
    pad = random.choice([None, "edge", "zero"])
    offsets = random_offsets(random)
    if random.random() < 0.5:
        offsets = {name: random_offsets(random) for name in fields}
    reaches = random.sample(["before", "after"], random.randint(0, 2)) if pad else []
    reach = {name: random.randint(0, 4) for name in reaches}
    stride = random.choice([1, 1, 2, 3])
    return {
        "offsets": offsets,
        "stride": stride,
        "pad": pad,
        "mask": random.random() < 0.5,
        **reach,
    }


@pytest.mark.parametrize("sequences", KINDS, ids=str)
@settings(max_examples=25)
@given(random=st.randoms(use_true_random=False), store=st.sampled_from([*SUFFIX]))
def test_samples_are_those_taken_by_hand(sequences, random, store):
    """For each kind of sequences, whatever the files, the window, the padding and the rows that are missing."""
    write, key, constant = KINDS[sequences]
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(random, folder, store, fields=random.randint(1, 3))
        names = sorted(random.sample(range(20), random.randint(1, 4)))
        found, begin = [], 0
        for file in [f"run_{number}" for number in names]:
            for name, path, fields, constants in write(writer, file):
                length = len(next(iter(fields.values())))
                numbers = [*range(begin, begin + length)]
                found.append(by_hand.Rows(name, path, fields, numbers, constants))
                begin += length
        missing = {random.randrange(begin) for _ in range(random.randint(0, 4))} if begin else set()
        if sequences == "chain":
            found = [joined(found)]
        window = random_window(random, writer.fields)
        expected = by_hand.take(found, **window, missing=missing)
        opened = functools.partial(
            GlobalIndexManager,
            os.path.join(folder, f"*{SUFFIX[store]}"),
            key={name: key.format(name) for name in writer.fields},
            sequences=sequences,
            window=Window(window.pop("offsets"), **window),
            constants={"text": constant},
            missing=sorted(missing) if missing else None,
            cache_dir=os.path.join(folder, "cache"),
        )
        if begin and not expected:
            with pytest.raises(ValueError, match="no sample"):
                opened()
            return
        index = opened()
        assert len(index) == len(expected)
        assert index.sequences.lengths.tolist() == [len(one.numbers) for one in found]
        for sample_id, one in enumerate(expected):
            where = index.where(sample_id)
            assert (where.sequence, where.anchor) == (one.sequence, one.anchor)
            assert index.sample_id(one.sequence, one.anchor) == sample_id
            if sequences != "chain":
                assert where.path == found[one.sequence].path
        if not expected:
            return  # files without rows
        dataset = FileCacheDataset(index, cache_bytes=random.choice([0, 300, 2**20]))
        assert_all_same(dataset, [one.value for one in expected])
