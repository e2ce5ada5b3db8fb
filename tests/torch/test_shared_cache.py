"""One cache a node: chunks that any loader worker of any rank has decoded are decoded for all of them."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import zarr

from globidx import (
    DataLoader,
    FileCacheDataset,
    GlobalIndexManager,
    ResumableDistributedSampler,
    merge_states,
    orders,
)
from globidx.testing import assert_exact_epoch, assert_resumes

CHUNK, ROWS, FILES, BATCH, WINDOW, WIDE = 16, 320, 12, 48, 4, 64
LANES = 4, 2
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def folder(tmp_path):
    """Files whose rows tell which sample they are."""
    for number in range(FILES):
        rows = (
            np.arange(number * ROWS, (number + 1) * ROWS, dtype="i8").repeat(WIDE).reshape(-1, WIDE)
        )
        zarr.create_array(f"{tmp_path}/{number:02}.zarr", data=rows, chunks=(CHUNK, WIDE))
    return tmp_path


def rank_of(folder, rank, ranks, record, steps, together, answers, cache):
    """A rank with two workers that takes so many steps, all ranks in lock-step as gradients are, or goes to the end."""
    in_flight = LANES[0] * LANES[1] * WINDOW * CHUNK * WIDE * 8
    dataset = FileCacheDataset(GlobalIndexManager(folder), cache=cache, cache_bytes=2 * in_flight)
    order = orders.ChunkShuffle(window=WINDOW, lanes=LANES, batch=BATCH)
    sampler = ResumableDistributedSampler(dataset, ranks, rank, tail="exact", order=order)
    if record is not None:
        sampler.load_state_dict(record)
    loader = DataLoader(dataset, BATCH // ranks, sampler=sampler, num_workers=2)
    ids = []
    for step, batch in enumerate(loader, 1):
        assert (batch == batch[:, :1]).all()
        ids += batch[:, 0].tolist()
        together.wait(60)
        if step == steps:
            # the batch that the loop holds is in it
            state = sampler.state_dict()
            break
    else:
        state = sampler.state_dict()
    answers.put((rank, ids, state, dataset.counters().decodes))
    together.wait(60)


def leg(folder, ranks, record=None, steps=None, cache="shared"):
    """What all ranks were given, the record, and how often chunks were decoded."""
    together, answers = FORK.Barrier(ranks), FORK.Queue()
    processes = [
        FORK.Process(
            target=rank_of, args=(folder, rank, ranks, record, steps, together, answers, cache)
        )
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    found = sorted(answers.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(20)
    ids = [id for _, some, _, _ in found for id in some]
    return ids, merge_states([state for _, _, state, _ in found]), sum(one[-1] for one in found)


def test_each_chunk_is_decoded_once_on_the_ranks_planned_for_and_on_any_others(folder):
    """4 ranks x 2 workers, resumed on 3, and on 2, in new processes each time; without it, far more."""
    seen, record = [], None
    for ranks, steps in ((4, 20), (3, 20), (2, None)):
        ids, after, decodes = leg(folder, ranks, record, steps)
        chunks = len({id // CHUNK for id in ids})
        # one that was first decoded for a batch that the loop did not come to is not reported
        assert decodes == chunks if steps is None else 0.9 * chunks < decodes <= chunks
        if ranks == 3:
            _, _, alone = leg(folder, ranks, record, steps, "process")
            assert alone > 2 * decodes
        seen, record = seen + ids, after
    assert sorted(seen) == list(range(FILES * ROWS))


def test_epochs_and_resumes_are_exact_with_a_shared_cache(folder):
    """The checks of a user's loop hold: each sample once on any ranks, and the same samples after a resume."""

    def make_loader(rank, world_size):
        dataset = FileCacheDataset(
            GlobalIndexManager(folder), cache="shared", cache_bytes=2**16, with_id=True
        )
        order = orders.ChunkShuffle(window=WINDOW, lanes=LANES, batch=BATCH)
        sampler = ResumableDistributedSampler(dataset, world_size, rank, tail="exact", order=order)
        return DataLoader(dataset, BATCH // world_size, sampler=sampler)

    assert_exact_epoch(make_loader, world_sizes=(3,))
    assert_resumes(make_loader, world_sizes=((4, 3),), stop_after=20)
