"""The dataset: samples of many zarr and HDF5 files, as tensors."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal, Never

import numpy as np
import torch
import torch.utils.data

from globidx.core import validate
from globidx.core.index.chunking import Chunking
from globidx.core.reading.planning import CACHE_BYTES
from globidx.disk.index.manager import GlobalIndexManager
from globidx.disk.reading.counters import Counters
from globidx.disk.reading.explain import explain
from globidx.disk.reading.open_file import BACKENDS
from globidx.disk.reading.reader import ON_MISSING, Reader
from globidx.torch.quarantine import SubstitutedSamples
from globidx.torch.substitutes import ON_ERROR, OnError, Substitutes


class FileCacheDataset(torch.utils.data.Dataset[Any]):
    """Map-style dataset over the files of a ``GlobalIndexManager``: ``ds[id]`` is a tensor, or a dict of tensors by
    field.

    ``fields`` names arrays of the index to read, all of them by default: one gives a tensor, several a dict.
    ``transform`` is called with that sample, and its result is what the dataset returns; ``with_id=True`` returns
    ``(sample, id)`` instead. At most ``max_open_files`` files are open in a process (by default a quarter of what the
    process may open, 128 at most), and ``cache_bytes`` of decoded chunks are kept. ``on_missing="fill"`` reads chunks
    that the store does not have as its fill value; the default is an error. ``backend="auto"`` decodes what lies
    plainly by itself and leaves the rest to zarr-python and h5py; ``"library"`` leaves everything to them, and
    ``"tensorstore"`` zarr to tensorstore. ``explain()`` says what is read how, ``counters()`` what it took.

    ``on_error="substitute"`` puts a neighbour in place of a sample that cannot be read (ReadError, MissingChunkError),
    so that batches keep their size on every rank; ReadError where none near is readable. A function gets (id, error)
    and returns the id to read instead, or raises. The id that was asked for is logged, and ``globidx.DataLoader`` lists
    it in ``sampler.quarantined``, which the record keeps; other loaders leave it at the log. What ``transform`` raises
    is raised. ``with_id=True`` returns the id of the sample that is given, not the one that was asked for.

    Files are opened in the process that reads, on first use: the dataset can be pickled, forked and spawned at any
    time.

    >>> import tempfile, zarr
    >>> folder = tempfile.TemporaryDirectory()
    >>> array = zarr.create_array(f"{folder.name}/a.zarr", data=np.arange(6).reshape(3, 2))
    >>> dataset = FileCacheDataset(GlobalIndexManager(folder.name))
    >>> dataset[2], len(dataset)
    (tensor([4, 5]), 3)
    >>> dataset.__getitems__([1, 0])
    [tensor([2, 3]), tensor([0, 1])]
    >>> dataset.counters().bytes_useful
    48
    >>> folder.cleanup()
    """

    def __init__(
        self,
        index_manager: GlobalIndexManager,
        *,
        fields: str | Sequence[str] | None = None,
        transform: Callable[[Any], Any] | None = None,
        max_open_files: int | None = None,
        cache_bytes: int = CACHE_BYTES,
        with_id: bool = False,
        on_missing: Literal["error", "fill"] = "error",
        backend: Literal["auto", "library", "tensorstore"] = "auto",
        on_error: OnError = "raise",
        **misplaced: Never,
    ) -> None:
        if misplaced:
            raise TypeError(_misplaced(index_manager, list(misplaced)))
        if not isinstance(index_manager, GlobalIndexManager):
            raise TypeError(
                f"a dataset reads what an index numbers: pass GlobalIndexManager(files, key=...), got {index_manager!r}"
            )
        if on_missing not in ON_MISSING:
            raise ValueError(f"on_missing must be one of {', '.join(ON_MISSING)}, got {on_missing!r}")
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
        if on_error not in ON_ERROR and not callable(on_error):
            raise ValueError(f"on_error must be one of {', '.join(ON_ERROR)} or a function, got {on_error!r}")
        if transform is not None and not callable(transform):
            raise TypeError(f"transform must be callable, got {transform!r}")
        self.index_manager = index_manager
        self.fields = _fields(index_manager, fields)
        self.transform = transform
        self.with_id = with_id
        self._reader = Reader(
            index_manager,
            self.fields,
            max_open_files=None
            if max_open_files is None
            else validate.integer(max_open_files, "max_open_files", low=1),
            cache_bytes=validate.integer(cache_bytes, "cache_bytes"),
            on_missing=on_missing,
            backend=backend,
        )
        self._substitutes = None if on_error == "raise" else Substitutes(self._reader.read, index_manager, on_error)

    def __len__(self) -> int:
        return len(self.index_manager)

    @property
    def fingerprint(self) -> str:
        """Content identity of the files; a sampler's record keeps it."""
        return self.index_manager.fingerprint

    @property
    def num_files(self) -> int:
        """How many files there are."""
        return self.index_manager.num_files

    @property
    def chunking(self) -> Chunking:
        """How the samples lie in chunks, for ``orders.ChunkShuffle``."""
        return self.index_manager.now.chunking

    def fingerprint_of(self, num_files: int) -> str:
        """The fingerprint of the first ``num_files`` files alone."""
        return self.index_manager.fingerprint_of(num_files)

    def __getitem__(self, sample_id: int) -> Any:
        return self.__getitems__([validate.sample_id(sample_id, len(self))])[0]

    def __getitems__(self, sample_ids: Sequence[int]) -> list[Any]:
        """Samples of a batch of ids, in their sequence, each file and contiguous run read once.

        What torch's loader calls. Each sample's memory is writable and no other's; while any of a batch is kept, so is
        the memory of all: ``clone()`` what is to stay for long.
        """
        if self._substitutes is None:
            return self._samples(self._reader.read(sample_ids), sample_ids)
        arrays, ids, places = self._substitutes.read(sample_ids)
        samples = self._samples(arrays, ids)
        return SubstitutedSamples(samples, places) if places else samples

    @property
    def may_substitute(self) -> bool:
        """Whether a sample may stand for another."""
        return self._substitutes is not None

    def counters(self, *, reset: bool = False) -> Counters:
        """What reading has cost: cache hits, decoded chunks, bytes, opened files.

        Parameters
        ----------
        reset
            Begin to count anew.

        Returns
        -------
        Counters
            What this process has read, and what the workers of a ``globidx.DataLoader`` with our sampler had read when
            they made the batches that the loop was given. Workers of other loaders tell nobody: there it is what this
            process alone has read.
        """
        return self._reader.counters(reset=reset)

    def explain(self) -> str:
        """How each array is read and why, what is kept in memory, and how many files are open at most: text to read."""
        return explain(self._reader)

    def close(self) -> None:
        """Close all files that this process has open; reading opens them again."""
        self._reader.close()

    def _samples(self, arrays: Sequence[tuple[Any, ...]], ids: Sequence[int]) -> list[Any]:
        samples = map(self._sample, arrays)
        if self.with_id:
            return [(sample, operator.index(id)) for sample, id in zip(samples, ids, strict=True)]
        return list(samples)

    def _sample(self, arrays: tuple[Any, ...]) -> Any:
        if len(arrays) == 1:
            sample: Any = torch.from_numpy(arrays[0])
        else:
            sample = dict(zip(self.fields, map(torch.from_numpy, arrays), strict=True))
        return sample if self.transform is None else self.transform(sample)

    def __repr__(self) -> str:
        return f"FileCacheDataset({len(self)} samples in {self.num_files} files, fields {list(self.fields)})"


