"""Random files with sequences of every kind, and their samples by the stupidest means: lists of rows and of windows.

A *world* is some files on a disk, the options of an index over them, and what must come out: all rows of all files as
one list, each sequence as a list of numbers of rows, and each sample as an anchor with a list of rows for each field.
"""

import os
import re
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
import zarr

from globidx import Window

KINDS = ("file", "chain", "match", "axis", "ends", "runs")
FORMATS = ("hdf5", "zarr2", "zarr3", "sharded")


@dataclass
class Sequence:
    """One sequence: its name, the numbers of its rows, the file that it begins in, and its constants."""

    name: str
    rows: list[int]
    path: str
    constants: dict[str, Any] = field(default_factory=dict)
    is_listed: bool = True


@dataclass
class World:
    """Files, options of an index over them, and all that is in them: ``rows[n]`` is (path, row), by field its values."""

    files: Any
    options: dict[str, Any]
    axes: dict[str, int]
    fields: tuple[str, ...]
    rows: list[tuple[str, int]] = field(default_factory=list)
    values: dict[str, list[np.ndarray]] = field(default_factory=dict)
    sequences: list[Sequence] = field(default_factory=list)
    missing: set[int] = field(default_factory=set)

    @property
    def kept(self):
        return [one for one in self.sequences if one.is_listed]

    def samples(self):
        """(sequence number, anchor, {field: [row number or None]}) of each sample, in order."""
        window = self.options["window"]
        taken = []
        for number, sequence in enumerate(self.kept):
            for anchor in anchors(window, len(sequence.rows)):
                wanted = {
                    name: self._wanted(window, name, anchor, sequence) for name in self.fields
                }
                touched = {row for rows in wanted.values() for row in rows}
                if not touched & self.missing:
                    taken.append((number, anchor, wanted))
        return taken

    def _wanted(self, window, name, anchor, sequence):
        if window.is_whole:
            return list(sequence.rows)
        last = len(sequence.rows) - 1
        rows = []
        for offset in several(window, name):
            row = anchor + offset
            if window.pad == "zero" and not 0 <= row <= last:
                rows.append(None)
            else:
                rows.append(sequence.rows[min(max(row, 0), last)])
        return rows

    def value(self, sample, name):
        """What a field of a sample must be."""
        window, rows = self.options["window"], sample[2][name]
        some = self.values[name][0]
        stacked = [np.zeros_like(some) if row is None else self.values[name][row] for row in rows]
        single = not window.is_whole and isinstance(offsets_of(window, name), int)
        return np.asarray(stacked[0] if single else np.stack(stacked))

    def mask(self, sample, name):
        """Which of the rows of a field are there, as the window has them."""
        window = self.options["window"]
        _, anchor, _ = sample
        last = len(self.kept[sample[0]].rows) - 1
        inside = [0 <= anchor + offset <= last for offset in several(window, name)]
        return np.array(inside[0] if isinstance(offsets_of(window, name), int) else inside)


def offsets_of(window, name):
    return window.offsets[name] if isinstance(window.offsets, dict) else window.offsets


def several(window, name):
    offsets = offsets_of(window, name)
    return [offsets] if isinstance(offsets, int) else list(offsets)


def anchors(window, length):
    """The anchors of a sequence by trying all numbers, word for word as the contract says."""
    if not length:
        return []
    if window.is_whole:
        return [0]
    given = window.offsets.values() if isinstance(window.offsets, dict) else [window.offsets]
    every = [o for some in given for o in ([some] if isinstance(some, int) else some)]
    low, high = min(every), max(every)
    before = after = 0
    if window.pad is not None:
        before, after = window.before, window.after
    far = length + max(map(abs, every)) + before + after
    fit = [t for t in range(-far, far + 1) if t + low >= -before and t + high <= length - 1 + after]
    return fit[:: window.stride]


def make(rng, folder, kind, form):
    """A world of one kind of sequences, in files of one format, everything else drawn."""
    return _Maker(rng, str(folder), kind, form).world()


