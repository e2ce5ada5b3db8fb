"""The record's bytes: what is written comes back, what is damaged is refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from sealed_record import json_values, sealed

from globidx import errors, read_record
from globidx.core.json import strict
from globidx.core.records import record

GOLDEN = Path(__file__).parents[2] / "golden" / "record-1.json"


CIRCLE = []
CIRCLE.append(CIRCLE)


@given(json_values)
def test_what_is_written_is_read(extras):
    """Any JSON value survives the bytes, also strings that look like lists of numbers."""
    written = sealed(extras={"mine": extras, "tricky": "[\n1,\n 2]", "list": [1, 2, [3]]})
    assert record.decode(record.encode(written), "x") == written


def test_golden_record_of_version_1_is_read():
    """The file of the first release stays readable, and the same run writes the same bytes."""
    assert read_record(GOLDEN) == sealed()
    assert record.encode(sealed()) == GOLDEN.read_bytes()


def test_every_flipped_bit_is_refused():
    """No single bit of a record can change without being seen; white space is the only exception."""
    data = record.encode(sealed())
    for place in range(len(data)):
        for bit in range(8):
            changed = data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]
            try:
                same = record.decode(changed, "x") == sealed()
            except errors.RecordError:
                continue
            assert same, f"bit {bit} of byte {place}"
            assert data[place : place + 1].isspace(), f"bit {bit} of byte {place} was not seen"


@pytest.mark.parametrize("size", [512, 4096])
def test_a_zeroed_or_swapped_block_is_refused(size):
    """What a disk loses or mixes up comes in blocks: zeros, or another block's bytes."""
    data = record.encode(sealed(extras={"notes": [f"step {number}" for number in range(1500)]}))
    blocks = [data[start : start + size] for start in range(0, len(data), size)]
    assert len(blocks) >= 4
    for place, block in enumerate(blocks):
        for other in (b"\0" * len(block), *(b for b in blocks[:4] if b != block)):
            with pytest.raises(errors.RecordCorruptError):
                record.decode(b"".join([*blocks[:place], other, *blocks[place + 1 :]]), "x")


def test_every_truncation_is_refused():
    """All but the loss of the last newline."""
    data = record.encode(sealed())
    for length in range(len(data) - 1):
        with pytest.raises(errors.RecordCorruptError):
            record.decode(data[:length], "x")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "it is empty, as a file may be after a power loss"),
        (b"\0" * 4096, "nothing but 4096 NUL bytes, as a file may be after a power loss"),
        (pickle.dumps({}), "a pickle"),
        (pickle.dumps({}, protocol=0), "not JSON"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\x93NUMPY\x01\x00", "a NumPy array"),
        (b"\x1f\x8b\x08", "a gzip file"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"\xff\xfe{", "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
        (b"{}\n{}", "not JSON: Extra data"),
        (b"{} and more", "not JSON: Extra data"),
        (b"-Infinity", "not JSON"),
        (b"0." + b"1" * 5000, "characters"),
        (
            b'{"\\u001b[31m\\n": 1, "format": "globidx.record", "version": 1}',
            r"unknown '\\x1b\[31m\\n'",
        ),
        (b"null", "not of format .*: it is None"),
        (b"[]", r"not of format .*: it is \[\]"),
        (b"{}", "is not of format 'globidx.record', .*: it is {}; pass what globidx wrote"),
        (b'{"format": "globidx.record", "format": "globidx.record"}', "occurs twice"),
        (b'{"format": "globidx.record", "version": true}', "version must be"),
        (b'{"format": "globidx.record", "version": 1}', "missing id"),
        (b"[" * 100_000, "deeper than"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "deeper than"),
        (b"9" * 5000, "digits"),
        (b"NaN", "not JSON"),
        (b"[1e999]", "too large for a float"),
        ('{"format": "globidx.record"}'.encode("utf-16"), "not UTF-8"),
        (b" " * (strict.MAX_BYTES + 1), "at most"),
    ],
)
def test_what_is_no_record_is_refused_with_its_name_and_reason(data, told):
    """Pickles, zips, duplicates, NaN, depth, digits and size: one error type, and the source in its message."""
    with pytest.raises(errors.RecordCorruptError, match=told) as caught:
        record.decode(data, "run/record.json")
    assert "run/record.json" in str(caught.value)


