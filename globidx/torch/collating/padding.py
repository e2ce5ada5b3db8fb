"""Padding: tensors of different sizes as one tensor, and a mask of what is data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from globidx.core import validate
from globidx.torch.collating.collate import Collate, Offsets
from globidx.torch.collating.fields import Fields, collate_of
from globidx.torch.collating.leaves import called
from globidx.torch.collating.ragged import has_axes, refuse_other_axes, shapes, tensors

Sizes = tuple[int | None, ...]


def pad(
    fields: Fields = None,
    *,
    axis: int | Sequence[int] = 0,
    value: complex = 0,
    length: int | Sequence[int | None] | None = None,
    multiple_of: int | Sequence[int] = 1,
    side: Literal["right", "left"] = "right",
    mask: bool | str = True,
) -> Collate:
    """Pad tensors of different sizes to the largest of the batch, with a mask of what is data.

    The mask is ``batch["mask"][field]``, nested as the fields are, like that of
    ``Window(mask=True)``: bool, True where data is. It has the batch's axis and those that are
    padded, in the sequence in which ``axis`` names them; so it is ``(batch, length)`` for rows of
    any shape. What the batch is made of never depends on the sizes in it: a field has its mask even
    where nothing had to be padded.

    Parameters
    ----------
    fields : str or iterable of str, optional
        Fields to pad, as the dataset names them (``"obs/image"``); the others are collated by
        ``default``. By default every tensor that has the axes is padded. Different fields are
        padded in different ways by ``pad("a") | pad("b", value=-1)``: like policies, so that each
        rule stands beside the fields that it is for.
    axis : int or sequence of int, default 0
        Axes of a sample along which sizes differ; ``(1, 2)`` or ``(-2, -1)`` for images of shape
        (channels, height, width). Sizes along all others must be equal.
    value : number, default 0
        What is written where no data is.
    length : int or sequence of int, optional
        Pad to that size, one for all axes or one for each, rather than to the largest of the
        batch. None in a sequence is the largest.
    multiple_of : int or sequence of int, default 1
        Round sizes up to a multiple.
    side : {"right", "left"}, default "right"
        Whether padding comes behind or in front of the data.
    mask : bool or str, default True
        Whether there is a mask; a str is its name in place of ``"mask"``.

    Returns
    -------
    Collate
        A function of samples for ``collate_fn=``. It can be pickled. Of samples that are bare
        tensors it makes a pair (padded, mask).

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or value. When called, if a field is missing, is no
        tensor, differs in dtype or along another axis, is longer than ``length``, or cannot hold
        ``value``.

    Examples
    --------
    >>> samples = [{"x": torch.tensor([1, 2, 3]), "y": 0}, {"x": torch.tensor([4]), "y": 1}]
    >>> batch = pad("x", value=-1)(samples)
    >>> batch["x"].tolist(), batch["mask"]["x"].tolist(), batch["y"].tolist()
    ([[1, 2, 3], [4, -1, -1]], [[True, True, True], [True, False, False]], [0, 1])
    """
    axes = _axes(axis)
    if side not in ("right", "left"):
        raise ValueError(f"side must be 'right' or 'left', got {side!r}")
    if not isinstance(mask, (bool, str)):
        raise TypeError(f"mask must be True, False or a name, got {mask!r}")
    if mask == "":
        raise ValueError("mask must be True, False or a name, got ''")
    if not isinstance(value, (int, float, complex)):
        raise TypeError(f"value must be a number, got {value!r:.80}")
    lengths = _by_axis(length, "length", len(axes), low=0, optional=True)
    multiples = _by_axis(multiple_of, "multiple_of", len(axes), low=1, optional=False)
    name = mask if isinstance(mask, str) else "mask" if mask else ""
    rule = Padding(axes, value, lengths, tuple(step or 1 for step in multiples), side, name)
    changed = {
        "axis": (axis, 0),
        "value": (value, 0),
        "length": (length, None),
        "multiple_of": (multiple_of, 1),
        "side": (side, "right"),
        "mask": (mask, True),
    }
    return collate_of("pad", fields, rule, changed)


@dataclass(frozen=True)
class Padding:
    """The rule of ``pad``; ``beside`` is empty if there is no mask."""

    axes: tuple[int, ...]
    value: complex
    lengths: Sizes
    multiples: tuple[int, ...]
    side: str
    beside: str

    @property
    def _needed(self) -> int:
        """How many axes a tensor must have."""
        return max(axis + 1 if axis >= 0 else -axis for axis in self.axes)

    def takes(self, value: Any) -> bool:
        """Whether it is a tensor that has the axes."""
        return has_axes(value, self._needed)

    def collated(
        self, values: Sequence[Any], place: str, _seen: Offsets, /
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(padded values, mask or None)."""
        found = tensors(values, place, count=self._needed, by="pad()")
        axes = [axis % found[0].ndim for axis in self.axes]
        if len(set(axes)) < len(axes):
            raise ValueError(
                f"{called(place)} has {found[0].ndim} axes, so that axis={self.axes} names one of them twice"
            )
        refuse_other_axes(
            found,
            axes,
            place,
            by="pad()",
            instead=f"name it, too, as in pad(axis={_all(found, axes)})",
        )
        sizes = self._sizes(found, axes, place)
        shape = list(found[0].shape)
        for axis, size in zip(axes, sizes, strict=True):
            shape[axis] = size
        padded = self._filled(found[0], (len(found), *shape), place)
        for row, one in zip(padded, found, strict=True):
            row[self._data(one, axes, shape)] = one
        return padded, self._mask(found, axes, sizes) if self.beside else None

    def _sizes(self, found: list[torch.Tensor], axes: list[int], place: str) -> list[int]:
        """The padded size along each axis."""
        sizes = []
        for axis, wanted, step in zip(axes, self.lengths, self.multiples, strict=True):
            longest = max(one.shape[axis] for one in found)
            if wanted is not None and longest > wanted:
                index = [one.shape[axis] for one in found].index(longest)
                raise ValueError(
                    f"{called(place)} has shape {shapes(found)[index]} in sample {index} of the batch, more along "
                    f"axis {axis} than length={wanted}: cut it by transform=, or give a larger length="
                )
            size = longest if wanted is None else wanted
            sizes.append(-(-size // step) * step)
        return sizes

    def _filled(self, like: torch.Tensor, shape: tuple[int, ...], place: str) -> torch.Tensor:
        if not self.value:
            return like.new_zeros(shape)
        if not is_held(self.value, like.dtype):
            raise ValueError(
                f"{called(place)} is {like.dtype}, which does not have value={self.value!r}: choose "
                "another value= for it"
            )
        return like.new_full(shape, self.value)

    def _data(self, one: torch.Tensor, axes: list[int], shape: list[int]) -> tuple[slice, ...]:
        """Where the data of a sample lies in its padded row."""
        where = [slice(None)] * one.ndim
        for axis in axes:
            size, whole = one.shape[axis], shape[axis]
            where[axis] = slice(whole - size, whole) if self.side == "left" else slice(size)
        return tuple(where)

    def _mask(self, found: list[torch.Tensor], axes: list[int], sizes: list[int]) -> torch.Tensor:
        """(batch, padded axes): True where data is."""
        mask = torch.ones((len(found), *sizes), dtype=torch.bool)
        for number, (axis, size) in enumerate(zip(axes, sizes, strict=True)):
            lengths = torch.tensor([one.shape[axis] for one in found])[:, None]
            places = torch.arange(size)
            inside = places >= size - lengths if self.side == "left" else places < lengths
            others = [1] * len(sizes)
            others[number] = size
            mask &= inside.view(len(found), *others)
        return mask


def is_held(value: Any, dtype: torch.dtype) -> bool:
    """Whether a dtype has a value, rounded if it has a point."""
    if type(value) is complex:
        return dtype.is_complex
    # torch would wrap -1 to 255, cut 0.5 to 0, and make 1e9 infinite, without a word
    held = torch.tensor(value).to(dtype).item()
    if dtype.is_floating_point or dtype.is_complex:
        return math.isinf(value) or math.isnan(value) or not math.isinf(abs(held))
    return bool(held == value)


def _all(found: list[torch.Tensor], axes: list[int]) -> tuple[int, ...]:
    """``axes``, and every axis along which tensors differ."""
    differ = [axis for axis in range(found[0].ndim) if len({one.shape[axis] for one in found}) > 1]
    return tuple(sorted({*axes, *differ}))


def _axes(axis: int | Sequence[int]) -> tuple[int, ...]:
    axes = tuple(
        validate.integer(one, "axis", low=-64, high=63)
        for one in (axis if isinstance(axis, Sequence) else (axis,))
    )
    if not axes or len(set(axes)) < len(axes):
        raise ValueError(f"axis must name at least one axis, and each once, got {axis!r}")
    return axes


def _by_axis(
    value: int | Sequence[int | None] | None, name: str, count: int, *, low: int, optional: bool
) -> Sizes:
    """An argument's value for each of ``count`` axes."""
    given = list(value) if isinstance(value, Sequence) else [value] * count
    if len(given) != count:
        raise ValueError(f"{name} must be one number, or {count}, one for each axis, got {value!r}")
    return tuple(
        None if one is None and optional else validate.integer(one, name, low=low) for one in given
    )
