"""What threads of a process share, each against an oracle: with a GIL they take turns all the time, without they run at once.

Whole readers are in ``reading/test_threads``.
"""

from __future__ import annotations

import os
import random
import sys
import sysconfig
import threading
from collections import Counter

import numpy as np
import pytest
from files import numbers, run_python, write_hdf5, write_zarr
from servers import Server
from threads import in_threads

from globidx import GlobalIndexManager
from globidx.core.index.layout import Layout
from globidx.disk.files.blocks import BlockCache
from globidx.disk.files.living import Living
from globidx.disk.files.lru import HandleCache
from globidx.disk.files.shared_blocks import SharedBlocks
from globidx.disk.local_cache.cached_objects import CachedObjects
from globidx.disk.local_cache.folder import LocalCache
from globidx.disk.reading import counters
from globidx.disk.reading.batch import FieldSpec
from globidx.disk.reading.constants import ConstantReader
from globidx.disk.reading.counters import Counters, Report, Tally
from globidx.disk.reading.open_file import OpenFile
from globidx.disk.reading.reader import Reader
from globidx.disk.remote.ahead import Ahead, Expected, Wish
from globidx.disk.remote.foresight import Foresight
from globidx.disk.remote.hands import Hands
from globidx.disk.remote.line import Line, Requests
from globidx.disk.remote.objects import Found, Piece
from globidx.disk.remote.retries import Bounds
from globidx.disk.stores import base as stores
from globidx.disk.stores.hdf5.library import Hdf5Store
from globidx.errors import ReadError
from tests.disk.files.test_shared_blocks import content, key_of, taken, whole
from tests.disk.remote.test_ahead import SIZE, Stock

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

THREADS = 6


def reader_of(index, cache_bytes=0, **options):
    """A reader of the first field."""
    settings = {"max_open_files": None, "on_missing": "error", "backend": "auto"} | options
    return Reader(index, [FieldSpec(0)], cache_bytes=cache_bytes, **settings)


# -- decoded chunks


def make_in(cache, key, block):
    """The block ``key`` out of a cache as a batch has it: taken, or made by whoever claims it; and who made it."""
    rows = np.zeros_like(block)
    while not cache.take(key, whole(block), rows):
        with cache.claim(key) as is_mine:
            if is_mine and not cache.take(key, whole(block), rows):
                room = cache.room(key, block.shape, block.dtype)
                # as a codec does, which lets others go
                os.sched_yield()
                room[...] = block
                rows[...] = room
                cache.put(key, room)
                return rows, True
        if not is_mine:
            cache.wait(key)
    return rows, False


def test_blocks_are_those_of_their_keys_and_never_more_bytes_than_allowed():
    """Takes, claims, puts and clears of twelve keys, of which half fit; the sum is exact at the end."""
    cache = BlockCache(6 * content(0).nbytes * 16)

    def work(seed):
        dice = random.Random(seed)
        for turn in range(400):
            number = dice.randrange(12)
            rows, _ = make_in(cache, number, content(number))
            assert np.array_equal(rows, content(number))
            assert cache.nbytes <= cache.capacity
            if turn % 50 == 49:
                cache.clear()

    in_threads(THREADS, work)
    kept = [cache.get(number) for number in range(12)]
    assert cache.nbytes == sum(block.nbytes for block in kept if block is not None)


def test_a_block_for_which_there_is_room_is_made_once():
    """However many want it at the same moment."""
    cache, made = BlockCache(2**24), []

    def work(seed):
        order = random.Random(seed).sample(range(60), 60)
        made.extend(one for one in order if make_in(cache, one, content(one % 12))[1])

    in_threads(THREADS, work)
    assert sorted(made) == list(range(60))


