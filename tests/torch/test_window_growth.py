"""Files with sequences that grow and change under an index: never a stale answer, and the truth about ids."""

import os
import shutil

import h5py
import numpy as np
import pytest
import zarr
from files import watched_scans
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from globidx import FileCacheDataset, GlobalIndexManager, Window

WIDE = Window(range(-1, 3))
PADDED = Window((0, 1, 2), pad="edge", mask=True)


@pytest.fixture(autouse=True)
def opened(monkeypatch):
    """The names of files that were opened to look inside."""
    return watched_scans(monkeypatch)


@pytest.fixture(params=["zarr", "h5"])
def suffix(request):
    return request.param


def opened_file(path, mode):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zarr":
        return zarr.open_group(str(path), mode=mode, use_consolidated=False)
    return h5py.File(path, mode)


def put(path, arrays, groups=(), gone=()):
    """Write arrays whole, new ones or in the place of old ones; make empty groups, and take others away."""
    file = opened_file(path, "a")
    for name in gone:
        del file[name]
    for name in groups:
        file.create_group(name)
    for name, listed in arrays.items():
        values = np.asarray(listed)
        if name not in file:
            options = {"chunks": (3, *values.shape[1:])}
            if path.suffix == ".zarr":
                options["config"] = {"write_empty_chunks": True}
                file.create_array(name, shape=values.shape, dtype=values.dtype, **options)
            else:
                limits = (None, *values.shape[1:])
                file.create_dataset(name, values.shape, values.dtype, maxshape=limits, **options)
        elif file[name].shape != values.shape:
            file[name].resize(values.shape)
        file[name][...] = values
    if path.suffix != ".zarr":
        file.close()


def slip_in(path, name, values):
    """An array that a writer adds without a touch on the groups above, as zarr itself would have."""
    if path.suffix != ".zarr":
        return put(path, {name: values})
    put(path.with_name("new.zarr"), {"x": values})
    os.rename(path.with_name("new.zarr") / "x", path / name)
    return None


def rows(count, start=1):
    """Rows that no other sequence has."""
    return np.arange(start, start + count)


class Watched:
    """An index, and what each of its ids means: the name of a sequence, an anchor, and the rows inside it."""

    def __init__(self, files, cache, opened, *, side=None, **options):
        self.side = side
        self.files, self.cache, self.opened, self.options = files, cache, opened, options
        self.dataset = FileCacheDataset(self.build())
        self.manager = self.dataset.index_manager
        self.before, self.was = self.meaning(self.manager), self.manager.fingerprint
        self.opened.clear()
        assert self.meaning(self.build()) == self.before
        assert not self.opened, "found again in its cache"

    def build(self, cache=None):
        manager = GlobalIndexManager(
            self.files, cache_dir=cache or self.cache, settled_after=0, **self.options
        )
        return manager if self.side is None else manager.split(0.5, seed=3)[self.side]

    def meaning(self, manager):
        """What each id means, read through a dataset."""
        names = list(manager.sequences.names)
        dataset = FileCacheDataset(manager)
        told = []
        for id in range(len(manager)):
            where, sample = manager.where(id), dataset[id]
            mask = sample["mask"] if isinstance(sample, dict) else slice(None)
            values = sample["x"] if isinstance(sample, dict) else sample
            told.append((names[where.sequence], where.anchor, tuple(values[mask].tolist())))
        dataset.close()
        return told

    def look(self):
        """What ``refresh`` tells; it, an index from the cache and one from nothing must agree."""
        elsewhere = self.cache / "elsewhere"
        fresh = self.meaning(self.build(elsewhere))
        shutil.rmtree(elsewhere)
        assert self.meaning(self.build()) == fresh, "a stale answer from the cache"
        changes = self.manager.refresh()
        assert self.meaning(self.manager) == fresh, "a stale answer from refresh"
        count = len(self.before)
        kept = count <= len(fresh) and all(
            (*old[:2], *old[2]) == (*new[:2], *new[2][: len(old[2])])
            for old, new in zip(self.before, fresh, strict=False)
        )
        assert changes.keep_ids == kept
        assert bool(changes) or fresh == self.before
        if count <= len(fresh):
            assert (self.manager.fingerprint_of_samples(count) == self.was) == kept
        self.before, self.was = fresh, self.manager.fingerprint
        return changes


