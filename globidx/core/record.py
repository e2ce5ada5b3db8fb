"""The record: one JSON document that says how far a run has come. Here it is a value and its bytes; where they lie is
``disk``'s matter.

The document carries a SHA-256 over the canonical form of everything else in it, so a changed bit is seen, while
white space is free: a person may read, copy and re-indent it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from globidx.core import checks, schema, strictjson
from globidx.core.state import FORMAT as SAMPLER_FORMAT
from globidx.core.state import SamplerState
from globidx.errors import RecordCorruptError, RecordError, RecordVersionError

FORMAT, VERSION = "globidx.record", 1


def build(
    *, number: int, token: str, step: int, time: str, states: Mapping[str, Any], extras: Mapping[str, Any]
) -> dict[str, Any]:
    """A sealed record.

    ``number`` orders records of one folder, ``token`` tells two of the same number apart; together they are its id.
    """
    body = {
        "format": FORMAT,
        "version": VERSION,
        "id": f"{number:08d}-{token}",
        "number": number,
        "step": step,
        "time": time,
        "states": strictjson.plain(dict(states), "states"),
        "extras": strictjson.plain(dict(extras), "extras"),
    }
    return seal(body)


def seal(body: Mapping[str, Any]) -> dict[str, Any]:
    """``body`` with its checksum."""
    open_body = {key: value for key, value in body.items() if key != "sha256"}
    return {**open_body, "sha256": hashlib.sha256(strictjson.canonical(open_body)).hexdigest()}


def encode(record: Mapping[str, Any]) -> bytes:
    """The bytes of a sealed record, laid out for people; RecordError if they would be more than a reader accepts."""
    data = strictjson.pretty(record)
    if len(data) > strictjson.MAX_BYTES:
        raise RecordError(
            f"the record would have {len(data)} bytes, the most is {strictjson.MAX_BYTES}; put less into extras"
        )
    return data


def decode(data: bytes, source: str) -> dict[str, Any]:
    """The record in ``data``, verified whole, its sampler states too; RecordCorruptError names ``source`` and the
    reason.

    Runs no code and follows no path that the data names.
    """
    try:
        record = strictjson.parse(data)
        schema.header(record, "record", FORMAT, VERSION)
        checked = {"format": FORMAT, "version": record["version"], **schema.fields(record, "record", _FIELDS)}
        if seal(checked)["sha256"] != checked["sha256"]:
            raise ValueError("its checksum does not match its content: it was edited or damaged")
        for state in checked["states"].values():
            if state.get("format") == SAMPLER_FORMAT:
                SamplerState.from_dict(state)
    except RecordVersionError as error:
        raise RecordVersionError(f"{source}: {error}") from None
    except (ValueError, RecordError) as error:
        raise RecordCorruptError(f"{source} is not a whole record: {error}") from None
    return checked


_FIELDS = {
    "id": schema.Text(64),
    "number": schema.Integer(0, checks.INT64_MAX),
    "step": schema.Integer(0, checks.INT64_MAX),
    "time": schema.Text(64),
    "states": schema.Json(values=schema.Json()),
    "extras": schema.Json(),
    "sha256": schema.Text(64),
}
