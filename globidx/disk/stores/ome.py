"""OME-Zarr: which arrays are the full resolution of an image, or of the many images of a file.

https://ngff.openmicroscopy.org, versions 0.4 (attributes of a group) and 0.5 (below ``ome``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any

Attributes = Callable[[str], Mapping[str, Any]]

_NO_WELLS = (
    "its plate attribute does not lead to wells with images: wells, path, well, images, path"
)


def level_0(attributes: Mapping[str, Any]) -> str | None:
    """The path of the full resolution in an image with these attributes; None if it is no image.

    >>> level_0({"multiscales": [{"datasets": [{"path": "0"}, {"path": "1"}]}]})
    '0'
    """
    try:
        path: Any = _within(attributes)["multiscales"][0]["datasets"][0]["path"]
    except (TypeError, LookupError):
        return None
    return path.strip("/") if isinstance(path, str) else None


def key_of(attributes: Attributes, is_array: Callable[[str], bool]) -> str | None:
    """The key of all images of a file that holds many; None for another file.

    Parameters
    ----------
    attributes : callable
        Gives the attributes of the group at a path; none where there is no group.
    is_array : callable
        Whether there is an array at a path.

    Returns
    -------
    str or None
        A pattern: of the fields of view of a plate, in wells in columns in rows, or of the series
        that bioformats2raw writes side by side.

    Raises
    ------
    ValueError
        If there is no image, one of those that are listed is not there, or no key finds them all.
    """
    root = _within(attributes(""))
    if isinstance(root.get("plate"), dict):
        images, depth = list(_fields(root["plate"], attributes)), 3
    elif "bioformats2raw.layout" in root:
        images, depth = list(_series(attributes)), 1
    else:
        return None
    if not images:
        raise ValueError("it is a plate, or a file of series, without any image")
    levels: dict[str, str] = {}
    for image in images:
        level = level_0(attributes(image))
        if level is None or not is_array(f"{image}/{level}"):
            raise ValueError(f"it has no image {image!r}, which its metadata list")
        if image.count("/") != depth - 1:
            raise ValueError(f"its image {image!r} does not lie {depth} groups deep")
        levels.setdefault(level, image)
    # what one key does not find would be left out without a word
    if len(levels) > 1:
        told = ", ".join(f"{level!r} in {image!r}" for level, image in list(levels.items())[:2])
        raise ValueError(
            f"its images call their full resolution differently: {told}; write them alike"
        )
    return "*/" * depth + next(iter(levels))


def _fields(plate: Mapping[str, Any], attributes: Attributes) -> Iterator[str]:
    """The paths of all fields of view of a plate."""
    try:
        for path in [well["path"] for well in plate["wells"]]:
            for field in _within(attributes(path))["well"]["images"]:
                yield f"{path}/{field['path']}"
    except (TypeError, LookupError):
        raise ValueError(_NO_WELLS) from None


def _series(attributes: Attributes) -> Iterator[str]:
    """The paths of all series: as they are listed, or by number, as long as there are any."""
    listed = _within(attributes("OME")).get("series")
    if isinstance(listed, list):
        yield from map(str, listed)
        return
    for number in map(str, count()):
        if level_0(attributes(number)) is None:
            return
        yield number


def _within(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The attributes of OME-Zarr, whose newer versions have a place of their own."""
    within = attributes.get("ome")
    return within if isinstance(within, dict) else attributes
