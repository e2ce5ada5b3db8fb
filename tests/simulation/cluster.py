"""A simulated cluster: real samplers, real loader accounting, real records; processes, workers and time are played by one seeded dice.

A *story* is what happened, a line an event. Jobs of changing size run over one dataset; ranks take batches in any sequence, loaders draw
ahead, some regroup the ids of their sampler, records are made at any moment, jobs are killed, old records come back, samplers are reloaded under live loops, loops are left
and begun anew. Loops have manners: some ask for a batch until there is none, some take exactly as many as there are, some read a plain
loader and commit by hand. Single ranks are queried at any moment; ids are skipped; some samples cannot be read, and others stand in for
them; some datasets raise StopIteration. The *book* outside knows only what was handed to which rank, and the contract: a batch counts when its loop comes back for
the next one, when a record is made while it is held, or when it was the last of its pass.
"""

from __future__ import annotations

import copy
import pickle
import random
import warnings
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np
from oracle import Epoch
from regrouping import Shuffling
from torch.utils.data import BatchSampler
from torch.utils.data import DataLoader as PlainLoader

from globidx import ResumableDistributedSampler, errors
from globidx.core.index.episodes import Missing
from globidx.core.index.table import ArrayInfo, Entry, Table
from globidx.core.orders.base import Arrangement, Order
from globidx.core.orders.lanes import Lanes
from globidx.core.progress.merge import merge_states
from globidx.core.records import record as records
from globidx.core.windows.anchors import PADS, Window
from globidx.core.windows.sampling import Sampling
from globidx.orders import ChunkShuffle
from globidx.torch.loops.batching import Batching, DrawnBatches
from globidx.torch.loops.handover import Deliveries
from globidx.torch.loops.quarantine import BatchReport


