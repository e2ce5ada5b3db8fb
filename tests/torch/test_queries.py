"""Queries change nothing: no property, ``len``, ``repr``, comparison, copy or pickle, at whatever moment it is asked for."""

import copy
import inspect
import pickle
import random
import warnings
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import run_ranks
from torch.utils.data import DataLoader as PlainLoader

from globidx import CheckpointManager, DataLoader, ResumableDistributedSampler, errors
from globidx.orders import ChunkShuffle, Shuffle

ORDERS = {"shuffle": Shuffle(), "chunks": ChunkShuffle(window=2, chunk=3)}


def properties_of(kind):
    """The names of all public properties."""
    return [
        name
        for name, value in inspect.getmembers(kind)
        if isinstance(value, property) and name[0] != "_"
    ]


COMMON = {
    "repr": repr,
    "len": len,
    "hash": hash,
    "equality": lambda thing: thing == copy.copy(thing),
    "copy": copy.copy,
    "deep copy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
}
OF_SAMPLERS = COMMON | {
    **{
        name: lambda sampler, name=name: getattr(sampler, name)
        for name in properties_of(ResumableDistributedSampler)
    },
    "state_dict": lambda sampler: sampler.state_dict(),
    "a copy is read": lambda sampler: list(copy.deepcopy(sampler)),
}
OF_LOADERS = COMMON | {
    **{name: lambda loader, name=name: getattr(loader, name) for name in properties_of(DataLoader)},
    "steps_left": lambda loader: loader.steps_left(3),
}
OF_MANAGERS = {"repr": repr, "state_dict": lambda manager: manager.state_dict()}

#: What a history is made of: a name, and a small number that says how often or which.
ACTIONS = (
    "next",
    "next",
    "for",
    "fail",
    "begin",
    "by hand",
    "peek",
    "set_epoch",
    "skip",
    "save",
    "restore",
    "finish",
    "reset",
)
HISTORIES = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, 6)), min_size=1, max_size=14
)


class Halt(Exception):
    """A training step fails."""


class Player:
    """Plays a history; ``look`` is called at every moment between two things that happen."""

    def __init__(self, folder, n, order, tail, look, *, rank=0, world=1):
        self.n, self.look = n, look
        self.sampler = ResumableDistributedSampler(
            range(n), world, rank, seed=5, order=ORDERS[order], tail=tail
        )
        self.loader = DataLoader(range(n), batch_size=3, sampler=self.sampler, collate_fn=list)
        self.manager = CheckpointManager(folder, self.sampler, durable=False, timeout=20)
        self.stream = iter(self.loader)
        self.log = []

    def play(self, history):
        """What the loops were given, and what was saved or raised."""
        for action, number in history:
            self.look(self)
            try:
                getattr(self, action.replace(" ", "_"))(number)
            except (errors.GlobidxError, StopIteration, Halt) as error:
                self.look(self)
                self.log.append((action, type(error).__name__, str(error)))
        self.look(self)
        self.log.append(self.sampler.state_dict())
        self.log.append(list(self.sampler))
        return self.log

    def next(self, number):
        for _ in range(number + 1):
            self.log.append(next(self.stream))
            self.look(self)

    def begin(self, number):
        self.stream = iter(self.loader)

    def _for(self, number):
        for count, batch in enumerate(self.loader):
            self.log.append(batch)
            self.look(self)
            if count == number:
                break

    def fail(self, number):
        for count, batch in enumerate(self.loader):
            self.log.append(batch)
            if count == number:
                self.look(self)
                raise Halt

    def by_hand(self, number):
        for count, batch in enumerate(
            PlainLoader(range(self.n), batch_size=2, sampler=self.sampler, collate_fn=list)
        ):
            self.log.append(batch)
            self.look(self)
            self.sampler.commit(len(batch))
            if count == number:
                break

    def peek(self, number):
        self.log.append([id for id, _ in zip(self.sampler, range(number), strict=False)])

    def set_epoch(self, number):
        self.sampler.set_epoch(self.sampler.epoch + number % 2)

    def skip(self, number):
        self.sampler.skip(number % self.n)

    def save(self, number):
        self.manager.save(number)
        self.log.append(self.manager.state_dict()["states"])

    def restore(self, number):
        found = self.manager.restore()
        self.log.append(found and found["states"])

    def finish(self, number):
        self.sampler.finish_epoch()

    def reset(self, number):
        self.sampler.reset()

    def __getattr__(self, name):
        if name == "for":
            return self._for
        raise AttributeError(name)


