"""The command over samples of several rows: each number against one counted from the files by h5py or zarr alone."""

from __future__ import annotations

import glob
import json
import os
import re
from dataclasses import asdict, dataclass
from typing import NamedTuple

import h5py
import numpy as np
import pytest
import zarr
from files import numbers, write_hdf5, write_zarr
from hypothesis import given
from hypothesis import strategies as st

from globidx import GlobalIndexManager
from globidx.cli import main
from globidx.cli.sequences import histogram, rows_in_words
from globidx.core.windows.anchors import Window


def run(capsys, *arguments):
    """Exit code, stdout and stderr of the command in this process."""
    code = main([*map(str, arguments)])
    return code, *capsys.readouterr()


def told(capsys, *arguments):
    """What a command that succeeds prints as JSON."""
    code, out, err = run(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


# -- the oracle: sequences as lists of places, samples as lists of rows


class Episode(NamedTuple):
    """A sequence by its name, and file and row of each of its rows."""

    name: str
    places: list[tuple[str, int]]


class Sample(NamedTuple):
    """One window: the number of its sequence, its anchor, where that lies, and its rows by field."""

    sequence: int
    anchor: int
    path: str
    item: int
    rows: dict[str, list[int]]


def episode(name, path, rows):
    return Episode(name, [(path, row) for row in rows])


def windows(episodes, fields, *, stride=1, pad=None, reach=None, gone=()):
    """All samples, in the sequence of their ids.

    ``reach`` are the rows before and after a sequence that a window may stand on, ``gone`` rows of
    the files that are missing.
    """
    every = [offset for offsets in fields.values() for offset in offsets]
    low, high = min(every), max(every)
    for number, (_, places) in enumerate(episodes):
        last = len(places) - 1
        before, after = reach or ((max(0, -low), max(0, high)) if pad else (0, 0))
        fits = [
            anchor
            for anchor in range(-100, last + 101)
            if last >= 0 and anchor + low >= -before and anchor + high <= last + after
        ]
        for anchor in fits[::stride]:
            taken = {
                name: [min(max(anchor + offset, 0), last) for offset in offsets]
                for name, offsets in fields.items()
            }
            if any(places[at][1] in gone for some in taken.values() for at in some):
                continue
            own = min(max(anchor, 0), last)
            path, item = places[own]
            # told as rows of the anchor's file, also where a chain goes on in the next one
            rows = {name: [item + at - own for at in some] for name, some in taken.items()}
            yield Sample(number, anchor, path, item, rows)


# -- files of every kind of sequence


@dataclass
class Case:
    """Files, the options of the command and of the manager, and what the files hold."""

    name: str
    options: list[str]
    arguments: dict[str, object]
    found: int
    episodes: list[Episode]
    fields: dict[str, list[int]]
    stride: int = 1
    pad: str | None = None
    reach: tuple[int, int] | None = None
    gone: tuple[int, ...] = ()

    @property
    def samples(self):
        return list(self.windows(self.gone))

    def windows(self, gone=()):
        options = {"stride": self.stride, "pad": self.pad, "reach": self.reach}
        return windows(self.episodes, self.fields, **options, gone=gone)

    @property
    def lengths(self):
        return [len(one.places) for one in self.episodes]

    def command(self, *more):
        return [self.name, *self.options, *more]

    def manager(self, **more):
        return GlobalIndexManager(self.name, **self.arguments, **more)


def by_file(folder):
    """A file an episode, ordered by the numbers in their names, padded at both ends."""
    for number, rows in ((1, 5), (2, 0), (10, 7), (9, 3)):
        write_hdf5(folder / f"ep_{number}.h5", numbers(rows), chunk=2)
    names = sorted(os.listdir(folder), key=lambda name: int(re.findall("[0-9]+", name)[0]))
    episodes = []
    for name in names:
        with h5py.File(folder / name) as file:
            episodes.append(episode(name, str(folder / name), range(len(file["x"]))))
    return Case(
        str(folder),
        ["--key", "x", "--sequences", "file", "--window", "-2:2", "--pad", "edge"],
        {"key": "x", "sequences": "file", "window": Window(range(-2, 2), pad="edge")},
        len(names),
        episodes,
        {"x": [-2, -1, 0, 1]},
        pad="edge",
    )


def by_chain(folder):
    """Files of two stations, each one chain; every third anchor."""
    for name, rows in (("north/1", 4), ("north/2", 5), ("south/1", 3), ("south/2", 1)):
        (folder / name).parent.mkdir(exist_ok=True)
        write_zarr(folder / f"{name}.zarr", numbers(rows), key="x")
    episodes = []
    for station in ("north", "south"):
        files = sorted(glob.glob(str(folder / station / "*.zarr")))
        places = [
            (path, row) for path in files for row in range(zarr.open_group(path)["x"].shape[0])
        ]
        episodes.append(Episode(station, places))
    return Case(
        str(folder),
        "--key x --sequences chain --chain-by parent --window 0:2 --stride 3".split(),
        {
            "key": "x",
            "sequences": "chain",
            "chain_by": "parent",
            "window": Window(range(2), stride=3),
        },
        2,
        episodes,
        {"x": [0, 1]},
        stride=3,
    )


def by_match(folder):
    """Demonstrations as groups of two files; a mask lists some; some are shorter than the window."""
    lengths = {"a": (9, 2, 6, 8, 3, 4, 12, 5, 7, 6, 11), "b": (4, 10, 1)}
    for name, rows in lengths.items():
        arrays = {}
        for number, count in enumerate(rows):
            arrays[f"data/demo_{number}/obs/image"] = numbers(count, (2, 2))
            arrays[f"data/demo_{number}/actions"] = numbers(count, (3,), "f4")
        write_hdf5(folder / f"{name}.hdf5", arrays, chunk=4, compression="gzip")
        with h5py.File(folder / f"{name}.hdf5", "a") as file:
            listed = [f"demo_{number}" for number in range(len(rows)) if number != 3]
            file["mask/train"] = np.array(listed, "S")
    episodes, found = [], 0
    for name in lengths:
        path = str(folder / f"{name}.hdf5")
        with h5py.File(path) as file:
            found += len(file["data"])
            listed = {one.decode() for one in file["mask/train"][:]}
            for demo in sorted(file["data"], key=lambda one: int(one.split("_")[1])):
                if demo in listed:
                    rows = range(len(file[f"data/{demo}/actions"]))
                    episodes.append(episode(demo, path, rows))
    return Case(
        str(folder / "*.hdf5"),
        [
            *("--key", "obs/image=data/*/obs/image", "--key", "action=data/*/actions"),
            *("--sequences", "match", "--only", "mask/train"),
            *("--window", "obs/image=-1,0", "--window", "action=0:3"),
        ],
        {
            "key": {"obs/image": "data/*/obs/image", "action": "data/*/actions"},
            "sequences": "match",
            "only": "mask/train",
            "window": {"obs/image": (-1, 0), "action": range(3)},
        },
        found,
        episodes,
        {"obs/image": [-1, 0], "action": [0, 1, 2]},
    )


def by_ends(folder):
    """One buffer with the row behind each episode, and an array of rows that are missing."""
    path = write_zarr(
        folder / "buffer.zarr",
        {"data/action": numbers(40), "data/image": numbers(40, (2, 2))},
        zarr_format=2,
    )
    group = zarr.open_group(path)
    group.create_array("meta/episode_ends", data=np.array([12, 12, 14, 30, 37]))
    group.create_array("gone", data=np.array([20, 35, 39]))
    ends = zarr.open_group(path)["meta/episode_ends"][:].tolist()
    bounds = zip([0, *ends], ends, strict=False)
    return Case(
        path,
        [
            *("--key", "data/action", "--key", "data/image", "--missing", "gone"),
            *("--sequences", "meta/episode_ends", "--window", "-1,0,1"),
        ],
        {
            "key": ["data/action", "data/image"],
            "sequences": "meta/episode_ends",
            "missing": "gone",
            "window": (-1, 0, 1),
        },
        len(ends),
        [
            episode(str(number), path, range(start, stop))
            for number, (start, stop) in enumerate(bounds)
        ],
        {"": [-1, 0, 1]},
        gone=tuple(zarr.open_group(path)["gone"][:].tolist()),
    )


def by_runs(folder):
    """Episodes by first row and length, which leave rows out and are in no order."""
    path = write_hdf5(
        folder / "runs.h5",
        {"x": numbers(30), "first": np.array([20, 0, 9]), "rows": np.array([6, 8, 3])},
    )
    with h5py.File(path) as file:
        pairs = list(zip(file["first"][:].tolist(), file["rows"][:].tolist(), strict=True))
    return Case(
        path,
        "--key x --sequences first,rows --window 0:9:4 --pad zero --before 0 --after 4".split(),
        {
            "key": "x",
            "sequences": ("first", "rows"),
            "window": Window((0, 4, 8), pad="zero", before=0, after=4),
        },
        len(pairs),
        [
            episode(str(number), path, range(first, first + rows))
            for number, (first, rows) in enumerate(pairs)
        ],
        {"x": [0, 4, 8]},
        reach=(0, 4),
    )


def by_axis(folder):
    """Trajectories along axis 0, steps along axis 1 of one field and axis 2 of the other."""
    path = folder / "flow.h5"
    with h5py.File(path, "w") as file:
        file["velocity"] = numbers(4, (6, 2))
        file["mass"] = numbers(4, (3, 6))
    with h5py.File(path) as file:
        count, steps = file["velocity"].shape[:2]
    return Case(
        str(path),
        [
            *("--key", "velocity", "--key", "mass", "--axis", "velocity=1", "--axis", "mass=2"),
            *("--sequences", "axis", "--window", "0:3", "--stride", "2"),
        ],
        {
            "key": ["velocity", "mass"],
            "axis": {"velocity": 1, "mass": 2},
            "sequences": "axis",
            "window": Window(range(3), stride=2),
        },
        count,
        [episode(str(number), str(path), range(steps)) for number in range(count)],
        {"": [0, 1, 2]},
        stride=2,
    )


KINDS = [by_file, by_chain, by_match, by_ends, by_runs, by_axis]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def case(request, tmp_path):
    """Files of one kind."""
    return request.param(tmp_path)


# -- what is told is what the files hold


def test_info_tells_what_the_files_hold(case, capsys):
    """Samples, sequences, their lengths, and what was left out and why."""
    value = told(capsys, "index", "info", *case.command())
    lengths, samples = case.lengths, case.samples
    assert samples and value["num_samples"] == len(samples)
    sequences = value["sequences"]
    assert sequences["found"] == case.found and sequences["used"] == len(lengths)
    assert (sequences["shortest"], sequences["longest"]) == (min(lengths), max(lengths))
    for one in sequences["lengths"]:
        assert one["size"] == sum(one["low"] <= length <= one["high"] for length in lengths)
    assert sum(one["size"] for one in sequences["lengths"]) == len(lengths)
    whole = list(case.windows())
    assert value["left_out"] == {
        "sequences_not_listed": case.found - len(lengths),
        "sequences_too_short": len(lengths) - len({sample.sequence for sample in whole}),
        "rows_missing": len(case.gone),
        "samples_of_missing_rows": len(whole) - len(samples),
    }


def test_locate_tells_sequence_anchor_and_rows_of_every_id(case, capsys):
    """Names, and rows by field where fields take different ones."""
    samples = case.samples
    found = told(capsys, "index", "locate", *case.command(*range(len(samples))))
    assert found == [
        {
            "id": id,
            "path": sample.path,
            "item": sample.item,
            "sequence": sample.sequence,
            "name": case.episodes[sample.sequence].name,
            "anchor": sample.anchor,
            "rows": sample.rows if len(sample.rows) > 1 else next(iter(sample.rows.values())),
        }
        for id, sample in enumerate(samples)
    ]
    code, out, err = run(capsys, "index", "locate", *case.command(len(samples)))
    assert (code, out) == (1, "")
    assert err == f"globidx: sample id {len(samples)} is outside [0, {len(samples)})\n"


def test_the_command_and_the_manager_are_one_index(case, capsys):
    """The same cache file, which the manager only reads, and the same fingerprint."""
    code, out, _ = run(capsys, "index", "build", *case.command())
    value = told(capsys, "index", "info", *case.command())
    before = os.stat(value["cache"])
    manager = case.manager()
    after = os.stat(value["cache"])
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert str(manager.cache_path) == value["cache"] and manager.fingerprint == value["fingerprint"]
    assert len(manager) == value["num_samples"]
    assert manager.window.describe() == Window(**value["window"]).describe()
    files = f"{manager.num_files} files, cached in {manager.cache_path}"
    counts = f"{len(case.samples)} samples in {len(case.episodes)} sequences in {files}\n"
    assert (code, out) == (0, counts)


def test_parts_are_merged_to_the_same_index(tmp_path, capsys):
    """A job array over files of groups: their sequences are those of one scan."""
    case = by_match(tmp_path)
    whole = told(capsys, "index", "info", *case.command("--dry-run"))
    for part in ("1/2", "2/2"):
        assert run(capsys, "index", "build", *case.command("--part", part))[0] == 0
    merged = told(capsys, "index", "merge", *case.command())
    # a merge opens no file
    whole.pop("available")
    assert {name: merged[name] for name in whole} == whole


# -- for people


def test_info_in_words(tmp_path, capsys):
    """A bar for each bin, the window by field, and a line for each reason."""
    case = by_match(tmp_path)
    code, out, _ = run(capsys, "index", "info", *case.command())
    lines = out.splitlines()
    assert code == 0 and f"samples      {len(case.samples)}" in lines
    assert f"sequences    {len(case.episodes)} of {case.found}" in lines
    start = next(at for at, line in enumerate(lines) if line.startswith("lengths"))
    stop = next(at for at, line in enumerate(lines) if line.startswith("window"))
    assert 5 <= stop - start <= 8
    for line in lines[start:stop]:
        low, high, size, bar = re.fullmatch(
            r".{13} *(\d+)(?: to +(\d+))? +(\d+)(?:  (#+))?", line
        ).groups()
        inside = sum(int(low) <= length <= int(high or low) for length in case.lengths)
        assert int(size) == inside and bool(bar) == bool(inside)
    assert lines[stop : stop + 3] == [
        "window       rows -1, 0 of obs/image, counted from the anchor",
        "             rows 0 to 2 of action, counted from the anchor",
        "             every anchor, windows inside their sequence",
    ]
    short = sum(length < 4 for length in case.lengths)
    assert lines[stop + 3 : stop + 5] == [
        f"left out     {case.found - len(case.episodes)} sequences that --only does not list",
        f"             {short} sequences that are shorter than the window",
    ]
    assert "items/file" not in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--window", "all"], "all rows of a sequence\n"),
        (["--window", "3"], "row 3, counted from the anchor\n"),
        ([], "row 0, counted from the anchor\n"),
        (["--stride", "4"], "one anchor in 4, windows inside their sequence\n"),
        (
            ["--window=-3:2", "--pad", "zero"],
            "every anchor, zero padding: up to 3 rows before a sequence and 1 after it\n",
        ),
        (
            ["--window=-3:2", "--pad", "edge", "--before", "0", "--after", "7"],
            "every anchor, edge padding: up to 0 rows before a sequence and 7 after it\n",
        ),
    ],
)
def test_a_window_in_words(tmp_path, capsys, options, said):
    """What it takes, how often, and how far beyond the ends."""
    path = write_hdf5(tmp_path / "a.h5", numbers(9))
    assert said in run(capsys, "index", "info", path, "--sequences", "file", *options)[1]


