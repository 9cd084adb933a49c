"""The oracle's KV memory: every block by its number, one queue of free ones, names for the units worth keeping."""

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(eq=False)
class Unit:
    """Consecutive blocks with the computed tokens of one prefix block of the trace."""

    name: int
    blocks: list[int]
    holders: int = 1


class Cache:
    """`blocks` blocks of `page` tokens. `unit_tokens` is the size of a named unit, 0 where prefixes are not cached.

    `queue` holds the free blocks, the first to be taken first. A free block may still hold part of a named unit; as
    soon as it is taken, the unit is forgotten. A request holds its blocks in `request.table` in the order of its
    tokens; `request.units` says of its leading, complete, nameable units which one it shares (None: a private copy).
    """

    def __init__(self, blocks: int, page: int, unit_tokens: int):
        self.page = page
        self.unit_tokens = unit_tokens
        self.blocks_per_unit = unit_tokens // page
        self.queue = OrderedDict.fromkeys(range(blocks))
        self.named: dict[int, Unit] = {}
        self.unit_of: dict[int, Unit] = {}

    @property
    def free(self) -> int:
        return len(self.queue)

    def pages(self, tokens: int) -> int:
        return -(-tokens // self.page)

    def up(self, tokens: int) -> int:
        """In whole blocks."""
        return self.pages(tokens) * self.page

    def hits(self, request) -> list[Unit]:
        """The leading units that are there; the last token is always computed, for it must emit the next one."""
        if not self.unit_tokens:
            return []
        found = []
        for name in request.names[: (request.length - 1) // self.unit_tokens]:
            if name not in self.named:
                break
            found.append(self.named[name])
        return found

    def unheld_blocks(self, units: list[Unit]) -> int:
        """Blocks of these units that are free now and would not be any more."""
        return sum(len(unit.blocks) for unit in units if unit.holders == 0)

    def fits(self, units: list[Unit], tokens: int) -> bool:
        """Whether `tokens` tokens, the first of them in `units`, can be held."""
        fresh = self.pages(tokens) - len(units) * self.blocks_per_unit
        return fresh + self.unheld_blocks(units) <= self.free

    def missing(self, request, tokens: int) -> int:
        """Blocks that the request lacks for `tokens` tokens."""
        return max(0, self.pages(tokens) - len(request.table))

    def hold(self, request, units: list[Unit]) -> None:
        for unit in units:
            if unit.holders == 0:
                for block in unit.blocks:
                    del self.queue[block]
            unit.holders += 1
            request.table += unit.blocks
            request.units.append(unit)

    def grow(self, request, tokens: int) -> None:
        for _ in range(self.missing(request, tokens)):
            block, _ = self.queue.popitem(last=False)
            if block in self.unit_of:
                self.forget(self.unit_of[block])
            request.table.append(block)

    def forget(self, unit: Unit) -> None:
        del self.named[unit.name]
        for block in unit.blocks:
            del self.unit_of[block]

    def name(self, request, tokens: int) -> None:
        """The request's first `tokens` tokens are computed or being computed: complete units get their names."""
        if not self.unit_tokens:
            return
        while len(request.units) < min(len(request.names), tokens // self.unit_tokens):
            position = len(request.units)
            name = request.names[position]
            if name in self.named:
                request.units.append(None)
                continue
            first = position * self.blocks_per_unit
            unit = Unit(name, request.table[first : first + self.blocks_per_unit])
            self.named[name] = unit
            self.unit_of.update(dict.fromkeys(unit.blocks, unit))
            request.units.append(unit)

    def release(self, request) -> None:
        """All of the request's blocks, from its last to its first."""
        while len(request.table) > len(request.units) * self.blocks_per_unit:
            self.queue[request.table.pop()] = None
        while request.units:
            unit = request.units.pop()
            own = request.table[len(request.units) * self.blocks_per_unit :]
            del request.table[len(request.units) * self.blocks_per_unit :]
            if unit is not None:
                unit.holders -= 1
            if unit is None or unit.holders == 0:
                self.queue.update(dict.fromkeys(own))
