"""The states of a disk that a power cut may leave after any prefix of a writer's operations, by two models.

*posix*: a name is safe once its folder was synced, and bytes once their file was; until then any subset of the changes
of names may have reached the disk. *ordered*: changes of names reach the disk in their order, as with a journal, and any
fsync makes all earlier ones safe. In both, of bytes that were not synced none, half or all are on the disk.
"""

from __future__ import annotations

import itertools
import os
from pathlib import PurePosixPath

# What a name refers to: this for a folder, an integer for a file.
FOLDER = "folder"


class Disk:
    """Names and bytes of files, as programs see them, and what of them survives a power cut."""

    def __init__(self, files, ordered):
        self.ordered = ordered
        self.bytes = dict(enumerate(files.values()))
        self.safe_bytes = dict(self.bytes)
        self.names = {path: file for file, path in enumerate(files)}
        self.safe_names = dict(self.names)
        self.pending = []  # changes of names that are not safe yet
        self.open = {}
        self.done = False

    def apply(self, words):
        """Apply one operation of a trace."""
        kind, arguments = words[1], words[3:]
        if kind == "mark":
            self.done = True
        elif kind == "open":
            self._open(int(arguments[0]), int(arguments[1]), arguments[2])
        elif kind == "write":
            file = self.open[int(arguments[0])]
            self.bytes[file] += bytes.fromhex(arguments[1])
        elif kind in ("fsync", "fdatasync"):
            self._sync(self.open[int(arguments[0])], arguments[1])
        elif kind in ("mkdir", "rename", "unlink"):
            self._change((kind, *arguments))

    def _open(self, descriptor, flags, path):
        if flags & os.O_CREAT and path not in self.names:
            file = len(self.bytes)
            self.bytes[file] = self.safe_bytes[file] = b""
            self._change(("create", path, file))
        self.open[descriptor] = self.names.get(path, FOLDER)
        if flags & os.O_TRUNC:
            self.bytes[self.open[descriptor]] = b""

    def _change(self, change):
        _change(self.names, change)
        self.pending.append(change)

    def _sync(self, what, path):
        if what != FOLDER:
            self.safe_bytes[what] = self.bytes[what]
        rest = []
        for change in self.pending:
            if self.ordered or (what == FOLDER and str(PurePosixPath(change[1]).parent) == path):
                _change(self.safe_names, change)
            else:
                rest.append(change)
        self.pending = rest

    def states(self):
        """Each {path: bytes or FOLDER} that a power cut may leave now."""
        for changes in self._subsets():
            names = dict(self.safe_names)
            for change in changes:
                _change(names, change)
            dirty = [
                file
                for file in self.bytes
                if self.bytes[file] != self.safe_bytes[file] and file in names.values()
            ]
            for parts in itertools.product(*(self._versions(file) for file in dirty)):
                on_disk = {**self.safe_bytes, **dict(zip(dirty, parts, strict=True))}
                yield {path: on_disk.get(file, FOLDER) for path, file in names.items()}

    def _subsets(self):
        if self.ordered:
            return [self.pending[:count] for count in range(len(self.pending) + 1)]
        count = len(self.pending)
        assert count <= 10, "too many changes to try all their combinations"
        return [
            [c for n, c in enumerate(self.pending) if chosen >> n & 1] for chosen in range(2**count)
        ]

    def _versions(self, file):
        old, new = self.safe_bytes[file], self.bytes[file]
        half = new[: (len(old) + len(new)) // 2] if new.startswith(old) else new[: len(new) // 2]
        return {old, half, new, b""} if not new.startswith(old) else {old, half, new}


def _change(names, change):
    kind, path = change[:2]
    if kind == "create":
        names[path] = change[2]
    elif kind == "mkdir":
        names[path] = FOLDER
    elif kind == "unlink":
        names.pop(path, None)
    elif path in names:
        names[change[2]] = names.pop(path)


def crash_states(trace, files):
    """Each distinct (whether the writer had reported success, {path: bytes or FOLDER}) that a power cut may leave.

    ``files`` are the bytes of the files that exist before the trace, by path.
    """
    seen = set()
    made = {words[3] for words in trace if words[1] == "mkdir"}
    for ordered in (False, True):
        disk = Disk(files, ordered)
        for words in [None, *trace]:
            if words is not None:
                disk.apply(words)
            for state in disk.states():
                whole = {
                    path: what
                    for path, what in state.items()
                    if all(
                        str(parent) in state
                        for parent in PurePosixPath(path).parents
                        if str(parent) in made
                    )
                }
                key = (disk.done, frozenset(whole.items()))
                if key not in seen:
                    seen.add(key)
                    yield disk.done, whole
