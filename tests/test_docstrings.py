"""Docstrings of public names have the sections that a reader of the API reference looks for."""

import docstrings
import pytest

import globidx

PUBLIC = list(docstrings.public_definitions(globidx))


@pytest.mark.parametrize("definition", PUBLIC, ids=[definition.name for definition in PUBLIC])
def test_public_names_have_complete_docstrings(definition):
    """Parameters, Returns, Raises and Examples, where ``tools/docstrings.py`` says that they are needed."""
    assert docstrings.problems(definition) == []


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("Adds.", "no Parameters"),
        ("Adds.\n\nParameters\n----------\nx : int\n    One.\n", "no Returns"),
        (
            "Adds.\n\nParameters\n----------\nx, y : int\n    Both.\n",
            "Parameters has y, which is none",
        ),
        ("Adds.\n\nReturns\n-------\nint\n    The sum.\n", "no Raises"),
        ("Adds.\n\nRaises\n------\nKeyError\n    Never.\n", "Raises lacks ValueError"),
        ("Adds", "summary is not one line with a full stop"),
        ("Adds.\n\nExamples\n--------\n>>> 1  # doctest: +SKIP\n", "no Examples that run"),
    ],
)
def test_what_a_docstring_lacks_is_named(body, problem):
    """Each rule of the checker, broken by one docstring."""

    def function(x: int) -> int:
        if x:
            raise ValueError(x)
        return x

    function.__doc__ = body
    assert problem in docstrings.problems(
        docstrings.Definition("function", function, [body], False)
    )


def test_a_section_of_the_overridden_method_counts():
    """What a base class documents need not be repeated, but its own summary a method always has."""

    class Base:
        def take(self, start: int) -> int:
            return start

    whole = "Takes.\n\nParameters\n----------\nstart : int\n    First.\n\nReturns\n-------\nint\n    It.\n"
    assert (
        docstrings.problems(docstrings.Definition("take", Base.take, ["Takes it.", whole], True))
        == []
    )
    assert docstrings.problems(docstrings.Definition("take", Base.take, ["", "Takes."], True))
