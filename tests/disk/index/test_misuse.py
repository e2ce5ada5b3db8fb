"""What cannot be meant is told in one clear error: what it is, which value, which rule, and what to do."""

import os

import h5py
import numpy as np
import pytest
import zarr

from globidx import GlobalIndexManager, Window
from globidx.errors import BadFilesError, ReadError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One file of each kind, and some that are wrong."""
    path = tmp_path_factory.mktemp("misuse")

    def write(name, arrays):
        with h5py.File(path / name, "w") as file:
            for key, values in arrays.items():
                file[key] = values

    write(
        "runs.h5",
        {
            "x": np.arange(1, 21),
            "y": np.arange(20),
            "short": np.arange(5),
            "ends": [5, 20],
            "falls": [9, 5],
            "beyond": [5, 25],
            "negative": [-1, 5],
            "floats": [1.0, 2.0],
            "square": [[1, 2]],
            "firsts": [0, 5],
            "before": [-1, 5],
            "sizes": [5, 5, 5],
            "long": [5, 16],
            "minus": [5, -1],
            "rows": [3, 25],
            "flags": [True],
        },
    )
    write(
        "groups.h5",
        {f"data/demo_{number}/{name}": np.arange(1, 7) for number in range(3) for name in "xy"}
        | {
            "mask/unknown": np.array([b"demo_7"]),
            "mask/numbers": [5],
            "mask/flags": [True],
            "mask/nobody": [False, False, False],
            "pair": [1, 2],
        },
    )
    write(
        "stacked.h5",
        {"x": np.ones((2, 12)), "y": np.ones((3, 12)), "z": np.ones((2, 9)), "flat": [1]},
    )
    write("lacks.h5", {"data/a/x": [1], "data/a/y": [1], "data/b/x": [1]})
    write("uneven.h5", {"data/a/x": [1, 2], "data/a/y": [1, 2, 3]})
    write("shapes.h5", {"data/a/x": np.ones((5, 2)), "data/b/x": np.ones((5, 3))})
    write("types.h5", {"data/a/x": np.ones(5), "data/b/x": np.ones(5, "i4")})
    write("flatter.h5", {"data/a/x": np.ones((5, 7)), "data/b/x": np.ones(5)})
    write("scalar.h5", {"data/a/x": np.ones(5), "data/b/x": 3.0})
    write("mask.h5", {"mask": np.arange(9)})
    write("one.h5", {"x": np.arange(9)})
    return path


def index(folder, name, **options):
    return GlobalIndexManager(folder / name, cache_dir=folder / "cache", **options)


GROUPS = {"key": "data/*/x", "sequences": "match"}
FILE = {"key": "x", "sequences": "file"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("one.h5", {"sequences": 3}, r"sequences must be 'row', 'file'.*got 3"),
        ("one.h5", {"sequences": None}, r"sequences must be .*got None"),
        (
            "one.h5",
            {"sequences": ("a", "b", "c")},
            r"an array of starts and one of lengths, got \(",
        ),
        ("one.h5", {"sequences": ""}, r"sequences must be .*got ''"),
        ("one.h5", {"key": "x", "sequences": "match"}, r"key 'x' has no \*: write data/\*/name"),
        ("one.h5", {"sequences": "match"}, r"there is no key: write data/\*/name"),
        ("groups.h5", {"key": "data/*/x"}, r"'data/\*/x' has a \*.*pass sequences='match'"),
        ("groups.h5", GROUPS | {"sequences": "file"}, r"has a \*.*pass sequences='match'"),
        ("groups.h5", GROUPS | {"key": {"a": "data/*/x", "b": "pair"}}, r"key 'pair' has no \*"),
        ("groups.h5", GROUPS | {"key": ["data/*/x", "*/*/y"]}, r"match different groups"),
        ("groups.h5", GROUPS | {"key": "**/a/**/x"}, r"has \*\* twice"),
        ("groups.h5", GROUPS | {"key": "data/demo**/x"}, r"\*\* beside other text"),
        ("groups.h5", GROUPS | {"key": ["data/*/x", "mask/*/x"]}, r"same name; name them: key="),
        ("stacked.h5", {"key": "x", "sequences": "axis", "axis": 1}, r"axis=1 has no use"),
        (
            "stacked.h5",
            {"key": "x", "sequences": "axis", "axis": {"x": 0}},
            r"rows lie along another",
        ),
        ("stacked.h5", {"key": "x", "axis": {"q": 1}}, r"names 'q', which is no field; there is"),
        ("one.h5", {"key": "x", "window": 3}, r"window=3 is about sequences.*pass sequences="),
        (
            "one.h5",
            {"key": "x", "only": "mask"},
            r"only='mask' is about sequences.*pass sequences=",
        ),
        ("one.h5", {"key": "x", "only": ["a"]}, r"only=\['a'\] is about sequences"),
        ("one.h5", {"key": "x", "missing": [1]}, r"missing=\[1\] is about sequences"),
        ("one.h5", {"key": "x", "chain_by": "parent"}, r"chain_by='parent' is about sequences"),
        (
            "one.h5",
            FILE | {"chain_by": "parent"},
            r"chain_by is for sequences='chain', got .*'file'",
        ),
        (
            "one.h5",
            FILE | {"sequences": "chain", "chain_by": "up"},
            r"'parent' or a function.*'up'",
        ),
        ("one.h5", FILE | {"only": "mask"}, r"only='mask' names an array.*give a list of names"),
        ("groups.h5", GROUPS | {"only": [1, 2]}, r"a list of names or a function.*got \[1, 2\]"),
        ("groups.h5", GROUPS | {"only": 1}, r"a list of names or a function.*got 1"),
        (
            "groups.h5",
            GROUPS | {"only": ["demo_9"]},
            r"only names 'demo_9', which is none of the 3",
        ),
        ("groups.h5", GROUPS | {"only": []}, r"leaves none of 3 sequences; name some"),
        (
            "groups.h5",
            GROUPS | {"only": lambda name: False},
            r"leaves none of 3 sequences; name some",
        ),
        ("groups.h5", GROUPS | {"only": "mask/nobody"}, r"leaves none of 3 sequences; name some"),
        ("groups.h5", GROUPS | {"only": "/"}, r"only must name an array, got '/'"),
        ("one.h5", FILE | {"missing": [25]}, r"missing lists row 25, but there are 9 rows"),
        ("one.h5", FILE | {"missing": [-1]}, r"missing row must be in \[0, .*got -1"),
        ("one.h5", FILE | {"missing": [1.5]}, r"missing row must be an integer, got 1.5"),
        ("one.h5", FILE | {"missing": 4}, r"name of an array or a list of rows, got 4"),
        (
            "one.h5",
            FILE | {"missing": range(9)},
            r"no sample: .*sequences has 9 and 9 rows are missing",
        ),
        ("one.h5", FILE | {"window": {"y": 3}}, r"none for field 'x'; the fields are \('x',\)"),
        (
            "one.h5",
            {"sequences": "file", "window": {"y": 3}},
            r"none for field 'x'; the fields are",
        ),
        ("one.h5", FILE | {"window": {"x": 1, "y": 3}}, r"some for 'y'; the fields are"),
        ("one.h5", FILE | {"window": "some"}, r"an int or several, or 'all', got 'some'"),
        (
            "one.h5",
            FILE | {"window": range(20)},
            r"takes 20 rows, 0 to 19.*has 9; shorten the window",
        ),
        (
            "mask.h5",
            FILE | {"key": "mask", "window": Window(0, pad="edge", mask=True)},
            r"rename it in",
        ),
        (
            "mask.h5",
            {"sequences": "file", "window": Window(0, pad="zero", mask=True)},
            r"'mask' twice",
        ),
        ("one.h5", {"constants": ["x"]}, r"must be a dict of names to paths, got \['x'\]"),
        ("one.h5", {"constants": {"a": 3}}, r"must be a dict of names to paths"),
        ("one.h5", {"constants": {"x": "x"}}, r"key and constants together: names 'x' twice"),
        (
            "one.h5",
            {"key": {"a": "x"}, "constants": {"a/b": "x"}},
            r"'a' and 'a/b', which lies inside",
        ),
        ("one.h5", {"constants": {"a": "x@"}}, r"constant 'a' must be 'path'.*got 'x@'"),
        ("one.h5", {"constants": {"a": ""}}, r"constant 'a' must be .*got ''"),
        ("one.h5", {"constants": {"a": "x[*]@u"}}, r"constant 'a' must be .*got 'x\[\*\]@u'"),
        (
            "one.h5",
            FILE | {"constants": {"a": "b[*]"}},
            r"an entry for each sequence inside a file",
        ),
        ("one.h5", {"constants": {"a": "b[*]"}}, r"an entry for each sequence inside a file"),
        ("groups.h5", GROUPS | {"constants": {"a": "data/*/y[*]"}}, r"takes one array of the file"),
        ("one.h5", FILE | {"constants": {"a": "b/*/c"}}, r"goes with sequences='match'"),
        ("groups.h5", GROUPS | {"constants": {"a": "**/y"}}, r"use the same parts with a star"),
        ("one.h5", {"key": {"{a,b}": "x"}}, r"gives 2 names for 1 arrays.*use the same braces"),
        (
            "one.h5",
            {"key": {"{a,b}": "{x,y,z}"}},
            r"gives 2 names for 3 arrays.*use the same braces",
        ),
        ("one.h5", {"key": {"a": "x", "a/b": "x"}}, r"'a' and 'a/b', which lies inside it"),
        ("one.h5", {"key": {"": "x"}}, r"must give each field a name, got ''"),
        ("one.h5", {"key": {}}, r"key must name an array, or several, got {}"),
        ("one.h5", {"key": {"a": 3}}, r"key must name an array, or several"),
        ("one.h5", {"key": "x", "layout": "tokens:4", "sequences": "ends"}, r"leave sequences out"),
    ],
)
def test_options_that_cannot_be_meant(folder, name, options, message):
    """ValueError or TypeError, before or after a look at the file, and never a silent empty index."""
    with pytest.raises((TypeError, ValueError), match=message):
        index(folder, name, **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "runs.h5",
            {"sequences": "falls"},
            r"'falls' do not fit: end 1 is 5, .*before it is 9.*ascend",
        ),
        ("runs.h5", {"sequences": "beyond"}, r"ends at row 25, but there are 20 rows"),
        ("runs.h5", {"sequences": "negative"}, r"end 0 is -1.*must ascend"),
        ("runs.h5", {"sequences": "floats"}, r"one-dimensional array of integers, got float64"),
        ("runs.h5", {"sequences": "square"}, r"one-dimensional array of integers.*shape \(1, 2\)"),
        ("runs.h5", {"sequences": "nowhere"}, r"'nowhere' do not fit: it has no array 'nowhere'"),
        ("runs.h5", {"sequences": ("firsts", "sizes")}, r"2 starts and 3 lengths"),
        ("runs.h5", {"sequences": ("firsts", "long")}, r"starts at row 5 ends beyond the 20 rows"),
        ("runs.h5", {"sequences": ("before", "firsts")}, r"start -1 is negative"),
        ("runs.h5", {"sequences": ("firsts", "minus")}, r"length -1 is negative"),
        (
            "runs.h5",
            {"key": ["x", "short"], "sequences": "ends"},
            r"'x' has 20 items, 'short' has 5",
        ),
        ("runs.h5", {"sequences": "file", "missing": "rows"}, r"missing='rows' lists row 25 of 20"),
        ("runs.h5", {"sequences": "file", "missing": "flags"}, r"has 1 flags for 20 rows"),
        (
            "runs.h5",
            {"sequences": "file", "missing": "floats"},
            r"dtype float64; it must hold flags",
        ),
        ("runs.h5", {"sequences": "file", "missing": "nowhere"}, r"it has no array 'nowhere'"),
        ("groups.h5", GROUPS | {"key": "data/ep_*/x"}, r"nothing in it matches key 'data/ep_\*/x'"),
        ("groups.h5", GROUPS | {"key": "data/*/q"}, r"matches key.*of demo_0, demo_1, demo_2 none"),
        ("groups.h5", GROUPS | {"only": "mask/unknown"}, r"lists 'demo_7', which is no sequence"),
        ("groups.h5", GROUPS | {"only": "mask/numbers"}, r"lists sequence 5 of 3"),
        ("groups.h5", GROUPS | {"only": "mask/flags"}, r"has 1 flags for 3 sequences"),
        ("groups.h5", GROUPS | {"only": "mask/none"}, r"it has no array 'mask/none'"),
        ("lacks.h5", GROUPS | {"key": "data/*/{x,y}"}, r"match 'b' has no array 'data/b/y', while"),
        (
            "uneven.h5",
            GROUPS | {"key": "data/*/{x,y}"},
            r"'a' are not aligned: 'x' has 2, 'y' has 3",
        ),
        ("shapes.h5", GROUPS, r"'data/b/x' holds \(3,\) float64 a row.*holds \(2,\) float64"),
        ("types.h5", GROUPS, r"'data/b/x' holds \(\) int32 a row.*holds \(\) float64"),
        ("flatter.h5", GROUPS | {"axis": 1}, r"'data/b/x' has shape \(5,\), and no axis 1"),
        ("scalar.h5", GROUPS, r"'data/b/x' is a single value"),
        ("stacked.h5", {"key": ["x", "y"], "sequences": "axis"}, r"axis 0: 'x' has 2, 'y' has 3"),
        ("stacked.h5", {"key": ["x", "z"], "sequences": "axis"}, r"'x' has 12 items, 'z' has 9"),
        ("stacked.h5", {"key": "flat", "sequences": "axis"}, r"shape \(1,\), and no axis 1"),
    ],
)
def test_files_that_do_not_fit(folder, name, options, message):
    """BadFilesError names the file, the array and the value in it."""
    with pytest.raises(BadFilesError, match=message) as caught:
        index(folder, name, **{"key": "x"} | options)
    assert os.fspath(folder / name) in str(caught.value)


@pytest.mark.parametrize("form", ["hdf5", "zarr"])
@pytest.mark.parametrize("option", ["ends", "starts", "lengths", "only", "missing"])
def test_numbers_that_were_never_written_are_not_invented(tmp_path, form, option):
    """A chunk that is absent from an array that tells sequences would be read as zeros: an error, and what to do."""
    path = tmp_path / ("a.h5" if form == "hdf5" else "a.zarr")
    file = h5py.File(path, "w") if form == "hdf5" else zarr.open_group(str(path), mode="w")
    whole = {"x": np.arange(1, 21), "starts": [1, 5, 9], "lengths": [4, 4, 4], "ends": [5, 9, 20]}
    for name, values in whole.items():
        make = file.create_dataset if form == "hdf5" else file.create_array
        array = make(
            "bad" if name == option else name, shape=(len(values),), dtype="i8", chunks=(1,)
        )
        array[: len(values) - (name == option)] = np.asarray(values)[
            : len(values) - (name == option)
        ]
    if option in ("only", "missing"):
        make("bad", shape=(2,), dtype="i8", chunks=(1,))[:1] = 2
    if form == "hdf5":
        file.close()
    names = {name: "bad" if name == option else name for name in whole}
    runs = option in ("starts", "lengths")
    options = {"sequences": (names["starts"], names["lengths"]) if runs else names["ends"]}
    if option in ("only", "missing"):
        options[option] = "bad"
    with pytest.raises(BadFilesError, match=r"bad.*restore it, or write it anew") as caught:
        GlobalIndexManager(path, key="x", **options)
    assert "on_missing" not in str(caught.value)


@pytest.mark.parametrize("form", ["hdf5", "zarr"])
def test_flags_that_were_never_written_are_not_set(tmp_path, form):
    """Writers leave out chunks of False: nothing is missing there."""
    path = tmp_path / ("a.h5" if form == "hdf5" else "a.zarr")
    file = h5py.File(path, "w") if form == "hdf5" else zarr.open_group(str(path), mode="w")
    make = file.create_dataset if form == "hdf5" else file.create_array
    make("x", shape=(6,), dtype="i8", chunks=(6,))[...] = np.arange(1, 7)
    make("gone", shape=(6,), dtype="?", chunks=(2,))[:2] = [False, True]
    if form == "hdf5":
        file.close()
    manager = GlobalIndexManager(path, key="x", sequences="file", missing="gone")
    assert [manager.locate(id).item for id in range(len(manager))] == [0, 2, 3, 4, 5]


def test_an_index_of_files_that_wait_for_rows(tmp_path):
    """No rows yet is no misuse: the files may be filled later, and ``refresh`` finds what came."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (0,), "i8", maxshape=(None,), chunks=(4,))
    manager = GlobalIndexManager(tmp_path, key="x", sequences="file", window=range(3))
    assert len(manager) == 0
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["x"].resize((5,))
        file["x"][...] = 1
    assert manager.refresh().keep_ids
    assert len(manager) == 3


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda index: index.where(99), IndexError, r"sample id 99 is outside \[0, 10\)"),
        (lambda index: index.where(-1), IndexError, r"sample id -1 is outside"),
        (lambda index: index.where(True), TypeError, r"must be an integer, got True"),
        (lambda index: index.locate(99), IndexError, r"sample id 99 is outside"),
        (lambda index: index.locate_many([3, 99]), IndexError, r"sample id 99 is outside"),
        (lambda index: index.sample_id(5, 0), IndexError, r"sequence number 5 is outside \[0, 2\)"),
        (
            lambda index: index.sample_id(0, 3),
            IndexError,
            r"5 rows has no anchor 3: it has 3, from 0",
        ),
        (
            lambda index: index.sample_id(1, 1),
            IndexError,
            r"anchor 1 of sequence 1 touches a missing",
        ),
        (lambda index: index.sample_id("a", 0), TypeError, r"the number of a sequence, got 'a'"),
        (lambda index: index.split(1.5), ValueError, r"fraction must be in \[0, 1\], got 1.5"),
        (lambda index: index.split(0.5, seed=-1), ValueError, r"seed must be in"),
        (lambda index: index.fingerprint_of_samples(11), ValueError, r"num_samples must be in"),
    ],
)
def test_questions_that_have_no_answer(folder, ask, error, message):
    """Ids, anchors and sequences that are none, by the range that there is."""
    manager = index(folder, "runs.h5", key="x", sequences="ends", window=range(3), missing=[7, 17])
    assert len(manager) == 10
    with pytest.raises(error, match=message):
        ask(manager)


