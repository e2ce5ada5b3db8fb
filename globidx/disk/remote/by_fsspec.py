"""Requests by fsspec: what obstore does not know, or may not be used for."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from globidx.disk.files.living import Living
from globidx.disk.remote.addresses import redacted
from globidx.disk.remote.objects import Found, Piece
from globidx.disk.remote.retries import Bounds, PassingError, passes, seconds
from globidx.errors import MissingPackageError, NoFilesError, ReadError

_NO_BACK_ENDS = ("builtins", "globidx", "numpy", "zarr", "json")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
#: Objects whose size is remembered.
_MOST_SIZES = 2**16
#: Bytes a second of a file system that does not tell how long nothing came.
_SLOWEST = 2**16


def file_system(
    url: str, options: Mapping[str, Any] | None = None, timeout: float = Bounds().timeout
) -> tuple[Any, str]:
    """The file system of fsspec that a URL names, and the path in it.

    A server of HTTP may be silent for ``timeout`` seconds, if the options say nothing else.
    """
    shown = redacted(url)
    try:
        import fsspec
    except ImportError:
        raise MissingPackageError(
            f"reading {shown} needs fsspec: pip install '.[remote]' in the clone of globidx"
        ) from None
    try:
        with as_os_errors():
            files, path = fsspec.core.url_to_fs(url, **_with_timeout(url, options, timeout))
    except ImportError as error:
        raise MissingPackageError(f"reading {shown} needs more than fsspec: {error}") from None
    except ValueError as error:
        raise NoFilesError(
            f"{shown} names no place that fsspec knows: {redacted(str(error))}"
        ) from None
    except FileNotFoundError as error:
        raise NoFilesError(f"there is nothing at {shown}: {redacted(str(error))}") from None
    except OSError as error:
        reason = redacted(f"{type(error).__name__}: {error}")
        raise ReadError(f"{shown} cannot be opened: {reason}") from None
    _Made.files.add(files)
    return files, str(path)


def _with_timeout(url: str, options: Mapping[str, Any] | None, timeout: float) -> dict[str, Any]:
    """The options of fsspec, and for HTTP how long it may be silent: aiohttp would wait for 5 minutes."""
    given = dict(options or {})
    for protocol in {link.partition("://")[0] for link in url.split("::")} & {"http", "https"}:
        own = {**given.get(protocol, {})}
        # of a single URL, its options may stand beside those of its protocol
        said = {**({} if "::" in url else given), **own}
        if "timeout" not in said and "timeout" not in (said.get("client_kwargs") or {}):
            import aiohttp

            silence = aiohttp.ClientTimeout(total=None, connect=timeout, sock_read=timeout)
            given[protocol] = {**own, "timeout": silence}
    return given


class _Made:
    """The file systems of this process, and those of the processes that it was forked from.

    The latter are kept: a connection that is closed in a child is taken off the list that parent and
    child share, by which the kernel tells the parent that an answer has come. fsspec drops them when
    the child makes its first one.
    """

    files: ClassVar[Living[Any]] = Living()
    inherited: ClassVar[list[Any]] = []

    @classmethod
    def keep(cls) -> None:
        cls.inherited += list(cls.files)
        cls.files = Living()


os.register_at_fork(after_in_child=_Made.keep)


def entries_of(files: Any, path: str) -> list[str]:
    """What a glob matches, or what is in a folder."""
    if not glob.has_magic(path):
        return list(files.ls(path, detail=False))
    return list(_looked_through(files, "glob", path))


def listed(files: Any, path: str, base: str) -> Iterator[str]:
    """The names of all files with bytes in them below ``path``, relative to ``base``, by one listing."""
    base = files._strip_protocol(base).rstrip("/") + "/"
    for name, about in _looked_through(files, "find", path, detail=True).items():
        # a server that does not tell sizes tells None
        if about.get("size") != 0:
            yield name.removeprefix(base)


def _looked_through(files: Any, method: str, path: str, **named: Any) -> Any:
    """What a method of a file system says that looks through folders; by HTTP, none is passed over."""
    if not is_http(files):
        return getattr(files, method)(path, **named)
    import fsspec.asyn

    return fsspec.asyn.sync(files.loop, getattr(_outspoken(files), f"_{method}"), path, **named)


def _outspoken(files: Any) -> Any:
    """The same file system of HTTP, which says where a folder could not be listed.

    fsspec goes on as if there were none, where a connection broke, nothing came, or a server was busy.
    """
    same = object.__new__(type(files))
    same.__dict__.update(files.__dict__)

    async def ls(path: str, detail: bool = True, **named: Any) -> Any:
        try:
            return await files._ls(path, detail=detail, **named)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _UnlistedError(error) from None

    async def isdir(path: str) -> bool:
        try:
            return bool(await ls(path))
        except FileNotFoundError:
            return False

    async def info(path: str, **_: Any) -> dict[str, Any]:
        # asked for where ``isdir`` was true; of a folder there is nothing more to know
        return {"name": path, "size": None, "type": "directory"}

    same._ls, same._isdir, same._info, same._isfile = ls, isdir, info, files._isfile
    return same


class _UnlistedError(Exception):
    """An OSError that fsspec does not take for an empty folder."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"{error}")
        self.error = error


