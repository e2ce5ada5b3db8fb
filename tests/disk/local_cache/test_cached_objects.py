"""Objects that are kept: asked for once, right whatever becomes of the server and of them."""

import pickle
import threading
import urllib.error
import urllib.request
import zipfile
from functools import partial

import pytest
from servers import Server

from globidx.disk.local_cache import entry, folder
from globidx.disk.local_cache.cached_objects import COUNTS_FOR, CachedObjects, Counts, drop
from globidx.disk.local_cache.folder import LocalCache
from globidx.disk.remote.ahead import Wish
from globidx.disk.remote.line import Line
from globidx.disk.remote.objects import Found, Piece
from globidx.disk.remote.retries import Bounds
from globidx.errors import ReadError

NOW = 1_800_000_000 * 10**9


class Plain:
    """Objects of a server, by one request after the other."""

    def __init__(self, url):
        self.url = url

    def get(self, piece):
        stop = "" if piece.stop is None else piece.stop - 1
        start = "" if piece.start < 0 else piece.start
        headers = {"Range": f"bytes={start}-{-piece.start if piece.start < 0 else stop}"}
        request = urllib.request.Request(f"{self.url}/{piece.key}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                size = int(answer.headers["Content-Range"].rpartition("/")[2])
                return Found(answer.read(), size, answer.headers["ETag"])
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise OSError(f"status {error.code}") from None

    def get_many(self, pieces):
        return [self.get(piece) for piece in pieces]

    def names(self, prefix):
        return iter(())


class Clock:
    """A time that tests set."""

    def __init__(self):
        self.now = NOW

    def __call__(self):
        self.now += 1
        return self.now


@pytest.fixture
def far(tmp_path):
    """A server over a folder with two objects."""
    folder = tmp_path / "far"
    folder.mkdir()
    (folder / "a").write_bytes(bytes(range(256)) * 10)
    (folder / "b").write_bytes(b"bbbb")
    with Server(folder) as server:
        server.path = folder
        yield server


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def kept(far, tmp_path, clock):
    """Makes the objects of the server, kept in one folder, as a new process has them."""
    return lambda: CachedObjects(
        Plain(far.url), LocalCache(tmp_path / "cache", 2**20, clock=clock), clock=clock
    )


def asked(far):
    return [(path.lstrip("/"), span) for _, path, span in far.take()["asked"]]


PIECES = [Piece("a"), Piece("a", 10, 20), Piece("b"), Piece("a", -6), Piece("b", 1)]


def expected(far, piece):
    data = (far.path / piece.key).read_bytes()
    return data[piece.start : piece.stop], len(data)


def test_a_piece_is_asked_for_once(far, kept):
    """By this process and the next; whole objects, ranges, ends of objects."""
    objects, url = kept(), far.url
    first = objects.get_many(PIECES)
    assert [one[:2] for one in first] == [expected(far, piece) for piece in PIECES]
    assert len(asked(far)) == len(PIECES) and objects.counts == Counts(0, 5, 0)
    assert objects.get_many(PIECES) == first == kept().get_many(PIECES)
    assert asked(far) == [] and objects.counts == Counts(5, 5, sum(len(one.data) for one in first))
    assert objects.url == url and objects.get(PIECES[1]) == first[1]


def test_a_part_of_a_piece_is_had_where_that_is_kept(far, kept, clock):
    """Without the server; what is not kept, or is too old, is left to be asked for."""
    objects, piece = kept(), Piece("a", 100, 1000)
    assert objects.part(piece, 5, 9) is None
    objects.get(piece)
    asked(far)
    data, size = expected(far, piece)
    for start, stop in ((0, 900), (5, 9), (899, 900), (890, 950)):
        assert objects.part(piece, start, stop)[:2] == (data[start:stop], size)
    assert objects.counts.hits == 4
    clock.now += COUNTS_FOR + 10**9
    assert objects.part(piece, 5, 9) is None and asked(far) == []


def test_only_what_is_lacking_is_asked_for(far, kept):
    """And comes to its place among what is kept."""
    kept().get_many(PIECES[:2])
    asked(far)
    found = kept().get_many([*PIECES, Piece("nowhere")])
    assert [one and one[:2] for one in found] == [expected(far, piece) for piece in PIECES] + [None]
    assert [key for key, _ in asked(far)] == ["b", "a", "b", "nowhere"]


def test_after_a_day_the_version_is_asked_for_once(far, kept, clock):
    """One byte of each object; what is the same still counts for another day."""
    first = kept().get_many(PIECES)
    clock.now += COUNTS_FOR - 10**9
    assert kept().get_many(PIECES) == first and len(asked(far)) == 5
    clock.now += 2 * 10**9
    assert kept().get_many(PIECES) == first
    assert sorted(asked(far)) == [("a", "bytes=0-0"), ("b", "bytes=0-0")]
    clock.now += COUNTS_FOR - 10**9
    assert kept().get_many(PIECES) == first and asked(far) == []


def test_what_was_replaced_is_fetched_anew_once_it_is_known(far, kept, clock):
    """No piece of the old version is given beside one of the new, though each has its own entry."""
    kept().get_many(PIECES)
    (far.path / "a").write_bytes(bytes(range(200)) * 11)
    # a piece that is lacking tells the new version, and with it none of the old is one of it
    objects = kept()
    new = objects.get(Piece("a", 30, 40))
    found = objects.get_many([Piece("a", 10, 20), Piece("a", -6)])
    assert [one[:2] for one in found] == [expected(far, PIECES[1]), expected(far, PIECES[3])]
    assert {one.version for one in found} == {new.version}
    assert kept().get(Piece("a", 10, 20)) == found[0]
    # a whole object is in one piece, and counts until its day is over
    assert objects.get(Piece("a")).size == 2560
    clock.now += COUNTS_FOR + 1
    assert kept().get(Piece("a"))[:2] == expected(far, Piece("a"))


def test_after_a_refresh_versions_are_asked_for_once(far, kept, clock):
    """One byte of each object, of which nothing that was told before counts; planning ahead sees to it."""
    kept().get_many(PIECES)
    (far.path / "b").write_bytes(b"BBBB")
    objects, plan = kept(), [piece for piece in PIECES if piece.key == "a"]
    while not objects.is_filled:
        objects.get_many(PIECES)
    assert all(objects.has(piece) for piece in PIECES) and objects.get(Piece("b")).data == b"bbbb"
    asked(far)
    objects.count_from(clock())
    assert not any(objects.has(piece) for piece in PIECES) and asked(far) == []
    assert objects.part(PIECES[1], 2, 3) is None
    same = objects.get_many(plan)
    assert not objects.is_filled and asked(far) == [("a", "bytes=0-0")]
    found = objects.get_many(PIECES)
    assert [one[:2] for one in found] == [expected(far, piece) for piece in PIECES]
    assert {key for key, _ in asked(far)} == {"b"}
    assert all(objects.has(piece) for piece in plan) and objects.get_many(plan) == same
    assert asked(far) == []
    # what is told counts for all
    later = kept()
    assert later.get_many(PIECES) == found and asked(far) == []


def test_later_runs_know_of_a_refresh(far, kept, clock):
    """Also of what the one that was refreshed has not read since."""
    early = clock()
    old = kept().get_many(PIECES)
    (far.path / "b").write_bytes(b"BBBB")
    kept().count_from(clock())
    later = kept()
    assert not any(later.has(piece) for piece in PIECES)
    # nobody takes it back
    later.count_from(early)
    assert not any(kept().has(piece) for piece in PIECES)
    assert kept().get(Piece("b")).data == b"BBBB" and old[2].data == b"bbbb"


@pytest.mark.parametrize("noted", [f"{NOW + 30 * COUNTS_FOR}", "", "-1", "\x00 much"])
def test_a_refresh_of_which_the_time_cannot_be_known_was_just_now(far, kept, clock, noted):
    """By a clock that was ahead, or damaged. It is noted so, and what is told from then on counts for all."""
    kept().get_many(PIECES)
    (kept()._cache.path / "refreshed").write_text(noted)
    for _ in range(2):
        new = kept()
        assert not any(new.has(piece) for piece in PIECES)
        new.count_from(0)
    new.get_many(PIECES)
    for _ in range(2):
        assert all(kept().has(piece) for piece in PIECES)


def test_what_a_link_leads_to_is_left_alone(far, kept, clock, tmp_path):
    """The note of a refresh takes the place of the link."""
    objects = kept()
    (objects._cache.path / "refreshed").symlink_to(tmp_path / "victim")
    objects.count_from(clock())
    assert not (tmp_path / "victim").exists() and kept()._counts_from == objects._counts_from


def test_a_refresh_that_cannot_be_noted_counts_for_this_run(far, kept, clock, monkeypatch):
    """Where the folder is another user's."""
    kept().get_many(PIECES)
    objects = kept()
    monkeypatch.setattr(folder, "write_atomic", refused)
    objects.count_from(clock())
    assert not any(objects.has(piece) for piece in PIECES)
    assert all(kept().has(piece) for piece in PIECES)


@pytest.mark.parametrize("first", [[], PIECES], ids=["fetched", "asked"])
def test_an_answer_that_is_under_way_at_a_refresh_is_one_from_before(far, kept, clock, first):
    """It was asked for before, and may tell of what has been replaced meanwhile."""
    kept().get_many(first)
    clock.now += COUNTS_FOR + 1
    objects = kept()
    plain = objects._inner

    class Late(Plain):
        def get_many(self, pieces):
            answers = plain.get_many(pieces)
            objects.count_from(clock())
            return answers

    objects._inner = Late(far.url)
    objects.get_many(PIECES)
    objects._inner = plain
    assert not any(objects.has(piece) for piece in PIECES)
    asked(far)
    objects.get_many(PIECES)
    assert set(asked(far)) == {("a", "bytes=0-0"), ("b", "bytes=0-0")}


def test_what_cannot_be_noted_is_remembered(far, kept, monkeypatch):
    """In a cache of another user's, the server is asked once for each object, and not at each read."""
    kept().get_many(PIECES)
    objects = kept()
    objects.count_from(objects._clock())
    monkeypatch.setattr(entry, "set_asked", refused)
    asked(far)
    for _ in range(3):
        objects.get_many(PIECES)
    assert sorted(asked(far)) == [("a", "bytes=0-0"), ("b", "bytes=0-0")]
    assert all(objects.has(piece) for piece in PIECES)


def test_what_is_asked_for_at_each_opening_does_not_unfill_a_cache(far, kept):
    """Metadata and versions: planning ahead for all else would cost more than it saves."""
    (far.path / "zarr.json").write_bytes(b"{}")
    objects = kept()
    while not objects.is_filled:
        objects.get_many(PIECES)
    objects.ask(["a"])
    assert objects.get(Piece("b")) and objects.is_filled
    objects.get(Piece("zarr.json"))
    while not objects.is_filled:
        objects.get_many(PIECES)
    objects.get(Piece("zarr.json"))
    assert objects.is_filled


def test_an_earlier_refresh_that_is_told_late_changes_nothing(far, kept, clock):
    """By a thread that went on with a look of the files from before."""
    objects = kept()
    early = clock()
    objects.get_many(PIECES)
    for moment in (clock(), early):
        objects.count_from(moment)
    assert not any(objects.has(piece) for piece in PIECES)


def refused(*_):
    raise PermissionError("not yours")


def test_a_refresh_by_a_clock_that_was_ahead_is_one_of_now(far, kept, clock):
    """Else nothing would count until then."""
    objects = kept()
    objects.count_from(clock() + 30 * COUNTS_FOR)
    objects.get_many(PIECES)
    asked(far)
    assert all(objects.has(piece) for piece in PIECES)
    objects.get_many(PIECES)
    assert asked(far) == []
    assert pickle.loads(pickle.dumps(objects))._counts_from == objects._counts_from


def test_versions_are_asked_for_on_demand(far, kept):
    """Before a file is opened, say; a server that is gone leaves what is known."""
    objects = kept()
    old = objects.get_many(PIECES)
    (far.path / "a").write_bytes(bytes(range(200)) * 11)
    later = kept()
    assert later.get(PIECES[1]) == old[1]
    later.ask(["a", "b", "never"])
    assert later.get(PIECES[1])[:2] == expected(far, PIECES[1])
    assert later.get(PIECES[4]) == old[4]


@pytest.mark.parametrize("name", ["zarr.json", "x/.zarray", ".zattrs", ".zmetadata", ".zgroup"])
def test_metadata_of_stores_are_those_of_now(far, kept, name):
    """They are compared with the index, and an old one would tell of a change that is none."""
    path = far.path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"{}")
    assert kept().get(Piece(name)).data == b"{}"
    path.write_bytes(b'{"zarr_format": 3}')
    assert kept().get(Piece(name)).data == b'{"zarr_format": 3}'


