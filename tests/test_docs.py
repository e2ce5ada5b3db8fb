"""Everything that the README and the pages of docs/ print runs, links lead somewhere, and pictures are what the code draws."""

import ast
import doctest
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from files import environment, write_hdf5, write_zarr

import globidx

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LINKED = [*PAGES, *(ROOT / f"{name}.md" for name in ("ARCHITECTURE", "CONTRIBUTING", "SECURITY"))]
#: What a fence may say: `py` is code of another library and `console` needs a cluster or a network, so neither runs.
LANGUAGES = {"python", "py", "sh", "console", "text", "diff"}
NOT_RUN = ("sbatch ", "pip install ")
ELLIPSIS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def name_of(page):
    """A page as its test is called."""
    return str(page.relative_to(ROOT))


class Block(NamedTuple):
    """A fenced block of a page: its language, its text, its first line's number, and the line above the fence."""

    language: str
    text: str
    line: int
    above: str


def blocks(page):
    """The fenced blocks of a page, directives included, in their sequence."""
    lines = page.read_text().split("\n")
    found, fence = [], None
    for number, line in enumerate(lines):
        if fence is None and line.startswith("```"):
            fence = number
        elif fence is not None and line == "```":
            text = "\n".join(lines[fence + 1 : number]) + "\n"
            found.append(Block(lines[fence][3:], text, fence + 2, lines[fence - 1]))
            fence = None
    assert fence is None, f"{page}: the fence in line {fence} is never closed"
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that pages run in: data/ holds three files with images and labels, examples/ the examples."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "data").mkdir()
    random = np.random.default_rng(0)
    for number, write in enumerate((write_zarr, write_zarr, write_hdf5)):
        arrays = {
            "images": random.random((40, 4, 4)).astype("f4"),
            "labels": random.integers(0, 2, 40),
        }
        suffix = "h5" if write is write_hdf5 else "zarr"
        write(tmp_path / "data" / f"part-{number}.{suffix}", arrays, chunk=8)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_shell(block, folder):
    """What a shell block prints; each of its commands must succeed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=folder,
        env=environment({"PATH": path}),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, f"line {block.line}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_python(block, names, page, folder):
    """Run a block: a dialogue is a doctest, one that begins with a file's name is written there, all else is run."""
    if named := re.match(r"# (\w+\.py)\n", block.text):
        ast.parse(block.text)
        (folder / named[1]).write_text(block.text)
    elif ">>>" in block.text:
        parsed = doctest.DocTestParser().get_doctest(
            block.text, names, name_of(page), str(page), block.line - 1
        )
        failures = []
        doctest.DocTestRunner(optionflags=ELLIPSIS).run(
            parsed, out=failures.append, clear_globs=False
        )
        assert not failures, "".join(failures)
        names |= parsed.globs
    else:
        # loader workers are tested elsewhere: here only the lines are
        text = re.sub(r"num_workers=\d+", "num_workers=0", block.text)
        exec(compile("\n" * (block.line - 1) + text, str(page), "exec"), names)


def run_page(page, folder):
    """All blocks of a page, as one script; the names that it leaves. The tutorial writes data of its own."""
    if page.name == "tutorial.md":
        shutil.rmtree(folder / "data")
    trained = []
    names = {"__name__": "__main__", "train": trained.append, "trained": trained}
    printed = None
    for block in blocks(page):
        if block.language == "python":
            run_python(block, names, page, folder)
        elif block.language == "sh" and not re.fullmatch(
            "<!-- (first|second) command -->", block.above
        ):
            printed = run_shell(block, folder)
        elif block.language == "text" and block.above == "<!-- output -->":
            matches = doctest.OutputChecker().check_output(block.text, printed, ELLIPSIS)
            assert matches, f"{page}, line {block.line}: printed was\n{printed}"
    return names


RUN = [page for page in PAGES if {"python", "sh"} & {block.language for block in blocks(page)}]


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it
@pytest.mark.parametrize("page", [page for page in RUN if page.name != "tutorial.md"], ids=name_of)
def test_what_a_page_prints_runs(page, folder):
    """Each page as one script in a folder of its own, its shell lines and outputs included."""
    run_page(page, folder)


@pytest.mark.slow
def test_the_tutorial_ends_as_it_says(folder):
    """From files to a resumed run, as printed; 20 s, since torchrun starts two ranks, then three, each with two workers."""
    page = DOCS / "tutorial.md"
    run_page(page, folder)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_does_not_run_is_marked_and_has_a_reason(page):
    """`py` is or needs another library, as in pages on migration, trainers and recipes; `console` needs a cluster or a network."""
    for block in blocks(page):
        if block.language.startswith("{"):
            continue
        assert block.language in LANGUAGES, f"{page}, line {block.line}: {block.language!r}"
        if block.language == "py":
            assert page.parent.name in ("migrate", "trainers", "recipes"), (
                f"{page}, line {block.line}"
            )
        if block.language == "console":
            assert all(line.startswith(NOT_RUN) for line in block.text.splitlines()), (
                f"{page}, line {block.line}"
            )


def anchors(page):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    text = re.sub(r"```.*?\n```", "", page.read_text(), flags=re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_lead_somewhere(page):
    """Files and headings, from where the page lies; links to other sites are not followed."""
    text = re.sub(r"```.*?\n```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), f"{page} leads to {target}, which is not there"
        assert not anchor or anchor in anchors(to), (
            f"{page} leads to {target}, but there is no such heading"
        )


def test_files_that_pages_show_are_there():
    """`literalinclude` and `include` of a page lead to a file, relative to the page."""
    shown = [
        (page, block) for page in PAGES for block in blocks(page) if "include}" in block.language
    ]
    assert shown
    for page, block in shown:
        assert (page.parent / block.language.split()[1]).exists(), f"{page}, line {block.line}"


def test_the_readme_fits_two_pages_and_names_all_that_is_public():
    """At most 120 lines, with each name of ``globidx.__all__`` in its table."""
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 120
    rows = re.findall(r"^\| (`.*?) \| ", readme, re.MULTILINE)
    named = {
        name.removeprefix("globidx.") for row in rows for name in re.findall(r"`([\w.]+)`", row)
    }
    assert named >= set(globidx.__all__)


def test_the_reference_describes_all_that_is_public():
    """Each name of ``globidx.__all__`` and of the modules among them has an entry."""
    pages = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    described = set(
        re.findall(r"^\.\. (?:auto\w+|py:data):: globidx\.([\w.]+)", pages, re.MULTILINE)
    )
    for name in globidx.__all__:
        value = getattr(globidx, name)
        if inspect.ismodule(value):
            classes = [
                part
                for part, held in vars(value).items()
                if getattr(held, "__module__", "") == value.__name__
            ]
            names = {f"{name}.{part}" for part in getattr(value, "__all__", classes)}
        else:
            names = {name}
        assert names <= described, names - described


def test_the_pictures_are_what_the_code_draws(monkeypatch):
    """Every SVG of docs/figures is written by draw.py, byte for byte."""
    figures = DOCS / "figures"
    monkeypatch.syspath_prepend(str(figures))
    import draw

    drawn = {f"{figure.__name__}.svg": figure().svg() for figure in draw.FIGURES}
    assert drawn == {path.name: path.read_text() for path in figures.glob("*.svg")}
    shown = "".join(page.read_text() for page in PAGES)
    assert all(f"figures/{name}" in shown for name in drawn)


def test_the_loop_of_the_readme_trains_on_every_sample(folder):
    """Ten epochs over 80 samples, none left out."""
    names = run_page(ROOT / "README.md", folder)
    assert sum(map(len, names["trained"])) == 10 * 80
