"""``ResumableSamplerCallback`` of Composer: what a Trainer trains on, in real processes and in this one."""

from collections import Counter

import pytest

pytest.importorskip("composer")

import torch
from composer import ComposerModel, Trainer
from composer.callbacks import CheckpointSaver
from integrations.legs import assert_exact, run_legs
from torch.utils.data import Dataset

from globidx import DataLoader, ResumableDistributedSampler
from globidx.integrations.composer import ResumableSamplerCallback

pytestmark = pytest.mark.filterwarnings("ignore")


class Samples(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, id):
        return torch.tensor([float(id)])


class Model(ComposerModel):
    """Notes the ids that it is trained on."""

    def __init__(self):
        super().__init__()
        self.inner, self.seen = torch.nn.Linear(1, 1), []

    def forward(self, batch):
        self.seen += map(int, batch.flatten())
        return self.inner(batch)

    def loss(self, outputs, batch):
        return outputs.mean()


def trainer_over(sampler, loader=None, **arguments):
    """A trainer of ten samples in this process."""
    model = Model()
    return Trainer(
        model=model,
        train_dataloader=loader or DataLoader(sampler.dataset, 2, sampler=sampler),
        optimizers=torch.optim.SGD(model.parameters(), lr=1e-9),
        callbacks=[ResumableSamplerCallback(sampler)],
        device="cpu",
        progress_bar=False,
        **arguments,
    )


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The folder of a job that was saved on two ranks in the middle of an epoch, and resumed."""
    folder = tmp_path_factory.mktemp("composer")
    run_legs("composer_job", folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_run_goes_on_on_any_number_of_processes(job, ranks):
    """Composer skips no batches, draws none of the epochs before, and later epochs are whole."""
    assert_exact(job, ranks)


def test_a_run_that_is_fitted_again_goes_on_after_its_last_batch():
    """Composer leaves its loop at the batch that ends a fit, and would skip as many in the next."""
    trainer = trainer_over(ResumableDistributedSampler(Samples(), seed=7))
    trainer.fit(duration="3ba")
    assert len(trainer.state.model.seen) == 6
    trainer.fit(duration="7ba")
    assert Counter(trainer.state.model.seen) == dict.fromkeys(range(10), 2)


@pytest.mark.parametrize("batches", [3, 5])
def test_a_checkpoint_of_any_batch_goes_on_after_it(tmp_path, batches):
    """Also that of an epoch's last batch, saved before Composer has counted the epoch."""
    before = trainer_over(
        ResumableDistributedSampler(Samples(), seed=7),
        save_folder=str(tmp_path),
        save_interval="1ba",
        max_duration="2ep",
    )
    before.fit()
    for callback in before.state.callbacks:
        # a folder that it never removes, which Python warns of
        if isinstance(callback, CheckpointSaver):
            callback.tmp_dir_for_symlink.cleanup()
    after = trainer_over(
        ResumableDistributedSampler(Samples(), seed=7),
        load_path=str(tmp_path / f"ep0-ba{batches}-rank0.pt"),
        max_duration="2ep",
    )
    after.fit()
    assert after.state.model.seen == before.state.model.seen[2 * batches :]


def test_a_loader_that_cannot_resume_is_refused():
    """Another class, another sampler, and ranks that may have a batch more than others."""
    sampler = ResumableDistributedSampler(Samples())
    plain = torch.utils.data.DataLoader(Samples(), 2, sampler=sampler)
    with pytest.raises(ValueError, match="training reads a DataLoader, and ResumableSampler"):
        trainer_over(sampler, plain, max_duration="1ep").fit()
    other = DataLoader(Samples(), 2, sampler=ResumableDistributedSampler(Samples()))
    with pytest.raises(ValueError, match="over the sampler that it was given"):
        trainer_over(sampler, other, max_duration="1ep").fit()
    exact = ResumableDistributedSampler(Samples(), 2, 0, tail="exact")
    with pytest.raises(ValueError, match="tail='exact' may give one rank a batch more"):
        trainer_over(exact, max_duration="1ep").fit()
    with pytest.raises(TypeError, match="resumes a ResumableDistributedSampler, got a range"):
        ResumableSamplerCallback(range(10))
