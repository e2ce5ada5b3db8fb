"""Families of files: the fields that a listing of a file's arrays gives."""

import pytest

from globidx.core.index.families import FAMILIES, Family
from globidx.core.index.patterns import Pattern, matches, natural


def listing(*paths):
    """A function that lists those of ``paths`` that match a pattern, as a file with these arrays would."""

    def groups(path):
        above = f"{path}/" if path else ""
        return {one[len(above) :].split("/")[0] for one in paths if one.startswith(above)}

    def arrays(pattern):
        like = Pattern(pattern)
        names = sorted(set(matches(like, groups)), key=natural) if like.stars else [""]
        return [path for path in map(like.path, names) if path in paths]

    return arrays


def test_fields_are_named_by_what_lies_below_a_match():
    """Of the first match in natural order; what only later ones have is no field."""
    arrays = listing("data/demo_10/extra", "data/demo_2/obs/pos", "data/demo_2/actions", "other")
    family = Family("match", ("obs/*", "actions", "extra"), match="data/*")
    assert family.keys(arrays) == {"obs/pos": "data/*/obs/pos", "actions": "data/*/actions"}


def test_fields_of_a_file_leave_out_the_folder_above():
    """Where the family names one; else the path is the name."""
    arrays = listing("data/img", "data/action", "meta/episode_ends")
    assert Family("ends", ("data/*",), above="data").keys(arrays) == {
        "action": "data/action",
        "img": "data/img",
    }
    assert Family("file", ("data/*",)).keys(arrays) == {
        "data/action": "data/action",
        "data/img": "data/img",
    }


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_file_of_another_kind_is_refused_with_what_was_looked_for(name):
    """Every pattern of the family, and below what."""
    with pytest.raises(ValueError, match="its arrays are not those of this layout") as error:
        FAMILIES[name].keys(listing("x", "y/z"))
    assert all(pattern in str(error.value) for pattern in FAMILIES[name].arrays)
