"""torchtitan's loader protocol and its own checkpoint manager, in real processes."""

import itertools
import shutil

import pytest

pytest.importorskip("torchtitan")

from integrations.jobs import EXAMPLES, run
from torchtitan.components.dataloader import ParallelAwareDataloader

from globidx import ResumableDistributedSampler

EXAMPLE = EXAMPLES / "resume_torchtitan.py"


@pytest.mark.slow
def test_the_example_goes_on_on_any_number_of_ranks(tmp_path):
    """Saved on two by torchtitan's checkpoint manager in the background; each of the 240 samples is trained on once."""
    assert len(EXAMPLE.read_text().splitlines()) < 80
    saved = tmp_path / "saved"
    assert run(2, EXAMPLE, saved, 6) == "step 6: 48 samples, each once: True\n"
    for ranks, steps in ((1, 54), (3, 22)):
        folder = shutil.copytree(saved, tmp_path / f"on {ranks}")
        assert run(ranks, EXAMPLE, folder) == f"step {steps}: 240 samples, each once: True\n"


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it
def test_its_own_loader_goes_on_with_as_many_ranks_and_refuses_others():
    """What the page says of it: a state a rank."""

    def loader(rank, ranks):
        sampler = ResumableDistributedSampler(range(40), ranks, rank)
        return ParallelAwareDataloader(range(40), rank, ranks, batch_size=4, sampler=sampler)

    ids = []
    for rank in range(2):
        before, after = loader(rank, 2), loader(rank, 2)
        for batch in itertools.islice(before, 2):
            ids += batch.tolist()
        state = before.state_dict()
        after.load_state_dict(state)
        ids += [id for batch in after for id in batch.tolist()]
    assert sorted(ids) == list(range(40))
    assert sorted(state) == ["dp_rank_1", "world_size"]
    with pytest.raises(AssertionError, match="resharding is not supported"):
        loader(1, 3).load_state_dict(state)
