"""Keys that match, against all ways to lay a pattern over all paths of a tree."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from globidx.core.index.patterns import (
    Pattern,
    expanded,
    has_stars,
    matches,
    natural,
    require_alike,
)

names = st.sampled_from(["a", "ab", "demo_1", "d+"])
level = st.dictionaries(names, st.just({}), min_size=1)
trees = st.dictionaries(names, st.dictionaries(names, level, min_size=1), min_size=1)
parts = st.sampled_from(["*", "a", "a*", "*b", "d*_*", "d*"])


def paths_of(tree, above=""):
    """The path of every group, the root first."""
    yield above
    for name, below in tree.items():
        yield from paths_of(below, f"{above}/{name}" if above else name)


def lister(tree):
    def groups(path):
        node = tree
        for part in path.split("/") if path else ():
            node = node.get(part)
            if node is None:
                return []
        return list(node)

    return groups


def splits(stem, path):
    """All ways to bind the parts with a star of a stem to the parts of a path, as names."""
    if not stem:
        return [[]] if not path else []
    part, rest = stem[0], stem[1:]
    if part == "**":
        return [
            path[:count] + more
            for count in range(len(path) + 1)
            for more in splits(rest, path[count:])
        ]
    if not path:
        return []
    if "*" not in part:
        return splits(rest, path[1:]) if part == path[0] else []
    fits = re.fullmatch("[^/]*".join(map(re.escape, part.split("*"))), path[0])
    return [[path[0], *more] for more in splits(rest, path[1:])] if fits else []


@given(
    tree=trees,
    before=st.lists(parts, max_size=2),
    deep=st.booleans(),
    after=st.lists(parts, max_size=2),
)
def test_matches_are_those_of_all_paths(tree, before, deep, after):
    """A name for each way to bind the stars; its path is where the group is, and the field comes behind."""
    stem = [*before, *(["**"] if deep else []), *after]
    while stem and "*" not in stem[-1]:
        stem.pop()
    if not stem:
        return
    pattern = Pattern("/".join([*stem, "obs", "x"]))
    assert pattern.stem == tuple(stem)
    assert (pattern.field, has_stars(pattern.key)) == ("obs/x", True)
    expected, there = {}, set(paths_of(tree))
    for path in there:
        for bound in splits(stem, path.split("/") if path else []):
            expected.setdefault("/".join(bound), set()).add(path)
    found = set(matches(pattern, lister(tree)))
    # behind a part without a star nobody looked whether there is a group
    assert expected.keys() <= found
    assert not there & {pattern.path(name)[: -len("/obs/x")] for name in found - expected.keys()}
    for name, paths in expected.items():
        # the name alone tells the path
        assert paths == {pattern.path(name).removesuffix("obs/x").strip("/")}


@given(texts=st.lists(st.text("a029", max_size=4), max_size=8))
@example(texts=["a10", "a9", "a2", "a02", "a"])
def test_numbers_are_ordered_by_value(texts):
    """As if every number were written with as many digits; equal numbers written differently still have one order."""

    def padded(text):
        return re.sub(r"\d+", lambda digits: digits[0].zfill(9), text)

    found = sorted(texts, key=natural)
    assert found == sorted(found, key=lambda text: (natural(text), text))
    assert sorted(set(texts), key=natural) == sorted(set(texts), key=lambda text: natural(text))
    digits_last = [text for text in texts if re.fullmatch(r"a*\d*", text)]
    for one in digits_last:
        for other in digits_last:
            heads = one.rstrip("029"), other.rstrip("029")
            if heads[0] == heads[1] and padded(one) < padded(other):
                assert natural(one) < natural(other)


@pytest.mark.parametrize(
    ("key", "keys"),
    [
        ("a/b", ["a/b"]),
        ("a/{b,c}", ["a/b", "a/c"]),
        ("{a,b}/{c,d}", ["a/c", "a/d", "b/c", "b/d"]),
        ("a/{b,c/{d,e}}/x", ["a/b/x", "a/c/d/x", "a/c/e/x"]),
        ("{a}", ["a"]),
        ("{a,}b", ["ab", "b"]),
        ("{a,a}", ["a"]),
        ("a{b", ["a{b"]),
        ("a}b", ["a}b"]),
        ("{}", [""]),
    ],
)
def test_braces_stand_for_each_of_their_parts(key, keys):
    """Nested ones too; a brace that is not closed is text."""
    assert expanded(key) == keys


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["data/*/x", "*/x"], None),
        (["data/*/x", "data/demo_*/y"], "match different groups"),
        (["*/*/x", "*/x"], "match different groups"),
        (["**/x/**/y"], r"\*\* twice"),
        (["a**/x"], r"\*\* beside other text"),
        (["***/x"], r"\*\* beside other text"),
        (["**/demo_*/x", "obs/**/demo_*/y"], None),
    ],
)
def test_keys_must_match_alike(keys, message):
    """One name must tell the paths of all keys."""
    if message is None:
        require_alike(keys)
        return
    with pytest.raises(ValueError, match=message):
        require_alike(keys)
