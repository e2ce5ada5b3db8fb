"""Zip files of stores, for tests."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

from files import write_zarr


def packed(folder, path, *, below="", method=zipfile.ZIP_STORED, streamed=False, front=b""):
    """The zip file at ``path`` of all in ``folder``, below a folder of its own if one is named."""
    with path.open("wb") as file:
        file.write(front)
        with zipfile.ZipFile(_Unseekable(file) if streamed else file, "w", method) as archive:
            for member in sorted(Path(folder).rglob("*")):
                archive.write(member, Path(below) / member.relative_to(folder))
    return path


class _Unseekable:
    """A file that cannot go back, so that sizes stand behind each member and not before it."""

    def __init__(self, file):
        self._file = file

    def write(self, data):
        return self._file.write(data)

    def flush(self):
        self._file.flush()


def zip_of(tmp_path, data, *, name="a.zarr.zip", method=zipfile.ZIP_STORED, **options):
    """A zip file with one store of ``data``."""
    folder = tmp_path / "folder" / name
    write_zarr(folder, data, **options)
    (tmp_path / "zips").mkdir(exist_ok=True)
    return packed(folder, tmp_path / "zips" / name, method=method)


def without(path, *endings):
    """The same zip file less the members whose names end so."""
    less = path.with_name(f"less-{path.name}")
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(less, "w") as archive:
        for name in whole.namelist():
            if not name.endswith(endings):
                archive.writestr(name, whole.read(name))
    return less


def patched(path, ending, offset, value, shape="<H"):
    """Set a number of the central directory's record of a member."""
    data = bytearray(path.read_bytes())
    record = data.rfind(b"PK\x01\x02", 0, data.rfind(ending))
    struct.pack_into(shape, data, record + offset, value)
    path.write_bytes(data)


def with_extra(path, name, extra):
    """The same zip file with so many bytes more behind the name in the local header of a member alone."""
    with zipfile.ZipFile(path) as archive:
        found, infos = archive.getinfo(name), archive.infolist()
        start = archive.start_dir
    data = bytearray(path.read_bytes())
    header = found.header_offset
    length, had = struct.unpack_from("<HH", data, header + 26)
    place = header + 30 + length + had
    # the offsets of all that follows, from the back
    at = start
    for info in infos:
        if info.header_offset > header:
            struct.pack_into("<I", data, at + 42, info.header_offset + extra)
        at += 46 + sum(struct.unpack_from("<HHH", data, at + 28))
    struct.pack_into("<I", data, at + 16, start + extra)
    struct.pack_into("<H", data, header + 28, had + extra)
    data[place:place] = b"\xee\xee" + struct.pack("<H", extra - 4) + bytes(extra - 4)
    path.write_bytes(data)
    return path


def damage(path, place, bit):
    """Flip a bit of the byte at a share of a file's length, or cut the file there (-1)."""
    whole = bytearray(path.read_bytes())
    at = int(place * len(whole))
    if bit < 0:
        whole = whole[:at]
    else:
        whole[at] ^= 1 << bit
    path.write_bytes(whole)
