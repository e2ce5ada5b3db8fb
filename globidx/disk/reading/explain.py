"""How a dataset is read, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from globidx.core.index.table import KINDS, ArrayInfo
from globidx.disk.index.snapshot import Snapshot
from globidx.disk.reading.batch import FieldSpec
from globidx.disk.reading.open_file import fills
from globidx.disk.reading.reader import Reader
from globidx.disk.stores import base as stores

_MOST_GROUPS = 8


def explain(reader: Reader) -> str:
    """Which way is taken to each array, looked up in one file of every kind and chunk length.

    No error, whatever it is.

    Files that differ in something else may still be read in another way.
    """
    now, lines = (
        reader.manager.now,
        [f"backend {reader.backend!r}, missing chunks: {_on_missing(reader.on_missing)}"],
    )
    units = now.units
    kinds = now.table.kinds[units.files_of(np.arange(units.index.num_files))]
    columns = np.column_stack((kinds, units.chunk_lengths[:, reader.columns]))
    _, firsts, counts = np.unique(columns, axis=0, return_index=True, return_counts=True)
    what = "file" if units.numbers is None else "sequence"
    for first, count in sorted(zip(firsts.tolist(), counts.tolist(), strict=True))[:_MOST_GROUPS]:
        alike = f"1 {what}" if count == 1 else f"{count} {what}s"
        lines.append(f"{KINDS[kinds[first]]}, {alike} like {now.unit_in_words(first)}")
        lines += _arrays(reader, now, first)
    if len(firsts) > _MOST_GROUPS:
        lines.append(f"and {len(firsts) - _MOST_GROUPS} more kinds of chunks")
    kept = f"{reader.cache_bytes / 2**20:.6g} MiB of decoded chunks kept{reader.kept_by()}"
    lines.append(f"at most {reader.handles.capacity} files open, {kept}")
    if reader.line is not None:
        how, bounds = ", ".join(reader.line.how()) or "nothing asked yet", reader.bounds
        ahead = f"{bounds.prefetch_bytes / 2**20:.6g} MiB fetched ahead"
        lines.append(f"by URL: {how}; at most {bounds.requests} requests in flight, {ahead}")
    if reader.line is not None and reader.local_cache is not None:
        cache, counts = reader.local_cache, reader.kept_on_disk
        full = f"{cache.nbytes / 2**20:.6g} of at most {cache.bound / 2**20:.6g} MiB"
        lines.append(
            f"kept in {cache.path}: {full}; this process found {counts.hits} pieces there "
            f"({counts.nbytes / 2**20:.6g} MiB) and fetched {counts.misses}"
        )
    return "\n".join(lines)


def _on_missing(chosen: str | Mapping[str, str]) -> str:
    if isinstance(chosen, str):
        return chosen
    filled = [name for name in chosen if fills(chosen, name)]
    return f"fill in {', '.join(map(repr, filled))}, else error" if filled else "error"


def _arrays(reader: Reader, now: Snapshot, unit: int) -> Iterator[str]:
    file, number = now.units.place(unit)
    try:
        opened = reader.open((now, file))
        try:
            for field in reader.fields:
                if field.is_mask:
                    continue
                info = now.table.arrays[field.column]
                chunk = int(now.units.chunk_lengths[unit, field.column])
                source = opened.source(field.column, number)
                kept = _kept(info, chunk, reader.cache_bytes, field)
                if field.selection is None:
                    yield f"  {info.name or 'the array'}: {source.how}; {kept}"
                    continue
                part = opened.part(field.column, number, field.selection)
                beside = f", {part.width} of the chunks beside one another" if chunk else ""
                yield f"  {info.name or 'the array'}: {part.how}; {kept}"
                yield f"    of each {info.item_shape} the part {field.selection.shape}{beside}"
        finally:
            opened.close()
    except (*stores.UNREADABLE, MemoryError) as error:
        yield f"  cannot be opened: {error}"


def _kept(info: ArrayInfo, chunk: int, cache_bytes: int, field: FieldSpec) -> str:
    if field.crop is not None:
        return "a part of its own of each sample, so that nothing is kept"
    if field.selection is not None:
        info = replace(info, item_shape=field.selection.shape)
    what = "row" if info.rows > 1 else "item"
    if not chunk:
        return "not chunked"
    size = chunk * info.item_bytes // info.rows
    size_text = (
        f"{chunk} {what}s a chunk of {size / 1024:.6g} KiB" if chunk > 1 else f"one {what} a chunk"
    )
    if chunk == 1:
        return size_text
    if size <= cache_bytes:
        return f"{size_text}, {cache_bytes // max(1, size)} of them kept"
    return f"{size_text}, too large to keep, so decoded for every batch: raise cache_bytes"
