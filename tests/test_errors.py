"""Every error that is raised on purpose is one of ours, takes one sentence, and survives the way out of a process."""

import copy
import inspect
import pickle

import pytest

from globidx import errors

KINDS = [
    kind
    for kind in vars(errors).values()
    if inspect.isclass(kind) and issubclass(kind, Exception) and kind.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_survives_a_worker_with_all_that_it_carries(kind):
    """Pickled or copied: class, sentence, attributes and notes."""
    error = kind("what, which value, which rule, what to do")
    for name in ("field", "state", "ranks", "failures"):
        if hasattr(error, name):
            setattr(error, name, ("kept",))
    error.add_note("first raised here")
    for made in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(made) is kind
        assert str(made) == str(error)
        assert vars(made) == vars(error)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_is_caught_as_ours(kind):
    """``except globidx.errors.GlobidxError`` is enough, and each has a word of explanation."""
    assert issubclass(kind, errors.GlobidxError)
    assert inspect.getdoc(kind)


@pytest.mark.parametrize(
    ("kind", "built_in"),
    [
        ("BadFilesError", ValueError),
        ("NoFilesError", FileNotFoundError),
        ("ReadError", OSError),
        ("RecordError", ValueError),
    ],
)
def test_errors_are_also_what_readers_expect(kind, built_in):
    """Code that knows nothing of globidx catches the built-in ones."""
    assert issubclass(getattr(errors, kind), built_in)
