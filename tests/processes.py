"""Real ranks: a function run by every rank of a gloo process group, each in its own process."""

from __future__ import annotations

import multiprocessing
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory

_SPAWN = multiprocessing.get_context("spawn")


def run_ranks(world_size, work, *arguments, timeout=120, lost=(), meeting=None):
    """``work(rank, world_size, *arguments)`` of every rank, in rank order; an exception of any rank fails the test.

    The ranks in ``lost`` never answer: they kill or stop themselves. They meet in a file, or at the URL ``meeting``.
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
    failed = [result["failed"] for result in results.values() if isinstance(result, dict) and "failed" in result]
    assert not failed, failed[0]
    return [results[rank] for rank in range(world_size) if rank not in lost]


def _rank(rank, world_size, meeting, queue, work, arguments):
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    try:
        queue.put((rank, work(rank, world_size, *arguments)))
    except BaseException:
        queue.put((rank, {"failed": traceback.format_exc()}))
    finally:
        dist.destroy_process_group()
