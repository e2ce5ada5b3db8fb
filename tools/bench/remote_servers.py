"""Servers on this machine that take so many seconds a request, and what was asked of them.

``Plain`` is that of the tests, by HTTP or by the API of S3. ``Moto`` is moto's server of S3, in a process of its own.
``python tools/bench/remote_servers.py`` is that process: it serves until its standard input ends.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))

from servers import Server

#: The folder below the served one, which is the bucket.
BUCKET = "bench"
#: What S3 is asked with; neither server looks at it.
OPTIONS = {"key": "bench", "secret": "bench"}
_CONTROL = "/-/"


class Plain(Server):
    """The server of the tests, over a folder of which ``bench`` is the bucket."""

    def __init__(self, folder: Path | str, *, by_s3: bool = False) -> None:
        super().__init__(folder)
        self._by_s3 = by_s3

    @property
    def endpoint(self) -> str:
        """Where its buckets are."""
        return self.url

    @property
    def options(self) -> dict[str, str] | None:
        """The ``storage_options`` that lead to it."""
        return OPTIONS | {"endpoint_url": self.url} if self._by_s3 else None

    def url_of(self, path: Path) -> str:
        """The URL of what lies at a path."""
        key = path.relative_to(self.folder).as_posix()
        return f"s3://{key}" if self._by_s3 else f"{self.url}/{key}"

    def hold(self, folder: Path) -> None:
        """Serve what lies below a folder, as it does anyway."""


class Moto:
    """moto's server, asked as ``Plain`` is. What it serves has to be put there by ``hold``."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def __enter__(self) -> Moto:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe)
        assert self._process.stdout is not None
        self.endpoint = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.options = OPTIONS | {"endpoint_url": self.endpoint}
        self._put(f"/{BUCKET}")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def url_of(self, path: Path) -> str:
        """The URL of what was put from a path."""
        return f"s3://{path.relative_to(self.folder).as_posix()}"

    def hold(self, folder: Path) -> None:
        """Put what lies below a folder; no request takes its time from here on."""
        self.delay(0)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self._put("/" + path.relative_to(self.folder).as_posix(), path.read_bytes())

    def delay(self, seconds: float) -> None:
        """Let each request take so long from here on."""
        self._put(f"{_CONTROL}delay", json.dumps(seconds).encode())

    def take(self) -> dict[str, Any]:
        """What was asked for since the last call, and how many at a time."""
        found: dict[str, Any] = json.loads(self._put(f"{_CONTROL}take", b"null"))
        return found

    def _put(self, path: str, body: bytes = b"") -> bytes:
        # moto learns from it which service is meant
        head = {"Authorization": "AWS4-HMAC-SHA256 Credential=bench/1/us-east-1/s3/aws4_request"}
        head["Content-Type"] = "application/octet-stream"
        request = urllib.request.Request(self.endpoint + path, body, head, method="PUT")
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: bytes = answer.read()
        return found


class Traffic(NamedTuple):
    """How much was asked for: requests, objects, bytes, and bytes less what had been asked for before."""

    requests: int
    objects: int
    nbytes: int
    distinct: int

    @classmethod
    def of(cls, asked: Iterable[Sequence[str]], folder: Path) -> Traffic:
        """That of requests as ``take`` gives them, for what lies in a folder."""
        requests, pieces = 0, []
        for method, path, part in asked:
            requests += 1
            file = folder / path.lstrip("/")
            if method == "GET" and file.is_file():
                pieces.append((path, part, _length(part, file.stat().st_size)))
        return cls(
            requests,
            len({path for path, _, _ in pieces}),
            sum(nbytes for _, _, nbytes in pieces),
            sum(nbytes for _, _, nbytes in set(pieces)),
        )


def _length(part: str | None, size: int) -> int:
    """The bytes of a range, as a header of HTTP has it."""
    if part is None:
        return size
    first, _, last = part.removeprefix("bytes=").partition("-")
    if not first:
        return min(size, int(last))
    return (min(size, int(last) + 1) if last else size) - int(first)


class _Slow:
    """An application of WSGI whose requests take their time and are written down."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application, self._lock = application, threading.Lock()
        self._asked: list[tuple[str, str, str | None]] = []
        self._delay, self._now, self._most = 0.0, 0, 0

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.startswith(_CONTROL):
            value = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            body = json.dumps(self._control(path.removeprefix(_CONTROL), value)).encode()
            start("200 OK", [("Content-Length", str(len(body)))])
            return [body]
        with self._lock:
            self._asked.append((environ["REQUEST_METHOD"], path, environ.get("HTTP_RANGE")))
            self._now += 1
            self._most = max(self._most, self._now)
        time.sleep(self._delay)
        with self._lock:
            self._now -= 1
        return self._application(environ, start)

    def _control(self, what: str, value: Any) -> Any:
        if what == "delay":
            self._delay = value
            return None
        with self._lock:
            found = {"asked": self._asked, "most": self._most}
            self._asked, self._most = [], self._now
        return found


def serve() -> None:
    """Serve, print the port, and end with the standard input."""
    from moto.moto_server import werkzeug_app
    from werkzeug.serving import make_server

    class Handler(werkzeug_app.MotoRequestHandler):
        # connections are kept, as those of S3 are
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

    logging.disable(logging.WARNING)
    application = _Slow(werkzeug_app.DomainDispatcherApplication(werkzeug_app.create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Handler)
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.buffer.read()


if __name__ == "__main__":
    serve()
