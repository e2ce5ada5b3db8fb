"""The line on a terminal: what it says, when, and where it is silent."""

import io

import pytest

from globidx.torch.training.status_line import StatusLine, described


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def shown(stream):
    """What is on the screen after each writing, blanks at the end included."""
    return stream.getvalue().split("\r")[1:]


def test_a_file_gets_nothing():
    """Logs of a cluster hold no bars."""
    stream = io.StringIO()
    line = StatusLine(stream, Clock())
    line.show(0, 1, 1, 10)
    line.close()
    assert stream.getvalue() == ""


def test_rate_and_time_left_are_those_since_the_first_step_was_seen():
    """4 steps a second from step 101 on; what came before a resume, or a slow first batch, is no part of it."""
    stream, clock = Terminal(), Clock()
    line = StatusLine(stream, clock)
    for step in range(101, 110):
        line.show(1, 2, step, 1000)
        clock.now += 0.25
    first, *_, last = shown(stream)
    assert "steps/s" not in first
    assert "step 109/1000  4.0 steps/s  ETA 0:03:43" in last  # 891 steps are left: 222.75 s


def test_it_is_written_a_few_times_a_second_and_at_the_end():
    """A terminal is slow, a loop is not."""
    stream, clock = Terminal(), Clock()
    line = StatusLine(stream, clock)
    for step in range(1, 1001):
        line.show(0, 1, step, 1000)
        clock.now += 0.001
    assert 4 <= len(shown(stream)) <= 7
    assert "step 1000/1000" in shown(stream)[-1]


def test_a_shorter_line_leaves_nothing_of_a_longer_one():
    """Blanks over it; and a line that was begun is ended, once."""
    stream, clock = Terminal(), Clock()
    line = StatusLine(stream, clock)
    line.show(0, 1, 1, 10**6)
    clock.now += 10
    line.show(0, 1, 2, 10**6)
    clock.now += 10
    line.show(0, 1, 10**6, 10**6)
    *_, long, short = shown(stream)
    assert len(short) >= len(long) and "ETA 0:00:00" in short
    line.close()
    line.close()
    assert stream.getvalue().endswith("\n") and stream.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("rate", "said"), [(2.0, "2.0 steps/s  ETA 0:00:05"), (0.5, "2.0 s/step  ETA 0:00:20")]
)
def test_slow_steps_are_told_in_seconds_a_step(rate, said):
    """0.0 steps a second would say nothing."""
    assert described(0, 1, 10, 20, rate).endswith(said)
