"""Parts of a sample: what ``select=`` and ``part=`` take along the axes of an array.

Users count the axes of stored arrays, as zarr and h5py do; readers those of an item.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate
from globidx.core.cached import cached_property
from globidx.core.index.table import ArrayInfo
from globidx.core.reading.pieces import Index, Taken, as_index, take

#: A function of a generator and a shape that says what is taken of one sample.
Crop = Callable[[np.random.Generator, tuple[int, ...]], Mapping[int, Any]]
Part = tuple[int, int]


@dataclass(frozen=True)
class Selection:
    """What is taken of an item, along each of its axes: a value, by which what was read is kept.

    >>> some = Selection((3, 5, 4), (range(0, 3), (4, 1), 2))
    >>> some.shape
    (3, 2)
    >>> some.of(np.arange(3 * 5 * 4).reshape(1, 3, 5, 4))[0].tolist()
    [[18, 6], [38, 26], [58, 46]]
    """

    item_shape: tuple[int, ...]
    taken: tuple[Taken, ...]

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape of what is left of an item."""
        return tuple(len(one) for one in self.taken if not isinstance(one, int))

    @cached_property
    def insides(self) -> list[Index]:
        """What is taken along each axis, as an index of an array."""
        return [_index(one) for one in self.taken]

    def of(self, rows: NDArray[Any]) -> NDArray[Any]:
        """What is taken of whole ``rows``, which lie along axis 0."""
        return take(rows, self.insides)

    @cached_property
    def _hash(self) -> int:
        return hash((self.item_shape, self.taken))

    def __hash__(self) -> int:
        # a list of channels may be long, and every chunk that is looked for asks
        return self._hash


@dataclass(frozen=True)
class Cut:
    """What is taken of the samples of a field: always the same, or by a function of each.

    ``label`` names the argument in messages.
    """

    info: ArrayInfo
    select: Mapping[int, Any] | Crop
    part: Mapping[int, Part] | Part | None
    label: str

    @property
    def is_crop(self) -> bool:
        """Whether each sample has a selection of its own."""
        return callable(self.select)

    def of(self, rng: np.random.Generator | None = None) -> Selection | None:
        """The selection, of the sample of ``rng`` where there is one; None where it is all.

        TypeError, ValueError, IndexError where it is none.
        """
        if self.info.form in ("ragged", "whole"):
            raise ValueError(
                f"{self.label}: the samples of array {self.info.name!r} are of any shape, so that no part of them "
                "can be named beforehand; cut them in transform="
            )
        axes = _Axes(self.info)
        select: Any = self.select
        if callable(select):
            assert rng is not None, "a function is called with a sample's generator"
            select = select(rng, axes.stored_shape)
            if not isinstance(select, Mapping):
                raise TypeError(
                    f"{self.label} must return a dict of axes, {{axis: slice}}, got {select!r:.80}"
                )
        taken: list[Taken] = [range(size) for size in self.info.item_shape]
        for axis, value in axes.each(select, self.label):
            label = f"{self.label}[{axes.stored[axis]}]"
            taken[axis] = _taken(value, self.info.item_shape[axis], label)
        for axis, part in self._parts(axes, taken):
            one = taken[axis]
            if isinstance(one, int):
                raise ValueError(
                    f"part of {axes.name} is along axis {axes.stored[axis]}, of which select= takes one element; "
                    "take a slice or a list of it, or name another axis"
                )
            share = one[_share(len(one), part)]
            taken[axis] = _short(np.array(share, np.int64)) if isinstance(share, tuple) else share
        if all(one == range(size) for one, size in zip(taken, self.info.item_shape, strict=True)):
            return None
        return Selection(self.info.item_shape, tuple(taken))

    def _parts(self, axes: _Axes, taken: Sequence[Taken]) -> list[tuple[int, Part]]:
        if self.part is None:
            return []
        if isinstance(self.part, Mapping):
            return list(axes.each(self.part, "part"))
        kept = [axis for axis in range(len(axes.stored)) if not isinstance(taken[axis], int)]
        if not kept:
            raise ValueError(
                f"part: the samples of {axes.name} have no axis to take a part of; "
                'name the fields that have one: part={"field": (number, of)}'
            )
        return [(kept[-1], self.part)]


