"""A server of objects on this machine, in a process of its own: slow, and faulty by plan.

It serves a folder by HTTP as object stores do: ranges, ETags, keep-alive, listings of folders as web
pages, and those of S3 in pages of XML. Each request takes ``delay`` seconds, however many there are
at a time. ``python tests/servers.py FOLDER`` serves a folder by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import email.utils
import gzip
import html
import json
import os
import socket
import struct
import subprocess
import sys
import urllib.parse
import urllib.request
from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape

from processes import clean_environment

_PAGE = 1000
_CONTROL = "/-/"
#: Objects of so many bytes are sent out of the page cache, which takes a third of the CPU.
_LARGE = 2**17
#: What the name of a bucket begins with that is listed, and does not exist: ``objects-1000``.
_MADE_UP = "/objects-"


class Server:
    """A folder served by another process, until the ``with`` block ends.

    ``url`` is that of the folder. ``secret``: a word that each request must have, as the value of
    the header ``X-Secret`` or of ``sig`` in the query.
    """

    def __init__(self, folder, *, delay=0.0, secret=None):
        self.folder = str(folder)
        arguments = [self.folder, "--delay", str(delay)]
        self._command = arguments + (["--secret", secret] if secret else [])

    def __enter__(self):
        command = [sys.executable, "-S", __file__, *self._command]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, env=clean_environment()
        )
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_):
        # it ends with its standard input, and so with a test that is killed
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def plan(self, *faults):
        """Do wrong by these dicts, each for requests that it matches, in place of those before.

        ``path``: a part of the path. ``kind``: ``"status"`` (``status``, ``retry_after``
        seconds, ``body``), ``"reset"`` (the connection, where the answer should begin), ``"stall"`` (for ever,
        in the middle of the body), ``"truncate"`` (end in the middle of it), ``"shift"`` (a range
        one byte further than what was asked for, and said), ``"lie"`` (bytes of another range under
        the head of the one asked for), ``"pack"`` (by gzip, for those that take it), ``"whole"`` (no ranges), ``"untold"`` (no ETag, no time of change), ``"slow"`` (``seconds`` more),
        ``"trickle"`` (the body in eight parts, ``seconds`` between them), ``"chunked"`` (no
        length is said, but where each part of the body ends).
        ``times``: how many of them, all if left out; ``after``: how many to spare first.
        """
        self._call("plan", list(faults))

    def delay(self, seconds):
        """Let each request take so long from here on."""
        self._call("delay", seconds)

    def take(self):
        """What was asked for since the last call: ``asked``, (method, path, range) of each, and ``most`` at a time."""
        return self._call("take", None)

    def _call(self, what, value):
        request = urllib.request.Request(
            f"{self.url}{_CONTROL}{what}", json.dumps(value).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


class _Site:
    """The served folder, and what is to go wrong."""

    def __init__(self, folder, delay, secret):
        self.folder, self.delay, self.secret = os.path.abspath(folder), delay, secret
        self.faults, self.seen = [], Counter()
        self.asked, self.now, self.most = [], 0, 0

    def control(self, what, value):
        if what == "plan":
            self.faults, self.seen = value, Counter()
        elif what == "delay":
            self.delay = value
        elif what == "take":
            asked, most = self.asked, self.most
            self.asked, self.most = [], self.now
            return {"asked": asked, "most": most}
        return None

    def fault(self, path):
        """What goes wrong with a request; {} if nothing does."""
        for number, fault in enumerate(self.faults):
            if fault.get("path", "") in path:
                self.seen[number] += 1
                turn = self.seen[number] - 1 - fault.get("after", 0)
                if 0 <= turn < fault.get("times", sys.maxsize):
                    return fault
        return {}

    def file(self, path):
        """The file of a path of a URL; None if it leads out of the folder."""
        inside = os.path.normpath(self.folder + "/" + urllib.parse.unquote(path))
        return inside if (inside + "/").startswith(self.folder + "/") else None


async def _serve(site, port):
    async def connected(reader, writer):
        try:
            while await _answer(site, reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    server.close()
    os._exit(0)


async def _answer(site, reader, writer):
    """Answer one request; whether another may follow on the connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ", 2)
    headers = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
    headers = {name.lower(): value for name, value in headers.items()}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    path, _, query = target.partition("?")
    if path.startswith(_CONTROL):
        value = site.control(path.removeprefix(_CONTROL), json.loads(body))
        return await _send(writer, 200, json.dumps(value).encode())
    site.asked.append((method, path, headers.get("range")))
    site.now += 1
    site.most = max(site.most, site.now)
    try:
        fault = site.fault(path)
        wait = site.delay + (fault["seconds"] if fault.get("kind") == "slow" else 0)
        if wait:
            await asyncio.sleep(wait)
    finally:
        # before the answer, to which the next request may be quicker than this
        site.now -= 1
    return await _respond(site, writer, method, path, query, headers, fault)


