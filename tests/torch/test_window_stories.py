"""Sequences to which anything happens, told as stories: never a stale answer, and the truth about ids."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_window_growth import PADDED, WIDE, Watched, opened, put, rows  # noqa: F401

from globidx import GlobalIndexManager, Window


class OneSide(Watched):
    """The same of one side of a split."""

    side = 0

    def build(self, cache=None):
        return super().build(cache).split(0.5, seed=3)[self.side]


class OtherSide(OneSide):
    """And of the other one."""

    side = 1


def test_the_only_chain_of_a_folder_stays_on_its_side(tmp_path):
    """While there is one folder it is the deepest that holds all files; with another beside it, it no longer is."""
    folder = tmp_path / "data"
    put(folder / "north/1.h5", {"x": rows(5)})
    options = {"key": "x", "sequences": "chain", "chain_by": "parent"}
    sides = []
    for _ in range(2):
        manager = GlobalIndexManager(str(folder), cache_dir=tmp_path / "cache", **options)
        halves = [manager.split(0.5, seed=seed)[0] for seed in range(12)]
        sides.append([str(folder / "north/1.h5") in half.sequences.paths for half in halves])
        put(folder / "south/1.h5", {"x": rows(5, 20)})
    assert sides[0] == sides[1]
    assert len(set(sides[0])) == 2


@st.composite
def stories(draw):
    """Sequences as (number in the name, rows, first value), and after each change once more."""
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))
    now = [(2 * number, length, 100 * number) for number, length in enumerate(lengths)]
    told, fresh = [now], 100 * len(now)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(now) - 1))
        number, length, first = now[at]
        how = draw(st.sampled_from(["longer", "longer", "shorter", "append", "insert", "remove"]))
        if how in ("longer", "append") and draw(st.booleans()):
            at = len(now) - 1
            number, length, first = now[at]
        if how == "longer":
            now = [*now[:at], (number, length + draw(st.integers(1, 4)), first), *now[at + 1 :]]
        elif how == "shorter":
            now = [*now[:at], (number, max(0, length - 1), first), *now[at + 1 :]]
        elif how == "append":
            now = [*now, (now[-1][0] + 2, draw(st.integers(0, 9)), fresh)]
        elif how == "insert" and number + 1 not in [one[0] for one in now]:
            now = [*now[: at + 1], (number + 1, draw(st.integers(0, 9)), fresh), *now[at + 1 :]]
        elif how == "remove" and len(now) > 1:
            now = [*now[:at], *now[at + 1 :]]
        fresh += 100
        told.append(now)
    return told


def tell(folder, kind, sequences):
    """Files of exactly these sequences; those that are as they were are left alone."""
    if kind in ("file", "chain"):
        wanted = {f"run{number}.h5": rows(length, first) for number, length, first in sequences}
        for path in folder.glob("*.h5"):
            if path.name not in wanted:
                path.unlink()
        for name, values in wanted.items():
            put(folder / name, {"x": values.astype("i8")})
        return
    path = folder / "a.h5"
    path.unlink(missing_ok=True)
    if kind == "match":
        put(path, {f"d{number}/x": rows(length, first) for number, length, first in sequences})
    else:
        # a row of one array is known by its number alone
        ends = np.cumsum([length for _, length, _ in sequences])
        put(path, {"x": rows(ends[-1]), "ends": ends})


@pytest.mark.parametrize("kind", ["file", "chain", "match", "ends"])
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    story=stories(),
    window=st.sampled_from(
        [WIDE, PADDED, Window((0, 1), stride=3), Window((0, 3), pad="zero", mask=True)]
    ),
    of=st.sampled_from([Watched, Watched, OneSide, OtherSide]),
)
def test_whatever_happens_to_sequences_is_told(tmp_path_factory, opened, kind, story, window, of):
    """Any changes one after the other, of an index or of one side of its split: no stale answer, and the truth about ids."""
    folder = tmp_path_factory.mktemp("story")
    tell(folder / "data", kind, story[0])
    key = "*/x" if kind == "match" else "x"
    options = {"key": key, "sequences": kind, "window": window}
    try:
        watch = of(folder / "data", folder / "cache", opened, **options)
    except ValueError:
        return  # no sample at first
    for sequences in story[1:]:
        tell(folder / "data", kind, sequences)
        if all(length <= window.span for _, length, _ in sequences):
            return  # an index from nothing would say that there is no sample
        watch.look()
    watch.dataset.close()
