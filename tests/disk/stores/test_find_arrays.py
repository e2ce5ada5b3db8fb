"""Layouts by name over real files: which arrays they find, what shape their items have, and what they refuse."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from files import numbers, settled_manager, write_hdf5, write_zarr

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.core.index.patterns import natural
from globidx.disk.stores import base as stores
from globidx.errors import BadFilesError

STRINGS = h5py.string_dtype()
#: How text stands in attributes, by who wrote them.
SPELLINGS = {"str": str, "bytes": np.bytes_, "array": lambda text: np.array([text], STRINGS)}


def only(manager):
    """The one array of an index: name, item shape, dtype, where it lies and in which form."""
    (array,) = manager.arrays
    return array.name, array.item_shape, array.dtype, array.path, array.form


def refused(path, **options):
    with pytest.raises(BadFilesError) as error:
        GlobalIndexManager(path, **options)
    return str(error.value)


# -- by keys alone


def test_cxi_and_peaknet_are_known_arrays(tmp_path):
    """CXI keeps images at /entry_1/data_1/data; peaknet images and labels, side by side."""
    write_hdf5(
        tmp_path / "a.cxi", {"entry_1/data_1/data": numbers(5, (2, 3)), "entry_1/other": numbers(9)}
    )
    manager = GlobalIndexManager(tmp_path / "a.cxi", layout="cxi")
    assert len(manager) == 5
    assert only(manager) == (
        "entry_1/data_1/data",
        (2, 3),
        "uint16",
        "entry_1/data_1/data",
        "plain",
    )
    for write, name in ((write_hdf5, "p.h5"), (write_zarr, "p.zarr")):
        write(
            tmp_path / name,
            {
                "images": numbers(4, (2, 2), "f4"),
                "labels": numbers(4, (2, 2), "u1"),
                "x": numbers(1),
            },
        )
        manager = GlobalIndexManager(tmp_path / name, layout="peaknet")
        assert [(a.name, a.dtype) for a in manager.arrays] == [
            ("images", "float32"),
            ("labels", "uint8"),
        ]
    write_hdf5(tmp_path / "q.h5", {"images": numbers(4)})
    assert "it has no array 'labels'; there is 'images' of (4, 3)" in refused(
        tmp_path / "q.h5", layout="peaknet"
    )


@pytest.mark.parametrize("write", [write_hdf5, write_zarr])
def test_auto_takes_the_only_array_and_else_names_them(tmp_path, write):
    """One array, wherever it lies; several are named with their shapes, none is told."""
    path = write(tmp_path / "one.h5", {"deep/er/x": numbers(4)})
    for layout in (None, "auto"):
        assert only(GlobalIndexManager(path, layout=layout))[3] == "deep/er/x"
    path = write(tmp_path / "two.h5", {"x": numbers(4), "g/y": numbers(4, ())})
    said = refused(path)
    assert "it holds 2 arrays ('g/y' of (4,), 'x' of (4, 3)); choose with key=" in said
    path = write(tmp_path / "many.h5", {f"x{n:02}": numbers(1) for n in range(25)})
    assert "'x19' of (1, 3) and 5 more" in refused(path) and "x20" not in refused(path)
    path = tmp_path / "none.zarr"
    zarr.create_group(path).create_group("g")
    assert "it holds 0 arrays (none at all)" in refused(path)


# -- NeXus


def nexus(
    path,
    entries=("entry",),
    *,
    spelling=str,
    default=True,
    signal="counts",
    group="data",
    old=False,
    length=4,
):
    with h5py.File(path, "w") as file:
        if default:
            file.attrs["default"] = spelling(entries[0])
        for number, name in enumerate(entries):
            entry = file.create_group(name)
            entry.attrs["NX_class"] = spelling("NXentry")
            if default:
                entry.attrs["default"] = spelling(group)
            data = entry.create_group(group)
            data.attrs["NX_class"] = spelling("NXdata")
            data["counts"] = numbers(length + number, (2, 2))
            data["energy"] = numbers(length, ())
            if old:
                data["counts"].attrs["signal"] = spelling("1") if old == "text" else 1
            elif signal:
                data.attrs["signal"] = spelling(signal)
    return path


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_nexus_follows_default_to_its_signal(tmp_path, spelling):
    """However the attributes are spelled: as text, bytes, or an array of one."""
    path = nexus(tmp_path / "a.nxs", ["second", "entry"], spelling=SPELLINGS[spelling])
    manager = GlobalIndexManager(path, layout="nexus")
    assert len(manager) == 4 and only(manager) == (
        "data",
        (2, 2),
        "uint16",
        "second/data/counts",
        "plain",
    )


@pytest.mark.parametrize("old", [1, "text"])
def test_nexus_before_2014_marks_the_dataset(tmp_path, old):
    """``signal=1`` on the dataset itself, as a number or as text."""
    path = nexus(tmp_path / "a.nxs", old=old, default=False)
    assert only(GlobalIndexManager(path, layout="nexus"))[3] == "entry/data/counts"


def test_nexus_without_default_goes_to_the_only_entry(tmp_path):
    """One NXentry with one NXdata is clear; two are not."""
    path = nexus(tmp_path / "a.nxs", default=False)
    assert only(GlobalIndexManager(path, layout="nexus"))[3] == "entry/data/counts"
    path = nexus(tmp_path / "b.nxs", ["one", "two"], default=False)
    assert "its group / has neither a default nor a signal attribute; choose with key=" in refused(
        path, layout="nexus"
    )


def test_nexus_files_may_name_their_entries_each_in_its_own_way(tmp_path, monkeypatch):
    """One index over scans called otherwise: the path is each file's, remembered in the cache, the name is one."""
    for number in range(3):
        nexus(tmp_path / f"{number}.nxs", [f"scan{number}"], length=2 + number)
    for _ in range(2):
        manager = settled_manager(tmp_path, layout="nexus")
        assert manager.lengths.tolist() == [2, 3, 4]
        assert [manager.now.entry(n).arrays[0].path for n in range(3)] == [
            f"scan{n}/data/counts" for n in range(3)
        ]
        assert {manager.now.entry(n).arrays[0].name for n in range(3)} == {"data"}
        monkeypatch.setattr(stores, "scan", None)  # the second time, nothing is opened


