"""Records of runs, and what ``globidx record`` prints of them."""

from __future__ import annotations

import os

from globidx import CheckpointManager, ResumableDistributedSampler, merge_states
from globidx.cli import main


def said(capsys, *arguments, code=0):
    """What the command printed to stdout, and, where it failed, to stderr."""
    assert main(["record", *map(os.fspath, arguments)]) == code
    out, err = capsys.readouterr()
    assert bool(err) == bool(code) and err.count("\n") == bool(code)
    return out if not code else out + err


def saved(folder, *steps, keep_last=9, **arguments):
    """Records of a run that committed so many ids at each step; the sampler and the ids."""
    sampler = ResumableDistributedSampler(range(10), 1, 0, **arguments)
    manager = CheckpointManager(folder, sampler, keep_last=keep_last)
    ids = []
    for step, count in enumerate(steps, 1):
        sampler.commit(count)
        ids.append(manager.save(step, extras={"loss": 0.5}))
    return sampler, ids


def uneven(n=100, counts=(5, 2, 5), skip=()):
    """The merged state of ranks that have come differently far."""
    ranks = [
        ResumableDistributedSampler(range(n), len(counts), rank) for rank in range(len(counts))
    ]
    for rank, count in zip(ranks, counts, strict=True):
        rank.commit(count)
    ranks[0].skip(skip)
    return merge_states([rank.state_dict() for rank in ranks])
