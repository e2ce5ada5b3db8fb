"""The dataset: samples of many zarr and HDF5 files, as tensors."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from os import PathLike
from typing import Any, Literal, Never

import numpy as np
import torch
import torch.utils.data

from globidx.core import validate
from globidx.core.generator import GLOBALS, START, Moment
from globidx.core.index.categories import Category
from globidx.core.index.chunking import Chunking
from globidx.core.reading.planning import CACHE_BYTES
from globidx.core.reading.selection import Crop
from globidx.disk.index.manager import GlobalIndexManager
from globidx.disk.local_cache.folder import cache_of
from globidx.disk.reading import packings
from globidx.disk.reading.counters import Counters
from globidx.disk.reading.explain import explain
from globidx.disk.reading.open_file import BACKENDS
from globidx.disk.reading.packings import ByPacking
from globidx.disk.reading.reader import CACHES, Reader
from globidx.disk.reading.takes import Column, rows_of
from globidx.disk.remote.retries import PREFETCH_BYTES, REQUESTS, Bounds
from globidx.torch.collating.columns import ColumnedSamples
from globidx.torch.loops.moments import SharedMoment, seeded
from globidx.torch.loops.quarantine import SubstitutedSamples
from globidx.torch.parts import missing_by_field, parts_of
from globidx.torch.sources.transform import asks_for_rng, transformed
from globidx.torch.substitutes import ON_ERROR, OnError, Substitutes
from globidx.torch.values import Giver, constant, gives_rows


class FileCacheDataset(torch.utils.data.Dataset[Any]):
    """A map-style dataset over the files of a ``GlobalIndexManager``.

    ``ds[id]`` is a tensor, or a dict by field, nested where the index's key names ``"obs/image"``.
    With a window, a field has a leading axis for its offsets, unless that is one int. Constants are
    shared by the samples that have them: change none in place. Files are opened on first use by the
    process that reads, so the dataset can be pickled, forked and spawned at any time.

    Parameters
    ----------
    index_manager : GlobalIndexManager
        The files and arrays.
    fields : str or sequence of str, optional
        Arrays of the index to read, by default all: one gives a tensor, several a dict.
    decode : "cf", or dict of str to callable or "cf", optional
        By field, what makes a value of a row: a function of bytes, str or a numpy array, such as
        one that decodes JPEG. It is called where the data is read, once for each distinct row of a
        batch; the arrays or tensors that it returns for a window are stacked. ``"cf"`` gives the
        values that netCDF's conventions mean, as xarray does with ``decode_times=False``: each file
        is scaled by its own ``scale_factor`` and ``add_offset``, fill values are NaN, and all have
        the dtype that those of all files go into. ``decode="cf"`` is for all fields that are packed
        or have fill values.
    select : dict or callable, optional
        What is read of each sample: ``{axis: slice, list of ints or int}``, by field where several
        are read. Axes are those of the stored array, negative ones from the end; that of the items
        cannot be selected. An int keeps no axis. A function ``fn(rng, shape)`` returns such a dict
        for each sample: ``rng`` is ``sample_rng(0, 0, id)``, and ``shape`` that of the stored array
        with one item.
    part : tuple or dict, optional
        ``(number, of)`` is the ``number``-th of ``of`` parts along the last axis of each field, cut
        as ``torch.tensor_split`` does; ``{axis: (number, of)}`` along other axes; either by field.
        It is a part of what ``select`` leaves.
    transform : callable, optional
        Called with each sample; the dataset returns its result, and raises what it raises. With two
        arguments it is also given the sample's own ``numpy.random.Generator``, that of
        ``globidx.sample_rng(seed, epoch, id)``: the same on any rank, worker and world size, and
        after any resume.
    seed_transforms : bool, default False
        Whether the global generators of ``torch``, ``random`` and numpy are seeded by the sample
        while ``transform`` runs, for transforms that draw from these, as torchvision's do. They
        are set back afterwards.
    max_open_files : int, optional
        How many files a process keeps open, by default a quarter of what it may open, at most 128.
    cache_bytes : int
        How many bytes of decoded chunks a process keeps; with ``cache="shared"``, a node.
    cache : {"process", "shared"}, default "process"
        Whose decoded chunks are: each process has its own, or all loader workers and ranks of a
        node that read the same share them. Shared memory is reserved at once; where it cannot be
        had, a line in the log says so, and each process has its own.
    with_id : bool, default False
        Whether to return ``(sample, id)``, with the id of the sample that is returned.
    on_missing : {"error", "fill"} or dict of these by field, default "error"
        Whether a chunk that is not in the store is an error, or read as its fill value. With
        ``{"mask": "fill"}`` it stays an error in the other fields.
    backend : {"auto", "library", "tensorstore"}, default "auto"
        ``"auto"`` decodes simple layouts itself and leaves the rest to zarr-python and h5py,
        ``"library"`` leaves all to them, and ``"tensorstore"`` leaves zarr to tensorstore.
    on_error : {"raise", "substitute"} or callable, default "raise"
        ``"substitute"`` returns a neighbour of a sample that cannot be read, so that batches keep
        their size on every rank. A callable gets ``(id, error)`` and returns the id to read
        instead, or raises.
    sparse : {"dense", "row"} or dict of these by field, default "dense"
        How rows of sparse matrices are given: as tensors with all zeros in them, or each as a
        ``SparseRow`` of indices and values, of which ``collate.sparse()`` makes one
        ``torch.sparse_csr`` tensor a batch.
    requests : int, default 64
        How many requests to servers a process has in flight, for files by URL.
    prefetch_bytes : int, default 256 MiB
        How many bytes of files by URL a process fetches before they are wanted: of the batch that
        it reads, and with ``globidx.DataLoader`` of those that come after it.
    local_cache : path, optional
        A folder on a disk of this machine where bytes that come from URLs are kept, for all
        processes of the machine and for later runs. It is made if it is not there.
    local_bytes : int, optional
        The most bytes that it takes there; what was used longest ago, or will not be used again in
        this epoch, goes first. By default as many as the folder was given before, or half of what
        is free on its disk.
    misplaced : never
        Options of the index are not taken here: TypeError says where they belong.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or value, or an array has a dtype that torch does not
        have.

    Notes
    -----
    Reading raises ReadError, or its subclass MissingChunkError; with ``"substitute"`` only if no
    neighbour is readable. The id of a sample that was replaced is logged, and
    ``globidx.DataLoader`` lists it in ``sampler.quarantined``, which the record keeps.

    Examples
    --------
    >>> import tempfile, numpy as np, zarr
    >>> folder = tempfile.TemporaryDirectory()
    >>> array = zarr.create_array(f"{folder.name}/a.zarr", data=np.arange(6).reshape(3, 2))
    >>> dataset = FileCacheDataset(GlobalIndexManager(folder.name))
    >>> dataset[2], len(dataset)
    (tensor([4, 5]), 3)
    >>> dataset.__getitems__([1, 0])
    [tensor([2, 3]), tensor([0, 1])]
    >>> dataset.counters().bytes_useful
    48
    >>> FileCacheDataset(GlobalIndexManager(folder.name), select={1: [1]})[2]
    tensor([5])
    >>> folder.cleanup()
    """

    def __init__(
        self,
        index_manager: GlobalIndexManager,
        *,
        fields: str | Sequence[str] | None = None,
        decode: Literal["cf"] | Mapping[str, Callable[[Any], Any] | Literal["cf"]] | None = None,
        select: Mapping[Any, Any] | Crop | None = None,
        part: Mapping[Any, Any] | tuple[int, int] | None = None,
        transform: Callable[..., Any] | None = None,
        seed_transforms: bool = False,
        max_open_files: int | None = None,
        cache_bytes: int = CACHE_BYTES,
        cache: Literal["process", "shared"] = "process",
        with_id: bool = False,
        on_missing: Literal["error", "fill"] | Mapping[str, Literal["error", "fill"]] = "error",
        backend: Literal["auto", "library", "tensorstore"] = "auto",
        on_error: OnError = "raise",
        sparse: Literal["dense", "row"] | Mapping[str, Literal["dense", "row"]] = "dense",
        requests: int = REQUESTS,
        prefetch_bytes: int = PREFETCH_BYTES,
        local_cache: str | PathLike[str] | None = None,
        local_bytes: int | None = None,
        **misplaced: Never,
    ) -> None:
        # the usual mistake: key= and its like belong to the index, and Python would not say so
        if misplaced:
            raise TypeError(_misplaced(index_manager, list(misplaced)))
        if not isinstance(index_manager, GlobalIndexManager):
            raise TypeError(
                "a dataset reads the files of an index: pass GlobalIndexManager(files, key=...), "
                f"got {index_manager!r}"
            )
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
        if cache not in CACHES:
            raise ValueError(f"cache must be one of {', '.join(CACHES)}, got {cache!r}")
        if on_error not in ON_ERROR and not callable(on_error):
            raise ValueError(
                f"on_error must be one of {', '.join(ON_ERROR)} or a function, got {on_error!r}"
            )
        self._takes_rng = asks_for_rng(transform)
        self.index_manager = index_manager
        self.fields = _fields(index_manager, fields)
        parts = parts_of(
            index_manager, self.fields, decode=decode, sparse=sparse, select=select, part=part
        )
        specs = [one.spec for one in parts]
        constants = index_manager.constants
        self._givers = [one.give for one in parts] + [constant] * len(constants)
        self._keys = [one.keys for one in parts] + [one.name.split("/") for one in constants]
        # fields of numbers alone, as most data sets have them, take a shorter way
        self._is_flat = self._keys in ([[name] for name in self.fields], [[]]) and all(
            give is torch.from_numpy for give in self._givers
        )
        self._has_columns = transform is None and not any(
            give is not constant and not gives_rows(give) for give in self._givers
        )
        self.transform = transform
        self.seed_transforms = seed_transforms
        is_random = self._takes_rng or seed_transforms or any(spec.crop for spec in specs)
        #: Seed and epoch as a sampler set them, where samples depend on these.
        self.moment = SharedMoment() if is_random else None
        self.with_id = with_id
        self._reader = Reader(
            index_manager,
            specs,
            max_open_files=None
            if max_open_files is None
            else validate.integer(max_open_files, "max_open_files", low=1),
            cache_bytes=validate.integer(cache_bytes, "cache_bytes"),
            on_missing=missing_by_field(index_manager, self.fields, on_missing),
            backend=backend,
            cache=cache,
            bounds=Bounds(
                validate.integer(requests, "requests", low=1),
                validate.integer(prefetch_bytes, "prefetch_bytes", low=1),
            ),
            local_cache=cache_of(local_cache, local_bytes),
        )
        packings.require_alike(index_manager.now, self._reader.raw)
        packings.tell_packed(
            index_manager.now,
            [spec.column for spec in specs if spec.decode is None and not spec.is_mask],
        )
        self._substitutes = (
            None if on_error == "raise" else Substitutes(self._reader.read, index_manager, on_error)
        )

    def __len__(self) -> int:
        return len(self.index_manager)

    @property
    def fingerprint(self) -> str:
        """Content identity of the files; a sampler's record keeps it."""
        return self.index_manager.fingerprint

    @property
    def dtypes(self) -> dict[str, str]:
        """The dtype of each field as the index spells it, which tells the unit of times.

        >>> import tempfile, numpy as np, zarr
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     times = np.array(["2020-01-01"], "M8[h]")
        ...     array = zarr.create_array(f"{folder}/a.zarr", data=times)
        ...     dataset = FileCacheDataset(GlobalIndexManager(folder))
        ...     dataset.dtypes, dataset[0]
        ({'': 'datetime64[h]'}, tensor(438288))
        """
        values = {info.name: info.value.dtype.name for info in self.index_manager.arrays}
        for spec in self._reader.fields:
            if isinstance(spec.decode, ByPacking):
                now = self.index_manager.now
                values[now.table.arrays[spec.column].name] = spec.decode.dtype(now).name
        return {name: values[name] for name in self.fields}

    @property
    def foresight(self) -> int:
        """How many ids beyond a batch a loader should tell, so that what they need is on its way.

        0 where all files are local.
        """
        return self._reader.foresight

    @property
    def num_files(self) -> int:
        """How many files there are."""
        return self.index_manager.num_files

    @property
    def chunking(self) -> Chunking:
        """How the samples lie in chunks, for ``orders.ChunkShuffle``."""
        return self.index_manager.now.chunking

    @property
    def categories(self) -> dict[str, tuple[Category, ...]]:
        """The categories of each field of codes that is read; see ``GlobalIndexManager.categories``."""
        named = self.index_manager.categories
        return {name: named[name] for name in self.fields if name in named}

    def fingerprint_of(self, num_files: int) -> str:
        """The fingerprint of the first files alone, by which a record recognises appended files.

        Parameters
        ----------
        num_files : int
            How many files.

        Returns
        -------
        str
            A hexadecimal digest.

        Examples
        --------
        >>> import tempfile, numpy as np, zarr
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     array = zarr.create_array(f"{folder}/a.zarr", data=np.arange(6).reshape(3, 2))
        ...     dataset = FileCacheDataset(GlobalIndexManager(folder))
        ...     dataset.fingerprint_of(1) == dataset.fingerprint
        True
        """
        return self.index_manager.fingerprint_of(num_files)

    def __getitem__(self, sample_id: int) -> Any:
        return self.__getitems__([validate.sample_id(sample_id, len(self))])[0]

    def __getitems__(self, sample_ids: Sequence[int]) -> list[Any]:
        """Samples of a batch of ids, in the same sequence.

        Each file and contiguous run is read once.

        torch's loader calls it. Samples are writable and do not overlap, but those of a batch share
        their memory, which is freed with the last of them: ``clone()`` a sample that is kept for
        long. ``collate.default`` makes a batch of that memory, without a copy, if it is given the
        list as it is returned here. Who looks into the list afterwards has the samples read anew.
        """
        moment = START if self.moment is None else self.moment.of(sample_ids)
        if self._substitutes is None:
            columns = self._reader.read_columns(sample_ids, moment)
            samples = self._of_columns(columns, sample_ids, moment)
            if not self._has_columns or not samples:
                return samples
            again = partial(FileCacheDataset.__getitems__, self, sample_ids)
            return ColumnedSamples(samples, partial(self._columns, columns, sample_ids), again)
        arrays, ids, replaced = self._substitutes.read(sample_ids, moment)
        samples = self._samples(arrays, ids, moment)
        return SubstitutedSamples(samples, replaced) if replaced else samples

    def fingerprint_of_samples(self, num_samples: int) -> str | None:
        """The fingerprint of the first samples of windows alone, by which a record recognises growth.

        Parameters
        ----------
        num_samples : int
            How many samples.

        Returns
        -------
        str or None
            A hexadecimal digest; None where a sample is an item of a file.

        Examples
        --------
        >>> import tempfile, numpy as np, zarr
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     array = zarr.create_array(f"{folder}/a.zarr", data=np.arange(6).reshape(3, 2))
        ...     manager = GlobalIndexManager(folder, sequences="file", window=(0, 1))
        ...     dataset = FileCacheDataset(manager)
        ...     dataset.fingerprint_of_samples(2) == dataset.fingerprint
        True
        """
        return self.index_manager.fingerprint_of_samples(num_samples)

    @property
    def may_substitute(self) -> bool:
        """Whether a sample may be replaced by another."""
        return self._substitutes is not None

    def counters(self, *, reset: bool = False) -> Counters:
        """What reading has cost: cache hits, decoded chunks, bytes, opened files.

        Parameters
        ----------
        reset : bool, default False
            Whether to begin to count anew.

        Returns
        -------
        Counters
            What this process has read, and what the workers of a ``globidx.DataLoader`` with a
            ``ResumableDistributedSampler`` had read for the batches that were delivered. Workers of
            other loaders do not report.

        Examples
        --------
        >>> import tempfile, numpy as np, zarr
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     array = zarr.create_array(f"{folder}/a.zarr", data=np.arange(6).reshape(3, 2))
        ...     dataset = FileCacheDataset(GlobalIndexManager(folder))
        ...     sample = dataset[0]
        ...     dataset.counters().opens
        1
        """
        return self._reader.counters(reset=reset)

    def explain(self) -> str:
        """How each array is read and why, as text.

        It also lists what is kept in memory, and how many files are open at most.

        Returns
        -------
        str
            Text for people.

        Examples
        --------
        >>> import tempfile, numpy as np, zarr
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     array = zarr.create_array(f"{folder}/a.zarr", data=np.arange(6).reshape(3, 2))
        ...     dataset = FileCacheDataset(GlobalIndexManager(folder))
        ...     dataset.explain().splitlines()[0][:1] != ""
        True
        """
        return explain(self._reader)

    def close(self) -> None:
        """Close all files that this process has open; reading opens them again.

        Examples
        --------
        >>> import tempfile, numpy as np, zarr
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     array = zarr.create_array(f"{folder}/a.zarr", data=np.arange(6).reshape(3, 2))
        ...     dataset = FileCacheDataset(GlobalIndexManager(folder))
        ...     dataset.close()
        ...     dataset[1].tolist()
        [2, 3]
        """
        self._reader.close()

    def _of_columns(
        self, columns: Sequence[Column], ids: Sequence[int], moment: Moment
    ) -> list[Any]:
        """A sample of the values of each id."""
        if not self._is_flat or self.transform is not None or self.with_id:
            return self._samples(list(zip(*map(rows_of, columns), strict=True)), ids, moment)
        # as most data sets are read: no call of ours for each sample
        values = [map(torch.from_numpy, rows_of(column)) for column in columns]
        if len(values) == 1:
            return list(values[0])
        return [dict(zip(self.fields, some, strict=True)) for some in zip(*values, strict=True)]

    def _samples(
        self, arrays: Sequence[tuple[Any, ...]], ids: Sequence[int], moment: Moment
    ) -> list[Any]:
        return [self._sample(parts, id, moment) for parts, id in zip(arrays, ids, strict=True)]

    def _sample(self, values: tuple[Any, ...], id: int, moment: Moment) -> Any:
        # no copy: samples of a batch share the memory that it was read into, and do not overlap
        if not self._is_flat:
            try:
                sample = self._nested(self._givers, values)
            except (TypeError, ValueError) as error:
                error.add_note(f"of sample id {id}")
                raise
        elif len(values) == 1:
            sample = torch.from_numpy(values[0])
        else:
            sample = dict(zip(self.fields, map(torch.from_numpy, values), strict=True))
        if self.seed_transforms:
            with seeded(moment.rng(id, GLOBALS)):
                sample = self._transformed(sample, id, moment)
        elif self.transform is not None:
            sample = self._transformed(sample, id, moment)
        return (sample, operator.index(id)) if self.with_id else sample

    def _transformed(self, sample: Any, id: int, moment: Moment) -> Any:
        return transformed(sample, id, moment, self.transform, with_rng=self._takes_rng)

    def _columns(self, columns: Sequence[Column], ids: Sequence[int]) -> Any:
        """What a sample is, with all samples' values in place of one's.

        None where constants are neither numbers nor text, since torch does other things with these.
        """
        constants = chain.from_iterable(columns[len(self._reader.fields) :])
        if not all(isinstance(value, (np.ndarray, str)) for value in constants):
            return None
        nested = self._nested([partial(_of_all, give) for give in self._givers], columns)
        return (nested, list(map(operator.index, ids))) if self.with_id else nested

    def _nested(self, givers: Sequence[Callable[[Any], Any]], values: Sequence[Any]) -> Any:
        """Fields, masks and constants in the dicts that their names say; one alone as it is."""
        sample: dict[str, Any] = {}
        for keys, give, value in zip(self._keys, givers, values, strict=True):
            if not keys:
                return give(value)
            within = sample
            for group in keys[:-1]:
                within = within.setdefault(group, {})
            within[keys[-1]] = give(value)
        return sample

    def __repr__(self) -> str:
        size = f"{len(self)} samples in {self.num_files} files"
        return f"FileCacheDataset({size}, fields {list(self.fields)})"


