"""Under Lightning each id is trained on once an epoch, whatever was saved, limited, tried out or validated between."""

import json
import subprocess
import sys
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

import pytest
import torch
from files import environment
from processes import REPOSITORY, torchrun
from test_docs import blocks
from torch.utils.data import BatchSampler
from torch.utils.data import DataLoader as TorchLoader

from globidx import DataLoader, ResumableDistributedSampler
from globidx.errors import EpochError

pytest.importorskip("lightning.pytorch")

from lightning.fabric import Fabric
from lightning_job import loaders, make

from globidx.integrations.lightning import EpochCallback, ResumableSamplerCallback
from globidx.stream import GlobalStream, ShardStream

# Lightning warns of few workers, of no logger, of checkpoints in mid-epoch.
pytestmark = pytest.mark.filterwarnings("ignore")
JOBS = Path(__file__).parent
SAMPLES, VALIDATED = 203, 41

THREE = {"max_epochs": 3}
#: What is saved on 2 ranks, by ``stop_at=`` steps or by a ModelCheckpoint, and how the rest is trained.
LEGS = {
    "first epoch": ({"stop_at": 10}, {}),
    "second epoch": ({"stop_at": 30}, {}),
    "last batch": ({"stop_at": 26}, {}),
    "workers": ({"stop_at": 10, "workers": 2}, {"workers": 1}),
    "other batch": ({"stop_at": 10, "batch": 5}, {"batch": 7}),
    "accumulation": (
        {"stop_at": 11, "trainer": THREE | {"accumulate_grad_batches": 2}},
        {"trainer": THREE | {"accumulate_grad_batches": 2}},
    ),
    "validation": ({"stop_at": 10, "val": VALIDATED}, {"val": VALIDATED}),
    "two validations": (
        {"stop_at": 10, "val": VALIDATED, "trainer": THREE | {"val_check_interval": 0.5}},
        {"val": VALIDATED, "trainer": THREE | {"val_check_interval": 0.5}},
    ),
    "saved by the last validation": (
        {"val": VALIDATED, "kept": False, "trainer": {"max_epochs": 1}},
        {"val": VALIDATED},
    ),
    "saved after an epoch": ({"kept": True, "trainer": {"max_epochs": 1}}, {}),
    "limited": (
        {"stop_at": 10, "trainer": THREE | {"limit_train_batches": 20}},
        {"trainer": THREE | {"limit_train_batches": 20}},
    ),
}


def run(ranks, job, *arguments):
    """Run a job of some ranks; it must succeed."""
    done = ended(ranks, job, *arguments)
    assert done.returncode == 0, done.stderr


def ended(ranks, job, *arguments):
    """A job of some ranks that has ended."""
    return subprocess.run(
        torchrun(ranks, JOBS / job, *arguments),
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )


def seen(folder, *legs):
    """How often each id was seen, by kind and epoch, on all ranks of some legs."""
    counts = defaultdict(Counter)
    for leg in legs:
        for path in folder.glob(f"seen-{leg}-[0-9].json"):
            for kind, epoch, ids in json.loads(path.read_text()):
                counts[kind, epoch].update(ids)
    return counts


def assert_exact(counts, world_size, what, epochs=3):
    """Each id once an epoch, but for padding: fewer than there are ranks."""
    assert {epoch for kind, epoch in counts if kind == "train"} == set(range(epochs)), what
    for epoch in range(epochs):
        trained = counts["train", epoch]
        assert set(trained) == set(range(SAMPLES)), (what, epoch)
        assert trained.total() - SAMPLES < world_size, (what, epoch)


