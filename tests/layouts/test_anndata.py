"""AnnData: each sample is the row that anndata itself reads, of h5ad files and zarr stores that it wrote.

zarr leaves out chunks of zeros, so these are filled in.
"""

import warnings

import numpy as np
import pytest
import torch
from equality import assert_all_same, assert_same, read_all

from globidx import FileCacheDataset, GlobalIndexManager

anndata = pytest.importorskip("anndata")
pandas = pytest.importorskip("pandas")
sparse = pytest.importorskip("scipy.sparse")

GENES = 7
KEYS = (
    "X",
    "layers/dense",
    "layers/by_row",
    "layers/by_column",
    "raw/X",
    "obsm/X_pca",
    "obsm/table/score",
    "obs/cell_type",
    "obs/count",
    "obs/fraction",
    "obs/flag",
    "obs/batch",
    "obs/note",
    "obs/_index",
)
#: Of each file: how many cells, and the categories of its cells.
FILES = [(9, ["B", "T"]), (1, ["NK"]), (6, ["T", "unused", "B", "NK"]), (12, ["A", "T"])]


def matrix(rng, rows, form):
    """A matrix with rows, columns and entries of every kind: none, unsorted, of one place."""
    if form == "dense":
        return rng.normal(size=(rows, GENES)).astype("f4")
    count = int(rng.integers(0, 4 * rows))
    entries = rng.integers(0, rows, count), rng.integers(0, GENES - 1, count)
    values = rng.normal(size=count).astype("f4")
    values[: count // 5] = -0.0
    made = sparse.coo_matrix((values, entries), (rows, GENES))
    # by hand, since scipy's own way would sort and add up
    major, minor = entries if form == "csr" else entries[::-1]
    order = np.argsort(major, kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(major, minlength=made.shape[form == "csc"]))])
    kind = sparse.csr_matrix if form == "csr" else sparse.csc_matrix
    return kind((values[order], minor[order], ends), made.shape)


def written(folder, suffix, form):
    """Files of ``FILES`` as anndata wrote them; what it reads from them."""
    with warnings.catch_warnings():
        # of options of pandas that anndata asks for
        warnings.simplefilter("ignore")
        write(folder, suffix, form)
        read = anndata.read_h5ad if suffix == "h5ad" else anndata.read_zarr
        return [read(path) for path in sorted(folder.iterdir())]


def write(folder, suffix, form):
    """Files of ``FILES``, by anndata."""
    rng = np.random.default_rng(7)
    for number, (rows, categories) in enumerate(FILES):
        cells = [f"cell-{number}-{row}" for row in range(rows)]
        chosen = pandas.Categorical(rng.choice([*categories, None], rows), categories)
        columns = {
            "cell_type": chosen,
            "count": rng.integers(0, 9, rows),
            "fraction": rng.random(rows).astype("f4"),
            "flag": rng.random(rows) < 0.5,
            "batch": pandas.Categorical(rng.integers(3, 6, rows)),
            "note": pandas.Series([f"é{row}" for row in range(rows)], cells, dtype=object),
        }
        layers = {"dense": "dense", "by_row": "csr", "by_column": "csc"}
        file = anndata.AnnData(
            matrix(rng, rows, form),
            obs=pandas.DataFrame(columns, index=pandas.Index(cells, dtype=object)),
            var=pandas.DataFrame(
                index=pandas.Index([f"gene-{gene}" for gene in range(GENES)], dtype=object)
            ),
            obsm={
                "X_pca": rng.normal(size=(rows, 3)),
                "table": pandas.DataFrame(
                    {"score": rng.random(rows)}, index=pandas.Index(cells, dtype=object)
                ),
            },
            layers={name: matrix(rng, rows, how) for name, how in layers.items()},
        )
        file.raw = file
        path = folder / f"part-{number}.{'h5ad' if suffix == 'h5ad' else 'zarr'}"
        if suffix == "h5ad":
            file.write_h5ad(path, compression="gzip" if number % 2 else None)
        else:
            anndata.settings.zarr_write_format = int(suffix[-1])
            file.write_zarr(path)


@pytest.fixture(
    scope="module",
    params=[
        (suffix, form) for suffix in ("h5ad", "zarr2", "zarr3") for form in ("dense", "csr", "csc")
    ],
    ids="-".join,
)
def files(request, tmp_path_factory):
    """A folder of files, and what anndata reads from it."""
    folder = tmp_path_factory.mktemp("-".join(request.param))
    return folder, written(folder, *request.param)


