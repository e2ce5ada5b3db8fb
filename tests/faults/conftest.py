"""Reports at the end of a run how many faults were injected."""

from __future__ import annotations

import sys


def pytest_terminal_summary(terminalreporter):
    """Print one line if the sweep has run."""
    tallies = getattr(sys.modules.get("sweep"), "TALLIES", [])
    if tallies:
        injected, violations = (
            sum(t.injected for t in tallies),
            sum(len(t.violations) for t in tallies),
        )
        terminalreporter.write_line(f"{injected} faults injected, {violations} violations")