def saved_and_resumed(folder, legs, worlds):
    """Run legs of jobs, saved on two ranks and resumed on others; yields how many, when they have run."""
    first, rest = [], defaultdict(list)
    for leg, (saved, resumed) in legs.items():
        name = leg.replace(" ", "_")
        path = str(folder / f"{name}.ckpt")
        first.append(f"{name}=" + json.dumps({"save": path, "trainer": THREE} | saved))
        for ranks in worlds:
            given = {"resume": path, "trainer": THREE} | resumed
            rest[ranks].append(f"{name}-{ranks}=" + json.dumps(given))
    run(2, "lightning_job.py", folder, *first)
    for ranks in worlds:
        run(ranks, "lightning_job.py", folder, *rest[ranks])
        yield ranks


def counts_of(folder, leg, ranks):
    """How often each id was seen on both sides of a leg, which is as it must be."""
    name = leg.replace(" ", "_")
    counts = seen(folder, name, f"{name}-{ranks}")
    if leg == "limited":
        assert_limited(counts, ranks)
    else:
        assert_exact(counts, max(ranks, 2), (leg, ranks))
    return counts


@pytest.mark.slow
def test_an_epoch_saved_on_2_ranks_ends_on_1_2_or_3_and_later_ones_are_whole(tmp_path):
    """Each way to save, and each number of ranks; validation always reads each of its samples as often."""
    for ranks in saved_and_resumed(tmp_path, LEGS, (1, 2, 3)):
        for leg in LEGS:
            counts = counts_of(tmp_path, leg, ranks)
            for kind, epoch in counts:
                if kind == "val":
                    often = {counts[kind, epoch][id] for id in range(VALIDATED)}
                    assert len(often) == 1, (leg, ranks, epoch)


#: The same of streams that torch's loader reads, under EpochCallback.
STREAMS = {
    "first epoch": ({"stop_at": 10}, {}),
    "second epoch": ({"stop_at": 30}, {}),
    "last batch": ({"stop_at": 26}, {}),
    "workers": ({"stop_at": 10, "workers": 2}, {"workers": 1}),
    "other batch": ({"stop_at": 10, "batch": 5}, {"batch": 7}),
    "saved by the last validation": LEGS["saved by the last validation"],
    "saved after an epoch": LEGS["saved after an epoch"],
    "limited": LEGS["limited"],
}
ROWS = {"stream": "rows", "trainer": THREE | {"limit_train_batches": 20}}


@pytest.mark.slow
def test_a_stream_saved_on_2_ranks_ends_on_1_or_3(tmp_path):
    """Samples as with a sampler; rows of shards without end once in each of the stream's own epochs."""
    legs = {leg: [{"stream": "samples"} | side for side in sides] for leg, sides in STREAMS.items()}
    legs["rows"] = [ROWS | {"stop_at": 10, "workers": 2}, ROWS | {"workers": 1}]
    for ranks in saved_and_resumed(tmp_path, legs, (1, 3)):
        for leg in STREAMS:
            counts_of(tmp_path, leg, ranks)
        rows = seen(tmp_path, "rows", f"rows-{ranks}")
        assert rows["row", 0] == Counter(range(SAMPLES)), ranks
        of_streams = [count for (kind, _), count in rows.items() if kind == "row"]
        assert all(set(count.values()) == {1} for count in of_streams), ranks
        # two ranks' 10 steps, the rest of those 20, and two epochs of 20, with 4 rows each
        assert sum(map(Counter.total, of_streams)) == 4 * (10 * 2 + 50 * ranks)


def assert_limited(counts, ranks):
    """20 steps an epoch, no sample twice."""
    saved = 10 * 4 * 2
    expected = [min(saved + 10 * 4 * ranks, SAMPLES), *[min(20 * 4 * ranks, SAMPLES)] * 2]
    for epoch in range(3):
        trained = counts["train", epoch]
        assert len(trained) == expected[epoch], (ranks, epoch)
        assert trained.total() - len(trained) < ranks, (ranks, epoch)


@pytest.mark.slow
def test_a_fabric_loop_resumes_in_its_second_epoch(tmp_path):
    """As the page has it: the loader is left out of ``setup_dataloaders``."""
    run(2, "fabric_job.py", tmp_path, "saved", 36)
    for ranks in (1, 2, 3):
        run(ranks, "fabric_job.py", tmp_path, ranks)
        assert_exact(seen(tmp_path, "saved", ranks), max(ranks, 2), ranks)


