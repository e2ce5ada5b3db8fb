"""Draw the pictures of the documentation, beside this file; globidx computes what they show.

python docs/figures/draw.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from canvas import GREY, INK, RANKS, Canvas

from globidx import GlobalIndex, ResumableDistributedSampler, Window, merge_states, orders
from globidx.core.windows.sequences import Sequences
from globidx.core.windows.windowed import WindowedIndex

HERE = Path(__file__).parent


def samplers(
    world_size: int, dataset: object = range(18), **options: object
) -> list[ResumableDistributedSampler]:
    """One sampler for each rank."""
    settings = {"seed": 7, "tail": "exact", **options}
    return [
        ResumableDistributedSampler(dataset, world_size, rank, **settings)
        for rank in range(world_size)
    ]


def dealt(ranks: list[ResumableDistributedSampler]) -> Iterator[tuple[int, int]]:
    """(rank, sample id) of what the ranks are dealt, in the sequence of the order."""
    hands = [list(rank) for rank in ranks]
    for turn in range(max(map(len, hands))):
        yield from ((rank, hand[turn]) for rank, hand in enumerate(hands) if turn < len(hand))


def idea() -> Canvas:
    """A run on two ranks, killed, goes on with three."""
    canvas = Canvas(
        700,
        232,
        "An epoch is one order of all samples; two ranks read a prefix, three ranks read the rest",
    )
    before, after = samplers(2), samplers(3)
    order = list(dealt(before))
    for rank in before:
        rank.commit(4)
    record = before[0].state_dict()
    for rank in after:
        rank.load_state_dict(record)
    canvas.text(10, 24, "the order of the epoch: computed from (seed, epoch), never stored")
    for position, (_, sample) in enumerate(order):
        canvas.box(10 + 36 * position, 34, sample, GREY, filled=False)
    canvas.text(10, 92, "2 ranks take positions in turn ...")
    for position, (rank, sample) in enumerate(order[:8]):
        canvas.box(10 + 36 * position, 102, sample, RANKS[rank], filled=True)
    canvas.line(295, 76, 295, 222, dashed=True)
    canvas.text(309, 118, "killed: the record says “epoch 0, the first 8 samples”")
    canvas.text(309, 160, "... and 3 ranks go on after it")
    for position, (rank, sample) in enumerate(dealt(after)):
        canvas.box(10 + 36 * (8 + position), 170, sample, RANKS[rank], filled=False)
    for rank in range(3):
        canvas.box(10 + 72 * rank, 170, f"rank {rank}", RANKS[rank], filled=True, width=66)
    return canvas


def arithmetic() -> Canvas:
    """From a position to an item of a file."""
    lengths, names = [7, 4, 7], ["a.zarr", "b.h5", "c.zarr"]
    index, sampler = GlobalIndex(lengths), samplers(1)[0]
    canvas = Canvas(700, 252, "position, sample id, file and item")
    canvas.text(10, 24, "position in the epoch")
    canvas.text(
        10, 84, "order: sample id, a bijection from (algorithm, seed, epoch, number of samples)"
    )
    canvas.text(10, 170, "index: file and item, by the prefix sums of the files' lengths")
    for position, sample in enumerate(list(sampler)):
        x = 10 + 36 * position
        canvas.box(x, 34, position, GREY, filled=False)
        file, item = (int(part[0]) for part in index.locate_many([sample]))
        canvas.arrow(x + 15, 90, 112)
        canvas.box(x, 114, sample, RANKS[file], filled=False)
        canvas.arrow(x + 15, 176, 198)
        canvas.box(x, 200, item, RANKS[file], filled=True)
    for file, name in enumerate(names):
        canvas.text(10 + 120 * file, 246, f"{name}: {lengths[file]} items", colour=RANKS[file])
    return canvas


def deliveries() -> Canvas:
    """What workers have drawn is not what the loop has trained on."""
    canvas = Canvas(
        700,
        150,
        "Batches of one rank: committed, held by the loop, prefetched by workers, not drawn",
    )
    kinds = [
        ("committed", RANKS[2], 5, True),
        ("held", RANKS[1], 1, True),
        ("prefetched", RANKS[0], 4, False),
    ]
    x = 10
    for name, colour, count, filled in [*kinds, ("not drawn", GREY, 6, False)]:
        for batch in range(count):
            canvas.box(
                x + 42 * batch, 46, f"{(x - 10) // 42 + batch}", colour, filled=filled, width=38
            )
        canvas.text(x, 36, name, colour=colour)
        x += 42 * count
    canvas.text(
        10,
        98,
        "batches of one rank, in the sequence of the order; the loop is in the body of batch 5",
    )
    canvas.text(
        10,
        118,
        "after a kill: batch 5 and all behind it are given again, whatever the workers had read",
    )
    canvas.text(10, 138, "after CheckpointManager.save in the body: batch 5 is committed, too")
    return canvas


def uneven() -> Canvas:
    """Four ranks that did not keep step, and the two that go on."""
    canvas = Canvas(700, 205, "Ranks that did not keep step are remembered by their counts")
    counts = (3, 2, 1, 2)
    ranks = samplers(4, range(14), shuffle=False)
    for rank, count in zip(ranks, counts, strict=True):
        rank.commit(count)
    after = samplers(2, range(14), shuffle=False)
    record = merge_states([rank.state_dict() for rank in ranks])
    for rank in after:
        rank.load_state_dict(record)
    canvas.text(10, 24, "4 ranks commit 3, 2, 1 and 2 of their samples ...")
    for sample in range(14):
        rank = sample % 4
        canvas.box(10 + 36 * sample, 34, sample, RANKS[rank], filled=sample // 4 < counts[rank])
    canvas.text(10, 92, "... the record keeps those counts, and what is left is dealt to 2 ranks")
    for rank, sample in dealt(after):
        canvas.box(10 + 36 * sample, 102, sample, RANKS[rank], filled=False)
    canvas.text(
        10, 160, "Once they have read past sample 6, the only gap, the record is one number again."
    )
    for rank in range(4):
        canvas.box(10 + 72 * rank, 172, f"rank {rank}", RANKS[rank], filled=True, width=66)
    return canvas


class Chunked:
    """A dataset of two files, of 20 and 13 items in chunks of 4."""

    chunking = orders.Chunking.of([20, 13], [4, 4])

    def __len__(self) -> int:
        return 33


def chunk_shuffle() -> Canvas:
    """Chunks are shuffled and dealt to lanes; items are shuffled in windows of two chunks."""
    canvas = Canvas(
        700,
        262,
        "ChunkShuffle: chunks are dealt to ranks, items are shuffled within windows of chunks",
    )
    order = orders.ChunkShuffle(window=2, lanes=(2, 1), batch=4)
    lanes = [list(sampler) for sampler in samplers(2, Chunked(), seed=0, order=order)]
    shades = (
        "#0072b2",
        "#56b4e9",
        "#009e73",
        "#7f7f00",
        "#e69f00",
        "#d55e00",
        "#cc79a7",
        "#7f3c8d",
    )

    def colour(sample: int) -> str:
        place, first = (sample, 0) if sample < 20 else (sample - 20, 5)
        return INK if sample == 32 else shades[first + place // 4]

    canvas.text(10, 24, "two files of 20 and 13 items, in chunks of 4: a colour is a chunk")
    for sample in range(33):
        canvas.box(10 + 20.6 * sample, 34, sample, colour(sample), filled=True, width=20)
    for rank, lane in enumerate(lanes):
        y = 112 + 72 * rank
        canvas.text(10, y - 8, f"rank {rank} reads, in this sequence")
        for turn, sample in enumerate(lane):
            canvas.box(10 + 38 * turn, y, sample, colour(sample), filled=True, width=36)
        for window in range(len(lane) // 8):
            canvas.line(
                10 + 38 * 8 * window, y + 32, 10 + 38 * (8 * window + 8) - 6, y + 32, colour=GREY
            )
            canvas.text(
                10 + 38 * 8 * window,
                y + 46,
                "a window of two chunks: the cache holds both",
                colour=GREY,
                size=11,
            )
    canvas.text(
        10,
        252,
        "Each chunk is decoded once, by one rank. 32 is the ragged end of the second file.",
    )
    return canvas


def windowed(window: Window, files: list[int]) -> WindowedIndex:
    """Windows over files that are one chain."""
    return WindowedIndex.of(GlobalIndex(files), Sequences.of_lengths([sum(files)]), window)


def lay_windows(canvas: Canvas, x: float, y: float, window: Window, files: list[int]) -> None:
    """Every sample of a chain of files on a line of its own, below the rows."""
    index, step = windowed(window, files), 30
    owners, items = index.files.locate_many(np.arange(sum(files)))

    def row(at: int, y: float, file: int, item: int, *, filled: bool) -> None:
        canvas.box(x + 66 + step * at, y, item, RANKS[file], filled=filled, width=step - 1)

    canvas.text(x, y + 17, "rows", colour=GREY)
    for at, (file, item) in enumerate(zip(owners.tolist(), items.tolist(), strict=True)):
        row(at, y, file, item, filled=False)
    for id in range(len(index)):
        at = y + 34 + 28 * id
        _, anchor = index.anchors.locate(id)
        canvas.text(x, at + 17, f"id {id}")
        taken = index.rows([id], window.of(""))
        offsets = np.atleast_1d(window.of(""))
        for offset, file, item, inside in zip(
            offsets, *(part[0].tolist() for part in taken), strict=True
        ):
            row(anchor + int(offset), at, file, item, filled=inside)
        place = x + 66 + step * anchor + (step - 1) / 2
        canvas.line(place - 11, at + 26, place + 11, at + 26)


def windows() -> Canvas:
    """Window, stride, padding and chain, each as all samples of a few rows."""
    canvas = Canvas(
        700,
        462,
        "Samples as windows of rows: without padding, with a stride, with padding, and over a chain of files",
    )
    panels = [
        (10, 10, "Window(range(-1, 3))", Window(range(-1, 3)), [7]),
        (370, 10, "Window(range(3), stride=2)", Window(range(3), stride=2), [7]),
        (
            10,
            210,
            'Window(range(-1, 3), pad="edge", after=1)',
            Window(range(-1, 3), pad="edge", after=1),
            [7],
        ),
        (370, 210, 'Window(range(3)), sequences="chain"', Window(range(3)), [4, 3]),
    ]
    for x, y, title, window, files in panels:
        canvas.text(x, y + 14, title)
        lay_windows(canvas, x, y + 26, window, files)
    canvas.text(
        10,
        452,
        "Underlined: the anchor. An outline: padding repeats a row. A colour: a file, whose rows are numbered.",
    )
    return canvas


def sequences() -> Canvas:
    """From a position to the rows of a file."""
    lengths, files = [4, 3, 5], [7, 5]
    canvas = Canvas(700, 322, "position, sample id, sequence and anchor, rows of files")
    index = WindowedIndex.of(GlobalIndex(files), Sequences.of_lengths(lengths), Window(range(2)))
    canvas.text(10, 24, "position in the epoch")
    canvas.text(
        10, 84, "order: sample id, a bijection from (algorithm, seed, epoch, number of samples)"
    )
    canvas.text(10, 156, "sequence and anchor, by the prefix sums of the sequences' anchors")
    canvas.text(10, 228, "rows, by the first row of the sequence and the prefix sums of the files")
    (sampler,) = samplers(1, range(len(index)))
    for position, sample in enumerate(list(sampler)):
        x = 10 + 76 * position
        sequence, anchor = index.anchors.locate(sample)
        taken = index.rows([sample], (0, 1))
        colour = RANKS[sequence]
        canvas.box(x + 14, 34, position, GREY, filled=False)
        canvas.arrow(x + 29, 90, 102)
        canvas.box(x + 14, 104, sample, colour, filled=False)
        canvas.arrow(x + 29, 162, 174)
        canvas.box(x, 176, f"{sequence}, {anchor}", colour, filled=False, width=58)
        canvas.arrow(x + 29, 234, 246)
        for turn, row in enumerate(taken.rows[0].tolist()):
            canvas.box(x + 29 * turn, 248, row, colour, filled=True, width=28)
        canvas.text(
            x + 29, 290, "ab"[taken.files[0, 0]] + ".zarr", anchor="middle", colour=GREY, size=11
        )
    canvas.text(
        10,
        314,
        "a.zarr: rows 0 to 3 and 4 to 6 are sequences 0 and 1; b.zarr: rows 0 to 4 are sequence 2",
    )
    return canvas


FIGURES = (idea, arithmetic, deliveries, uneven, chunk_shuffle, windows, sequences)


if __name__ == "__main__":
    for figure in FIGURES:
        (HERE / f"{figure.__name__}.svg").write_text(figure().svg())
