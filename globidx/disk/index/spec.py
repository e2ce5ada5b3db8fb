"""Which files an index is over, and which arrays of each: the options of a user, checked once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from globidx.core.index.families import FAMILIES
from globidx.core.index.layout import Layout, parse
from globidx.core.index.table import Table
from globidx.core.windows.sampling import Sampling
from globidx.disk.files.paths import Paths, is_remote
from globidx.disk.index.build import Build
from globidx.disk.index.cache import cache_path, chosen_folder, path_beside
from globidx.disk.index.discover import absolute_names, find_files
from globidx.disk.index.samples import SampleSpec
from globidx.disk.index.scan import printable
from globidx.disk.stores import base as stores


@dataclass(frozen=True)
class IndexSpec:
    """What a user asks to be indexed; ``GlobalIndexManager`` and the command both begin with it.

    ``files`` is one name or a list of absolute paths; None stands for the list of the last scan,
    which is then passed to ``build``.
    """

    files: str | Sequence[str] | None
    layout: Layout
    axis: int
    cache_dir: Path | None
    samples: SampleSpec | None = None
    attributes: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls,
        files: Any,
        *,
        key: str | Sequence[str] | Mapping[str, str] | None = None,
        layout: str | None = None,
        axis: int | Mapping[str, int] = 0,
        cache_dir: str | os.PathLike[str] | None = None,
        allow_external: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        **sampling: Any,
    ) -> IndexSpec:
        """The options as a user gives them; ValueError or TypeError for what they cannot be.

        ``sampling`` are the options of ``SampleSpec.of``.
        """
        named = absolute_names(files)
        _require_options(storage_options)
        access: dict[str, Any] = {
            "allow_external": bool(allow_external),
            "storage_options": storage_options,
        }
        if isinstance(layout, str) and layout in FAMILIES:
            key, sampling = _family(layout, key, named, sampling, access)
            layout = None
        elif layout == "ome" and key is None:
            layout, key, sampling = _ome(named, sampling, access)
        inside, samples = SampleSpec.of(parse(layout, key), **sampling)
        attributes: tuple[tuple[str, str], ...] = ()
        if inside.inner.whole and not isinstance(key, Mapping) and len(inside.keys or ()) < 2:
            groups = inside.keys[0] if inside.keys else ""
            everything = _everything(groups, named, access)
            if everything is not None:
                key, attributes = everything
                inside, samples = SampleSpec.of(parse(layout, key), **sampling)
                inside = replace(inside, everything=groups)
        arrays, along = inside.along(axis)
        arrays = replace(arrays, **access)
        folder = None if cache_dir is None else Path(cache_dir).absolute()
        return cls(named, arrays, along, folder, samples, attributes)

    def build(self, paths: Paths | None = None, **options: Any) -> Build:
        """The build of the index, over ``paths`` if they were found already.

        ``options`` are those of ``Build``.
        """
        if paths is None:
            paths = find_files(self.files, self.layout.storage_options)
        is_local = isinstance(self.files, str) and not is_remote(self.files)
        name = os.path.relpath(str(self.files), paths.root) if is_local else self.files
        if not isinstance(name, str):
            name = hashlib.blake2b(paths.names.spelled(len(paths)), digest_size=16).hexdigest()
        identity = paths.root, name, repr((self.layout, self.axis))
        folder = chosen_folder(self.cache_dir)
        cache, beside = cache_path(*identity, folder), path_beside(*identity)
        # a process that can write beside the data may have left a cache there
        also = () if folder is not None or cache == beside or is_remote(paths.root) else (beside,)
        searched = is_local and os.path.isdir(str(self.files))
        return Build(
            paths,
            cache,
            self.layout,
            self.axis,
            also=also,
            searched=searched,
            sample=self._sampling,
            **options,
        )

    def _sampling(self, table: Table, paths: Paths) -> Sampling | None:
        """What to take of the files that were found."""
        return None if self.samples is None else self.samples.sampling(table, paths, self.files)


def _ome(
    named: Any, sampling: dict[str, Any], access: dict[str, Any]
) -> tuple[str | None, dict[str, str] | None, dict[str, Any]]:
    """The layout, keys and sequences of OME-Zarr: images, or files of many, by what the first one is."""
    path = find_files(named, storage_options=access["storage_options"])[0]
    try:
        pattern = stores.ome_pattern(path, **access)
    except stores.UNREADABLE:
        # the scan tells what is wrong with it, beside all other files
        pattern = None
    if pattern is None:
        return "ome", None, sampling
    return None, {"image": pattern}, _in_sequences(sampling, "match")


def _in_sequences(sampling: dict[str, Any], sequences: str) -> dict[str, Any]:
    """Options with the sequences of a layout, where the user named none."""
    if sampling.get("sequences", "row") != "row":
        return sampling
    return sampling | {"sequences": sequences}


def _everything(
    pattern: str, named: Any, access: dict[str, Any]
) -> tuple[dict[str, str], tuple[tuple[str, str], ...]] | None:
    """The keys of all arrays of the groups that ``pattern`` matches, and their attributes by name.

    The first group of the first file tells. None where it matches arrays.
    """
    path = find_files(named, access["storage_options"])[0]
    try:
        found = stores.contents(path, pattern, **access)
    except stores.UNREADABLE as error:
        raise ValueError(f"{printable(path)}: {error}") from error
    if found is None:
        return None
    # an attribute of the name of an array, or of a group of them, has no place beside it
    taken = {part for name in found.arrays for part in (name, name.split("/")[0])}
    apart = [name for name in found.attributes if name not in taken and "/" not in name]
    fields = {name: f"{pattern}/{name}".lstrip("/") for name in found.arrays}
    return fields, tuple((name, f"{pattern}@{name}") for name in apart)


def _family(
    layout: str, key: Any, named: Any, sampling: dict[str, Any], access: dict[str, Any]
) -> tuple[dict[str, str], dict[str, Any]]:
    """The keys and sequences of the files of a family, by what the first file has."""
    if key is not None:
        raise ValueError(
            f"layout {layout!r} has its own arrays, so that key={key!r} has no use; leave key out"
        )
    family = FAMILIES[layout]
    path = find_files(named, access["storage_options"])[0]

    def arrays(pattern: str) -> list[str]:
        return stores.arrays_like(path, pattern, family.varies, **access)

    try:
        keys = family.keys(arrays)
    except stores.UNREADABLE as error:
        raise ValueError(f"layout {layout!r}: {printable(path)}: {error}") from error
    return keys, _in_sequences(sampling, family.sequences)


def _require_options(options: object) -> None:
    """TypeError for what cannot be options of fsspec; the values may be secret, and are not shown."""
    if options is None or (
        isinstance(options, Mapping) and all(isinstance(name, str) for name in options)
    ):
        return
    raise TypeError(
        f"storage_options must be a dict of options of fsspec by name, got a {type(options).__name__}; "
        'pass {"anon": True}, for example'
    )