@pytest.fixture
def watched(tmp_path, opened):
    def of(files, **options):
        return Watched(files, tmp_path / "cache", opened, **options)

    return of


WINDOWS = pytest.mark.parametrize("window", [WIDE, PADDED, Window((0, 1), stride=3)])


@WINDOWS
def test_groups_that_come_go_and_grow(tmp_path, suffix, watched, window):
    """A group behind all keeps ids, one between others moves them, and so does another length of one that others follow."""
    path = tmp_path / f"a.{suffix}"
    put(path, {f"data/demo_{number}/x": rows(6, 100 * number) for number in (2, 9)})
    watch = watched(path, key="data/*/x", sequences="match", window=window)
    put(path, {"data/demo_10/x": rows(7, 1000)})
    assert watch.look().keep_ids
    put(path, {"data/demo_10/x": rows(11, 1000)})
    assert watch.look().keep_ids
    put(path, {"data/demo_3/x": rows(8, 300)})
    assert not watch.look().keep_ids
    put(path, {"data/demo_3/x": rows(13, 300)})
    assert not watch.look().keep_ids
    put(path, {}, gone=["data/demo_2"])
    assert not watch.look().keep_ids


def test_a_group_without_arrays_that_gets_them(tmp_path, suffix, watched):
    """A writer makes a group first and its arrays later: they are found, though no folder above changed."""
    path = tmp_path / f"a.{suffix}"
    put(path, {"data/demo_1/obs/x": rows(5)}, groups=["data/demo_2", "data/demo_3/obs"])
    watch = watched(path, key="data/*/obs/x", sequences="match", window=WIDE)
    slip_in(path, "data/demo_3/obs/x", rows(6, 50))
    assert watch.look().keep_ids
    put(path, {}, groups=["data/demo_2/obs"])
    slip_in(path, "data/demo_2/obs/x", rows(6, 80))
    assert not watch.look().keep_ids


def test_groups_at_any_depth_that_get_arrays(tmp_path, suffix, watched):
    """The same below ``**``, where the group with the array was not looked into for a match before."""
    path = tmp_path / f"a.{suffix}"
    put(path, {"a/x": rows(5)}, groups=["b/c/d"])
    watch = watched(path, key="**/x", sequences="match", window=WIDE)
    slip_in(path, "b/c/d/x", rows(6, 50))
    assert watch.look().keep_ids
    slip_in(path, "b/c/x", rows(6, 80))
    assert not watch.look().keep_ids


def test_a_group_replaced_by_one_of_its_length(tmp_path, suffix, watched):
    """Its ids are the same anchors of the same sequence; its rows are read anew."""
    path = tmp_path / f"a.{suffix}"
    put(path, {f"data/{name}/x": rows(6, start) for name, start in (("a", 10), ("b", 20))})
    watch = watched(path, key="data/*/x", sequences="match", window=WIDE)
    put(path, {}, gone=["data/a"])
    put(path, {"data/a/x": rows(6, 70)})
    assert watch.manager.refresh().keep_ids
    assert watch.dataset[0].tolist() == [70, 71, 72, 73]
    assert watch.meaning(watch.build())[0] == ("a", 1, (70, 71, 72, 73))


@WINDOWS
def test_ends_that_are_appended_and_rewritten(tmp_path, suffix, watched, window):
    """Rows and an end more keep ids; ends rewritten in place move them, though no array changed its shape."""
    path = tmp_path / f"a.{suffix}"
    put(path, {"x": rows(20), "meta/ends": [5, 12, 20]})
    watch = watched(path, key="x", sequences="meta/ends", window=window)
    put(path, {"x": rows(30), "meta/ends": [5, 12, 20, 27]})
    assert watch.look().keep_ids
    put(path, {"meta/ends": [5, 12, 20, 30]})
    assert watch.look().keep_ids
    put(path, {"meta/ends": [6, 12, 20, 30]})
    assert not watch.look().keep_ids
    put(path, {"meta/ends": [6, 12, 20, 25]})
    assert not watch.look().keep_ids


