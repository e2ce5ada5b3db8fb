"""What obstore says, in the words of this package; the contract of all means is in ``test_line``."""

import subprocess
import sys
from pathlib import Path

import pytest
from processes import clean_environment
from servers import Server

pytest.importorskip("obstore")

from globidx.disk.remote.by_obstore import ByObstore
from globidx.disk.remote.objects import Found, Piece
from globidx.disk.remote.retries import PassingError
from globidx.errors import ReadError

from .conftest import HASTY


def test_it_asks_once_and_says_whether_to_ask_again(server):
    """Whoever called it decides how often."""
    Path(server.folder, "o").write_bytes(b"12345")
    back = ByObstore("http", server.url, "", {}, HASTY)
    assert back.fetch(Piece("o", 1, 3)).data == b"23"
    for status, error in ((503, PassingError), (429, PassingError), (403, ReadError)):
        server.plan({"kind": "status", "status": status})
        server.take()
        with pytest.raises(error, match=str(status)) as failure:
            back.fetch(Piece("o"))
        assert len(server.take()["asked"]) == 1 and "\n" not in str(failure.value)


def test_a_server_that_tells_no_version_is_told_as_such(server):
    """obstore gives all objects of it the same time of change."""
    Path(server.folder, "o").write_bytes(b"12345")
    back = ByObstore("http", server.url, "", {}, HASTY)
    assert back.fetch(Piece("o", 1, 3)).version
    server.plan({"kind": "untold"})
    assert back.fetch(Piece("o", 1, 3)) == Found(b"23", 5, "")


S3 = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
NO_BUCKET = "<Error><Code>NoSuchBucket</Code></Error>"


def test_what_no_bucket_has_and_no_region_is_not_what_is_absent(server):
    """An object that is not there is none; a bucket that is not, or another region's, is an error at once."""
    back = ByObstore("s3", "s3://bucket", "", {**S3, "endpoint": server.url}, HASTY)
    assert back.fetch(Piece("o")) is None
    for fault, told in (
        ({"status": 404, "body": NO_BUCKET}, "NoSuchBucket"),
        ({"status": 301}, "region"),
    ):
        server.plan({"kind": "status", **fault})
        with pytest.raises(ReadError, match=told):
            back.fetch(Piece("o"))
        with pytest.raises(ReadError, match=told):
            list(back.names("x/"))


def test_a_configuration_that_is_none_is_told_without_it():
    """An error of this package, as of all that is read."""
    with pytest.raises(ReadError, match="az://box: .*Access Key") as failure:
        ByObstore("az", "az://box", "", {"account_name": "x", "account_key": "hunter2?"}, HASTY)
    assert "hunter2" not in str(failure.value)


def test_headers_and_parameters_go_with_each_request(server):
    """As the options of HTTP have them."""
    Path(server.folder, "o").write_bytes(b"12345")
    back = ByObstore("http", server.url, "x=1", {"params": {"sig": "hunter2"}}, HASTY)
    assert back.fetch(Piece("o")).data == b"12345"


def test_a_parameter_with_some_values_is_said_as_often(tmp_path):
    """As by fsspec; the server here takes the last one."""
    (tmp_path / "o").write_bytes(b"12345")
    with Server(tmp_path, secret="b") as server:
        for params in ({"sig": ["a", "b"]}, {"sig": "b"}):
            back = ByObstore("http", server.url, "", {"params": params}, HASTY)
            assert back.fetch(Piece("o")).data == b"12345"


def test_only_the_process_that_used_it_first_may_use_it(server):
    """A child that is forked later may not, and finds out without asking."""
    program = f"""
import os, sys
from globidx.disk.remote.by_obstore import ByObstore, is_usable
from globidx.disk.remote.objects import Piece
from globidx.disk.remote.retries import Bounds
def child(expected):
    pid = os.fork()
    if pid == 0: os._exit(0 if is_usable() is expected else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert child(True) == 0
ByObstore("http", {server.url!r}, "", {{}}, Bounds()).fetch(Piece("none"))
assert is_usable() and child(False) == 0
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env=clean_environment())
