"""Collate functions: what becomes of each field of the samples of a batch.

A ``Rule`` makes one value of the values that a field has in the samples. A ``Collate`` walks
through the samples and applies rules; what has none is collated as torch does it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import torch
from torch.utils.data import default_collate

from globidx.torch.collating.columns import ColumnedSamples
from globidx.torch.collating.leaves import (
    are_metrics,
    becomes_tensor,
    called,
    is_list_of_objects,
    together,
)
from globidx.torch.collating.sparse_rows import SparseRow, matrix

# what samples are usually made of, since a look into a set costs less than isinstance
_PLAIN = frozenset({torch.Tensor, int, float, bool, str, bytes})
#: The offsets that fields of a batch have, by the lengths of the samples.
Offsets = dict[tuple[int, ...], torch.Tensor]


class Rule(Protocol):
    """What is done with a field."""

    @property
    def beside(self) -> str:
        """The entry of the batch that has, by field, what the rule gives beside its value."""

    def takes(self, value: Any) -> bool:
        """Whether it is for such a value, of a field that no rule names."""

    def collated(self, values: Sequence[Any], place: str, seen: Offsets, /) -> tuple[Any, Any]:
        """The field's value in the batch, and what goes beside it; None for nothing."""


@dataclass(frozen=True, repr=False)
class Collate:
    """A ``collate_fn`` that has a rule for some fields; ``a | b`` has the rules of both.

    It can be pickled.

    Parameters
    ----------
    rules : mapping of str or None to Rule
        The rule of each field that is named; that of None is for all others that it takes.
    name : str
        Its ``repr``.

    Examples
    --------
    >>> from globidx import collate
    >>> collate.concat("positions") | collate.pad("image", axis=(1, 2))
    concat('positions') | pad('image', axis=(1, 2))
    """

    rules: Mapping[str | None, Rule]
    name: str = "Collate(...)"

    def __call__(self, samples: Sequence[Any]) -> Any:
        """Return the batch of ``samples``."""
        return _Walk(self.rules).batch(samples)

    def __or__(self, other: Collate) -> Collate:
        if not isinstance(other, Collate):
            return NotImplemented
        for field in self.rules.keys() & other.rules.keys():
            fields = "all other fields" if field is None else f"field {field!r}"
            raise ValueError(
                f"both {self} and {other} are for {fields}: name other fields in one of them"
            )
        return Collate({**self.rules, **other.rules}, f"{self} | {other}")

    def __repr__(self) -> str:
        return self.name


def default(samples: Sequence[Any]) -> Any:
    """Collate as torch's ``default_collate``, and keep what no tensor can hold as Python objects.

    It is what ``globidx.DataLoader`` does if no ``collate_fn`` is given. Tensors, arrays, numbers,
    dicts, tuples and lists of these give exactly what torch's function gives. Besides:

    * a list of text or bytes, such as the texts of a window, stays as it is, so that a batch has a
      list of lists; torch would transpose it;
    * None, and objects that torch does not know, become a list of objects;
    * rows of a sparse matrix become one ``torch.sparse_csr`` tensor;
    * lists of ``globidx.metrics.Metric`` under the key ``"metrics"`` become one list.

    Parameters
    ----------
    samples : sequence
        The samples of a batch.

    Returns
    -------
    Any
        The batch.

    Raises
    ------
    TypeError
        If samples are None, or a field is a tensor in some samples only.
    ValueError
        If shapes or keys differ; the message names the field.

    Examples
    --------
    >>> default([{"x": 1, "words": ["a", "cat"]}, {"x": 2, "words": ["one", "dog"]}])
    {'x': tensor([1, 2]), 'words': [['a', 'cat'], ['one', 'dog']]}
    """
    if isinstance(samples, ColumnedSamples):
        columns = samples.take_columns()
        if columns is not None:
            with suppress(RuntimeError, TypeError, ValueError):
                return _of_columns(columns)
            # what is wrong is raised with the name of its field
    if len(samples) and _is_torchs(samples[0]):
        try:
            return default_collate(samples)  # type: ignore[arg-type]
        except (RuntimeError, TypeError, KeyError):
            # torch's message names no field; if nothing is wrong with them, it is raised as it is
            _Walk({}).batch(samples)
            raise
    return _Walk({}).batch(samples)


def _of_columns(columns: Any) -> Any:
    """The batch of such columns as ``ColumnedSamples`` have."""
    if isinstance(columns, dict):
        return {key: _of_columns(column) for key, column in columns.items()}
    if isinstance(columns, tuple):
        # a list for a tuple, as torch's function has it
        return list(map(_of_columns, columns))
    return default_collate(columns) if isinstance(columns, list) else columns


