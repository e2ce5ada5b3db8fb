"""``globidx cache``: what a cache holds, whether it is whole, and an end of it."""

import json

import pytest

from globidx.cli import main
from globidx.disk.local_cache.entry import Identity
from globidx.disk.local_cache.folder import LocalCache
from globidx.disk.remote.objects import Found


@pytest.fixture
def cache(tmp_path):
    """A cache of three chunks of two stores."""
    cache = LocalCache(tmp_path / "cache", 2**20)
    for url, key in (("s3://b", "c/0"), ("s3://b", "c/1"), ("http://h", "c/0")):
        cache.put(Identity(url, key), Found(key.encode() * 2000, 6000, "v"))
    return cache


def run(capsys, *arguments):
    code = main(["cache", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_info_counts_by_url(cache, capsys):
    """For people and as JSON, in bytes as the disk counts them."""
    code, out, err = run(capsys, "info", cache.path)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "entries  3",
        "bytes    24576 of at most 1048576 (2 %)",
        "         8192 in 1 entries of http://h",
        "         16384 in 2 entries of s3://b",
    ]
    code, out, _ = run(capsys, "info", cache.path, "--json")
    assert json.loads(out) == {
        "bound": 2**20,
        "bytes": 24576,
        "entries": 3,
        "urls": {
            "http://h": {"entries": 1, "bytes": 8192},
            "s3://b": {"entries": 2, "bytes": 16384},
        },
    }


def test_verify_tells_what_is_damaged(cache, capsys):
    """By its exit code, too; nothing is removed."""
    assert run(capsys, "verify", cache.path)[:2] == (0, "entries  3\ndamaged  0\n")
    name = Identity("s3://b", "c/1").name
    file = cache.path / "chunks" / name[:2] / name[2:]
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    for _ in range(2):
        code, out, _ = run(capsys, "verify", cache.path, "--json")
        assert code == 1
        assert json.loads(out) == {"entries": 3, "damaged": [[name, "its checksum is another one"]]}
    code, out, _ = run(capsys, "verify", cache.path)
    assert code == 1 and f"{name}: its checksum is another one" in out


def test_clear_removes_all(cache, capsys):
    """Once; the folder is a cache still."""
    assert run(capsys, "clear", cache.path)[:2] == (0, "removed  3 entries\n")
    assert run(capsys, "clear", cache.path, "--json")[1] == '{\n "removed": 0\n}\n'
    assert run(capsys, "info", cache.path)[0] == 0


@pytest.mark.parametrize("name", ["info", "verify", "clear"])
def test_another_folder_is_left_alone(tmp_path, capsys, name):
    """One error, and nothing is made in it."""
    (tmp_path / "chunks").mkdir()
    code, out, err = run(capsys, name, tmp_path)
    assert (code, out) == (1, "")
    assert err == f"globidx: {tmp_path} is no cache of globidx: it has no globidx-cache.json\n"
    assert [path.name for path in tmp_path.iterdir()] == ["chunks"]
