"""How constants are spelled."""

import pytest

from globidx.core.index.constants import Constant, parse_constants
from globidx.core.index.layout import in_sequences, parse

SPELLINGS = {
    "dimensions/x": Constant("c", "dimensions/x"),
    "/dimensions//x/": Constant("c", "dimensions/x"),
    "@title": Constant("c", "", "title"),
    "/@title": Constant("c", "", "title"),
    "group@title": Constant("c", "group", "title"),
    "group@who@where": Constant("c", "group", "who@where"),
    "labels[*]": Constant("c", "labels", None, True),
    "data/*@say": Constant("c", "data/*", "say"),
    "data/*/goal": Constant("c", "data/*/goal"),
    "**/goal": Constant("c", "**/goal"),
}


@pytest.mark.parametrize(("spelled", "expected"), SPELLINGS.items())
def test_a_constant_is_a_path_an_attribute_or_an_entry(spelled, expected):
    """Slashes at the ends mean nothing, the first @ begins an attribute, and what is printed means the same."""
    one = Constant.parse("c", spelled)
    assert one == expected
    assert Constant.parse("c", str(one)) == one
    assert one.is_of_match == ("*" in one.path)


@pytest.mark.parametrize("spelled", ["", "/", "@", "x@", "x[*]@u", "[*]", "/[*]"])
def test_what_names_nothing_is_refused(spelled):
    """With all spellings that there are."""
    with pytest.raises(
        ValueError, match=r"must be 'path', 'path@attribute', '@attribute' or 'path\[\*\]'"
    ):
        Constant.parse("c", spelled)


@pytest.mark.parametrize(
    ("key", "name", "path"),
    [
        ("data/*/x", "demo_3", "data/demo_3/goal"),
        ("data/demo_*/x", "demo_3", "data/demo_3/goal"),
        ("**/x", "a/b", "a/b/goal"),
        ("**/x", "", "goal"),
        ("*/runs/*/x", "a/7", "a/runs/7/goal"),
    ],
)
def test_a_constant_lies_beside_what_matches(key, name, path):
    """The name of a match tells where its constants are."""
    layout = in_sequences(parse(None, key), "match")
    (one,) = parse_constants({"c": key.removesuffix("x") + "goal"}, layout)
    assert one.path_in(name) == path
    assert Constant("c", "grid").path_in(name) == "grid"


@pytest.mark.parametrize(
    ("sequences", "constants", "message"),
    [
        ("match", {"c": "data/demo_*/goal"}, "the keys match"),
        ("match", {"c": "**/goal"}, "the keys match"),
        ("match", {"c": "data/*/labels[*]"}, "takes one array of the file"),
        ("file", {"c": "data/*/goal"}, "goes with sequences='match'"),
        ("file", {"c": "labels[*]"}, "for each sequence inside a file"),
        ("ends", {"c": "data/*/goal"}, "goes with sequences='match'"),
        ("match", {"c": "x", "c/d": "y"}, "'c' and 'c/d', which lies inside it"),
        ("match", {"c": 3}, "dict of names to paths"),
        ("match", {3: "c"}, "dict of names to paths"),
        ("match", "c", "dict of names to paths"),
    ],
)
def test_constants_that_go_with_no_sequence_are_refused(sequences, constants, message):
    """Before any file is opened."""
    key = "data/*/x" if sequences == "match" else "x"
    layout = in_sequences(parse(None, key), sequences)
    with pytest.raises((TypeError, ValueError), match=message):
        parse_constants(constants, layout)
