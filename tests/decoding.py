"""A little model of workers with caches: how often chunks are decoded when an epoch is read. Shares nothing with the library."""

from __future__ import annotations

from collections import OrderedDict


def decodes_per_chunk(order, lengths, chunks, *, ranks, workers, batch, cache):
    """Decodes of each chunk, on average, where every worker's cache holds ``cache`` items, least recently used first out.

    Within a batch, chunks that are there are read first, then the others by file and place.
    """
    names, sizes = [], []  # of each id its chunk, of each chunk its items
    for length, chunk in zip(lengths, chunks, strict=True):
        for start in range(0, length, chunk):
            names += [len(sizes)] * min(chunk, length - start)
            sizes.append(min(chunk, length - start))
    ids, decodes = order.take(range(len(names))).tolist(), 0
    for rank in range(ranks):
        stream = [names[id] for id in ids[rank::ranks]]
        batches = [stream[start : start + batch] for start in range(0, len(stream), batch)]
        for worker in range(workers):
            kept, used = OrderedDict(), 0
            for ahead in batches[worker::workers]:
                wanted = sorted(set(ahead))
                there = [name for name in wanted if name in kept]
                for name in there:
                    kept.move_to_end(name)
                for name in wanted:
                    if name in there:
                        continue
                    decodes += 1
                    kept[name] = sizes[name]
                    used += sizes[name]
                    while used > cache:
                        used -= kept.popitem(last=False)[1]
    return decodes / len(sizes)
