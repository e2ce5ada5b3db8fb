"""Legs in processes of their own, started by what torchrun starts them with.

A process is forked from one that has imported all frameworks, so that a leg takes half a second.
"""

import signal
from importlib import import_module
from multiprocessing import set_forkserver_preload
from pathlib import Path

from matrix.leg import Leg

#: A leg takes seconds; one that takes longer waits for a rank that has stopped.
SECONDS = 120


def preload(modules: list[str]) -> None:
    """Import ``modules`` once, before the first leg, and what the first step of an optimizer imports."""
    set_forkserver_preload(["torch._dynamo", *modules])


def run(way: str, ranks: int, checkpoint: Path, seen: Path, resumes: bool) -> None:
    """Run ``way``, the full name of a function, on so many ranks; each writes to ``seen`` what it trains on.

    Raises
    ------
    RuntimeError
        If a rank failed, with what it wrote to stderr.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logs = seen / "logs"
    for folder in (checkpoint, logs):
        folder.mkdir(parents=True, exist_ok=True)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id="leg",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        start_method="forkserver",
        max_restarts=0,
        monitor_interval=0.05,
        logs_specs=DefaultLogsSpecs(str(logs), redirects=Std.ALL),
    )
    try:
        elastic_launch(config, rank_main)(way, checkpoint, seen, resumes)
    except ChildFailedError as error:
        said = [path.read_text()[-3000:] for path in sorted(logs.rglob("stderr.log"))]
        raise RuntimeError("\n".join([f"{way} failed on {ranks} ranks", *said])) from error


def rank_main(way: str, checkpoint: Path, seen: Path, resumes: bool) -> None:
    """One rank of a leg."""
    import torch
    import torch.distributed as dist

    # the default action ends the process: a rank in a collective would not see an exception
    signal.alarm(SECONDS)
    torch.manual_seed(0)
    module, _, function = way.rpartition(".")
    getattr(import_module(module), function)(Leg(checkpoint, seen, resumes))
    # no rank ends while another one still talks to it; the group itself is left to the end of the process
    if dist.is_initialized():
        dist.monitored_barrier()
