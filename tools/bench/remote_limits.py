"""What the line of this machine carries, and what a client does with its share of the cores, for ``remote.py``.

Everyone asks for the same chunks of the same server, so many at a time. "loopback" has no protocol and no delay:
``sendfile`` into sockets out of the page cache, ``recv_into`` out of them. "sockets" are requests of HTTP, read into
fresh memory. "obstore" gets and drops, "obstore, bytes" takes what came as bytes of Python, which is a copy.
"requests" are those of the dataset, neither planned, decoded nor stacked. "dataset" is all of it, once more with four
times the bytes ahead: what has come and waits for its batch takes the place of what could be asked for.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from globidx.disk.remote.line import Line
from globidx.disk.remote.objects import Piece
from globidx.disk.remote.retries import REQUESTS

#: Connections of "loopback": more of them carry no more.
CONNECTIONS = 8


class Cost(NamedTuple):
    """Chunks a second, and seconds of CPU a chunk, here and in the server."""

    rate: float
    client: float
    server: float


def cost(work: Callable[[], int], pid: int) -> Cost:
    """That of the chunks that ``work`` counts, with the server in another process."""
    before, used, begun = _cpu(pid), process_time(), perf_counter()
    count = work()
    seconds, used = perf_counter() - begun, process_time() - used
    return Cost(count / seconds, used / count, (_cpu(pid) - before) / count)


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# -- who carries


def loopback(kib: int, count: int) -> Cost:
    """``sendfile`` in another process, ``recv_into`` in threads of this one."""
    size = kib * 1024
    with _sending(size) as (pid, port):

        def receive(times: int) -> int:
            memory = memoryview(bytearray(size))
            with socket.create_connection(("127.0.0.1", port)) as one:
                for _ in range(times):
                    one.sendall(b"x")
                    _fill(one, memory)
            return times

        times = max(1, count // CONNECTIONS)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return cost(lambda: sum(pool.map(receive, [times] * CONNECTIONS)), pid)


@contextmanager
def _sending(size: int) -> Iterator[tuple[int, int]]:
    """A process that sends so many bytes for each byte that it gets, and its port."""
    pipe = subprocess.PIPE
    command = [sys.executable, __file__, str(size)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        yield process.pid, int(process.stdout.readline())
        process.stdin.close()


def _send(size: int) -> None:
    """Be that process, until its standard input ends."""
    with tempfile.TemporaryFile() as file, socket.create_server(("127.0.0.1", 0)) as listener:
        file.write(os.urandom(size))
        file.flush()

        def serve(one: socket.socket) -> None:
            while one.recv(1):
                sent = 0
                while sent < size:
                    sent += os.sendfile(one.fileno(), file.fileno(), sent, size - sent)

        def accept() -> None:
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        print(listener.getsockname()[1], flush=True)
        sys.stdin.read()
        os._exit(0)


def _fill(one: socket.socket, memory: memoryview) -> None:
    while memory:
        memory = memory[one.recv_into(memory) :]


def by_sockets(urls: Sequence[str]) -> int:
    """Requests of HTTP by threads, each with a connection."""
    host = urlsplit(urls[0]).netloc
    address = host.partition(":")[0], int(host.partition(":")[2])

    def fetch(some: Sequence[str]) -> None:
        with socket.create_connection(address) as one:
            for url in some:
                one.sendall(f"GET {urlsplit(url).path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                head = b""
                while b"\r\n\r\n" not in head:
                    head += one.recv(1024)
                head, _, came = head.partition(b"\r\n\r\n")
                length = next(line for line in head.split(b"\r\n") if b"Content-Length" in line)
                memory = memoryview(bytearray(int(length.partition(b":")[2])))
                memory[: len(came)] = came
                _fill(one, memory[len(came) :])

    with ThreadPoolExecutor(REQUESTS) as pool:
        list(pool.map(fetch, [urls[first::REQUESTS] for first in range(REQUESTS)]))
    return len(urls)


def by_obstore(urls: Sequence[str], *, copied: bool) -> int:
    """Requests by obstore, waited for by threads."""
    import obstore
    from obstore.store import HTTPStore

    parts = urlsplit(urls[0])
    client = {"allow_http": True, "timeout": "60s"}
    store: Any = HTTPStore.from_url(f"{parts.scheme}://{parts.netloc}", client_options=client)

    def fetch(url: str) -> None:
        came = obstore.get(store, urlsplit(url).path.lstrip("/")).bytes()
        if copied:
            came.to_bytes()

    with ThreadPoolExecutor(REQUESTS) as pool:
        for _ in pool.map(fetch, urls):
            pass
    return len(urls)


def by_requests(urls: Sequence[str], line: Line | None = None) -> int:
    """The requests of the dataset, whose answers are dropped."""
    own = line or Line()
    objects, _ = own.at(urls[0])

    def fetch(key: str) -> None:
        objects.get(Piece(key))

    own.map(fetch, [own.at(url)[1] for url in urls])
    if line is None:
        own.close()
    return len(urls)


CARRIERS: dict[str, Callable[[Sequence[str]], int]] = {
    "sockets": by_sockets,
    "obstore": partial(by_obstore, copied=False),
    "obstore, bytes": partial(by_obstore, copied=True),
    "requests": by_requests,
}


def limits(
    urls: Sequence[str], kib: int, pid: int, datasets: dict[str, Callable[[], int]], rounds: int
) -> dict[str, Cost]:
    """The best of all, each in turn."""
    carriers = {name: partial(work, urls) for name, work in CARRIERS.items()}
    best: dict[str, Cost] = {}
    for _ in range(rounds):
        found = {"loopback": loopback(kib, len(urls))}
        for name, work in {**carriers, **datasets}.items():
            found[name] = cost(work, pid)
        for name, one in found.items():
            best[name] = max(best.get(name, one), one)
    return best


if __name__ == "__main__":
    _send(int(sys.argv[1]))