def _of_all(give: Giver, column: Column) -> Any:
    """The tensor whose rows all samples have; a list where they are no rows of one array."""
    # the strides of an array without elements are numpy's own
    if isinstance(column, np.ndarray) and column.size:
        return give(column)
    return [give(one) for one in rows_of(column)]


def _misplaced(index_manager: object, names: list[str]) -> str:
    """The error for arguments that a dataset does not have, some of which are the index's."""
    theirs = [name for name in names if name in inspect.signature(GlobalIndexManager).parameters]
    if not theirs:
        return f"FileCacheDataset() got an unexpected keyword argument {names[0]!r}"
    options = ", ".join(f"{name}=..." for name in theirs)
    files = "files" if isinstance(index_manager, GlobalIndexManager) else f"{index_manager!r:.80}"
    return (
        f"{' and '.join(theirs)} {'belongs' if len(theirs) == 1 else 'belong'} to the index, "
        f"which knows files and arrays: FileCacheDataset(GlobalIndexManager({files}, {options}))"
    )


def _fields(manager: GlobalIndexManager, fields: str | Sequence[str] | None) -> tuple[str, ...]:
    """The arrays to read, each known to the index."""
    present = [info.name for info in manager.arrays]
    wanted = (
        tuple(present)
        if fields is None
        else (fields,)
        if isinstance(fields, str)
        else tuple(fields)
    )
    for name in wanted:
        if name not in present:
            raise ValueError(
                f"the index has no array {name!r}; there is {', '.join(map(repr, present))}. "
                "Choose fields= among these, or name more arrays in key= of the GlobalIndexManager"
            )
    if not wanted or len(set(wanted)) < len(wanted):
        raise ValueError(f"fields must name at least one array, and each once, got {fields!r}")
    return wanted
