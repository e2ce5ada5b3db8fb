"""Claims: what several threads want is made by one of them."""

import os
import signal
import threading

import pytest
from threads import in_threads

from globidx.disk.files.claims import Claims


def test_one_thread_at_a_time_makes_a_thing_and_all_get_it():
    """Eight threads over five keys that are made once and kept: none is made twice, and none waits for ever."""
    claims, kept, made = Claims(), {}, []

    def work(number):
        for turn in range(200):
            key = (turn + number) % 5, turn // 5
            while key not in kept:
                with claims.taken(key) as is_mine:
                    if is_mine and key not in kept:
                        made.append(key)
                        kept[key] = True
                if not is_mine:
                    claims.wait(key)

    in_threads(8, work)
    assert sorted(made) == sorted({(key, turn) for key in range(5) for turn in range(40)})


def test_who_fails_lets_the_next_one_try():
    """The claim ends with the block, whatever ended it; those that waited go on."""
    claims, seen = Claims(), []
    with pytest.raises(KeyError), claims.taken("a") as first:
        assert first
        waiter = threading.Thread(target=lambda: (claims.wait("a"), seen.append("went on")))
        waiter.start()
        raise KeyError
    waiter.join(60)
    assert seen == ["went on"]
    with claims.taken("a") as again:
        assert again


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_no_claims_of_threads_that_it_has_not():
    """In the child the key is free at once; in the parent it stays taken."""
    claims = Claims()
    with claims.taken("a"):
        child = os.fork()
        if not child:
            signal.alarm(10)
            claims.wait("a")
            with claims.taken("a") as is_mine:
                os._exit(0 if is_mine else 1)
        assert os.waitpid(child, 0)[1] == 0
        with claims.taken("a") as is_mine:
            assert not is_mine
