"""The house stands: imports point down only, importing does nothing, and the public names are the documented ones."""

import ast
import configparser
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import house
import pytest
from processes import clean_environment

import globidx

PACKAGE = Path(globidx.__file__).parent
LAYERS = ["errors", "core", "disk", "torch", "top"]
TOP = {
    "__init__",
    "__main__",
    "cli",
    "collate",
    "integrations",
    "metrics",
    "mixture",
    "orders",
    "packing",
    "policies",
    "stream",
    "testing",
}
PURE = {
    "io",
    "os",
    "time",
    "logging",
    "random",
    "pathlib",
    "socket",
    "subprocess",
    "threading",
    "torch",
    "zarr",
    "h5py",
}


def layer_of(module):
    """Which layer a module of the package belongs to."""
    parts = module.split(".")
    if len(parts) == 1 or parts[1] in TOP:
        return "top"
    return parts[1]


def imports_of(path):
    """(module, names) of every import in a file, those inside functions too; imports for type checkers only are left out."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module, [alias.name for alias in node.names]


FILES = sorted(PACKAGE.rglob("*.py"))
IDS = [str(path.relative_to(PACKAGE)) for path in FILES]


def layer_of_path(inside):
    """The layer of a file by the first part of its path inside the package."""
    return Path(inside).parts[0]


CORE = [path for path in FILES if layer_of_path(path.relative_to(PACKAGE)) == "core"]


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_imports_point_down_only(path):
    """A module imports its own layer and those below; only the top sees everything."""
    module = ".".join(("globidx", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    )
    own = LAYERS.index(layer_of(module))
    for imported, names in imports_of(path):
        if imported.split(".")[0] != "globidx":
            continue
        for full in (
            [f"{imported}.{name}" for name in names] if imported == "globidx" else [imported]
        ):
            if full == "globidx.__version__" or (
                module == "globidx.orders" and full.startswith("globidx.torch")
            ):
                continue
            assert LAYERS.index(layer_of(full)) <= own, f"{module} imports {full}"


def a_circle_in(graph):
    """A list of nodes that each point to the next one, the last to the first; None if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def test_no_folder_has_more_than_thirteen_modules():
    """A listing fits a glance; ``__init__`` is not counted."""
    assert max(house.folder_sizes(PACKAGE).values()) <= 13


def test_no_module_imports_itself_by_way_of_others():
    """Imports form no circle, those inside functions included; those for type checkers only are left out."""
    assert a_circle_in(house.import_graph(PACKAGE)) is None


def test_arrows_between_folders_point_one_way():
    """If modules of one folder import from another, none of the other imports from the first, nor by way of a third."""
    assert a_circle_in(house.room_graph(PACKAGE)) is None


@pytest.mark.parametrize("layer", house.LAYERS)
def test_no_two_names_of_a_layer_are_taken_for_one_another(layer):
    """``index``, ``indexed`` and ``indexing`` are near-homonyms; the rule stands in ``tools/house.py``."""
    assert house.near_homonyms(house.names_of_layer(PACKAGE, layer)) == []


def test_comments_end_before_column_100():
    """Code may be 120 columns wide; a comment stands before its line, where there is room for the reason."""
    assert {
        str(path.relative_to(PACKAGE)): lines
        for path in FILES
        if (lines := house.long_comments(path))
    } == {}


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_core_is_pure(path):
    """No file, clock, environment, log or torch: stdlib arithmetic and numpy (os.path and os.fsencode spell names, no more)."""
    for imported, _ in imports_of(path):
        assert imported.split(".")[0] not in PURE - {"os"}, f"{path.name} imports {imported}"
    source = path.read_text()
    assert "open(" not in source
    assert not any(
        f"os.{name}" in source
        for name in ("environ", "stat", "listdir", "walk", "getpid", "getenv")
    )


def test_heavy_libraries_are_each_named_in_one_place():
    """torch only in its layer and the plugs, torch.distributed in two modules of the ranks, zarr too, and h5py in the room of HDF5 files."""
    homes = {}
    for path in FILES:
        inside = str(path.relative_to(PACKAGE))
        for imported, _ in imports_of(path):
            library = (
                "torch.distributed"
                if imported.startswith("torch.distributed")
                else imported.split(".")[0]
            )
            homes.setdefault(library, set()).add(inside)
    assert {layer_of_path(path) for path in homes["torch"]} - {"integrations"} == {"torch"}
    assert homes["torch.distributed"] == {"torch/ranks/world.py", "torch/ranks/channel.py"}
    assert homes["zarr"] == {"disk/stores/zarr/library.py"}
    elsewhere = {path for path in homes["h5py"] if not path.startswith("disk/stores/hdf5/")}
    assert elsewhere == {"disk/files/forks.py"}  # for the order of what runs before a fork


