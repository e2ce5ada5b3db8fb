"""Filters of HDF5 datasets: whether this process can undo them."""

from __future__ import annotations

from typing import Any

from h5py import h5z

from globidx.disk.files import forks

#: deflate, shuffle, Fletcher-32: every HDF5 has them.
_EVERYWHERE = (1, 2, 3)
#: Up to here filters are HDF5's own; hdf5plugin brings those registered since.
_OWN = 255


def require_filters(plist: Any, name: str) -> None:
    """See to it that HDF5 can undo a dataset's filters, by hdf5plugin where that is installed.

    Parameters
    ----------
    plist : h5py.h5p.PropDCID
        How the dataset was made.
    name : str
        The dataset's name, for the message.

    Raises
    ------
    ValueError
        A filter is not there: its number and name, and what to install.
    """
    for index in range(plist.get_nfilters()):
        code, _, _, filter_name = plist.get_filter(index)
        if code not in _EVERYWHERE and not _is_there(code):
            # many filters have the address of their home page behind a semicolon
            label = filter_name.decode(errors="replace").split(";")[0].strip()
            shown = f" ({label})" if label else ""
            message = f"dataset {name!r} was written with filter {code}{shown}"
            if code <= _OWN:
                raise ValueError(
                    f"{message}, which this build of HDF5 was made without: use another build of h5py"
                )
            raise ValueError(
                f"{message}, which is not installed: pip install hdf5plugin, or put the filter's plugin into a "
                "folder and set HDF5_PLUGIN_PATH to it"
            )


def _is_there(code: int) -> bool:
    if not h5z.filter_avail(code) and code > _OWN:
        try:
            # registers its filters with HDF5
            forks.import_module("hdf5plugin")
        except ImportError:
            return False
    return bool(h5z.filter_avail(code))
