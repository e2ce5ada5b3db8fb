"""One contract for whatever makes the requests: what is asked for comes, or there is an error that says why."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from threading import Thread

import pytest
from processes import clean_environment

from globidx.disk.remote.by_fsspec import ByFsspec
from globidx.disk.remote.line import Line
from globidx.disk.remote.objects import OutageError, Piece
from globidx.disk.remote.retries import Bounds
from globidx.errors import ReadError

from .conftest import HASTY

# Python 3.12 and later
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

DATA = os.urandom(100_000)


@pytest.fixture
def objects(server, line):
    """Two objects, one without bytes, and what asks for them."""
    folder = Path(server.folder)
    for name, data in (("a", DATA), ("b", DATA[::-1]), ("empty", b"")):
        (folder / name).write_bytes(data)
    return line.at(server.url)[0]


PIECES = [
    Piece("a"),
    Piece("a", 7),
    Piece("a", 7, 900),
    Piece("a", -50),
    Piece("b", 0, 1),
    Piece("a", -(10**6)),
]


@pytest.mark.parametrize("piece", PIECES, ids=str)
def test_a_piece_is_those_bytes(objects, piece):
    """With the size of the whole object, and one version of it however much is asked for."""
    found = objects.get(piece)
    data = DATA if piece.key == "a" else DATA[::-1]
    assert found.data == data[piece.start : piece.stop] and found.size == len(data)
    assert found.version and found.version == objects.get(Piece(piece.key)).version


def test_what_is_not_there_is_none(objects):
    """And what has no bytes is empty."""
    assert objects.get(Piece("none")) is None
    assert objects.get(Piece("empty")).data == b""
    assert objects.get_many([Piece("none"), Piece("a", 3, 5)])[1].data == DATA[3:5]


def test_many_come_as_they_were_asked_for(objects, server):
    """Neighbours in one request, others at the same time, no more than allowed."""
    server.delay(0.05)
    pieces = [Piece("a", 10 * n, 10 * n + 10) for n in range(50)]
    found = objects.get_many(pieces[::-1])
    assert [one.data for one in found] == [DATA[p.start : p.stop] for p in pieces[::-1]]
    assert len(server.take()["asked"]) == 1
    names = [f"many{n}" for n in range(24)]
    for name in names:
        Path(server.folder, name).write_bytes(name.encode())
    assert [one.data.decode() for one in objects.get_many([Piece(name) for name in names])] == names
    assert server.take()["most"] == HASTY.requests


FAULTS = [
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 429, "retry_after": 1},
    {"kind": "reset"},
    {"kind": "truncate"},
    {"kind": "shift"},
    {"kind": "stall"},
]


@pytest.mark.parametrize(
    "fault", FAULTS, ids=lambda fault: fault["kind"] + str(fault.get("status", ""))
)
def test_what_passes_is_not_seen(objects, server, fault):
    """The bytes come, a try later."""
    server.plan({**fault, "times": 1})
    assert objects.get(Piece("a", 100, 5000)).data == DATA[100:5000]
    assert len(server.take()["asked"]) == 2


def test_a_long_answer_that_comes_on_is_waited_for(objects, server):
    """It takes longer than a server may be silent, and is asked for once."""
    server.plan({"kind": "trickle", "seconds": 1.5 * HASTY.timeout / 8})
    assert objects.get(Piece("a", 100, 5000)).data == DATA[100:5000]
    assert len(server.take()["asked"]) == 1


def test_a_silence_is_told_as_such(objects, server, line):
    """After each try, with what was waited for."""
    objects.behind._bounds = HASTY._replace(tries=1)
    server.plan({"kind": "stall"})
    with pytest.raises(OutageError, match=r"/a cannot be had; asked once in .*: .*(2 s|timed out)"):
        objects.get(Piece("a", 100, 5000))


@pytest.mark.parametrize(
    "fault", [FAULTS[0], FAULTS[3], FAULTS[5]], ids=lambda fault: fault["kind"]
)
def test_what_stays_is_an_error_that_names_the_object(objects, server, fault):
    """After as many tries as are allowed."""
    server.plan(fault)
    with pytest.raises(ReadError, match=r"127\.0\.0\.1:\d+/a cannot be had; asked 3 times"):
        objects.get(Piece("a", 100, 5000))
    # aiohttp asks once more by itself where a connection that it had kept is gone
    assert len(server.take()["asked"]) in ((3, 6) if fault["kind"] == "reset" else (3,))


@pytest.mark.parametrize("url", ["http://no-such-host.invalid", "http://127.0.0.1:9"])
@pytest.mark.parametrize("options", [None, {"block_size": 9}], ids=["obstore", "fsspec"])
def test_a_server_that_never_answered_is_given_up_soon(url, options):
    """There may be none of that name; why is told."""
    pytest.importorskip("aiohttp" if options else "obstore")
    line = Line(Bounds(), options)
    with pytest.raises(OutageError, match=r"/o cannot be had; asked 3 times in [0-2]\.") as failure:
        line.at(url)[0].get(Piece("o"))
    told = str(failure.value).lower()
    assert any(word in told for word in ("refused", "resol", "name or service", "connect call"))
    line.close()


def test_a_server_that_has_answered_is_waited_for(objects, server, line):
    """Its connections break for longer than one would be given that was never reached."""
    line.bounds = objects.behind._bounds = Bounds(tries=6, timeout=5.0)
    server.plan({"kind": "reset"})
    with pytest.raises(OutageError, match="asked 3 times"):
        objects.get(Piece("a"))
    server.plan()
    assert objects.get(Piece("a")).size == len(DATA)
    server.plan({"kind": "reset", "times": 4})
    assert objects.get(Piece("b")).size == len(DATA)


@pytest.mark.parametrize("after", ["\u00c2\u00b2", "soon", "", "-3"])
def test_what_a_server_asks_for_in_no_number_of_seconds_is_not_waited_for(objects, server, after):
    """The first is a digit, too, in UTF-8."""
    server.plan({"kind": "status", "status": 503, "retry_after": after, "times": 1})
    assert objects.get(Piece("a")).size == len(DATA)


@pytest.mark.parametrize("status", [204, 410])
def test_only_what_is_not_found_is_absent(objects, server, status):
    """An answer of another kind without bytes is neither absent nor empty."""
    server.plan({"kind": "status", "status": status})
    for piece in (Piece("a"), Piece("a", 3, 9)):
        with pytest.raises(ReadError, match=str(status)):
            objects.get(piece)


@pytest.mark.parametrize("status", [400, 401, 403, 405, 501, 505])
def test_what_no_try_will_have_is_an_error_at_once(objects, server, status):
    """A refusal is not asked for again."""
    server.plan({"kind": "status", "status": status})
    with pytest.raises(ReadError, match=str(status)):
        objects.get(Piece("a"))
    assert len(server.take()["asked"]) == 1


def test_a_server_without_ranges_is_read_whole(objects, server):
    """More bytes than asked for, and the right ones."""
    server.plan({"kind": "whole"})
    assert objects.get(Piece("a", 100, 5000)).data == DATA[100:5000]
    assert objects.get(Piece("a", -10)).data == DATA[-10:]


def test_a_server_that_says_no_length_is_read(objects, server, line):
    """By other means than obstore, which are told, and what was known of versions counts no more."""
    assert objects.get(Piece("a", 100, 5000)).data == DATA[100:5000]
    server.plan({"kind": "chunked"})
    for piece in PIECES:
        data = DATA if piece.key == "a" else DATA[::-1]
        assert objects.get(piece).data == data[piece.start : piece.stop]
    # the one that obstore could not read was asked for twice
    assert len(server.take()["asked"]) <= 2 + len(PIECES)
    server.plan()
    assert objects.get(Piece("a", 100, 5000)).data == DATA[100:5000]
    assert "fsspec (http;" in line.how()[0]


@pytest.mark.parametrize(
    "key", ["d/x%2Fy", "d/%E9t%E9", "d//a", "100%25/a b", "d/%C3%A9", "d/a+b;c=d"]
)
def test_a_name_is_asked_for_as_it_is_written(objects, server, key):
    """Whatever its bytes mean to the server; obstore would take some for others."""
    server.take()
    assert objects.get(Piece(key)) is None
    assert {path for _, path, _ in server.take()["asked"]} == {"/" + key.replace(" ", "%20")}


def test_a_name_that_leads_back_is_followed(objects):
    """As in any URL."""
    assert objects.get(Piece("x/../a", 3, 9)).data == DATA[3:9]


def test_bytes_are_not_packed_on_the_way(objects, server):
    """Those of a range would be no range of what was packed."""
    Path(server.folder, "a").write_bytes(bytes(100_000))
    server.plan({"kind": "pack"})
    for piece in (Piece("a"), Piece("a", 5, 90_000)):
        assert objects.get(piece).data == bytes(100_000)[piece.start : piece.stop]
    assert len(server.take()["asked"]) == 2


def test_threads_together_make_no_more_requests_than_allowed(objects, server):
    """Those that ask one by one, too."""
    server.delay(0.05)
    threads = [Thread(target=objects.get, args=(Piece("b", n),)) for n in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.take()["most"] == HASTY.requests


def test_an_object_that_was_replaced_is_an_error(objects, server, line):
    """By its ETag, though its size is the same; after ``forget`` it is read as it is."""
    assert objects.get(Piece("a", 0, 5)).data == DATA[:5]
    path = Path(server.folder, "a")
    path.write_bytes(DATA[::-1])
    os.utime(path, ns=(1, 1))
    with pytest.raises(ReadError, match="/a was replaced while it was read"):
        objects.get(Piece("a", 5, 9))
    line.forget()
    assert objects.get(Piece("a", 5, 9)).data == DATA[::-1][5:9]


def test_a_signed_query_goes_with_each_request_and_is_shown_nowhere(server, line):
    """Neither by an error with all its causes, nor by what the objects call themselves."""
    Path(server.folder, "deep").mkdir(exist_ok=True)
    Path(server.folder, "deep/a").write_bytes(DATA)
    objects, key = line.at(f"{server.url}/deep?sig=hunter2")
    assert key == "deep" and objects.get(Piece("deep/a")).data == DATA
    assert "hunter2" not in objects.url
    for fault in (
        {"kind": "status", "status": 403},
        {"kind": "status", "status": 500},
        {"kind": "reset"},
    ):
        server.plan(fault)
        with pytest.raises(ReadError) as failure:
            objects.get(Piece("deep/a"))
        text = "".join(traceback.format_exception(failure.value))
        assert "deep/a" in text and "hunter2" not in text


def test_a_line_travels_without_what_is_open(server):
    """Its options and bounds go to workers; a copy asks anew."""
    Path(server.folder, "a").write_bytes(DATA)
    line = Line(Bounds(requests=3), {"headers": {"X-Secret": "hunter2"}})
    assert line.at(server.url)[0].get(Piece("a", 0, 3)).data == DATA[:3]
    copy = pickle.loads(pickle.dumps(line))
    assert copy.bounds == line.bounds and copy.how() == []
    assert copy.at(server.url)[0].get(Piece("a", 0, 3)).data == DATA[:3]
    assert "hunter2" not in repr(copy)
    line.close()
    copy.close()


def test_a_forked_child_reads_though_its_parent_has(server):
    """Rust's threads are not there in the child: it asks by fsspec, and waits for nobody."""
    pytest.importorskip("obstore")
    Path(server.folder, "a").write_bytes(DATA)
    line = Line(HASTY)
    objects = line.at(server.url)[0]
    assert objects.get(Piece("a", 0, 9)).data == DATA[:9] and line.how() == ["obstore (http)"]
    child = os.fork()
    if child == 0:
        ok = False
        try:
            own = line.at(server.url)[0]
            ok = own.get(Piece("a", 3, 9)).data == DATA[3:9] and "was forked" in line.how()[0]
        finally:
            os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert objects.get(Piece("a", 1, 9)).data == DATA[1:9]
    line.close()


