"""Who goes next, and how many bytes there are: by a model that remembers all."""

import os
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.disk.files.atomic import temporary_name
from globidx.disk.local_cache import ledger as ledger_module
from globidx.disk.local_cache.ledger import Ledger, Victim, not_soon, taken

BLOCK = 4096
NOW = 1_800_000_000 * 10**9


def made(folder):
    return Ledger(Path(folder))


def add(ledger, number, blocks, used):
    name = f"{number:032x}"[::-1]
    os.makedirs(os.path.dirname(ledger.path(name)), exist_ok=True)
    with open(ledger.path(name), "wb") as file:
        file.truncate(blocks * BLOCK)
    os.utime(ledger.path(name), ns=(used, used))
    return name


def names(ledger):
    return {name for name, _ in ledger.entries()}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "use", "use", "forget", "lose"]),
        st.integers(0, 30),
        st.integers(1, 3),
    ),
    max_size=150,
)


@settings(max_examples=25, deadline=None)
@given(steps=STEPS, bound=st.integers(1, 30))
def test_the_least_recently_used_go_first_and_the_bound_holds(tmp_path_factory, steps, bound):
    """A model that sorts all entries at each step has the same ones left, whatever was lost of the hints.

    Entries that will not be asked for soon go before all others, the one last marked first.
    """
    ledger = made(tmp_path_factory.mktemp("cache"))
    there, known = {}, set()
    for clock, (what, number, blocks) in enumerate(steps):
        now = NOW + clock * 1000
        name = f"{number:032x}"[::-1]
        known.add(name)
        if what == "put" and name not in there:
            fits = blocks <= bound
            while fits and sum(size for _, size in there.values()) + blocks > bound:
                del there[min(there, key=there.get)]
            assert ledger.reserve(blocks * BLOCK, bound * BLOCK) == fits
            if fits:
                there[add(ledger, number, blocks, now)] = ((1, now), blocks)
        elif what in ("use", "forget") and name in there:
            time = not_soon(now) if what == "forget" else now
            os.utime(ledger.path(name), ns=(time, time))
            if what == "forget":
                ledger.push([Victim(name, time)])
            there[name] = ((int(what == "use"), -now if what == "forget" else now), there[name][1])
        elif what == "lose":
            # hints, and the count, are made again from what is there
            for hint in ("ledger", "oldest", "not_soon")[: number % 4]:
                (ledger.folder / hint).unlink(missing_ok=True)
        assert {one for one in known if os.path.exists(ledger.path(one))} == set(there)
        assert ledger.nbytes == sum(size for _, size in there.values()) * BLOCK <= bound * BLOCK


def test_a_thousand_are_looked_at_once_for_an_eighth(tmp_path, monkeypatch):
    """A look at all of them makes a queue: eviction costs eight looks at an entry, however many there are."""
    ledger, looks = made(tmp_path), []
    for number in range(1000):
        add(ledger, number, 1, NOW + number)
    recount = Ledger.recount
    monkeypatch.setattr(Ledger, "recount", lambda self: looks.append(1) or recount(self))
    for number in range(1000, 1125):
        assert ledger.reserve(BLOCK, 1000 * BLOCK)
        add(ledger, number, 1, NOW + number)
    assert len(looks) == 1 and len(names(ledger)) == 1000
    assert ledger.reserve(BLOCK, 1000 * BLOCK)
    assert len(looks) == 2 and len(names(ledger)) == 999


def test_what_was_killed_in_the_middle_counts_until_it_is_gone(tmp_path):
    """A temporary file is within the bound; an old one is removed by the next look, beside the hints too."""
    ledger = made(tmp_path)
    hint = tmp_path / temporary_name("oldest")
    hint.write_bytes(b"x")
    os.utime(hint, (0, 0))
    litter = Path(ledger.path("00x")).parent / temporary_name("1" * 30)
    litter.parent.mkdir(parents=True)
    litter.write_bytes(b"x" * BLOCK)
    ledger.recount()
    assert ledger.nbytes == BLOCK and litter.exists()
    os.utime(litter, (0, 0))
    ledger.recount()
    assert ledger.nbytes == 0 and not litter.exists() and not hint.exists()


def test_an_entry_that_was_used_since_stays(tmp_path):
    """Neither the queue nor the stack knows of it; the time of its file does."""
    ledger = made(tmp_path)
    names_of = [add(ledger, number, 1, NOW + number) for number in range(4)]
    ledger.recount()
    ledger.push([Victim(names_of[3], NOW + 3)])
    for name in (names_of[0], names_of[3]):
        os.utime(ledger.path(name), ns=(NOW + 10, NOW + 10))
    assert ledger.reserve(BLOCK, 4 * BLOCK)
    assert names(ledger) == {names_of[0], names_of[2], names_of[3]}


