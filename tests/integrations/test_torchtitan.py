"""torchtitan's loader protocol and its own checkpoint manager, in real processes."""

import itertools
import shutil

import pytest

pytest.importorskip("torchtitan")

from integrations.jobs import EXAMPLES, run
from torchtitan.components.dataloader import ParallelAwareDataloader

from globidx import ResumableDistributedSampler

EXAMPLE = EXAMPLES / "resume_torchtitan.py"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a job on two ranks that stopped in the middle of an epoch."""
    folder = tmp_path_factory.mktemp("saved")
    assert run(2, EXAMPLE, folder, 6) == "step 6: 48 samples, each once: True\n"
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "steps"), [(1, 54), (3, 22)])
def test_the_example_goes_on_on_any_number_of_ranks(saved, tmp_path, ranks, steps):
    """Saved by torchtitan's checkpoint manager in the background; each of the 240 samples is trained on once."""
    assert len(EXAMPLE.read_text().splitlines()) < 80
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    assert run(ranks, EXAMPLE, tmp_path) == f"step {steps}: 240 samples, each once: True\n"


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
