"""Checks of a training loop's data: each sample once, on any ranks, and across resumes.

``assert_exact_epoch`` and ``assert_resumes`` take a function that makes the loader of one rank.
All ranks are played in one process, one after the other, step by step; no process group is needed.
``globidx.testing.strategies`` has strategies for hypothesis, which it needs to be installed.
"""

from __future__ import annotations

from globidx.testing.exact import assert_exact_epoch
from globidx.testing.resumes import assert_resumes

__all__ = ["assert_exact_epoch", "assert_resumes"]