def test_a_filled_cache_serves_without_a_server(far, kept, clock, caplog):
    """However old it is; one line says so, and the server is left alone for a while."""
    (far.path / "zarr.json").write_bytes(b"{}")
    pieces = [*PIECES, Piece("zarr.json"), Piece("absent"), Piece("absent", 3, 4)]
    first = kept().get_many(pieces)
    clock.now += 100 * COUNTS_FOR
    far.plan({"kind": "status", "status": 503})
    asked(far)
    objects = kept()
    assert objects.get_many(pieces) == first and first[-2:] == [None, None]
    tried = len(asked(far))
    assert objects.get_many(PIECES) == first[:5] and asked(far) == [] and tried
    assert len(caplog.records) == 1 and "which is not asked: status 503" in caplog.text
    with pytest.raises(OSError, match="status 503"):
        objects.get(Piece("b", 2, 3))
    far.plan()
    clock.now += 601 * 10**9
    assert objects.get_many(PIECES) == first[:5] and asked(far)


def test_that_something_is_absent_is_not_asked_of_a_server_that_is_left_alone(far, kept, clock):
    """Each such question would be asked in vain as often as any; what is not known is asked for."""
    objects = kept()
    assert objects.get(Piece("absent")) is None
    far.plan({"kind": "status", "status": 503})
    asked(far)
    assert objects.get(Piece("absent")) is None and asked(far)
    assert objects.get(Piece("absent")) is None and asked(far) == []
    with pytest.raises(OSError, match="status 503"):
        objects.get_many([Piece("absent"), Piece("unknown")])
    far.plan()
    clock.now += 601 * 10**9
    (far.path / "absent").write_bytes(b"1")
    assert objects.get(Piece("absent")).data == b"1"


