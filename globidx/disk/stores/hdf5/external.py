"""Data that an HDF5 file takes from other files.

By external links, virtual datasets, or raw external storage.

One rule for all three. Another file is used if it is a regular file (a FIFO would be waited for for
ever) below the folder of the file that names it, or below a folder that the environment names for
HDF5. Others are used only with ``allow_external=True``: raw storage can name any file of this
machine, and its bytes would come as samples.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

import h5py
from h5py import h5l

from globidx.disk.stores.hdf5.ranges import is_by_url

#: Links behind links that are followed, as HDF5 does (H5L_NUM_LINKS).
_MOST_LINKS = 16
#: Numbered sources (``%b``) that are looked at.
_MOST_NUMBERED = 2**20
LINK = "HDF5_EXT_PREFIX"
VIRTUAL = "HDF5_VDS_PREFIX"
RAW = "HDF5_EXTFILE_PREFIX"


class Target(NamedTuple):
    """A dataset of another file; ``path`` is empty for raw bytes."""

    file: str
    path: str


def locate_file(name: str, beside: str, kind: str, *, allow: bool) -> str | None:
    """Where HDF5 finds the file that another one names.

    Parameters
    ----------
    name : str
        The name as it is stored.
    beside : str
        The file that names it.
    kind : str
        ``LINK``, ``VIRTUAL`` or ``RAW``.
    allow : bool
        Whether it may lie anywhere.

    Returns
    -------
    str or None
        The first path on HDF5's way that is there; None if there is none.

    Raises
    ------
    ValueError
        It is no regular file, or is outside the folders that are allowed.
    """
    if is_by_url(beside):
        # HDF5 would look for it in the working folder, on this machine
        raise ValueError(
            f"it takes data from {name!r}, and no other file is opened for one by URL; copy both to a disk"
        )
    first = None
    for path in _tried(name, beside, kind):
        try:
            mode = os.stat(path).st_mode
        except (OSError, ValueError):
            continue
        # also of those behind the first: HDF5 goes on to the next where one is no HDF5 file
        if not stat.S_ISREG(mode):
            raise ValueError(
                f"it takes data from {name!r}, and {path} is no regular file; it is not opened"
            )
        is_outside = not allow and not _is_below(path, _allowed(beside, kind))
        # HDF5 opens the first that is an HDF5 file, and never reaches what is behind that
        if is_outside and (first is None or not h5py.is_hdf5(first)):
            raise ValueError(
                f"it takes data from {name!r}, and {path} lies outside the folder of {beside}; "
                "if you trust the file, pass allow_external=True to GlobalIndexManager (--allow-external)"
            )
        first = first or path
    return first


def follow_links(file: Any, name: str, *, allow: bool, left: int = _MOST_LINKS) -> list[Target]:
    """The datasets of other files that lead to ``name``, link by link.

    Each is looked at before HDF5 opens it.

    ValueError where one is not there, or may not be opened. What is missing within a file is for
    HDF5 to say.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    for end in range(1, len(parts) + 1):
        path, rest = "/".join(parts[:end]), parts[end:]
        try:
            kind = file.id.links.get_info(path.encode()).type
        except (KeyError, RuntimeError):
            return []
        if kind == h5l.TYPE_HARD:
            continue
        if not left:
            raise ValueError(f"{name!r} is behind more than {_MOST_LINKS} links")
        if kind == h5l.TYPE_SOFT:
            to = os.fsdecode(file.id.links.get_val(path.encode()))
            base = "" if to.startswith("/") else "/".join(parts[: end - 1])
            return follow_links(file, "/".join([base, to, *rest]), allow=allow, left=left - 1)
        name_of_file, inner = map(os.fsdecode, file.id.links.get_val(path.encode()))
        located = locate_file(name_of_file, file.filename, LINK, allow=allow)
        if located is None:
            raise ValueError(f"it takes data from {name_of_file!r}, which is not there")
        further = "/".join([inner, *rest])
        with h5py.File(located, "r") as other:
            return [
                Target(located, further),
                *follow_links(other, further, allow=allow, left=left - 1),
            ]
    return []


def is_plain_path(file: Any, name: str) -> bool:
    """Whether hard links alone lead to ``name``, so that it is in this very file."""
    parts = name.strip("/").split("/")
    paths = ("/".join(parts[:end]).encode() for end in range(1, len(parts) + 1))
    return all(file.links.get_info(path).type == h5l.TYPE_HARD for path in paths)


