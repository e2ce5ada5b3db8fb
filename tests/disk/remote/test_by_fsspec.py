"""What fsspec reads, however it does; the contract of all means is in ``test_line``."""

import asyncio
import gc
import os
import zipfile
from functools import partial

import pytest
from servers import Server

fsspec = pytest.importorskip("fsspec")

from globidx.disk.remote.by_fsspec import (  # noqa: E402
    ByFsspec,
    as_os_errors,
    as_tries,
    entries_of,
    file_system,
    is_http,
    listed,
)
from globidx.disk.remote.objects import Piece  # noqa: E402
from globidx.disk.remote.retries import PassingError  # noqa: E402
from globidx.errors import MissingPackageError, NoFilesError, ReadError  # noqa: E402

from .conftest import HASTY  # noqa: E402

# Python 3.12 and later
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

DATA = bytes(range(200))


@pytest.fixture(params=["memory", "file", "zip"])
def back(request, tmp_path):
    """Objects ``x/a`` and ``x/b`` in memory, in a folder, and in a zip file there."""
    if request.param == "memory":
        files = fsspec.filesystem("memory")
        files.pipe({"/back/x/a": DATA, "/back/x/b": b"b", "/back/x/empty": b""})
        url = "memory://back"
    elif request.param == "file":
        (tmp_path / "x").mkdir()
        for name, data in (("a", DATA), ("b", b"b"), ("empty", b"")):
            (tmp_path / "x" / name).write_bytes(data)
        url = f"file://{tmp_path}"
    else:
        with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
            archive.writestr("in/x/a", DATA)
            archive.writestr("in/x/b", b"b")
        url = f"zip://in::{tmp_path}/z.zip"
    yield ByFsspec(url, "", None, HASTY, "in a test")
    if request.param == "memory":
        files.rm("/back", recursive=True)


@pytest.mark.parametrize("piece", [Piece("x/a"), Piece("x/a", 3), Piece("x/a", 3, 9), Piece("x/a", -5), Piece("x/a", 3, 900)], ids=str)  # fmt: skip
def test_every_file_system_gives_the_same_pieces(back, piece):
    """With the size of the whole object."""
    found = back.fetch(piece)
    assert (found.data, found.size) == (DATA[piece.start : piece.stop], 200)


def test_what_is_no_file_is_none(back):
    """Nothing, and a folder."""
    assert back.fetch(Piece("x/none")) is None and back.fetch(Piece("x", 0, 3)) is None


def test_files_with_bytes_in_them_are_listed(back):
    """Relative to the URL."""
    assert sorted(back.names("x")) == ["x/a", "x/b"] and "in a test" in back.how


def test_errors_of_packages_are_oserrors_without_queries():
    """Those of Python and of this package stay what they are."""

    class OtherError(Exception):
        __module__ = "aiohttp.client"

    with (
        pytest.raises(OSError, match=r"OtherError: http://h/a\?\.\.\. is gone") as failure,
        as_os_errors(),
    ):
        raise OtherError("http://h/a?sig=hunter2 is gone")
    assert "hunter2" not in str(failure.value)
    with pytest.raises(KeyError), as_os_errors():
        raise KeyError("x")


def test_a_child_leaves_connections_of_its_parent_alone(server):
    """Those that are kept open between requests: the parent hears of the next answer by them."""
    files, path = file_system(server.url)
    ask = partial(fsspec.asyn.sync, files.loop, files._exists, path, timeout=10)
    assert ask()
    child = os.fork()
    if child == 0:
        del files, ask
        # fsspec forgets the file systems of the parent here
        file_system(server.url)
        gc.collect()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ask()


@pytest.mark.parametrize(
    ("list_all", "named", "at"),
    [
        (entries_of, "", "/folder"),
        (entries_of, "/*", "/folder"),
        (entries_of, "/x*/*", "/folder/xx"),
        (partial(listed, base=""), "", "/folder/xx"),
    ],
)
def test_a_folder_of_which_nothing_comes_is_no_empty_one(tmp_path, list_all, named, at):
    """It is given up after a silence, as a request is, and asked again."""
    (tmp_path / "folder/xx").mkdir(parents=True)
    for name in "abc":
        (tmp_path / "folder/xx" / name).write_bytes(b"x")
    # one of its own, which is left with requests that it never answers
    with Server(tmp_path) as server:
        files, path = file_system(f"{server.url}/folder", None, 0.5)
        for fault, told in (
            ({"kind": "slow", "seconds": 3600}, "nothing came for 0.5 s"),
            ({"kind": "reset"}, "rror"),
            ({"kind": "status", "status": 503}, "503"),
        ):
            server.plan({"path": at, **fault})
            with (
                pytest.raises(PassingError, match=told),
                as_tries(is_http=is_http(files), silence=0.5),
            ):
                list(list_all(files, path + named))
        server.plan()
        assert len(list(list_all(files, path + named))) == (3 if at == "/folder/xx" else 1)


@pytest.mark.parametrize("options", [{"timeout": 9}, {"client_kwargs": {"timeout": 9}}, {"http": {"timeout": 9}}])  # fmt: skip
def test_a_time_that_the_options_say_is_left_as_it_is(options):
    """It is the user's."""
    files, _ = file_system("http://127.0.0.1:9", options)
    assert 9 in (files.kwargs.get("timeout"), files.client_kwargs.get("timeout"))
    assert "timeout" not in files.kwargs or files.kwargs["timeout"] == 9


def test_a_protocol_nobody_knows_is_told():
    """And one whose package is not installed."""
    with pytest.raises(NoFilesError, match="nosuch://x names no place"):
        ByFsspec("nosuch://x", "", None, HASTY, "")
    with pytest.raises((MissingPackageError, NoFilesError), match="oss://x"):
        ByFsspec("oss://x", "", None, HASTY, "")


def test_other_file_systems_are_asked_once_unless_a_connection_broke():
    """Those of S3 and others try again by themselves."""

    class Failing(fsspec.AbstractFileSystem):
        protocol = "failing2"
        error = OSError("no")

        def cat_file(self, path, start=None, end=None, **options):
            raise self.error

    fsspec.register_implementation("failing2", Failing, clobber=True)
    back = ByFsspec("failing2://x", "", None, HASTY, "")
    with pytest.raises(ReadError, match="no"):
        back.fetch(Piece("a"))
    Failing.error = ConnectionResetError("gone")
    with pytest.raises(PassingError, match="gone"):
        back.fetch(Piece("a"))


def test_other_file_systems_have_the_time_that_the_bytes_take(monkeypatch):
    """They do not tell how long nothing came: of a large object, the size is found out for the next try."""

    class Slow(fsspec.asyn.AsyncFileSystem):
        protocol = "slow2"

        async def _cat_file(self, path, start=None, end=None, **options):
            await asyncio.sleep(0.6)
            return DATA[start:end]

        async def _info(self, path, **options):
            return {"name": path, "size": len(DATA), "type": "file"}

    fsspec.register_implementation("slow2", Slow, clobber=True)
    monkeypatch.setattr("globidx.disk.remote.by_fsspec._SLOWEST", len(DATA) / 5)
    back = ByFsspec("slow2://x", "", None, HASTY._replace(timeout=0.1), "")
    with pytest.raises(PassingError, match=r"nothing came for 0\.1 s"):
        back.fetch(Piece("a"))
    assert back.fetch(Piece("a")).data == back.fetch(Piece("a", 0, 200)).data == DATA
