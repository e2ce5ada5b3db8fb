"""The paths of an index: a folder and names in it.

They are spelled out one by one when they are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from globidx.core.index.names import Names, Strings, common_folder


def is_remote(path: str) -> bool:
    """Whether it is a URL, as fsspec spells them: ``s3://bucket/a.zarr``, or a chain of them.

    >>> is_remote("https://host/a.zarr"), is_remote("/data/a.zarr")
    (True, False)
    >>> is_remote("simplecache::s3://bucket/a.zarr")
    True
    """
    return "://" in path and _scheme(path) is not None


def split_chain(url: str) -> tuple[str, str, str]:
    """The parts of a URL: before its path, the path, and after it.

    Of a chain, the path is that of the first link which has one: stores lie in that, and the others
    say how it is had.

    >>> split_chain("zip://in/a.zarr::s3://bucket/b.zip")
    ('zip://', 'in/a.zarr', '::s3://bucket/b.zip')
    >>> split_chain("simplecache::s3://bucket/a.zarr")
    ('simplecache::s3://', 'bucket/a.zarr', '')
    """
    scheme, separator, rest = url.partition("://")
    path, link, behind = rest.partition("::")
    return scheme + separator, path, link + behind


def split_zip(url: str) -> tuple[str, str | None] | None:
    """The zip file that a URL is or leads into, and the folder in it; None of any other URL.

    No folder: that of the one store there.

    >>> split_zip("zip://in/a.zarr::s3://bucket/b.zip"), split_zip("zip://::/data/b.zip")
    (('s3://bucket/b.zip', 'in/a.zarr'), ('/data/b.zip', None))
    >>> split_zip("s3://bucket/b.zarr.zip"), split_zip("s3://bucket/a.zarr")
    (('s3://bucket/b.zarr.zip', None), None)
    """
    if not is_remote(url):
        return None
    head, path, behind = split_chain(url)
    if head == "zip://" and behind:
        return behind.removeprefix("::"), path.strip("/") or None
    return (url, None) if path.lower().endswith(".zip") else None


def subfolders(path: str) -> list[str]:
    """The names of the folders in a local folder; none where there is no folder."""
    try:
        with os.scandir(path) as listing:
            return [entry.name for entry in listing if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def join(path: str, *names: str) -> str:
    """A path or URL below another one.

    >>> join("/data/a.zarr", "x", ""), join("zip://a.zarr::/b.zip", "x", "0.0")
    ('/data/a.zarr/x', 'zip://a.zarr/x/0.0::/b.zip')
    """
    below = [name for name in names if name]
    if not is_remote(path):
        return "/".join([path, *below])
    head, first, behind = split_chain(path)
    return head + "/".join([*filter(None, [first]), *below]) + behind


def _scheme(path: str) -> str | None:
    """``"s3:"`` of ``"s3://bucket"``, ``"simplecache::s3:"`` of a chain; None of a local path."""
    scheme, colon, _ = path.partition("://")
    links = scheme.split("::")
    return (
        f"{scheme}:"
        if colon and all(link.replace("+", "").replace("-", "").isalnum() for link in links)
        else None
    )


class Paths(Strings):
    """``names`` in the folder ``root``, which may be a URL.

    >>> paths = Paths.of([b"/data/b/x.h5", b"/data/a/y.h5"])
    >>> paths.root, paths[1], len(paths)
    ('/data', '/data/a/y.h5', 2)
    """

    __slots__ = ("names", "root")

    def __init__(self, root: str, names: Names) -> None:
        self.root, self.names = root, names

    @classmethod
    def of(cls, paths: Iterable[bytes]) -> Paths:
        """Absolute paths, their names counted from the deepest folder that holds them all."""
        whole = Names.of(paths)
        if not len(whole):
            return cls("/", whole)
        # a prefix of the smallest and the largest is one of all; a million paths are not split
        ends = [end for block in whole.blocks() for end in (min(block), max(block))]
        cut = common_folder([os.fsdecode(min(ends)), os.fsdecode(max(ends))])
        folder = os.fsdecode(ends[0])[:cut]
        length = len(os.fsencode(folder))
        root = folder.rstrip("/")
        return cls(
            folder if root in ("", _scheme(folder)) else root,
            Names.of(path[length:] for block in whole.blocks() for path in block),
        )

    @property
    def base(self) -> bytes:
        """The prefix of every path, as bytes."""
        return os.fsencode(os.path.join(self.root, ""))

    def encoded(self, start: int, stop: int) -> list[bytes]:
        """The paths ``[start, stop)`` as bytes."""
        base = self.base
        # bytes, since a name on Linux need not be UTF-8
        return [base + name for name in self.names.encoded(start, stop)]

    def __len__(self) -> int:
        return len(self.names)

    def _at(self, row: int) -> str:
        return os.path.join(self.root, self.names[row])

    def __iter__(self) -> Iterator[str]:
        return (os.path.join(self.root, name) for name in self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            repr(list(self))
            if len(self) <= 8
            else f"[{self[0]!r}, ..., {self[-1]!r}] ({len(self)} paths)"
        )