@pytest.mark.slow
def test_the_example_goes_on_with_another_number_of_processes(tmp_path):
    """Under 80 lines, and shown by the page: 320 samples on 2 processes, the rest of 500 on 1."""
    path = REPOSITORY / "examples" / "integrations" / "resume_lightning.py"
    assert len(path.read_text().splitlines()) < 80
    page = (REPOSITORY / "docs" / "howto" / "trainers" / "lightning.md").read_text()
    assert f"examples/integrations/{path.name}\n:language: python" in page
    printed = []
    for arguments in (["2", "20"], ["1"]):
        done = subprocess.run(
            [sys.executable, path, tmp_path, *arguments],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert printed == [
        "epoch 0: 320 samples\n",
        "epoch 0: 500 samples\nepoch 1: 500 samples\n",
    ]


def test_the_lines_of_the_page_run(tmp_path, monkeypatch):
    """As they stand, but without workers; the names that they leave open are Lightning's, and small."""
    monkeypatch.chdir(tmp_path)
    lightning, model = make("lightning.pytorch")
    first, streamed, second = (
        block.text.replace("num_workers=8", "num_workers=0")
        for block in blocks(REPOSITORY / "docs" / "howto" / "trainers" / "lightning.md")
        if block.language == "py"
    )
    fabric = Fabric(accelerator="cpu", devices=1)
    names = {
        "dataset": range(VALIDATED),
        "model": model,
        "Trainer": partial(lightning.Trainer, accelerator="cpu", max_epochs=2, logger=False),
        "ModelCheckpoint": lightning.callbacks.ModelCheckpoint,
        "fabric": fabric,
        "train": lambda batch: seen.append((names["epoch"], batch.tolist())),
    }
    exec(first, names)
    assert trained(model) == {0: ONCE, 1: ONCE}
    names["model"] = model = make("lightning.pytorch")[1]
    exec(streamed, names | {"torch": torch})
    assert trained(model) == {0: ONCE, 1: ONCE}
    seen = []
    fabric.save("run.ckpt", {"model": model, "sampler": names["sampler"]})
    exec(second, names)
    assert sorted(id for epoch, ids in seen for id in ids if epoch == 2) == list(range(VALIDATED))


def trained(model):
    """How often each id was trained on, by epoch."""
    counts = defaultdict(Counter)
    for kind, epoch, ids in model.seen:
        if kind == "train":
            counts[epoch].update(ids)
    return counts


def trainer_of(lightning, sampler, folder, **given):
    """A trainer of one process, with the callback of a sampler or stream."""
    is_stream = isinstance(sampler, (GlobalStream, ShardStream))
    callback = EpochCallback if is_stream else ResumableSamplerCallback
    callbacks = [callback(sampler), *given.pop("callbacks", [])]
    given = {"max_epochs": 2, "enable_checkpointing": False} | given
    return lightning.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=callbacks,
        **given,
    )


ONCE = Counter(range(VALIDATED))


@pytest.mark.parametrize("name", ["lightning.pytorch", "pytorch_lightning"])
@pytest.mark.parametrize("before", ["nothing", "fit", "fit of 5 steps", "loop", "lr_find", "kept"])
def test_fit_trains_whole_epochs_whatever_read_the_sampler_before(name, before, tmp_path):
    """Another fit, one that a limit ended, the same trainer's, a loop, the tuner's trial."""
    lightning, model = make(name)
    sampler, loader, _ = loaders(VALIDATED, 4, 0)
    trainer = trainer_of(lightning, sampler, tmp_path)
    if before == "fit":
        trainer_of(lightning, sampler, tmp_path).fit(model, loader)
    elif before == "fit of 5 steps":
        trainer_of(lightning, sampler, tmp_path, max_steps=5).fit(model, loader)
    elif before == "loop":
        for number, _ in enumerate(loader):
            if number == 5:
                break
    elif before == "lr_find":
        lightning.tuner.Tuner(trainer).lr_find(model, loader, num_training=5)
    elif before == "kept":
        trainer.fit(model, loader)
        trainer.fit_loop.max_epochs = 4
    model.seen.clear()
    trainer.fit(model, loader)
    first = 2 if before == "kept" else 0
    assert trained(model) == {first: ONCE, first + 1: ONCE}