def test_an_end_moved_before_the_first_sequence_with_samples(tmp_path, suffix, watched):
    """A sequence too short for the window has no samples, and still moves the rows of the next one."""
    path = tmp_path / f"a.{suffix}"
    put(path, {"x": rows(20), "meta/ends": [2, 12]})
    watch = watched(path, key="x", sequences="meta/ends", window=Window(range(5)))
    put(path, {"meta/ends": [1, 11]})
    assert not watch.look().keep_ids


def test_runs_that_begin_elsewhere(tmp_path, suffix, watched):
    """Sequences of the same number and length over other rows are other samples."""
    path = tmp_path / f"a.{suffix}"
    put(path, {"x": rows(20), "ep/first": [1, 10], "ep/len": [6, 6]})
    watch = watched(path, key="x", sequences=("ep/first", "ep/len"), window=WIDE)
    put(path, {"ep/first": [10, 1]})
    assert not watch.look().keep_ids
    put(path, {"ep/first": [10, 1, 5], "ep/len": [6, 6, 9]})
    assert watch.look().keep_ids


@pytest.mark.parametrize("kind", ["match", "axis", "ends"])
@pytest.mark.parametrize("by", ["flags", "names", "numbers"])
def test_a_list_of_sequences_that_changes(tmp_path, suffix, watched, kind, by):
    """``only=`` is read anew when its array was rewritten in place."""
    path = tmp_path / f"a.{suffix}"
    arrays, options = {
        "match": ({f"data/{n}/x": rows(6, 10 * n + 1) for n in range(3)}, {"key": "data/*/x"}),
        "axis": ({"x": np.arange(1, 19).reshape(3, 6)}, {"key": "x"}),
        "ends": ({"x": rows(18), "ends": [6, 12, 18]}, {"key": "x"}),
    }[kind]
    spelled = {
        "flags": ([True, True, False], [True, False, True], [True, True, True]),
        "numbers": ([1, 1, 0], [2, 2, 0], [2, 1, 0]),
        "names": (np.array([b"1", b"0"]), np.array([b"2", b"0"]), np.array([b"2", b"1", b"0"])),
    }[by]
    if by == "names" and suffix == "zarr":
        spelled = [one.astype("U").astype(np.dtypes.StringDType()) for one in spelled]
    put(path, arrays | {"mask/train": spelled[0]})
    options |= {"sequences": "ends" if kind == "ends" else kind, "only": "mask/train"}
    watch = watched(path, window=WIDE, **options)
    assert len(watch.manager) == 6
    put(path, {"mask/train": spelled[1]})
    assert not watch.look().keep_ids
    put(path, {"mask/train": spelled[2]})
    watch.look()
    assert len(watch.manager) == 9


@pytest.mark.parametrize("kind", ["file", "axis", "match"])
def test_missing_rows_that_change(tmp_path, suffix, watched, kind):
    """A row more that is missing moves ids, wherever it is told."""
    path = tmp_path / f"a.{suffix}"
    arrays, key = {
        "file": ({"x": rows(12)}, "x"),
        "axis": ({"x": np.arange(1, 13).reshape(2, 6)}, "x"),
        "match": ({f"data/{n}/x": rows(6, 10 * n + 1) for n in range(2)}, "data/*/x"),
    }[kind]
    put(path, arrays | {"gone": np.arange(12) == 11})
    watch = watched(path, key=key, sequences=kind, window=WIDE, missing="gone")
    put(path, {"gone": np.arange(12) == 5})
    assert not watch.look().keep_ids
    put(path, {"gone": np.isin(np.arange(12), (5, 9))})
    watch.look()


@WINDOWS
@pytest.mark.parametrize("by", [None, "parent"])
def test_chains_that_grow(tmp_path, suffix, watched, window, by):
    """Rows behind the last file and files behind it keep ids; all that comes between moves the rows of the chain."""
    folder = tmp_path / "data"
    put(folder / f"run/2.{suffix}", {"x": rows(6)})
    put(folder / f"run/9.{suffix}", {"x": rows(6, 50)})
    watch = watched(str(folder), key="x", sequences="chain", chain_by=by, window=window)
    put(folder / f"run/9.{suffix}", {"x": rows(9, 50)})
    assert watch.look().keep_ids
    put(folder / f"run/10.{suffix}", {"x": rows(4, 100)})
    assert watch.look().keep_ids
    put(folder / f"run/3.{suffix}", {"x": rows(3, 200)})
    assert not watch.look().keep_ids
    put(folder / f"run/3.{suffix}", {"x": rows(6, 200)})
    assert not watch.look().keep_ids
    name = folder / f"run/2.{suffix}"
    shutil.rmtree(name) if name.is_dir() else name.unlink()
    assert not watch.look().keep_ids


