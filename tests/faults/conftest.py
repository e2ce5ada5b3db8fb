"""How many faults were injected, at the end of the run."""

from __future__ import annotations

import sys


def pytest_terminal_summary(terminalreporter):
    """One line, where the sweep has run."""
    tallies = getattr(sys.modules.get("sweep"), "TALLIES", [])
    if tallies:
        injected, violations = sum(t.injected for t in tallies), sum(len(t.violations) for t in tallies)
        terminalreporter.write_line(f"{injected} faults injected, {violations} violations")
