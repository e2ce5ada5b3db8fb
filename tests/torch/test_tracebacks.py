"""An error that is kept keeps no frame alive, and still tells where it was raised."""

import gc
import weakref

from globidx.torch.tracebacks import without_frames


class Loop:
    """Something that a frame of the failed call holds."""


def failing(alive, *, chained):
    """Raise with a local variable in the frame; ``alive`` gets a weak reference to it."""
    loop = Loop()
    alive.append(weakref.ref(loop))
    try:
        raise KeyError("inner")
    except KeyError as error:
        if chained:
            raise ValueError("outer") from error
        raise


def kept(chained, **options):
    """(the kept error, references to what its frames held)."""
    alive = []
    try:
        failing(alive, chained=chained)
    except (KeyError, ValueError) as error:
        return without_frames(error, **options), alive


def test_what_the_frames_held_is_freed_at_once():
    """Of the error itself, and of its causes; without the garbage collector."""
    gc.disable()
    try:
        for chained in (False, True):
            error, (held,) = kept(chained)
            assert error.__traceback__ is None
            assert held() is None
    finally:
        gc.enable()


def test_a_note_says_where_it_was_raised():
    """With the cause's own lines."""
    error, _ = kept(True)
    (note,) = error.__notes__
    assert note.startswith("first raised here:\nTraceback")
    assert "KeyError: 'inner'" in note
    assert "direct cause" in note
    assert "in failing" in note


def test_the_note_can_be_left_out():
    """For who shows the error anyway; it is the same error."""
    error, _ = kept(False, noted=False)
    assert isinstance(error, KeyError)
    assert not hasattr(error, "__notes__")


def test_an_error_that_causes_itself_ends():
    """Chains may be circles."""
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert without_frames(one) is one