def test_a_file_of_a_chain_that_takes_the_place_of_another(tmp_path, suffix, watched):
    """Another file between the same others, as long as the one before: other rows."""
    folder = tmp_path / "data"
    for number, start in ((1, 1), (2, 50), (4, 100)):
        put(folder / f"{number}.{suffix}", {"x": rows(6, start)})
    watch = watched(str(folder), key="x", sequences="chain", window=WIDE)
    (folder / f"2.{suffix}").rename(tmp_path / f"away.{suffix}")
    put(folder / f"3.{suffix}", {"x": rows(6, 70)})
    assert not watch.look().keep_ids


def test_a_chain_in_a_folder_beside(tmp_path, suffix, watched):
    """The first chain stays what it was when another folder comes after it, though the deepest common folder moves."""
    folder = tmp_path / "data"
    for number in range(2):
        put(folder / f"north/{number}.{suffix}", {"x": rows(6, 10 * number + 1)})
    glob = f"{folder}/**/*.{suffix}"
    options = {"key": "x", "sequences": "chain", "chain_by": "parent", "window": WIDE}
    manager = GlobalIndexManager(glob, cache_dir=tmp_path / "cache", settled_after=0, **options)
    count, was = len(manager), manager.fingerprint
    put(folder / f"south/0.{suffix}", {"x": rows(6, 90)})
    assert manager.refresh().keep_ids
    assert (len(manager) > count, manager.fingerprint_of_samples(count)) == (True, was)


def test_trajectories_that_are_appended(tmp_path, suffix, watched):
    """A place more along axis 0 keeps ids; a step more for all moves them."""
    path = tmp_path / f"a.{suffix}"
    put(path, {"x": np.arange(1, 13).reshape(2, 6)})
    watch = watched(path, key="x", sequences="axis", window=WIDE)
    put(path, {"x": np.arange(1, 25).reshape(4, 6)})
    assert watch.look().keep_ids
    put(path, {}, gone=["x"])
    put(path, {"x": np.arange(1, 29).reshape(4, 7)})
    assert not watch.look().keep_ids


@WINDOWS
def test_files_that_come(tmp_path, suffix, watched, window):
    """A file behind all in natural order keeps ids, one between moves them; files that did not change stay closed."""
    folder = tmp_path / "data"
    for number in (2, 9):
        put(folder / f"run{number}.{suffix}", {"x": rows(6, 10 * number)})
    watch = watched(str(folder), key="x", sequences="file", window=window)
    put(folder / f"run10.{suffix}", {"x": rows(6, 200)})
    watch.opened.clear()
    watch.build()
    assert watch.opened == [f"run10.{suffix}"]
    assert watch.look().keep_ids
    put(folder / f"run10.{suffix}", {"x": rows(8, 200)})
    assert watch.look().keep_ids
    put(folder / f"run3.{suffix}", {"x": rows(6, 30)})
    assert not watch.look().keep_ids


@pytest.mark.parametrize("by", [None, "parent", "function"])
@pytest.mark.parametrize("kind", ["file", "chain", "match"])
def test_sides_of_a_split_stay_when_files_come_elsewhere(tmp_path, kind, by):
    """Whatever is added, a sequence is on the side that it was on."""
    if kind != "chain" and by:
        by = None
    key = "data/*/x" if kind == "match" else "x"
    chain = {"function": os.path.dirname}.get(by, by)

    folder = tmp_path / "data"
    for number in range(8):
        inner = key.replace("*", f"d{number}")
        put(folder / f"a/b{number if kind == 'chain' and by else ''}/{number}.h5", {inner: rows(5)})
    sides = []
    for other in (False, True):
        if other:
            put(folder / "z/9.h5", {key.replace("*", "d9"): rows(5)})
        manager = GlobalIndexManager(
            str(folder), key=key, sequences=kind, chain_by=chain, cache_dir=tmp_path / f"c{other}"
        )
        sides.append([set(side.sequences.paths) for side in manager.split(0.5, seed=3)])
    for before, after in zip(*sides, strict=True):
        assert before == after - {str(folder / "z/9.h5")}