def test_missing_rows_are_told_with_what_they_cost(tmp_path, capsys):
    """Also where they cost nothing: rows behind the last episode."""
    case = by_ends(tmp_path)
    lost = len(list(case.windows())) - len(case.samples)
    said = run(capsys, "index", "info", *case.command())[1]
    assert f"  {lost} samples whose windows touch one of 3 missing rows\n" in said


def test_locate_in_words(tmp_path, capsys):
    """One line an id: the file, the sequence with its name, and rows as runs."""
    case = by_match(tmp_path)
    id = next(id for id, one in enumerate(case.samples) if one.sequence == 2 and one.anchor == 2)
    sample = case.samples[id]
    said = run(capsys, "index", "locate", *case.command(id))[1]
    assert said == (
        f"{id}  {sample.path}  item 2  sequence 2 'demo_2', anchor 2: rows 1, 2 of obs/image; rows 2 to 4 of action\n"
    )


def test_no_sequence_at_all_is_told(tmp_path, capsys):
    """A mask that lists none: nothing to train on, and the reason."""
    case = by_match(tmp_path)
    for path in glob.glob(case.name):
        with h5py.File(path, "a") as file:
            del file["mask/train"]
            file["mask/train"] = np.array([], "S8")
    value = told(capsys, "index", "info", *case.command())
    assert value["num_samples"] == 0 and value["sequences"] == {
        "found": case.found,
        "used": 0,
        "shortest": None,
        "longest": None,
        "lengths": [],
    }
    said = run(capsys, "index", "info", *case.command())[1]
    assert f"left out     {case.found} sequences that --only does not list\n" in said


