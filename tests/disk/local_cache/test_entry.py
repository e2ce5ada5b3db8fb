"""An entry is what was written, or is told to be damaged."""

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.disk.local_cache import entry
from globidx.disk.local_cache.entry import ABOUT, PAGE, DamagedError, Identity
from globidx.disk.remote.objects import Found

CHUNK = Identity("s3://bucket/a.zarr", "c/0/1", 8, 16, '"etag"')


def written(path, identity=CHUNK, data=b"12345678", asked=7):
    path.write_bytes(b"".join(entry.encode(identity, Found(data, 100, identity.version), asked)))
    return path


@pytest.mark.parametrize("key", ["c/0", "ä" * 100, "k" * 3000])
@pytest.mark.parametrize("data", [b"", b"x" * 100_000])
def test_what_is_read_is_what_was_written(tmp_path, key, data):
    """Identity, bytes, size, version and time, however long they are."""
    identity = CHUNK._replace(key=key)
    path = written(tmp_path / "e", identity, data)
    assert entry.read(path) == (identity, Found(data, 100, '"etag"'), 7)
    assert entry.identity_of(path) == identity


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_any_flipped_bit_is_noticed(tmp_path_factory, at, bit):
    """But for those of the time that it was asked for, which is no part of what was fetched."""
    path = written(tmp_path_factory.mktemp("entry") / "e")
    data = bytearray(path.read_bytes())
    at %= len(data)
    data[at] ^= 1 << bit
    path.write_bytes(data)
    if 32 <= at < 40:
        assert entry.read(path).found.data == b"12345678"
    else:
        with pytest.raises(DamagedError):
            entry.read(path)


#: Bytes of any kind, no two pages of which are alike.
PAGES = random.Random(1).randbytes(3 * PAGE + 5)


@settings(max_examples=60, deadline=None)
@given(size=st.sampled_from([0, 5, PAGE, PAGE + 1, 2 * PAGE, 3 * PAGE + 5]), data=st.data())
def test_a_part_is_that_of_the_whole(tmp_path_factory, size, data):
    """Wherever it begins and ends, also beyond the end, as a slice has it."""
    path = written(tmp_path_factory.mktemp("entry") / "e", data=PAGES[:size])
    edges = [0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 3 * PAGE, 4 * PAGE, max(0, size - 1), size]
    start, stop = sorted(data.draw(st.tuples(*[st.sampled_from(edges)] * 2)))
    found = entry.read(path, CHUNK, (start, stop)).found
    assert found == Found(PAGES[:size][start:stop], 100, '"etag"')
    assert entry.read(path, CHUNK).found.data == PAGES[:size]


def test_damage_is_noticed_by_whoever_reads_it(tmp_path):
    """In any page, by a part that has a byte of it; other parts are as whole as they were."""
    path = written(tmp_path / "e", data=PAGES)
    whole = path.read_bytes()
    for page in range(4):
        wrong = bytearray(whole)
        wrong[len(whole) - len(PAGES) + page * PAGE + 3] ^= 1
        path.write_bytes(wrong)
        for other in range(4):
            start, stop = other * PAGE + 4, other * PAGE + 5
            if other == page:
                with pytest.raises(DamagedError, match="checksum"):
                    entry.read(path, CHUNK, (start, stop))
            else:
                assert entry.read(path, CHUNK, (start, stop)).found.data == PAGES[start:stop]
        with pytest.raises(DamagedError, match="checksum"):
            entry.read(path)


def test_pages_that_change_places_are_noticed(tmp_path):
    """Each has its own checksum, which stands at its place."""
    path = written(tmp_path / "e", data=PAGES)
    before = len(path.read_bytes()) - len(PAGES)
    path.write_bytes(
        path.read_bytes()[:before] + PAGES[PAGE : 2 * PAGE] + PAGES[:PAGE] + PAGES[2 * PAGE :]
    )
    with pytest.raises(DamagedError, match="checksum"):
        entry.read(path, CHUNK, (0, 5))


@pytest.mark.parametrize(
    "other", [CHUNK._replace(key="c/0/10"), CHUNK._replace(version=""), CHUNK._replace(version="2")]
)
def test_the_entry_of_another_piece_is_damage(tmp_path, other):
    """Also one of another version, where versions lie beside one another; of a whole object it is that version."""
    path = written(tmp_path / "e")
    with pytest.raises(DamagedError, match="of another piece"):
        entry.read(path, other)
    whole = Identity("u", "k", version="v2")
    written(path, whole)
    assert entry.read(path, whole._replace(version="")).identity == whole
    with pytest.raises(DamagedError, match="of another piece"):
        entry.read(path, Identity("u", "k2"))


def test_a_use_is_noted_once_a_minute(tmp_path):
    """As the time of its file, which a use soon after leaves alone, and one after a mark of long ago does not."""
    path = written(tmp_path / "e")
    noted = []
    for now in (10**18, 10**18 + 50 * 10**9, 10**18 + 70 * 10**9):
        entry.read(path, CHUNK, now=now)
        noted.append(path.stat().st_mtime_ns - 10**18)
    assert noted == [0, 0, 70 * 10**9]
    os.utime(path, ns=(10**17, 10**17))
    entry.read(path, CHUNK, now=10**18 + 71 * 10**9)
    assert path.stat().st_mtime_ns == 10**18 + 71 * 10**9


@pytest.mark.parametrize("cut", [0, 10, 39, 60, -1])
def test_a_cut_entry_is_noticed(tmp_path, cut):
    """Wherever it ends."""
    path = written(tmp_path / "e")
    data = path.read_bytes()
    path.write_bytes(data[:cut])
    with pytest.raises(DamagedError, match="bytes"):
        entry.read(path)


def test_a_longer_entry_is_noticed(tmp_path):
    """Bytes behind its end were not written with it."""
    path = written(tmp_path / "e")
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(DamagedError, match="where"):
        entry.read(path)


def test_the_time_of_asking_changes_alone(tmp_path):
    """Without the rest, which stays whole."""
    path = written(tmp_path / "e")
    entry.set_asked(path, 9)
    assert entry.read(path) == (CHUNK, Found(b"12345678", 100, '"etag"'), 9)


def test_names_differ_where_bytes_may():
    """Of a whole object, and of what is known of it, there is one entry, whatever the version."""
    whole, about = Identity("u", "k"), Identity("u", "k", ABOUT)
    others = [Identity("v", "k"), Identity("u", "l"), Identity("u", "k", 0, 5), CHUNK, about]
    others += [Identity("u", "k", 0, 5, "2"), Identity("u", "k", -5), Identity("uk", "")]
    assert len({one.name for one in [whole, *others]}) == len(others) + 1
    assert whole.name == whole._replace(version="2").name
    assert about.name == about._replace(version="2").name