class Spread(Order):
    """A cheap order that differs from epoch to epoch: position times a step that shares no factor with n, plus an offset."""

    algorithm = "spread"

    def bind(self, num_samples, *, seed, epoch):
        step = next(
            k
            for k in range(num_samples // 2 + 1 + epoch + seed % 3, 10**9)
            if np.gcd(k, num_samples) == 1
        )
        return _Spread(num_samples, step % num_samples, epoch + seed)


class _Spread(Arrangement):
    def __init__(self, n, step, offset):
        super().__init__(n)
        self.step, self.offset = step, offset

    def forward(self, positions):
        return (positions * self.step + self.offset) % self.num_samples

    def inverse(self, ids):
        return (ids - self.offset) * pow(self.step, -1, self.num_samples) % self.num_samples


def has_windows(seed):
    """Whether a seed's samples are windows over sequences; then its runs are read in their own chunks."""
    return seed % 16 == 8


class Windows:
    """Samples as windows over chains of files, with gaps, padding, strides and sides: their metadata, and no files."""

    num_files = None

    def __init__(self, dice):
        while True:
            self.samples = self._sampling(dice)
            if 0 < len(self.samples.index) <= 40:
                return

    @staticmethod
    def _sampling(dice):
        names = [f"{chain}/{number}" for chain in "ab" for number in range(dice.randint(1, 3))]
        array = ArrayInfo("x", (), "int64", dice.choice((0, 1, 3, 4)), "x")
        entries = []
        for _ in names:
            rows = dice.randint(0, 9)
            gone = [row for row in range(rows) if dice.random() < 0.1]
            entries.append(
                Entry("hdf5", rows, (array,), bytes(16), ((0,) * 4,), missing=Missing.of(gone))
            )
        offsets = dice.choice((0, (0, 1), (-1, 0, 2), range(4)))
        window = Window(offsets, stride=dice.choice((1, 1, 2, 3)), pad=dice.choice(PADS))
        chains = [name[0] for name in names] if dice.random() < 0.7 else None
        found = Sampling(window, chains=chains).found(Table.of(names, entries))
        kept = [row for row in range(len(found)) if dice.random() < 0.8]
        sampling = Sampling(window, chains=chains, kept=np.array(kept, np.int64))
        return sampling.of(Table.of(names, entries))

    def __len__(self):
        return len(self.samples.index)

    @property
    def fingerprint(self):
        return self.samples.fingerprint()

    def fingerprint_of_samples(self, count):
        return self.samples.fingerprint(count)

    @property
    def chunking(self):
        return self.samples.chunking

    def anchors(self):
        """All (sequence, anchor), listed one by one: those whose window lies in its sequence, or in its padding, and
        touches no missing row."""
        window, index = self.samples.window, self.samples.index
        offsets = [window.offsets] if isinstance(window.offsets, int) else window.offsets
        gone = set(self.samples.sequences.missing_rows().tolist())
        listed = []
        for sequence, length in enumerate(index.sequences.lengths.tolist()):
            start = int(index.sequences.starts[sequence])
            lasts = range(window.first, length - max(offsets) + window.after, window.stride)
            for anchor in lasts if length else ():
                rows = [anchor + offset for offset in offsets]
                taken = [min(max(row, 0), length - 1) for row in rows]
                if window.pad == "zero":
                    taken = [row for row in rows if 0 <= row < length]
                if not gone.intersection(start + row for row in taken):
                    listed.append((sequence, anchor))
        return listed


def order_of(seed):
    """What a seed's runs are read in: mostly the cheap one, else in chunks, planned anew for every epoch's first job."""
    if has_windows(seed):
        return ChunkShuffle(window=1 + seed // 16 % 3)
    return (
        Spread() if seed % 32 else ChunkShuffle(window=1 + seed // 32 % 3, chunk=1 + seed // 96 % 4)
    )


#: What may happen instead of a step, each below a limit of one throw of the dice.
EVENTS = (
    (0.04, "kill"),
    (0.14, "save"),
    (0.17, "roll_back"),
    (0.22, "leave_and_begin_again"),
    (0.25, "peek"),
    (0.31, "query"),
    (0.32, "look_and_leave"),
    (0.34, "skip"),
    (0.36, "slip"),
)


class Wrong(AssertionError):
    """The book and the library disagree."""


@dataclass
class Production:
    """The code under test; a planted bug replaces one part."""

    sampler: type = ResumableDistributedSampler
    merge: object = staticmethod(merge_states)
    deliveries: type = Deliveries


@dataclass
class Book:
    """What is committed, by epoch: plain lists, written from outside."""

    done: dict = field(default_factory=dict)  # epoch -> ids, in no particular sequence
    listed: set = field(default_factory=set)  # ids to skip, from the next epoch or load on
    out: dict = field(default_factory=dict)  # epoch -> ids that it leaves out

    def copy(self):
        return Book(
            {epoch: list(ids) for epoch, ids in self.done.items()},
            set(self.listed),
            {epoch: set(ids) for epoch, ids in self.out.items()},
        )


MANNERS = ("to its end", "to its end", "as many as there are", "by hand")
QUERIES = {
    "state_dict": lambda s: s.state_dict(),
    "remaining": lambda s: s.remaining,
    "len": len,
    "repr": repr,
    "lists": lambda s: (s.quarantined, s.skipped),
    "sizes": lambda s: (s.num_valid, s.total_size, s.num_samples, s.rank, s.num_replicas, s.epoch),
    "pickle": lambda s: pickle.loads(pickle.dumps(s)).state_dict(),
    "copy": lambda s: list(copy.deepcopy(s)),
    "equality": lambda s: s == copy.copy(s),
}


class Rank:
    """One rank of a job: its sampler, its loop, the batch its loop holds."""

    def __init__(self, cluster, number, world):
        self.cluster, self.number, self.world = cluster, number, world
        dice = cluster.dice
        self.batch, self.prefetch = dice.randint(1, 5), dice.choice((0, 0, 1, 4, 9))
        self.sampler = cluster.code.sampler(
            cluster.data,
            world,
            number,
            seed=cluster.seed % 7,
            order=order_of(cluster.seed),
            tail=cluster.tail,
        )
        self.manner = dice.choice(MANNERS)
        self.loop, self.held, self.at_end = None, [], False
        self.listed = set()  # what its sampler must have in quarantine
        self.begun = 0  # loops; of some seeds, every second one regroups ids
        self.regroups = False
        self.peeked = False  # whether others than its loop have drawn in this pass
        self.left = []  # loops that were left live on: what counts does not depend on that

    def begin(self):
        """A new loop over a new loader; one that was left, and what it held, is gone."""
        self.left = [*self.left[-2:], self.loop]
        self.loop, self.held, self.at_end = None, [], False
        self.is_fresh = True  # nothing was handed out by this loop
        if self.manner == "by hand":
            plain = PlainLoader(
                range(self.cluster.n), self.batch, sampler=self.sampler, collate_fn=list
            )
            self.loop = iter(plain)
            return
        self.begun += 1
        self.regroups = self.cluster.seed % 4 == 3 and (self.number + self.begun) % 2 == 0
        kind = Shuffling if self.regroups else BatchSampler
        batches = kind(self.sampler, self.batch, drop_last=False)
        self.loop = self.cluster.code.deliveries(_Loader(batches, self), self.sampler._ledger)

    def step(self):
        """The loop comes back for a batch; True if it got one."""
        self.cluster.settle(self)
        try:
            self.held = next(self.loop)
        except StopIteration:
            self.at_end = True
            return False
        self.is_fresh = False
        self.cluster.handed(self, self.held)
        if self.manner == "by hand":
            self.commit_by_hand()
        if self.manner == "as many as there are" and self.cluster.had_all(self):
            self.cluster.settle(self)
            self.at_end = True
        return True

    def commit_by_hand(self):
        """Now and then too much at first, which must be refused at once."""
        if self.cluster.dice.random() < 0.1 and not self.peeked:
            try:
                self.sampler.commit(len(self.held) + 1)
            except errors.CommitError:
                pass
            else:
                raise Wrong(f"rank {self.number} committed more than it was handed")
        self.sampler.commit(len(self.held))
        self.cluster.settle(self)


class _Loader:
    """A loader with workers that draw ``prefetch`` batches ahead: what torch's iterators do, without processes."""

    def __init__(self, batches, rank):
        self.batches = DrawnBatches(batches, rank.sampler, in_order=not rank.regroups)
        self.rank = rank

    def batching(self):
        """Ranks differ in their batches here, which no plan of lanes allows."""
        return Batching(None, drops=False)

    def open(self):
        """The batches of one pass; drawing ahead begins at once."""
        drawn, ahead = iter(self.batches), deque()
        exhausted = object()
        for _ in range(self.rank.prefetch):
            ahead.append(next(drawn, exhausted))

        def batch_of_samples():
            ahead.append(next(drawn, exhausted))
            batch = ahead.popleft()
            if batch is exhausted or self.rank.cluster.slips():
                raise StopIteration
            places = tuple(place for place, id in enumerate(batch) if id in self.rank.cluster.bad)
            return BatchReport(batch, places) if places else batch

        return _Batches(batch_of_samples), self.batches.drawn


class _Batches:
    """An iterator that lets a StopIteration out, as torch's do; a generator would not."""

    def __init__(self, batch):
        self.batch = batch

    def __iter__(self):
        return self

    def __next__(self):
        return self.batch()


class Cluster:
    """One seed's story."""

    def __init__(self, seed, code=None, most_events=120):
        self.seed, self.code, self.most_events = seed, code or Production(), most_events
        self.dice = random.Random(seed)
        self.n = self.dice.choice((1, 2, 3, 7, 10, 23, 40))
        self.data = range(self.n)
        if has_windows(seed):
            self.data = Windows(random.Random(seed))
            self.n = len(self.data)
        self.tail = self.dice.choice(("pad", "pad", "exact", "drop"))
        self.bad = {id for id in range(self.n) if (id * 7 + seed) % 5 == 0}
        self.story = [f"{self.n} samples, tail {self.tail}"]
        self.saved = [(None, Book(), 0)]  # (record, book, epoch) in the sequence they were made
        self.book, self.epoch = Book(), 0
        self.planned = {}  # epoch -> the lanes it was planned for
        self.slipping = False  # whether the next batch that is read raises StopIteration

    def slips(self):
        slipping, self.slipping = self.slipping, False
        return slipping

    def tell(self, text):
        self.story.append(text)
        if len(self.story) > self.most_events:
            raise _Over

    def run(self):
        """Play until a few epochs are read or the story is long enough; Wrong where the book disagrees."""
        if has_windows(self.seed):
            anchors = self.data.samples.index.anchors
            if [anchors.locate(id) for id in range(self.n)] != self.data.anchors():
                raise Wrong("ids are not the anchors, one by one")
        try:
            while self.epoch < 3:
                self.job()
        except _Over:
            pass

    # -- a job: one world size, from the newest record or an older one, until it is killed or done

    def job(self):
        dice = self.dice
        record, book, epoch = self.saved[
            -1 if dice.random() < 0.85 else dice.randrange(len(self.saved))
        ]
        self.saved = self.saved[: self.saved.index((record, book, epoch)) + 1]
        self.book, self.epoch = book.copy(), epoch
        world = dice.randint(1, 4)
        self.tell(
            f"job of {world} starts in epoch {epoch} with {len(self.book.done.get(epoch, []))} done"
        )
        self.ranks = [Rank(self, number, world) for number in range(world)]
        if record is not None:
            self.take_skips()
        self.load(record)
        self.start_pass()
        if dice.random() < 0.2:
            self.save()  # before any batch
        steady = dice.random() < 0.5  # ranks keep step, as under DDP, or run free
        while self.epoch < 3:
            at_random = dice.random()
            event = next((event for limit, event in EVENTS if at_random < limit), None)
            if event == "kill":
                return self.tell("killed")
            if event is None:
                self.step(steady)
            else:
                getattr(self, event)()
            if all(rank.at_end for rank in self.ranks):
                self.end_of_epoch()
        return self.save()

    def load(self, record):
        for rank in self.ranks:
            if record is not None:
                for _ in range(1 if self.dice.random() < 0.8 else 2):
                    rank.sampler.load_state_dict(record)
                rank.listed |= quarantined(record)
                self.ask_for_a_finished_epoch(rank)
            if self.dice.random() < 0.5:
                rank.sampler.set_epoch(self.epoch)
            if rank.sampler.epoch != self.epoch:
                raise Wrong(
                    f"rank {rank.number} resumed in epoch {rank.sampler.epoch}, the book is in {self.epoch}"
                )

    def ask_for_a_finished_epoch(self, rank):
        if self.epoch and self.dice.random() < 0.1:
            try:
                rank.sampler.set_epoch(self.epoch - 1)
            except errors.EpochError:
                return
            raise Wrong(
                f"rank {rank.number} took epoch {self.epoch - 1}, which its record calls finished"
            )

    def take_skips(self):
        """An epoch begins, or a record is loaded: from here on it leaves out what is listed and not done yet."""
        done = set(self.book.done.get(self.epoch, []))
        self.book.out.setdefault(self.epoch, set()).update(self.book.listed - done)

    def start_pass(self):
        """The book deals what is left, on its own."""
        world = len(self.ranks)
        done = [*self.book.done.get(self.epoch, []), *self.book.out.get(self.epoch, ())]
        if not self.book.done.get(self.epoch):
            self.planned[self.epoch] = Lanes(world, 1, world)
        order = order_of(self.seed).plan(self.data, self.n, lambda: self.planned[self.epoch])
        order = (
            order.bind(self.n, seed=self.seed % 7, epoch=self.epoch).take(range(self.n)).tolist()
        )
        self.dealer = Epoch(order)
        self.dealer.left = [id for id in order if id not in set(done)]
        self.hands = (
            self.dealer.deal(world, self.tail) if self.dealer.left else [[] for _ in range(world)]
        )
        self.real = [set(hand) for hand in self.dealer.real(world)]
        self.taken = [0] * world
        self.left = [list(hand) for hand in self.hands]
        for rank in self.ranks:
            rank.peeked = False
            rank.begin()

    def step(self, steady):
        ranks = [rank for rank in self.ranks if not rank.at_end]
        for rank in ranks if steady else [self.dice.choice(ranks)]:
            if self.slipping and rank.manner != "by hand":
                self.slips_on(rank)
                continue
            got = rank.step()
            self.tell(f"rank {rank.number} takes {rank.held if got else 'nothing more'}")

    def handed(self, rank, ids):
        left = self.left[rank.number]
        expected = left[: len(ids)]
        if rank.regroups and len(set(ids)) == len(ids) and set(ids) <= set(left):
            return
        if list(ids) != expected:
            raise Wrong(f"rank {rank.number} was handed {list(ids)}, its turn was {expected}")

    def settle(self, rank):
        """By the contract, what a rank holds is committed now."""
        ids, left = rank.held, self.left[rank.number]
        # padding is another rank's id
        real = [id for id in ids if id in self.real[rank.number]]
        self.left[rank.number] = [id for id in left if id not in set(ids)]
        self.book.done.setdefault(self.epoch, []).extend(real)
        self.taken[rank.number] += len(ids)
        if rank.manner != "by hand":  # torch's loader passes no report on
            rank.listed |= self.bad & set(ids)
        rank.held = []

    def end_of_epoch(self):
        done = Counter(self.book.done.get(self.epoch, []))
        missing = len(set(range(self.n)) - set(done) - self.book.out.get(self.epoch, set()))
        if (
            max(done.values(), default=0) > 1
            or (missing and self.tail != "drop")
            or missing >= len(self.ranks)
        ):
            raise Wrong(
                f"epoch {self.epoch} ended with {missing} missing, {sum(done.values()) - len(done)} repeated"
            )
        self.tell(f"epoch {self.epoch} is read")
        self.epoch += 1
        for rank in self.ranks:
            if self.dice.random() < 0.5:
                rank.sampler.set_epoch(self.epoch)
        if self.epoch < 3:
            if self.dice.random() < 0.1:
                self.list_a_skip()
            self.take_skips()
            self.start_pass()

    def had_all(self, rank):
        """Whether a rank was handed everything of its pass, and its sampler may have moved on."""
        hand = len(self.hands[rank.number])
        return rank.at_end or (hand > 0 and self.taken[rank.number] + len(rank.held) == hand)

    # -- records

    def save(self):
        for rank in self.ranks:
            self.settle(rank)
            rank.sampler._ledger.settle()
        states = [rank.sampler.state_dict() for rank in self.ranks]
        merged = self.code.merge(states if self.dice.random() < 0.5 else dict(enumerate(states)))
        sealed = records.build(
            number=1, token="0" * 12, step=0, time="", states={"s": merged}, extras={}
        )
        record = records.decode(records.encode(sealed), "the record")["states"]["s"]
        epoch, done = self.epoch, self.book.done.get(self.epoch, [])
        dropped = self.tail == "drop" and all(self.had_all(rank) for rank in self.ranks)
        out = self.book.out.get(epoch, set())
        if done and (len(done) + len(out) == self.n or dropped):
            epoch, done = (
                epoch + 1,
                [],
            )  # nothing of it remains: the record stands at the next one's start
        if (record["epoch"], record["committed"]) != (epoch, len(done)):
            raise Wrong(
                f"the record says epoch {record['epoch']}, {record['committed']} done; the book {epoch}, {len(done)}"
            )
        if len(states) == 1 and (states[0]["epoch"], states[0]["committed"]) != (epoch, len(done)):
            raise Wrong(
                f"the only rank says epoch {states[0]['epoch']}, {states[0]['committed']} done, unlike its record"
            )
        listed = set().union(*(rank.listed for rank in self.ranks))
        if quarantined(record) != listed:
            raise Wrong(
                f"the record has {quarantined(record)} in quarantine, the ranks had {listed}"
            )
        self.saved.append((record, self.book.copy(), epoch))
        self.tell(f"saved: epoch {epoch}, {len(done)} done, {record['segments']}")

    def roll_back(self):
        """The newest record is loaded into samplers whose loops are live: those must raise, not deliver."""
        if any(rank.at_end for rank in self.ranks):
            return
        record, book, epoch = self.saved[-1]
        if record is None or epoch != self.epoch:
            return
        self.tell("the newest record is loaded under live loops")
        self.slipping = False
        for rank in self.ranks:
            rank.sampler.load_state_dict(record)
            rank.listed |= quarantined(record)
            rank.held = []
            if rank.is_fresh:
                continue  # a loop that was handed nothing yet goes on over what is loaded
            try:
                next(rank.loop)
            except errors.StaleIteratorError:
                continue
            except StopIteration:
                if self.had_all(rank) or not self.hands[rank.number]:
                    continue  # it had nothing left to deliver, and just ends
            raise Wrong(f"rank {rank.number}'s loop of before went on")
        listed = self.book.listed  # a sampler keeps what it was told, whatever it loads
        self.book, self.epoch = book.copy(), epoch
        self.book.listed |= listed
        self.take_skips()
        self.start_pass()

    def leave_and_begin_again(self):
        rank = self.dice.choice(self.ranks)
        if not self.had_all(rank):
            self.tell(
                f"rank {rank.number} breaks out of its loop with {rank.held} and begins again"
            )
            rank.begin()

    def query(self):
        """One rank alone is asked something, which changes nothing."""
        rank, (name, ask) = self.dice.choice(self.ranks), self.dice.choice(list(QUERIES.items()))
        self.tell(f"rank {rank.number} is asked for {name}")
        ask(rank.sampler)

    def look_and_leave(self):
        """All ranks leave their loops at the same step, one of them has looked at its state: nobody falls behind."""
        if any(map(self.had_all, self.ranks)):
            return
        rank, name = self.dice.choice(self.ranks), self.dice.choice(("state_dict", "remaining"))
        QUERIES[name](rank.sampler)
        self.tell(f"rank {rank.number} is asked for {name}, and all break out of their loops")
        for rank in self.ranks:
            rank.begin()

    def skip(self):
        """Every rank is told to leave out the same id, all of them in their loops or none."""
        if any(rank.is_fresh and rank.manner == "by hand" for rank in self.ranks):
            return
        self.list_a_skip()

    def list_a_skip(self):
        first = self.dice.randrange(self.n)
        ids = range(first, min(self.n, first + self.dice.choice((1, 1, 2, self.n))))
        self.tell(f"{ids} are to be skipped")
        self.book.listed |= set(ids)
        for rank in self.ranks:
            rank.sampler.skip(ids)

    def slip(self):
        """The next batch that a loader reads raises StopIteration."""
        self.slipping = True

    def slips_on(self, rank):
        """A dataset's StopIteration must be an error, and costs nothing but the loop."""
        self.settle(rank)
        before = self.had_all(rank)
        try:
            rank.held = next(rank.loop)
        except errors.EarlyStopError:
            self.tell(f"rank {rank.number}'s dataset raises StopIteration")
            return rank.begin()
        except StopIteration:
            self.slipping = False
            rank.at_end = True
            if before or not self.hands[rank.number]:
                return None
        raise Wrong(f"rank {rank.number}'s dataset raised StopIteration, and the pass ended")

    def peek(self):
        rank = self.dice.choice(self.ranks)
        if not self.had_all(rank):
            rank.peeked = True
            drawn = [
                id for id, _ in zip(rank.sampler, range(self.dice.randint(0, 3)), strict=False)
            ]
            self.tell(f"rank {rank.number} peeks at {drawn}")


def quarantined(record):
    """The ids that a sampler's record lists, as a set."""
    return {id for start, stop in record.get("quarantined", []) for id in range(start, stop)}


class _Over(Exception):
    """The story is long enough."""


def play(seed, code=None):
    """None, or (what is wrong, the story) of one seed."""
    cluster = Cluster(seed, code)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of throw-away iterators that were read to their end
            cluster.run()
    except (AssertionError, errors.GlobidxError, ValueError, IndexError) as error:
        return f"{type(error).__name__}: {error}", cluster.story
    return None
