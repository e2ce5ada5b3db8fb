"""How many faults were injected, at the end of the run."""

from __future__ import annotations


def pytest_terminal_summary(terminalreporter, config):
    """One line, where the sweep has run."""
    import sys

    total = config.stash.get(sys.modules["sweep"].TOTAL, None) if "sweep" in sys.modules else None
    if total is not None:
        terminalreporter.write_line(f"{total.injected} faults injected, {len(total.violations)} violations")
