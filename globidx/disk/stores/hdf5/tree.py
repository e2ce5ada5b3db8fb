"""The groups and datasets of an HDF5 file, many of them, by HDF5's own functions.

The objects that h5py makes around a dataset cost several times what HDF5 needs to look it up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5l, h5o, h5t
from numpy.typing import NDArray

from globidx.core.values import dtypes
from globidx.core.values.packing import ATTRIBUTES
from globidx.disk.stores.find_sequences import Described, unwritten
from globidx.disk.stores.hdf5 import external
from globidx.disk.stores.hdf5.external import Target
from globidx.disk.stores.hdf5.filters import require_filters
from globidx.disk.stores.hdf5.presence import Presence
from globidx.disk.stores.index_entries import packing_of
from globidx.errors import MissingChunkError

#: The attributes that pack integers, and floats.
_NAMES = tuple(name.encode() for name in ATTRIBUTES)
_NAMES_OF_FLOATS = tuple(name for name in _NAMES if name not in (b"_Unsigned", b"dtype"))

Description = tuple[tuple[int, ...], Any, tuple[int, ...] | None, list[Any]]


def description(dataset: h5d.DatasetID, plist: Any = None) -> Description:
    """Shape, dtype, chunks and filters of a dataset; ValueError for a dtype that numpy has not."""
    plist = plist or dataset.get_create_plist()
    chunks = plist.get_chunk() if plist.get_layout() == h5d.CHUNKED else None
    filters = [plist.get_filter(number)[:3] for number in range(plist.get_nfilters())]
    try:
        dtype = dataset.dtype
    except TypeError as error:
        # HDF5's own times, which PyTables writes, have none
        name = h5py.h5i.get_name(dataset).decode(errors="replace").strip("/")
        raise ValueError(f"array {name!r} cannot be read by h5py: {error}") from None
    return dataset.shape or (), dtype, chunks, filters


def packing_in(dataset: h5d.DatasetID, dtype: Any) -> str:
    """How the numbers of a dataset are packed, as ``packing_of`` says it."""
    # most have no attributes at all
    if not h5a.get_num_attrs(dataset):
        return ""
    names = _NAMES if dtype.kind in "iu" else _NAMES_OF_FLOATS
    stored = [_stored(dataset, name) for name in names if h5a.exists(dataset, name)]
    return _packing(dtype, tuple(stored)) if stored else ""


def _stored(dataset: h5d.DatasetID, name: bytes) -> tuple[bytes, Any, bytes]:
    """The name, type and bytes of an attribute; of text, what h5py makes of it."""
    attribute = h5a.open(dataset, name)
    if not attribute.get_space().get_simple_extent_npoints():
        # nothing, whose bytes HDF5 does not give
        return name, None, b""
    kind = attribute.get_type()
    if kind.get_class() not in (h5t.INTEGER, h5t.FLOAT):
        text = h5py.Dataset(dataset).attrs[name.decode()]
        return name, None, text if isinstance(text, bytes) else str(text).encode()
    data = np.empty(attribute.get_storage_size(), np.uint8)
    attribute.read(data, mtype=kind)
    return name, kind.encode(), data.tobytes()


# the same in most files: it is found by bytes, since each object of h5py costs as much as all else
@lru_cache(1024)
def _packing(dtype: Any, stored: tuple[tuple[bytes, Any, bytes], ...]) -> str:
    attributes = {
        name.decode(): data.decode()
        if kind is None
        else np.frombuffer(data, h5t.decode(kind).dtype)
        for name, kind, data in stored
    }
    return packing_of(attributes.get, dtype)


class Hdf5Tree:
    """What lies in an open file.

    ``targets`` are the other files that data was seen to come from.
    """

    def __init__(self, file: h5py.File, *, allow: bool) -> None:
        self._file, self._allow = file, allow
        self.targets: list[Target] = []
        #: Paths to which hard links alone lead: what lies there is in this very file.
        self._plain = {""}

    def groups(self, path: str) -> Iterable[str]:
        """The names of all that is in the group at ``path``; nothing where there is no group."""
        if path and not self._exists(path):
            return []
        node = self._file[path or "/"]
        if not isinstance(node, h5py.Group):
            return []
        return list(node)

    def describe(self, path: str) -> Described | None:
        """The dataset at ``path``; None where there is none."""
        # "" is the file, and no dataset
        if not path or not self._exists(path):
            return None
        name = path.encode()
        is_plain = path in self._plain
        opened = h5o.open(self._file.id, name)
        if not isinstance(opened, h5d.DatasetID):
            return None
        plist = opened.get_create_plist()
        layout = plist.get_layout()
        # nothing else can take its data from another file
        if not is_plain or layout == h5d.VIRTUAL or plist.get_external_count():
            self.targets += external.follow_links(self._file, path, allow=self._allow)
            self.targets += external.sources(h5py.Dataset(opened), allow=self._allow)
        require_filters(plist, path)
        shape, dtype, chunks, filters = description(opened, plist)
        packing = packing_in(opened, dtype)
        return Described(
            shape, dtype, chunks, packing, (shape, dtypes.told(dtype), chunks, filters, packing)
        )

    def read(self, path: str) -> NDArray[Any]:
        """All of the dataset at ``path``; ValueError where there is none, or a part of it was never written.

        Flags that were never written are not set.
        """
        node = self._file[path] if self._exists(path) else None
        if not isinstance(node, h5py.Dataset):
            raise ValueError(f"it has no array {path!r}")
        self.targets += external.sources(node, allow=self._allow)
        if node.dtype.kind != "b":
            try:
                Presence(node, 0, allow=self._allow).require_all(fill=False)
            except MissingChunkError as error:
                raise ValueError(unwritten(error)) from None
        return np.asarray(node[()])

    def attributes(self, path: str) -> Mapping[str, Any]:
        """The attributes of the group at ``path`` that h5py can read."""
        node = self._file[path or "/"]
        found = {}
        for name in node.attrs:
            # of a type that numpy has not
            with suppress(OSError, TypeError):
                found[name] = node.attrs[name]
        return found

    def _exists(self, path: str) -> bool:
        """Whether there is something at ``path``.

        No part of it may lead to a file that may not be opened.
        """
        if path in self._plain:
            return True
        parent = path.rpartition("/")[0]
        if not self._exists(parent):
            return False
        try:
            kind = self._file.id.links.get_info(path.encode()).type
        except (KeyError, RuntimeError):
            return False
        if kind == h5l.TYPE_HARD and parent in self._plain:
            # remembered: of many thousand paths most have a parent in common
            self._plain.add(path)
            return True
        self.targets += external.follow_links(self._file, path, allow=self._allow)
        try:
            return isinstance(self._file[path], (h5py.Group, h5py.Dataset))
        except KeyError:
            return False