async def _respond(site, writer, method, path, query, headers, fault):
    options = dict(urllib.parse.parse_qsl(query))
    if site.secret and site.secret not in (headers.get("x-secret"), options.get("sig")):
        return await _send(writer, 403, b"no secret")
    if fault.get("kind") == "status":
        more = {"Retry-After": fault["retry_after"]} if "retry_after" in fault else {}
        body = fault.get("body", "as planned").encode()
        return await _send(writer, fault["status"], body, more)
    if fault.get("kind") == "reset":
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return False
    file = site.file(path)
    if options.get("list-type") == "2" and path.startswith(_MADE_UP):
        data = _made_up(int(path.removeprefix(_MADE_UP).strip("/")), options)
        return await _send(writer, 200, data, {"Content-Type": "application/xml"})
    if options.get("list-type") == "2":
        return await _send(
            writer, 200, _listing(file, options), {"Content-Type": "application/xml"}
        )
    if file is not None and os.path.isdir(file):
        return await _send(writer, 200, _page(file), {"Content-Type": "text/html"})
    try:
        with open(file or "", "rb") as opened:
            status = os.fstat(opened.fileno())
            return await _object(writer, method, opened, status, headers, fault)
    except OSError:
        return await _send(writer, 404, b"not here")


async def _object(writer, method, opened, status, headers, fault):
    kind, size, data = fault.get("kind"), status.st_size, None
    is_packed = kind == "pack" and "gzip" in headers.get("accept-encoding", "")
    if kind or size < _LARGE:
        data = gzip.compress(opened.read()) if is_packed else opened.read()
        size = len(data)
    start, stop, code = 0, size, 200
    if "range" in headers and kind != "whole":
        first, _, last = headers["range"].removeprefix("bytes=").partition("-")
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        code = 206
        if start >= size:
            return await _send(writer, 416, b"", {"Content-Range": f"bytes */{size}"})
    said = start, stop
    if kind in ("shift", "lie") and code == 206:
        start, stop = start + 1, min(size, stop + 1)
        said = (start, stop) if kind == "shift" else said
    more = {
        "ETag": f'"{status.st_mtime_ns:x}-{size:x}"',
        "Last-Modified": email.utils.formatdate(status.st_mtime, usegmt=True),
        "Accept-Ranges": "bytes",
    }
    if kind == "untold":
        del more["ETag"], more["Last-Modified"]
    if code == 206:
        more["Content-Range"] = f"bytes {said[0]}-{said[1] - 1}/{size}"
    if method == "HEAD":
        return await _send(writer, code, b"", more, length=stop - start)
    if data is None:
        await _send(writer, code, b"", more, length=stop - start)
        loop = asyncio.get_running_loop()
        await loop.sendfile(writer.transport, opened, start, stop - start)
        return True
    body = data[start:stop]
    if is_packed:
        more["Content-Encoding"] = "gzip"
    if kind in ("stall", "truncate", "trickle", "chunked"):
        return await _in_parts(writer, code, body, more, fault)
    return await _send(writer, code, body, more)


