"""The prefix cache of one replica: which units of KV blocks are cached, who holds them, and which go first.

A unit is `unit_blocks` KV blocks whose content a chain of hashes names; its id is a dense rank 0..U-1, and ids within
one chain differ. One queue holds the free blocks, least recently freed first: private runs (nameless, any number of
blocks) and cached units that no request holds. Allocation takes blocks from the head; a unit that loses a block is no
longer cached, what is left of it stays at the head as a private run. At the start all blocks are one private run.

State of a replica, uint32 (unsigned indices spare the test for negative ones), written by these functions alone:

    nodes (rows, WIDTH)  row 0 is the queue itself: NEXT its head, PREV its tail (a ring through row 0, so that linking
                         needs no branches), DEBT, POOL, FRESH. Every other row in use is a run in the queue (NAME 0,
                         COUNT blocks) or a cached unit (NAME its id + 1, COUNT = unit_blocks, REFERENCES holders; in
                         the queue if and only if nobody holds it). Rows given back are used first, so that few are
                         ever touched and they stay in the processor's cache.
    where (U,)           the row of a cached unit, 0 for the others.

and, beside the flat chains of all requests, `held` (m,) uint8: whether the request holds the cached unit (1) or has a
private copy of its own (0), because the id was cached already when it computed it.

Allocations are only counted (DEBT) and taken from the queue later, by `settle`. That is exact: releases join at the
tail and allocations leave at the head, so the i-th block to leave is the same whenever it leaves, provided that the
queue never runs dry (callers allocate no more than is free) and that nothing is taken from its middle meanwhile. Taking
from the middle (`acquire`), and asking whether a unit is still cached (`lookup`, `register`), settle first; `release`
touches only units that are held, which are not in the queue.

Rows: after a settling every run has a block that is neither in a unit nor held, so runs and units together are at most
kv_blocks; until the next one a row more for each held unit and one run before it may join. 2 kv_blocks + 4 are enough.
"""

import numpy as np
import numpy.typing as npt

from trilemma.sim.compiled import compiled, entry

REFERENCES, COUNT, PREV, NEXT, NAME, DEBT, POOL, FRESH = range(8)
WIDTH = 8
ONE = np.uint32(1)  # keeps sums of rows unsigned


def rows_for(kv_blocks: int) -> int:
    """Rows of a replica's `nodes`. ValueError for no blocks or more than 2^30."""
    if not 1 <= kv_blocks <= 2**30:
        raise ValueError(f"a cache has from 1 to 2^30 blocks, found {kv_blocks}")
    return 2 * kv_blocks + 4


def new_nodes(kv_blocks: int) -> npt.NDArray[np.uint32]:
    """(rows, WIDTH): all blocks free, one private run. ValueError for no blocks or more than 2^30."""
    nodes = np.empty((rows_for(kv_blocks), WIDTH), np.uint32)
    clear(nodes, kv_blocks)
    return nodes


def new_where(units: int) -> npt.NDArray[np.uint32]:
    """(units,): nothing cached."""
    return np.zeros(units, np.uint32)


@entry
def cut_at_repeats(offsets, ids, units, last):
    """Lower `units` (n,) so that no chain names an id twice; `last` (ids,) filled with -1 is scratch."""
    for chain in range(units.size):
        begin = offsets[chain]
        for k in range(units[chain]):
            if last[ids[begin + k]] == chain:
                units[chain] = k
                break
            last[ids[begin + k]] = chain


@entry
def clear(nodes, kv_blocks):
    """All blocks free again and nameless; the caller fills `where` with 0."""
    nodes[0, :] = 0
    nodes[0, PREV] = 1
    nodes[0, NEXT] = 1
    nodes[0, FRESH] = 2  # first row never used; POOL 0: no rows given back, which are chained by NEXT
    nodes[1, :] = 0
    nodes[1, COUNT] = kv_blocks


@compiled
def allocate(nodes, blocks):
    """Count `blocks` as taken from the head of the queue, at most what is free; some call must settle now and then."""
    nodes[0, DEBT] += np.uint32(blocks)