def stream_of(kind):
    """A stream of each id, and torch's loader of it."""
    if kind == "samples":
        stream = GlobalStream(range(VALIDATED), 1, 0, seed=7)
    else:
        stream = ShardStream(
            list("01234"), lambda shard: range(int(shard), VALIDATED, 5), 1, 0, seed=7
        )
    return stream, TorchLoader(stream, 4)


@pytest.mark.parametrize("kind", ["samples", "rows"])
@pytest.mark.parametrize("before", ["nothing", "fit", "fit of 5 steps", "loop", "limited", "kept"])
def test_fit_trains_whole_epochs_of_a_stream_whatever_read_it_before(kind, before, tmp_path):
    """Another fit, one that a limit ended, a loop, a trainer of few batches, the same trainer's."""
    lightning, model = make("lightning.pytorch")
    stream, loader = stream_of(kind)
    trainer = trainer_of(lightning, stream, tmp_path)
    if before == "fit":
        trainer_of(lightning, stream, tmp_path).fit(model, loader)
    elif before == "fit of 5 steps":
        trainer_of(lightning, stream, tmp_path, max_steps=5).fit(model, loader)
    elif before == "loop":
        batch = next(iter(loader))
        stream.commit(batch[1] if kind == "rows" else len(batch))
    elif before == "limited":
        trainer_of(lightning, stream, tmp_path, limit_train_batches=5).fit(model, loader)
        assert {(epoch, sum(counts.values())) for epoch, counts in trained(model).items()} == {
            (0, 20),
            (1, 20),
        }
    elif before == "kept":
        trainer.fit(model, loader)
        trainer.fit_loop.max_epochs = 4
    model.seen.clear()
    trainer.fit(model, loader)
    first = 2 if before == "kept" else 0
    assert trained(model) == {first: ONCE, first + 1: ONCE}


@pytest.mark.parametrize("limit", [5, 1.0])
def test_each_epoch_of_shards_is_begun_once(limit, tmp_path):
    """Workers that read in vain would be started otherwise."""

    class Counted(ShardStream):
        begun = 0

        def __iter__(self):
            Counted.begun += 1
            return super().__iter__()

    lightning, model = make("lightning.pytorch")
    stream = Counted(list("01234"), lambda shard: range(int(shard), VALIDATED, 5), 1, 0)
    trainer = trainer_of(lightning, stream, tmp_path, max_epochs=3, limit_train_batches=limit)
    trainer.fit(model, TorchLoader(stream, 4))
    assert Counted.begun == 3