def in_silence(player):
    """Looks at nothing."""


def looking(seed):
    """A look that asks for one to four things, chosen by dice."""
    dice = random.Random(seed)

    def look(player):
        for _ in range(dice.randint(1, 4)):
            thing, queries = dice.choice(
                [
                    (player.sampler, OF_SAMPLERS),
                    (player.loader, OF_LOADERS),
                    (player.manager, OF_MANAGERS),
                ]
            )
            queries[dice.choice(sorted(queries))](thing)

    return look


def at_all(player):
    """Looks at everything."""
    for thing, queries in (
        (player.sampler, OF_SAMPLERS),
        (player.loader, OF_LOADERS),
        (player.manager, OF_MANAGERS),
    ):
        for query in queries.values():
            query(thing)


def played(look, n, order, tail, history, **ranks):
    """The log of a history, in a folder of its own."""
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of histories that report no delivery
        return Player(folder, n, order, tail, look, **ranks).play(history)


@settings(max_examples=300)
@given(
    n=st.sampled_from([1, 7, 13, 30]),
    order=st.sampled_from(sorted(ORDERS)),
    tail=st.sampled_from(["pad", "drop", "exact"]),
    history=HISTORIES,
    seed=st.integers(0, 99),
)
def test_looking_changes_no_later_id_and_no_record(n, order, tail, history, seed):
    """A random history with and without queries at every moment of it: the same ids, records and errors."""
    assert played(looking(seed), n, order, tail, history) == played(
        in_silence, n, order, tail, history
    )


@pytest.mark.parametrize("query", [*OF_SAMPLERS, *OF_LOADERS])
def test_each_query_alone_changes_nothing(query):
    """The same for one query over and over, in one history of everything."""
    history = [
        ("next", 2),
        ("save", 1),
        ("for", 2),
        ("by hand", 1),
        ("skip", 3),
        ("fail", 1),
        ("next", 9),
        ("set_epoch", 1),
    ]
    history += [
        ("begin", 0),
        ("next", 1),
        ("restore", 0),
        ("peek", 3),
        ("for", 6),
        ("save", 2),
        ("for", 1),
    ]

    def look(player):
        if query in OF_SAMPLERS:
            OF_SAMPLERS[query](player.sampler)
        if query in OF_LOADERS:
            OF_LOADERS[query](player.loader)

    for order in ORDERS:
        assert played(look, 13, order, "pad", history) == played(
            in_silence, 13, order, "pad", history
        )


def one_rank_looks(rank, world_size, folder, history):
    """Rank 0 looks and the other does not: a query that waits for all ranks would wait for ever, or spoil the next save."""
    log = []
    for name, look in (("silent", in_silence), ("looking", in_silence if rank else at_all)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            player = Player(
                f"{folder}/{name}", 30, "shuffle", "pad", look, rank=rank, world=world_size
            )
            log.append(player.play(history))
    return log


@pytest.mark.slow
def test_a_query_starts_no_collective(tmp_path):
    """Two ranks of a process group, of which one is queried at every moment, save and restore together."""
    history = [
        ("next", 1),
        ("save", 1),
        ("for", 1),
        ("save", 2),
        ("restore", 0),
        ("for", 9),
        ("save", 3),
        ("for", 1),
        ("save", 4),
    ]
    for silent, looked in run_ranks(2, one_rank_looks, tmp_path, history):
        assert silent == looked
