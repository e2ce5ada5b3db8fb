"""``dcp.ResumableState``: what a job that saves by torch.distributed.checkpoint sees, in real processes."""

import itertools

import pytest
import torch.distributed.checkpoint as dcp
from integrations.jobs import EXAMPLES, lines, run, times_seen
from torch.utils.data import DataLoader

from globidx import ResumableDistributedSampler, errors
from globidx.integrations.dcp import ResumableState

SAMPLES, EPOCHS = 203, 3
CASES = [
    *(
        "-".join((*case, "globidx"))
        for case in itertools.product(("save", "async"), ("pad", "exact"), ("even", "ahead"))
    ),
    "save-pad-even-torchdata",
    "async-exact-ahead-torchdata",
]
BARE = ["bare-exact-even-globidx", "bare-exact-ahead-globidx"]


@pytest.mark.slow
def test_a_run_goes_on_on_any_number_of_ranks(tmp_path):
    """By save and async_save, from even and uneven ranks: all ids of each epoch are seen, repeated only as padding."""
    run(2, "dcp_job.py", tmp_path, "save", *CASES, *BARE)
    for ranks in (1, 2, 3):
        run(ranks, "dcp_job.py", tmp_path, "load", *CASES, *BARE)
        for case in CASES:
            everything = seen_in(tmp_path / case, ranks)
            assert sorted(everything) == list(range(EPOCHS)), (case, ranks)
            for epoch, seen in everything.items():
                assert set(seen) == set(range(SAMPLES)), (case, ranks, epoch)
                # epoch 0 was padded for the two ranks that read it
                most = 0 if "exact" in case else ranks - 1 if epoch else 1
                assert seen.total() - SAMPLES <= most, (case, ranks, epoch)
        # what the page says of a sampler in the state, as it is
        once = dict.fromkeys(range(EPOCHS), dict.fromkeys(range(SAMPLES), 1))
        assert [seen_in(tmp_path / case, ranks) == once for case in BARE] == [True, False]


def seen_in(folder, ranks):
    """How often each id was seen, by epoch, by the two ranks that saved and those that went on."""
    legs = [("save", rank) for rank in range(2)] + [("load", rank) for rank in range(ranks)]
    return times_seen([line for leg in legs for line in lines(folder, *leg)])


def sampler_of(samples=40, **arguments):
    """A sampler of one rank."""
    return ResumableDistributedSampler(range(samples), 1, 0, **arguments)


class Mean:
    """A metric that differs by rank, and whose state has other keys once it has seen something."""

    def __init__(self, **sums):
        self.sums = sums

    def state_dict(self):
        return dict(self.sums)

    def load_state_dict(self, state):
        self.sums = dict(state)

    def merge_states(self, states):
        return {key: sum(state[key] for state in states) for key in states[0]}


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_all_that_a_record_holds_goes_through_a_checkpoint(tmp_path):
    """Several objects by name, one of which a fresh one has no keys for, and ids in quarantine; into one leaf."""
    train, mean = sampler_of(seed=3), Mean(loss=3)
    train.commit(7)
    train.quarantine([5, (8, 11)])
    state = ResumableState({"train": train, "mean": mean})
    assert list(state.state_dict()) == ["record"]
    dcp.save({"progress": state}, checkpoint_id=tmp_path)
    resumed, other = sampler_of(seed=3), Mean()
    dcp.load(
        {"progress": ResumableState({"train": resumed, "mean": other})}, checkpoint_id=tmp_path
    )
    assert list(resumed) == list(sampler_of(seed=3))[7:]
    assert (resumed.quarantined, other.sums) == (train.quarantined, {"loss": 3})


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_byte_that_changed_on_disk_is_noticed(tmp_path):
    """DCP itself gives out what it finds."""
    sampler = sampler_of(seed=3)
    sampler.commit(7)
    state = {"progress": ResumableState(sampler)}
    dcp.save(state, checkpoint_id=tmp_path)
    (file,) = tmp_path.glob("*.distcp")
    file.write_bytes(file.read_bytes().replace(b'"per_rank": 7', b'"per_rank": 6'))
    with pytest.raises(errors.RecordCorruptError, match="checksum"):
        dcp.load(state, checkpoint_id=tmp_path)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda text: text.replace('"seed": 3', '"seed": 4'),
            errors.RecordCorruptError,
            "checksum",
        ),
        (lambda text: text[:-9], errors.RecordCorruptError, "the record in the checkpoint is not"),
        (lambda text: {"pos": 1}, errors.RecordCorruptError, "must have a string under 'record'"),
    ],
)
def test_what_is_no_whole_record_is_refused(change, error, message):
    """A changed byte, a torn end, another state; and the sampler stays where it was."""
    sampler = sampler_of(seed=3)
    sampler.commit(7)
    state = ResumableState(sampler)
    with pytest.raises(error, match=message):
        state.load_state_dict({"record": change(state.state_dict()["record"])})
    assert sampler.remaining == 33


def test_a_record_of_another_run_is_refused():
    """Another seed would read other samples."""
    saved = ResumableState(sampler_of(seed=3)).state_dict()
    with pytest.raises(errors.RecordMismatchError, match="seed"):
        ResumableState(sampler_of(seed=4)).load_state_dict(saved)


def test_a_save_without_reports_is_refused():
    """Batches of torch's loader that nobody commits would all be repeated."""
    sampler = sampler_of()
    batches = iter(DataLoader(range(40), 4, sampler=sampler))
    next(batches)
    with pytest.raises(errors.CommitError, match="no delivery was reported"):
        ResumableState(sampler).state_dict()


@pytest.mark.slow
def test_the_example_goes_on_over_other_meshes(tmp_path):
    """Two data-parallel ranks of two tensor-parallel peers, then replicas of shards, three ranks, one: each sample once."""
    example = EXAMPLES / "resume_fsdp2.py"
    assert len(example.read_text().splitlines()) < 80
    assert run(4, example, tmp_path, "dp=2", "tp=2", "stop_at=6") == "stopped after 48 samples\n"
    halfway = run(4, example, tmp_path, "replicate=2", "shard=2", "stop_at=6")
    assert halfway == "stopped after 144 samples\n"
    assert run(3, example, tmp_path, "dp=3", "stop_at=4") == "stopped after 192 samples\n"
    assert run(1, example, tmp_path, "dp=1") == "trained on each sample once: True\n"
