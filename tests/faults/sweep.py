"""Every fault at every file operation of every writer, and what a power cut may leave of each; 0 violations expected.

``python tests/faults/sweep.py`` runs all of it and prints how many faults were injected and how many promises broken.
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
    """How many faults were injected, and which promises did not hold."""

    injected: int = 0
    violations: list[str] = field(default_factory=list)

    def __iadd__(self, other):
        self.injected += other.injected
        self.violations += other.violations
        return self


#: All tallies of this test run, for the line at its end.
TALLIES: list[Tally] = []


def faults(trace):
    """(operation, mode, errno) of all that can go wrong with the operations of a trace."""
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
    """A zygote, and folders to do harm in."""

    def __init__(self, shim):
        # In memory where there is such a place: these faults are made above the file system, and its fsync is slow.
        place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self._home = tempfile.TemporaryDirectory(prefix="globidx-faults-", dir=place)
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
        """Whether the shim takes part: it sees a file made."""
        folder = self.folder()
        WRITERS["reseal"].prepare(folder)
        return "rename" in [words[1] for words in self.zygote.trace("reseal", folder)]

    def close(self):
        """End the zygote and remove everything."""
        self.zygote.close()
        self._home.cleanup()

    def sweep(self, name, mutant=None):
        """Every fault at every operation of a writer, with the file read, and the writer started again, after each."""
        writer, tally = WRITERS[name], Tally()
        traced = self.folder()
        writer.prepare(traced)
        trace = self.zygote.trace(name, traced, mutant=mutant)
        done_at = next(int(words[0]) for words in trace if words[1] == "mark")
        for words, mode, at, error in faults(trace):
            folder = self.folder()
            writer.prepare(folder)
            said = self.zygote.run(name, folder, mode=mode, at=at, error=error, mutant=mutant)
            tally.injected += 1
            wrong = _judged(writer, folder, said, words[1], mode, error, at > done_at)
            if not wrong:
                wrong = _tried_again(writer, folder)
            label = f"{name}: {mode} {errno.errorcode.get(error, '')} at {at} {words[1]}: {said['outcome']}"
            tally.violations += [f"{label}: {violation}" for violation in wrong]
            shutil.rmtree(folder)
            if mutant and wrong:
                break
        return tally

    def twice(self, name, mutant=None):
        """Killed at any operation, started again, and killed again at any: then the next start."""
        writer, tally = WRITERS[name], Tally()
        traced = self.folder()
        writer.prepare(traced)
        places = [int(words[0]) for words in self.zygote.trace(name, traced, mutant=mutant) if words[2] == "1"]
        for first in places:
            for second in places:
                folder = self.folder()
                writer.prepare(folder)
                for at in (first, second):
                    self.zygote.run(name, folder, mode="k", at=at, mutant=mutant)
                tally.injected += 2
                tally.violations += [
                    f"{name}: killed at {first} and {second}: {e}" for e in _tried_again(writer, folder)
                ]
                shutil.rmtree(folder)
        return tally

    def crash(self, name, mutant=None):
        """Every state that a power cut may leave after any operation of a writer."""
        writer, tally = WRITERS[name], Tally()
        traced = self.folder()
        writer.prepare(traced)
        before = {str(path): path.read_bytes() for path in traced.iterdir()}
        trace = self.zygote.trace(name, traced, mutant=mutant)
        for done, state in crashstates.crash_states(trace, before):
            folder = self.folder()
            for path, what in sorted(state.items()):
                place = folder / Path(path).relative_to(traced)
                place.mkdir(parents=True) if what == crashstates.FOLDER else place.write_bytes(what)
            tally.injected += 1
            wrong = writer.judge(folder, must=done, may=True) if writer.durable else []
            wrong = wrong or _tried_again(writer, folder)
            tally.violations += [f"{name} after a power cut{' after its end' * done}: {each}" for each in wrong]
            shutil.rmtree(folder)
            if mutant and wrong:
                break
        return tally

    def scenario(self, name, mutant=None):
        """One of the stories of ``scenarios``, told in a child."""
        said = self.zygote.run(name, self.folder(), mutant=mutant)
        if said["outcome"] != "returned":
            return Tally(1, [f"{name}: {said}"])
        return Tally(said["value"][0], [f"{name}: {violation}" for violation in said["value"][1]])


def _judged(writer, folder, said, kind, mode, error, after_the_end):
    """Violations of what was promised for how the writer ended."""
    if said["outcome"] == "lost":
        return [f"the writer ended as {said}"]
    if said["outcome"] == "killed":
        return writer.judge(folder, must=after_the_end, may=True)
    if not said["fired"] and mode not in "sS":
        return ["the fault did not happen"]
    if said["outcome"] == "returned":
        fsync_failed = kind == "fsync" and mode in "eEa" and error != errno.EINTR  # which Python tries again
        return ["it came back though fsync had failed"] * fsync_failed + writer.judge(folder, must=True, may=True)
    if not writer.durable:
        return [f"it raised {said['type']}: {said['message']}"]
    written = said["state"] == "written, durability unknown"
    return writer.judge(folder, must=written, may=written)


def _tried_again(writer, folder):
    try:
        return writer.again(folder)
    except Exception as error:
        return [f"the next start failed: {type(error).__name__}: {error}"]


CHECKS: dict[str, Callable[..., Tally]] = {
    **{f"faults: {name}": lambda h, mutant=None, name=name: h.sweep(name, mutant) for name in WRITERS},
    **{
        f"killed twice: {name}": lambda h, mutant=None, name=name: h.twice(name, mutant)
        for name in ("save", "reseal", "index")
    },
    **{f"power cut: {name}": lambda h, mutant=None, name=name: h.crash(name, mutant) for name in WRITERS},
    **{name: lambda h, mutant=None, name=name: h.scenario(name, mutant) for name in SCENARIOS},
}


def main():
    """Run all checks; 1 where a promise did not hold."""
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
                print(f"{name:32} {tally.injected:6} {len(tally.violations):4}  {time.monotonic() - started:6.1f} s")
        finally:
            harness.close()
    for violation in total.violations:
        print(violation)
    print(f"{total.injected} faults injected, {len(total.violations)} violations")
    return int(bool(total.violations))


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
    sys.exit(main())