def test_a_bucket_is_listed_in_pages_and_read(server):
    """More keys than a page of S3 has."""
    pytest.importorskip("obstore")
    bucket = Path(server.folder, "bucket")
    (bucket / "x").mkdir(parents=True, exist_ok=True)
    for number in range(1203):
        (bucket / f"x/{number:04d}").write_bytes(b"%d" % number)
    line = Line(HASTY, {"anon": True, "endpoint_url": server.url})
    objects, key = line.at("s3://bucket/x")
    assert key == "x" and sorted(objects.names("x/")) == [f"x/{n:04d}" for n in range(1203)]
    assert objects.get(Piece("x/0077")).data == b"77" and line.how() == ["obstore (s3)"]
    assert len([one for one in server.take()["asked"] if one[1] == "/bucket"]) >= 2
    line.close()


def test_workers_and_their_parent_tell_an_object_of_s3_by_the_same_version(server):
    """Which go by other means once it has read; a cache on disk has one entry of both."""
    pytest.importorskip("obstore")
    pytest.importorskip("s3fs")
    bucket = Path(server.folder, "bucket")
    bucket.mkdir(exist_ok=True)
    (bucket / "a").write_bytes(DATA)
    options = {"anon": True, "endpoint_url": server.url}
    line = Line(HASTY, options)
    found = line.at("s3://bucket")[0].get(Piece("a", 3, 9))
    again = ByFsspec("s3://bucket", "", options, HASTY, "in a test").fetch(Piece("a", 3, 9))
    assert found == again and found.version
    line.close()


