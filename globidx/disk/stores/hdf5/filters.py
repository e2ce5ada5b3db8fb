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
    for number in range(plist.get_nfilters()):
        code, _, _, said = plist.get_filter(number)
        if code not in _EVERYWHERE and not _is_there(code):
            shown = said.decode(errors="replace").split(";")[0].strip()
            told = f"dataset {name!r} was written with filter {code}{f' ({shown})' if shown else ''}"
            if code <= _OWN:
                raise ValueError(f"{told}, which this build of HDF5 was made without: use another build of h5py")
            raise ValueError(
                f"{told}, which is not installed: pip install hdf5plugin, or put the filter's plugin into a folder and "
                "name that in HDF5_PLUGIN_PATH"
            )


def _is_there(code: int) -> bool:
    if not h5z.filter_avail(code) and code > _OWN:
        try:
            forks.imported("hdf5plugin")
        except ImportError:
            return False
    return bool(h5z.filter_avail(code))
