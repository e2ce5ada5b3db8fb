"""A list file names paths, one a line or in a column, and whatever else it may be is refused."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from files import numbers, write_hdf5, write_zarr

from globidx import GlobalIndexManager
from globidx.disk.index.discover import find_files
from globidx.errors import NoFilesError


@pytest.fixture
def folder(tmp_path):
    """Two stores, one of them in a folder of its own."""
    (tmp_path / "sub").mkdir()
    write_hdf5(tmp_path / "a.h5", numbers(2))
    write_zarr(tmp_path / "sub/old", numbers(2), zarr_format=2)
    return tmp_path


def names(found, folder):
    return [os.path.relpath(path, folder) for path in found]


def test_a_text_file_has_a_path_a_line_counted_from_itself(folder):
    """Relative paths count from the list, empty lines and comments are nothing, oddities are part of names."""
    odd = "a,b \x85\u2028c.h5"
    write_hdf5(folder / odd, numbers(1))
    text = f"\ufeff# files\n\n  sub/old\r\n{folder}/a.h5\n{odd}\n"
    (folder / "sub/list.txt").write_text(
        text.replace("sub/old", "old").replace(odd, f"../{odd}"), encoding="utf-8"
    )
    assert names(find_files(folder / "sub/list.txt"), folder) == ["sub/old", "a.h5", odd]


def test_a_text_file_may_name_files_that_are_no_utf8(tmp_path):
    """A path is bytes."""
    name = os.fsdecode(b"\xff\xfe.h5")
    write_hdf5(tmp_path / name, numbers(1))
    (tmp_path / "list").write_bytes(b"\xff\xfe.h5\n")
    assert names(find_files(tmp_path / "list"), tmp_path) == [name]


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        ("csv", "a.h5,1\nsub/old,2\n"),
        ("csv", "label,Path\n1,a.h5\n2,sub/old\n"),
        ("csv", '# comment\nfile\n\n"a.h5"\n"sub/old"\n'),
        ("tsv", "n\tfilename\n1\ta.h5\n2\tsub/old\n"),
        ("csv", "a.h5\r\nsub/old\r\n"),
    ],
    ids=["first-column", "headed-column", "quoted", "tabs", "crlf"],
)
def test_a_csv_file_has_paths_in_its_first_or_headed_column(folder, suffix, text):
    """The column headed path or file, else the first."""
    (folder / f"list.{suffix}").write_text(text)
    assert names(find_files(folder / f"list.{suffix}"), folder) == ["a.h5", "sub/old"]


def test_a_csv_cell_may_hold_commas_quotes_and_newlines(tmp_path):
    """Quoting is CSV's."""
    (tmp_path / "list.csv").write_text('path\n"a,b.h5"\n"c ""d"".h5"\n"e\nf.h5"\n')
    assert names(find_files(tmp_path / "list.csv"), tmp_path) == ["a,b.h5", 'c "d".h5', "e\nf.h5"]


@pytest.mark.parametrize(
    "data", [b"", b"\n\n# only a comment\n", b"\0\1\2", b"path\n", b'"' + b"x" * 200_000]
)
def test_a_list_file_without_paths_is_an_error_that_names_it(tmp_path, data):
    """Empty, binary and broken lists name no file."""
    (tmp_path / "list.csv").write_bytes(data)
    with pytest.raises(NoFilesError, match=r"list\.csv"):
        find_files(tmp_path / "list.csv")


def test_a_plain_list_has_no_heading_and_a_table_no_empty_row(tmp_path):
    """A file may be named ``file``; a row without a path is refused, not left out."""
    for name in ("file", "b.zarr"):
        write_zarr(tmp_path / name, numbers(2))
    (tmp_path / "plain.txt").write_text("file\nb.zarr\n")
    assert find_files(tmp_path / "plain.txt") == [str(tmp_path / "file"), str(tmp_path / "b.zarr")]
    (tmp_path / "table.csv").write_text("label,path\n1,b.zarr\n2,\n")
    with pytest.raises(NoFilesError, match="no file in its entry 2"):
        find_files(tmp_path / "table.csv")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("refs.json", '{".zgroup": "{}", "x/0": ["s3://a/b.nc", 0, 8]}', "of an old version"),
        ("refs.txt", '{".zgroup": "{}", "x/0": ["s3://a/b.nc", 0, 8]}', "of an old version"),
        ("list.json", '["a.h5", "b.h5"]', "is JSON, and a list file is text"),
        ("list.json", "a.h5\n", "is JSON, and a list file is text"),
    ],
)
def test_json_is_no_list_of_paths(tmp_path, name, text, told):
    """Its lines would be taken for names."""
    (tmp_path / name).write_text(text)
    with pytest.raises(NoFilesError, match=told):
        GlobalIndexManager(tmp_path / name, cache_dir=tmp_path)


def test_a_listed_name_may_begin_with_a_bracket(tmp_path):
    """As long as the list is no JSON."""
    write_hdf5(tmp_path / "[a].h5", numbers(3))
    (tmp_path / "list.txt").write_text("[a].h5\n")
    assert len(GlobalIndexManager(tmp_path / "list.txt", cache_dir=tmp_path)) == 3


def test_a_zip_file_is_read_by_its_path_and_by_url(tmp_path):
    """By itself, in a list, and through fsspec, as before it could be read in place."""
    pytest.importorskip("fsspec")
    store = tmp_path / "a.zarr"
    write_zarr(store, np.arange(1, 5), key="x", zarr_format=2)
    packed = shutil.make_archive(str(tmp_path / "b.zarr"), "zip", store)
    for files in (packed, [packed], f"zip://::{packed}"):
        assert len(GlobalIndexManager(files, key="x", cache_dir=tmp_path)) == 4
