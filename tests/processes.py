"""Processes that tests start: their environment, and real ranks.

``run_ranks`` runs a function in every rank of a gloo process group, each in its own process.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

REPOSITORY = Path(__file__).parent.parent
_SPAWN = multiprocessing.get_context("spawn")
#: Numbers of the meetings of this process's job.
_meetings = count()
#: Variables that a process needs on this machine. Those of Python, globidx or a scheduler are not among them, since
#: they change what is tested: PYTHONUNBUFFERED, for example, hides what happens to buffered output.
_OF_THE_MACHINE = {
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "PATH",
    # of a free-threaded Python, which a child has to be as well
    "PYTHON_GIL",
    "TMPDIR",
    "XDG_CACHE_HOME",
}


def clean_environment(**more):
    """The environment of a process that a test starts: what the machine needs, PYTHONPATH, and ``more``.

    A value of None leaves a variable out.
    """
    given = {name: value for name, value in os.environ.items() if name in _OF_THE_MACHINE}
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    given |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, **more}
    return {name: value for name, value in given.items() if value is not None}


def torchrun(ranks, *arguments):
    """The command line of a job of so many processes on this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    return [*launcher, "--standalone", f"--nproc-per-node={ranks}", *map(str, arguments)]


def run_ranks(world_size, work, *arguments, timeout=120, lost=(), meeting=None):
    """The results of ``work(rank, world_size, *arguments)`` on every rank, in rank order; an exception fails the test.

    The ranks in ``lost`` return nothing: they kill or stop themselves. The process group is initialised by a file, or
    by the URL ``meeting``.
    """
    queue = _SPAWN.Queue()
    with TemporaryDirectory() as folder:
        meeting = meeting or f"file://{Path(folder, 'meeting')}"
        ranks = [
            _SPAWN.Process(target=_rank, args=(rank, world_size, meeting, queue, work, arguments))
            for rank in range(world_size)
        ]
        for process in ranks:
            process.start()
        try:
            results = dict(queue.get(timeout=timeout) for _ in range(world_size - len(lost)))
        finally:
            for rank, process in enumerate(ranks):
                process.join(timeout=0 if rank in lost else 10)
                process.kill()
    failed = [
        result["failed"]
        for result in results.values()
        if isinstance(result, dict) and "failed" in result
    ]
    assert not failed, failed[0]
    return [results[rank] for rank in range(world_size) if rank not in lost]


def _rank(rank, world_size, meeting, queue, work, arguments):
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    try:
        queue.put((rank, work(rank, world_size, *arguments)))
    except BaseException:  # noqa: BLE001 - the parent raises it
        queue.put((rank, {"failed": traceback.format_exc()}))
    finally:
        dist.destroy_process_group()


def meet() -> None:
    """Wait for all ranks of a job, by the store of torchrun's agent: a rank that leaves aborts a barrier of gloo."""
    import torch.distributed as dist

    if dist.is_initialized():
        store = dist.distributed_c10d._get_default_store()
        here = f"meeting {next(_meetings)}"
        if store.add(here, 1) == dist.get_world_size():
            store.set(f"{here} is over", "")
        store.wait([f"{here} is over"])


def leave() -> NoReturn:
    """End this process once all ranks of its job are as far."""
    meet()
    sys.stdout.flush()
    sys.stderr.flush()
    # nothing that torch or a framework has left running can hold up or abort such an exit
    os._exit(0)
