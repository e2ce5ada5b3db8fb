"""Shared by the tests of what touches a disk."""

import os

import pytest

from globidx.disk.stores import base as stores


@pytest.fixture
def scans(monkeypatch):
    """The names of files that were opened to look inside."""
    real, seen = stores.scan, []

    def counted(path, layout, axis):
        seen.append(os.path.basename(path))
        return real(path, layout, axis)

    monkeypatch.setattr(stores, "scan", counted)
    return seen