@contextmanager
def as_os_errors() -> Iterator[None]:
    """Turn errors of the packages below fsspec into OSError.

    So they are reported for a file like any other.

    There are as many bases of errors as there are protocols: aiohttp's, botocore's, google's,
    azure's, paramiko's, zipfile's. What they have in common: neither Python nor numpy, zarr or this
    package defines them.
    """
    try:
        yield
    except BaseException as error:
        if not _is_of_a_back_end(error):
            raise
        # not from it: its traceback would show the URL as it was asked for
        raise OSError(redacted(f"{type(error).__name__}: {error}")) from None


@contextmanager
def as_tries(*, is_http: bool, silence: float) -> Iterator[None]:
    """Turn errors of one try into PassingError, where another may go well, and ReadError, where none will.

    What is not there stays FileNotFoundError and its like. Other file systems than that of HTTP try
    again by themselves, or need not. ``silence``: seconds that a server was given to say something.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PassingError):
        raise
    except (PermissionError, MissingPackageError, ReadError) as error:
        raise ReadError(redacted(f"{error}")) from None
    except Exception as raised:
        cause = raised.error if isinstance(raised, _UnlistedError) else raised
        if not (isinstance(cause, OSError) or _is_of_a_back_end(cause)):
            raise
        raise _told(cause, is_http=is_http, silence=silence) from None


def _told(error: Exception, *, is_http: bool, silence: float) -> Exception:
    """What to raise for an error of a file system."""
    status = getattr(error, "status", None)
    if isinstance(status, int) and status >= 400:
        return _refused(status, getattr(error, "headers", None) or {})
    reason = redacted(f"{type(error).__name__}: {error}")
    if isinstance(error, TimeoutError):
        # aiohttp and fsspec say nothing else of it
        reason = f"nothing came for {silence:g} s ({type(error).__name__})"
    passes_on = is_http or isinstance(error, (ConnectionError, TimeoutError))
    return PassingError(reason, reached=False) if passes_on else ReadError(reason)


def _refused(status: int, headers: Mapping[str, str]) -> Exception:
    """What to raise for a status that is no answer: whether to ask again, and when."""
    if passes(status):
        head = {name.lower(): value for name, value in headers.items()}
        return PassingError(f"status {status}", seconds(head.get("retry-after", "")))
    return ReadError(f"the server answers with status {status}")


def is_http(files: Any) -> bool:
    """Whether a file system is that of HTTP."""
    protocols = files.protocol
    return "http" in ([protocols] if isinstance(protocols, str) else protocols)


def _is_of_a_back_end(error: BaseException) -> bool:
    package = type(error).__module__.partition(".")[0]
    return (
        isinstance(error, Exception)
        and not isinstance(error, OSError)
        and package not in _NO_BACK_ENDS
    )


class ByFsspec:
    """The objects below ``url``, with fsspec's ``options``; ``query`` goes with each request of HTTP.

    ``because`` says why it is not obstore that asks.
    """

    def __init__(
        self, url: str, query: str, options: Mapping[str, Any] | None, bounds: Bounds, because: str
    ) -> None:
        self._files, self._path = file_system(url, options, bounds.timeout)
        self._query, self._timeout = query, bounds.timeout
        protocols, self._is_http = self._files.protocol, is_http(self._files)
        name = protocols if isinstance(protocols, str) else protocols[0]
        self.how = f"fsspec ({name}; {because})"
        self._sizes: dict[str, tuple[int, str]] = {}

    def fetch(self, piece: Piece) -> Found | None:
        """One request for a piece; None where there is no such object."""
        try:
            with as_tries(is_http=self._is_http, silence=self._timeout):
                return self._http(piece) if self._is_http else self._any(piece)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def names(self, prefix: str) -> Iterator[str]:
        """The keys that begin with ``prefix``, of all files with bytes in them."""
        with as_tries(is_http=self._is_http, silence=self._timeout):
            yield from listed(self._files, self._at(prefix), self._path)

    def forget(self) -> None:
        """Ask for the sizes of objects anew."""
        self._sizes = {}

    def _at(self, key: str) -> str:
        return f"{self._path.rstrip('/')}/{key}" if key else self._path

    def _any(self, piece: Piece) -> Found:
        path = self._at(piece.key)
        if not piece.start and piece.stop is None:
            data = self._whole(piece.key)
            return Found(data, len(data), "")
        size, version = self._about(piece.key)
        start, stop = piece.within(size)
        data = self._call("cat_file", path, nbytes=stop - start, start=start, end=stop)
        if len(data) != max(0, stop - start):
            raise PassingError(f"{len(data)} bytes came of [{start}, {stop})")
        return Found(data, size, version)

    def _whole(self, key: str) -> bytes:
        size, _ = self._sizes.get(key, (0, ""))
        try:
            return bytes(self._call("cat_file", self._at(key), nbytes=size))
        except TimeoutError:
            # it may be large: at the next try it is given the time that so much takes
            self._about(key)
            raise

    def _about(self, key: str) -> tuple[int, str]:
        """The size and version of an object, asked for once."""
        about = self._sizes.get(key)
        if about is None:
            info = self._call("info", self._at(key))
            if info.get("type") == "directory":
                raise IsADirectoryError(key)
            size, changed = int(info["size"]), info.get("mtime") or info.get("LastModified")
            # as obstore tells it of S3, so that a cache on disk knows what either has fetched
            tag = info.get("ETag") or info.get("etag") or (f"{size} {changed}" if changed else "")
            if len(self._sizes) >= _MOST_SIZES:
                self._sizes.clear()
            about = self._sizes[key] = size, str(tag)
        return about

    def _call(self, method: str, *given: Any, nbytes: int = 0, **named: Any) -> Any:
        """A method of the file system, within the time that a request is given for so many bytes."""
        if not self._files.async_impl:
            return getattr(self._files, method)(*given, **named)
        import fsspec.asyn

        call = getattr(self._files, f"_{method}")
        timeout = self._timeout + nbytes / _SLOWEST
        return fsspec.asyn.sync(self._files.loop, call, *given, timeout=timeout, **named)

    def _http(self, piece: Piece) -> Found | None:
        import fsspec.asyn

        # a large answer may take its time, as long as it comes
        status, headers, body = fsspec.asyn.sync(self._files.loop, self._get, piece)
        if status == 416 and piece != Piece(piece.key):
            # an object without bytes, which have no end
            found = self._http(Piece(piece.key))
            return found and found._replace(data=found.data[piece.start : piece.stop])
        return _checked(status, headers, body, piece)

    async def _get(self, piece: Piece) -> tuple[int, Mapping[str, str], bytes]:
        """Status, head and body of an answer."""
        session, named = await self._files.set_session(), dict(self._files.kwargs)
        # an answer that was packed on the way has other bytes than the object
        headers = {**named.pop("headers", {}), "Accept-Encoding": "identity"}
        if piece.start or piece.stop is not None:
            headers["Range"] = _range(piece)
        url = self._files.encode_url(self._at(piece.key) + "?" * bool(self._query) + self._query)
        async with session.get(url, headers=headers, **named) as answer:
            return answer.status, dict(answer.headers), await answer.read()


def _checked(status: int, headers: Mapping[str, str], body: bytes, piece: Piece) -> Found | None:
    """What an answer says, if it is one to this piece."""
    if status == 404:
        return None
    if status not in (200, 206):
        raise _refused(status, headers)
    head = {name.lower(): value for name, value in headers.items()}
    version = head.get("etag") or head.get("last-modified", "")
    if status == 200:
        return Found(body[piece.start : piece.stop], len(body), version)
    match = _CONTENT_RANGE.fullmatch(head.get("content-range", ""))
    if match is None:
        raise PassingError("an answer with a part of the object does not say which")
    first, last, size = map(int, match.groups())
    start, stop = piece.within(size)
    if (first, last + 1, len(body)) != (start, stop, stop - start):
        raise PassingError(
            f"asked for bytes [{start}, {stop}), got {len(body)} of [{first}, {last + 1})"
        )
    return Found(body, size, version)


def _range(piece: Piece) -> str:
    if piece.stop is not None:
        return f"bytes={piece.start}-{piece.stop - 1}"
    return f"bytes={piece.start}" if piece.start < 0 else f"bytes={piece.start}-"