def test_of_those_not_soon_asked_for_the_last_goes_first(tmp_path):
    """Also where the stack was lost: the times of the files say so."""
    ledger = made(tmp_path)
    names_of = [add(ledger, number, 1, not_soon(NOW + 1000 * number)) for number in range(4)]
    names_of.append(add(ledger, 4, 1, NOW - 10**9))
    ledger.recount()
    left = set(names_of)
    # the bytes that are reserved stand for entries
    for gone in (3, 2, 1, 0, 4):
        assert ledger.reserve(BLOCK, 5 * BLOCK)
        left.remove(names_of[gone])
        assert names(ledger) == left


def test_none_is_tried_twice(tmp_path):
    """What was taken from the stack, or from the queue, is gone from there, whatever became of it."""
    ledger = made(tmp_path)
    for number in range(300):
        add(ledger, number, 1, NOW + number)
    ledger.recount()
    ledger.push([Victim(f"{number:032x}"[::-1], NOW + number) for number in range(200, 210)])
    assert ledger.reserve(BLOCK, 286 * BLOCK)
    # fifteen went: ten of the stack, and then five of the queue
    assert (tmp_path / "not_soon").stat().st_size == 0 and ledger._state()[1] == 5
    assert not {f"{number:032x}"[::-1] for number in [*range(200, 210), *range(5)]} & names(ledger)


def test_the_stack_is_bounded(tmp_path, monkeypatch):
    """Where nothing ever has to go, what goes first is remembered of so many only."""
    ledger = made(tmp_path)
    monkeypatch.setattr(ledger_module, "_MOST_STACKED", 400)
    for number in range(100):
        ledger.push([Victim(f"{number:032x}", number)])
        assert (tmp_path / "not_soon").stat().st_size <= 400
    with closing(ledger._stack()) as stack:
        last = next(stack)
    assert last == Victim(f"{99:032x}", 99)


def test_files_take_whole_blocks():
    """As a disk counts."""
    assert [taken(size) for size in (0, 1, BLOCK, BLOCK + 1)] == [0, BLOCK, BLOCK, 2 * BLOCK]


@pytest.mark.parametrize("name", ["ledger", "oldest", "not_soon"])
@pytest.mark.parametrize(
    "damage", [b"\xff" * 16, b"\xff" * 41, (-8).to_bytes(8, "little", signed=True) * 10, b""]
)
def test_what_is_kept_beside_the_entries_may_be_damaged(tmp_path, name, damage):
    """It is made again; the bound holds, and nothing but entries goes."""
    ledger = made(tmp_path)
    for number in range(20):
        add(ledger, number, 1, NOW + number)
    ledger.recount()
    (tmp_path / name).write_bytes(damage)
    for number in range(20, 40):
        assert ledger.reserve(BLOCK, 10 * BLOCK)
        add(ledger, number, 1, NOW + number)
    assert len(names(ledger)) == 10 and ledger.nbytes == 10 * BLOCK


def test_a_mark_that_was_cut_does_not_shift_those_behind_it(tmp_path):
    """By a full disk, or a kill in the middle of a write."""
    ledger = made(tmp_path)
    marked = [add(ledger, number, 1, NOW + number) for number in range(4)]
    ledger.recount()
    ledger.push([Victim(marked[0], NOW)])
    os.truncate(tmp_path / "not_soon", 25)
    ledger.push([Victim(marked[2], NOW + 2)])
    assert ledger.reserve(BLOCK, 4 * BLOCK)
    assert names(ledger) == set(marked) - {marked[2]}


def test_a_name_that_leads_out_of_the_folder_is_no_entry(tmp_path):
    """Whoever may write to the folder cannot have others remove files elsewhere."""
    (tmp_path / "cache").mkdir()
    ledger, other = made(tmp_path / "cache"), tmp_path / "other"
    kept = add(ledger, 1, 1, NOW)
    other.touch()
    name = "../other".rjust(32, "/").replace("//", "..", 1)
    assert len(name) == 32 and os.path.samefile(ledger.path(name), other)
    ledger.push([Victim(name, other.stat().st_mtime_ns)])
    assert ledger.reserve(BLOCK, BLOCK)
    assert other.exists() and kept not in names(ledger)
