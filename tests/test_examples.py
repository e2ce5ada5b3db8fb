"""Every example runs, says what it promises, and fits a page."""

import subprocess
import sys
from pathlib import Path

import pytest
from files import environment
from processes import torchrun

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(*command, ranks=None):
    """What an example prints, under torchrun if it has ranks; it must succeed."""
    done = subprocess.run(
        [sys.executable, *command] if ranks is None else torchrun(ranks, *command),
        cwd=EXAMPLES.parent,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_examples_are_short(path):
    """Under 80 lines each."""
    assert len(path.read_text().splitlines()) < 80


LAYOUTS = sorted(
    path for folder in ("windows", "fields") for path in (EXAMPLES / folder).glob("*.py")
)


@pytest.mark.parametrize("path", LAYOUTS, ids=lambda path: path.name)
def test_examples_of_layouts_are_shown_and_run_by_a_page(path):
    """Under 60 lines each, those that write the files included; ``test_docs.py`` compares what they print."""
    assert len(path.read_text().splitlines()) < 60
    shown = f"examples/{path.parent.name}/{path.name}"
    folder = EXAMPLES.parent / "docs" / "howto" / path.parent.name
    page = (folder / f"{path.stem}.md").read_text()
    assert f"{shown}\n:language: python" in page
    assert f"```sh\npython {shown}\n```\n\n<!-- output -->" in page


RECIPES = sorted((EXAMPLES / "recipes").glob("*.py"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_recipes_are_shown_and_run_by_a_page_that_the_index_names(path):
    """Under 100 lines each; ``test_docs.py`` compares what they print, ``integrations`` that of those of a framework."""
    assert len(path.read_text().splitlines()) < 100
    howto = EXAMPLES.parent / "docs" / "howto"
    page = (howto / "recipes" / f"{path.stem}.md").read_text()
    assert f"examples/recipes/{path.name}\n:language: python" in page
    if path.stem not in ("diffusion_policy", "viscy"):
        assert f"```sh\npython examples/recipes/{path.name}\n```\n\n<!-- output -->" in page
    index = (howto / "recipes.md").read_text()
    assert f"](recipes/{path.stem}.md)" in index and f"\nrecipes/{path.stem}\n" in index


@pytest.mark.slow
def test_the_demo_misses_nothing_and_repeats_nothing():
    """The README's table: a kill in mid-epoch on 2 processes, the rest on 3."""
    table = dict(line.rsplit(maxsplit=1) for line in run("tools/demo.py").splitlines())
    assert table["samples"] == "1003"
    assert (table["missing"], table["repeated"]) == ("0", "0")
    before, after = (
        int(table[name])
        for name in ("committed before the kill, 2 ranks", "committed after it, 3 ranks")
    )
    assert 0 < before < 1003
    assert before + after == 1003


@pytest.mark.slow
def test_the_two_line_swap_runs_under_torchrun():
    """An ordinary DDP loop with the sampler and loader swapped."""
    said = run("examples/swap_sampler.py", ranks=2)
    assert "epoch 1: 100 samples, each once" in said


def test_the_index_example_runs():
    """Without arguments it makes files of its own."""
    assert "8 samples in 2 files" in run("examples/build_index.py")


def test_cells_of_anndata_files_are_one_sparse_matrix_a_batch():
    """Under 60 lines, those that write the files included; ``test_docs.py`` compares what it prints."""
    assert len((EXAMPLES / "anndata_cells.py").read_text().splitlines()) < 60
    page = (EXAMPLES.parent / "docs" / "howto" / "anndata.md").read_text()
    assert "examples/anndata_cells.py\n:language: python" in page
    assert "```sh\npython examples/anndata_cells.py\n```\n\n<!-- output -->" in page


def test_an_order_of_ones_own_resumes_on_other_ranks():
    """A reversed order in 15 lines: four samples on one rank, the rest on two."""
    source = (EXAMPLES / "reversed_order.py").read_text()
    lines = source[source.index("class ") : source.index("if __name__")].splitlines()
    assert len([line for line in lines if line.strip() and '"""' not in line]) <= 15
    assert (
        run("examples/reversed_order.py")
        == "rank 0 goes on with [5, 3, 1]\nrank 1 goes on with [4, 2, 0]\n"
    )


@pytest.mark.slow
def test_distributed_evaluation_is_exact():
    """103 samples over 4 ranks: torch counts one twice, both of our tails give the true figure."""
    said = run("examples/exact_evaluation.py", ranks=4)
    truth, torchs, exact, padded = (line[29:] for line in said.splitlines())
    assert truth.startswith("93 of 103 right: 90.2913%")
    assert exact == padded == truth
    assert torchs.startswith("93 of 104")