def test_broken_nexus_chains_are_told_where_they_break(tmp_path):
    """A default that leads nowhere, to an array, or in a circle, and a signal that is none: each named with its group."""
    path = nexus(tmp_path / "a.nxs")
    cases = [
        (
            "entry",
            "default",
            "gone",
            "its default attribute leads to /entry/gone, which is no group",
        ),
        (
            "entry/data",
            "signal",
            "gone",
            "its group /entry/data names 'gone' as signal, which is no array",
        ),
        ("entry/data", "signal", "..", "its group /entry/data names '..' as signal"),
        ("/", "default", "entry/data/counts", "leads to /entry/data/counts, which is no group"),
        ("/", "default", ".", "lead on for more than 32 groups"),
    ]
    for group, name, value, told in cases:
        with h5py.File(path, "r+") as file:
            before = file[group].attrs[name]
            file[group].attrs[name] = value
        assert told in refused(path, layout="nexus"), value
        with h5py.File(path, "r+") as file:
            file[group].attrs[name] = before
    assert len(GlobalIndexManager(path, layout="nexus")) == 4


# -- AnnData


def anndata(path, form="array", *, rows=6, columns=5, key="X", legacy=False):
    """A matrix as AnnData writes it: dense, or sparse by row or column."""
    data = np.triu(numbers(rows, (columns,), "f4"))
    is_zarr = str(path).endswith(".zarr")
    root = zarr.create_group(path) if is_zarr else h5py.File(path, "w")
    if form == "array":
        node = root.create_array(key, data=data) if is_zarr else root.create_dataset(key, data=data)
    else:
        node = root.create_group(key)
        dense = data if form == "csr_matrix" else data.T
        parts = {
            "indptr": np.concatenate([[0], np.cumsum((dense != 0).sum(axis=1))]).astype("i4"),
            "indices": np.concatenate([np.flatnonzero(row) for row in dense]).astype("i4"),
            "data": dense[dense != 0],
        }
        for name, values in parts.items():
            node.create_array(name, data=values) if is_zarr else node.create_dataset(
                name, data=values
            )
        if legacy:
            node.attrs["h5sparse_format"], node.attrs["h5sparse_shape"] = (
                form[:3],
                np.array([rows, columns]),
            )
        else:
            node.attrs["encoding-type"] = form
            node.attrs["shape"] = [rows, columns] if is_zarr else np.array([rows, columns])
    if not is_zarr:
        root.close()
    return path


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_anndata_rows_are_items_dense_or_sparse(tmp_path, suffix):
    """The same matrix any way: as many items, of the same shape; the form says how they are read."""
    for form, told in (("array", "plain"), ("csr_matrix", "csr"), ("csc_matrix", "csc")):
        manager = GlobalIndexManager(anndata(tmp_path / f"{form}.{suffix}", form), layout="anndata")
        assert len(manager) == 6 and only(manager) == ("X", (5,), "float32", "X", told)
    path = anndata(tmp_path / f"other.{suffix}", "csr_matrix", key="raw")
    assert only(GlobalIndexManager(path, layout="anndata", key="raw"))[4] == "csr"
    assert "it has no 'X', so it is no AnnData file" in refused(path, layout="anndata")


