"""Who am I: groups, meshes and environments, with real process groups."""

import os

import pytest
from processes import run_ranks

from globidx import ResumableDistributedSampler


def late(rank, world_size):
    """Built before init_process_group would be asked; read after it."""
    sampler = ResumableDistributedSampler(range(10), shuffle=False)
    return sampler.rank, sampler.num_replicas, list(sampler)


@pytest.mark.slow
def test_the_default_group_is_asked_when_it_is_there():
    """Rank and world size are those of the process group, though nobody passed them."""
    assert run_ranks(2, late) == [(0, 2, [0, 2, 4, 6, 8]), (1, 2, [1, 3, 5, 7, 9])]


def on_meshes(rank, world_size):
    """dp x tp on four ranks, a mesh of two data-parallel dimensions, and a group."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    both = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp_replicate", "dp_shard"))
    groups = [dist.new_group([0, 2]), dist.new_group([1, 3])]
    made = [
        ResumableDistributedSampler(range(8), shuffle=False, mesh=mesh["dp"]),
        ResumableDistributedSampler(range(8), shuffle=False, group=mesh.get_group("dp")),
        ResumableDistributedSampler(range(8), shuffle=False, mesh=both),
        ResumableDistributedSampler(range(8), shuffle=False, group=groups[rank % 2]),
    ]
    return [(s.rank, s.num_replicas, list(s)) for s in made]


@pytest.mark.slow
def test_tensor_parallel_peers_read_the_same_and_data_parallel_ones_do_not():
    """mesh= takes one dimension or several, counted row by row; group= any group."""
    halves = [(0, 2, [0, 2, 4, 6]), (1, 2, [1, 3, 5, 7])]
    for rank, (dp, group, both, other) in enumerate(run_ranks(4, on_meshes)):
        assert dp == group == halves[rank // 2]
        assert both == (rank, 4, [rank, rank + 4])
        assert other == halves[rank // 2]


def test_torchruns_environment_counts_before_there_is_a_group(monkeypatch):
    """And a rank outside its world is refused when it is first needed."""
    monkeypatch.setitem(os.environ, "RANK", "3")
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "3")
    sampler = ResumableDistributedSampler(range(10))
    with pytest.raises(ValueError, match=r"rank must be in \[0, 3\), got 3"):
        len(sampler)
