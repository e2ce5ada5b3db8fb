"""Strict JSON: a parser without the leniencies of Python's, and one canonical form to hash.

``json.loads`` keeps the last of duplicate keys, reads NaN and 1e999, guesses UTF-16, and recurses
without a limit. A file with a flipped bit must not become another value, so all of that is
refused, and size, depth and digits are limited before anything is built.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

MAX_BYTES = 2**24
MAX_DEPTH = 32
MAX_DIGITS = 20
MAX_FLOAT = 64
_CIRCLE = 200


def parse(data: bytes) -> Any:
    """Return the value of a JSON document; ValueError says what is wrong with it.

    >>> parse(b'{"a": [1, 2.5, null]}')
    {'a': [1, 2.5, None]}
    >>> parse(b'{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ...
    ValueError: key 'a' occurs twice
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has {len(data)} bytes, but at most {MAX_BYTES} are allowed")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error.reason} at byte {error.start}") from None
    # before json recurses, which is what a deep document is made for
    if _depth(text) > MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        raise ValueError(
            f"it is not JSON: {what} at line {error.lineno}; it was cut, edited or damaged"
        ) from None


def canonical(value: Any) -> bytes:
    """Return the form of ``value`` that is hashed: sorted keys, no spaces, ASCII.

    >>> canonical({"b": 1, "a": [True]})
    b'{"a":[true],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def pretty(value: Any) -> bytes:
    """Return ``value`` as text for people.

    It is indented, has each list of integers on one line, and ends in a newline.
    """
    text = json.dumps(value, indent=1, allow_nan=False)
    return (
        _INTEGER_LIST.sub(
            lambda match: f"[{', '.join(match[1].split())}]".replace(",,", ","), text
        ).encode()
        + b"\n"
    )


def plain(value: Any, where: str, *, depth: int = 0) -> Any:
    """Return ``value`` with numpy scalars and tuples converted to JSON values.

    TypeError or ValueError, with the path of the value, for what JSON cannot hold or ``parse``
    would refuse.

    >>> plain({"loss": np.float32(0.5), "shape": (2, 3)}, "extras")
    {'loss': 0.5, 'shape': [2, 3]}
    """
    # a value that contains itself would end in a RecursionError without a path
    if depth > _CIRCLE:
        raise ValueError(
            f"{where:.80} contains itself, or is nested deeper than the {MAX_DEPTH} levels that can be read"
        )
    if isinstance(value, str):
        return _whole(value, where)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, np.integer)):
        integer = int(value)
        if abs(integer) >= 10**MAX_DIGITS:
            raise ValueError(f"{where} has more than {MAX_DIGITS} digits; store it as text")
        return integer
    if isinstance(value, (float, np.floating)):
        if not math.isfinite(value):
            raise ValueError(
                f"{where} is {value}, which JSON cannot hold; leave it out or store it as text"
            )
        return float(value)
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}; keys must be strings")
        return {
            _whole(key, where): plain(item, f"{where}[{key!r}]", depth=depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [
            plain(item, f"{where}[{index}]", depth=depth + 1) for index, item in enumerate(value)
        ]
    hint = ", such as its .tolist()" if hasattr(value, "tolist") else ""
    raise TypeError(
        f"{where} is of type {type(value).__name__}; a record holds None, bool, int, float, str, list and dict{hint}"
    )


def refuse_half_characters(value: Any) -> None:
    """ValueError if a string in ``value`` has a lone surrogate.

    JSON allows it, but no text file can hold it.
    """
    try:
        # all strings at once, at the speed of C
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError(
            "a string in it holds a lone surrogate, which is half a character"
        ) from None


def _whole(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{where:.80} has {text!a:.80}, with a lone surrogate: half a character, or a file name that is not UTF-8; "
            "store os.fsencode(name).hex() instead"
        ) from None
    return text


# No JSON string contains a raw newline, so this matches outside of strings only.
_INTEGER_LIST = re.compile(r"\[\n\s*(-?\d+(?:,\n\s*-?\d+)*)\n\s*\]")
# A string, matched without backtracking, or a bracket.
_TOKEN = re.compile(r'"(?>[^"\\]+|\\.)*+"?|[][{}]', re.DOTALL)


def _depth(text: str) -> int:
    depth = deepest = 0
    for token in _TOKEN.finditer(text):
        mark = text[token.start()]
        if mark != '"':
            depth += 1 if mark in "[{" else -1
            deepest = max(deepest, depth)
    return deepest


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise ValueError(f"key {key!r} occurs twice")
        value[key] = item
    return value


def _int(digits: str) -> int:
    # int() of many digits takes quadratic time, and its own limit is another error
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"an integer has more than {MAX_DIGITS} digits")
    return int(digits)


def _float(digits: str) -> float:
    if len(digits) > MAX_FLOAT:
        raise ValueError(
            f"a number has {len(digits)} characters, but at most {MAX_FLOAT} are allowed"
        )
    value = float(digits)
    if not math.isfinite(value):
        # 1e999 is infinite to Python
        raise ValueError(f"{digits[:40]} is too large for a float")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_int, parse_float=_float, parse_constant=_no_constant
)
