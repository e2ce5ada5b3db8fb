"""Files that another process is writing while they are read: one writer, many readers (SWMR).

https://support.hdfgroup.org/documentation/hdf5/latest/_s_w_m_r_t_n.html
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import h5py
from h5py import h5f

from globidx.disk.stores.base import superblock_at

#: Where a superblock has its version, and from version 3 on its flags.
_VERSION, _FLAGS = 8, 11
_OPEN_FOR_WRITING, _OPEN_FOR_SWMR = 1, 4
#: The drivers of HDF5's that serve SWMR: the usual one, and the same with a log, which is not kept.
DRIVERS = ("sec2", "globidx_log")

h5py.register_driver(DRIVERS[1], lambda plist: plist.set_fapl_log(b"", 0, 0))


def is_written(path: str | Path) -> bool:
    """Whether a file says that it is open for writing in SWMR mode: no other reader may open it."""
    return bool(_flags(path) & _OPEN_FOR_SWMR)


def is_live(file: Any) -> bool:
    """Whether an open file, or that of a dataset, is read in SWMR mode.

    Parameters
    ----------
    file : h5py.h5f.FileID
        Its low-level id.
    """
    return bool(file.get_intent() & h5f.ACC_SWMR_READ)


def refusal(path: str | Path, error: OSError) -> Exception:
    """What to do about a file that HDF5 does not open, where its writer is the reason; else ``error``."""
    if error.errno in (errno.EAGAIN, errno.EACCES) and "lock" in str(error):
        return ValueError(
            "another process has it open for writing, and HDF5's locks keep readers out; close it there, or write it "
            "in SWMR mode (h5py: libver='latest', then file.swmr_mode = True)"
        )
    if _flags(path) & _OPEN_FOR_WRITING:
        return ValueError(
            "it says that it is open for writing: by a process that still writes it, or that ended without closing "
            "it; if none does, clear that flag with HDF5's tool: h5clear -s FILE"
        )
    return error


def _flags(path: str | Path) -> int:
    """The flags of a superblock that has such; 0 for any other file."""
    try:
        start = superblock_at(Path(path))
        if start is None:
            return 0
        with open(path, "rb") as file:
            file.seek(start)
            head = file.read(_FLAGS + 1)
    except OSError:
        return 0
    return head[_FLAGS] if len(head) > _FLAGS and head[_VERSION] >= 3 else 0
