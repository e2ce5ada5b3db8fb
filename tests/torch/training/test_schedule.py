"""When a save is due: multiples of steps, and minutes by a clock that is given."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.torch.training.schedule import SaveSchedule


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@settings(max_examples=50)
@given(every=st.integers(1, 9), legs=st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_a_resumed_run_saves_at_the_steps_of_one_that_was_never_stopped(every, legs):
    """The stop itself is saved, too, wherever it falls; the oracle is the list of multiples."""
    step, saved = 0, []
    for leg in legs:
        schedule = SaveSchedule(every, None, Clock())
        schedule.saved(step)
        for at in range(step + 1, step + leg + 1):
            if schedule.is_due_by_steps(at):
                saved.append(at)
                schedule.saved(at)
        step += leg
    assert saved == [at for at in range(1, step + 1) if at % every == 0]


def test_a_save_that_was_put_off_is_made_up_for_once():
    """At the last batch of an epoch nothing is saved before the loop comes back."""
    schedule = SaveSchedule(10, None, Clock())
    assert [step for step in range(1, 14) if schedule.is_due_by_steps(step)] == [10, 11, 12, 13]
    schedule.saved(13)
    assert not any(schedule.is_due_by_steps(step) for step in range(13, 20))
    assert schedule.is_due_by_steps(20)


def test_minutes_count_from_the_last_save_whatever_made_it():
    """By the clock that was given; half a minute is half a minute."""
    clock = Clock()
    schedule = SaveSchedule(None, 0.5, clock)
    due = []
    for second in range(0, 121, 10):
        clock.now = float(second)
        if schedule.is_due_by_time():
            due.append(second)
            schedule.saved(step=second)
    assert due == [30, 60, 90, 120]
    assert not schedule.is_due_by_steps(10**6)


@pytest.mark.parametrize(
    ("every", "minutes", "by_epochs", "by_time"),
    [
        (None, None, True, False),
        (5, None, False, False),
        (None, 2, False, True),
        (5, 2, False, True),
    ],
)
def test_without_steps_and_minutes_epochs_are_the_time(every, minutes, by_epochs, by_time):
    """Whoever chose one of the two is not saved at each epoch as well."""
    schedule = SaveSchedule(every, minutes, Clock())
    assert (schedule.by_epochs, schedule.by_time) == (by_epochs, by_time)


@pytest.mark.parametrize(
    ("every", "minutes", "said"),
    [
        (0, None, "save_every must be in [1, "),
        (1.5, None, "save_every must be an integer"),
        (None, 0, "save_minutes must be a positive number of minutes, got 0"),
        (None, float("nan"), "save_minutes must be a positive number of minutes, got nan"),
        (None, "5", "save_minutes must be a positive number of minutes, got '5'"),
        (None, True, "save_minutes must be a positive number of minutes, got True"),
    ],
)
def test_other_values_are_refused(every, minutes, said):
    """Zero would be always, and nan never."""
    with pytest.raises((TypeError, ValueError)) as error:
        SaveSchedule(every, minutes, Clock())
    assert said in str(error.value)
