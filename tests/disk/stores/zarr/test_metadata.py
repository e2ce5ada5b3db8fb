"""One parser of zarr's metadata: what is plain to the scan is plain to the reader."""

import json

import numpy as np
import pytest
from files import write_zarr

from globidx.core.index.layout import Layout
from globidx.disk.stores.base import NotPlainError
from globidx.disk.stores.zarr import fast_scan
from globidx.disk.stores.zarr import library as api
from globidx.disk.stores.zarr.containers import Folder
from globidx.disk.stores.zarr.fast import ZarrSource


@pytest.mark.filterwarnings("ignore:Found an empty list of filters")
@pytest.mark.parametrize(
    ("change", "is_plain"),
    [
        ({}, True),
        ({"filters": []}, True),
        ({"compressor": {"id": "crc32c"}}, True),
        ({"compressor": {"id": "crc32c", "location": "start"}}, False),
        ({"chunks": [0, 4]}, False),
        ({"chunks": [3]}, False),
        ({"written_by": "another program"}, True),
    ],
)
def test_scan_and_reader_agree_on_what_is_plain(tmp_path, change, is_plain):
    """What one of them leaves to zarr, the other does: they differed on the second, third and the last two."""
    write_zarr(tmp_path / "a.zarr", np.ones((6, 4), "u2"), zarr_format=2, compressors=None)
    file = tmp_path / "a.zarr" / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    entry = fast_scan.scan(Folder(str(tmp_path / "a.zarr")), Layout(), 0)
    assert (entry is not None) == is_plain
    if is_plain:
        assert entry == api.scan(str(tmp_path / "a.zarr"), Layout(), 0)
        ZarrSource(Folder(str(tmp_path / "a.zarr")), "", 0, ".zarray")
    else:
        with pytest.raises(NotPlainError):
            ZarrSource(Folder(str(tmp_path / "a.zarr")), "", 0, ".zarray")