def test_anndata_of_before_0_8_is_known_by_its_own_names(tmp_path):
    """h5sparse_format and h5sparse_shape."""
    for form in ("csr", "csc"):
        path = anndata(tmp_path / f"{form}.h5ad", f"{form}_matrix", legacy=True)
        found = only(GlobalIndexManager(path, layout="anndata"))
        assert found == ("X", (5,), "float32", "X", form)


def test_dense_and_sparse_files_are_not_one_index(tmp_path):
    """They read in different ways, so they are told apart."""
    anndata(tmp_path / "a.h5ad")
    anndata(tmp_path / "b.h5ad", "csr_matrix")
    told = refused(tmp_path, layout="anndata")
    assert "b.h5ad: it has X of (5,) float32 stored sparse by row, while in " in told
    assert "a.h5ad there is X of (5,) float32; give the files one way of storing rows" in told


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_a_sparse_matrix_that_grew_is_looked_at_again(tmp_path, suffix):
    """Its rows are counted by indptr, whose metadata is what is watched."""
    path = anndata(tmp_path / f"a.{suffix}", "csr_matrix")
    manager = settled_manager(path, layout="anndata")
    assert not manager.refresh()
    shape = [8, 5]
    if suffix == "zarr":
        group = zarr.open_group(path, mode="r+")
        group["X"].attrs["shape"] = shape
        group["X/indptr"].resize((9,))
    else:
        with h5py.File(path, "r+") as file:
            indptr = file["X/indptr"][:]
            del file["X/indptr"]
            file["X/indptr"] = np.concatenate([indptr, indptr[-1:], indptr[-1:]])
            file["X"].attrs["shape"] = np.array(shape)
    assert manager.refresh().grown == (f"a.{suffix}",) and len(manager) == 8


@pytest.mark.parametrize("damage", ["no shape", "odd shape", "no indptr", "no data"])
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_damaged_sparse_matrices_are_named_errors(tmp_path, suffix, damage):
    """Whatever is missing of the three arrays and the shape: BadFilesError with the file."""
    path = anndata(tmp_path / f"a.{suffix}", "csr_matrix")
    root = zarr.open_group(path, mode="r+") if suffix == "zarr" else h5py.File(path, "r+")
    if damage == "no shape":
        del root["X"].attrs["shape"]
    elif damage == "odd shape":
        root["X"].attrs["shape"] = [1, 2, 3]
    else:
        del root[f"X/{damage[3:]}"]
    if suffix == "h5ad":
        root.close()
    assert f"a.{suffix}: " in refused(path, layout="anndata")


