"""Sequences are runs of rows: by lengths, ends, runs and chains, as lists of rows say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.index.patterns import natural
from globidx.core.windows.sequences import Sequences, chain_files, sides


def listed(sequences):
    """All rows of each sequence."""
    return [
        [int(row) for row in sequences.rows(np.full(length, number), np.arange(length))]
        for number, length in enumerate(sequences.lengths.tolist())
    ]


@given(lengths=st.lists(st.integers(0, 9), max_size=9))
def test_lengths_ends_and_runs_say_the_same(lengths):
    """Rows run on from one sequence to the next."""
    rows = iter(range(sum(lengths)))
    expected = [[next(rows) for _ in range(length)] for length in lengths]
    ends = np.cumsum(lengths, dtype=np.int64)
    assert listed(Sequences.of_lengths(lengths)) == expected
    assert listed(Sequences.of_ends(ends, sum(lengths))) == expected
    assert listed(Sequences.of_runs(ends - lengths, lengths, sum(lengths))) == expected


@given(files=st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abc")), max_size=9))
def test_a_chain_is_its_files_one_after_the_other(files):
    """Whatever files of other chains lie between them."""
    lengths, chains = (list(column) for column in zip(*files, strict=True)) if files else ([], [])
    order, sequences = chain_files(np.array(lengths, np.int64), chains)
    rows = [(file, row) for file in order for row in range(lengths[file])]
    expected = [
        [
            (file, row)
            for file, name in enumerate(chains)
            if name == chain
            for row in range(lengths[file])
        ]
        for chain in dict.fromkeys(chains)
    ]
    assert [[rows[row] for row in some] for some in listed(sequences)] == expected


@given(names=st.lists(st.text("ab01_", max_size=6), unique=True))
def test_natural_order_is_total_and_by_value(names):
    """Numbers are compared as numbers, and no two names are equal."""
    once = sorted(names, key=natural)
    backwards = names[::-1]
    backwards.sort(key=natural)
    assert once == backwards
    assert [int(name[1:]) for name in sorted((f"x{n}" for n in range(120)), key=natural)] == list(
        range(120)
    )


@given(
    names=st.lists(st.text(max_size=5), unique=True, max_size=20),
    seed=st.integers(0, 2**63 - 1),
    data=st.data(),
)
def test_a_sequence_stays_on_its_side(names, seed, data):
    """When others come, go or change places; a larger share only adds."""
    some = data.draw(st.permutations(names)).copy()[: len(names) // 2 + 1]
    side = dict(zip(names, sides(names, 0.4, seed).tolist(), strict=True))
    assert sides(some, 0.4, seed).tolist() == [side[name] for name in some]
    assert not (sides(names, 0.4, seed) & ~sides(names, 0.6, seed)).any()
    assert sides(names, 1.0, seed).all()
    assert not sides(names, 0.0, seed).any()


def test_shares_are_those_asked_for():
    """Of 20,000 names, within five standard deviations."""
    names = [f"demo_{number}" for number in range(20_000)]
    for fraction in (0.1, 0.5, 0.9):
        assert (
            abs(sides(names, fraction).mean() - fraction)
            < 5 * (fraction * (1 - fraction) / len(names)) ** 0.5
        )
    assert (sides(names, 0.5, 1) != sides(names, 0.5, 2)).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sequences.of_lengths([2, -1]), "length -1 is negative"),
        (lambda: Sequences.of_ends([3, 2]), "must ascend"),
        (lambda: Sequences.of_ends([-1]), "must ascend"),
        (lambda: Sequences.of_ends([3, 8], 7), "ends at row 8, but there are 7 rows"),
        (lambda: Sequences.of_ends([[3]]), "one-dimensional"),
        (lambda: Sequences.of_ends([0.5]), "integers"),
        (lambda: Sequences.of_runs([0], [1, 2]), "1 starts and 2 lengths"),
        (lambda: Sequences.of_runs([-1], [1]), "start -1 is negative"),
        (lambda: Sequences.of_runs([0, 5], [1, 3], 7), "starts at row 5 ends beyond the 7 rows"),
        (lambda: Sequences.of_runs([2**62 + 5], [3], 7), "beyond any file"),
        (lambda: sides(["a"], 1.5), r"fraction must be in \[0, 1\]"),
    ],
)
def test_what_is_wrong_is_said(make, message):
    """Which value, which sequence, which rule."""
    with pytest.raises(ValueError, match=message):
        make()
