"""Forks of the process of the tests, by another thread: whether one is under way, or done."""

from __future__ import annotations

import os
import threading


class Fork:
    """What a fork of this process that another thread makes has come to."""

    begun, done = threading.Event(), threading.Event()

    @classmethod
    def watch(cls):
        """Look at the next forks."""
        cls.begun.clear()
        cls.done.clear()


# the last one that is registered is the first to run
os.register_at_fork(before=lambda: Fork.begun.set(), after_in_parent=lambda: Fork.done.set())