@pytest.mark.parametrize("kind", ["samples", "rows"])
def test_a_stream_goes_on_from_a_checkpoint_of_any_step(kind, tmp_path):
    """Also of the last one of an epoch; validation with it leaves the stream where it is."""
    for stop in (1, 7, 11, 15, 22):
        lightning, model = make("lightning.pytorch", stop_at=stop, save=tmp_path / "kept.ckpt")
        stream, loader = stream_of(kind)
        trainer_of(lightning, stream, tmp_path, max_epochs=3).fit(model, loader)
        first = trained(model)
        lightning, model = make("lightning.pytorch")
        stream, loader = stream_of(kind)
        trainer = trainer_of(lightning, stream, tmp_path, max_epochs=3)
        trainer.fit(model, loader, ckpt_path=tmp_path / "kept.ckpt")
        rest = trained(model)
        assert {epoch: first[epoch] + rest[epoch] for epoch in range(3)} == dict.fromkeys(
            range(3), ONCE
        ), stop
        state = stream.state_dict()
        trainer.validate(model, TorchLoader(range(8), 4), ckpt_path=tmp_path / "kept.ckpt")
        assert stream.state_dict() == state


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda stream: DataLoader(stream, 4), r"ResumableSamplerCallback\(stream.sampler\)"),
        (lambda stream: TorchLoader(range(8), 4), "training reads a range"),
        (lambda stream: [TorchLoader(stream, 4)] * 2, "one torch.utils.data.DataLoader"),
        (
            lambda stream: TorchLoader(GlobalStream(range(8), 2, 0), 4),
            "training reads a GlobalStream",
        ),
    ],
)
def test_other_loaders_of_a_stream_are_refused(change, match, tmp_path):
    """When training starts."""
    lightning, model = make("lightning.pytorch")
    stream, _ = stream_of("samples")
    with pytest.raises(ValueError, match=match):
        trainer_of(lightning, stream, tmp_path).fit(model, change(stream))


def test_a_stream_of_other_ranks_is_refused(tmp_path):
    """And what is no stream."""
    lightning, model = make("lightning.pytorch")
    stream = GlobalStream(range(8), 2, 0)
    with pytest.raises(ValueError, match="the stream deals to rank 0 of 2, and Lightning"):
        trainer_of(lightning, stream, tmp_path).fit(model, TorchLoader(stream, 4))
    with pytest.raises(TypeError, match="follows a GlobalStream or ShardStream, got a range"):
        EpochCallback(range(8))


def test_fit_is_whole_after_the_tuner_has_tried_batch_sizes(tmp_path):
    """It makes a loader of the module's hook for each trial, over the same sampler."""
    lightning, model = make("lightning.pytorch")
    sampler = loaders(VALIDATED, 4, 0)[0]
    model.batch_size = 2
    type(model).train_dataloader = lambda module: DataLoader(
        range(VALIDATED), module.batch_size, sampler=sampler
    )
    type(model).val_dataloader = lambda module: []
    trainer = trainer_of(lightning, sampler, tmp_path)
    lightning.tuner.Tuner(trainer).scale_batch_size(model, max_trials=3, steps_per_trial=2)
    assert model.batch_size == 8
    model.seen.clear()
    trainer.fit(model)
    assert trained(model) == {0: ONCE, 1: ONCE}


def test_validation_is_whole_after_a_sanity_check_and_a_limit(tmp_path):
    """Two batches of the sanity check and five of a limited validation are read again."""
    lightning, model = make("lightning.pytorch")
    sampler, loader, val = loaders(VALIDATED, 4, VALIDATED)
    trainer_of(lightning, sampler, tmp_path, limit_val_batches=5).validate(
        model, val, verbose=False
    )
    model.seen.clear()
    trainer_of(lightning, sampler, tmp_path).fit(model, loader, [val])
    validated = defaultdict(Counter)
    for kind, epoch, ids in model.seen:
        if kind == "val":
            validated[epoch].update(ids)
    assert validated == {0: ONCE, 1: ONCE}


@pytest.mark.parametrize("by", ["sampler", "batch_sampler"])
def test_evaluation_is_whole_by_either_sampler_of_its_loader(by, tmp_path):
    """Three batches of a limited validation, test and prediction are read again by whole ones."""
    lightning, model = make("lightning.pytorch")
    sampler, _, loader = loaders(8, 4, VALIDATED)
    if by == "batch_sampler":
        batches = BatchSampler(loader.sampler, 4, drop_last=False)
        loader = DataLoader(loader.dataset, batch_sampler=batches)
    model.predict_step = model.test_step
    for name in ("validate", "test", "predict"):
        for limit in (3, 1.0):
            model.seen.clear()
            limits = {f"limit_{one}_batches": limit for one in ("val", "test", "predict")}
            trainer = trainer_of(lightning, sampler, tmp_path, **limits)
            getattr(trainer, name)(model, loader)
        counts = Counter(id for _, _, ids in model.seen for id in ids)
        assert counts == ONCE, name


