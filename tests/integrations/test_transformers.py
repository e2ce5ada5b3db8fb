"""``ResumableTrainerMixin``: what a job of transformers' Trainer sees, in real processes."""

import json
import shutil

import pytest

pytest.importorskip("transformers")

import torch
from integrations.jobs import EXAMPLES, lines, run, times_seen
from transformers import Trainer, TrainingArguments

from globidx.errors import RecordError
from globidx.integrations.transformers import ResumableTrainerMixin

SAMPLES, BATCH, EPOCHS = 205, 4, 3


class MyTrainer(ResumableTrainerMixin, Trainer):
    pass


def trainer_over(folder, trainer=MyTrainer, **arguments):
    """A trainer in this process."""
    args = TrainingArguments(str(folder), use_cpu=True, report_to="none", **arguments)
    return trainer(torch.nn.Linear(1, 1), args, train_dataset=[{"x": 0.0}] * 10)


@pytest.fixture(scope="module", params=[1, 3])
def saved(request, tmp_path_factory):
    """(accumulation, the folder of a job on two ranks that was saved in the middle of its second epoch)."""
    folder = tmp_path_factory.mktemp("saved")
    # 26 batches an epoch, 9 steps where 3 are one
    stop_at = 35 if request.param == 1 else 12
    run(2, "transformers_job.py", folder, SAMPLES, BATCH, EPOCHS, stop_at, request.param, 0)
    return request.param, folder


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "ignore_data_skip"), [(1, 0), (2, 1), (3, 0)])
def test_a_run_goes_on_on_any_number_of_processes(saved, tmp_path, ranks, ignore_data_skip):
    """Each id is seen once an epoch, repeated only as padding; the schedule has the steps that are made."""
    accumulate, folder = saved
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    arguments = (SAMPLES, BATCH, EPOCHS, 0, accumulate, ignore_data_skip)
    run(ranks, "transformers_job.py", tmp_path, *arguments)
    everything = times_seen(lines(tmp_path))
    assert sorted(everything) == list(range(EPOCHS))
    for epoch, seen in everything.items():
        assert set(seen) == set(range(SAMPLES))
        # epoch 0 was padded for the two ranks that read it
        assert seen.total() - SAMPLES < (ranks if epoch > 0 else 2)
    counts = json.loads((tmp_path / "counts-1.json").read_text())
    assert counts["step"] == counts["max_steps"]


def test_a_checkpoint_without_a_record_is_refused(tmp_path):
    """That of a plain Trainer does not say which samples are done; to guess would lose some."""
    (tmp_path / "checkpoint-1").mkdir()
    trainer = trainer_over(tmp_path)
    trainer._resumed_from = str(tmp_path / "checkpoint-1")
    with pytest.raises(RecordError, match=r"checkpoint-1/globidx.json does not exist"):
        trainer.get_train_dataloader()
    (tmp_path / "checkpoint-1" / "globidx.json").write_text('{"epoch": ')
    with pytest.raises(RecordError, match=r"checkpoint-1/globidx.json is no record: "):
        trainer.get_train_dataloader()


def test_what_would_deal_samples_otherwise_is_refused(tmp_path):
    """Accelerate's settings, and a sampler that cannot resume."""

    class Shuffled(MyTrainer):
        def _get_train_sampler(self, train_dataset=None):
            return torch.utils.data.RandomSampler(train_dataset)

    with pytest.raises(TypeError, match="_get_train_sampler must return a Resumable"):
        trainer_over(tmp_path, Shuffled).get_train_dataloader()
    split = trainer_over(tmp_path, accelerator_config={"split_batches": True})
    with pytest.raises(ValueError, match="split_batches=True deals one batch to all ranks"):
        split.get_train_dataloader()


@pytest.mark.slow
def test_the_example_goes_on_where_it_was_stopped(tmp_path):
    """5 steps of two ranks are 40 of 100 samples; three ranks read the other 60 in 5 steps, and the next epoch in 9."""
    example = EXAMPLES / "resume_transformers.py"
    assert len(example.read_text().splitlines()) < 80
    assert run(2, example, tmp_path / "run").endswith("5 of 26 steps\n")
    assert run(3, example, tmp_path / "run").endswith("19 of 19 steps\n")
