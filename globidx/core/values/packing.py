"""Packing: what a stored number means, by the conventions of netCDF.

Scale, offset, fill values and sign are attributes of an array. The rules, and the order and
precision of each step, are those of xarray's ``decode_cf``, so that values are equal to the bit.

References
----------
CF conventions, sections 2.5.1 and 8.1: https://cfconventions.org
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The attributes that say what a stored number means.
ATTRIBUTES = ("scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned", "dtype")
#: How the fill value is named that zarr 2 keeps beside the attributes.
_OWN = "fill_value"
#: More than that are no list of fill values.
_MOST_FILLS = 64
#: How the spelling of a packing begins that cannot be decoded.
_PROBLEM = "? "
#: A number in a spelling.
_DIGITS = re.compile(r" -?[0-9][0-9.e+-]*")
#: Types of numbers that are not numpy's: those of JSON.
_PYTHON: dict[str, Callable[[str], Any]] = {"float": float, "int": int}

DType = np.dtype[Any]


@dataclass(frozen=True)
class Packing:
    """How values are made from the stored numbers of an array.

    Attributes
    ----------
    scale, offset : number, optional
        What stored numbers are multiplied by, and what is added. Their types matter: they decide
        the dtype of values.
    fills, missing : tuple of numpy numbers
        ``_FillValue`` and ``missing_value``: stored numbers that stand for no value.
    sign : {"", "true", "false"}
        ``_Unsigned``: whether signed integers are to be read as unsigned, or unsigned as signed.
    is_flag : bool
        Whether integers stand for bools.
    is_own : bool
        Whether ``fills`` are no attribute, but what zarr 2 keeps as the fill value of an array.
    problem : str
        Why nothing can be decoded; "" if it can.

    Examples
    --------
    >>> attributes = {"scale_factor": np.float32(0.5), "_FillValue": np.int16(-1)}
    >>> packing = Packing.of(attributes.get, np.dtype("int16"))
    >>> packing.spelled
    'scale_factor float32 0.5, _FillValue int16 -1'
    >>> packing.decode(np.array([7, -1], "int16"))
    array([3.5, nan], dtype=float32)
    >>> Packing.parse(packing.spelled) == packing
    True
    """

    scale: Any = None
    offset: Any = None
    fills: tuple[Any, ...] = ()
    missing: tuple[Any, ...] = ()
    sign: str = ""
    is_flag: bool = False
    is_own: bool = False
    problem: str = ""

    @classmethod
    def of(cls, attribute: Callable[[str], Any], dtype: DType, *, own: Any = None) -> Packing:
        """The packing that attributes say.

        Parameters
        ----------
        attribute : callable
            Returns the attribute of a name, or None.
        dtype : dtype
            That of the stored numbers.
        own : number, optional
            The fill value of the array itself, where it counts instead of ``_FillValue``.

        Returns
        -------
        Packing
            ``PLAIN`` where stored numbers are the values.
        """
        if dtype.kind not in "biufc":
            return PLAIN
        try:
            scale = _number("scale_factor", attribute("scale_factor"))
            offset = _number("add_offset", attribute("add_offset"))
            fills = _fills("_FillValue", attribute("_FillValue") if own is None else own, dtype)
            missing = _fills("missing_value", attribute("missing_value"), dtype)
        except ValueError as error:
            return cls(problem=str(error))
        if scale is None and offset is None and not _present(fills + missing):
            # numbers that are no numbers already: there is nothing to mask
            fills = missing = ()
        sign = _text(attribute("_Unsigned"))
        return cls(
            scale,
            offset,
            fills,
            missing,
            sign if (dtype.kind, sign) in (("i", "true"), ("u", "false")) else "",
            is_flag=dtype.kind != "b" and _text(attribute("dtype")) == "bool",
            is_own=bool(fills) and own is not None,
        )

    @classmethod
    def parse(cls, spelled: str) -> Packing:
        """The packing that is ``spelled`` so.

        Parameters
        ----------
        spelled : str
            What ``spelled`` of a packing returned.

        Returns
        -------
        Packing
            That packing.

        Raises
        ------
        ValueError
            If it is no spelling of a packing.
        """
        try:
            return _parsed(spelled)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{spelled!r:.80} spells no packing: {error}") from None

    @staticmethod
    def outline(spelled: str) -> str:
        """The packing of the same types whose numbers are 1, as it is spelled.

        Values that are packed so have the same dtype. A million files may have a million packings,
        but few outlines.

        >>> Packing.outline("scale_factor float64 0.5, _FillValue int16 -3 -4")
        'scale_factor float64 1, _FillValue int16 1 1'
        """
        return spelled if spelled.startswith(_PROBLEM) else _DIGITS.sub(" 1", spelled)

    @property
    def spelled(self) -> str:
        """All of it as text, types and digits; "" where stored numbers are the values."""
        if self.problem:
            return _PROBLEM + self.problem
        return ", ".join(" ".join(filter(None, part)) for part in self._parts())

    def __str__(self) -> str:
        """What it does, for messages."""
        return self.problem or ", ".join(f"{name} {text}" for name, _, text in self._parts())

    def _parts(self) -> list[tuple[str, str, str]]:
        """Name, type and values of all that is said."""
        numbers = {
            "scale_factor": () if self.scale is None else (self.scale,),
            "add_offset": () if self.offset is None else (self.offset,),
            _OWN if self.is_own else "_FillValue": self.fills,
            "missing_value": self.missing,
        }
        words = {"_Unsigned": self.sign, "dtype": "bool" if self.is_flag else ""}
        return [
            (name, _type_name(values[0]), " ".join(map(str, values)))
            for name, values in numbers.items()
            if values
        ] + [(name, "", word) for name, word in words.items() if word]

    @property
    def meaning(self) -> tuple[object, ...]:
        """What a stored number stands for, whatever the dtype of its value.

        Who reads stored numbers may take those of two arrays for the same only if this is equal.
        A fill value that is zarr's own says nothing by itself: most writers never chose it.
        """
        scale = 1.0 if self.scale is None else float(self.scale)
        offset = 0.0 if self.offset is None else float(self.offset)
        fills = frozenset(one.item() for one in _present(self.fills + self.missing))
        if self.is_own and (scale, offset, self.missing, self.sign) == (1.0, 0.0, (), ""):
            fills = frozenset()
        return scale, offset, fills, self.sign, self.problem

    def decoded(self, dtype: DType) -> DType:
        """The dtype of values whose stored numbers have this ``dtype``.

        Raises
        ------
        ValueError
            If they cannot be decoded.
        """
        return self._steps(dtype)[-1]

    def decode(self, stored: NDArray[Any]) -> NDArray[Any]:
        """The values of stored numbers, in an array of their own.

        Parameters
        ----------
        stored : ndarray
            Numbers in native byte order.

        Returns
        -------
        ndarray
            NaN where a fill value is stored, else ``stored * scale + offset``.

        Raises
        ------
        ValueError
            If they cannot be decoded.
        """
        signed, masked, scaled, final = self._steps(stored.dtype)
        # what overflows or is no number stays silent: it is in the values
        with np.errstate(all="ignore"):
            values = stored.astype(signed)
            if fills := self._encoded(stored.dtype):
                values = values.astype(masked, copy=False)
                # equal as values, after the conversion, as xarray compares
                values[np.logical_or.reduce([values == one for one in fills])] = (
                    complex(np.nan, np.nan) if masked.kind == "c" else np.nan
                )
            values = values.astype(scaled, copy=False)
            if self.scale is not None:
                values *= self.scale
            if self.offset is not None:
                values += self.offset
            return values.astype(final, copy=False)

    def _steps(self, stored: DType) -> tuple[DType, DType, DType, DType]:
        """The dtypes of numbers with their sign, when they are masked, scaled, and in the end."""
        if self.problem:
            raise ValueError(self.problem)
        signed = np.dtype(f"{'u' if self.sign == 'true' else 'i'}{stored.itemsize}")
        signed = signed if self.sign else stored
        is_scaled = self.scale is not None or self.offset is not None
        if signed.kind == "c" and is_scaled:
            raise ValueError("complex numbers are scaled, which would drop their imaginary part")
        masked = scaled = signed
        if self._encoded(stored):
            masked = scaled = self._scaled(signed) if is_scaled else _with_nan(signed)
            if masked.kind not in "fc":
                raise ValueError(
                    f"values would be {masked}, as scale_factor is, which cannot be NaN"
                )
        elif is_scaled and not self.fills + self.missing:
            scaled = self._scaled(signed)
        return signed, masked, scaled, np.dtype(bool) if self.is_flag else scaled

    def _encoded(self, stored: DType) -> list[Any]:
        """The numbers to mask, as they are once the sign is right."""
        fills = list(_present(self.fills))
        others = [one for one in _present(self.missing) if one not in fills]
        if self.sign == "true":
            # as a number of Python, which takes the type of what it is compared with
            fills = [np.array(one, stored).view(f"u{stored.itemsize}").item() for one in fills]
        elif self.sign == "false":
            fills = [np.dtype(f"i{stored.itemsize}").type(one) for one in fills]
        return fills + others

    def _scaled(self, dtype: DType) -> DType:
        """The dtype in which numbers of this one are scaled."""
        types = [np.dtype(type(one)) for one in (self.scale, self.offset) if one is not None]
        if len(types) == 2 and types[0] == types[1] and types[0] in (np.float32, np.float64):
            # 32 bits do not fit into the mantissa of a float32
            is_wide = dtype.itemsize == 4 and dtype.kind in "iu"
            return np.dtype(np.float64) if is_wide else types[0]
        # a large offset could lose digits
        return types[0] if self.offset is None else np.dtype(np.float64)


#: Stored numbers are the values.
PLAIN = Packing()


@lru_cache(4096)
def _parsed(spelled: str) -> Packing:
    if spelled.startswith(_PROBLEM):
        return Packing(problem=spelled.removeprefix(_PROBLEM))
    found = dict(part.split(" ", 1) for part in spelled.split(", ") if part)
    numbers = {
        name: _numbers(text) for name, text in found.items() if name not in ("_Unsigned", "dtype")
    }
    (scale,), (offset,) = (numbers.get(name, (None,)) for name in ("scale_factor", "add_offset"))
    return Packing(
        scale,
        offset,
        numbers.get(_OWN, ()) or numbers.get("_FillValue", ()),
        numbers.get("missing_value", ()),
        found.get("_Unsigned", ""),
        is_flag="dtype" in found,
        is_own=_OWN in found,
    )


def _numbers(text: str) -> tuple[Any, ...]:
    """The numbers of ``float32 1.5 2.5``."""
    name, *values = text.split(" ")
    if name in _PYTHON:
        return tuple(map(_PYTHON[name], values))
    dtype = np.dtype(name)
    read = {"i": int, "u": int, "f": str, "c": complex}.get(dtype.kind)
    if read is None:
        raise ValueError(f"{name} is no dtype of numbers")
    numbers = tuple(map(read, values))
    if dtype.kind in "iu" and not all(_fits(one, dtype) for one in numbers):
        # older versions of numpy wrap such a number around
        raise ValueError(f"{text} is beyond the numbers of its dtype")
    return tuple(map(dtype.type, numbers))


def _fits(number: int, dtype: np.dtype[Any]) -> bool:
    bounds = np.iinfo(dtype)
    return int(bounds.min) <= number <= int(bounds.max)


def _type_name(number: Any) -> str:
    return number.dtype.name if isinstance(number, np.generic) else type(number).__name__


def _number(name: str, value: Any) -> Any:
    """The one number of an attribute, of the type that it is stored with; None where there is none."""
    if value is None or type(value) in (float, int):
        return value
    flat = np.ravel(value)
    if flat.size != 1 or flat.dtype.kind not in "iuf":
        raise ValueError(f"{name} is {value!r:.80}, and no number")
    # a list of one number is a number, and one of JSON is Python's
    return flat[0].item() if isinstance(value, list) else flat[0]


def _fills(name: str, value: Any, dtype: DType) -> tuple[Any, ...]:
    """The fill values of an attribute that can be those of numbers of ``dtype``."""
    if value is None or dtype.kind == "b":
        # a bool has no room for a missing value
        return ()
    flat = np.ravel(value)
    if flat.dtype.kind not in "iufc" or not 1 <= flat.size <= _MOST_FILLS:
        raise ValueError(f"{name} is {value!r:.80}, and no number")
    numbers = _present(flat)
    # no integer is NaN, and of other numbers the attribute alone makes a difference
    return numbers if numbers or dtype.kind in "iu" else (flat[0],)


def _present(fills: Iterable[Any]) -> tuple[Any, ...]:
    """Fill values that are not NaN, which is NaN anyway."""
    return tuple(one for one in fills if not np.isnan(one))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _with_nan(dtype: DType) -> DType:
    """The smallest dtype of this one's numbers and NaN, as xarray promotes."""
    if dtype.kind in "fc":
        return dtype
    return np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)