# -- OME-Zarr


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_is_level_zero(tmp_path, version):
    """``multiscales`` at the root, or below ``ome``: the first dataset of the first, whatever it is called."""
    root = zarr.create_group(tmp_path / "a.zarr", zarr_format=2 if version == "0.4" else 3)
    for path, size in (("full", 4), ("half", 2)):
        root.create_array(path, shape=(3, size, size), dtype="u2")
    scales = [{"datasets": [{"path": "full"}, {"path": "half"}], "version": version}]
    root.attrs.update(
        {"multiscales": scales}
        if version == "0.4"
        else {"ome": {"version": version, "multiscales": scales}}
    )
    manager = GlobalIndexManager(tmp_path / "a.zarr", layout="ome")
    assert len(manager) == 3 and only(manager) == ("image", (4, 4), "uint16", "full", "plain")
    assert GlobalIndexManager(tmp_path / "a.zarr", layout="ome", axis=1).arrays[0].item_shape == (
        3,
        4,
    )


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"multiscales": []},
        {"multiscales": [{"datasets": []}]},
        {"multiscales": [{"datasets": [{"path": 5}]}]},
        {"multiscales": [{"datasets": [{"path": "gone"}]}]},
        {"multiscales": [{"datasets": [{"path": "../a.zarr/x"}]}]},
        {"multiscales": {"datasets": 1}},
        {"multiscales": "x"},
        {"ome": {"multiscales": None}},
        {"ome": {}},
        {"ome": []},
        {"ome": "0.5"},
        {"ome": 5},
    ],
)
def test_what_is_no_ome_image_is_a_named_error(tmp_path, attributes):
    """Whatever stands in the attributes: BadFilesError that speaks of multiscales, never another error."""
    write_zarr(tmp_path / "a.zarr", numbers(3), key="x")
    zarr.open_group(tmp_path / "a.zarr", mode="r+").attrs.update(attributes)
    assert "multiscales" in refused(tmp_path / "a.zarr", layout="ome")


def multiscales(group, version, arrays):
    """Levels of one image, written as ``version`` says."""
    for name, data in arrays.items():
        group.create_array(name, data=data)
    scales = [{"datasets": [{"path": name} for name in arrays], "version": version}]
    told(group, version, multiscales=scales)


def told(group, version, **attributes):
    group.attrs.update(attributes if version == "0.4" else {"ome": attributes})


def ome_plate(path, version, fields=("A/1/0", "A/1/1", "A/10/0", "B/2/0"), level="0"):
    """A plate by its specification; each field of view of its own number of times, and with a label image in it."""
    root = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
    wells = list(dict.fromkeys(field.rpartition("/")[0] for field in fields))
    told(root, version, plate={"wells": [{"path": well} for well in ["C/3", *wells]]})
    told(root.create_group("C/3"), version, well={"images": []})
    for well in wells:
        names = [name.rpartition("/")[2] for name in fields if name.startswith(f"{well}/")]
        told(root.create_group(well), version, well={"images": [{"path": name} for name in names]})
    images = {}
    for number, field in enumerate(fields):
        images[field] = numbers(1 + number, (2, 3), start=1 + 100 * number)
        group = root.create_group(field)
        multiscales(group, version, {level: images[field], "half": images[field][..., ::2]})
        multiscales(group.create_group("labels/cells"), version, {level: images[field]})
    return images


VERSIONS = pytest.mark.parametrize("version", ["0.4", "0.5"])


@VERSIONS
@pytest.mark.parametrize("level", ["0", "s0"])
def test_ome_fields_of_view_of_a_plate_are_sequences(tmp_path, version, level):
    """Named by row, column and field, in natural order; each time of each is a sample; wells without images are none."""
    images = ome_plate(tmp_path / "p.zarr", version, level=level)
    for _ in range(2):
        manager = settled_manager(tmp_path / "p.zarr", layout="ome")
        assert list(manager.sequences.names) == sorted(images, key=natural)
        expected = np.concatenate([images[name] for name in manager.sequences.names])
        got = list(FileCacheDataset(manager))
        np.testing.assert_array_equal(np.stack(got), expected)
    windows = GlobalIndexManager(tmp_path / "p.zarr", layout="ome", window=range(2))
    assert len(windows) == sum(len(image) - 1 for image in images.values())


@VERSIONS
def test_ome_series_of_bioformats2raw_are_sequences(tmp_path, version):
    """Images ``0``, ``1``, ... side by side, and a group of metadata beside them."""
    root = zarr.create_group(tmp_path / "b.zarr", zarr_format=2 if version == "0.4" else 3)
    told(root, version, **{"bioformats2raw.layout": 3})
    told(root.create_group("OME"), version, series=["0", "1"])
    images = [numbers(3, (2, 2)), numbers(4, (2, 2), start=50)]
    for number, image in enumerate(images):
        multiscales(root.create_group(f"{number}"), version, {"0": image, "1": image[..., ::2]})
    manager = GlobalIndexManager(tmp_path / "b.zarr", layout="ome")
    assert list(manager.sequences.names) == ["0", "1"]
    got = list(FileCacheDataset(manager))
    np.testing.assert_array_equal(np.stack(got), np.concatenate(images))