def test_threads_of_a_process_share_what_processes_share(tmp_path):
    """Blocks come and go in a small arena while others copy them out: whole or not there, and it stays tiled."""
    blocks = SharedBlocks(str(tmp_path), 2**15)
    seen = Counter()

    def work(seed):
        dice = random.Random(seed)
        for _ in range(120):
            number = dice.randrange(9)
            is_right = taken(blocks, number)
            assert is_right in (None, True)
            seen[is_right] += 1
            if is_right is None:
                with blocks.claim(key_of(number)) as had:
                    if had and not blocks.has(key_of(number)):
                        block = content(number)
                        room = blocks.room(key_of(number), block.shape, block.dtype)
                        room[...] = block
                        blocks.put(key_of(number), room)

    in_threads(THREADS, work)
    arena = blocks.open()
    assert blocks.why_not is None and seen[True] and seen[None]
    used = arena.check()
    assert arena.nbytes <= sum(size for _, size in used) <= 2 * 2**15
    blocks.clear()


def test_a_child_that_is_forked_while_threads_change_a_cache_has_it_whole():
    """With what it inherits: the bytes it counts are those it has, and it goes on by itself."""
    cache, is_over = BlockCache(2000, inherited=True), threading.Event()

    def work(number):
        if number:
            dice = random.Random(number)
            while not is_over.is_set():
                cache.put(dice.randrange(40), np.zeros(dice.randrange(200), "u1"))
            return
        try:
            for _ in range(40):
                child = os.fork()
                if not child:
                    kept = [cache.get(key) for key in range(40)]
                    held = sum(block.nbytes for block in kept if block is not None)
                    os._exit(0 if held == cache.nbytes <= 2000 else 1)
                assert os.waitpid(child, 0)[1] == 0
        finally:
            is_over.set()

    in_threads(3, work)


# -- open files


def test_handles_are_open_while_they_are_used_and_closed_once():
    """Six threads over eight files of which two stay open, and one thread that closes all."""
    closed, opened = Counter(), Counter()

    class File:
        def __init__(self, name):
            self.name, self.is_open = name, True
            opened[name] += 1

        def close(self):
            assert self.is_open
            self.is_open = False
            closed[self.name] += 1

    files = HandleCache(2, File)

    def work(seed):
        dice = random.Random(seed)
        for turn in range(200):
            with files.use((seed % 2, dice.randrange(4))) as file:
                assert file.is_open
            if not seed and turn % 20 == 0:
                files.close()

    in_threads(THREADS, work)
    assert len(files) <= 2
    files.close()
    assert opened.keys() == closed.keys()


def test_a_file_is_opened_once_by_its_library(tmp_path):
    """Threads that need it at the same moment have the same store, and none is left open."""
    for number in range(20):
        path = write_zarr(tmp_path / f"{number}.zarr", numbers(4), key="x")
        entry = stores.scan(path, Layout(("x",)), 0)
        file = OpenFile(path, entry, on_missing="error", backend="library", forked=False)
        found = in_threads(THREADS, lambda _, file=file: (file.library(), file._container()))
        assert len({tuple(map(id, pair)) for pair in found}) == 1
        file.close()


def test_files_that_threads_open_are_looked_at_meanwhile(tmp_path):
    """Each HDF5 file that is opened looks at all that are open: none is lost, and none is in the way."""
    paths = [write_hdf5(tmp_path / f"{number}.h5", numbers(4)) for number in range(THREADS)]

    def work(number):
        for _ in range(40):
            store = Hdf5Store(paths[number], 0, fill=False, allow=False)
            assert store.is_open
            store.close()

    in_threads(THREADS, work)


def test_what_lives_is_listed_while_others_come_and_go():
    """All that lived from the beginning to the end of a listing are in it, once."""

    class Thing:
        pass

    living, stay = Living(), [Thing() for _ in range(50)]
    for one in stay:
        living.add(one)

    def work(number):
        for _ in range(1500):
            if number % 2:
                mine = [Thing() for _ in range(5)]
                for one in mine:
                    living.add(one)
            else:
                listed = Counter(map(id, living))
                assert all(listed[id(one)] == 1 for one in stay)

    in_threads(THREADS, work)
    assert set(living) == set(stay)


