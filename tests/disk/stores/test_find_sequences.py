"""Finding sequences in a tree of groups: the rules that zarr and HDF5 share, over dicts."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.index.layout import in_sequences, parse
from globidx.disk.stores.find_arrays import Field
from globidx.disk.stores.find_sequences import Described, inside, matched
from globidx.disk.stores.index_entries import array_info


class Array(NamedTuple):
    """An array of a dict of groups."""

    values: np.ndarray
    chunks: tuple | None = None
    packing: str = ""


class Tree:
    """Groups as nested dicts."""

    def __init__(self, arrays):
        self.arrays = {
            path: one if isinstance(one, Array) else Array(np.asarray(one))
            for path, one in arrays.items()
        }

    def groups(self, path):
        below = f"{path}/" if path else ""
        found = [one[len(below) :].split("/")[0] for one in self.arrays if one.startswith(below)]
        return dict.fromkeys(found)

    def describe(self, path):
        one = self.arrays.get(path)
        if one is None:
            return None
        values, chunks, packing = one
        return Described(values.shape, values.dtype, chunks, packing, (values.shape, chunks))

    def read(self, path):
        if path not in self.arrays:
            raise ValueError(f"it has no array {path!r}")
        return self.arrays[path].values


def find(arrays, key="data/*/x", *, axis=0, **told):
    layout, along = in_sequences(parse(None, key), "match", **told).along(axis)
    return matched(Tree(arrays), layout, along)


@given(
    lengths=st.dictionaries(st.integers(0, 12), st.integers(0, 5), min_size=1),
    axis=st.sampled_from([0, 1]),
)
def test_matches_are_found_in_natural_order(lengths, axis):
    """Each with its rows, its chunks and its place among the rows of the file."""
    arrays = {}
    for number, rows in sorted(lengths.items(), key=lambda item: str(item[0])):
        shape = [3, 3]
        shape[axis] = rows
        chunks = (1, 2) if number % 2 else None
        arrays[f"data/d{number}/x"] = Array(np.ones(shape, "f4"), chunks)
        arrays[f"data/d{number}/y"] = Array(np.ones((rows, 2), "u1"), (number + 1, 1))
    infos, found, _ = find(arrays, {"a/x": "data/*/x", "y": "data/*/y"}, axis={"a/x": axis})
    order = sorted(lengths)
    rows = [lengths[number] for number in order]
    episodes = found.episodes
    assert list(episodes.names) == [f"d{number}" for number in order]
    assert (found.length, episodes.lengths.tolist()) == (sum(rows), rows)
    assert episodes.starts.tolist() == [sum(rows[:count]) for count in range(len(rows))]
    chunks = [[(1, 2)[axis] if number % 2 else 0, number + 1] for number in order]
    assert episodes.chunk_lengths.tolist() == chunks
    told = [(info.name, info.path, info.item_shape, info.dtype, info.axis) for info, _ in infos]
    assert told == [
        ("a/x", "data/*/x", (3,), "float32", axis),
        ("y", "data/*/y", (2,), "uint8", 0),
    ]


@pytest.mark.parametrize(
    ("only", "names"),
    [
        ([True, False, True], ["d1", "d10"]),
        ([2, 0, 0], ["d1", "d10"]),
        (np.array([b"d10", b"d1"]), ["d1", "d10"]),
        (np.array(["d2"]), ["d2"]),
        (np.array(["d2"], object), ["d2"]),
        (np.array([], int), []),
        ([[1], [2]], ["d2", "d10"]),
    ],
)
def test_an_array_lists_matches_by_flag_number_or_name(only, names):
    """Numbers count in natural order."""
    arrays = {f"data/d{number}/x": [1, 2] for number in (1, 10, 2)} | {"mask": only}
    _, found, _ = find(arrays, only="mask")
    episodes = found.episodes
    listed = [name for name, flag in zip(episodes.names, episodes.listed, strict=True) if flag]
    assert listed == names


@pytest.mark.parametrize(
    ("missing", "told", "rows"),
    [
        ("gone", {"gone": [3, 0, 3]}, [0, 3]),
        ("gone", {"gone": np.arange(6) == 4}, [4]),
        ("data/*/gone", {"data/a/gone": [1], "data/b/gone": [0, 2]}, [1, 2, 4]),
        ("data/*/gone", {"data/a/gone": [False, True], "data/b/gone": [True] * 4}, [1, 2, 3, 4, 5]),
    ],
)
def test_missing_rows_are_counted_over_all_matches(missing, told, rows):
    """Told by one array for all, or by one in each."""
    arrays = {"data/a/x": [1, 2], "data/b/x": [1, 2, 3, 4]} | told
    assert find(arrays, missing=missing)[1].missing.rows.tolist() == rows


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"data/a/y": [1]}, {}, "nothing in it matches key 'data/\\*/x'; of a none has it"),
        ({"other": [1]}, {}, "nothing in it matches key 'data/\\*/x'$"),
        ({"data/a/x": 1.0}, {}, r"'data/a/x' is a single value"),
        ({"data/a/x": [1], "data/b/x": 1}, {}, r"'data/b/x' is a single value"),
        (
            {"data/a/x": np.ones((2, 3)), "data/b/x": np.ones(2)},
            {"axis": 1},
            r"'data/b/x' has shape \(2,\), and no axis 1",
        ),
        (
            {"data/a/x": Array(np.ones(2), None, "scale_factor float 2.0"), "data/b/x": np.ones(2)},
            {},
            r"holds \(\) float64 a row, while .* \(\) float64 packed by scale_factor 2.0 a row",
        ),
        (
            {"data/a/x": [1], "gone": [[0.5]]},
            {"missing": "gone"},
            "dtype float64; it must hold flags",
        ),
        ({"data/a/x": [1], "gone": [1]}, {"missing": "gone"}, "lists row 1 of 1 rows"),
        ({"data/a/x": [1], "gone": [-1]}, {"missing": "gone"}, "lists row -1 of 1 rows"),
        ({"data/a/x": [1]}, {"missing": "data/*/gone"}, "no array 'data/a/gone'"),
        ({"data/a/x": [1], "m": [1]}, {"only": "m"}, "lists sequence 1 of 1"),
        ({"data/a/x": [1], "m": [-1]}, {"only": "m"}, "lists sequence -1 of 1"),
    ],
)
def test_what_does_not_fit_is_refused(arrays, options, message):
    """With the path, the value and the rule."""
    with pytest.raises(ValueError, match=message):
        find(arrays, **options)


def test_numbers_of_another_byte_order_are_the_same_array():
    """A row is what is compared, not how it is stored."""
    arrays = {"data/a/x": np.ones(2, ">i4"), "data/b/x": Array(np.ones(3, "<i4"), (2,))}
    (info, rows), *_ = find(arrays)[0]
    assert (info.dtype, rows) == ("int32", 5)


def looked(arrays, sequences, shapes, **told):
    """What is inside a file with such arrays ``x`` and ``y``, in these sequences."""
    layout = in_sequences(parse(None, list(shapes)), sequences, **told)
    layout, along = layout.along(0)
    infos = [
        array_info(Field(name, name, layout.form, along), shape, np.dtype("f4"), chunks)
        for name, (shape, chunks) in shapes.items()
    ]
    read = Tree(arrays).read
    return inside(infos, [shape for shape, _ in shapes.values()], layout, read)


def test_places_along_the_first_axis_are_sequences():
    """Of all arrays alike; rows are counted place after place."""
    shapes = {"x": ((3, 5, 2), (1, 4, 2)), "y": ((3, 5), None)}
    found = looked(
        {"m": [False, True, True], "gone": [14]}, "axis", shapes, only="m", missing="gone"
    )
    assert (found.length, found.episodes.starts.tolist()) == (15, [0, 5, 10])
    assert found.episodes.chunk_lengths.tolist() == [[4, 0]] * 3
    assert found.episodes.listed.tolist() == [False, True, True]
    assert found.missing.rows.tolist() == [14]
    with pytest.raises(ValueError, match="axis 0: 'x' has 3, 'y' has 4"):
        looked({}, "axis", shapes | {"y": ((4, 5), None)})
    assert not len(looked({}, "axis", {"x": ((0, 5), None)}).episodes)


@given(ends=st.lists(st.integers(0, 9), max_size=5).map(sorted))
def test_ends_and_runs_tell_the_same_sequences(ends):
    """Ends are starts and lengths one behind the other."""
    starts = [0, *ends][: len(ends)]
    lengths = [end - start for start, end in zip(starts, ends, strict=True)]
    told = {"ends": np.array(ends, int), "s": np.array(starts, int), "n": np.array(lengths, int)}
    by_ends = looked(told, "ends", {"x": ((9,), None)}).episodes
    by_runs = looked(told, ("s", "n"), {"x": ((9,), None)}).episodes
    for episodes in (by_ends, by_runs):
        assert (episodes.starts.tolist(), episodes.lengths.tolist()) == (starts, lengths)
        assert not episodes.is_apart
