"""Metadata by URL are kept beside the index, by version, and never taken for those of another object."""

from __future__ import annotations

import logging
import pickle

import pytest
from servers import Server

from globidx.disk.local_cache.cached_objects import CachedObjects
from globidx.disk.local_cache.folder import LocalCache
from globidx.disk.local_cache.pages import FOLDER, Pages, beside, opened
from globidx.disk.remote.line import Line
from globidx.disk.remote.objects import Piece
from globidx.disk.remote.retries import Bounds
from globidx.errors import ReadError

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

FIRST, SECOND = Piece("a", 0, 10), Piece("a", 20, 30)


@pytest.fixture
def server(tmp_path):
    """A server of an object."""
    (tmp_path / "far").mkdir()
    (tmp_path / "far/a").write_bytes(bytes(range(100)))
    with Server(tmp_path / "far") as made:
        made.file = tmp_path / "far/a"
        yield made


def objects(url):
    """Objects of a reader that begins, which is patient for a moment."""
    return Line(Bounds(tries=1, timeout=2.0), scans=True).at(url)[0]


def spans(server):
    return [one[2] for one in server.take()["asked"]]


def test_pieces_are_asked_for_once_and_versions_each_time(server, tmp_path):
    """By whatever process: the folder is all that they have in common."""
    for attempt in range(2):
        asked, found = opened(objects(server.url), FIRST, Pages(tmp_path / "index"))
        assert found.data == bytes(range(10)) and found.size == 100
        assert asked.get(SECOND).data == bytes(range(20, 30))
        assert spans(server) == [["bytes=0-9", "bytes=20-29"], ["bytes=0-9"]][attempt]
    server.file.write_bytes(bytes(range(1, 101)))
    asked, found = opened(objects(server.url), FIRST, Pages(tmp_path / "index"))
    assert found.data == bytes(range(1, 11)) and asked.get(SECOND).data == bytes(range(21, 31))
    server.file.unlink()
    assert opened(objects(server.url), FIRST, Pages(tmp_path / "index"))[1] is None


def test_what_is_damaged_is_asked_for_again(server, tmp_path):
    """As entries of any cache."""
    opened(objects(server.url), FIRST, Pages(tmp_path))[0].get(SECOND)
    for path in (tmp_path / FOLDER / "chunks").rglob("*"):
        if path.is_file() and path.stat().st_size > 100:
            path.write_bytes(path.read_bytes()[:-1] + b"x")
    server.take()
    asked, _ = opened(objects(server.url), FIRST, Pages(tmp_path))
    assert asked.get(SECOND).data == bytes(range(20, 30))
    assert spans(server) == ["bytes=0-9", "bytes=20-29"]


def test_what_costs_no_request_more_is_not_kept(server, tmp_path):
    """A file of one page has nothing there, so that many such leave room for others."""
    opened(objects(server.url), FIRST, Pages(tmp_path))
    assert LocalCache.existing(tmp_path / FOLDER).info().entries.total() == 0


@pytest.mark.parametrize("status", [403, 503])
def test_a_server_that_does_not_answer_is_an_error(server, tmp_path, status):
    """What is kept is a help to find data, which nobody would have."""
    pages = Pages(tmp_path)
    opened(objects(server.url), FIRST, pages)[0].get(SECOND)
    server.plan({"kind": "status", "status": status})
    with pytest.raises(ReadError, match=f"{status}"):
        opened(objects(server.url), FIRST, pages)
    with pytest.raises(ReadError, match=f"{status}"):
        opened(objects(server.url), Piece("b", 0, 10), pages)


def test_a_cache_of_the_users_is_enough(server, tmp_path):
    """Then nothing is kept twice."""
    cached = CachedObjects(objects(server.url), LocalCache(tmp_path / "cache", 2**20))
    asked, found = opened(cached, FIRST, Pages(tmp_path / "index"))
    assert asked is cached and found.size == 100 and not (tmp_path / "index").exists()


def test_of_an_object_without_versions_nothing_counts(tmp_path):
    """Another one of as many bytes could not be told from it."""
    import fsspec

    files = fsspec.filesystem("memory")
    pages = Pages(tmp_path)
    for data in (b"a" * 50, b"b" * 50):
        files.pipe("memory://pages/a", data)
        plain = objects("memory://pages/a")
        asked, found = opened(plain, Piece("", 0, 10), pages)
        assert asked is plain and found.data == data[:10]
    files.rm("memory://pages", recursive=True)


def test_without_a_place_it_goes_on_with_one_line(server, tmp_path, caplog):
    """A folder that cannot be made, or holds something else."""
    (tmp_path / FOLDER).write_text("a file")
    pages = Pages(tmp_path)
    with caplog.at_level(logging.WARNING, logger="globidx"):
        for _ in range(2):
            plain = objects(server.url)
            asked, found = opened(plain, FIRST, pages)
            assert asked is plain and found.data == bytes(range(10))
    assert len(caplog.records) == 1 and "are not kept below" in caplog.text
    assert opened(plain, FIRST, None)[0] is plain


def test_it_pickles_as_its_place(tmp_path):
    """To be had again, once a process."""
    assert pickle.loads(pickle.dumps(Pages(tmp_path))) is beside(tmp_path)
