"""Groups of samples: which group a sample is in, and where in it, by runs of successive ids."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate
from globidx.core.cached import cached_property

Indices = NDArray[np.int64]


class Groups:
    """A partition of sample ids into groups, in memory for each run of one group.

    Parameters
    ----------
    starts : array_like of int
        The first id of each run, ascending from 0.
    group_of : array_like of int
        The group of each run, in ``[0, number of groups)``.
    num_samples : int
        The number of samples.
    labels : list
        What the groups are called, in the sequence of their numbers.

    Examples
    --------
    >>> some = Groups.of([7, 7, 3, 3, 3, 7])
    >>> some.sizes.tolist(), some.labels
    ([3, 3], [3, 7])
    >>> some.forward(np.array([1, 1, 0]), np.array([0, 2, 0])).tolist()
    [0, 5, 2]
    """

    def __init__(self, starts: Any, group_of: Any, num_samples: int, labels: list[Any]) -> None:
        self.num_samples = num_samples
        self.labels = labels
        self._starts = np.asarray(starts, np.int64)
        self._group_of = np.asarray(group_of, np.int64)
        lengths = np.diff(np.append(self._starts, num_samples))
        #: The number of samples of each group, int64.
        self.sizes = np.bincount(self._group_of, lengths, len(labels)).astype(np.int64)
        # runs group by group; where each begins if the groups stand one after another
        self._sorted = np.argsort(self._group_of, kind="stable")
        self._begins = np.concatenate([[0], np.cumsum(lengths[self._sorted])])[:-1].astype(np.int64)
        self._begin_of = np.empty_like(self._begins)
        self._begin_of[self._sorted] = self._begins
        self._group_starts = np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)

    @classmethod
    def of(cls, labels: Any) -> Groups:
        """Return the groups of samples by their labels.

        Parameters
        ----------
        labels : array_like of int or str
            One for each sample.

        Returns
        -------
        Groups
            Numbered by their sorted labels.

        Raises
        ------
        TypeError
            If labels are not one list of integers or words.
        """
        values, codes = np.unique(_labels(labels), return_inverse=True)
        starts = _changes(codes)
        return cls(starts, codes[starts], len(codes), values.tolist())

    @classmethod
    def of_runs(cls, labels: Any, lengths: Any) -> Groups:
        """Return the groups of runs of successive samples by the label of each run.

        Parameters
        ----------
        labels : array_like of int or str
            One for each run.
        lengths : array_like of int
            How many samples each run has.

        Returns
        -------
        Groups
            As ``of`` returns it for the label of each sample.

        Raises
        ------
        TypeError, ValueError
            If labels are not one list of integers or words, or not one for each run.

        Examples
        --------
        >>> Groups.of_runs(["b", "a", "b"], [2, 3, 1]).sizes.tolist()
        [3, 3]
        """
        array, counts = _labels(labels), validate.int64s(lengths, "lengths")
        if len(array) != len(counts):
            raise ValueError(
                f"there are {len(array)} labels for {len(counts)} runs; give one for each"
            )
        # a run of no samples has no group
        array, ends = array[counts > 0], np.cumsum(counts[counts > 0])
        values, codes = np.unique(array, return_inverse=True)
        runs = _changes(codes)
        starts = np.concatenate([[0], ends])[runs]
        return cls(starts, codes[runs], int(counts.sum()), values.tolist())

    @cached_property
    def digest(self) -> str:
        """What tells these groups from others: 32 hexadecimal digits."""
        digest = hashlib.blake2b(b"globidx.groups.1 %d " % self.num_samples, digest_size=16)
        digest.update(self._starts.astype("<i8").tobytes())
        digest.update(self._group_of.astype("<i8").tobytes())
        return digest.hexdigest()

    def first(self, num_samples: int) -> Groups:
        """Return the groups of the first samples, as if there were no others.

        Parameters
        ----------
        num_samples : int
            How many of the samples.

        Returns
        -------
        Groups
            Without those that have none of them.

        Raises
        ------
        ValueError
            If there are not so many.
        """
        if num_samples >= self.num_samples:
            self.refuse_other(num_samples)
            return self
        runs = int(np.searchsorted(self._starts, num_samples))
        labels, group_of = np.unique(self._group_of[:runs], return_inverse=True)
        return Groups(
            self._starts[:runs], group_of, num_samples, [self.labels[label] for label in labels]
        )

    def without(self, ids: Sequence[tuple[int, int]]) -> Groups:
        """Return the groups with some samples in one more, the last one.

        Parameters
        ----------
        ids : sequence of (int, int)
            Their ids, as ranges ``[start, stop)`` that ascend and do not touch.

        Returns
        -------
        Groups
            Its label is None.

        Examples
        --------
        >>> Groups.of([1, 1, 2, 2, 2]).without([(1, 3)]).sizes.tolist()
        [1, 2, 2]
        """
        bounds = np.array(ids, np.int64).reshape(-1, 2)
        starts = np.unique(np.concatenate([self._starts, bounds.ravel()]))
        starts = starts[starts < self.num_samples]
        group_of = self._group_of[np.searchsorted(self._starts, starts, side="right") - 1]
        before = np.searchsorted(bounds[:, 0], starts, side="right")
        gone = np.concatenate([[0], bounds[:, 1]])[before] > starts
        group_of[gone] = len(self.labels)
        return Groups(starts, group_of, self.num_samples, [*self.labels, None])

    def forward(self, groups: Indices, members: Indices) -> Indices:
        """Return the sample ids of members of groups.

        Parameters
        ----------
        groups, members : numpy.ndarray
            Groups, and members of them, each counted from 0 in its group, int64.

        Returns
        -------
        numpy.ndarray
            The sample ids, int64.
        """
        at = self._group_starts[groups] + members
        runs = np.searchsorted(self._begins, at, side="right") - 1
        ids: Indices = self._starts[self._sorted[runs]] + at - self._begins[runs]
        return ids

    def inverse(self, sample_ids: Indices) -> tuple[Indices, Indices]:
        """Return the group of each sample, and which of its members it is.

        Parameters
        ----------
        sample_ids : numpy.ndarray
            Sample ids, int64.

        Returns
        -------
        groups, members : numpy.ndarray
            As ``forward`` takes them.
        """
        runs = np.searchsorted(self._starts, sample_ids, side="right") - 1
        groups = self._group_of[runs]
        within = self._begin_of[runs] + sample_ids - self._starts[runs]
        return groups, within - self._group_starts[groups]

    def refuse_other(self, num_samples: int) -> None:
        """Refuse groups of another number of samples.

        Parameters
        ----------
        num_samples : int
            The number of samples.

        Raises
        ------
        ValueError
            If groups are given for more or fewer.
        """
        if validate.integer(num_samples, "num_samples") != self.num_samples:
            raise ValueError(
                f"groups are given for {self.num_samples} samples, but there are {num_samples}; give one for each"
            )


def by_sequence(dataset: Any, labels: Any = None) -> Groups:
    """The groups of a dataset's samples by the sequence that each is of, for ``Grouped``.

    Parameters
    ----------
    dataset : FileCacheDataset
        What the sampler reads. Where each row is a sample, its files are the sequences.
    labels : array_like of int or str, optional
        The group of each sequence; by default each is a group of its own.

    Returns
    -------
    Groups
        In memory for each sequence.

    Raises
    ------
    TypeError, ValueError
        If the dataset has no sequences, or there is not one label for each.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> episodes = SimpleNamespace(lengths=[3, 0, 2])
    >>> dataset = SimpleNamespace(index_manager=SimpleNamespace(index=episodes))
    >>> by_sequence(dataset).sizes.tolist()
    [3, 2]
    >>> by_sequence(dataset, labels=["arm", "arm", "arm"]).sizes.tolist()
    [5]
    """
    index = getattr(getattr(dataset, "index_manager", None), "index", None)
    if index is None:
        raise TypeError(
            f"groups by sequence are those of a FileCacheDataset, and the sampler reads a {type(dataset).__name__}: "
            "pass Grouped an array with the group of each sample, or a function that returns it"
        )
    return Groups.of_runs(range(len(index.lengths)) if labels is None else labels, index.lengths)


def _labels(labels: Any) -> NDArray[Any]:
    array = np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind not in "biuUS":
        raise TypeError(
            f"groups must be one integer or word for each sample, got an array of {array.dtype} with shape "
            f"{array.shape}"
        )
    return array


def _changes(codes: Indices) -> Indices:
    """Where a group begins behind another one."""
    starts: Indices = np.flatnonzero(
        np.concatenate([[True], codes[1:] != codes[:-1]])[: len(codes)]
    )
    return starts