@VERSIONS
def test_ome_plates_beside_images_are_told_apart(tmp_path, version):
    """What makes a sample of one makes none of the other; the error gives the line for plates."""
    multiscales(zarr.create_group(tmp_path / "a.zarr"), "0.5", {"0": numbers(3, (2, 3))})
    ome_plate(tmp_path / "p.zarr", version)
    assert (
        "p.zarr: it holds many OME-Zarr images, where other files are one each: index it by itself, or all of its "
        "kind, with layout='ome' (key='*/*/*/0', sequences='match')"
    ) in refused(tmp_path, layout="ome")
    (tmp_path / "a.zarr").rename(tmp_path / "z.zarr")
    assert "z.zarr: nothing in it matches key '*/*/*/0'" in refused(tmp_path, layout="ome")


# -- Eiger


def eiger(folder, lengths=(5, 5, 2), *, detached=""):
    """A master file and the files that it links to, as the detector names them."""
    folder.mkdir(exist_ok=True)
    (folder / detached).mkdir(exist_ok=True)
    frames = []
    with h5py.File(folder / "run_master.h5", "w") as master:
        master["entry/instrument/detector/detectorSpecific/pixel_mask"] = np.zeros((4, 3), "u4")
        for number, length in enumerate(lengths, 1):
            name = f"{detached}run_data_{number:06}.h5"
            frames.append(numbers(length, (4, 3), "u4", start=1 + 1000 * number))
            write_hdf5(folder / name, frames[-1], key="entry/data/data", chunk=1, compression="lzf")
            master[f"entry/data/data_{number:06}"] = h5py.ExternalLink(name, "/entry/data/data")
    return np.concatenate(frames)


def test_eiger_frames_run_on_from_file_to_file(tmp_path):
    """The links of a master file in natural order, rows numbered through; twelve files, so that 10 comes behind 9."""
    expected = eiger(tmp_path / "run", [5] * 11 + [2])
    manager = GlobalIndexManager(tmp_path / "run/*_master.h5", layout="eiger")
    assert len(manager) == 57 and only(manager)[:3] == ("data", (4, 3), "uint32")
    assert manager.sequences.names[9] == "data_000010"
    for id, sample in enumerate(FileCacheDataset(manager)):
        np.testing.assert_array_equal(sample, expected[id])


def test_eiger_files_elsewhere_are_trusted_only_when_told(tmp_path):
    """As all links that lead out of the folder."""
    expected = eiger(tmp_path / "run", detached="../far/")
    path = tmp_path / "run/run_master.h5"
    with pytest.raises(ValueError, match=r"lies outside the folder.*allow_external=True"):
        GlobalIndexManager(path, layout="eiger")
    manager = GlobalIndexManager(path, layout="eiger", allow_external=True)
    assert len(manager) == len(expected) == len(FileCacheDataset(manager))


def test_eiger_files_that_are_not_there_are_missed(tmp_path):
    """Frames that were not copied are no shorter run."""
    eiger(tmp_path / "run")
    (tmp_path / "run/run_data_000003.h5").unlink()
    with pytest.raises(ValueError, match=r"run_data_000003\.h5', which is not there"):
        GlobalIndexManager(tmp_path / "run/run_master.h5", layout="eiger")


def test_a_file_of_nothing_but_links_says_so(tmp_path):
    """Its arrays are not listed, for each would have to be opened elsewhere; the first is named."""
    eiger(tmp_path / "run")
    with h5py.File(tmp_path / "run/run_master.h5", "r+") as file:
        del file["entry/instrument"]
    said = refused(tmp_path / "run/run_master.h5")
    assert "it has 3 links to such, the first of them 'entry/data/data_000001'" in said
    assert "layout='eiger'" in said


# -- what is no array to choose


@pytest.mark.parametrize("library", ["netCDF4", "h5netcdf"])
def test_dimensions_of_netcdf_are_no_arrays(tmp_path, library):
    """One that has no variable is stored as an array of nothing: it is not what is meant, and not offered."""
    path = str(tmp_path / "a.nc")
    if library == "netCDF4":
        with pytest.importorskip("netCDF4").Dataset(path, "w") as file:
            file.createDimension("time", None)
            file.createDimension("x", 3)
            file.createVariable("v", "f4", ("time", "x"))[:] = np.ones((5, 3))
    else:
        with pytest.importorskip("h5netcdf").File(path, "w") as file:
            file.dimensions = {"time": 5, "x": 3}
            file.create_variable("v", ("time", "x"), "f4")[...] = np.ones((5, 3))
    assert only(GlobalIndexManager(path))[:3] == ("v", (3,), "float32")
    assert "there is 'v' of (5, 3)" in refused(path, key="w")


