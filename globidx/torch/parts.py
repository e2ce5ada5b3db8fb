"""The parts of a sample: what a dataset reads for each field, how it is given, and where it belongs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from globidx.core.index.table import SPARSE
from globidx.core.reading.selection import cuts
from globidx.disk.index.manager import GlobalIndexManager
from globidx.disk.reading import packings
from globidx.disk.reading.batch import FieldSpec
from globidx.disk.reading.decoding import ByRow
from globidx.disk.reading.packings import ByPacking
from globidx.disk.reading.reader import ON_MISSING
from globidx.torch.values import Giver, decoded, giver, sparse_row


class Part(NamedTuple):
    """What is read for a part of a sample, how it is given, and the keys of nested dicts that lead to it.

    Without a key it is the sample.
    """

    spec: FieldSpec
    give: Giver
    keys: list[str]


def parts_of(
    manager: GlobalIndexManager,
    fields: Sequence[str],
    *,
    decode: Any,
    sparse: str | Mapping[str, str],
    select: Any,
    part: Any,
) -> list[Part]:
    """The parts of the samples that a dataset with these options gives.

    TypeError or ValueError where they do not fit the fields.
    """
    decoders = _decoders(decode, manager, fields)
    as_rows = _given_as_rows(manager, fields, sparse, decoders)
    whole = _parts(manager, fields, decoders, as_rows)
    specs = _cut([one.spec for one in whole], manager, fields, select, part)
    return [one._replace(spec=spec) for one, spec in zip(whole, specs, strict=True)]


def _parts(
    manager: GlobalIndexManager,
    fields: Sequence[str],
    decode: Mapping[str, Any],
    as_rows: set[str],
) -> list[Part]:
    """What to read for a sample: fields, those of compound arrays by member, and masks."""
    window = manager.window
    is_alone = len(fields) == 1 and not manager.constants and not (window and window.mask)
    parts = [
        part
        for name in fields
        for part in _parts_of_field(
            manager, name, [] if is_alone else _keys(manager, name), decode, as_rows
        )
    ]
    if window is not None and window.mask:
        by_field = isinstance(window.offsets, Mapping)
        for name in fields if by_field else fields[:1]:
            spec = FieldSpec(_column(manager, name), window.of(name), is_mask=True)
            keys = ["mask", *(_keys(manager, name) if by_field else [])]
            parts.append(Part(spec, torch.from_numpy, keys))
    return parts


def _parts_of_field(
    manager: GlobalIndexManager,
    name: str,
    keys: list[str],
    decode: Mapping[str, Any],
    as_rows: set[str],
) -> list[Part]:
    """A field at ``keys`` of the nested dicts: as it is, or its members."""
    column, window = _column(manager, name), manager.window
    info = manager.arrays[column]
    offsets = None if window is None or window.is_whole else window.of(name)
    dtype, path = info.value.dtype, info.member_path
    if decode.get(name) == "cf":
        by_packing = ByPacking(column)
        # what cannot be decoded is refused now
        give = giver(by_packing.dtype(manager.now))
        return [Part(FieldSpec(column, offsets, decode=by_packing), give, keys)]
    if name in as_rows:
        spec = FieldSpec(column, offsets, is_sparse=True)
        return [Part(spec, sparse_row, keys)]
    if name in decode:
        by_row = ByRow(name, dtype, decode[name])
        spec = FieldSpec(column, offsets, member=path, decode=by_row)
        return [Part(spec, partial(decoded, field=name), keys)]
    parts = []
    for leaf in dtype.leaves():
        try:
            give = giver(dtype.at(leaf).dtype, name)
        except TypeError as error:
            raise ValueError(
                f"array {'/'.join([name, *leaf])!r} has {error}; choose others by key= or fields=, or make a "
                f"value of it by decode={{{name!r}: function}}"
            ) from None
        spec = FieldSpec(column, offsets, member=(*path, *leaf))
        parts.append(Part(spec, give, [*keys, *leaf]))
    return parts


def _cut(
    specs: Sequence[FieldSpec],
    manager: GlobalIndexManager,
    fields: Sequence[str],
    select: Any,
    part: Any,
) -> list[FieldSpec]:
    """The fields with what ``select`` and ``part`` take of them."""
    if select is None and part is None:
        return list(specs)
    columns = [_column(manager, name) for name in fields]
    found = cuts([manager.arrays[column] for column in columns], select, part)
    cut_of = dict(zip(columns, found, strict=True))
    cut_specs = []
    for spec in specs:
        cut = cut_of[spec.column]
        if cut is None or spec.is_mask:
            cut_specs.append(spec)
        elif cut.is_crop:
            cut_specs.append(spec._replace(crop=cut))
        else:
            cut_specs.append(spec._replace(selection=cut.of()))
    return cut_specs


def _column(manager: GlobalIndexManager, name: str) -> int:
    return [info.name for info in manager.arrays].index(name)


def _keys(manager: GlobalIndexManager, name: str) -> list[str]:
    """The keys of nested dicts that lead to a field: slashes nest where the user gave the names."""
    return name.split("/") if manager.layout.names is not None else [name]


def _given_as_rows(
    manager: GlobalIndexManager,
    fields: Sequence[str],
    sparse: str | Mapping[str, str],
    decode: Mapping[str, Any],
) -> set[str]:
    """The fields of which a sample is given the entries of a sparse row."""
    stored = {info.name for info in manager.arrays if info.form in SPARSE} & set(fields)
    given = sparse if isinstance(sparse, Mapping) else dict.fromkeys(stored, sparse)
    for how in sparse.values() if isinstance(sparse, Mapping) else [sparse]:
        if how not in ("dense", "row"):
            raise ValueError(
                f"sparse must be 'dense' or 'row', or a dict of these by field, got {how!r}"
            )
    if other := [name for name in given if name not in stored]:
        there = ", ".join(map(repr, sorted(stored))) or "none"
        raise ValueError(
            f"sparse names {other[0]!r}, which is no field of sparse rows; there is {there}"
        )
    as_rows = {name for name, how in given.items() if how == "row"}
    if as_rows and manager.window is not None:
        raise ValueError(
            f"sparse='row' gives a sample one row of {min(as_rows)!r}, and this index has windows of "
            "rows: pass sparse='dense'"
        )
    if both := as_rows & set(decode):
        raise ValueError(f"decode takes the dense rows of {min(both)!r}: pass sparse='dense'")
    return as_rows


def _decoders(decode: Any, manager: GlobalIndexManager, fields: Sequence[str]) -> Mapping[str, Any]:
    """Functions by field, or "cf"; TypeError or ValueError where they are none, or of no field."""
    if decode is None:
        return {}
    wants_cf = "cf" in decode.values() if isinstance(decode, Mapping) else decode == "cf"
    if wants_cf and manager.layout.inner.whole:
        raise ValueError(
            "decode='cf' decodes rows, and with window='all' each array of a file or group is given as a whole, as "
            "it is stored: pass sequences='chain', chain_by=str to the index for files whose arrays are aligned, or "
            "decode in transform="
        )
    packed = {name for name in fields if packings.is_packed(manager.now, _column(manager, name))}
    if decode == "cf":
        return dict.fromkeys(packed, "cf")
    if not isinstance(decode, Mapping):
        raise TypeError(
            f"decode must be 'cf', or a dict of fields to functions, got {decode!r:.80}"
        )
    for name, function in decode.items():
        if name not in fields:
            raise ValueError(
                f"decode names {name!r}, which is no field that is read; there is {', '.join(map(repr, fields))}"
            )
        if not callable(function) and function != "cf":
            raise TypeError(
                f"decode of field {name!r} must be a function or 'cf', got {function!r:.80}"
            )
    # what is not packed has nothing to decode
    return {name: one for name, one in decode.items() if one != "cf" or name in packed}


def missing_by_field(
    manager: GlobalIndexManager, fields: Sequence[str], given: Any
) -> str | dict[str, str]:
    """What an absent chunk is, of all fields or by field; ValueError where that is none of the words."""
    chosen = dict(given) if isinstance(given, Mapping) else dict.fromkeys(fields, given)
    for name, word in chosen.items():
        if name not in fields:
            raise ValueError(
                f"on_missing names {name!r}, which is none of the fields that are read: "
                f"{', '.join(map(repr, fields))}"
            )
        if word not in ON_MISSING:
            at = f"on_missing[{name!r}]" if isinstance(given, Mapping) else "on_missing"
            raise ValueError(f"{at} must be one of {', '.join(ON_MISSING)}, got {word!r}")
    filled_of: dict[str, str] = {}
    for info in manager.arrays:
        word = chosen.get(info.name, "error")
        # decoded chunks are kept once for all fields that read them
        if info.name in fields and filled_of.setdefault(info.path, word) != word:
            raise ValueError(
                f"on_missing says {word!r} of field {info.name!r} and another of a field that reads "
                f"the same array, {info.path!r}; give both the same"
            )
    return chosen if isinstance(given, Mapping) else str(given)
