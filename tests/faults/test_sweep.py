"""No fault at any file operation breaks a promise, and every planted mistake makes one break."""

from __future__ import annotations

import mutants
import pytest
import sweep
from zygote import build_shim

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    """The shim, built, and a process that has it loaded."""
    shim = build_shim(tmp_path_factory.mktemp("shim"))
    if shim is None:
        pytest.skip("needs Linux and gcc")
    harness = sweep.Harness(shim)
    yield harness
    harness.close()


@pytest.mark.parametrize("check", sweep.CHECKS)
def test_no_fault_breaks_a_promise(harness, check):
    """Killed, torn, failed or cut off at any file operation: old or new, told as it is, and the next start works."""
    tally = sweep.CHECKS[check](harness)
    sweep.TALLIES.append(tally)
    assert tally.injected > 0 and tally.violations == []


@pytest.mark.parametrize(("mutant", "check"), [(mutant.__name__, check) for mutant, check in mutants.FOUND_BY.items()])
def test_a_planted_mistake_is_found(harness, mutant, check):
    """With one safeguard taken out, the same check reports a violation: it would not pass by itself."""
    assert sweep.CHECKS[check](harness, mutant).violations
