"""Whether a loop still works on the batch that it was given last: as the interpreter's state shows."""

import itertools
import threading

import pytest
from loops import done, made


class Halt(Exception):
    """Raised by a training step."""


def train_bare(loader, stop):
    for number, _ in enumerate(loader):
        if number == stop:
            raise Halt


def train_from_a_variable(loader, stop):
    stream = enumerate(loader)
    for number, _ in stream:
        if number == stop:
            raise Halt


def train_by_next(loader, stop):
    stream = iter(loader)
    for number in range(stop + 1):
        next(stream)
        if number == stop:
            raise Halt


@pytest.mark.parametrize("train", [train_bare, train_from_a_variable, train_by_next])
@pytest.mark.parametrize("stop", [0, 4, 9, 10])
def test_a_batch_that_failed_is_not_counted_in_the_handler(train, stop):
    """Whatever keeps the loop's iterator alive: a variable of the failed frame, or the traceback."""
    sampler, loader = made()
    try:
        train(loader, stop)
    except Halt:
        assert done(sampler) == (0, 4 * stop)
        sampler._ledger.settle()
        assert done(sampler) == (0, 4 * stop)
        assert next(iter(loader)).tolist()[0] == 4 * stop


@pytest.mark.parametrize("train", [train_bare, train_from_a_variable, train_by_next])
@pytest.mark.parametrize("come_back", ["iter", "set_epoch"])
def test_a_last_batch_that_failed_is_given_again_by_a_retry_in_the_handler(train, come_back):
    """Nothing comes behind it, and the error still says that it was not trained on."""
    sampler, loader = made()
    try:
        train(loader, 10)
    except Halt:
        if come_back == "set_epoch":
            sampler.set_epoch(0)
        assert [batch.tolist() for batch in loader] == [[40]]
    assert done(sampler) == (1, 0)


@pytest.mark.parametrize("train", [train_bare, train_from_a_variable])
def test_a_batch_that_failed_is_not_counted_while_its_error_is_kept(train):
    """An error in a variable keeps the frames of its traceback, and so the iterator."""
    sampler, loader = made()
    with pytest.raises(Halt) as kept:
        train(loader, 9)
    sampler._ledger.settle()
    assert done(sampler) == (0, 36)
    assert kept.value.__traceback__ is not None


def test_after_a_break_the_life_of_a_variable_does_not_count():
    """A bare loop and one over a variable that lives on are left alike."""
    for stream_of in (
        iter,
        enumerate,
        lambda loader: itertools.islice(loader, 20),
        lambda loader: zip(range(99), loader, strict=False),
    ):
        sampler, loader = made()
        stream = stream_of(loader)
        for number, _ in enumerate(stream):
            if number == 5:
                break
        assert done(sampler) == (0, 20)
        sampler._ledger.settle()
        assert done(sampler) == (0, 20)


def test_a_loop_in_an_exception_handler_counts():
    """The error that is being handled was there before the batch."""
    sampler, loader = made()
    try:
        raise Halt
    except Halt:
        for number, _ in enumerate(loader):
            assert done(sampler) == (0, 4 * number + 4)
            if number == 4:
                break
    assert done(sampler) == (0, 16)


def test_a_save_from_another_thread_counts_what_the_loop_holds():
    """The loop's frame is on another thread's stack."""
    sampler, loader = made()
    for number, _ in enumerate(loader):
        saver = threading.Thread(target=sampler._ledger.settle)
        saver.start()
        saver.join()
        assert sampler.state_dict()["open"]["count"] == 4 * number + 4
        if number == 4:
            break


def test_an_error_that_another_thread_handles_says_nothing_of_the_loop():
    """A save that is tried again in its thread's exception handler counts what the loop holds."""
    sampler, loader = made()

    def save_again():
        try:
            raise Halt
        except Halt:
            sampler._ledger.settle()

    for number, _ in enumerate(loader):
        saver = threading.Thread(target=save_again)
        saver.start()
        saver.join()
        assert sampler.state_dict()["open"]["count"] == 4 * number + 4
        if number == 4:
            break
    sampler.load_state_dict(sampler.state_dict())
    assert next(iter(loader)).tolist()[0] == 20