def rows_of(some):
    """The rows of a matrix, dense."""
    return [*(some.toarray() if sparse.issparse(some) else np.asarray(some))]


def expected(read):
    """The samples by anndata alone, but the codes of categories, whose meaning is compared elsewhere."""
    columns = {
        "X": [row for file in read for row in rows_of(file.X)],
        "raw/X": [row for file in read for row in rows_of(file.raw.X)],
        "obsm/X_pca": [row for file in read for row in file.obsm["X_pca"]],
        "obsm/table/score": [
            row for file in read for row in file.obsm["table"]["score"].to_numpy()
        ],
    }
    for name in ("dense", "by_row", "by_column"):
        columns[f"layers/{name}"] = [row for file in read for row in rows_of(file.layers[name])]
    columns["obs/_index"] = [name for file in read for name in file.obs_names]
    for name in ("count", "fraction", "flag", "note"):
        columns[f"obs/{name}"] = [row for file in read for row in file.obs[name].to_numpy()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_each_row_is_that_of_anndata(files, tmp_path):
    """Dense, by row and by column, duplicates added up, in every file: to the bit."""
    folder, read = files
    keys = [key for key in KEYS if key not in ("obs/cell_type", "obs/batch")]
    manager = GlobalIndexManager(folder, layout="anndata", key=keys, cache_dir=tmp_path)
    assert_all_same(FileCacheDataset(manager, on_missing="fill"), expected(read))


def test_sparse_rows_are_those_of_anndata(files, tmp_path):
    """As indices and values: ascending, each once, and dense they are anndata's rows to the bit."""
    folder, read = files
    keys = ("layers/by_row", "layers/by_column")
    manager = GlobalIndexManager(folder, layout="anndata", key=keys, cache_dir=tmp_path)
    for given in ("row", {"layers/by_row": "row", "layers/by_column": "row"}):
        samples = read_all(FileCacheDataset(manager, sparse=given, on_missing="fill"))
        for sample, theirs in zip(samples, expected(read), strict=True):
            for key in keys:
                row = sample[key]
                assert row.size == GENES and row.indices.dtype == torch.int64
                assert (row.indices.diff() > 0).all()
                assert_same(row.dense(), theirs[key], key)


def test_categories_are_those_of_the_concatenation(files, tmp_path):
    """A code leads to the name that anndata has, whatever its code in the file; joined as anndata.concat does."""
    folder, read = files
    keys = ("obs/cell_type", "obs/batch")
    manager = GlobalIndexManager(folder, layout="anndata", key=keys, cache_dir=tmp_path)
    dataset = FileCacheDataset(manager, on_missing="fill")
    assert dataset.categories == manager.categories
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        joined = anndata.concat(read).obs
    samples = read_all(dataset)
    for key in keys:
        names = manager.categories[key]
        column = joined[key.removeprefix("obs/")]
        assert sorted(names, key=str) == sorted(column.cat.categories, key=str)
        codes = [int(sample[key]) for sample in samples]
        assert all(sample[key].dtype == torch.int64 for sample in samples)
        assert [names[code] if code >= 0 else None for code in codes] == [
            None if pandas.isna(one) else one for one in column
        ]
    assert manager.categories["obs/cell_type"] == ("B", "T", "NK", "unused", "A")


def test_files_that_are_appended_change_no_code(files, tmp_path):
    """The first files alone have the same codes, and the first of the same categories."""
    folder, read = files
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    before = None
    for count in range(1, len(paths) + 1):
        manager = GlobalIndexManager(
            [str(path) for path in paths[:count]],
            layout="anndata",
            key="obs/cell_type",
            cache_dir=tmp_path,
        )
        names = manager.categories["obs/cell_type"]
        codes = [int(code) for code in read_all(FileCacheDataset(manager, on_missing="fill"))]
        if before is not None:
            assert names[: len(before[0])] == before[0]
            assert codes[: len(before[1])] == before[1]
        before = names, codes
    assert len(before[1]) == sum(file.n_obs for file in read)


def test_the_names_of_columns_are_those_of_var(files, tmp_path):
    """Genes by their names; all that anndata lists with a row for each cell is offered."""
    folder, read = files
    manager = GlobalIndexManager(folder, layout="anndata", cache_dir=tmp_path)
    assert manager.var_names == {"X": tuple(read[0].var_names)}
    assert [info.name for info in manager.arrays] == ["X"]
    offered = {f"obs/{name}" for name in read[0].obs} | {
        f"layers/{name}" for name in read[0].layers
    }
    assert offered | {"X", "raw/X", "obs/_index", "obsm/X_pca"} <= set(manager.available())
