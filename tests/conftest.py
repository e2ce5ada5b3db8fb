"""Set-up of all tests: they can import the modules of this folder and of ``tools/``. Nothing here needs torch, zarr or h5py."""

import os
import signal
import sys
from pathlib import Path

# A forked worker that has to import this first may find the import lock broken.
import numpy.random  # noqa: F401
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent
_ON_PURPOSE = {"PYTHONHOME", "GLOBIDX_SIMULATION_SEEDS"}
_TOOLS = TESTS.parent / "tools"
sys.path[:0] = [str(TESTS), str(TESTS / "simulation"), str(_TOOLS), str(_TOOLS / "bench")]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # many processes on few cores
# Processes that multiprocessing starts inherit the environment: a developer's shell must not change what they do.
for name in [name for name in os.environ if name.startswith(("PYTHON", "GLOBIDX_")) and name not in _ON_PURPOSE]:
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
settings.register_profile("search", settings.get_profile("globidx"), derandomize=False, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "globidx"))