async def _in_parts(writer, code, body, more, fault):
    """A body that does not come at once, or not all of it."""
    if fault["kind"] == "trickle":
        await _send(writer, code, b"", more, length=len(body))
        for part in range(8):
            await asyncio.sleep(fault["seconds"])
            writer.write(body[len(body) * part // 8 : len(body) * (part + 1) // 8])
            await writer.drain()
        return True
    if fault["kind"] == "chunked":
        writer.write(_head(code, {**more, "Transfer-Encoding": "chunked"}))
        writer.write(b"%x\r\n%b\r\n" % (len(body), body) * bool(body) + b"0\r\n\r\n")
        await writer.drain()
        return True
    await _send(writer, code, body[: len(body) // 2], more, length=len(body))
    if fault["kind"] == "stall":
        await asyncio.sleep(3600)
    return False


async def _send(writer, status, body, headers=None, length=None):
    length = len(body) if length is None else length
    # an answer of status 204 has no body, and says no length of it
    more = {} if status == 204 else {"Content-Length": length}
    writer.write(_head(status, {**more, **(headers or {})}) + body * (status != 204))
    await writer.drain()
    return True


def _head(status, headers):
    """The head of an answer."""
    lines = [f"HTTP/1.1 {status} x", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _page(folder):
    """A folder as a web page with links."""
    names = [
        name + "/" * os.path.isdir(os.path.join(folder, name))
        for name in sorted(os.listdir(folder))
    ]
    links = "".join(
        f'<li><a href="{urllib.parse.quote(name)}">{html.escape(name)}</a></li>' for name in names
    )
    return f"<html><body><ul>{links}</ul></body></html>".encode()


def _listing(folder, options):
    """A page of the objects of a bucket, as S3's ListObjectsV2 has it."""
    base, prefix = Path(folder or "/nowhere"), options.get("prefix", "")
    most = min(_PAGE, int(options.get("max-keys", _PAGE)))
    begin = options.get("continuation-token") or options.get("start-after") or ""
    keys = sorted(path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file())
    keys = [key for key in keys if key.startswith(prefix)]
    commons, found, mark = [], [], options.get("delimiter")
    for key in keys:
        place = key.find(mark, len(prefix)) if mark else -1
        name = key[: place + 1] if place >= 0 else key
        into = commons if place >= 0 else found
        # what lies below a common prefix that was listed comes after it, and was told by it
        is_told = begin.endswith("/") and name.startswith(begin)
        if name > begin and not is_told and name not in into:
            into.append(name)
    names = sorted(found + commons)
    page, is_cut = names[:most], len(names) > most
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>',
        f"<Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>",
        f"<IsTruncated>{str(is_cut).lower()}</IsTruncated>",
    ]
    if is_cut:
        lines.append(f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>")
    for name in page:
        if name in commons:
            lines.append(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>")
            continue
        status = (base / name).stat()
        lines.append(
            f"<Contents><Key>{escape(name)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f'<ETag>"{status.st_mtime_ns:x}-{status.st_size:x}"</ETag><Size>{status.st_size}</Size>'
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )
    return "".join([*lines, "</ListBucketResult>"]).encode()


def _made_up(count, options):
    """A page of the listing of so many objects, in a folder ``x``."""
    begin = int(options["continuation-token"]) if "continuation-token" in options else 0
    end = min(count, begin + _PAGE)
    about = "<LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size>"
    objects = "".join(
        f"<Contents><Key>x/{n:08d}</Key>{about}</Contents>" for n in range(begin, end)
    )
    left = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < count else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Prefix>x/</Prefix>'
        f"<KeyCount>{end - begin}</KeyCount><IsTruncated>{str(end < count).lower()}</IsTruncated>"
        f"{objects}{left}</ListBucketResult>"
    ).encode()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that a request takes")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--secret")
    arguments = parser.parse_args()
    asyncio.run(_serve(_Site(arguments.folder, arguments.delay, arguments.secret), arguments.port))
