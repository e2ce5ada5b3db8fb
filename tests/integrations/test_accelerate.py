"""``accelerate.prepare``: what a job of Accelerate sees, in real processes."""

import shutil

import pytest

pytest.importorskip("accelerate")

import torch
from accelerate import Accelerator, DataLoaderConfiguration, skip_first_batches
from integrations.jobs import EXAMPLES, lines, run, times_seen

from globidx import DataLoader, ResumableDistributedSampler
from globidx.errors import CommitError
from globidx.integrations.accelerate import PreparedLoader, prepare

# Two of three ranks are padded, each after other samples of its last batch: no cut at the end of what was
# gathered could drop that.
SAMPLES, BATCH, EPOCHS, ACCUMULATE = 205, 5, 3, 4


def loader_of(samples=10, batch=4, **arguments):
    """A loader over range(samples)."""
    sampler = ResumableDistributedSampler(range(samples), **arguments)
    return DataLoader(range(samples), batch, sampler=sampler)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a job on two ranks that was saved in the middle of its second epoch, and of an accumulation."""
    folder = tmp_path_factory.mktemp("saved")
    run(2, "accelerate_job.py", folder, SAMPLES, BATCH, EPOCHS, 35, ACCUMULATE, 0)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 2), (3, 0)])
def test_a_run_goes_on_on_any_number_of_ranks(saved, tmp_path, ranks, workers):
    """All ids of each epoch are seen, repeated only as padding, and gathered once; the last batch of each is applied."""
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    run(ranks, "accelerate_job.py", tmp_path, SAMPLES, BATCH, EPOCHS, 0, ACCUMULATE, workers)
    everything = times_seen(lines(tmp_path))
    assert sorted(everything) == list(range(EPOCHS))
    for epoch, seen in everything.items():
        assert set(seen) == set(range(SAMPLES))
        # epoch 0 was padded for the two ranks that read it
        assert seen.total() - SAMPLES < (ranks if epoch > 0 else 2)
    once = dict.fromkeys(range(SAMPLES), 1)
    gathered = lines(tmp_path, rank=0)
    assert times_seen(gathered, "gathered") == dict.fromkeys(range(EPOCHS), once)
    assert times_seen(gathered, "objects") == dict.fromkeys(range(EPOCHS), once)
    for rank in range(ranks):
        steps = [step["synced"] for step in lines(tmp_path, rank=rank) if step["epoch"] == 2]
        last = len(steps) - 1
        assert steps == [i % ACCUMULATE == ACCUMULATE - 1 or i == last for i in range(last + 1)]


def test_what_would_deal_samples_otherwise_is_refused():
    """split_batches, dispatch_batches, an uneven tail, another world, and loaders that do not count."""

    def accelerator(**settings):
        return Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(**settings))

    with pytest.raises(ValueError, match="split_batches=True deals one batch to all ranks"):
        prepare(accelerator(split_batches=True), loader_of())
    with pytest.raises(ValueError, match="dispatch_batches=True lets rank 0 read for all"):
        prepare(accelerator(dispatch_batches=True), loader_of())
    with pytest.raises(ValueError, match="even_batches=True asks for equally many samples"):
        prepare(accelerator(), loader_of(tail="exact"))
    with pytest.raises(ValueError, match=r"the sampler is rank 1 of 2, .* process 0 of 1"):
        prepare(accelerator(), loader_of(num_replicas=2, rank=1))
    with pytest.raises(TypeError, match="prepare takes a globidx.DataLoader"):
        prepare(accelerator(), torch.utils.data.DataLoader(range(10)))
    assert len(prepare(accelerator(even_batches=False), loader_of(tail="exact"))) == 3


def test_batches_that_would_be_skipped_are_refused():
    """After load_state the sampler starts where the record does; to skip again would lose samples."""
    accelerator = Accelerator(cpu=True)
    prepared = prepare(accelerator, loader_of())
    for skip in (skip_first_batches, accelerator.skip_first_batches):
        with pytest.raises(CommitError, match=r"skip_first_batches\(1\) over a Resumable"):
            next(iter(skip(prepared, 1)))
    with pytest.raises(CommitError, match="these batches would be lost"):
        next(iter(skip_first_batches(loader_of(), 1)))


@pytest.mark.slow
def test_a_loader_that_accelerate_deals_again_is_refused(tmp_path):
    """accelerator.prepare of such a loader would train on a half of the samples, silently."""
    script = tmp_path / "dealt_again.py"
    script.write_text(
        "from accelerate import Accelerator\n"
        "from processes import leave\n"
        "from globidx import DataLoader, ResumableDistributedSampler\n"
        "from globidx.errors import CommitError\n"
        "accelerator, sampler = Accelerator(cpu=True), ResumableDistributedSampler(range(10))\n"
        "loader = accelerator.prepare(DataLoader(range(10), 2, sampler=sampler))\n"
        "try:\n"
        "    next(iter(loader))\n"
        "except CommitError as error:\n"
        "    assert 'dealt to 2 ranks already' in str(error)\n"
        "else:\n"
        "    raise AssertionError('nothing was refused')\n"
        "leave()\n"
    )
    run(2, script, tmp_path)


def test_a_prepared_loader_is_taken_as_it_is():
    """Twice is once, accelerator.prepare included; and all but the iteration is the loader's."""
    accelerator, loader = Accelerator(cpu=True), loader_of()
    prepared = prepare(accelerator, loader)
    assert prepare(accelerator, prepared) is prepared
    assert accelerator.prepare(prepared) is prepared
    assert isinstance(prepared, PreparedLoader)
    assert (prepared.batch_size, prepared.start, prepared.dataset) == (4, 0, range(10))


def test_a_loop_within_a_loop_ends_alone():
    """While an evaluation runs its end counts, and after it that of the training loop, a break included."""
    accelerator = Accelerator(cpu=True)
    train, evaluation = prepare(accelerator, loader_of()), prepare(accelerator, loader_of(8))
    state, ends = accelerator.gradient_state, []
    for _ in train:
        ends.append([state.end_of_dataloader for _ in evaluation])
        for _ in evaluation:
            break
        ends.append(state.end_of_dataloader)
    assert ends == [[False, True], False, [False, True], False, [False, True], True]
    assert not state.in_dataloader


@pytest.mark.slow
def test_the_example_goes_on_where_it_was_stopped(tmp_path):
    """Two ranks read 40 of 100 samples, three the other 60 and the next epoch."""
    example = EXAMPLES / "resume_accelerate.py"
    assert len(example.read_text().splitlines()) < 80
    assert run(2, example, tmp_path / "run") == "stopped: 40 samples of epoch 0\n"
    assert run(3, example, tmp_path / "run") == "epoch 0: 60 samples\nepoch 1: 100 samples\n"