def _is_torchs(value: Any) -> bool:
    """Whether torch does with such a sample what ``default`` shall do."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is dict:
        return all(map(_is_torchs, value.values()))
    if kind is not tuple and (isinstance(value, (str, bytes)) or becomes_tensor(value)):
        return True
    if isinstance(value, Mapping):
        return all(map(_is_torchs, value.values()))
    if isinstance(value, Sequence) and not isinstance(value, SparseRow):
        return not is_list_of_objects(value) and all(map(_is_torchs, value))
    return False


class _Walk:
    """Through the samples of one batch."""

    def __init__(self, rules: Mapping[str | None, Rule]) -> None:
        self._rules = rules
        self._met: list[str] = []
        self._offsets: Offsets = {}

    def batch(self, samples: Sequence[Any]) -> Any:
        """The batch of ``samples``."""
        if not len(samples):
            raise ValueError("a batch needs a sample, got none")
        if any(sample is None for sample in samples):
            raise TypeError(
                "a sample is None: let the dataset's __getitem__ and its transform= return it"
            )
        batch = self._collated(list(samples), (), None)
        for name in self._rules:
            if name is not None and name not in self._met:
                present = ", ".join(map(repr, filter(None, self._met))) or "none that has a name"
                raise ValueError(f"samples have no field {name!r}; there is {present}")
        return batch

    def _collated(
        self, values: Sequence[Any], keys: tuple[str, ...], beside: dict[str, Any] | None
    ) -> Any:
        """The value that a place has in the batch.

        What rules give beside it goes into ``beside``, which belongs to the outermost dict.
        """
        place, first = "/".join(keys), values[0]
        rule = self._rules.get(place)
        if rule is None and (other := self._rules.get(None)) is not None and other.takes(first):
            rule = other
        if rule is not None:
            self._met.append(place)
            value, more = rule.collated(values, place, self._offsets)
            return value if more is None else _with(value, more, (rule.beside, *keys), beside)
        if isinstance(first, SparseRow):
            self._met.append(place)
            return matrix(values, place)
        if are_metrics(values, keys):
            self._met.append(place)
            return list(chain.from_iterable(values))
        # a type that was registered with torch may be a mapping or a sequence
        is_leaf = becomes_tensor(first)
        if isinstance(first, Mapping) and not is_leaf:
            return self._mapping(values, keys, beside)
        if _is_sequence(first) and not is_leaf:
            return self._sequence(values, keys, beside)
        self._met.append(place)
        return together(values, place)

    def _mapping(
        self, values: Sequence[Any], keys: tuple[str, ...], beside: dict[str, Any] | None
    ) -> Any:
        first, place = values[0], "/".join(keys)
        for index, value in enumerate(values):
            if not isinstance(value, Mapping) or value.keys() != first.keys():
                got = sorted(map(str, value)) if isinstance(value, Mapping) else repr(value)[:80]
                raise ValueError(
                    f"{called(place)} has the keys {sorted(map(str, first))} in sample 0 of the batch, and "
                    f"{got} in sample {index}: all samples must have the same"
                )
        own: dict[str, Any] = {}
        parts = {
            key: self._collated(
                [value[key] for value in values],
                (*keys, str(key)),
                own if beside is None else beside,
            )
            for key in first
        }
        _add(parts, own)
        return _like(first, parts)

    def _sequence(
        self, values: Sequence[Any], keys: tuple[str, ...], beside: dict[str, Any] | None
    ) -> Any:
        first, place = values[0], "/".join(keys)
        for index, value in enumerate(values):
            if not _is_sequence(value) or len(value) != len(first):
                raise ValueError(
                    f"{called(place)} has {len(first)} elements in sample 0 of the batch, and sample {index} has "
                    f"{value!r:.80}: let transform= make tensors of lists whose length differs"
                )
        # the place of what stands in no dict is that of the sample: (sample, id) has the names of
        # the sample
        parts = [
            self._collated(column, keys if beside is None else (*keys, str(number)), beside)
            for number, column in enumerate(zip(*values, strict=True))
        ]
        # a list for a tuple, as torch's function has it
        return type(first)(*parts) if hasattr(first, "_fields") else parts


def _is_sequence(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, (str, bytes))
        and not is_list_of_objects(value)
    )


def _with(value: Any, more: Any, keys: tuple[str, ...], beside: dict[str, Any] | None) -> Any:
    """``value``, after ``more`` went to its place in ``beside``; a pair of both outside of a dict."""
    if beside is None:
        return value, more
    for key in reversed(keys):
        more = {key: more}
    _add(beside, more)
    return value


def _add(into: dict[str, Any], more: Mapping[str, Any], place: str = "") -> None:
    """Add the entries of nested dicts; ValueError if there is one already."""
    for key, value in more.items():
        here = f"{place}/{key}".removeprefix("/")
        if key not in into:
            into[key] = value
        elif isinstance(into[key], dict) and isinstance(value, dict):
            _add(into[key], value, here)
        else:
            raise ValueError(
                f"the samples have a field {here!r} already: name the fields of the rule, or give "
                "its mask or offsets another name, as in pad(mask='padding')"
            )


def _like(first: Mapping[Any, Any], parts: dict[Any, Any]) -> Any:
    """``parts`` in a mapping like ``first``, which may have attributes besides its items."""
    if type(first) is dict or not isinstance(first, MutableMapping):
        return parts
    clone = copy.copy(first)
    clone.update(parts)
    return clone