def test_dimensions_with_values_are_arrays(tmp_path):
    """A coordinate is a variable as any other."""
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file["time"] = np.arange(5.0)
        file["time"].make_scale("time")
        file["v"] = np.ones((5, 3))
        file["v"].dims[0].attach_scale(file["time"])
    assert "it holds 2 arrays ('time' of (5,), 'v' of (5, 3))" in refused(tmp_path / "a.nc")


@pytest.mark.parametrize("options", [{}, {"sequences": "file"}])
def test_types_that_h5py_does_not_know_are_named(tmp_path, options):
    """HDF5's own times, which PyTables writes: refused by array; all other arrays are read."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(4)
        space = h5py.h5s.create_simple((4,))
        h5py.h5d.create(file.id, b"stamp", h5py.h5t.UNIX_D64LE, space)
    assert "array 'stamp' cannot be read by h5py: No NumPy equivalent" in refused(
        tmp_path / "a.h5", key="stamp", **options
    )
    assert len(GlobalIndexManager(tmp_path / "a.h5", key="x", **options)) == 4
    assert "it holds 2 arrays" in refused(tmp_path / "a.h5", **options)


def test_types_that_h5py_does_not_know_stand_in_no_layouts_way(tmp_path):
    """Beside the signal of a NeXus file, where all arrays of the group are looked at."""
    path = nexus(tmp_path / "a.nxs", old=1, default=False)
    with h5py.File(path, "r+") as file:
        space = h5py.h5s.create_simple((4,))
        h5py.h5d.create(file["entry/data"].id, b"a_stamp", h5py.h5t.UNIX_D64LE, space)
    assert only(GlobalIndexManager(path, layout="nexus"))[3] == "entry/data/counts"


# -- tokens


@pytest.mark.parametrize("write", [write_hdf5, write_zarr])
@pytest.mark.parametrize(
    ("count", "length"), [(20, 5), (23, 5), (4, 5), (0, 5), (23, 1), (23, 7), (23, 23), (23, 24)]
)
def test_tokens_are_cut_into_sequences(tmp_path, write, count, length):
    """Each file gives as many whole sequences as fit, whether or not they fit its chunks; what is left over is left out."""
    path = write(tmp_path / "a.zarr", numbers(count, (), "u4"), key="x", chunk=4)
    manager = GlobalIndexManager(path, layout=f"tokens:{length}")
    assert len(manager) == count // length and only(manager) == (
        "x",
        (length,),
        "uint32",
        "x",
        "tokens",
    )
    assert manager.arrays[0].rows == length and manager.now.table.chunk_lengths[0, 0] == 4


def test_tokens_are_one_dimensional_and_one_array(tmp_path):
    """A matrix is refused, so is a file of several; a bare array and a key are taken."""
    write_zarr(tmp_path / "a.zarr", numbers(20, (3,)))
    assert "sequences of tokens are cut from one-dimensional arrays" in refused(
        tmp_path / "a.zarr", layout="tokens:5"
    )
    write_zarr(tmp_path / "bare.zarr", numbers(20, ()))
    assert only(GlobalIndexManager(tmp_path / "bare.zarr", layout="tokens:6")) == (
        "",
        (6,),
        "uint16",
        "",
        "tokens",
    )
    write_hdf5(tmp_path / "b.h5", {"x": numbers(20, ()), "y": numbers(20, ())})
    assert "choose with key=" in refused(tmp_path / "b.h5", layout="tokens:5")
    assert len(GlobalIndexManager(tmp_path / "b.h5", layout="tokens:5", key="y")) == 4


def test_tokens_of_another_length_are_another_index(tmp_path):
    """Other ids, other fingerprint, another cache: they live side by side."""
    write_zarr(tmp_path / "a.zarr", numbers(60, ()))
    managers = [GlobalIndexManager(tmp_path / "a.zarr", layout=f"tokens:{n}") for n in (5, 6, 5)]
    assert [len(manager) for manager in managers] == [12, 10, 12]
    assert managers[0].fingerprint == managers[2].fingerprint != managers[1].fingerprint
    assert managers[0].cache_path == managers[2].cache_path != managers[1].cache_path


@pytest.mark.parametrize("layout", ["tokens:4", "anndata"])
def test_layouts_of_rows_refuse_another_axis(tmp_path, layout):
    """Before any file is looked at."""
    with pytest.raises(ValueError, match="along axis 0, not 1"):
        GlobalIndexManager(tmp_path / "gone", layout=layout, axis=1)


# -- data that lies in other files


def test_an_external_link_is_followed_and_never_believed(tmp_path):
    """The file it leads to may change with this one's stamps unmoved, so this one is opened at every look."""
    (tmp_path / "raw").mkdir()
    write_hdf5(tmp_path / "raw/far.h5", numbers(3), key="g/data")
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["x"] = h5py.ExternalLink("raw/far.h5", "/g/data")
    manager = settled_manager(tmp_path / "master.h5", key="x")
    assert len(manager) == 3 and not manager.refresh()
    write_hdf5(tmp_path / "raw/far.h5", numbers(5), key="g/data")
    changes = manager.refresh()
    assert (
        changes.grown == ("master.h5",)
        and len(manager) == len(settled_manager(tmp_path / "master.h5", key="x")) == 5
    )