@given(st.lists(st.integers(0, 2**40) | st.integers(0, 60), max_size=60), st.integers(2, 9))
def test_a_histogram_counts_each_value_once(values, most):
    """At most so many bins, apart and ascending, from the least value to the greatest."""
    bins = histogram(np.array(values, np.int64), most)
    assert len(bins) <= most and sum(one.size for one in bins) == len(values)
    for one in bins:
        assert one.size == sum(one.low <= value <= one.high for value in values)
    if values:
        assert (bins[0].low, bins[-1].high) == (min(values), max(values))
    assert all(one.high < other.low for one, other in zip(bins, bins[1:], strict=False))


@given(st.lists(st.integers(-9, 9), max_size=40))
def test_rows_in_words_can_be_read_back(rows):
    """Runs and single rows in their sequence; of more than eight runs the first."""
    noun, _, rest = rows_in_words(rows).partition(" ")
    assert noun == ("row" if len(rows) == 1 else "rows")
    said, _, more = rest.partition(" and ")
    read = []
    for part in said.split(", ") if said else []:
        first, _, last = part.partition(" to ")
        read += range(int(first), int(last or first) + 1)
    assert read == rows[: len(read)] and bool(more) == (len(read) < len(rows))


# -- what changed


def _append_demo(folder):
    """A group behind all others of the last file."""
    with h5py.File(folder / "b.hdf5", "a") as file:
        file["data/demo_10/obs/image"] = numbers(7, (2, 2))
        file["data/demo_10/actions"] = numbers(7, (3,), "f4")
        del file["mask/train"]
        file["mask/train"] = np.array([f"demo_{number}" for number in (0, 1, 2, 10)], "S")