def test_no_attribute_is_computed_under_a_lock():
    """That of functools has one in Python 3.11, which a forked child may wait for for ever: ours has none."""
    for path in FILES:
        assert not any(
            module == "functools" and "cached_property" in names
            for module, names in imports_of(path)
        ), path


def test_importing_does_nothing():
    """import globidx loads none of its own modules, and opens no file but Python's."""
    program = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
import globidx
assert not [name for name in sys.modules if name.startswith("globidx.")], sys.modules
assert not {"torch", "numpy", "zarr", "h5py"} & set(sys.modules)
assert all(str(path).endswith((".py", ".pyc", ".pth")) or "__pycache__" in str(path) for path in opened), opened
"""
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        cwd=PACKAGE.parent,
        env=clean_environment(PYTHONDONTWRITEBYTECODE="1"),
    )


def test_public_names_are_the_documented_ones():
    """Every name of __all__ resolves and stands in the README, and nothing else is offered."""
    readme = (PACKAGE.parent / "README.md").read_text()
    for name in globidx.__all__:
        assert getattr(globidx, name) is not None
        assert f"`{name}`" in readme or f"`globidx.{name}`" in readme, (
            f"{name} is not in the README's table"
        )
    assert set(globidx.__all__) <= set(dir(globidx))
    with pytest.raises(AttributeError, match="no attribute 'Sampler'"):
        globidx.Sampler  # noqa: B018


def imported_names(tree):
    """Packages that a module imports, by a statement or by a call with their name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield ast.unparse(node.args[0]).lstrip("f").strip("'\"")


def test_what_is_imported_is_declared():
    """Every package that some module imports stands in setup.cfg, rather than come along with another one, or not."""
    config = configparser.ConfigParser()
    config.read(PACKAGE.parent / "setup.cfg")
    lines = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    declared = {
        re.split(r"[<>=\[; ]", line)[0].replace("-", "_").lower()
        for text in lines
        for line in text.split()
    }
    trees = [ast.parse(path.read_text()) for path in FILES]
    found = {name.partition(".")[0] for tree in trees for name in imported_names(tree)}
    found = {name for name in found if name.isidentifier()}  # and no expression
    found -= {
        *sys.stdlib_module_names,
        "globidx",
        "name",
        "tqdm",
    }  # a variable, and what is used where it is there
    # a package that its distribution calls otherwise
    found = {"mosaicml" if name == "composer" else name for name in found}
    assert {"numcodecs", "google_crc32c", "zarr", "h5py"} <= found
    assert found - declared == set()


def test_the_linter_of_a_commit_is_that_of_tox():
    """``.pre-commit-config.yaml`` pins the version of ruff that ``constraints.txt`` does, so that both judge alike."""
    hooks, constraints = (
        (PACKAGE.parent / name).read_text()
        for name in (".pre-commit-config.yaml", "constraints.txt")
    )
    pins = set(re.findall(r"\bruff==[\d.]+", hooks))
    assert pins == set(re.findall(r"\bruff==[\d.]+", constraints)) and len(pins) == 1


#: Modules without rules of their own: names that stand elsewhere.
DOORS = {
    f"globidx/{name}.py"
    for name in ("collate", "metrics", "mixture", "orders", "packing", "policies", "stream")
}


def test_every_module_has_a_test_of_its_own_name_where_it_lies():
    """``tests/disk/files/test_lock.py`` for ``globidx/disk/files/lock.py``: a reader finds the law beside the code."""
    tests = Path(__file__).parent
    lacking = []
    for path in PACKAGE.rglob("*.py"):
        inside = path.relative_to(PACKAGE)
        test = tests / inside.parent / f"test_{inside.stem}.py"
        if not inside.stem.startswith("__") and not test.exists():
            lacking.append(f"globidx/{inside}")
    assert set(lacking) == DOORS