@compiled
def settle(nodes, where):
    """Take the blocks that are owed from the head of the queue; units that lose a block are no longer cached."""
    debt = np.int64(nodes[0, DEBT])
    if debt == 0:
        return
    head = nodes[0, NEXT]
    pool = nodes[0, POOL]
    while True:
        name = nodes[head, NAME]
        if name:
            where[name - ONE] = 0
        count = np.int64(nodes[head, COUNT])
        if count > debt:
            nodes[head, COUNT] = count - debt
            nodes[head, NAME] = 0
            break
        debt -= count
        following = nodes[head, NEXT]
        nodes[head, NEXT] = pool
        pool = head
        head = following
        if debt == 0:
            break
    nodes[head, PREV] = 0
    nodes[0, NEXT] = head
    nodes[0, POOL] = pool
    nodes[0, DEBT] = 0


@compiled
def _new_row(nodes):
    row = nodes[0, POOL]
    if row:
        nodes[0, POOL] = nodes[row, NEXT]
    else:
        row = nodes[0, FRESH]
        nodes[0, FRESH] = row + ONE
    return row


@compiled
def _push_run(nodes, blocks):
    """Put nameless blocks at the tail of the queue, in one row with nameless ones before them."""
    tail = nodes[0, PREV]
    if tail and nodes[tail, NAME] == 0:
        nodes[tail, COUNT] += np.uint32(blocks)
    else:
        row = _new_row(nodes)
        nodes[row, NAME] = 0
        nodes[row, COUNT] = blocks
        nodes[tail, NEXT] = row
        nodes[row, PREV] = tail
        nodes[row, NEXT] = 0
        nodes[0, PREV] = row


@compiled
def lookup(nodes, where, ids, begin, limit):
    """(hits, idle): the leading cached units of the chain ids[begin:begin + limit], how many of them nobody holds."""
    settle(nodes, where)
    hits = 0
    idle = 0
    for k in range(np.uint64(begin), np.uint64(begin + limit)):
        row = where[ids[k]]
        if row == 0:
            break
        hits += 1
        if nodes[row, REFERENCES] == 0:
            idle += 1
    return hits, idle


@compiled
def acquire(nodes, where, ids, held, begin, hits):
    """Hold the leading `hits` cached units of a chain, as `lookup` found them, with no allocation in between.

    Returns the units that nobody held before: their blocks are no longer free.
    """
    taken = 0
    for k in range(np.uint64(begin), np.uint64(begin + hits)):
        row = where[ids[k]]
        references = nodes[row, REFERENCES]
        if references == 0:
            before = nodes[row, PREV]
            after = nodes[row, NEXT]
            nodes[before, NEXT] = after
            nodes[after, PREV] = before
            taken += 1
        nodes[row, REFERENCES] = references + ONE
        held[k] = 1
    return taken


@compiled
def register(nodes, where, ids, held, begin, first_unit, last_unit, unit_blocks):
    """Units first_unit..last_unit - 1 of a chain are being computed, in blocks the request has allocated already.

    They are cached from now on and held by the request; where the id is cached already the copy stays private.
    """
    settle(nodes, where)
    pool = nodes[0, POOL]
    for k in range(np.uint64(begin + first_unit), np.uint64(begin + last_unit)):
        unit = ids[k]
        if where[unit]:
            held[k] = 0
        else:
            row = pool
            if row:
                pool = nodes[row, NEXT]
            else:
                row = nodes[0, FRESH]
                nodes[0, FRESH] = row + ONE
            nodes[row, REFERENCES] = 1
            nodes[row, COUNT] = unit_blocks
            nodes[row, NAME] = unit + ONE
            where[unit] = row
            held[k] = 1
    nodes[0, POOL] = pool


@compiled
def release(nodes, where, ids, held, begin, units, unit_blocks, private_blocks):
    """A request leaves: its private blocks first as one run, then its first `units` units from the last to the first.

    `units` are those it acquired or registered, `private_blocks` its blocks beyond them. Returns the blocks that are
    free now and were not before.
    """
    freed = private_blocks
    if private_blocks > 0:
        _push_run(nodes, private_blocks)
    tail = nodes[0, PREV]
    last = np.uint64(begin + units - 1)
    for i in range(units):
        k = last - np.uint64(i)
        if held[k]:
            row = where[ids[k]]
            references = nodes[row, REFERENCES] - ONE
            nodes[row, REFERENCES] = references
            if references == 0:
                nodes[row, PREV] = tail
                nodes[tail, NEXT] = row
                tail = row
                freed += unit_blocks
        else:
            nodes[tail, NEXT] = 0
            nodes[0, PREV] = tail
            _push_run(nodes, unit_blocks)
            tail = nodes[0, PREV]
            freed += unit_blocks
    nodes[tail, NEXT] = 0
    nodes[0, PREV] = tail
    return freed