@pytest.mark.parametrize("how", ["obstore", "fsspec"])
def test_a_server_that_refuses_is_no_server_that_is_gone(far, kept, clock, caplog, how):
    """Credentials that have expired are told, also of what is known to be absent; an outage is waited out."""
    pytest.importorskip("obstore" if how == "obstore" else "aiohttp")
    bounds = Bounds(tries=2, timeout=2.0)
    line = Line(bounds, None if how == "obstore" else {"block_size": 2**20}, scans=False)
    objects = CachedObjects(line.at(far.url)[0].behind, kept()._cache, clock=clock)
    pieces = [Piece("a", 10, 20), Piece("absent")]
    first = objects.get_many(pieces)
    clock.now += COUNTS_FOR + 1
    for status in (401, 403):
        far.plan({"kind": "status", "status": status})
        for piece in pieces:
            with pytest.raises(ReadError, match=str(status)):
                objects.get(piece)
    assert caplog.records == []
    far.plan({"kind": "status", "status": 503})
    assert objects.get_many(pieces) == first and "which is not asked" in caplog.text
    line.close()


def test_after_an_outage_it_is_asked_again(far, kept, clock):
    """At once where an answer has come, and after the pause also where the clock went back meanwhile."""
    objects, piece = kept(), Piece("a", 10, 20)
    first = objects.get(piece)
    for mend in (lambda: objects.get(Piece("b")), lambda: setattr(clock, "now", NOW // 2)):
        clock.now += 2 * COUNTS_FOR
        far.plan({"kind": "status", "status": 503})
        assert objects.get(piece) == first
        far.plan()
        asked(far)
        assert objects.get(piece) == first and asked(far) == []
        mend()
        asked(far)
        assert objects.get(piece) == first and asked(far)


@pytest.mark.parametrize("piece", [Piece("a"), Piece("a", 10, 20)])
def test_what_has_no_version_is_not_taken_for_the_same(tmp_path, clock, piece):
    """A part might be put beside one of another object; a whole one is fetched anew when it is old."""

    class Untold:
        url, data = "x://y", b"a" * 50

        def get_many(self, pieces):
            return [Found(self.data[one.start : one.stop], 50, "") for one in pieces]

    inner = Untold()
    objects = CachedObjects(inner, LocalCache(tmp_path, 2**20, clock=clock), clock=clock)
    objects.get(piece)
    inner.data = b"b" * 50
    assert objects.get(piece).data[:1] == (b"a" if piece == Piece("a") else b"b")
    clock.now += COUNTS_FOR + 1
    assert objects.get(piece).data[:1] == b"b"


def test_what_is_known_of_an_object_stays_with_its_parts(far, kept):
    """It is the oldest of them, and the first to go; without it, no other process would find them."""
    objects = kept()
    objects._cache.bound = 4 * 4096
    for start in range(0, 80, 10):
        objects.get(Piece("a", start, start + 10))
    asked(far)
    assert kept().get(Piece("a", 70, 80)).data == expected(far, Piece("a", 70, 80))[0]
    assert asked(far) == []


def test_what_is_absent_is_asked_for_each_time(far, kept):
    """Whoever writes it may write it now."""
    objects = kept()
    assert objects.get(Piece("c")) is None and objects.get(Piece("c", 0, 1)) is None
    (far.path / "c").write_bytes(b"now")
    assert objects.get(Piece("c")).data == b"now" and objects.get(Piece("c", 0, 1)).data == b"n"


def test_empty_objects_are_kept(far, kept, clock):
    """And asked for as a whole when they are old: they have no first byte."""
    (far.path / "a").write_bytes(b"")
    objects = CachedObjects(Whole(far.url), kept()._cache, clock=clock)
    assert objects.get(Piece("a")).data == b""
    clock.now += COUNTS_FOR + 1
    assert objects.get(Piece("a")).data == b""


class Whole(Plain):
    """Asks for whole objects without a range, as servers want it of empty ones."""

    def get(self, piece):
        assert piece == Piece("a")
        with urllib.request.urlopen(f"{self.url}/a", timeout=10) as answer:
            data = answer.read()
            return Found(data, len(data), answer.headers["ETag"])


def test_it_travels_without_what_it_has_counted(kept):
    """To a worker, which has the same folder."""
    objects = kept()
    first = objects.get(PIECES[0])
    objects._cache._clock = objects._clock = None
    other = pickle.loads(pickle.dumps(objects))
    assert other.counts == Counts() and other.get(PIECES[0]) == first


def test_threads_share_it(far, kept):
    """All have what was asked for, and counts add up."""
    objects, wrong = kept(), []

    def work(offset):
        for at in range(50):
            piece = Piece("a", offset + at, offset + at + 3)
            if objects.get(piece)[:2] != expected(far, piece):
                wrong.append(piece)

    threads = [threading.Thread(target=partial(work, 10 * one)) for one in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and objects.counts.hits + objects.counts.misses == 200


def test_what_will_not_be_asked_for_goes_first(far, kept):
    """Pieces of any kind; those that are not known are left out."""
    objects = kept()
    objects.get_many(PIECES)
    later = kept()
    later.forget([Piece("a", 10, 20), Piece("unknown", 1, 2), Piece("b")])
    later._cache.bound = later._cache.nbytes - 4096
    later.get(Piece("b", 0, 2))
    asked(far)
    later.get_many(PIECES)
    # two of them made room for the one
    assert sorted(asked(far)) == [("a", "bytes=10-19"), ("b", "bytes=0-")]


def test_what_is_dropped_is_fetched_anew(far, kept, monkeypatch):
    """Pieces of any kind, also those that are not kept; not one that stays, since the folder is another user's."""
    objects = kept()
    first = objects.get_many(PIECES)
    asked(far)
    for piece in [*PIECES, Piece("unknown", 1, 2)]:
        assert drop(Wish(objects, piece, 0))
    assert not drop(Wish(Plain(far.url), PIECES[0], 0))
    assert objects.get_many(PIECES) == first and len(asked(far)) == len(PIECES)
    monkeypatch.setattr(folder.Ledger, "remove", refused)
    assert not drop(Wish(objects, PIECES[1], 0)) and objects.get(PIECES[1]) == first[1]
    assert asked(far) == []


def test_a_bucket_of_another_server_is_another_bucket(tmp_path):
    """Also where all else is the same: its name, and the keys in it. No secret is kept."""
    pytest.importorskip("obstore")
    cache, seen = LocalCache(tmp_path / "cache", 2**20), []
    for number in range(2):
        file = tmp_path / str(number) / "bucket" / "o"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"%d" % number)
        with Server(file.parent.parent) as server:
            options = {"endpoint_url": server.url, "key": "me", "secret": "hunter2"}
            line = Line(options=options, around=lambda objects: CachedObjects(objects, cache))
            seen += [line.at("s3://bucket")[0].get(Piece("o")).data for _ in range(2)]
            assert len(server.take()["asked"]) == 1
            line.close()
    assert seen == [b"0", b"0", b"1", b"1"]
    kept = b"".join(path.read_bytes() for path in cache.path.rglob("*") if path.is_file())
    assert kept and b"hunter2" not in kept


def test_what_options_lead_to_is_another_place(tmp_path):
    """A member of one zip file, and that of another one, by the same URL; by the same options it is kept."""
    pytest.importorskip("fsspec")
    cache, seen = LocalCache(tmp_path / "cache", 2**20), []
    for number in (0, 1, 0):
        path = tmp_path / f"{number}.zip"
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a/o", b"%d" % number)
        line = Line(options={"fo": str(path)}, around=lambda objects: CachedObjects(objects, cache))
        objects = line.at("zip://a")[0].behind
        seen.append((objects.get(Piece("o")).data, objects.counts.hits))
        line.close()
    assert seen == [(b"0", 0), (b"1", 0), (b"0", 1)]
    kept = b"".join(path.read_bytes() for path in cache.path.rglob("*") if path.is_file())
    assert kept and bytes(tmp_path) not in kept


@pytest.mark.parametrize("key", ["zarr.json", "c/0"])
def test_that_an_object_was_replaced_is_no_lack_of_a_network(tmp_path, key):
    """What this process has read itself is another one by now: an error, and not what is kept."""
    pytest.importorskip("obstore")
    file, clock = tmp_path / "far" / key, Clock()
    file.parent.mkdir(parents=True)
    file.write_bytes(b"before")
    cache = LocalCache(tmp_path / "cache", 2**20)
    with Server(tmp_path / "far") as server:
        line = Line(around=lambda objects: CachedObjects(objects, cache, clock=clock))
        objects, _ = line.at(server.url)
        assert objects.get(Piece(key)).data == b"before"
        file.write_bytes(b"behind!")
        clock.now += 2 * COUNTS_FOR
        with pytest.raises(ReadError, match="was replaced while it was read"):
            objects.get(Piece(key))
        line.close()


@pytest.mark.parametrize("is_kept", [False, True], ids=["fetched", "kept"])
@pytest.mark.parametrize("how", ["get", "get_many", "part"])
def test_a_run_never_has_two_versions_of_an_object(tmp_path, far, is_kept, how):
    """Also where another run has kept the second one meanwhile; a run that begins now, or looks anew, has that."""
    pytest.importorskip("obstore")
    cache, clock, whole = LocalCache(tmp_path / "cache", 2**20), Clock(), Piece("a")
    lines = [
        Line(around=lambda objects: CachedObjects(objects, cache, clock=clock)) for _ in range(4)
    ]
    first, reader, other, new = (line.at(far.url)[0].behind for line in lines)
    if is_kept:
        first.get(whole)
    asked(far)
    reader.get(whole)
    assert bool(asked(far)) is not is_kept
    (far.path / "a").write_bytes(b"A" * 2560)
    other.count_from(clock())
    assert other.get(whole).data == b"A" * 2560
    reads = {
        "get": lambda objects: objects.get(whole).data[5:9],
        "get_many": lambda objects: objects.get_many([Piece("b"), whole])[1].data[5:9],
        "part": lambda objects: objects.part(whole, 5, 9).data,
    }
    asked(far)
    with pytest.raises(ReadError, match="a was replaced while it was read: it had 2560 bytes"):
        reads[how](reader)
    lines[1].forget()
    assert reads[how](new) == reads[how](reader) == b"AAAA"
    assert {key for key, _ in asked(far)} <= {"b"}
    for line in lines:
        line.close()
