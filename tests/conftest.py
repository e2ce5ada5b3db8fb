"""Shared set-up: modules of this folder can be imported by every test."""

import os
import signal
import sys
from pathlib import Path

import numpy.random  # noqa: F401 - a forked worker that has to import it first may find the import lock broken
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent
_ON_PURPOSE = {"PYTHONHOME", "GLOBIDX_SIMULATION_SEEDS"}
sys.path[:0] = [str(TESTS), str(TESTS / "simulation"), str(TESTS.parent / "tools" / "bench")]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # many processes on few cores
# nor do processes that multiprocessing starts, which inherit these, behave as a developer's shell says
for name in [name for name in os.environ if name.startswith(("PYTHON", "GLOBIDX_")) and name not in _ON_PURPOSE]:
    del os.environ[name]
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a shell's background job, whose children could not be interrupted
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "globidx",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.register_profile("search", settings.get_profile("globidx"), derandomize=False, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "globidx"))
