"""Shared by the tests of what touches a disk."""

import pytest
from files import watched_scans


@pytest.fixture
def scans(monkeypatch):
    """The names of files that were opened to look inside."""
    return watched_scans(monkeypatch)