# -- counts


def test_all_that_was_counted_is_told_once():
    """Threads add, others take and reset, others report: the sums are those of what was added."""
    tally, copy_of_it, taken_out = Tally(), Tally(), []
    each = Counters(hits=1, decodes=2, decodes_of={"image": 2})

    def work(number):
        for turn in range(100):
            tally.add(each)
            if number % 2:
                taken_out.append(tally.take(reset=True))
            # totals of another process, which come in any sequence
            total = Counters(opens=turn + 1)
            tally.receive(Report(tally.name, f"process {number}", total))
            copy_of_it.add(each)
            counters.reports()

    in_threads(THREADS, work)
    total = sum(taken_out, Counters()) + tally.take()
    assert (total.hits, total.decodes, total.opens) == (THREADS * 100, THREADS * 200, THREADS * 100)
    assert total.decodes_of == {"image": THREADS * 200}


def test_tallies_report_while_others_begin():
    """A thread that begins a reader does not disturb one whose batch carries reports."""
    stay = [Tally() for _ in range(50)]

    def work(number):
        for _ in range(1500):
            if number % 2:
                Tally().add(Counters(opens=1))
            else:
                counters.reports()

    in_threads(THREADS, work)
    assert len({tally.name for tally in stay}) == 50


# -- constants


