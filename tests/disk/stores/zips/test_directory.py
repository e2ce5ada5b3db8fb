"""The directory of a zip file, in arrays, is the one that ``zipfile`` lists."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.disk.stores.base import OtherFormatError
from globidx.disk.stores.zips.directory import parsed

names = st.lists(
    st.sampled_from(["zarr.json", "a/zarr.json", "a/b/.zarray", "größe", "c/0", "c/1", "x/y/z"]),
    max_size=12,
)


def written(names, method=zipfile.ZIP_STORED):
    """A zip file of members with these names, each with bytes of its own."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, name in enumerate(names):
            archive.writestr(name, bytes([number]) * (5 * number))
    return file


@settings(max_examples=60)
@given(names=names, method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
def test_members_are_those_that_zipfile_lists(names, method):
    """The last one of a name; and where what follows it begins."""
    file = written(names, method)
    directory = parsed(file, "version")
    with zipfile.ZipFile(file) as archive:
        listed, end = archive.infolist(), archive.start_dir
        for name in set(names):
            info, row = archive.getinfo(name), directory.row(name)
            member = directory.member(row, name)
            assert (member.header, member.packed, member.size) == (
                info.header_offset,
                info.compress_size,
                info.file_size,
            )
            assert (member.crc, member.method, member.start) == (info.CRC, method, -1)
            headers = [one.header_offset for one in listed]
            assert member.limit == min(
                [one for one in headers if one > info.header_offset], default=end
            )
            directory.note(row, 70 + row)
            assert directory.member(row, name).start == 70 + row
    assert directory.row("not there") is None and directory.version == "version"


def test_nodes_are_the_folders_with_metadata_and_those_on_the_way():
    """And a store is at the root, or in the one folder there."""
    directory = parsed(written(["a/zarr.json", "a/b/c/.zarray", "a/b/c/0.0", "d/e/zarr.json"]), 0)
    assert directory.nodes == ("a", "a/b", "a/b/c", "d", "d/e")
    assert directory.root == "a" and directory.nbytes > 0
    assert parsed(written(["zarr.json", "a/zarr.json"]), 0).root == ""
    with pytest.raises(OtherFormatError, match=r"2 zarr stores in it \(a/, b/\)"):
        _ = parsed(written(["a/.zgroup", "b/zarr.json"]), 0).root
    with pytest.raises(OtherFormatError, match="without a zarr store"):
        _ = parsed(written(["a/b/zarr.json"]), 0).root


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06", b"x" * 100, b"PK\x03\x04" + bytes(50)])
def test_what_is_no_zip_file_is_damaged(data):
    """Whatever ``zipfile`` raises over it."""
    with pytest.raises(ValueError, match="the zip file is damaged"):
        parsed(io.BytesIO(data), 0)


def test_a_header_in_front_of_the_file_is_no_place():
    """As where a directory says that it begins later than it does."""
    file = written(["a", "b"])
    data = bytearray(file.getvalue())
    (begin,) = struct.unpack_from("<I", data, len(data) - 6)
    struct.pack_into("<I", data, len(data) - 6, begin + 50)
    directory = parsed(io.BytesIO(data), 0)
    with pytest.raises(ValueError, match=r"member 'a' claims bytes \[-50, "):
        directory.member(directory.row("a"), "a")
