"""A folder behind a server of its own process, and lines to it by each means."""

from __future__ import annotations

import pytest
from servers import Server

from globidx.disk.remote.line import Line
from globidx.disk.remote.retries import Bounds

#: So that a server that fails for good is given up soon.
HASTY = Bounds(requests=8, tries=3, timeout=2.0, patience=10.0)


@pytest.fixture(scope="session")
def session_server(tmp_path_factory):
    """One process for all tests."""
    with Server(tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture
def server(session_server):
    """The server with nothing planned and nothing asked."""
    session_server.plan()
    session_server.delay(0)
    session_server.take()
    return session_server


@pytest.fixture(params=["obstore", "fsspec"])
def line(request):
    """A line by obstore, and one by fsspec."""
    pytest.importorskip("aiohttp")
    if request.param == "obstore":
        pytest.importorskip("obstore")
    # an option that obstore has not
    made = Line(HASTY, None if request.param == "obstore" else {"block_size": 2**20})
    yield made
    made.close()
