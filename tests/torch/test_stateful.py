"""The objects of a record: what can be one, what their states are, and loaded all or none."""

import pytest
import torch

from globidx import CheckpointManager, DataLoader, ResumableDistributedSampler, errors
from globidx.stream import GlobalStream
from globidx.torch.stateful import Objects


class Counter:
    """A state of one number; ``refuses`` to load it."""

    def __init__(self, value=0, refuses=False):
        self.value, self.refuses = value, refuses

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        if self.refuses:
            raise ValueError("not this state")
        self.value = state["value"]


def sampler(n=10, **options):
    return ResumableDistributedSampler(range(n), 1, 0, **{"shuffle": False} | options)


def here(work):
    """Do it on the only rank."""
    return work()


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({}, ValueError, "nothing to keep a record of; pass a sampler"),
        ({"": Counter()}, TypeError, "names must be strings, got ''"),
        ({3: Counter()}, TypeError, "names must be strings, got 3"),
        ({"x": 5}, TypeError, "'x' has no state_dict and load_state_dict, got int"),
        ({"x": Counter}, None, None),
    ],
)
def test_what_has_no_state_is_refused_by_name(given, error, told):
    """Before the first save."""
    if error is None:
        Objects(given)
    else:
        with pytest.raises(error, match=told):
            Objects(given)


@pytest.mark.parametrize("kind", [DataLoader, torch.utils.data.DataLoader])
def test_a_loader_in_place_of_its_sampler_is_told_so(kind):
    """The progress is the sampler's."""
    loader = kind(range(10), sampler=sampler())
    with pytest.raises(TypeError, match=r"whose sampler has the progress: pass loader\.sampler"):
        Objects({"loader": loader})


def test_a_stream_is_kept_as_its_sampler(tmp_path):
    """By itself or by name; a sampler goes on from the record that the stream has written."""
    stream = GlobalStream(range(10), 1, 0, shuffle=False)
    assert Objects({"train": stream}).samplers == {"train": stream.sampler}
    stream.commit(7)
    CheckpointManager(tmp_path, stream).save(1)
    resumed = sampler()
    CheckpointManager(tmp_path, resumed).restore()
    assert list(resumed) == [7, 8, 9]


def test_one_sampler_is_called_sampler_and_a_dict_keeps_its_names():
    """States come out fresh, as JSON."""
    one = sampler()
    assert list(Objects(one).by_name) == ["sampler"]
    objects = Objects({"train": one, "counter": Counter(3)})
    states = objects.states()
    assert states == {"train": one.state_dict(), "counter": {"value": 3}}
    states["counter"]["value"] = 9
    assert objects.states()["counter"] == {"value": 3}
    assert objects.ranks() == {"train": [0, 1]}
    assert list(objects.merges()) == ["train"]


@pytest.mark.parametrize("state", [None, [1], {"x": float("nan")}, {"x": object()}])
def test_a_state_that_is_no_json_object_is_refused(state):
    """Whoever made it."""
    odd = Counter()
    odd.state_dict = lambda: state
    with pytest.raises((TypeError, ValueError), match="odd"):
        Objects({"odd": odd}).states()


def test_objects_of_other_names_or_another_run_are_refused():
    """By both lists of names, or the name and field."""
    objects = Objects({"train": sampler(), "counter": Counter()})
    states = objects.states()
    with pytest.raises(
        errors.RecordMismatchError,
        match=r"holds \['train'\], this manager has \['counter', 'train'\]",
    ):
        objects.refuse_other_run({"train": states["train"]})
    with pytest.raises(
        errors.RecordMismatchError, match="train: the record was written with seed 5"
    ) as caught:
        objects.refuse_other_run(states | {"train": sampler(seed=5).state_dict()})
    assert caught.value.field == "seed"
    objects.refuse_other_run(states)


@pytest.mark.parametrize("last", [False, True])
def test_all_are_loaded_or_none(last):
    """Whichever refuses, the others go back to what they were, and the sampler has not moved."""
    train, first, second = sampler(), Counter(1), Counter(2, refuses=True)
    by_name = {"first": first, "second": second, "train": train}
    objects = Objects(by_name if last else dict(reversed(by_name.items())))
    train.commit(4)
    states = objects.states() | {"first": {"value": 7}}
    train.reset()
    with pytest.raises(ValueError, match="not this state"):
        objects.load(states, here)
    assert (first.value, train.state_dict()["committed"]) == (1, 0)
    second.refuses = False
    objects.load(states, here)
    assert (first.value, list(train)) == (7, [4, 5, 6, 7, 8, 9])


def test_what_any_rank_could_not_read_is_listed_here_and_in_the_states():
    """Nothing else of the saved states comes back."""
    train = sampler()
    objects = Objects(train)
    saved = {"sampler": train.state_dict() | {"quarantined": [[2, 4]]}}
    train.commit(3)
    known = objects.learn_quarantined(saved, objects.states())
    assert known["sampler"]["quarantined"] == [[2, 4]]
    assert known["sampler"]["open"]["count"] == 3
    assert train.state_dict()["quarantined"] == [[2, 4]]
