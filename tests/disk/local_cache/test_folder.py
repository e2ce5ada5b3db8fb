"""The cache on local disk: whole entries or none, within the bound, whoever is killed, whatever is full."""

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from disks import tmpfs
from processes import clean_environment

from globidx.disk.local_cache.entry import Identity
from globidx.disk.local_cache.folder import LocalCache
from globidx.disk.remote.objects import Found

URL = "s3://bucket/a.zarr"
#: An entry of so many bytes takes two blocks.
SIZE = 5000
BLOCKS = 8192

#: Puts and gets of any pieces, whose bytes follow from their number, until it is told to stop.
_WORK = """
import random, sys
from globidx.disk.local_cache.entry import Identity
from globidx.disk.local_cache.folder import LocalCache
from globidx.disk.remote.objects import Found

folder, bound, seed, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
cache, draw = LocalCache(folder, bound), random.Random(seed)
hits = 0
for step in range(steps):
    number = draw.randrange(60)
    size = 1000 + 997 * number % 20000
    piece = Identity("s3://bucket/a.zarr", f"c/{number}", 0, size, str(number))
    data = random.Random(number).randbytes(size)
    kept = cache.get(piece)
    if kept is None:
        cache.put(piece, Found(data, size, str(number)))
    else:
        assert kept.found == Found(data, size, str(number)), number
        hits += 1
    if draw.random() < 0.1:
        cache.forget([piece])
    print(hits, flush=True)
"""


