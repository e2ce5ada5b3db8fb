"""Which matrices and columns of AnnData files can be read, what their codes mean, and what is refused."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import zarr
from files import settled_manager

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.cli import main
from globidx.disk.stores import anndata
from globidx.errors import BadFilesError, ReadError

KINDS = ["h5ad", "zarr2", "zarr3"]


class Writer:
    """A file of either kind, with elements as anndata writes them."""

    def __init__(self, path, kind):
        self.is_zarr = kind != "h5ad"
        self.root = (
            zarr.create_group(path, zarr_format=int(kind[-1]))
            if self.is_zarr
            else h5py.File(path, "w")
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if not self.is_zarr:
            self.root.close()

    def group(self, path, **attributes):
        group = self.root.require_group(path)
        group.attrs.update({name.replace("_", "-"): one for name, one in attributes.items()})
        return group

    def array(self, path, values):
        data = np.asarray(values)
        if data.dtype.kind not in "US":
            create = self.root.create_array if self.is_zarr else self.root.create_dataset
            return create(path, data=data)
        if self.is_zarr:
            array = self.root.create_array(path, shape=data.shape, dtype=str)
            array[...] = data.astype(object)
            return array
        return self.root.create_dataset(path, data=data.astype(object), dtype=h5py.string_dtype())

    def frame(self, path, index, name="_index"):
        group = self.group(path, encoding_type="dataframe")
        group.attrs["_index"] = name
        self.array(f"{path}/{name}", index)

    def categorical(self, path, codes, categories):
        self.group(path, encoding_type="categorical")
        self.array(f"{path}/codes", np.array(codes, "i1"))
        self.array(f"{path}/categories", categories)


def path_of(folder, name, kind):
    return folder / f"{name}.{'h5ad' if kind == 'h5ad' else 'zarr'}"


def write(folder, name, kind, codes, categories, genes=("TP53", "MYC")):
    """A file with a cell for each code, of which X has the row ``[number, number]``."""
    path = path_of(folder, name, kind)
    count = len(codes)
    with Writer(path, kind) as file:
        file.array("X", np.arange(1, count + 1, dtype="f4")[:, None] * np.ones(len(genes), "f4"))
        file.frame("obs", [f"{name}{number}" for number in range(count)], "barcode")
        file.categorical("obs/cell_type", codes, categories)
        file.array("obs/age", np.arange(1, count + 1))
        file.frame("var", list(genes))
    return path


def refused(path, **options):
    with pytest.raises(BadFilesError) as error:
        GlobalIndexManager(path, layout="anndata", **options)
    return str(error.value)


def samples(manager, **options):
    dataset = FileCacheDataset(manager, **options)
    return [one.tolist() for one in dataset.__getitems__(range(len(dataset)))]


@pytest.mark.parametrize("kind", KINDS)
def test_a_code_means_one_category_in_all_files(tmp_path, kind):
    """Code 0 is another category in each file; joined, in the order of files, it is the same one."""
    write(tmp_path, "a", kind, [0, 1, -1], ["B", "T"])
    write(tmp_path, "b", kind, [0, 1, 1], ["T", "NK"])
    options = {"layout": "anndata", "key": "obs/cell_type"}
    for _ in range(2):
        # scanned, then out of the cache
        manager = GlobalIndexManager(tmp_path, **options)
        assert manager.categories == {"obs/cell_type": ("B", "T", "NK")}
        assert samples(manager) == [0, 1, -1, 1, 2, 2]
    write(tmp_path, "c", kind, [1, 0], ["A", "B"])
    assert manager.refresh().appended == (path_of(tmp_path, "c", kind).name,)
    assert samples(manager) == [0, 1, -1, 1, 2, 2, 0, 3]
    assert manager.categories == {"obs/cell_type": ("B", "T", "NK", "A")}
    assert FileCacheDataset(manager).categories == manager.categories


@pytest.mark.parametrize("kind", KINDS)
def test_categories_are_numbers_or_text(tmp_path, kind):
    """As pandas has them."""
    write(tmp_path, "a", kind, [1, 0], [5, 3])
    manager = GlobalIndexManager(tmp_path, layout="anndata", key=("obs/cell_type", "obs/age"))
    assert manager.categories == {"obs/cell_type": (5, 3)}


@pytest.mark.parametrize("kind", KINDS)
def test_matrices_with_other_columns_are_refused(tmp_path, kind):
    """Column 1 would be one gene in this file and another one in that: both files and genes are named."""
    write(tmp_path, "a", kind, [0], ["B"])
    write(tmp_path, "b", kind, [0], ["B"], genes=("TP53", "EGFR"))
    told = refused(tmp_path)
    assert "column 1 of its 'X' is 'EGFR', and 'MYC' in a." in told
    assert "order the columns (var) of all files alike" in told and "/b." in told
    kept = GlobalIndexManager(tmp_path, layout="anndata", on_bad="skip")
    assert len(kept) == 1 and kept.var_names == {"X": ("TP53", "MYC")}
    # of columns of obs these genes are no matter
    assert len(GlobalIndexManager(tmp_path, layout="anndata", key="obs/age")) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_code_without_a_category_is_an_error(tmp_path, kind):
    """Not taken for the last category, as a negative index would be."""
    for number, code in enumerate((1, -2)):
        write(tmp_path, f"{number}", kind, [0, code], ["B"])
    manager = GlobalIndexManager(tmp_path, layout="anndata", key="obs/cell_type")
    dataset = FileCacheDataset(manager, on_missing="fill")
    for id, code in ((1, 1), (3, -2)):
        with pytest.raises(
            ReadError, match=rf"sample id {id}: .*: row 1 has code {code}, of 1 cat"
        ):
            dataset[id]


def test_columns_of_anndata_0_7_have_their_categories_beside_them(tmp_path):
    """Codes in ``obs``, names in ``obs/__categories``."""
    with Writer(tmp_path / "a.h5ad", "h5ad") as file:
        file.frame("obs", ["x", "y"])
        file.array("obs/cell_type", np.array([1, 0], "i1"))
        file.array("obs/__categories/cell_type", ["B", "T"])
        file.array("obs/age", [3, 4])
    manager = GlobalIndexManager(tmp_path, layout="anndata", key=("obs/cell_type", "obs/age"))
    assert manager.categories == {"obs/cell_type": ("B", "T")}
    assert FileCacheDataset(manager, fields="obs/cell_type")[0] == 1
    assert set(manager.available()) == {"obs/_index", "obs/cell_type", "obs/age"}


def test_a_compound_obs_is_refused_by_name(tmp_path):
    """anndata 0.5 and 0.6 wrote one array of structures."""
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        file["X"] = np.zeros((2, 2), "f4")
        file["obs"] = np.zeros(2, [("index", "S3"), ("age", "i4")])
    assert "its 'obs' is one compound array, as anndata before 0.7" in refused(tmp_path, key="obs")
    assert len(GlobalIndexManager(tmp_path, layout="anndata")) == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("obs", "its 'obs' is stored as dataframe"),
        ("obs", "name one of 'obs/age', 'obs/barcode', 'obs/cell_type', 'obs/maybe'"),
        (
            "obs/celltype",
            "it has no 'obs/celltype' (did you mean 'obs/cell_type'?); there is 'X', ",
        ),
        (
            "obs/maybe",
            "nullable-integer column, whose values may be missing: name 'obs/maybe/values'",
        ),
        ("obs/odd", "its 'obs/odd' is stored as awkward-array"),
        (
            "uns/title",
            "its 'uns/title' is no field of samples: uns holds what belongs to the whole",
        ),
        ("var/_index", "var has a row for each variable (a column of X); var_names of the index"),
        ("varm/loadings", "varm has a row for each variable"),
        ("varp", "varp has a row for each variable"),
        ("obsp/distances", "obsp pairs observations"),
    ],
)
def test_what_has_no_rows_for_samples_is_refused_by_name(tmp_path, kind, key, told):
    """Whether it is there or not: each error says what can be named instead."""
    path = write(tmp_path, "a", kind, [0, 0], ["B"])
    root = h5py.File(path, "r+") if kind == "h5ad" else zarr.open_group(path, mode="r+")
    for name, how in (("maybe", "nullable-integer"), ("odd", "awkward-array")):
        group = root["obs"].create_group(name)
        group.attrs["encoding-type"] = how
    for name, data in (("values", np.array([1, 2])), ("mask", np.array([True, False]))):
        group = root["obs/maybe"]
        (group.create_dataset if kind == "h5ad" else group.create_array)(name, data=data)
    if kind == "h5ad":
        root.close()
    assert told in refused(tmp_path, key=key)
    # what the error of a nullable column says works
    manager = GlobalIndexManager(
        tmp_path, layout="anndata", key=("obs/maybe/values", "obs/maybe/mask")
    )
    first = FileCacheDataset(manager, on_missing="fill")[0]
    assert (int(first["obs/maybe/values"]), bool(first["obs/maybe/mask"])) == (1, True)


@pytest.mark.parametrize("kind", KINDS)
def test_info_tells_what_else_can_be_named(tmp_path, kind, capsys):
    """X alone is read without a key, and all else with a row for each cell is listed."""
    path = write(tmp_path, "a", kind, [0, 0], ["B"])
    assert main(["index", "info", str(path), "--layout", "anndata", "--quiet", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in value["arrays"]] == ["X"]
    assert value["available"] == {
        "obs/_index": "array of (2,) text",
        "obs/age": "array of (2,) int64",
        "obs/cell_type": "categorical, 1 categories",
    }
    assert main(["index", "info", str(path), "--layout", "anndata"]) == 0
    assert "also there   obs/age: array of (2,) int64" in capsys.readouterr().out


def test_what_is_available_is_asked_of_anndata_files_only(tmp_path):
    """Other files list their arrays in the error of a missing key."""
    write(tmp_path, "a", "h5ad", [0], ["B"])
    with pytest.raises(ValueError, match="pass layout='anndata'"):
        GlobalIndexManager(tmp_path, key="X").available()


@pytest.mark.parametrize("kind", KINDS)
def test_a_matrix_by_column_that_grew_is_looked_at_again(tmp_path, kind):
    """How many rows it has stands in its attributes alone."""
    path = path_of(tmp_path, "a", kind)
    with Writer(path, kind) as file:
        file.group("X", encoding_type="csc_matrix", shape=[3, 2])
        for name, values in (("indptr", [0, 1, 2]), ("indices", [1, 2]), ("data", [5, 6])):
            file.array(f"X/{name}", values)
    manager = settled_manager(path, layout="anndata")
    assert len(manager) == 3 and not manager.refresh()
    root = h5py.File(path, "r+") if kind == "h5ad" else zarr.open_group(path, mode="r+")
    root["X"].attrs["shape"] = [4, 2]
    if kind == "h5ad":
        root.close()
    assert manager.refresh().grown == (path.name,) and len(manager) == 4
    assert samples(manager) == [[0, 0], [5, 0], [0, 6], [0, 0]]


def test_a_matrix_by_column_of_another_width_is_refused(tmp_path):
    """Its shape attribute and its indptr contradict one another."""
    with Writer(tmp_path / "a.h5ad", "h5ad") as file:
        file.group("X", encoding_type="csc_matrix", shape=[3, 4])
        for name, values in (("indptr", [0, 1, 2]), ("indices", [1, 2]), ("data", [5, 6])):
            file.array(f"X/{name}", values)
    assert "has 4 columns by its shape attribute, and 2 by its indptr" in refused(tmp_path)


def test_names_are_read_once_for_all_that_have_them():
    """X and the layers have the same columns."""
    asked = []
    names = anndata.names_at(["var", "", "var"], lambda path: asked.append(path) or np.array(["a"]))
    assert names == ('["a"]', "", '["a"]') and asked == ["var"]