def cuts(infos: Sequence[ArrayInfo], select: Any = None, part: Any = None) -> list[Cut | None]:
    """What the arguments ``select`` and ``part`` say of each field that is read, checked.

    >>> image = ArrayInfo("image", (3, 64, 64), "uint8", 8, "image")
    >>> label = ArrayInfo("label", (), "int64", 8, "label")
    >>> cut, none = cuts([image, label], {"image": {1: [2, 0]}}, {"image": (1, 4)})
    >>> cut.of()
    Selection(item_shape=(3, 64, 64), taken=((2, 0), range(0, 64), range(16, 32)))
    >>> cuts([image], {4: 0})
    Traceback (most recent call last):
    ...
    ValueError: select[4]: array 'image' is stored with 4 axes, and 4 is none of them, [-4, 4)
    """
    by_field = _by_field(infos, select, "select", _is_choice)
    parts = _by_field(infos, part, "part", _is_part)
    found: list[Cut | None] = []
    for info in infos:
        if info.name not in by_field and info.name not in parts:
            found.append(None)
            continue
        label = "select" if len(infos) == 1 else f"select[{info.name!r}]"
        cut = Cut(info, by_field.get(info.name, {}), _checked(parts.get(info.name)), label)
        if not cut.is_crop and cut.of() is None:
            # all of it: it is read as if nothing had been asked
            found.append(None)
        else:
            found.append(cut)
    return found


class _Axes:
    """The axes of an item, by the numbers that they have in the stored array."""

    def __init__(self, info: ArrayInfo) -> None:
        self.name = f"array {info.name!r}" if info.name else "the array"
        ahead = {0, info.axis} if info.form == "stacked" else {info.axis}
        self.stored: list[int]
        #: The shape of the stored array, if it held one item.
        self.stored_shape: tuple[int, ...]
        if info.form == "tokens":
            self._ndim, self.stored = 1, []
            self.stored_shape = (1,)
            return
        self._ndim = len(info.item_shape) + len(ahead)
        self.stored = [axis for axis in range(self._ndim) if axis not in ahead]
        sizes = dict(zip(self.stored, info.item_shape, strict=True))
        self.stored_shape = tuple(sizes.get(axis, 1) for axis in range(self._ndim))

    def each(self, chosen: Mapping[int, Any], label: str) -> list[tuple[int, Any]]:
        """The axis of an item, and what is said of it."""
        found: dict[int, Any] = {}
        for key, value in chosen.items():
            axis = self._axis(key, label)
            if axis in found:
                raise ValueError(
                    f"{label} names axis {self.stored[axis]} of {self.name} twice, also as {key}"
                )
            found[axis] = value
        return list(found.items())

    def _axis(self, key: Any, label: str) -> int:
        axis = validate.integer(key, f"an axis of {label}", low=-(2**63))
        if not -self._ndim <= axis < self._ndim:
            raise ValueError(
                f"{label}[{axis}]: {self.name} is stored with {self._ndim} axes, and {axis} is none of them, "
                f"[{-self._ndim}, {self._ndim})"
            )
        if axis % self._ndim not in self.stored:
            rest = f"choose among axes {self.stored}" if self.stored else "it has no other axis"
            raise ValueError(
                f"{label}[{axis}]: axis {axis % self._ndim} of {self.name} is that of its items, which sample ids "
                f"choose; {rest}"
            )
        return self.stored.index(axis % self._ndim)


def _by_field(
    infos: Sequence[ArrayInfo], given: Any, label: str, is_one: Callable[[Any], bool]
) -> dict[str, Any]:
    """What is said of each field, by its name."""
    if given is None:
        return {}
    names = [info.name for info in infos]
    if is_one(given):
        if label == "select" and len(names) > 1:
            raise ValueError(
                f"select must name the fields, {{{names[0]!r}: ...}}, where a dataset reads several: "
                f"{', '.join(map(repr, names))}"
            )
        return dict.fromkeys(names, given)
    what = (
        "{axis: slice, list or int}"
        if label == "select"
        else "(number, of) or {axis: (number, of)}"
    )
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise TypeError(f"{label} must be {what}, or a dict of these by field, got {given!r:.80}")
    for name, value in given.items():
        if name not in names:
            raise ValueError(
                f"{label} names the field {name!r}, which the dataset does not read; "
                f"it reads {', '.join(map(repr, names))}"
            )
        if not is_one(value):
            raise TypeError(f"{label}[{name!r}] must be {what}, got {value!r:.80}")
    return dict(given)


