"""zarr by tensorstore, for who asks for it.

It has caches and threads of its own, which do not survive a fork.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.disk.files import forks
from globidx.errors import MissingChunkError, ReadError


class TensorSource:
    """One array of a zarr store, rows along ``axis``."""

    how = "read by tensorstore (as asked)"

    def __init__(self, folder: str, name: str, kind: str, axis: int, *, forked: bool) -> None:
        if forked:
            raise ReadError(
                "tensorstore aborts in forked processes; start workers with multiprocessing_context='forkserver' or "
                "'spawn', or leave backend='tensorstore' out"
            )
        try:
            tensorstore = forks.import_module("tensorstore")
        except ImportError as error:
            raise ReadError(
                "backend='tensorstore' needs tensorstore: pip install '.[tensorstore]' in the clone of globidx"
            ) from error
        store = {"driver": "file", "path": os.path.join(os.path.abspath(folder), name)}
        # a chunk that is missing must not pass for one of fill value
        spec = {
            "driver": "zarr3" if kind == "zarr3" else "zarr",
            "kvstore": store,
            "fill_missing_data_reads": False,
        }
        self._array = tensorstore.open(spec, read=True).result()
        self._axis = axis

    def read(self, start: int, stop: int, out: NDArray[Any]) -> int:
        """Fill ``out`` with rows ``[start, stop)``; how many decoded bytes that is."""
        try:
            rows = self._array[(slice(None),) * self._axis + (slice(start, stop),)].read().result()
        except ValueError as error:
            if "NOT_FOUND" in str(error):
                raise MissingChunkError(str(error)) from error
            raise
        out[...] = np.moveaxis(rows, self._axis, 0)
        return out.nbytes
