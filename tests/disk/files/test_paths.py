"""Paths are a folder and names in it, on a disk and by URL."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.disk.files.paths import Paths, is_remote, join


@pytest.mark.parametrize(
    ("paths", "root"),
    [
        (["/a/b/x", "/a/b/y"], "/a/b"),
        (["/x", "/y"], "/"),
        (["/a/x"], "/a"),
        (["/ab/x", "/ac/x"], "/"),
        (["s3://bucket/a", "s3://bucket/b/c"], "s3://bucket"),
        (["s3://one/a", "s3://two/b"], "s3://"),
        (["memory://a.zarr"], "memory://"),
        (["memory:///a.zarr", "memory:///b.zarr"], "memory:///"),
        (["https://host:8080/a/x.zarr"], "https://host:8080/a"),
    ],
)
def test_paths_are_their_root_and_their_names(paths, root):
    """Local ones and URLs: put together again they are what they were, one by one and as bytes."""
    found = Paths.of(map(os.fsencode, paths))
    assert (
        found.root == root
        and list(found) == paths
        and [found[n] for n in range(len(paths))] == paths
    )
    assert found.encoded(0, len(paths)) == [os.fsencode(path) for path in paths]


@pytest.mark.parametrize(
    ("path", "below"),
    [
        ("/data/a.zarr", "/data/a.zarr/x/c/0"),
        ("a.zarr", "a.zarr/x/c/0"),
        ("s3://bucket/a.zarr", "s3://bucket/a.zarr/x/c/0"),
        ("s3://bucket", "s3://bucket/x/c/0"),
        ("simplecache::s3://bucket/a.zarr", "simplecache::s3://bucket/a.zarr/x/c/0"),
        ("zip://in/a.zarr::s3://b/c.zip", "zip://in/a.zarr/x/c/0::s3://b/c.zip"),
        ("zip://::/b.zip", "zip://x/c/0::/b.zip"),
    ],
)
def test_names_below_a_path_go_where_the_store_is(path, below):
    """Behind the path of a chain's first link, and empty names are none."""
    assert join(path, "x", "", "c/0") == below


@pytest.mark.parametrize("path", ["/a/b.zarr", "a:b", "./c://d", "://x", "a b://c", ""])
def test_local_paths_are_no_urls(path):
    """Whatever colons and slashes they hold."""
    assert not is_remote(path)


@given(
    st.lists(
        st.binary(min_size=1, max_size=5).filter(lambda name: not {0, 47} & {*name}),
        min_size=1,
        max_size=5,
        unique=True,
    )
)
def test_any_bytes_are_a_path(names):
    """Paths that are no text come out as the system has them."""
    paths = Paths.of(b"/data/" + name for name in names)
    assert [os.fsencode(path) for path in paths] == [b"/data/" + name for name in names]