def test_an_external_link_to_nothing_is_named(tmp_path):
    """By the file that is missing, not as an array that is not there."""
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["x"] = h5py.ExternalLink("raw/far.h5", "/g/data")
        file["g/y"] = numbers(3)
    assert "takes data from 'raw/far.h5', which is not there" in refused(
        tmp_path / "master.h5", key="x"
    )
    assert len(GlobalIndexManager(tmp_path / "master.h5", key="g/y")) == 3


def virtual(path, sources, *, length=3):
    layout = h5py.VirtualLayout((length * len(sources), 3), "u2")
    for number, source in enumerate(sources):
        layout[number * length : (number + 1) * length] = h5py.VirtualSource(
            source, "x", (length, 3)
        )
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("v", layout)


def test_virtual_datasets_are_followed_and_never_believed(tmp_path, monkeypatch):
    """All sources must be there; whichever changes, the file is opened at every look, as its own stamp tells nothing."""
    (tmp_path / "raw").mkdir()
    for name in "ab":
        write_hdf5(tmp_path / f"raw/{name}.h5", numbers(3))
    virtual(tmp_path / "v.h5", ["raw/a.h5", "raw/b.h5"])
    real, seen = stores.scan, []
    monkeypatch.setattr(stores, "scan", lambda path, *rest: seen.append(path) or real(path, *rest))
    manager = settled_manager(tmp_path / "v.h5")
    assert len(manager) == 6 and not manager.refresh() and len(seen) == 2
    (tmp_path / "raw/b.h5").unlink()
    with pytest.raises(
        BadFilesError, match=r"v\.h5: dataset 'v' takes data from 'raw/b\.h5', which is not there"
    ):
        manager.refresh()


def test_a_virtual_dataset_behind_a_link_has_its_sources_where_it_lies(tmp_path):
    """Relative names count from the file that names them."""
    (tmp_path / "raw").mkdir()
    write_hdf5(tmp_path / "raw/a.h5", numbers(3))
    virtual(tmp_path / "raw/v.h5", ["a.h5"])
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["x"] = h5py.ExternalLink("raw/v.h5", "v")
    assert len(GlobalIndexManager(tmp_path / "master.h5", key="x")) == 3


def test_a_virtual_dataset_of_numbered_files_is_followed(tmp_path):
    """``%b`` stands for numbers: which of them there are is HDF5's to find out."""
    for number in range(2):
        write_hdf5(tmp_path / f"part-{number}.h5", numbers(3), chunk=1)
    layout = h5py.VirtualLayout((6, 3), "u2", maxshape=(None, 3))
    source = h5py.VirtualSource("part-%b.h5", "x", (3, 3), maxshape=(3, 3))
    space, other = (
        h5py.h5s.create_simple((6, 3), (h5py.h5s.UNLIMITED, 3)),
        h5py.h5s.create_simple((3, 3)),
    )
    space.select_hyperslab((0, 0), (h5py.h5s.UNLIMITED, 1), stride=(3, 3), block=(3, 3))
    del layout, source
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_virtual(space, b"part-%b.h5", b"x", other)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        h5py.h5d.create(file.id, b"v", h5py.h5t.NATIVE_UINT16, space, plist)
    manager = GlobalIndexManager(tmp_path / "v.h5")
    assert len(manager) == 6
    write_hdf5(tmp_path / "part-2.h5", numbers(3), chunk=1)
    assert manager.refresh().grown == ("v.h5",) and len(manager) == 9


