"""What became of files between two looks, against a history that was played out by hand."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from globidx.core.index.changes import Changes, compare
from globidx.core.index.index import GlobalIndex
from globidx.core.index.table import ArrayInfo, Entry, Table


@dataclass(frozen=True)
class File:
    """What ``stat`` and a scan would say of it."""

    name: str
    length: int
    inode: int
    mtime: int = 1000
    digest: int = 0
    happened: str = ""
    was: str = ""


def table(files, *, is_proven=True):
    arrays = (ArrayInfo("x", (3,), "uint16", 4, "x"),)
    entries = []
    for file in files:
        times = (file.mtime, file.mtime) if is_proven else (0, 0)
        stamp = (100 + file.length, *times, file.inode)
        entries.append(Entry("hdf5", file.length, arrays, bytes([file.digest]) * 16, (stamp,)))
    return Table.of([file.name for file in files], entries)


class History:
    """Files in the order of their index, and what happens to them; each thing to a file of its own."""

    def __init__(self, lengths):
        self.inodes = iter(range(1, 10**6))
        self.before = [
            File(f"f{place:02}", length, next(self.inodes)) for place, length in enumerate(lengths)
        ]

    def happen(self, whats, data):
        after = []
        for file, what in zip(self.before, whats, strict=True):
            if what == "removed":
                continue
            if what == "renamed":
                file = replace(
                    file,
                    name=data.draw(st.sampled_from(["a", "f", "z"])) + f"-{file.name}",
                    was=file.name,
                )
            elif what == "grown":
                file = replace(file, length=file.length + data.draw(st.integers(1, 3)), mtime=2000)
            elif what == "shrunk":
                file = replace(file, length=data.draw(st.integers(0, file.length - 1)), mtime=2000)
            elif what == "replaced":
                inode, digest = (
                    (next(self.inodes), 0) if data.draw(st.booleans()) else (file.inode, 1)
                )
                file = replace(file, inode=inode, digest=digest, mtime=2000)
            elif what == "rewritten":
                file = replace(file, mtime=2000)
            after.append(replace(file, happened=what))
        for number in range(data.draw(st.integers(0, 3))):
            name = data.draw(st.sampled_from(["a", "f01", "f03", "z"])) + f"+{number}"
            after.append(
                File(
                    name,
                    data.draw(st.integers(0, 2)),
                    next(self.inodes),
                    mtime=3000,
                    happened="new",
                )
            )
        after.sort(key=lambda file: file.name)
        return data.draw(st.permutations(after)) if data.draw(st.integers(0, 3)) == 0 else after


def places_of(files):
    """(name, item) of every sample id."""
    return [(file.name, item) for file in files for item in range(file.length)]


@given(st.lists(st.integers(0, 3), max_size=7), st.data())
def test_everything_that_happened_is_told_by_its_name(lengths, data):
    """Random histories: each file is where it belongs and nowhere else, and ids keep just when every old one stays put."""
    history = History(lengths)
    kinds = ["", "", "", "removed", "renamed", "grown", "shrunk", "replaced", "rewritten"]
    whats = [data.draw(st.sampled_from([k for k in kinds if k != "shrunk" or n])) for n in lengths]
    before, after = history.before, history.happen(whats, data)
    if not before or not after:
        return  # an index has files
    changes = compare(table(before), table(after))
    last = max((place for place, file in enumerate(after) if file.happened != "new"), default=-1)
    fresh = [
        (file.name, place > last) for place, file in enumerate(after) if file.happened == "new"
    ]
    assert list(changes.appended) == [name for name, is_behind in fresh if is_behind]
    assert list(changes.inserted) == [name for name, is_behind in fresh if not is_behind]
    for what in ("grown", "shrunk", "replaced", "rewritten"):
        assert sorted(getattr(changes, what)) == sorted(
            file.name for file in after if file.happened == what
        ), what
    assert sorted(changes.removed) == [
        f.name for f, what in zip(before, whats, strict=True) if what == "removed"
    ]
    assert sorted(changes.renamed) == sorted((file.was, file.name) for file in after if file.was)
    kept = [file.name for file in after if file.happened not in ("new", "renamed")]
    assert set(changes.moved) <= set(kept) and bool(changes.moved) == (kept != sorted(kept))
    old, new = places_of(before), places_of(after)
    assert changes.keep_ids == (old == new[: len(old)])
    event(f"keep_ids {changes.keep_ids}")
    assert bool(changes) == (before != [replace(file, happened="") for file in after])
    told = str(changes)
    assert (told == "nothing changed") != bool(changes)


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=6),
    st.lists(st.integers(0, 3), min_size=1, max_size=6),
)
def test_ids_keep_exactly_when_every_place_keeps(before, after):
    """Any two lists of lengths under few names: ``keep_ids`` is what locating every old id in both says."""
    one = [
        File(name, n, 1 + place)
        for place, (name, n) in enumerate(zip("abcdef", before, strict=False))
    ]
    other = [
        File(name, n, 1 + place)
        for place, (name, n) in enumerate(zip("abcdef", after, strict=False))
    ]
    for new in (other, other[1:] or other, [replace(other[0], name="A"), *other[1:]]):
        indexes = (
            GlobalIndex([file.length for file in one]),
            GlobalIndex([file.length for file in new]),
        )
        same = len(indexes[1]) >= len(indexes[0]) and all(
            (one[a[0]].name, a[1]) == (new[b[0]].name, b[1])
            for a, b in (
                (indexes[0].locate(id), indexes[1].locate(id)) for id in range(len(indexes[0]))
            )
        )
        assert compare(table(one), table(new)).keep_ids == same


def test_an_inode_that_is_used_again_is_no_renaming():
    """File systems give a new file the number of one that was deleted: its mtime or size tells that it is another."""
    gone, come = File("a", 3, 7), File("b", 3, 7, mtime=5000)
    changes = compare(table([gone, File("m", 1, 8)]), table([come, File("m", 1, 8)]))
    assert (changes.removed, changes.inserted, changes.renamed) == (("a",), ("b",), ())
    longer = replace(gone, name="b", length=4)
    assert compare(table([gone]), table([longer])).renamed == ()


def test_files_without_an_inode_are_never_renamed():
    """Stores by URL have no stamps: two of one length and metadata are still two."""
    gone, come = File("a", 3, 0, mtime=0), File("b", 3, 0, mtime=0)
    changes = compare(table([gone]), table([come]))
    assert (changes.removed, changes.appended, changes.renamed) == (("a",), ("b",), ())


def test_stamps_that_prove_nothing_tell_no_rewriting():
    """A file too young to be proven is opened again each time, which is no news."""
    files = [File("a", 3, 1), File("b", 2, 2)]
    assert not compare(table(files, is_proven=False), table(files))
    assert not compare(table(files), table(files, is_proven=False))
    renamed = compare(table(files, is_proven=False), table([replace(files[0], name="A"), files[1]]))
    assert renamed.renamed == (("a", "A"),)


def test_changes_are_told_in_one_line():
    """Three names of each kind, escaped, and how many more."""
    assert str(Changes()) == "nothing changed" and not Changes()
    told = Changes(appended=tuple("abcde"), renamed=(("x\n", "y\x1b"),), keep_ids=False)
    assert str(told) == r"appended: 'a', 'b', 'c' and 2 more; renamed: 'x\n -> y\x1b'" and told


@pytest.mark.parametrize("count", [1, 3])
def test_files_of_another_number_of_arrays_are_compared(count):
    """An index may be refreshed over files that hold other arrays by now; nothing breaks."""
    arrays = tuple(ArrayInfo(f"x{n}", (3,), "uint16", 4, f"x{n}") for n in range(count))
    stamps = tuple((1, 2, 3, 4 + n) for n in range(count))
    new = Table.of(["a"], [Entry("zarr3", 3, arrays, bytes(16), stamps)])
    changes = compare(table([File("a", 3, 9)]), new)
    assert changes.replaced == ("a",) and changes.keep_ids
