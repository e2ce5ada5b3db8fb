"""Collectives over ranks of their own: what each brings arrives as it was, and a world of one needs nobody."""

import time

import pytest
from processes import run_ranks

from globidx.torch.ranks.channel import Channel


def all_collectives(rank, world_size):
    """Each collective once, with payloads of other sizes on every rank, one of them empty."""
    channel = Channel.of("test", None)
    assert channel.take(10)
    channel.meet("test", 60)
    payload = bytes([rank]) * (3 * rank)
    sizes = [3 * other for other in range(world_size)]
    results = {
        "rows": channel.all_gather_row([rank, 10 * rank]),
        "all": channel.all_gather(payload, sizes),
        "gathered": channel.gather(payload, sizes),
        "broadcast": channel.broadcast(b"from 0" if rank == 0 else b"", 6),
        "most": channel.all_reduce_max(rank),
        "shared": Channel.of("test", None) is channel,
        "apart": Channel.of("other", None) is channel,
    }
    asked = time.monotonic()
    results["again"] = channel.take(30), time.monotonic() - asked < 15
    channel.barrier()
    channel.release()
    return results


@pytest.mark.slow
def test_every_rank_has_what_all_brought():
    """Rank 0 alone has what is gathered; one purpose shares one channel; a thread takes it once, and is told so at once."""
    for rank, found in enumerate(run_ranks(3, all_collectives)):
        everything = [b"", b"\1" * 3, b"\2" * 6]
        assert found == {
            "rows": [[0, 0], [1, 10], [2, 20]],
            "all": everything,
            "gathered": everything if rank == 0 else [],
            "broadcast": b"from 0",
            "most": 2,
            "shared": True,
            "apart": False,
            "again": (False, True),
        }


def test_without_a_process_group_it_is_a_world_of_one():
    """Nothing is sent."""
    channel = Channel.of("test", None)
    assert (channel.is_alone, channel.rank, channel.world_size) == (True, 0, 1)
    assert channel.all_gather_row([7]) == [[7]]
    assert channel.all_gather(b"a", [1]) == channel.gather(b"a", [1]) == [b"a"]
    assert channel.broadcast(b"a", 1) == b"a"
    assert channel.all_reduce_max(3) == 3
    channel.barrier()