def _insert_demo(folder):
    """A group that is listed between others."""
    with h5py.File(folder / "a.hdf5", "a") as file:
        del file["mask/train"]
        file["mask/train"] = np.array([f"demo_{number}" for number in range(11)], "S")


def _grow_last(folder):
    """Rows of the last trajectory of a chain."""
    write_zarr(folder / "south/3.zarr", numbers(4), key="x")


def _grow_first(folder):
    """Rows of the first chain, behind which others lie."""
    write_zarr(folder / "north/3.zarr", numbers(4), key="x")


def _append_file(folder):
    """A file behind all others by its number, and among them by its name."""
    write_hdf5(folder / "ep_11.h5", numbers(6), chunk=2)


def _insert_file(folder):
    """A file between others by its number, and behind some by its name."""
    write_hdf5(folder / "ep_8.h5", numbers(6), chunk=2)


@pytest.mark.parametrize(
    ("kind", "change", "keeps"),
    [
        (by_match, _append_demo, True),
        (by_match, _insert_demo, False),
        (by_chain, _grow_last, True),
        (by_chain, _grow_first, False),
        (by_file, _append_file, True),
        (by_file, _insert_file, False),
    ],
)
def test_diff_tells_whether_ids_keep_their_windows(tmp_path, capsys, kind, change, keeps):
    """By the samples themselves, listed before and after; and as ``refresh`` tells it."""
    (tmp_path / "files").mkdir()
    case = kind(tmp_path / "files")
    manager = case.manager(cache_dir=tmp_path)
    run(capsys, "index", "build", *case.command())
    assert run(capsys, "index", "diff", *case.command())[:2] == (0, "nothing changed\n")
    count = len(case.samples)
    before = told(capsys, "index", "locate", *case.command("--dry-run", *range(count)))
    change(tmp_path / "files")
    # it writes nothing, so it tells the same again
    for _ in range(2):
        code, out, _ = run(capsys, "index", "diff", *case.command())
        assert code == 1
        assert out.endswith(f"sample ids {'keep' if keeps else 'lose'} their places\n")
    value = json.loads(run(capsys, "index", "diff", *case.command("--json"))[1])
    assert value == json.loads(json.dumps(asdict(manager.refresh())))
    assert value["keep_ids"] is keeps
    after = told(capsys, "index", "locate", *case.command(*range(count)))
    same = [_meaning(one) for one in before] == [_meaning(one) for one in after]
    assert same is keeps


