"""How users name fields, and how a collate function is written."""

import pytest
import torch

from globidx import collate


@pytest.mark.parametrize(
    ("made", "written"),
    [
        (lambda: collate.pad(), "pad()"),
        (lambda: collate.pad("x"), "pad('x')"),
        (lambda: collate.pad(name for name in ("x", "y")), "pad(['x', 'y'])"),
        (lambda: collate.pad("x", value=-1, mask="m"), "pad('x', value=-1, mask='m')"),
        (lambda: collate.pad(axis=(0, 1)), "pad(axis=(0, 1))"),
        (lambda: collate.concat("x") | collate.nested(), "concat('x') | nested()"),
        (
            lambda: collate.concat(offsets="ptr") | collate.sparse("y"),
            "concat(offsets='ptr') | sparse('y')",
        ),
    ],
)
def test_it_is_written_as_the_call_that_made_it(made, written):
    """Defaults left out; what is written makes the same again."""
    assert repr(made()) == written
    assert repr(eval(written, vars(collate))) == written


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ([], ValueError),
        ("", ValueError),
        (["x", "x"], ValueError),
        (3, TypeError),
        ([3], TypeError),
    ],
)
def test_fields_are_names(fields, error):
    """At least one, each once."""
    with pytest.raises(error, match="fields must"):
        collate.nested(fields)


def test_each_field_is_collated_by_its_rule():
    """One rule for several fields, another for one, and the rest by the one that names none."""
    samples = [{"a": torch.ones(n), "b": torch.ones(n), "c": torch.ones(n), "d": n} for n in (1, 2)]
    batch = (collate.pad(["a", "b"]) | collate.concat())(samples)
    assert batch["a"].shape == batch["b"].shape == (2, 2) and batch["c"].shape == (3,)
    assert batch["mask"].keys() == {"a", "b"} and batch["offsets"].keys() == {"c"}


def test_two_rules_for_one_field_are_refused():
    """Named twice, or not named twice."""
    with pytest.raises(ValueError, match=r"both pad\('a'\) and nested\('a'\) are for field 'a'"):
        collate.pad("a") | collate.nested("a")
    with pytest.raises(ValueError, match=r"both pad\(\) and nested\(\) are for all other fields"):
        collate.pad() | collate.nested()
    with pytest.raises(TypeError):
        collate.pad() | len
