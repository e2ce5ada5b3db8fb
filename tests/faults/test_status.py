"""A rank that cannot make its part says so first: without that, the others would wait for it."""

from __future__ import annotations

import pytest
from processes import run_ranks

pytestmark = pytest.mark.slow


def save_with_a_bad_rank(rank, world_size, folder, mistaken):
    """Rank 1's extras are no JSON; what save() said on each rank."""
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
    except Exception as error:
        return type(error).__name__, str(error)


@pytest.mark.parametrize("mistaken", [False, True], ids=["as it is", "no status exchange"])
def test_a_rank_that_fails_before_the_gather_is_named_on_every_rank(tmp_path, mistaken):
    """All raise the same, naming rank 1 and its reason; with the exchange taken out rank 0 only knows that it waited."""
    said = run_ranks(2, save_with_a_bad_rank, tmp_path, mistaken)
    agreed = said[0] == said[1] and said[0][1].startswith("rank 1: extras")
    assert agreed != mistaken, said
    assert len(list(tmp_path.iterdir())) == 1
