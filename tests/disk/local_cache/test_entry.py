"""An entry is what was written, or is told to be damaged."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.disk.local_cache import entry
from globidx.disk.local_cache.entry import ABOUT, DamagedError, Identity
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