def test_an_epoch_that_a_limit_ended_is_over_for_a_run_by_steps(tmp_path):
    """The next five batches are the first five of the next epoch, and Lightning counts them from 0."""
    lightning, model = make("lightning.pytorch")
    sampler, loader, _ = loaders(VALIDATED, 4, 0)
    keep = lightning.callbacks.ModelCheckpoint(tmp_path, "kept", save_on_train_epoch_end=True)
    given = {"enable_checkpointing": True, "callbacks": [keep], "limit_train_batches": 5}
    trainer_of(lightning, sampler, tmp_path, max_epochs=1, **given).fit(model, loader)
    lightning, model = make("lightning.pytorch")
    sampler, loader, _ = loaders(VALIDATED, 4, 0)
    given = {"max_epochs": -1, "max_steps": 10, "limit_train_batches": 5}
    trainer = trainer_of(lightning, sampler, tmp_path, **given)
    trainer.fit(model, loader, ckpt_path=tmp_path / "kept.ckpt")
    next_epoch = loaders(VALIDATED, 4, 0)[0]
    next_epoch.set_epoch(1)
    assert [id for _, _, ids in model.seen for id in ids] == list(next_epoch)[:20]


def test_validation_with_a_checkpoint_leaves_training_where_it_is(tmp_path):
    """Its weights are those of an epoch that is over, and the sampler does not go back there."""
    lightning, model = make("lightning.pytorch")
    sampler, loader, val = loaders(VALIDATED, 4, VALIDATED)
    trainer = trainer_of(lightning, sampler, tmp_path)
    trainer.fit(model, loader, val)
    trainer.save_checkpoint(tmp_path / "kept.ckpt")
    sampler.set_epoch(5)
    record = sampler.state_dict()
    trainer.validate(model, val, ckpt_path=tmp_path / "kept.ckpt", verbose=False)
    trainer.test(model, val, ckpt_path=tmp_path / "kept.ckpt", verbose=False)
    assert sampler.state_dict() == record
    assert sum(kind == "test" for kind, _, _ in model.seen) == len(val)


