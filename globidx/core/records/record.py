"""The record: one JSON document that says how far a run has come, as a value and as bytes.

It has a SHA-256 of the canonical form of everything else in it, so that a changed bit is detected,
but white space does not count: a person may read, copy and re-indent it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from globidx.core import validate
from globidx.core.json import schema, strict
from globidx.core.progress.state import FORMAT as SAMPLER_FORMAT
from globidx.core.progress.state import SamplerState
from globidx.errors import RecordCorruptError, RecordError, RecordVersionError

FORMAT, VERSION = "globidx.record", 1


def build(
    *,
    number: int,
    token: str,
    step: int,
    time: str,
    states: Mapping[str, Any],
    extras: Mapping[str, Any],
) -> dict[str, Any]:
    """Make a sealed record.

    ``number`` orders the records of a folder, and ``token`` distinguishes two of the same number;
    together they are the id.
    """
    body = {
        "format": FORMAT,
        "version": VERSION,
        # the id has the number, so that a name of a file says which record is newer
        "id": _id(number, token),
        "number": number,
        "step": step,
        "time": time,
        "states": strict.plain(dict(states), "states"),
        "extras": strict.plain(dict(extras), "extras"),
    }
    return seal(body)


def carried(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``record`` as it is stored in a model checkpoint: with its whole text under ``text``.

    torch.distributed.checkpoint flattens objects, and loads only the keys that the loading process
    has: ``extras``, for example, would be lost. The key ``text`` is always there.
    """
    return {**record, "text": encode(record).decode()}


def uncarried(state: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the verified record of what ``carried`` made, or of a record itself.

    Raises
    ------
    RecordCorruptError
        If the text is damaged, or another key than ``text`` differs from it; the message names
        ``source``.
    """
    text = state.get("text")
    if text is None:
        return decode(encode(state), source)
    if type(text) is not str:
        raise RecordCorruptError(
            f"{source} is not a whole record: its text is a {type(text).__name__}"
        )
    # what is no UTF-8 is damage, which the checksum will find
    record = decode(text.encode(errors="replace"), source)
    if not _is_part({key: value for key, value in state.items() if key != "text"}, record):
        raise RecordCorruptError(
            f"{source} differs from the record in its text; it was edited or damaged"
        )
    return record


def _is_part(some: Any, whole: Any) -> bool:
    """Return whether each key of ``some`` has the same value in ``whole``.

    ``whole`` may have more keys.
    """
    if isinstance(some, Mapping) and isinstance(whole, Mapping):
        return all(key in whole and _is_part(value, whole[key]) for key, value in some.items())
    return bool(some == whole)


def seal(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``body`` with its checksum."""
    # the checksum is of all else; in canonical form, so that white space does not count
    open_body = {key: value for key, value in body.items() if key != "sha256"}
    return {**open_body, "sha256": hashlib.sha256(strict.canonical(open_body)).hexdigest()}


def encode(record: Mapping[str, Any]) -> bytes:
    """Return the bytes of a sealed record, indented.

    RecordError if they are more than a reader accepts.
    """
    data = strict.pretty(record)
    if len(data) > strict.MAX_BYTES:
        raise RecordError(
            f"the record would have {len(data)} bytes, but at most {strict.MAX_BYTES} are allowed; put less into extras"
        )
    return data


def decode(data: bytes, source: str) -> dict[str, Any]:
    """Return the record in ``data``, verified with its sampler states.

    RecordCorruptError names ``source`` and reason.

    It runs no code, and opens no path that the data names.
    """
    return _verified(data, source, sealed=True)


def reseal(
    data: bytes, source: str, *, number: int | None = None, token: str = ""
) -> dict[str, Any]:
    """Return the record in ``data``, which may have been edited, with a new checksum.

    All else is verified.

    With ``number`` and ``token`` it becomes another record, with another id.
    """
    body = _verified(data, source, sealed=False)
    if number is not None:
        body |= {"number": number, "id": _id(number, token)}
    return seal(body)


def is_sealed(data: bytes) -> bool:
    """Return whether the checksum of a record that ``reseal`` accepts is that of its content."""
    body: dict[str, Any] = strict.parse(data)
    return bool(seal(body)["sha256"] == body["sha256"])


def _verified(data: bytes, source: str, *, sealed: bool) -> dict[str, Any]:
    try:
        # for the model's checkpoint the error names that, and not a byte 0 that is no JSON
        _refuse_other_content(data)
        record = strict.parse(data)
        schema.header(record, "record", FORMAT, VERSION)
        checked = {
            "format": FORMAT,
            "version": record["version"],
            **schema.fields(record, "record", _FIELDS),
        }
        if sealed and seal(checked)["sha256"] != checked["sha256"]:
            raise ValueError(
                "its checksum does not match its content: it was edited or damaged; after an edit on purpose, run "
                "globidx record reseal"
            )
        # a name with one could be neither printed nor written back
        strict.refuse_half_characters(checked)
        # an id becomes a name of a file: nothing but the number and twelve digits of hexadecimal
        # may be in it
        if not _TOKEN.fullmatch(checked["id"].removeprefix(f"{checked['number']:08d}-")):
            raise ValueError(
                f"its id is {checked['id']!a}, which does not begin with its number {checked['number']}"
            )
        # parsed as a sampler would, so that a bad state is found before any rank loads its own
        for state in checked["states"].values():
            if state.get("format") == SAMPLER_FORMAT:
                SamplerState.from_dict(state)
    except RecordVersionError as error:
        raise RecordVersionError(f"{source}: {error}") from None
    except (ValueError, RecordError) as error:
        raise RecordCorruptError(f"{source} is not a whole record: {error}") from None
    return checked


def _refuse_other_content(data: bytes) -> None:
    """ValueError, with the probable cause, if the content is not text."""
    # some file systems leave the length of a file after a power loss, and none of its bytes
    if not data.strip(b"\0"):
        what = f"has nothing but {len(data)} NUL bytes" if data else "is empty"
        raise ValueError(f"it {what}, as a file may be after a power loss while it was written")
    for start, what in _OTHER_CONTENT.items():
        if data.startswith(start):
            raise ValueError(f"it begins like {what}, and a record is JSON")


def _id(number: int, token: str) -> str:
    return f"{number:08d}-{token}"


_TOKEN = re.compile(r"[0-9a-f]{12}")
_OTHER_CONTENT = {
    b"\x80": "a pickle",
    b"PK\x03\x04": "a zip archive (what torch.save writes)",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "a gzip file",
    b"\x89HDF": "an HDF5 file",
}
_FIELDS = {
    "id": schema.Text(64),
    "number": schema.Integer(0, validate.INT64_MAX),
    "step": schema.Integer(0, validate.INT64_MAX),
    "time": schema.Text(64),
    "states": schema.Json(values=schema.Json()),
    "extras": schema.Json(),
    "sha256": schema.Text(64),
}
