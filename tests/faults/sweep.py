"""Injects every fault into every file operation of every writer, and tries every state that a power cut may leave.

``python tests/faults/sweep.py`` runs all checks and prints how many faults were injected, and how many promises broke.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import crashstates
from scenarios import RUNS as SCENARIOS
from writers import WRITERS, make_data
from zygote import Zygote, build_shim

ERRORS = [errno.ENOSPC, errno.EIO, errno.EINTR, errno.EDQUOT, errno.EROFS, errno.EACCES]
READING_ERRORS = [errno.EIO, errno.EACCES, errno.EMFILE]


@dataclass
class Tally:
    """How many faults were injected, and which promises they broke."""

    injected: int = 0
    violations: list[str] = field(default_factory=list)

    def __iadd__(self, other):
        self.injected += other.injected
        self.violations += other.violations
        return self


#: The tallies of this test run, for the line that ``conftest`` prints at its end.
TALLIES: list[Tally] = []


def faults(trace):
    """(operation, mode, index, errno) of each fault that can be injected into the operations of a trace."""
    for words in trace:
        at, kind, changes = int(words[0]), words[1], words[2] == "1"
        if kind == "mark":
            continue
        if changes:
            yield from ((words, "k", at, 0), (words, "K", at, 0))
            yield from ((words, "e", at, error) for error in ERRORS)
            yield from ((words, "E", at, error) for error in (errno.ENOSPC, errno.EIO))
            yield words, "a", at, errno.EIO
        else:
            yield from ((words, "e", at, error) for error in READING_ERRORS)
        if kind == "write":
            yield from ((words, mode, at, 0) for mode in "tsS")


class Harness:
    """Runs writers with faults injected, each in a folder of its own."""

    def __init__(self, shim):
        # The shim injects faults above the file system, so a file system in memory will do: its fsync is fast.
        parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self._home = tempfile.TemporaryDirectory(prefix="globidx-faults-", dir=parent)
        self.home = Path(self._home.name)
        (self.home / "files").mkdir()
        make_data(self.home / "files")
        self.zygote = Zygote(shim)
        self._folders = 0

    def folder(self):
        """A new, empty folder."""
        self._folders += 1
        path = self.home / f"{self._folders}"
        path.mkdir()
        return path

    def sees(self):
        """Whether the shim is active: it records the rename of a file."""
        folder = self.folder()
        WRITERS["reseal"].prepare(folder)
        return "rename" in [words[1] for words in self.zygote.trace("reseal", folder)]

    def close(self):
        """End the zygote and remove all folders."""
        self.zygote.close()
        self._home.cleanup()

    def sweep(self, name, mutant=None):
        """Inject every fault into every operation of a writer; after each, judge the folder and start the writer again."""
        writer, tally = WRITERS[name], Tally()
        traced = self.folder()
        writer.prepare(traced)
        trace = self.zygote.trace(name, traced, mutant=mutant)
        done_at = next(int(words[0]) for words in trace if words[1] == "mark")
        for words, mode, at, error in faults(trace):
            folder = self.folder()
            writer.prepare(folder)
            result = self.zygote.run(name, folder, mode=mode, at=at, error=error, mutant=mutant)
            tally.injected += 1
            wrong = _judged(writer, folder, result, words[1], mode, error, at > done_at)
            if not wrong:
                wrong = _tried_again(writer, folder)
            label = f"{name}: {mode} {errno.errorcode.get(error, '')} at {at} {words[1]}: {result['outcome']}"
            tally.violations += [f"{label}: {violation}" for violation in wrong]
            shutil.rmtree(folder)
            if mutant and wrong:
                break
        return tally

    def twice(self, name, mutant=None):
        """Kill a writer at every operation, kill the next start at every operation too, then start it once more."""
        writer, tally = WRITERS[name], Tally()
        traced = self.folder()
        writer.prepare(traced)
        kill_points = [
            int(words[0])
            for words in self.zygote.trace(name, traced, mutant=mutant)
            if words[2] == "1"
        ]
        for first in kill_points:
            for second in kill_points:
                folder = self.folder()
                writer.prepare(folder)
                for at in (first, second):
                    self.zygote.run(name, folder, mode="k", at=at, mutant=mutant)
                tally.injected += 2
                tally.violations += [
                    f"{name}: killed at {first} and {second}: {e}"
                    for e in _tried_again(writer, folder)
                ]
                shutil.rmtree(folder)
        return tally

    def crash(self, name, mutant=None):
        """Start a writer on every state that a power cut may leave after any of its operations."""
        writer, tally = WRITERS[name], Tally()
        traced = self.folder()
        writer.prepare(traced)
        before = {str(path): path.read_bytes() for path in traced.iterdir()}
        trace = self.zygote.trace(name, traced, mutant=mutant)
        for done, state in crashstates.crash_states(trace, before):
            folder = self.folder()
            for path, what in sorted(state.items()):
                target = folder / Path(path).relative_to(traced)
                target.mkdir(parents=True) if what == crashstates.FOLDER else target.write_bytes(
                    what
                )
            tally.injected += 1
            wrong = writer.judge(folder, must=done, may=True) if writer.durable else []
            wrong = wrong or _tried_again(writer, folder)
            tally.violations += [
                f"{name} after a power cut{' after its end' * done}: {each}" for each in wrong
            ]
            shutil.rmtree(folder)
            if mutant and wrong:
                break
        return tally

    def scenario(self, name, mutant=None):
        """Run one of ``scenarios`` in a child."""
        result = self.zygote.run(name, self.folder(), mutant=mutant)
        if result["outcome"] != "returned":
            return Tally(1, [f"{name}: {result}"])
        return Tally(
            result["value"][0], [f"{name}: {violation}" for violation in result["value"][1]]
        )


def _judged(writer, folder, result, kind, mode, error, after_the_end):
    """Which promises are broken, given how the writer ended."""
    if result["outcome"] == "lost":
        return [f"the writer ended as {result}"]
    if result["outcome"] == "killed":
        return writer.judge(folder, must=after_the_end, may=True)
    if not result["fired"] and mode not in "sS":
        return ["the fault did not happen"]
    if result["outcome"] == "returned":
        fsync_failed = (
            kind == "fsync" and mode in "eEa" and error != errno.EINTR
        )  # which Python tries again
        return ["it returned although fsync had failed"] * fsync_failed + writer.judge(
            folder, must=True, may=True
        )
    if not writer.durable:
        return [f"it raised {result['type']}: {result['message']}"]
    written = result["state"] == "written, durability unknown"
    return writer.judge(folder, must=written, may=written)


def _tried_again(writer, folder):
    try:
        return writer.again(folder)
    except Exception as error:  # noqa: BLE001 - any error breaks the promise
        return [f"the next start failed: {type(error).__name__}: {error}"]


CHECKS: dict[str, Callable[..., Tally]] = {
    **{
        f"faults: {name}": lambda h, mutant=None, name=name: h.sweep(name, mutant)
        for name in WRITERS
    },
    **{
        f"killed twice: {name}": lambda h, mutant=None, name=name: h.twice(name, mutant)
        for name in ("save", "reseal", "index")
    },
    **{
        f"power cut: {name}": lambda h, mutant=None, name=name: h.crash(name, mutant)
        for name in WRITERS
    },
    **{name: lambda h, mutant=None, name=name: h.scenario(name, mutant) for name in SCENARIOS},
}


def main():
    """Run all checks; 1 if a promise was broken."""
    total = Tally()
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        shim = build_shim(folder)
        if shim is None:
            print("needs Linux and gcc", file=sys.stderr)
            return 2
        harness = Harness(shim)
        try:
            for name, check in CHECKS.items():
                started = time.monotonic()
                tally = check(harness)
                total += tally
                print(
                    f"{name:32} {tally.injected:6} {len(tally.violations):4}  {time.monotonic() - started:6.1f} s"
                )
        finally:
            harness.close()
    for violation in total.violations:
        print(violation)
    print(f"{total.injected} faults injected, {len(total.violations)} violations")
    return int(bool(total.violations))


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
    sys.exit(main())