class _Maker:
    def __init__(self, rng, folder, kind, form):
        self.rng, self.folder, self.kind, self.form = rng, folder, kind, form
        self.suffix = "h5" if form == "hdf5" else "zarr"

    def flip(self, chance=0.5):
        return bool(self.rng.random() < chance)

    def world(self):
        rng = self.rng
        stacked = self.kind == "axis"
        self.match = self._match_keys()
        inner = self._inner()
        # field: (path in the file or group, shape of a row, dtype, axis of the rows)
        self.arrays = {
            "x": (
                inner["x"],
                (3,),
                rng.choice(["u1", "<f4", ">i4"]),
                int(rng.integers(0, 2)) + stacked,
            ),
            "y": (inner["y"], (), rng.choice(["<i8", "<f8", "?"]), int(stacked)),
            "z": (
                inner["z"],
                (2, 3),
                rng.choice(["<i2", "<f4"]),
                int(rng.integers(0, 3)) + stacked,
            ),
        }
        names = {"x": "obs/x", "y": "y", "z": "deep/er/z"}
        if self.flip(0.2):
            self.arrays = {"x": self.arrays["x"]}
        paths = {name: self._key(path) for name, (path, *_) in self.arrays.items()}
        if self.flip(0.2):
            key, fields = paths["x"], (self._plain_name(paths["x"]),)
            self.fields, self.sources = fields, {fields[0]: "x"}
        else:
            key = {names[name]: path for name, path in paths.items()}
            self.sources = {names[name]: name for name in paths}
            if self.flip(0.4):
                key["again"], self.sources["again"] = paths["x"], "x"  # one array under two names
            key = self._braced(key)
            self.fields = tuple(self.sources)
        axes = {name: self.arrays[source][3] for name, source in self.sources.items()}
        options = {"key": key, "sequences": self._sequences(), "window": self._window()}
        default = int(stacked)
        odd = {name: axis for name, axis in axes.items() if axis != default}
        if odd:
            options["axis"] = (
                odd
                if len(set(axes.values())) > 1 or self.flip() or stacked
                else set(odd.values()).pop()
            )
        if self.kind == "chain":
            options["chain_by"] = [None, "parent", first_digit][rng.integers(3)]
        self.options = options
        self.out = World(None, options, axes, self.fields)
        self.out.values = {name: [] for name in self.fields}
        self._constants()
        self._choices()
        paths = self._paths()
        for path in paths:
            self._file(path)
        if self.kind == "chain":
            self._chain()
        self._leave_out()
        if self.flip(0.3):
            self.out.files = [*paths]
        else:
            self.out.files = self.folder if self.flip() else f"{self.folder}/**/*.{self.suffix}"
        return self.out

    # -- options

    def _match_keys(self):
        return ["data/*/", "data/demo_*/", "**/", "*/*/"][self.rng.integers(4)]

    def _inner(self):
        if self.kind == "match":
            return {"x": "obs/x", "y": "obs/y", "z": "actions"}
        return {"x": "data/x", "y": "data/y", "z": "zzz"}

    def _key(self, path):
        return (self.match if self.kind == "match" else "") + path

    def _plain_name(self, key):
        return key.split("*/")[-1] if self.kind == "match" else key

    def _braced(self, key):
        """The same keys, two of them by braces where they have a parent in common."""
        if not self.flip(0.3) or set(key) != {"obs/x", "y", "deep/er/z"}:
            return key
        x, y = key["obs/x"], key["y"]
        base = x.rsplit("/", 1)[0]
        assert y.rsplit("/", 1)[0] == base
        self.sources = {"obs/x": "x", "obs/y": "y", "deep/er/z": "z"}
        return {"obs/{x,y}": base + "/{x,y}", "deep/er/z": key["deep/er/z"]}

    def _sequences(self):
        return {"ends": "meta/episode_ends", "runs": ("ep/offset", "ep/len")}.get(
            self.kind, self.kind
        )

    def _window(self):
        rng = self.rng
        if self.flip(0.1):
            return Window("all")

        def offsets():
            if self.flip(0.3):
                return int(rng.integers(-4, 5))
            return [
                range(int(rng.integers(1, 6))),
                tuple(rng.integers(-4, 5, rng.integers(1, 6)).tolist()),
            ][rng.integers(2)]

        several = {name: offsets() for name in self.fields} if self.flip(0.6) else offsets()
        if isinstance(several, dict) and self.flip(0.3):
            several = dict.fromkeys(several, offsets())
        pad = [None, "edge", "zero"][rng.integers(3)]
        more = {}
        if pad:
            more = {side: int(rng.integers(0, 4)) for side in ("before", "after") if self.flip(0.4)}
            more["mask"] = self.flip()
        return Window(several, stride=int(rng.integers(1, 5)), pad=pad, **more)

    def _constants(self):
        some = {"title": "@title", "grid": "dimensions/grid", "words": "words"}
        if self.kind == "match" and self.match != "*/*/":
            some |= {"say": self.match.rstrip("/") + "@say", "c/goal": self.match + "goal"}
        if self.kind not in ("file", "chain"):
            some |= {"c/label": "labels[*]", "vector": "vectors[*]"}
        self.wanted = {name: some[name] for name in some if self.flip(0.4)}
        if self.wanted:
            self.options["constants"] = self.wanted

    def _choices(self):
        """How ``only`` and ``missing`` are told by arrays of the files, if they are."""
        rng = self.rng
        inside = self.kind not in ("file", "chain")
        self.only = [None, "names", "flags", "numbers", "list", "function"][rng.integers(6)]
        if self.only in ("names", "flags", "numbers"):
            if inside:
                self.options["only"] = "mask/some"
            else:
                self.only = None
        self.lacks = [None, None, "flags", "rows", "list", "each"][rng.integers(6)]
        if self.lacks == "each" and self.kind != "match":
            self.lacks = "rows"
        if self.lacks in ("flags", "rows", "each"):
            self.options["missing"] = self.match + "gone" if self.lacks == "each" else "meta/gone"

    def _paths(self):
        """Paths in natural order, which is not that of the alphabet."""
        numbers = sorted(self.rng.choice(13, int(self.rng.integers(1, 5)), replace=False).tolist())
        nested = self.kind == "chain" and self.flip()
        folders = ["a/", "b10/", "b9/"] if nested else [""]
        paths = [
            f"{folders[self.rng.integers(len(folders))]}run{number}.{self.suffix}"
            for number in numbers
        ]
        return [os.path.join(self.folder, one) for one in sorted(paths, key=by_number)]

    # -- files

    def _file(self, path):
        rng = self.rng
        arrays, attributes = {}, {"": {"title": f"title of {os.path.basename(path)}"}}
        arrays["dimensions/grid"] = rng.random(4)
        arrays["words"] = np.array([b"one", b"two" + os.path.basename(path).encode()])
        shared = {
            "title": attributes[""]["title"],
            "grid": arrays["dimensions/grid"],
            "words": [one.decode() for one in arrays["words"].tolist()],
        }
        first = len(self.out.rows)
        getattr(self, f"_of_{self.kind}")(path, arrays, attributes, shared)
        count = len(self.out.rows) - first
        here = [one for one in self.out.sequences if one.path == path]
        if self.kind not in ("file", "chain"):
            labels = rng.integers(1, 100, len(here))
            vectors = rng.integers(1, 100, (len(here), 2))
            if here:
                arrays["labels"], arrays["vectors"] = labels, vectors
            for one, label, vector in zip(here, labels, vectors, strict=True):
                one.constants |= {"c/label": label, "vector": vector}
            self._tell_only(arrays, here)
        self._tell_missing(arrays, first, count, here)
        for one in here:
            one.constants = {
                name: value for name, value in one.constants.items() if name in self.wanted
            }
        store(rng, path, self.form, arrays, attributes)

    def _tell_only(self, arrays, here):
        if self.only not in ("names", "flags", "numbers"):
            return
        flags = self.rng.random(len(here)) < 0.6
        numbers = self.rng.permutation(np.flatnonzero(flags))
        for one, flag in zip(here, flags.tolist(), strict=True):
            one.is_listed = flag
        arrays["mask/some"] = {
            "flags": flags,
            "numbers": numbers,
            "names": np.array([here[number].name.encode() for number in numbers], "S40"),
        }[self.only]

    def _tell_missing(self, arrays, first, count, here):
        if self.lacks not in ("flags", "rows", "each"):
            return
        gone = self.rng.random(count) < 0.1
        if self.lacks == "each":
            start = first
            for one in here:
                own = gone[start - first : start - first + len(one.rows)]
                arrays[f"{self._group(one.name)}/gone".lstrip("/")] = own
                start += len(one.rows)
        else:
            arrays["meta/gone"] = (
                gone if self.lacks == "flags" else self.rng.permutation(np.flatnonzero(gone))
            )
        self.out.missing |= {first + int(row) for row in np.flatnonzero(gone)}

    def _rows(self, path, count, sizes=None):
        """Values of ``count`` new rows of all fields, noted; by array."""
        rng = self.rng
        made = {}
        for name, (_, shape, dtype, _axis) in self.arrays.items():
            drawn = (
                rng.integers(0, 2, (count, *shape))
                if dtype == "?"
                else rng.integers(1, 120, (count, *shape))
            )
            made[name] = drawn.astype(dtype)
        for name, source in self.sources.items():
            self.out.values[name] += list(made[source].astype(made[source].dtype.newbyteorder("=")))
        first = len(self.out.rows)
        self.out.rows += [(path, row) for row in range(count)] if sizes is None else sizes
        return made, first

    def _put(self, arrays, made, group=""):
        for name, values in made.items():
            path, *_, axis = self.arrays[name]
            arrays[group + path] = np.moveaxis(values, 0, axis)

    def _plain_file(self, path, arrays):
        count = int(self.rng.integers(0, 25))
        made, first = self._rows(path, count)
        self._put(arrays, made)
        return count, first

    def _of_file(self, path, arrays, attributes, shared):
        count, first = self._plain_file(path, arrays)
        name = os.path.relpath(path, self.folder)
        self.out.sequences.append(
            Sequence(name, list(range(first, first + count)), path, dict(shared))
        )

    _of_chain = _of_file

    def _of_ends(self, path, arrays, attributes, shared):
        count, first = self._plain_file(path, arrays)
        number = int(self.rng.integers(0, 5))
        ends = np.sort(self.rng.integers(0, count + 1, number))
        start = 0
        for index, end in enumerate(ends.tolist()):
            rows = list(range(first + start, first + end))
            self.out.sequences.append(Sequence(str(index), rows, path, dict(shared)))
            start = end
        arrays["meta/episode_ends"] = ends

    def _of_runs(self, path, arrays, attributes, shared):
        count, first = self._plain_file(path, arrays)
        number = int(self.rng.integers(0, 5))
        starts = self.rng.integers(0, count + 1, number)
        lengths = np.array([self.rng.integers(0, count - start + 1) for start in starts], np.int64)
        for index, (start, length) in enumerate(
            zip(starts.tolist(), lengths.tolist(), strict=True)
        ):
            rows = list(range(first + start, first + start + length))
            self.out.sequences.append(Sequence(str(index), rows, path, dict(shared)))
        arrays["ep/offset"], arrays["ep/len"] = starts, lengths

    def _of_axis(self, path, arrays, attributes, shared):
        places, length = int(self.rng.integers(1, 5)), int(self.rng.integers(0, 15))
        by_place = {name: [] for name in self.arrays}
        for place in range(places):
            made, first = self._rows(path, length)
            for name, values in made.items():
                axis = self.arrays[name][3]
                by_place[name].append(np.moveaxis(values, 0, axis - 1))
            rows = list(range(first, first + length))
            self.out.sequences.append(Sequence(str(place), rows, path, dict(shared)))
        for name, values in by_place.items():
            arrays[self.arrays[name][0]] = np.stack(values)

    def _group(self, name):
        return {"data/*/": "data/" + name, "data/demo_*/": "data/" + name}.get(self.match, name)

    def _of_match(self, path, arrays, attributes, shared):
        rng = self.rng
        numbers = sorted(rng.choice(12, int(rng.integers(1, 5)), replace=False).tolist())
        for number in numbers:
            name = {"**/": f"g/h{number}", "*/*/": f"g/h{number}"}.get(self.match, f"demo_{number}")
            group = self._group(name)
            made, first = self._rows(path, int(rng.integers(0, 15)))
            self._put(arrays, made, group + "/")
            length = len(next(iter(made.values())))
            arrays[group + "/goal"] = rng.random(2)
            attributes[group] = {"say": f"say {name}"}
            own = {"say": f"say {name}", "c/goal": arrays[group + "/goal"]}
            rows = list(range(first, first + length))
            self.out.sequences.append(Sequence(name, rows, path, dict(shared) | own))
        if self.match == "data/demo_*/" and self.flip():
            arrays["data/other/obs/x"] = np.ones(3)  # does not match
        if self.match.startswith("data/") and self.flip():
            arrays["data/demo_99/nothing"] = np.ones(3)  # matches, and has none of the arrays

    def _chain(self):
        """The sequences of files joined to chains, by their first file."""
        by = self.options["chain_by"]
        chains = {}
        for one in self.out.sequences:
            name = (
                ""
                if by is None
                else os.path.dirname(one.name)
                if by == "parent"
                else str(by(one.path))
            )
            chain = chains.setdefault(name, Sequence(name, [], one.path))
            if not chain.rows:  # it begins in the first file that has rows
                chain.path, chain.constants = one.path, one.constants
            chain.rows += one.rows
        common = os.path.commonprefix(
            [one.path.rsplit("/", 1)[0] + "/" for one in self.out.sequences]
        )
        if by == "parent":  # counted from the deepest folder that holds all files
            cut = common.rsplit("/", 1)[0]
            for one in chains.values():
                one.name = os.path.relpath(os.path.dirname(one.path), cut)
                one.name = "" if one.name == "." else one.name
        self.out.sequences = list(chains.values())

    def _leave_out(self):
        rng, out = self.rng, self.out
        if self.kind == "file" and out.sequences:
            cut = os.path.commonprefix([one.path for one in out.sequences]).rsplit("/", 1)[0]
            for one in out.sequences:
                one.name = os.path.relpath(one.path, cut)
        names = sorted({one.name for one in out.sequences})
        if self.only in ("list", "function") and names:
            chosen = set(rng.permutation(names)[: max(1, len(names) // 2)].tolist())
            self.options["only"] = (
                sorted(chosen) if self.only == "list" else (lambda name: name in chosen)
            )
            for one in out.sequences:
                one.is_listed = one.name in chosen
        if self.lacks == "list":
            gone = np.flatnonzero(rng.random(len(out.rows)) < 0.1).tolist()
            self.options["missing"] = gone
            out.missing = set(gone)


def first_digit(path):
    """The chain of a file by its name, as a function that can be pickled."""
    return os.path.basename(path)[3]


def by_number(path):
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path)]


def store(rng, path, form, arrays, attributes=None):
    """Write arrays by path, and attributes by path, into a file of one format; chunks and codecs are drawn."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if form == "hdf5":
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file.create_dataset(name, data=values, **_hdf5_options(rng, values))
            for name, some in (attributes or {}).items():
                file.require_group(name or "/").attrs.update(some)
        return
    root = zarr.open_group(path, mode="w", zarr_format=2 if form == "zarr2" else 3)
    for name, values in arrays.items():
        if values.dtype.kind == "S" and form != "zarr2":
            values = values.astype("U").astype(
                np.dtypes.StringDType()
            )  # what format 3 has for text
        chunks = [int(rng.integers(1, max(2, size + 1))) for size in values.shape]
        more = {}
        if form == "sharded" and values.ndim and values.size and values.dtype.kind not in "ST":
            more["shards"] = [chunk * int(rng.integers(1, 4)) for chunk in chunks]
        if rng.random() < 0.3:
            more["compressors"] = None
        array = root.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=tuple(chunks) if values.ndim else "auto",
            config={"write_empty_chunks": True},
            **more,
        )
        if values.size:
            array[...] = values
    for name, some in (attributes or {}).items():
        (root.require_group(name) if name else root).attrs.update(some)


def _hdf5_options(rng, values):
    way = rng.integers(3)
    if not values.ndim or not values.size or way == 0:
        return {}
    chunks = tuple(int(rng.integers(1, size + 1)) for size in values.shape)
    if way == 1:
        return {"chunks": chunks}
    return {"chunks": chunks, "compression": "gzip", "shuffle": bool(rng.integers(2))}
