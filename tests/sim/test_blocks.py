"""The prefix cache against a plain model with every block in a list of its own."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilemma.sim import blocks


@dataclass
class PlainCache:
    """The same rules block by block: `queue` holds the unit each free block still belongs to, None for nameless."""

    queue: list[int | None]
    unit_blocks: int
    holders: dict[int, int] = field(default_factory=dict)  # cached unit -> requests that hold it

    def lookup(self, chain):
        hits = 0
        while hits < len(chain) and chain[hits] in self.holders:
            hits += 1
        return hits, sum(self.holders[unit] == 0 for unit in chain[:hits])

    def acquire(self, chain, hits):
        taken = 0
        for unit in chain[:hits]:
            if self.holders[unit] == 0:
                self.queue = [u for u in self.queue if u != unit]
                taken += 1
            self.holders[unit] += 1
        return taken

    def allocate(self, count):
        for _ in range(count):
            unit = self.queue.pop(0)
            if unit is not None:
                del self.holders[unit]
                self.queue = [None if u == unit else u for u in self.queue]

    def register(self, units):
        """Which of them the request holds as cached units; the others are copies of its own."""
        holds = [unit not in self.holders for unit in units]
        self.holders |= {unit: 1 for unit, own in zip(units, holds, strict=True) if own}
        return holds

    def release(self, units, holds, private):
        before = len(self.queue)
        self.queue += [None] * private
        for unit, held in zip(reversed(units), reversed(holds), strict=True):
            if held:
                self.holders[unit] -= 1
            if not held or self.holders[unit] == 0:
                self.queue += [unit if held else None] * self.unit_blocks
        return len(self.queue) - before


def chains_of(rng, requests, units):
    """Chains that share prefixes with earlier ones, ids dense in order of appearance, and where ids repeat later on."""
    chains, fresh = [], 0
    for _ in range(requests):
        length = int(rng.integers(0, units + 1))
        parent = chains[int(rng.integers(len(chains)))] if chains else []
        chain = parent[: int(rng.integers(0, length + 1))]
        spare = [u for u in range(fresh) if u not in chain]
        while len(chain) < length:
            if spare and rng.random() < 0.1:  # not a prefix, as truncated hashes are: copies and broken runs of hits
                chain.append(spare.pop(int(rng.integers(len(spare)))))
            else:
                chain.append(fresh)
                fresh += 1
        chains.append(chain)
    return chains, fresh


class Both:
    """The compiled cache and the plain one, played side by side by a little scheduler."""

    def __init__(self, seed, kv_blocks, unit_blocks, requests=25, units=6):
        rng = np.random.default_rng(seed)
        self.chains, total = chains_of(rng, requests, units)
        self.unit_blocks, self.kv_blocks = unit_blocks, kv_blocks
        self.offsets = np.cumsum([0, *map(len, self.chains)])
        self.ids = np.array([u for chain in self.chains for u in chain], np.uint32)
        self.held = np.zeros(self.ids.size, np.uint8)
        self.nodes, self.where = blocks.new_nodes(kv_blocks), blocks.new_where(total)
        self.plain = PlainCache([None] * kv_blocks, unit_blocks)
        self.free = kv_blocks
        self.running: dict[int, tuple[list[bool], int]] = {}  # request -> (which units it holds, private blocks)
        self.seen = Counter()

    def compare(self):
        """Settled, both caches are the same block for block; compares rarely enough for debts to gather."""
        blocks.settle(self.nodes, self.where)
        queue, row = [], self.nodes[0, blocks.NEXT]
        while row:
            name = int(self.nodes[row, blocks.NAME])
            assert name == 0 or self.nodes[row, blocks.COUNT] == self.unit_blocks
            queue += [name - 1 if name else None] * int(self.nodes[row, blocks.COUNT])
            row = self.nodes[row, blocks.NEXT]
        assert queue == self.plain.queue
        cached = {unit: int(self.nodes[row, blocks.REFERENCES]) for unit, row in enumerate(self.where) if row}
        assert cached == self.plain.holders
        assert self.nodes[0, blocks.FRESH] <= len(self.nodes)

    def check_free(self):
        assert self.free == len(self.plain.queue)
        in_units = sum(holders > 0 for holders in self.plain.holders.values()) * self.unit_blocks
        copies = sum(holds.count(False) for holds, _ in self.running.values()) * self.unit_blocks
        assert self.free + in_units + copies + sum(private for _, private in self.running.values()) == self.kv_blocks

    def admit(self, r, limit, private):
        begin, chain = self.offsets[r], self.chains[r]
        hits, idle = blocks.lookup(self.nodes, self.where, self.ids, begin, min(limit, len(chain)))
        assert (hits, idle) == self.plain.lookup(chain[:limit])
        if r in self.running or idle * self.unit_blocks + private > self.free:
            return
        taken = blocks.acquire(self.nodes, self.where, self.ids, self.held, begin, hits)
        assert taken == idle == self.plain.acquire(chain, hits)
        self.free -= taken * self.unit_blocks
        self.take(private)
        self.running[r] = ([True] * hits, private)
        self.seen["hit"] += hits > 0
        self.seen["shared"] += hits > idle

    def take(self, count):
        if count > 0:
            self.seen["evicted"] += self.plain.queue[0] is not None
            blocks.allocate(self.nodes, count)
            self.plain.allocate(count)
            self.free -= count

    def compute(self, r, units):
        """The next units of a running request, as many as fit."""
        holds, private = self.running[r]
        first = len(holds)
        last = min(first + units, len(self.chains[r]), first + self.free // self.unit_blocks)
        self.take((last - first) * self.unit_blocks)
        arrays = (self.nodes, self.where, self.ids, self.held)
        blocks.register(*arrays, self.offsets[r], first, last, self.unit_blocks)
        added = self.plain.register(self.chains[r][first:last])
        self.running[r] = (holds + added, private)
        self.seen["copied"] += not all(added)

    def grow(self, r):
        """A decode needs a block, if there is one."""
        holds, private = self.running[r]
        if self.free:
            self.take(1)
            self.running[r] = (holds, private + 1)

    def finish(self, r):
        holds, private = self.running.pop(r)
        arrays = (self.nodes, self.where, self.ids, self.held)
        freed = blocks.release(*arrays, self.offsets[r], len(holds), self.unit_blocks, private)
        assert freed == self.plain.release(self.chains[r][: len(holds)], holds, private)
        self.free += freed
        self.seen["shared at the end"] += freed < private + len(holds) * self.unit_blocks

    def play(self, seed, operations, compare_every):
        rng = np.random.default_rng(seed)
        for k in range(operations):
            choice = rng.random()
            r = int(rng.integers(len(self.chains)))
            inside = list(self.running)
            if choice < 0.4 or not inside:
                self.admit(r, int(rng.integers(0, 7)), int(rng.integers(0, 2 * self.unit_blocks)))
            elif choice < 0.7:
                self.compute(inside[r % len(inside)], int(rng.integers(0, 4)))
            elif choice < 0.8:
                self.grow(inside[r % len(inside)])
            else:
                self.finish(inside[r % len(inside)])
            self.check_free()
            if k % compare_every == 0:
                self.compare()
        self.compare()


@settings(max_examples=400, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kv_blocks=st.integers(1, 60),
    unit_blocks=st.sampled_from([1, 2, 3, 8]),
    compare_every=st.sampled_from([1, 7, 1000]),
)
def test_equals_a_cache_of_single_blocks(seed, kv_blocks, unit_blocks, compare_every):
    Both(seed, kv_blocks, unit_blocks).play(seed, 80, compare_every)


def test_the_random_operations_reach_every_rule():
    seen = Counter()
    for seed in range(200):
        both = Both(seed, kv_blocks=10 + seed % 40, unit_blocks=1 + seed % 4)
        both.play(seed, 80, compare_every=5)
        seen += both.seen
    assert min(seen.values()) > 100, seen
    assert len(seen) == 5


def test_a_request_frees_its_last_unit_first():
    """Three units of two blocks and a private one fill a cache of seven; each block taken costs the deepest left."""
    both = Both(0, kv_blocks=7, unit_blocks=2)
    both.chains[0] = [0, 1, 2]
    both.ids, both.offsets, both.where = np.arange(3, dtype=np.uint32), np.zeros(30, np.int64), blocks.new_where(3)
    both.admit(0, 3, private=1)
    both.compute(0, 3)
    assert both.free == 0
    both.finish(0)
    for taken, left in ((1, 3), (1, 2), (1, 2), (1, 1), (2, 0)):
        both.take(taken)
        assert blocks.lookup(both.nodes, both.where, both.ids, 0, 3) == (left, left)


def test_debts_are_settled_before_a_hit():
    """Blocks allocated before a lookup are gone for it, although nothing was taken from the queue yet."""
    nodes, where = blocks.new_nodes(4), blocks.new_where(2)
    ids, held = np.arange(2, dtype=np.uint32), np.zeros(2, np.uint8)
    blocks.allocate(nodes, 4)
    blocks.register(nodes, where, ids, held, 0, 0, 2, 2)
    assert blocks.release(nodes, where, ids, held, 0, 2, 2, 0) == 4
    blocks.allocate(nodes, 1)
    assert blocks.lookup(nodes, where, ids, 0, 2) == (1, 1)
    blocks.allocate(nodes, 2)
    assert blocks.lookup(nodes, where, ids, 0, 2) == (0, 0)


def test_rows_are_used_again():
    nodes, where = blocks.new_nodes(1000), blocks.new_where(10_000)
    ids, held = np.arange(10_000, dtype=np.uint32), np.zeros(10_000, np.uint8)
    for begin in range(0, 10_000, 10):
        blocks.allocate(nodes, 103)
        blocks.register(nodes, where, ids, held, begin, 0, 10, 10)
        assert blocks.release(nodes, where, ids, held, begin, 10, 10, 3) == 103
    assert nodes[0, blocks.FRESH] < 130


@pytest.mark.parametrize("kv_blocks", [0, -3, 2**31])
def test_a_cache_has_blocks(kv_blocks):
    with pytest.raises(ValueError, match="blocks"):
        blocks.new_nodes(kv_blocks)