def test_constants_are_those_of_their_files_within_their_bytes(tmp_path):
    """Also where the cache holds two of eight, and is cleared meanwhile."""
    import h5py

    for number in range(8):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file["x"], file["grid"] = numbers(3), np.full(100, number)
    index = GlobalIndexManager(tmp_path, key="x", constants={"grid": "grid"}, cache_dir=tmp_path)
    reader = reader_of(index)
    constants = ConstantReader(index.constants, reader.handles, capacity=2000)

    def work(seed):
        dice = random.Random(seed)
        for turn in range(200):
            id = dice.randrange(24)
            ((grid,),) = constants.read(index.now, [id])
            assert grid.tolist() == [id // 3] * 100
            assert constants.nbytes <= 2000
            if turn % 25 == 24:
                constants.clear()

    in_threads(THREADS, work)
    constants.clear()
    assert constants.nbytes == 0


# -- from afar


class Back:
    """Tells another version of an object to each thread; the answers come at the same moment."""

    how = "by hand"

    def __init__(self):
        self._meeting = threading.Barrier(THREADS)

    def fetch(self, piece):
        return Found(b"data", 4, f"v{self._meeting.wait()}")


def test_of_several_versions_of_an_object_one_counts():
    """Whoever comes first, the others are refused."""
    line = Line(Bounds(requests=THREADS))
    requests = Requests("stock://", Back, line.bounds, line)

    def work(_):
        passed = []
        for number in range(300):
            try:
                passed.append((number, requests.get(Piece(str(number))).version))
            except ReadError:
                continue
        return passed

    passed = Counter(key for some in in_threads(THREADS, work) for key, _ in some)
    assert passed == Counter(range(300))
    line.close()


def test_threads_read_from_afar_what_is_stored_within_one_bound(tmp_path):
    """All that begin at the same moment ask by one line, of at most so many requests at once."""
    pytest.importorskip("obstore")
    data = numbers(60, (50,))
    write_zarr(tmp_path / "a.zarr", data, chunk=2)
    with Server(tmp_path, delay=0.01) as server:
        index = GlobalIndexManager(f"{server.url}/a.zarr", cache_dir=tmp_path / "cache")
        reader = reader_of(index, cache_bytes=1000, bounds=Bounds(requests=3))
        server.take()

        def work(seed):
            dice = random.Random(seed)
            for _ in range(4):
                ids = [dice.randrange(60) for _ in range(8)]
                for (value,), id in zip(reader.read(ids), ids, strict=True):
                    np.testing.assert_array_equal(value, data[id])

        in_threads(THREADS, work)
        assert server.take()["most"] <= 3
        reader.close()


def test_expected_pieces_are_those_of_the_objects_within_their_bytes():
    """Threads that each read batches of their own, expect the next ones, and change their minds."""
    hands, stock = Hands(4), Stock()
    ahead = Ahead(hands, 8 * SIZE)
    objects = Expected(stock, ahead)

    def work(seed):
        dice = random.Random(seed)
        for turn in range(60):
            batches = [(seed, turn + step) for step in range(3)]
            for ticket in ahead.expect(batches):
                names = [f"{(ticket[1] * 5 + step) % 40}" for step in range(5)]
                ahead.want(ticket, [Wish(stock, Piece(name), SIZE) for name in names])
            for step in range(5):
                name = f"{(turn * 5 + step) % 40}"
                assert objects.get(Piece(name)).data == name[-1].encode() * SIZE
            # what is on its way counts; one fetch that is larger than all room would come alone
            assert ahead.nbytes <= 8 * SIZE
            if dice.random() < 0.1:
                ahead.clear()
        ahead.expect([])

    in_threads(THREADS, work)
    with ahead._changed:
        assert ahead._changed.wait_for(lambda: not ahead._flying, timeout=30)
    assert ahead.nbytes == 0
    hands.close()


def test_batches_that_many_foresee_are_planned_and_read():
    """Threads that share a sequence of batches, each of which reads every sixth and foresees the others."""
    hands, stock = Hands(4), Stock()
    foresight, plans = Foresight(Ahead(hands, 10**6)), []

    def wishes(ids, rely):
        plans.append(ids)
        yield [Wish(stock, Piece(str(id)), SIZE) for id in ids]

    def work(number):
        for turn in range(40):
            first = turn * THREADS + number
            told = [(2 * at, 2 * at + 1) for at in range(first, first + 1 + THREADS)]
            foresight.tell(told, wishes)
            foresight.before(told[0], wishes)
            for id in told[0]:
                found = Expected(stock, foresight.ahead).get(Piece(str(id)))
                assert found.data == str(id)[-1].encode() * SIZE

    in_threads(THREADS, work)
    hands.close()
    read = {(2 * at, 2 * at + 1) for at in range(40 * THREADS)}
    assert read <= set(plans)


def test_what_is_kept_on_disk_is_what_was_fetched(tmp_path):
    """Threads over a folder that holds half of it, each noting what it has had."""
    stock = Stock()
    cached = CachedObjects(stock, LocalCache(tmp_path / "kept", 40 * 4096))

    def work(seed):
        dice = random.Random(seed)
        for _ in range(100):
            piece = Piece(f"{dice.randrange(30)}")
            found = cached.get(piece)
            assert found.data == piece.key[-1].encode() * SIZE
            cached.taken(piece)

    in_threads(THREADS, work)
    counts = cached.counts
    assert counts.hits + counts.misses == THREADS * 100


# -- the interpreter

LEAVES_THE_GIL = """
import importlib, pkgutil, sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
# the one package that has not said that it needs no GIL
sys.modules["google_crc32c"] = module_from_spec(ModuleSpec("google_crc32c", None))
import globidx
for part in ("core", "disk"):
    package = importlib.import_module(f"globidx.{part}")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
print(getattr(sys, "_is_gil_enabled", lambda: True)())
"""


def test_no_module_of_core_and_disk_turns_the_gil_on():
    """Nor does what they import: numpy, numcodecs, h5py, zarr, filelock, fsspec and obstore."""
    has_gil = not sysconfig.get_config_var("Py_GIL_DISABLED")
    told = run_python(LEAVES_THE_GIL, env={"PYTHON_GIL": None}).stdout
    assert told == f"{has_gil}\n" and (has_gil or sys.version_info >= (3, 13))