@pytest.mark.parametrize("of", ["sampler", "stream"])
@pytest.mark.parametrize("by", ["an error", "a save in the step"])
def test_a_batch_whose_step_did_not_end_is_trained_on_again(of, by, tmp_path):
    """Lightning repeats it, and so does the record."""

    def read():
        return loaders(VALIDATED, 4, 0)[:2] if of == "sampler" else stream_of("samples")

    lightning, model = make("lightning.pytorch")
    path = str(tmp_path / "saved.ckpt")
    ended = []

    class Fails(lightning.Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            if trainer.global_step == 14 and by == "an error":
                raise KeyError
            if trainer.global_step == 14:
                trainer.save_checkpoint(path)
                raise KeyError

        def on_exception(self, trainer, module, exception):
            if by == "an error":
                trainer.save_checkpoint(path)

        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            ended.append((trainer.current_epoch, batch.tolist()))

    sampler, loader = read()
    with pytest.raises(KeyError):
        trainer_of(lightning, sampler, tmp_path, callbacks=[Fails()]).fit(model, loader)
    model.seen = [["train", epoch, ids] for epoch, ids in ended]
    sampler, loader = read()
    trainer_of(lightning, sampler, tmp_path).fit(model, loader, ckpt_path=path)
    assert trained(model) == {0: ONCE, 1: ONCE}


# -- what is refused


def test_another_sampler_is_refused():
    """Its type is named."""
    with pytest.raises(TypeError, match="got a range"):
        ResumableSamplerCallback(range(3))


def fit_refused(match, tmp_path, loader, sampler, error=ValueError, **given):
    """Fit is refused before a batch is trained on."""
    lightning, model = make("lightning.pytorch")
    resume = given.pop("ckpt_path", None)
    with pytest.raises(error, match=match):
        trainer_of(lightning, sampler, tmp_path, **given).fit(model, loader, ckpt_path=resume)
    assert model.seen == []


def test_a_loader_that_does_not_report_is_refused(tmp_path):
    """torch's own, a collection, one of another sampler, and one whose sampler Lightning replaced."""
    from torch.utils.data import DataLoader as TorchLoader

    sampler, loader, _ = loaders(VALIDATED, 4, 0)
    plain = TorchLoader(range(VALIDATED), 4, sampler=sampler)
    other = loaders(VALIDATED, 4, 0)[1]
    fit_refused("reads a DataLoader over .* pass globidx.DataLoader", tmp_path, plain, sampler)
    fit_refused("reads a dict", tmp_path, {"one": loader}, sampler)
    fit_refused("over the sampler that it was given", tmp_path, other, sampler)
    fit_refused("over a SequentialSampler", tmp_path, loader, sampler, overfit_batches=2)


def test_ranks_other_than_lightnings_are_refused(tmp_path):
    """Half of the samples would never be trained on."""
    sampler = ResumableDistributedSampler(range(VALIDATED), 2, 0)
    loader = DataLoader(range(VALIDATED), 4, sampler=sampler)
    fit_refused("rank 0 of 2, and Lightning trains as rank 0 of 1", tmp_path, loader, sampler)


@pytest.mark.slow
def test_ranks_that_may_differ_by_a_batch_are_refused(tmp_path):
    """An exact tail is for validation; in training DDP would wait for ever."""
    given = json.dumps({"tail": "exact", "trainer": THREE})
    done = ended(2, "lightning_job.py", tmp_path, f"uneven={given}")
    assert done.returncode != 0
    assert "ValueError: tail='exact' may give one rank a batch more than another" in done.stderr
    given = json.dumps({"stream": "finite rows", "trainer": THREE})
    done = ended(2, "lightning_job.py", tmp_path, f"uneven={given}")
    assert done.returncode != 0
    assert "ranks of a ShardStream have different numbers of rows" in done.stderr


def test_a_record_that_lightning_knows_nothing_of_is_refused(tmp_path):
    """A sampler that was loaded by hand, and a Trainer that begins at epoch 0."""
    sampler, loader, _ = loaders(VALIDATED, 4, 0)
    sampler.finish_epoch()
    record = sampler.state_dict()
    sampler, loader, _ = loaders(VALIDATED, 4, 0)
    sampler.load_state_dict(record)
    fit_refused(r"set_epoch\(0\), but epochs", tmp_path, loader, sampler, error=EpochError)


def test_an_epoch_saved_in_its_last_validation_needs_that_validation(tmp_path):
    """Without it Lightning would train on the epoch again."""
    lightning, model = make("lightning.pytorch")
    sampler, loader, val = loaders(VALIDATED, 4, VALIDATED)
    keep = lightning.callbacks.ModelCheckpoint(tmp_path, "kept", save_on_train_epoch_end=False)
    trainer = trainer_of(
        lightning, sampler, tmp_path, max_epochs=1, callbacks=[keep], enable_checkpointing=True
    )
    trainer.fit(model, loader, val)
    sampler, loader, _ = loaders(VALIDATED, 4, 0)
    path = str(tmp_path / "kept.ckpt")
    fit_refused(
        "validation after all batches of epoch 0", tmp_path, loader, sampler, ckpt_path=path
    )


def test_a_machine_without_lightning_is_told_what_to_install():
    """One sentence, and no other module's name."""
    program = (
        "import sys; sys.modules['lightning'] = sys.modules['pytorch_lightning'] = None\n"
        "import globidx.integrations.lightning"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert "ModuleNotFoundError: globidx.integrations.lightning needs Lightning" in done.stderr
    assert "pip install '.[lightning]'" in done.stderr
