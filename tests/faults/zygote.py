"""A process that has imported everything, with the shim preloaded, and forks a child for each run.

So a run that is to be killed costs a few milliseconds. ``Zygote`` controls that process; ``python zygote.py`` is it.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from processes import clean_environment

HERE = Path(__file__).parent
TESTS = HERE.parent
# A planted mistake may replace os.write.
_write = os.write


def build_shim(folder):
    """Build the shim in a folder; None without Linux and a C compiler."""
    library = Path(folder, "shim.so")
    gcc = shutil.which("gcc") or shutil.which("cc")
    if not gcc or sys.platform != "linux":
        return None
    built = subprocess.run(
        [gcc, "-O1", "-shared", "-fPIC", "-o", library, HERE / "shim.c", "-ldl"],
        env=clean_environment(),
        capture_output=True,
        check=False,
    )
    return library if built.returncode == 0 else None


class Zygote:
    """Runs functions of ``writers`` and ``scenarios`` in forked children, one after the other."""

    def __init__(self, shim):
        path = os.pathsep.join(map(str, (TESTS.parent, TESTS, HERE)))
        # The folder in which writers.make_data has put the data files.
        data = os.environ.get("FAULTS_DATA")
        env = clean_environment(
            PYTHONPATH=path, LD_PRELOAD=str(shim), SHIM=str(shim), FAULTS_DATA=data
        )
        handle, self._trace = tempfile.mkstemp(prefix="globidx-trace-")
        os.close(handle)
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, work, folder, *, mode="", at=0, error=0, mutant=None):
        """Run ``work`` on ``folder`` in a child; a dict with its ``outcome``: returned, raised, killed or lost."""
        request = {
            "work": work,
            "folder": str(folder),
            "mode": mode,
            "at": at,
            "error": error,
            "mutant": mutant,
        }
        request["trace"] = self._trace
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the zygote is gone")
        return json.loads(line)

    def trace(self, work, folder, *, mutant=None):
        """The file operations of ``work``, which must succeed: each a list of words, the first one its index."""
        os.truncate(self._trace, 0)
        result = self.run(work, folder, mode="r", mutant=mutant)
        assert result.get("outcome") == "returned", result
        return [line.split("\t") for line in Path(self._trace).read_text().splitlines()]

    def close(self):
        """End the process."""
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()
        os.unlink(self._trace)


def serve():
    """Fork a child for each request on stdin, and write its outcome to stdout."""
    import mutants
    import scenarios
    import writers

    logging.disable()
    works = {**writers.RUNS, **scenarios.RUNS}
    shim = ctypes.CDLL(os.environ["SHIM"])
    for line in sys.stdin:
        request = json.loads(line)
        near, far = os.pipe()
        child = os.fork()
        if not child:
            os.close(near)
            result = _in_child(request, works, shim, mutants)
            _write(far, json.dumps(result).encode())
            os._exit(0)
        os.close(far)
        with open(near, "rb") as stream:
            result = stream.read()
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            result = b'{"outcome": "killed"}'
        print(result.decode() or json.dumps({"outcome": "lost", "status": status}), flush=True)


def _in_child(request, works, shim, mutants):
    """Do the work with a fault armed; the outcome as JSON values."""
    if request["mutant"]:
        mutants.MUTANTS[request["mutant"]]()
    trace = os.open(request["trace"], os.O_WRONLY | os.O_APPEND) if request["mode"] == "r" else -1
    if request["mode"]:
        shim.shim_arm(
            os.fsencode(request["folder"]),
            ord(request["mode"]),
            request["at"],
            request["error"],
            trace,
        )
    result = {"outcome": "returned"}
    try:
        result["value"] = works[request["work"]](
            Path(request["folder"]), lambda word: shim.shim_mark(word.encode())
        )
    except Exception as error:  # noqa: BLE001 - the parent judges it
        result = {"outcome": "raised", "type": type(error).__name__, "message": str(error)}
        result["state"] = getattr(error, "state", None)
    result["fired"] = bool(shim.shim_disarm())
    return result


if __name__ == "__main__":
    serve()
