"""Requests by obstore: S3, Google Cloud Storage, Azure and HTTP, in Rust, outside the GIL.

It runs threads of its own, which a forked child does not have: a child of a process that has used
it would wait for them for ever, and asks in another way.

https://developmentseed.org/obstore
"""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

from globidx.disk.files import forks
from globidx.disk.remote.addresses import redacted
from globidx.disk.remote.objects import Found, Piece
from globidx.disk.remote.options import family_of
from globidx.disk.remote.retries import Bounds, PassingError, UnfitError, passes
from globidx.errors import ReadError

_STATUS = re.compile(r"status code: (\d+)")
#: Why a connection did not come to be, in what Rust prints below the first line of an error.
_CAUSE = re.compile(r'(?:message|error): "([^"]*)"')
#: What servers call a bucket that is not there, where they say that an object is not.
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_LISTED = 1000
#: Characters that no part of obstore's paths has.
_ODD = re.compile(r"[/\x00-\x1f\x7f]")
#: What a whole answer may take, which comes on all the while.
_WHOLE = "86400s"


class _Use:
    """The process in which obstore was used first, of this one and those that it was forked from."""

    pid: int | None = None


def is_usable() -> bool:
    """Whether no process that this one was forked from has used obstore."""
    return _Use.pid in (None, os.getpid())


class ByObstore:
    """The objects of an ``origin``, with obstore's ``configuration``; ``query`` goes with each request.

    ImportError where obstore is not installed.
    """

    def __init__(
        self,
        protocol: str,
        origin: str,
        query: str,
        configuration: Mapping[str, Any],
        bounds: Bounds,
    ) -> None:
        self._obstore: Any = forks.import_module("obstore")
        stores: Any = forks.import_module("obstore.store")
        configuration = dict(configuration)
        family = family_of(protocol)
        endpoint = origin if family == "http" else str(configuration.get("endpoint", "https:"))
        client: dict[str, Any] = {
            "read_timeout": f"{bounds.timeout:g}s",
            "timeout": _WHOLE,
            "connect_timeout": f"{min(bounds.timeout, 10):g}s",
            "allow_http": endpoint.startswith("http:"),
        }
        # it is asked again by this package, which checks more, and says what it waits for
        common = {"client_options": client, "retry_config": {"max_retries": 0}}
        if family == "http":
            client["default_headers"] = dict(configuration.get("headers", {}))
            more = urllib.parse.urlencode(configuration.get("params", {}), doseq=True)
            query = "&".join(filter(None, [query, more]))
            self._store = stores.HTTPStore.from_url(origin + "?" * bool(query) + query, **common)
        else:
            of_family = {"s3": stores.S3Store, "gs": stores.GCSStore, "az": stores.AzureStore}
            bucket = origin.partition("://")[2]
            try:
                self._store = of_family[str(family)](bucket, **configuration, **common)
            except self._obstore.exceptions.BaseError as error:
                raise ReadError(f"{origin}: {_line(error)}") from None
        # paths of HTTP are written as URLs, and obstore takes them as they are meant
        self._is_quoted = family == "http"
        self.how = f"obstore ({family})"

    def fetch(self, piece: Piece) -> Found | None:
        """One request for a piece; None where there is no such object."""
        _Use.pid = os.getpid()
        key = self._spelled(piece.key)
        try:
            result = self._obstore.get(self._store, key, options=_range(piece))
            data, about = result.bytes().to_bytes(), result.meta
        except FileNotFoundError as error:
            # obstore takes it for the same that a server reads nothing here
            if _status(error) == 405 or any(word in str(error) for word in _NO_BUCKET):
                raise ReadError(_line(error)) from None
            return None
        except self._obstore.exceptions.BaseError as error:
            # a server without ranges; an object without bytes, which have no end
            has_none = "RangeNotSupported" in str(error) or "status code: 416" in str(error)
            if has_none and piece != Piece(piece.key):
                return _whole(self.fetch(Piece(piece.key)), piece)
            if "Content-Length Header missing" in str(error):
                raise UnfitError("the server does not say how long its answers are") from None
            raise _told(error) from None
        if self._is_quoted and not about["size"]:
            raise UnfitError(
                "obstore does not tell a file without bytes from an answer without any"
            )
        start, stop = result.range
        if len(data) != stop - start:
            raise PassingError(f"{len(data)} bytes came of [{start}, {stop})")
        return Found(data, about["size"], _version(about))

    def _spelled(self, key: str) -> str:
        """A key as obstore takes it; UnfitError where it would take it for another one, or for none."""
        for part in key.split("/"):
            plain = urllib.parse.unquote_to_bytes(part) if self._is_quoted else part.encode()
            try:
                is_lost = plain in (b"", b".", b"..") or _ODD.search(plain.decode()) is not None
            except UnicodeDecodeError:
                is_lost = True
            if is_lost:
                raise UnfitError(f"obstore has no such names as {part!r}")
        return urllib.parse.unquote(key) if self._is_quoted else key

    def names(self, prefix: str) -> Iterator[str]:
        """The keys that begin with ``prefix``, which ends with "/" or is ""."""
        _Use.pid = os.getpid()
        if prefix:
            self._spelled(prefix.removesuffix("/"))
        try:
            for page in self._obstore.list(self._store, prefix or None, chunk_size=_LISTED):
                # an object without bytes is a folder that somebody made
                yield from (one["path"] for one in page if one["size"])
        except self._obstore.exceptions.BaseError as error:
            raise _told(error) from None

    def forget(self) -> None:
        """Nothing: each answer tells the size and version of its object."""


def _range(piece: Piece) -> dict[str, Any]:
    if piece.stop is not None:
        return {"range": (piece.start, piece.stop)}
    if piece.start < 0:
        return {"range": {"suffix": -piece.start}}
    return {"range": {"offset": piece.start}} if piece.start else {}


def _version(about: Mapping[str, Any]) -> str:
    """The version of an object; "" where the server told none, for which obstore says 1970."""
    changed = about["last_modified"]
    return about["e_tag"] or (f"{about['size']} {changed}" if changed.timestamp() else "")


def _whole(found: Found | None, piece: Piece) -> Found | None:
    """A piece of an object that came whole, from a server without ranges."""
    if found is None:
        return None
    return found._replace(data=found.data[piece.start : piece.stop])


def _told(error: Exception) -> Exception:
    """What to raise for an error of obstore's: whether to ask again, and why, without credentials."""
    text, status = _line(error), _status(error)
    if status is not None:
        return PassingError(text) if passes(status) else ReadError(text)
    # a server that sends elsewhere, and does not say where
    if type(error).__name__ not in ("GenericError", "BaseError") or "redirect" in text:
        return ReadError(text)
    if "kind: Timeout" in str(error):
        text += ": timed out"
    if "error sending request" not in text:
        return PassingError(text)
    cause = _CAUSE.search(str(error))
    return PassingError(text + (f": {redacted(cause[1])}" if cause else ""), reached=False)


def _status(error: Exception) -> int | None:
    """The status that a server answered with, if it did."""
    found = _STATUS.search(_line(error))
    return None if found is None else int(found[1])


def _line(error: Exception) -> str:
    # below its first line there is the request again, as Rust prints it
    return redacted(str(error).partition("\n")[0])
