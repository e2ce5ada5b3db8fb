"""``dcp.ResumableState``: what a job that saves by torch.distributed.checkpoint sees, in real processes."""

import itertools

import pytest
from integrations.jobs import lines, run, times_seen

SAMPLES, EPOCHS = 203, 3
CASES = ["-".join(case) for case in itertools.product(("save", "async"), ("pad", "exact"), ("even", "ahead"))]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a job on two ranks that saved every case in the middle of its second epoch."""
    folder = tmp_path_factory.mktemp("saved")
    run(2, "dcp_job.py", folder, "save", *CASES)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_run_goes_on_on_any_number_of_ranks(saved, ranks):
    """By save and async_save, from even and uneven ranks: all ids of each epoch are seen, repeated only as padding."""
    run(ranks, "dcp_job.py", saved, "load", *CASES)
    for case in CASES:
        everything = times_seen(
            [line for rank in range(2) for line in lines(saved / case, "save", rank)]
            + [line for rank in range(ranks) for line in lines(saved / case, "load", rank)]
        )
        assert sorted(everything) == list(range(EPOCHS))
        for epoch, seen in everything.items():
            assert set(seen) == set(range(SAMPLES)), (case, epoch)
            padding = seen.total() - SAMPLES
            assert padding == 0 if "exact" in case else padding < (ranks if epoch else 2), (case, epoch)