def _meaning(located):
    """What an id means, whatever the number of its sequence."""
    return {name: value for name, value in located.items() if name != "sequence"}


# -- reading all, and what reading costs


def test_check_names_the_match_whose_data_are_damaged(tmp_path, capsys):
    """The path of its array in the file, for people and as JSON; the other matches are whole."""
    case = by_match(tmp_path)
    path, array = str(tmp_path / "a.hdf5"), "data/demo_4/obs/image"
    with h5py.File(path) as file:
        at = file[array].id.get_chunk_info(0).byte_offset
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(b"junk")
    code, out, _ = run(capsys, "index", "check", *case.command())
    assert code == 1 and f"problem    {path}, array {array!r}: rows [0, 3): " in out
    code, out, _ = run(capsys, "index", "check", *case.command("--json"))
    value = json.loads(out)
    assert code == 1 and value["unreadable"] == 1
    assert [(one["path"], one["array"]) for one in value["problems"]] == [(path, array)]
    chunks = 0
    for name in glob.glob(case.name):
        with h5py.File(name) as file:
            for demo in file["data"].values():
                chunks += (
                    demo["obs/image"].id.get_num_chunks() + demo["actions"].id.get_num_chunks()
                )
    assert value["chunks"] == chunks


@pytest.mark.parametrize("kind", KINDS)
def test_check_reads_whole_files_of_every_kind(tmp_path, capsys, kind):
    """As many files as there are, and no problem in any."""
    case = kind(tmp_path)
    value = told(capsys, "index", "check", *case.command())
    assert value["num_files"] == case.manager().num_files and value["problems"] == []


