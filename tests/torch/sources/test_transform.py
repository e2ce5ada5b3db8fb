"""The transform of a dataset: what it is given, and whom its errors name."""

import pytest

from globidx import sample_rng
from globidx.core.generator import Moment
from globidx.torch.sources.transform import asks_for_rng, transformed


def test_a_transform_is_given_the_generator_of_its_sample():
    """The one that is made by hand."""
    drawn = transformed(
        5, 41, Moment(7, 2), lambda sample, rng: sample + rng.random(), with_rng=True
    )
    assert drawn == 5 + sample_rng(7, 2, 41).random()


def test_what_is_no_function_is_refused_and_none_is_none():
    """And only a function of two arguments asks for a generator."""
    with pytest.raises(TypeError, match="transform must be callable, got 3"):
        asks_for_rng(3)
    assert not asks_for_rng(None) and not asks_for_rng(len)
    assert asks_for_rng(lambda sample, rng: sample)


def test_an_error_names_the_sample():
    """The traceback says what failed, but not with which sample."""
    with pytest.raises(ZeroDivisionError) as failed:
        transformed(0, 41, Moment(0, 0), lambda sample: 1 / sample, with_rng=False)
    assert failed.value.__notes__ == ["raised by transform, for sample id 41"]
