"""Set-up of all tests: they can import the modules of this folder and of ``tools/``. Nothing here needs torch, zarr or h5py."""

import os
import re
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

# A forked worker that has to import this first may find the import lock broken.
import numpy.random  # noqa: F401
from hypothesis import HealthCheck, settings

import globidx

TESTS = Path(__file__).parent
_ON_PURPOSE = {"PYTHONHOME", "PYTHON_GIL", "GLOBIDX_SIMULATION_SEEDS"}
_REPOSITORY = TESTS.parent
_TOOLS = _REPOSITORY / "tools"
# The repository is first, so that a spawned process finds what a test module defines by its full name.
_HELPERS = [
    TESTS,
    *(
        TESTS / name
        for name in ("simulation", "faults", "fuzz", "layouts", "integrations", "recipes")
    ),
    _TOOLS,
    _TOOLS / "bench",
]
sys.path[:0] = [str(folder) for folder in [_REPOSITORY, *_HELPERS]]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # many processes on few cores
# Processes that multiprocessing starts inherit the environment: a developer's shell must not change what they do.
for name in [
    name
    for name in os.environ
    if name.startswith(("PYTHON", "GLOBIDX_")) and name not in _ON_PURPOSE
]:
    del os.environ[name]
# A job in a shell's background ignores SIGINT, and so would its children: they could not be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "globidx",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.register_profile(
    "search", settings.get_profile("globidx"), derandomize=False, max_examples=2000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "globidx"))

# The folder tests/torch is found, too, as a package without a file of its own.
_HAS_TORCH = getattr(find_spec("torch"), "origin", None) is not None
_OF_TORCH = [name for name, home in globidx._HOMES.items() if home.startswith("globidx.torch")]
_NEEDS_TORCH = re.compile(
    rf"^ *import torch|^ *from torch|globidx\.torch|torch\.utils|\b({'|'.join(_OF_TORCH)})\b",
    re.MULTILINE,
)
# Helpers in this folder whose import imports torch, and so the tests that use them.
_IMPORTS_TORCH = re.compile(
    rf"^from globidx import (\([^)]*|.*)\b({'|'.join(_OF_TORCH)})\b|^import torch|^from torch",
    re.MULTILINE,
)
_HELPERS_OF_TORCH = [
    path.stem for path in TESTS.glob("*.py") if _IMPORTS_TORCH.search(path.read_text())
]
_USES_HELPER = re.compile(rf"^from ({'|'.join(_HELPERS_OF_TORCH)}) import", re.MULTILINE)


def _uses_torch(text):
    return _NEEDS_TORCH.search(text) or _USES_HELPER.search(text)


def pytest_ignore_collect(collection_path):
    """Files of tests that use torch are left out where it is not installed: ``tox -e core``, and newer Pythons."""
    is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if is_test and not _HAS_TORCH and _uses_torch(collection_path.read_text()) else None
