"""Ways to the rows of one array: spans at once, gaps filled by the library, and rows that are checked."""

from __future__ import annotations

import numpy as np
import pytest
from files import numbers

from globidx.disk.reading.sources import FillingSource, LibrarySource, pick, spread
from globidx.errors import MissingChunkError, ReadError

DATA = numbers(12)
SPANS = [(0, 2, 0), (5, 6, 2), (3, 5, 3)]


class Rows:
    """A source of DATA; ``error`` is what it raises instead."""

    how = "from memory"

    def __init__(self, error=None):
        self.error = error

    def read(self, start, stop, out):
        if self.error is not None:
            raise self.error
        out[...] = DATA[start:stop]
        return stop - start


class Spans(Rows):
    """One that takes many spans at once."""

    def pick(self, spans, out):
        for start, stop, target in spans:
            super().read(start, stop, out[target : target + stop - start])
        return -1


def picked(source):
    """(what it took, the rows) of SPANS."""
    out = np.zeros((5, 3), DATA.dtype)
    return pick(source, SPANS, out), out.tolist()


class Scattering(Rows):
    """One that reads neighbours to places that are none."""

    def scatter(self, start, outs):
        for out in outs:
            self.read(start, start + len(out), out)
            start += len(out)
        return -2


def test_neighbours_are_read_by_one_call_and_laid_where_they_belong():
    """A library is called once for each stretch of the array; a source that can scatter makes no copy."""
    spans = [(0, 1, 4), (1, 3, 0), (3, 4, 2), (6, 7, 5), (8, 9, 3)]
    expected = DATA[[1, 2, 3, 8, 0, 6]].tolist()
    calls = []

    class Library(Rows):
        def read(self, start, stop, out):
            calls.append((start, stop))
            return super().read(start, stop, out)

    for source, nbytes in ((Library(), 6), (Scattering(), 0), (FillingSource(Rows(), Rows()), 6)):
        out = np.zeros((6, 3), DATA.dtype)
        assert spread(source, spans, out) == nbytes
        assert out.tolist() == expected
    assert calls == [(0, 4), (6, 7), (8, 9)]


def test_a_chunk_that_is_missing_among_neighbours_is_filled_alone():
    """Those beside it are there."""

    class Gap(Rows):
        def read(self, start, stop, out):
            if start <= 1 < stop:
                raise MissingChunkError("gone")
            return super().read(start, stop, out)

    asked = []

    class Library(Rows):
        def read(self, start, stop, out):
            asked.append((start, stop))
            return super().read(start, stop, out)

    out = np.zeros((3, 3), DATA.dtype)
    spread(FillingSource(Gap(), Library()), [(0, 1, 2), (1, 2, 0), (2, 3, 1)], out)
    assert out.tolist() == DATA[[1, 2, 0]].tolist() and asked == [(1, 2)]


def test_spans_are_read_one_by_one_where_a_source_has_no_better_way():
    """The same rows either way; the bytes add up."""
    expected = DATA[[0, 1, 5, 3, 4]].tolist()
    assert picked(Rows()) == (5, expected)
    assert picked(Spans()) == (-1, expected)


@pytest.mark.parametrize("read", [lambda s: s.read(0, 5, np.zeros((5, 3), "u2")), picked])
@pytest.mark.parametrize("kind", [Rows, Spans])
def test_only_missing_chunks_are_left_to_the_library_to_fill_in(kind, read):
    """Damage stays an error: the library might read it as something."""
    read(FillingSource(kind(MissingChunkError("gone")), Rows()))
    for error in (ReadError("cut"), OSError("EIO"), ValueError("a bad checksum")):
        with pytest.raises(type(error), match=str(error)):
            read(FillingSource(kind(error), Rows()))


def test_a_library_that_gives_other_rows_than_were_asked_for_is_refused():
    """By the array, both shapes and the rows: numpy would broadcast one row over all."""

    class Short:
        def read(self, array, start, stop, *, axis, place, fill):
            return DATA[start : start + 1]

    with pytest.raises(ReadError, match=r"array 'x' gave \(1, 3\) for rows \[2, 4\), not \(2, 3\)"):
        LibrarySource(Short, "x").read(2, 4, np.zeros((2, 3), "u2"))
