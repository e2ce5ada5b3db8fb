"""Layouts by name: which arrays they mean, and what they refuse."""

import pytest

from globidx.core.index.layout import Layout, parse


@pytest.mark.parametrize(
    ("layout", "key", "expected"),
    [
        (None, None, Layout()),
        ("auto", None, Layout()),
        ("auto", "x", Layout(("x",))),
        (None, ["x", "/g/y/"], Layout(("x", "g/y"))),
        (None, "g//y", Layout(("g/y",))),
        ("cxi", None, Layout(("entry_1/data_1/data",))),
        ("peaknet", None, Layout(("images", "labels"))),
        ("nexus", None, Layout(rule="nexus")),
        ("ome", None, Layout(rule="ome")),
        ("anndata", None, Layout(("X",), rule="anndata")),
        ("anndata", "layers/counts", Layout(("layers/counts",), rule="anndata")),
        ("tokens:1", None, Layout(length=1)),
        ("tokens:2048", "text", Layout(("text",), length=2048)),
    ],
)
def test_a_name_means_its_arrays(layout, key, expected):
    """Every layout there is, with and without a key."""
    assert parse(layout, key) == expected


@pytest.mark.parametrize("layout", ["cxi", "peaknet", "nexus", "ome"])
def test_a_layout_that_knows_its_arrays_takes_no_key(layout):
    """One of both would be ignored."""
    with pytest.raises(ValueError, match=f"layout '{layout}' has its own arrays.*key='x'"):
        parse(layout, "x")


@pytest.mark.parametrize(
    "layout",
    ["", "CXI", "token", "tokens", "tokens:", "tokens:0", "tokens:-1", "tokens:1.5", "tokens:x"],
)
@pytest.mark.parametrize("more", ["", "0" * 30 + "0", "٣"])
def test_a_name_there_is_not_is_refused(layout, more):
    """With the name, and what there is or how it is written."""
    with pytest.raises(ValueError, match="layout"):
        parse(layout + more if more and "tokens:" in layout else layout, None)


@pytest.mark.parametrize("layout", [5, ["cxi"], True, b"cxi", ("tokens", 4)])
def test_what_is_no_name_is_refused(layout):
    """A layout is a word."""
    with pytest.raises(ValueError, match="layout must be one of"):
        parse(layout, None)


def test_a_length_beyond_int64_is_refused():
    """It would overflow where it is counted with."""
    assert parse(f"tokens:{2**63 - 1}", None).length == 2**63 - 1
    for length in (2**63, 10**30):
        with pytest.raises(ValueError, match="layout"):
            parse(f"tokens:{length}", None)


def test_tokens_are_cut_from_one_array():
    """Sequences of two arrays would be of two lengths."""
    with pytest.raises(ValueError, match="cuts one array, but key names 2"):
        parse("tokens:4", ["x", "y"])


@pytest.mark.parametrize("key", ["..", "../x", "x/..", "x/../y", ".", "./x", "x/."])
def test_a_key_stays_inside_its_file(key):
    """A zarr store is a folder: ``..`` would leave it."""
    with pytest.raises(ValueError, match="key must name an array inside the file"):
        parse(None, key)


@pytest.mark.parametrize("key", [["x", "x"], ["x", "/x"], ["g/x", "g//x"]])
def test_a_key_given_twice_is_refused(key):
    """However it is spelled."""
    with pytest.raises(ValueError, match="twice"):
        parse(None, key)


@pytest.mark.parametrize(
    ("layout", "key"), [("tokens:4", None), ("anndata", None), ("anndata", "X")]
)
def test_layouts_of_rows_have_no_other_axis(layout, key):
    """ValueError names layout and axis; along the first they are themselves."""
    parsed = parse(layout, key)
    assert parsed.along(0) == (parsed, 0)
    with pytest.raises(ValueError, match=f"layout '{layout}' has its items along axis 0, not 1"):
        parsed.along(1)
    assert parse("cxi", None).along(2) == (parse("cxi", None), 2)