def _misplaced(index_manager: object, names: list[str]) -> str:
    """What to do with arguments that a dataset does not have: some are the index's."""
    theirs = [name for name in names if name in inspect.signature(GlobalIndexManager).parameters]
    if not theirs:
        return f"FileCacheDataset() got an unexpected keyword argument {names[0]!r}"
    options = ", ".join(f"{name}=..." for name in theirs)
    files = "files" if isinstance(index_manager, GlobalIndexManager) else f"{index_manager!r:.80}"
    return (
        f"{' and '.join(theirs)} {'belongs' if len(theirs) == 1 else 'belong'} to the index, which knows files and "
        f"arrays: FileCacheDataset(GlobalIndexManager({files}, {options}))"
    )


def _fields(manager: GlobalIndexManager, fields: str | Sequence[str] | None) -> tuple[str, ...]:
    """The arrays to read, each known to the index and of a dtype that torch has."""
    present = [info.name for info in manager.arrays]
    wanted = tuple(present) if fields is None else (fields,) if isinstance(fields, str) else tuple(fields)
    for name in wanted:
        if name not in present:
            raise ValueError(
                f"the index has no array {name!r}; there is {', '.join(map(repr, present))}. Name it in the index's key"
            )
    if not wanted or len(set(wanted)) < len(wanted):
        raise ValueError(f"fields must name at least one array, and each once, got {fields!r}")
    for info in manager.arrays:
        if info.name in wanted:
            try:
                torch.from_numpy(np.empty(0, info.dtype))
            except TypeError:
                raise ValueError(f"array {info.name!r} has dtype {info.dtype}, which torch has not") from None
    return wanted