def sources(dataset: Any, *, allow: bool) -> list[Target]:
    """Data of other files that a dataset of an open file is made of.

    ValueError where one of them is not there.
    """
    targets, beside = [], dataset.file.filename
    for name, _, _ in dataset.external or ():
        targets.append((Target(name, ""), locate_file(name, beside, RAW, allow=allow)))
    if dataset.is_virtual:
        plist = dataset.id.get_create_plist()
        named = {
            (plist.get_virtual_filename(index), plist.get_virtual_dsetname(index))
            for index in range(plist.get_virtual_count())
        }
        for name, path in sorted(named):
            if name != ".":
                targets += numbered_sources(name, path, beside, allow=allow)
    for target, located in targets:
        if located is None:
            raise ValueError(
                f"dataset {dataset.name.strip('/')!r} takes data from {target.file!r}, which is not there"
            )
    return [Target(located, target.path) for target, located in targets if located is not None]


def numbered_sources(
    name: str, path: str, beside: str, *, allow: bool
) -> Iterator[tuple[Target, str | None]]:
    """The existing sources that a name with ``%b`` stands for.

    A name without it stands for itself.
    """
    if "%" not in name.replace("%%", ""):
        target = Target(name.replace("%%", "%"), path)
        yield target, locate_file(target.file, beside, VIRTUAL, allow=allow)
        return
    for number in range(_MOST_NUMBERED):
        target = Target(
            *(text.replace("%b", str(number)).replace("%%", "%") for text in (name, path))
        )
        located = locate_file(target.file, beside, VIRTUAL, allow=allow)
        if located is None:
            return
        yield target, located


def external_bytes(dataset: Any, *, allow: bool) -> int:
    """The number of bytes before the first gap in a dataset's raw files.

    HDF5 reads zeros past the end of one.
    """
    held = 0
    for name, offset, size in dataset.external:
        located = locate_file(name, dataset.file.filename, RAW, allow=allow)
        expected = min(size, dataset.nbytes - held)
        available = (
            0 if located is None else max(0, min(expected, os.path.getsize(located) - offset))
        )
        held += available
        if available < expected:
            break
    return held


def _tried(name: str, beside: str, kind: str) -> Iterator[str]:
    """The paths that HDF5 tries in turn.

    See H5F_prefix_open_file, and H5D__build_file_prefix for raw storage.
    """
    folder = os.path.dirname(os.path.abspath(beside))
    prefixes = _prefixes(folder, kind)
    if kind == RAW:
        # relative to the working folder, unless the environment says otherwise; nothing else is
        # tried
        yield os.path.join(*prefixes[:1], name)
        return
    if os.path.isabs(name):
        yield name
        name = os.path.basename(name)
    for prefix in prefixes:
        yield os.path.join(prefix, name)
    yield os.path.join(folder, name)
    yield os.path.abspath(name)
    yield os.path.join(os.path.dirname(os.path.realpath(beside)), name)


def _prefixes(folder: str, kind: str) -> list[str]:
    text = os.environ.get(kind, "")
    whole = text.replace("${ORIGIN}", folder, 1) if text.startswith("${ORIGIN}") else text
    several = [] if kind == RAW else text.split(":")
    return [prefix for prefix in dict.fromkeys([whole, *several]) if prefix not in ("", ".")]


def _allowed(beside: str, kind: str) -> list[str]:
    folder = os.path.dirname(os.path.abspath(beside))
    return [folder, os.path.dirname(os.path.realpath(beside)), *_prefixes(folder, kind)]


def _is_below(path: str, folders: list[str]) -> bool:
    # a link in the folder may lead out of it
    real = os.path.realpath(path)
    return any(real.startswith(os.path.join(os.path.realpath(folder), "")) for folder in folders)


class GuardedGroup:
    """A group of an open file that looks at what links lead to before it opens that.

    KeyError, as where there is nothing, for what may not be opened.
    """

    def __init__(self, group: Any, path: str = "", *, allow: bool) -> None:
        self._file = group.file
        self._path = path
        self._allow = allow
        self.attrs = group.attrs
        self._group = group

    def __iter__(self) -> Iterator[str]:
        return iter(self._group)

    def __getitem__(self, name: str) -> Any:
        path = name if name.startswith("/") else f"{self._path}/{name}"
        try:
            follow_links(self._file, path, allow=self._allow)
        except ValueError as error:
            raise KeyError(str(error)) from None
        node = self._file[path]
        if not isinstance(node, h5py.Group):
            return node
        guarded = GuardedGroup(node, path, allow=self._allow)
        guarded._file = self._file
        return guarded
