"""A rank that cannot make its part of a record reports it before the gather: otherwise the others would wait for it."""

from __future__ import annotations

import pytest
from processes import run_ranks

pytestmark = pytest.mark.slow


def save_with_a_bad_rank(rank, world_size, folder, mistaken):
    """Save with extras on rank 1 that JSON cannot hold; what save() returned or raised on each rank."""
    from globidx import CheckpointManager, ResumableDistributedSampler
    from globidx.torch.ranks.agreement import Agreement

    if mistaken:  # the work is done before the others are asked how they are
        gather = Agreement.gather

        def gather_at_once(self, work):
            done = work()
            return gather(self, lambda: done)

        Agreement.gather = gather_at_once
    manager = CheckpointManager(folder, ResumableDistributedSampler(range(50)), timeout=10)
    manager.save(0)
    try:
        manager.save(1, extras={"x": object()} if rank else {})
        return "saved"
    except Exception as error:  # noqa: BLE001 - the test compares it over ranks
        return type(error).__name__, str(error)


@pytest.mark.parametrize("mistaken", [False, True], ids=["as it is", "no status exchange"])
def test_a_rank_that_fails_before_the_gather_is_named_on_every_rank(tmp_path, mistaken):
    """All ranks raise the same error, naming rank 1 and its reason; without the exchange rank 0 only times out."""
    results = run_ranks(2, save_with_a_bad_rank, tmp_path, mistaken)
    agreed = results[0] == results[1] and results[0][1].startswith("rank 1: extras")
    assert agreed != mistaken, results
    assert len(list(tmp_path.iterdir())) == 1