@pytest.mark.parametrize(
    "ask", [lambda m: m.where(0), lambda m: m.sequences, lambda m: m.split(0.5)]
)
def test_an_index_of_rows_has_no_sequences(folder, ask):
    """The error names the kinds of sequences that there are."""
    with pytest.raises(ValueError, match=r"each row of this index is a sample.*pass sequences="):
        ask(index(folder, "one.h5", key="x"))


@pytest.mark.parametrize(
    ("constant", "message"),
    [
        ("pair[*]", r"'pair' of .*groups.h5 has 2, and this is sequence 2"),
        ("nowhere", r"groups.h5 has no 'nowhere'"),
        ("data/*@say", r"groups.h5 has no 'data/demo_2@say'"),
        ("@say", r"groups.h5 has no '@say'"),
        ("data", r"groups.h5 has no 'data'"),
    ],
)
def test_constants_that_are_not_there(folder, constant, message):
    """ReadError names the constant, the file and where it was looked for."""
    from globidx.disk.reading.batch import FieldSpec
    from globidx.disk.reading.reader import Reader

    manager = index(folder, "groups.h5", **GROUPS, constants={"a": constant})
    reader = Reader(
        manager,
        [FieldSpec(0, 0)],
        max_open_files=None,
        cache_bytes=0,
        on_missing="error",
        backend="auto",
    )
    with pytest.raises(ReadError, match=rf"constant 'a'.*{message}"):
        reader.read([len(manager) - 1])
    reader.close()
