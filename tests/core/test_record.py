"""The record's bytes: what is written comes back, what is damaged is refused."""

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampling import Sampler

from globidx import errors, merge_states, read_record
from globidx.core.json import strict
from globidx.core.progress.state import SamplerState
from globidx.core.records import record

GOLDEN = Path(__file__).parents[1] / "golden" / "record-1.json"


def sealed(**changes):
    """A record of one sampler in mid-epoch, with uneven ranks behind it."""
    ranks = [Sampler(range(1003), 3, rank, seed=5) for rank in range(3)]
    for rank, count in zip(ranks, (40, 38, 40), strict=True):
        rank.commit(count)
    state = merge_states([rank.state_dict() for rank in ranks])
    told = {
        "number": 7,
        "token": "0123456789ab",
        "step": 40,
        "time": "2026-01-01T00:00:00+00:00",
        "extras": {"loss": 0.25},
    }
    return record.build(**told | {"states": {"train": state}} | changes)


CIRCLE = []
CIRCLE.append(CIRCLE)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


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
        (b'{"\\u001b[31m\\n": 1, "format": "globidx.record", "version": 1}', r"unknown '\\x1b\[31m\\n'"),
        (b"null", "expected an object"),
        (b"[]", "expected an object"),
        (b"{}", "expected an object of format"),
        (b'{"format": "globidx.record", "format": "globidx.record"}', "stands twice"),
        (b'{"format": "globidx.record", "version": true}', "version must be"),
        (b'{"format": "globidx.record", "version": 1}', "missing id"),
        (b"[" * 100_000, "deeper than"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "deeper than"),
        (b"9" * 5000, "digits"),
        (b"NaN", "not JSON"),
        (b"[1e999]", "beyond a float"),
        ('{"format": "globidx.record"}'.encode("utf-16"), "not UTF-8"),
        (b" " * (strict.MAX_BYTES + 1), "the most is"),
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
    with pytest.raises(errors.RecordVersionError, match="version 2 of globidx.record, this globidx reads up to 1"):
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
        ({"id": "../../etc/passwd"}, "do not go together"),
        ({"id": "00000008-0123456789ab"}, "do not go together"),
        ({"number": 8}, "do not go together"),
        ({"extras": {"x": "\udcff"}}, "half a character"),
        ({"extras": {"\ud800": 1}}, "half a character"),
        ({"version": 0}, "version must be a positive integer"),
        ({"format": "globidx.index"}, "expected an object of format"),
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


@given(st.data())
def test_a_hostile_state_is_loaded_or_refused_and_nothing_else(data):
    """Any value in any place of a sampler's state, sealed again: a record error, or a state that says the same again."""
    state = sealed()["states"]["train"]
    place = data.draw(st.sampled_from(sorted(set(state) - {"format"})))  # of another format it is no sampler's
    numbers = st.integers(-3, 1010) | st.sampled_from([2**31, 2**53 + 1, 2**62, 2**63, 10**19])
    value = data.draw(json_values | numbers | st.lists(st.lists(numbers, max_size=4), max_size=4))
    lying = record.encode(record.seal(sealed() | {"states": {"train": state | {place: value}}}))
    try:
        found = record.decode(lying, "x")["states"]["train"]
    except errors.RecordError:
        return
    assert SamplerState.from_dict(found).to_dict() == found


@pytest.mark.parametrize(
    "change",
    [
        {"skip": [[5, 9], [7, 12]]},
        {"skip": [[5, 9], [1, 2]]},
        {"skip": [[9, 5]]},
        {"skip": [[5, 5]]},
        {"skip": [[1000, 2**63 + 1]]},
        {"segments": [[114], [2, 0, 900]]},
        {"segments": [[114], [-2, 0, 2]]},
        {"segments": [[1004]]},
        {"open": {"world_size": 3, "committed": 400}},
        {"open": {"world_size": 0, "committed": 0}},
        {"consumed": 117, "remaining": 886},
    ],
)
def test_progress_that_overlaps_or_leaves_its_epoch_is_refused(change):
    """Ranges that overlap, descend or are empty, counts beyond what was dealt, sums that are not theirs."""
    lying = record.encode(record.seal(sealed() | {"states": {"train": sealed()["states"]["train"] | change}}))
    with pytest.raises(errors.RecordCorruptError, match="sampler state"):
        record.decode(lying, "x")


def test_an_edit_on_purpose_is_sealed_again():
    """``reseal`` takes an edited record whose body is right, under its own id or a new one; a wrong body it refuses."""
    edited = record.encode(sealed()).replace(b'"step": 40', b'"step": 41')
    again = record.reseal(edited, "x")
    assert record.decode(record.encode(again), "x") == again
    assert {**again, "step": 40, "sha256": sealed()["sha256"]} == sealed()
    other = record.reseal(edited, "x", number=9, token="0" * 12)
    assert record.decode(record.encode(other), "x")["id"] == "00000009-000000000000"
    for lie in (edited.replace(b'"consumed": 118', b'"consumed": 119'), edited[:-10], edited.replace(b"41", b"41.0")):
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


def test_a_sealed_lie_about_progress_is_refused():
    """A state whose sums are wrong, or whose segments do not fit, is refused though its checksum is right."""
    state = sealed()["states"]["train"]
    for change in ({"consumed": 0}, {"segments": [[2000]]}, {"segments": [[1, -1]]}, {"segments": [[]]}, {"epoch": -1}):
        lying = record.encode(record.seal(sealed() | {"states": {"train": state | change}}))
        with pytest.raises(errors.RecordCorruptError):
            record.decode(lying, "x")


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
    with pytest.raises(errors.RecordError, match="the most is"):
        record.encode(sealed(extras={"x": "x" * strict.MAX_BYTES}))


@pytest.mark.parametrize(
    "change",
    [
        {"segments": [[0, 1]] * 20_000},
        {"segments": [list(range(20_000))]},
        {"segments": [[1] + [0] * 2**17]},
        {"skip": [[0, 2**62]]},
        {"skip": [[2 * n, 2 * n + 1] for n in range(2**16 + 1)]},
        {"segments": [["skip", 3, [[0, 2**40]]]]},
        {"open": {"world_size": 2**40, "committed": 0}},
    ],
)
def test_a_hostile_state_is_refused_before_it_costs_anything(change):
    """Too many segments, ranks, counts or skipped ids: an error within a second, not hours or gigabytes."""
    state = sealed()["states"]["train"] | {
        "dataset": {"num_samples": 2**62, "num_files": None, "fingerprint": None},
        "length": 2**62,
    }
    tracemalloc.start()
    with pytest.raises(errors.RecordError):
        SamplerState.from_dict(state | change)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**27


def test_as_uneven_a_state_as_there_is_in_practice_is_read():
    """1,024 ranks, each with a count of its own: under 64 kB, and its positions are found."""
    ranks = [Sampler(range(10**7), 1024, rank) for rank in range(1024)]
    for number, rank in enumerate(ranks):
        rank.commit(number * 7 % 1024)
    state = merge_states([rank.state_dict() for rank in ranks])
    assert len(record.encode(sealed(states={"train": state}))) < 64_000
    alone = Sampler(range(10**7), 1, 0)
    alone.load_state_dict(state)
    assert len({id for id, _ in zip(alone, range(1000), strict=False)}) == 1000