def worker(folder, bound, seed, steps):
    arguments = [str(argument) for argument in (folder, bound, seed, steps)]
    return subprocess.Popen(
        [sys.executable, "-c", _WORK, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )


def piece(number):
    return Identity(URL, f"c/{number}")


def found(number):
    return Found(random.Random(number).randbytes(SIZE), SIZE, f"v{number}")


def used_on_disk(folder):
    return sum(
        -(-path.stat().st_size // 4096) * 4096
        for path in Path(folder, "chunks").rglob("*")
        if path.is_file()
    )


def entry_of(cache, identity):
    return Path(cache._ledger.path(identity.name))


def test_what_is_kept_comes_back_in_any_process(tmp_path):
    """In a copy that was pickled, and in a new cache of the same folder, as it was fetched."""
    cache = LocalCache(tmp_path / "cache", 2**20)
    cache.put(piece(1), found(1))
    for other in (cache, pickle.loads(pickle.dumps(cache)), LocalCache(tmp_path / "cache")):
        assert other.get(piece(1)).found == found(1) and other.get(piece(2)) is None
        assert other.bound == 2**20


def test_eight_processes_hold_the_bound_and_read_what_was_written(tmp_path):
    """They write, read and evict at once; what any of them reads is right."""
    bound = 40 * 4096
    processes = [worker(tmp_path / "cache", bound, seed, 150) for seed in range(8)]
    told = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    assert sum(int(text.split()[-1]) for text in told) > 100
    cache = LocalCache(tmp_path / "cache")
    assert used_on_disk(cache.path) == cache.nbytes <= bound
    assert list(filter(None, (wrong for _, wrong in cache.verify()))) == []


def test_killed_at_any_moment_it_leaves_whole_entries(tmp_path):
    """The bound holds over what they leave, all that is read is right, and the next ones go on."""
    bound, draw = 40 * 4096, random.Random(7)
    for seed in range(6):
        processes = [worker(tmp_path / "cache", bound, 2 * seed + one, 10**6) for one in range(2)]
        for process in processes:
            for _ in range(draw.randrange(5, 80)):
                process.stdout.readline()
            # in the middle of a step of its, and of the other's
            process.kill()
        for process in processes:
            process.communicate()
        assert used_on_disk(tmp_path / "cache") <= bound
        cache = LocalCache(tmp_path / "cache")
        assert [wrong for _, wrong in cache.verify() if wrong] == []
    last = worker(tmp_path / "cache", bound, 1, 300)
    assert last.communicate(timeout=60) and last.returncode == 0
    assert used_on_disk(tmp_path / "cache") <= bound
    with cache._lock.hold(timeout=1) as held:
        assert held
        cache._ledger.recount()
    assert used_on_disk(tmp_path / "cache") == cache.nbytes


@pytest.mark.parametrize("damage", ["flip", "cut", "other", "empty"])
def test_a_damaged_entry_is_dropped_with_one_line(tmp_path, caplog, damage):
    """It is none then, its bytes are free, and what is fetched anew takes its place."""
    cache = LocalCache(tmp_path, 2**20)
    cache.put(piece(1), found(1))
    cache.put(piece(2), found(2))
    file = entry_of(cache, piece(1))
    data = bytearray(file.read_bytes())
    data[SIZE // 2] ^= 4
    wrong = {
        "flip": data,
        "cut": data[:-1],
        "other": entry_of(cache, piece(2)).read_bytes(),
        "empty": b"",
    }
    file.write_bytes(wrong[damage])
    assert cache.get(piece(1)) is None and not file.exists()
    assert len(caplog.records) == 1 and "is dropped" in caplog.text
    assert cache.get(piece(1)) is None and len(caplog.records) == 1
    cache.put(piece(1), found(1))
    assert cache.get(piece(1)).found == found(1)


def test_the_least_recently_used_goes_first(tmp_path):
    """Reading counts as use; what is forgotten goes before all others, and is had until then."""
    now = iter(range(10**18, 2 * 10**18, 10**12)).__next__
    cache = LocalCache(tmp_path, 4 * BLOCKS, clock=now)
    for number in range(4):
        cache.put(piece(number), found(number))
    assert cache.get(piece(0))
    cache.forget([piece(3)])
    assert cache.get(piece(3)) is not None
    cache.forget([piece(2), piece(7)])
    for number in (4, 5):
        cache.put(piece(number), found(number))
    assert [bool(cache.get(piece(number))) for number in range(6)] == [
        True,
        False,
        False,
        True,
        True,
        True,
    ]


def test_an_epoch_over_more_than_fits_has_what_fits_from_the_cache(tmp_path):
    """With what was had in this epoch going first, the part that fits is hit in each; by age alone, hardly any."""

    def hits(forgets):
        clock = iter(range(10**18, 2 * 10**18, 10**12)).__next__
        cache = LocalCache(tmp_path / str(forgets), 50 * BLOCKS, clock=clock)
        found_of = []
        for epoch in range(4):
            order = list(range(100))
            random.Random(epoch).shuffle(order)
            number_of_hits = 0
            for number in order:
                if cache.get(piece(number)) is not None:
                    number_of_hits += 1
                else:
                    cache.put(piece(number), found(number))
                if forgets:
                    cache.forget([piece(number)])
            found_of.append(number_of_hits)
        return found_of

    # one place is that of the entry under way
    assert min(hits(forgets=True)[1:]) >= 49
    assert max(hits(forgets=False)) < 40


def test_an_entry_that_is_replaced_takes_room_once(tmp_path):
    """A whole object of another version is in the place of the old one."""
    cache = LocalCache(tmp_path, 2**20)
    for version in range(5):
        cache.put(piece(1), found(version))
        assert cache.get(piece(1)).found == found(version)
        assert used_on_disk(tmp_path) == cache.nbytes == BLOCKS


def test_what_is_larger_than_the_bound_is_not_kept(tmp_path):
    """And nothing goes for it."""
    cache = LocalCache(tmp_path, 2 * BLOCKS)
    cache.put(piece(1), found(1))
    cache.put(piece(2), Found(bytes(3 * BLOCKS), 3 * BLOCKS, ""))
    assert cache.get(piece(1)) and cache.get(piece(2)) is None


def test_a_full_disk_ends_writing_with_one_line(tmp_path, caplog):
    """What was kept is read on, and no file is left half."""
    with tmpfs(tmp_path / "disk", "size=3m") as disk:
        cache = LocalCache(disk / "cache", 2**30)
        for number in range(1000):
            cache.put(piece(number), found(number))
        assert len(caplog.records) == 1 and "keeps nothing more" in caplog.text
        assert "No space left" in caplog.text
        assert cache.get(piece(0)).found == found(0) and cache.get(piece(999)) is None
        assert [wrong for _, wrong in cache.verify() if wrong] == []
        assert not list(disk.rglob("*globidx-tmp"))
        assert used_on_disk(cache.path) == cache.nbytes


def test_a_holder_that_stands_still_is_waited_for_once(tmp_path, monkeypatch):
    """Then what is fetched is not kept, until the lock can be had; reading goes on all the time."""
    cache, other = LocalCache(tmp_path, 2**20), LocalCache(tmp_path)
    cache.put(piece(1), found(1))
    waits = []
    hold = type(cache._lock).hold
    monkeypatch.setattr(
        type(cache._lock),
        "hold",
        lambda self, *, timeout: (waits.append(timeout), hold(self, timeout=timeout / 100))[1],
    )
    with other._lock.hold(timeout=0):
        cache.put(piece(2), found(2))
        cache.put(piece(3), found(3))
        assert cache.get(piece(1)) and cache.get(piece(2)) is None
    cache.put(piece(4), found(4))
    cache.put(piece(5), found(5))
    assert waits == [0, 1, 0, 0, 1] and cache.get(piece(4)) and cache.get(piece(5))


def test_a_folder_of_other_things_is_refused(tmp_path):
    """Nothing in it is touched; so is a marker that is none, and one of a later version."""
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"holds other things than a cache, 'thesis.tex' among"):
        LocalCache(tmp_path, 2**20)
    assert os.listdir(tmp_path) == ["thesis.tex"]
    (tmp_path / "thesis.tex").rename(tmp_path / "globidx-cache.json")
    with pytest.raises(ValueError, match="no marker of a cache"):
        LocalCache(tmp_path, 2**20)
    (tmp_path / "globidx-cache.json").write_text(json.dumps({"version": 2, "bytes": 1}))
    with pytest.raises(ValueError, match="version 2, and this globidx knows 1"):
        LocalCache(tmp_path, 2**20)
    with pytest.raises(ValueError, match="is no cache of globidx"):
        LocalCache.existing(tmp_path / "nowhere")


def test_a_bound_is_kept_with_the_folder(tmp_path):
    """The one that was given last; of a new folder, half of what is free."""
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert 0 < LocalCache(tmp_path / "new").bound < free
    LocalCache(tmp_path / "new", 5 * 2**20)
    assert LocalCache(tmp_path / "new").bound == 5 * 2**20


def test_a_smaller_bound_is_reached_by_the_next_entry(tmp_path):
    """What is too much goes when something is kept."""
    cache = LocalCache(tmp_path, 100 * BLOCKS)
    for number in range(20):
        cache.put(piece(number), found(number))
    cache = LocalCache(tmp_path, 5 * BLOCKS)
    cache.put(piece(20), found(20))
    assert used_on_disk(tmp_path) == cache.nbytes == 5 * BLOCKS


def test_info_verify_and_clear(tmp_path):
    """By URL; what is damaged is named, and stays; a cleared cache is empty and serves on."""
    cache = LocalCache(tmp_path, 2**20)
    for number in range(3):
        cache.put(piece(number), found(number))
    cache.put(Identity("http://host", "b"), Found(b"x", 1, ""))
    info = cache.info()
    assert info.entries == {URL: 3, "http://host": 1}
    assert info.nbytes == {URL: 3 * BLOCKS, "http://host": 4096}
    entry_of(cache, piece(1)).write_bytes(b"")
    wrong = {name: why for name, why in cache.verify() if why}
    assert list(wrong) == [piece(1).name] and len(dict(cache.verify())) == 4
    cache.clear()
    assert used_on_disk(tmp_path) == cache.nbytes == 0 and cache.get(piece(0)) is None
    cache.put(piece(0), found(0))
    assert cache.get(piece(0))


def test_a_forked_child_goes_on_with_it(tmp_path):
    """As its parent does, at the same time."""
    cache = LocalCache(tmp_path, 2**20)
    child = os.fork()
    if not child:
        cache.put(piece(1), found(1))
        os._exit(0 if cache.get(piece(1)) else 1)
    cache.put(piece(2), found(2))
    assert os.waitpid(child, 0)[1] == 0
    assert cache.get(piece(1)) and cache.get(piece(2))


def test_a_folder_that_is_removed_in_use_is_empty_and_has_no_bytes(tmp_path, caplog):
    """Readers ask how full it is while they read."""
    cache = LocalCache(tmp_path / "cache", 2**20)
    chunk = Identity("u", "k")
    cache.put(chunk, Found(b"bytes", 5, "v"))
    shutil.rmtree(cache.path)
    assert (cache.get(chunk), cache.nbytes, cache.is_tight) == (None, 0, False)
    cache.put(chunk, Found(b"bytes", 5, "v"))
    cache.forget([chunk])
    assert len(caplog.records) == 1


def test_a_pipe_in_place_of_an_entry_is_not_waited_for(tmp_path):
    """Nobody will write into it."""
    cache = LocalCache(tmp_path / "cache", 2**20)
    chunk = Identity("u", "k")
    cache.put(chunk, Found(b"bytes", 5, "v"))
    path = next(file.path for _, file in cache._entries())
    os.unlink(path)
    os.mkfifo(path)
    assert cache.get(chunk) is None
    assert not cache.confirm(chunk, 1)
    cache.put(chunk, Found(b"others", 6, "v"))
    assert cache.get(chunk).found.data == b"others"
