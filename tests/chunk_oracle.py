"""ChunkShuffle played out with lists: blocks as lists of ids, lanes as hands that are dealt one position at a time.

It shares with the library the private permutation and the definition's constants, and no other line.
"""

from __future__ import annotations

import hashlib

import numpy as np

from globidx.core.orders.permutation import Permutation


def order(lengths, chunks, window, lanes, seed, epoch):
    """All ids, in the sequence of their positions."""
    n = sum(lengths)
    ground, unit, whole_units = _ground(
        lengths, chunks, window, max(1, lanes.batch // lanes.ranks), seed, epoch
    )
    lane_of = [
        (p // lanes.batch % lanes.workers) * lanes.ranks + p % lanes.batch % lanes.ranks
        for p in range(n)
    ]  # the definition
    quotas = [lane_of.count(lane) for lane in range(lanes.total)]
    stretches = _stretches(quotas, unit, whole_units)
    hands = [[] for _ in quotas]
    for number, (start, stop) in enumerate(stretches):
        while start < stop:  # windows: units of the ground, as far as they are in the stretch
            end = min(stop, start - start % unit + unit)
            hands[number % lanes.total] += [
                ground[place] for place in _by_lot(start, end, unit, seed, epoch)
            ]
            start = end
    return [hands[lane].pop(0) for lane in lane_of]


def _ground(lengths, chunks, window, share, seed, epoch):
    n = sum(lengths)
    chunks = [min(chunk, max(1, length)) for chunk, length in zip(chunks, lengths, strict=True)]
    by_length = sorted((chunk, length) for chunk, length in zip(chunks, lengths, strict=True))
    block = 1
    for place, (chunk, _) in enumerate(by_length):
        if n and sum(length for _, length in by_length[: place + 1]) >= 0.95 * n:
            block = chunk
            break
    held = dict.fromkeys(chunks, 0)
    for chunk, length in zip(chunks, lengths, strict=True):
        held[chunk] += length // chunk * chunk
    kinds = [chunk for chunk in sorted(held) if held[chunk] and held[chunk] * 64 >= n]
    unit, cut = (
        window * block,
        next(length for length in range(block, block * share + 1, block) if length % share == 0),
    )
    if sum(held[chunk] for chunk in kinds if block % chunk == 0) < 0.9 * n:
        unit, cut = max(block, unit - 2 * block), share
    if cut < unit:
        unit = unit // cut * cut

    blocks, ends, first = {chunk: [] for chunk in kinds}, [], 0
    for chunk, length in zip(chunks, lengths, strict=True):
        ids = list(range(first, first + length))
        first += length
        while chunk in kinds and len(ids) >= chunk:
            blocks[chunk].append(ids[:chunk])
            ids = ids[chunk:]
        if ids:
            ends.append(ids)
    rows = [_joined(_mixed(blocks[chunk], f"blocks of {chunk}", seed, epoch)) for chunk in kinds]
    rows.append(_joined(_mixed(ends, "ends", seed, epoch)))
    units = [row[at : at + unit] for row in rows for at in range(0, len(row) - unit + 1, unit)]
    rests = [row[len(row) - len(row) % unit :] for row in rows]
    return _joined(_mixed(units, "units", seed, epoch) + rests), unit, len(units)


def _joined(lists):
    return [item for some in lists for item in some]


def _mixed(things, what, seed, epoch):
    places = Permutation(
        max(1, len(things)), seed=seed, epoch=epoch, purpose=f"chunk-shuffle.1 {what}"
    )
    return [things[place] for place in places.forward(np.arange(len(things))).tolist()]


def _stretches(quotas, unit, whole_units):
    """Whole units for each lane, then what is left over; where there are too few units, the first lanes yield."""
    wanted = [quota // unit for quota in quotas]
    short = max(0, sum(wanted) - whole_units)
    wanted = [
        max(0, w - short // len(wanted) - (lane < short % len(wanted)))
        for lane, w in enumerate(wanted)
    ]
    found, at = [], 0
    for lane, want in enumerate(wanted):
        wanted[lane] = min(want, whole_units - at // unit)
        found.append((at, at := at + wanted[lane] * unit))
    for quota, want in zip(quotas, wanted, strict=True):
        found.append((at, at := at + quota - want * unit))
    return found


def _by_lot(start, end, unit, seed, epoch):
    """Places ``[start, end)`` sorted by SplitMix64 of each, ties (of its high bits) by place."""
    text = f"globidx.chunk-shuffle.1 windows {seed} {epoch}"
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    bits = max(1, (unit - 1).bit_length())
    return sorted(range(start, end), key=lambda place: (_split_mix(key, place) >> bits, place))


def _split_mix(key, number):
    mask = 2**64 - 1
    z = ((number + 1) * 0x9E3779B97F4A7C15 + key) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)
