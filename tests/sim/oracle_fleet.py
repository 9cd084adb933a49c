"""The oracle's replicas and the router in front of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tests.sim.oracle_engine import Engine, Request, Step, splitmix64
from trilemma.latency.table import StepTable
from trilemma.sim.engine import EngineLimits, Policy
from trilemma.sim.fleet import Fleet, Routing
from trilemma.sim.speculation import Speculation
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests

if TYPE_CHECKING:
    from tests.sim.oracle import Outcome


class Replica:
    """One engine, or several ranks that start and end their steps together."""

    def __init__(
        self,
        table: StepTable,
        limits: EngineLimits,
        speculation: Speculation | None,
        requests: Requests,
        ranks: int,
        shared_experts: bool,
        watch: Callable[[Engine], None] | None,
    ):
        by_priority = requests.priority is not None
        self.limits, self.shared_experts, self.watch = limits, shared_experts, watch
        self.engines = [Engine(table, limits, speculation, requests.block_tokens, by_priority) for _ in range(ranks)]
        self.plans: list[Step | None] = []
        self.began = 0
        self.end: int | None = None  # of the step under way
        self.decode_part = 0  # of its time, what it would have taken without its prefills
        self.assigned = 0
        self.steps = self.busy_ps = self.decode_ps = self.last_end = 0

    @property
    def inside(self) -> int:
        """Requests sent here and not answered."""
        return sum(len(engine.inside) for engine in self.engines)

    def never_fits(self, r: Request) -> bool:
        return self.engines[0].never_fits(r)

    def cached_units(self, r: Request) -> int:
        return max(len(engine.cache.hits(r)) for engine in self.engines)

    def arrive(self, r: Request, now: int) -> None:
        self.engines[self.rank()].arrive(r, now)
        self.assigned += 1

    def rank(self) -> int:
        """Which rank takes the next request."""
        ranks = range(len(self.engines))
        turn = self.assigned % len(self.engines)
        if self.limits.policy is Policy.SGLANG:
            return turn
        if self.limits.policy is Policy.VLLM:
            return min([*ranks[turn:], *ranks[:turn]], key=lambda k: len(self.engines[k].inside))
        return min(ranks, key=lambda k: (sum(r.prompt for r in self.engines[k].inside), len(self.engines[k].inside), k))

    def plan(self, now: int) -> None:
        self.plans = [engine.plan(now) for engine in self.engines]
        if self.watch:
            for engine in self.engines:
                self.watch(engine)
        if any(self.plans):
            self.began = now
            self.end = now + self.price(self.plans, with_prefills=True)
            self.decode_part = min(self.end - now, self.price(self.plans, with_prefills=False))
        else:
            assert not self.inside, "requests inside and nothing to do"

    def price(self, plans: list[Step | None], *, with_prefills: bool) -> int:
        """The slowest rank's time; without prefills, of those that decode."""

        def tokens(step: Step) -> int:
            return sum(step.tokens[r] for r in (step.tokens if with_prefills else step.decodes))

        everywhere = sum(tokens(step) for step in plans if step)
        mean = -(-everywhere // len(plans)) if self.shared_experts else 0
        return max(
            engine.price(step, with_prefills=with_prefills, least_tokens=mean) if with_prefills or step.decodes else 0
            for engine, step in zip(self.engines, plans, strict=True)
            if step
        )

    def complete(self) -> list[Request]:
        """The step under way ends: the requests it answered."""
        assert self.end is not None
        end, self.end = self.end, None
        answered = []
        for engine, step in zip(self.engines, self.plans, strict=True):
            if step:
                answered += engine.complete(step, end)
        self.steps += 1
        self.busy_ps += end - self.began
        self.decode_ps += self.decode_part
        self.last_end = end
        return answered

    def die(self) -> list[Request]:
        """The step under way never ends; what was inside, as if it had never been started."""
        self.end = None
        dropped = []
        for engine in self.engines:
            engine.let_go()
            for r in engine.inside:
                engine.forget(r)
                r.generated = r.decode_steps = 0
                r.first = -1
                dropped.append(r)
            engine.unseen, engine.waiting, engine.running = [], [], []
        return dropped

    def add_to(self, out: "Outcome") -> None:
        out.steps += self.steps
        out.busy_ps += self.busy_ps
        out.decode_ps += self.decode_ps
        out.end = max(out.end, self.last_end)
        for engine in self.engines:
            out.gaps += engine.gaps
            out.peak_blocks = max(out.peak_blocks, engine.peak_blocks)


class Router:
    """Which replica gets a request. `queue` holds those that found nobody to serve them."""

    def __init__(self, fleet: Fleet, replicas: list[Replica]):
        self.fleet, self.replicas = fleet, replicas
        count = len(replicas)
        self.ready = [in_ps(t) for t in fleet.ready_s or (0.0,) * count]
        self.drain = [in_ps(t) for t in fleet.drain_s or (np.inf,) * count]
        self.fail = [in_ps(t) for t in fleet.fail_s or (np.inf,) * count]
        self.queue: list[Request] = []
        self.counter = 0
        self.home: dict[int, int] = {}  # session -> replica

    def serves(self, index: int, now: float) -> bool:
        return self.ready[index] <= now < min(self.drain[index], self.fail[index])

    def next_change(self, after: float) -> float:
        """When the next replica gets ready or fails; infinity for never."""
        return min((t for t in (*self.ready, *self.fail) if t > after), default=np.inf)

    def somebody_comes(self, now: int) -> bool:
        return any(t > now and self.serves(index, t) for index, t in enumerate(self.ready))

    def dying(self, now: int) -> list[Replica]:
        return [replica for replica, at in zip(self.replicas, self.fail, strict=True) if at == now]

    def released(self, now: int) -> list[Request]:
        """Who may leave the router's queue."""
        if not any(self.serves(index, now) for index in range(len(self.replicas))):
            return []
        released, self.queue = self.queue, []
        return released

    def choose(self, r: Request, now: int) -> int | None:
        """The index of the replica that gets the request, None where nobody serves."""
        serving = [index for index in range(len(self.replicas)) if self.serves(index, now)]
        if not serving:
            return None
        choices = {
            Routing.ROUND_ROBIN: self.next_in_turn,
            Routing.SESSION_STICKY: self.where_it_was,
            Routing.LEAST_OUTSTANDING: self.least_outstanding,
            Routing.POWER_OF_TWO: self.better_of_two,
            Routing.PREFIX_AWARE: self.best_cache,
        }
        return choices[self.fleet.routing](r, serving)

    def next_in_turn(self, _: Request, serving: list[int]) -> int:
        self.counter += 1
        return serving[(self.counter - 1) % len(serving)]

    def where_it_was(self, r: Request, serving: list[int]) -> int:
        if r.session < 0 or self.home.get(r.session) not in serving:
            self.home[r.session] = self.next_in_turn(r, serving)
        return self.home[r.session]

    def least_outstanding(self, _: Request, serving: list[int]) -> int:
        return min(serving, key=lambda index: (self.replicas[index].inside, index))

    def better_of_two(self, r: Request, serving: list[int]) -> int:
        m = len(serving)
        if m == 1:
            return serving[0]
        drawn = splitmix64(self.fleet.seed * 2**32 + r.index)
        first = drawn % m
        second = (first + 1 + (drawn >> 32) % (m - 1)) % m
        return min(serving[first], serving[second], key=lambda index: self.replicas[index].inside)

    def best_cache(self, r: Request, serving: list[int]) -> int:
        inside = {index: self.replicas[index].inside for index in serving}
        most, fewest = max(inside.values()), min(inside.values())
        if most - fewest > self.fleet.balance_abs and most > self.fleet.balance_rel * fewest:
            return self.least_outstanding(r, serving)
        return min(serving, key=lambda index: (-self.replicas[index].cached_units(r), inside[index], index))


def in_ps(seconds: float) -> float:
    """A whole number of picoseconds, or infinity."""
    return seconds if seconds == np.inf else int(np.rint(seconds * PS_PER_S))