def test_a_hundred_thousand_objects_are_listed_in_pages(server):
    """Each page once."""
    pytest.importorskip("obstore")
    line = Line(HASTY, {"anon": True, "endpoint_url": server.url})
    objects, _ = line.at("s3://objects-100000")
    names = list(objects.names("x/"))
    assert len(names) == len(set(names)) == 10**5 and names[-1] == "x/00099999"
    assert len(server.take()["asked"]) == 100
    line.close()


def test_the_reason_not_to_use_obstore_is_told():
    """An option that it has not, and a protocol."""
    pytest.importorskip("obstore")
    assert "no option 'block_size'" in _how("http://127.0.0.1:9", {"block_size": 9})
    assert "all but S3" in _how("memory://x", None)


def _how(url, options):
    line = Line(HASTY, options)
    line.at(url)[0].behind._reached()
    return line.how()[0]


def test_a_process_that_ends_asks_no_more(server):
    """What a thread would ask for again, after a pause of minutes, nobody waits for."""
    Path(server.folder, "o").write_bytes(b"12345")
    server.plan({"kind": "status", "status": 503, "retry_after": 100})
    program = f"""
import threading
from globidx.disk.remote.line import Line
from globidx.disk.remote.objects import OutageError, Piece
line = Line(scans=True)
objects, _ = line.at({server.url!r})
class Job:
    def make(self):
        try: objects.get(Piece("o"))
        except OSError as error: print(error)
    def drop(self): print("dropped")
line.hands.put(Job())
import urllib.request, json, time
while not json.load(urllib.request.urlopen({server.url!r} + "/-/take", b"null"))["asked"]: time.sleep(0.01)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment(),
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "") and "the process ends" in done.stdout