def test_estimate_tells_decodes_of_each_field(tmp_path, capsys):
    """In sequence each chunk that any window touches is decoded once: counted from the windows."""
    path = write_zarr(tmp_path / "a.zarr", {"action": numbers(64), "image": numbers(64)}, chunk=4)
    options = "--key action --key image --sequences file --window action=0:16 --window image=0 --stride 16".split()
    given = ["estimate", path, *options, "--batch-size", "2", "--order", "sequential"]
    samples = windows(
        [episode("", path, range(64))], {"action": [*range(16)], "image": [0]}, stride=16
    )
    rows = [sample.rows for sample in samples]
    touched = {
        name: {row // 4 for sample in rows for row in sample[name]} for name in ("action", "image")
    }
    value = told(capsys, *given)
    assert value["samples"] == len(rows)
    assert value["decodes_of"] == {name: len(some) / 16 for name, some in touched.items()}
    assert "decodes a chunk   0.62 (action 1.00, image 0.25)\n" in run(capsys, *given)[1]
    one = ["estimate", path, "--key", "action", "--batch-size", "2", "--order", "sequential"]
    assert "decodes a chunk   1.00\n" in run(capsys, *one)[1]


def test_estimate_has_the_chunk_order_s_window_under_another_name(tmp_path, capsys):
    """``--window`` says which rows a sample has, in every command."""
    path = write_zarr(tmp_path / "a.zarr", numbers(64), chunk=4)
    given = [
        "estimate",
        path,
        "--batch-size",
        "2",
        "--order",
        "chunk-shuffle",
        "--sequences",
        "file",
    ]
    value = told(capsys, *given, "--window", "0:4", "--shuffle-window", "2")
    assert value["samples"] == 61
