"""Loaders that are right, and what may go wrong with one: for tests of the checks that must tell them apart."""

import itertools

import torch.utils.data

import globidx

N, BATCH = 41, 4


class Samples(torch.utils.data.Dataset):
    """(value, id) pairs; the value is what ``value_of(id)`` returns."""

    def __init__(self, n=N, value_of=lambda id: torch.tensor([id, -id])):
        self.n, self.value_of = n, value_of

    def __len__(self):
        return self.n

    def __getitem__(self, id):
        return self.value_of(id), id


def maker(n=N, batch=BATCH, *, loader=globidx.DataLoader, change=None, dataset=None, **arguments):
    """make_loader of a right loader, or of one around which ``change`` stands; arguments of the sampler or the loader."""
    dataset = Samples(n) if dataset is None else dataset
    of_loader = {
        key: arguments.pop(key) for key in ("drop_last", "num_workers") if key in arguments
    }

    def make_loader(rank, world_size):
        sampler = globidx.ResumableDistributedSampler(dataset, world_size, rank, **arguments)
        made = loader(dataset, batch_size=batch, sampler=sampler, **of_loader)
        return made if change is None else Wrapped(made, change)

    return make_loader


def plain(change, **arguments):
    """make_loader of torch's own loader, committed by hand, with ``change`` around it."""
    return maker(loader=torch.utils.data.DataLoader, change=change, **arguments)


class Wrapped:
    """A loader around another one, of which ``change`` makes the batches that it hands out."""

    def __init__(self, loader, change):
        self.loader, self.sampler, self.change = loader, loader.sampler, change
        self.record = None

    def __iter__(self):
        return self.change(iter(self.loader))


def without_last(batches):
    """All but the last."""
    return (one for one, _ in itertools.pairwise(batches))


def reordered(batches):
    """The first and the second change places."""
    first, second = next(batches), next(batches)
    yield second
    yield first
    yield from batches


def with_one_twice(batches):
    """The second is handed out again."""
    for number, batch in enumerate(batches):
        yield batch
        if number == 1:
            yield batch


def without_second(batches):
    """The second is left out."""
    for number, batch in enumerate(batches):
        if number != 1:
            yield batch


def prefetched(batches):
    """One batch is fetched while the one before it is trained on."""
    for one, _ in itertools.pairwise(itertools.chain(batches, [None])):
        yield one
