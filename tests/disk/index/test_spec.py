"""What a user asks to be indexed means the same to everything that reads the options."""

import os

import pytest
from files import numbers, write_hdf5

from globidx.disk.index.cache import path_beside
from globidx.disk.index.spec import IndexSpec


@pytest.mark.parametrize("variable", [None, ""])
def test_an_empty_cache_folder_in_the_environment_is_none(tmp_path, monkeypatch, variable):
    """Where the data cannot be written, what its owner left beside it is read: also with ``GLOBIDX_CACHE_DIR=``."""
    (tmp_path / "data").mkdir()
    write_hdf5(tmp_path / "data" / "a.h5", numbers(2))
    write_hdf5(tmp_path / "data" / "b.h5", numbers(1))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    if variable is None:
        monkeypatch.delenv("GLOBIDX_CACHE_DIR", raising=False)
    else:
        monkeypatch.setenv("GLOBIDX_CACHE_DIR", variable)
    spec = IndexSpec.of(tmp_path / "data", key="x")
    build = spec.build()
    assert build.cache.parent == tmp_path / "home" / "globidx"
    assert build.also == (path_beside(str(tmp_path / "data"), ".", repr((spec.layout, spec.axis))),)
