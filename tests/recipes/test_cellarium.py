"""The page on cellarium-ml: its diff fits the data module, which then resumes with other processes."""

import shutil

import numpy as np
import pytest
from recipe_jobs import run, seen
from recipe_pages import patched

for package in ("lightning", "boltons", "braceexpand"):
    pytest.importorskip(package)
anndata = pytest.importorskip("anndata")
# anndata sets an option of pandas that goes away
pytestmark = pytest.mark.filterwarnings("ignore:The 'future.infer_string' option")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of cellarium-ml that is changed as the page says."""
    return patched("annbatch", tmp_path_factory.mktemp("patched"))


@pytest.fixture(scope="module")
def stopped(package, tmp_path_factory):
    """The folder of a run on 2 processes that stopped in mid-epoch, of 60 of 72 cells in two files."""
    folder = tmp_path_factory.mktemp("stopped")
    for number, (first, end) in enumerate(((0, 30), (30, 72))):
        counts = np.random.default_rng(0).poisson(1, (end - first, 4)).astype("f4")
        counts[:, 0] = np.arange(first, end)
        cells = anndata.AnnData(counts, {"id": np.arange(first, end)}, {"gene": np.arange(4)})
        with anndata.settings.override(allow_write_nullable_strings=True):
            cells.write_h5ad(folder / f"{number}.h5ad")
    run(2, "cellarium_job.py", folder, package, 3)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 3])
def test_a_run_of_their_data_module_goes_on_on_other_processes(package, stopped, tmp_path, ranks):
    """Each cell of the training part once in both epochs; theirs refuses another number of processes."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    assert seen(tmp_path)[0].total() == 3 * 2 * 4
    run(ranks, "cellarium_job.py", tmp_path, package, -1)
    once = dict.fromkeys(range(60), 1)
    assert seen(tmp_path) == {0: once, 1: once}