def test_a_newer_version_is_refused_by_name():
    """It is not called damaged."""
    newer = record.seal(sealed() | {"version": 2})
    with pytest.raises(
        errors.RecordVersionError,
        match="version 2 of globidx.record, but this globidx reads up to 1",
    ):
        record.decode(record.encode(newer), "x")
    state = sealed()["states"]["train"]
    with pytest.raises(errors.RecordVersionError, match=r"version 9 of globidx.sampler"):
        record.decode(record.encode(sealed(states={"train": state | {"version": 9}})), "x")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"step": True}, "step must be an integer"),
        ({"step": 40.0}, "step must be an integer"),
        ({"step": "40"}, "step must be an integer"),
        ({"step": -1}, "step must be an integer"),
        ({"step": None}, "step must be an integer"),
        ({"states": []}, "states must be an object"),
        ({"states": {"train": 3}}, "train must be an object"),
        ({"extras": None}, "extras must be an object"),
        ({"time": 5}, "time must be a string"),
        ({"time": "x" * 65}, "time must be a string"),
        ({"more": 1}, "unknown more"),
        ({"id": "../../etc/passwd"}, "does not begin with its number"),
        ({"id": "00000008-0123456789ab"}, "does not begin with its number"),
        ({"number": 8}, "does not begin with its number"),
        ({"extras": {"x": "\udcff"}}, "half a character"),
        ({"extras": {"\ud800": 1}}, "half a character"),
        ({"version": 0}, "version must be a positive integer"),
        ({"format": "globidx.index"}, "not of format .*: its format is 'globidx.index'"),
    ],
)
def test_a_wrong_type_key_or_id_is_refused_though_its_checksum_is_right(change, told):
    """Whoever sealed it: true is not 1, a key too many is not ignored, an id is a number and a token."""
    lying = strict.pretty(record.seal(sealed() | change))
    with pytest.raises(errors.RecordCorruptError, match=told) as caught:
        record.decode(lying, "run/record.json")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("key", sorted(sealed()))
def test_a_missing_key_is_refused(key):
    """Every one of them is needed."""
    body = {name: value for name, value in sealed().items() if name != key}
    lying = record.seal(body) if key != "sha256" else body
    with pytest.raises(errors.RecordCorruptError):
        record.decode(strict.pretty(lying), "x")


def test_an_edit_on_purpose_is_sealed_again():
    """``reseal`` takes an edited record whose body is right, under its own id or a new one; a wrong body it refuses."""
    edited = record.encode(sealed()).replace(b'"step": 40', b'"step": 41')
    again = record.reseal(edited, "x")
    assert record.decode(record.encode(again), "x") == again
    assert {**again, "step": 40, "sha256": sealed()["sha256"]} == sealed()
    other = record.reseal(edited, "x", number=9, token="0" * 12)
    assert record.decode(record.encode(other), "x")["id"] == "00000009-000000000000"
    for lie in (
        edited.replace(b'"committed": 118', b'"committed": 119'),
        edited[:-10],
        edited.replace(b"41", b"41.0"),
    ):
        with pytest.raises(errors.RecordCorruptError):
            record.reseal(lie, "x")


def test_an_edited_record_is_refused_and_says_so(tmp_path):
    """A person's edit is as good as damage until the record is sealed again."""
    path = tmp_path / "record.json"
    path.write_bytes(record.encode(sealed()).replace(b'"step": 40', b'"step": 41'))
    with pytest.raises(errors.RecordCorruptError, match=r"record\.json.*edited or damaged"):
        read_record(path)
    path.write_bytes(b"".join(record.encode(sealed()).split()))  # white space is free
    assert read_record(path) == sealed()


@pytest.mark.parametrize(
    "extras",
    [
        {"x": float("nan")},
        {"x": float("inf")},
        {"x": {1: 2}},
        {"x": object()},
        {"x": b"1"},
        {"x": 10**30},
        {"x": {1, 2}},
        {"x": "\udcff"},
        {"x": {"\udcff": 1}},
        {"x": CIRCLE},
    ],
)
def test_what_json_cannot_hold_is_refused_at_save(extras):
    """Not at load, when it is too late; the message names the place."""
    with pytest.raises((TypeError, ValueError), match=r"extras\['x'\]"):
        sealed(extras=extras)


def test_numpy_numbers_become_plain():
    """Losses and steps come as numpy's scalars."""
    assert sealed(extras={"a": np.float32(0.5), "b": np.int64(3), "c": (1, 2)})["extras"] == {
        "a": 0.5,
        "b": 3,
        "c": [1, 2],
    }


def test_a_record_beyond_the_readers_limit_is_refused_at_save():
    """What could be written must be readable."""
    with pytest.raises(errors.RecordError, match="at most"):
        record.encode(sealed(extras={"x": "x" * strict.MAX_BYTES}))