def _is_choice(value: Any) -> bool:
    return callable(value) or (
        isinstance(value, Mapping) and not any(isinstance(key, str) for key in value)
    )


def _is_part(value: Any) -> bool:
    return isinstance(value, (tuple, list)) or (
        isinstance(value, Mapping) and not any(isinstance(key, str) for key in value)
    )


def _checked(part: Any) -> Mapping[int, Part] | Part | None:
    if part is None:
        return None
    if isinstance(part, Mapping):
        return {axis: _pair(one, f"part[{axis!r}]") for axis, one in part.items()}
    return _pair(part, "part")


def _pair(part: Any, label: str) -> Part:
    if not isinstance(part, (tuple, list)) or len(part) != 2:
        raise TypeError(f"{label} must be (number, of), two integers, got {part!r:.80}")
    of = validate.integer(part[1], f"of in {label}", low=1)
    number = validate.integer(part[0], f"number in {label}")
    if number >= of:
        raise ValueError(
            f"{label} is (number, of), and its number must be in [0, {of}), got {number}; "
            "parts count from 0, as ranks do"
        )
    return number, of


def _share(length: int, part: Part) -> slice:
    """A part of ``length`` elements, as ``torch.tensor_split`` cuts: the first ones one longer.

    >>> [_share(7, (number, 3)) for number in range(3)]
    [slice(0, 3, None), slice(3, 5, None), slice(5, 7, None)]
    """
    number, of = part
    size, longer = divmod(length, of)
    start = number * size + min(number, longer)
    return slice(start, start + size + (number < longer))


def _taken(value: Any, size: int, label: str) -> Taken:
    """What a slice, a list or an int takes of an axis of ``size`` elements."""
    if isinstance(value, slice):
        return _sliced(value, size, label)
    if isinstance(value, (int, np.integer)):
        return _element(value, size, label)
    if not isinstance(value, (list, tuple, range, np.ndarray)):
        raise TypeError(
            f"{label} must be a slice, a list of integers or an integer, got {value!r:.80} ({type(value).__name__})"
        )
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return _element(value[()], size, label)
    elements = validate.int64s(value, f"element of {label}")
    if not len(elements):
        raise ValueError(f"{label} takes nothing of an axis of {size} elements")
    if int(elements.min()) < -size or int(elements.max()) >= size:
        wrong = elements[(elements < -size) | (elements >= size)][0]
        raise IndexError(f"{label}: element {wrong} is outside [{-size}, {size})")
    return _short(np.where(elements < 0, elements + size, elements))


def _sliced(value: slice, size: int, label: str) -> Taken:
    try:
        taken = range(*value.indices(size))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{label} is {value}, which is no slice of integers: {error}") from None
    if taken.step < 1:
        raise ValueError(
            f"{label} is {value}; a slice must have a positive step: flip the sample in transform=, or pass a list"
        )
    if not taken:
        raise ValueError(f"{label} is {value}, which takes nothing of an axis of {size} elements")
    return taken


def _short(elements: NDArray[np.int64]) -> Taken:
    """Elements as a range where they are one, so that equal selections are equal values."""
    index = as_index(elements) if len(elements) else slice(0, 0, 1)
    if isinstance(index, slice) and index.step > 0:
        return range(index.start, index.stop, index.step)
    return tuple(elements.tolist())


def _element(value: Any, size: int, label: str) -> int:
    element = validate.integer(value, label, low=-(2**63))
    if not -size <= element < size:
        raise IndexError(f"{label}: element {element} is outside [{-size}, {size})")
    return element % size


def _index(one: Taken) -> Index:
    if isinstance(one, int):
        return one
    if isinstance(one, range):
        return slice(one.start, one.stop, one.step)
    return as_index(np.array(one, np.int64))