def test_a_virtual_dataset_of_its_own_file_is_its_own(tmp_path):
    """A source called ``.`` is no other file."""
    layout = h5py.VirtualLayout((4, 3), "u2")
    layout[:] = h5py.VirtualSource(".", "x", (4, 3))
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["x"] = numbers(4)
        file.create_virtual_dataset("v", layout)
    assert len(GlobalIndexManager(tmp_path / "v.h5", key="v")) == 4


def test_two_names_of_one_file_with_links_are_refused(tmp_path):
    """A file without stamps of its own still is itself."""
    write_hdf5(tmp_path / "far.h5", numbers(3))
    virtual(tmp_path / "v.h5", ["far.h5"])
    os.link(tmp_path / "v.h5", tmp_path / "w.h5")
    with pytest.raises(ValueError, match=r"w\.h5 and .*v\.h5 are the same file"):
        GlobalIndexManager([tmp_path / "v.h5", tmp_path / "w.h5"])


# -- kinds together


def test_groups_of_both_kinds_are_one_index_and_bare_arrays_are_told_apart(tmp_path):
    """By one key; a bare array has no name, and the message says so."""
    write_hdf5(tmp_path / "a.h5", numbers(3))
    write_zarr(tmp_path / "b.zarr", numbers(4), key="x")
    assert GlobalIndexManager(tmp_path).lengths.tolist() == [3, 4]
    write_zarr(tmp_path / "c.zarr", numbers(5))
    said = refused(tmp_path)
    assert "c.zarr: it has array of (3,) uint16" in said and "a bare zarr array has none" in said
    assert "c.zarr: it is a bare array, so it has no 'x' in it" in refused(tmp_path, key="x")
    assert Path(tmp_path, "c.zarr").is_dir()


@pytest.mark.parametrize(
    "mark", [1, 1.0, "1", np.bytes_("1"), np.array([1], "i2"), np.array(["1"], "S2")]
)
def test_an_old_signal_is_marked_in_every_way_that_writers_had(tmp_path, mark):
    """Numbers, text and arrays of one: napi wrote text of fixed length."""
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        group = entry.create_group("data")
        group.attrs["NX_class"] = "NXdata"
        for name, signal in (("bins", 2), ("counts", mark), ("errors", "2")):
            group[name] = np.arange(12.0).reshape(4, 3)
            group[name].attrs["signal"] = signal
    manager = GlobalIndexManager(tmp_path / "a.nxs", layout="nexus", cache_dir=tmp_path)
    assert manager.now.entry(0).arrays[0].path == "entry/data/counts"


@pytest.mark.filterwarnings("ignore:The data type")  # zarr's of compound dtypes
def test_members_may_lie_in_another_sequence_in_each_file(tmp_path):
    """And beside others: the dtype is that of the members that are asked for, of both kinds of files."""
    rows = {"pt": np.arange(3, dtype="f4"), "n": np.arange(3, dtype="i4") + 10}
    vertex = np.zeros(3, [("y", "f8"), ("x", "f8")])
    vertex["x"] = np.arange(3) / 4
    for name, members in (("a", "pt n vertex"), ("b", "m vertex n pt"), ("c", "n m vertex pt")):
        parts = {**rows, "vertex": vertex, "m": np.zeros(3, "u1")}
        dtype = [(member, parts[member].dtype) for member in members.split()]
        jets = np.zeros(3, dtype)
        for member in members.split():
            jets[member] = parts[member]
        if name == "b":
            group = zarr.open_group(tmp_path / "b.zarr", mode="w")
            group.create_array("jets", data=jets)
        else:
            write_hdf5(tmp_path / f"{name}.h5", jets, key="jets")
    dataset = FileCacheDataset(GlobalIndexManager(tmp_path, key={"jet": "jets/{pt,vertex/x,n}"}))
    assert len(dataset) == 9
    for id, sample in enumerate(dataset.__getitems__(range(9))):
        jet, row = sample["jet"], id % 3
        assert (jet["pt"], jet["n"], jet["vertex"]["x"]) == (row, row + 10, row / 4)