def test_the_only_chain_of_a_folder_stays_on_its_side(tmp_path):
    """While there is one folder it is the deepest that holds all files; with another beside it, it no longer is."""
    folder = tmp_path / "data"
    put(folder / "north/1.h5", {"x": rows(5)})
    options = {"key": "x", "sequences": "chain", "chain_by": "parent"}
    sides = []
    for _ in range(2):
        manager = GlobalIndexManager(str(folder), cache_dir=tmp_path / "cache", **options)
        halves = [manager.split(0.5, seed=seed)[0] for seed in range(12)]
        sides.append([str(folder / "north/1.h5") in half.sequences.paths for half in halves])
        put(folder / "south/1.h5", {"x": rows(5, 20)})
    assert sides[0] == sides[1]
    assert len(set(sides[0])) == 2


@st.composite
def stories(draw):
    """Sequences as (number in the name, rows, first value), and after each change once more."""
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))
    now = [(2 * number, length, 100 * number) for number, length in enumerate(lengths)]
    told, fresh = [now], 100 * len(now)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(now) - 1))
        number, length, first = now[at]
        how = draw(st.sampled_from(["longer", "longer", "shorter", "append", "insert", "remove"]))
        if how in ("longer", "append") and draw(st.booleans()):
            at = len(now) - 1
            number, length, first = now[at]
        if how == "longer":
            now = [*now[:at], (number, length + draw(st.integers(1, 4)), first), *now[at + 1 :]]
        elif how == "shorter":
            now = [*now[:at], (number, max(0, length - 1), first), *now[at + 1 :]]
        elif how == "append":
            now = [*now, (now[-1][0] + 2, draw(st.integers(0, 9)), fresh)]
        elif how == "insert" and number + 1 not in [one[0] for one in now]:
            now = [*now[: at + 1], (number + 1, draw(st.integers(0, 9)), fresh), *now[at + 1 :]]
        elif how == "remove" and len(now) > 1:
            now = [*now[:at], *now[at + 1 :]]
        fresh += 100
        told.append(now)
    return told


def tell(folder, kind, sequences):
    """Files of exactly these sequences; those that are as they were are left alone."""
    if kind in ("file", "chain"):
        wanted = {f"run{number}.h5": rows(length, first) for number, length, first in sequences}
        for path in folder.glob("*.h5"):
            if path.name not in wanted:
                path.unlink()
        for name, values in wanted.items():
            put(folder / name, {"x": values.astype("i8")})
        return
    path = folder / "a.h5"
    path.unlink(missing_ok=True)
    if kind == "match":
        put(path, {f"d{number}/x": rows(length, first) for number, length, first in sequences})
    else:
        # a row of one array is known by its number alone
        ends = np.cumsum([length for _, length, _ in sequences])
        put(path, {"x": rows(ends[-1]), "ends": ends})


@pytest.mark.parametrize("kind", ["file", "chain", "match", "ends"])
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    story=stories(),
    window=st.sampled_from(
        [WIDE, PADDED, Window((0, 1), stride=3), Window((0, 3), pad="zero", mask=True)]
    ),
    side=st.sampled_from([None, None, 0, 1]),
)
def test_whatever_happens_to_sequences_is_told(tmp_path_factory, opened, kind, story, window, side):
    """Any changes one after the other, of an index or of one side of its split: no stale answer, and the truth about ids."""
    folder = tmp_path_factory.mktemp("story")
    tell(folder / "data", kind, story[0])
    key = "*/x" if kind == "match" else "x"
    options = {"key": key, "sequences": kind, "window": window, "side": side}
    try:
        watch = Watched(folder / "data", folder / "cache", opened, **options)
    except ValueError:
        return  # no sample at first
    for sequences in story[1:]:
        tell(folder / "data", kind, sequences)
        if all(length <= window.span for _, length, _ in sequences):
            return  # an index from nothing would say that there is no sample
        watch.look()
    watch.dataset.close()
