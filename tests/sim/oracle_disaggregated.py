"""Disaggregated pools said plainly: one step after another, one request after another. Slow on purpose.

The schedulers are `oracle_engine`'s, with what differs: a prefill engine keeps blocks until a transfer has ended, a
decode engine admits requests whose KV was computed elsewhere.
"""

import heapq
from dataclasses import dataclass, field, replace

import numpy as np

from tests.sim.oracle import list_requests, load_of
from tests.sim.oracle_cache import Unit
from tests.sim.oracle_engine import Engine, Reason, Request, Step, plan_vllm
from trilemma.latency.table import StepTable
from trilemma.sim.engine import EngineLimits
from trilemma.sim.fleet import Routing
from trilemma.sim.pools import Pools, Transfer
from trilemma.workload.requests import Requests


@dataclass(eq=False)
class Travel:
    """A request on its way through both pools: what it is on each side, and when (-1: never) what happened between."""

    prompt: Request
    answer: Request
    moves: int = 0  # tokens whose KV is transferred after the prefill
    arrival: int = -1
    prefilled: int = -1
    sent: int = -1
    ready: int = -1
    begun: int = -1


@dataclass
class Pool:
    """Engines with a router before them, and what they did."""

    routing: Routing
    engines: list[Engine]
    ends: list[int | None] = field(default_factory=list)  # of the steps under way
    plans: list[Step | None] = field(default_factory=list)
    inside: list[set[int]] = field(default_factory=list)
    dealt: int = 0
    steps: int = 0
    busy_ps: int = 0
    decode_ps: int = 0
    last_end: int = 0

    def __post_init__(self) -> None:
        self.ends = [None for _ in self.engines]
        self.plans = [None for _ in self.engines]
        self.inside = [set() for _ in self.engines]

    def choose(self, index: int) -> int:
        chosen = self.dealt % len(self.engines)
        self.dealt += 1
        if self.routing is Routing.LEAST_OUTSTANDING:
            chosen = min(range(len(self.engines)), key=lambda k: (len(self.inside[k]), k))
        self.inside[chosen].add(index)
        return chosen

    def complete(self, now: int) -> list[tuple[int, Request]]:
        """Steps that end now: (engine, request) for all they finished, engine by engine, in order of admission."""
        finished = []
        for k, engine in enumerate(self.engines):
            if self.ends[k] == now:
                self.ends[k] = None
                step = self.plans[k]
                assert step is not None
                for r in engine.complete(step, now):
                    self.inside[k].discard(r.index)
                    finished.append((k, r))
        return finished

    def plan(self, now: int) -> None:
        for k, engine in enumerate(self.engines):
            if self.ends[k] is not None:
                continue
            step = self.plans[k] = engine.plan(now)
            if step is None:
                continue
            duration = engine.price(step)
            alone = engine.price(step, with_prefills=False) if step.decodes else 0
            self.ends[k] = self.last_end = max(self.last_end, now + duration)
            self.ends[k] = now + duration
            self.steps += 1
            self.busy_ps += duration
            self.decode_ps += min(duration, alone)


class Side(Engine):
    """An engine of either pool: a planning that scheduled nothing but threw somebody out is repeated at once."""

    def __init__(self, table: StepTable, limits: EngineLimits, unit_tokens: int):
        super().__init__(table, limits, None, unit_tokens, by_priority=False)
        self.given_back: list[Request] = []  # their blocks are free when the next planning looks
        self.threw_out = False

    def attempt(self, now: int, *, knows: int) -> Step | None:
        before = sum(r.preemptions for r in self.inside)
        step = super().attempt(now, knows=knows)
        threw_out = sum(r.preemptions for r in self.inside) > before
        if step is None and threw_out and knows == now:
            return self.attempt(now, knows=now)
        return step

    def let_go(self) -> None:
        self.leaving = []
        for r in self.given_back:
            self.cache.name(r, r.computed)
            self.cache.release(r)
        self.given_back = []


@dataclass
class Link:
    """What a prefill replica sends its KV over."""

    transfer: Transfer
    taken_until: int = 0

    def busy_ps(self, tokens: int) -> int:
        t = self.transfer
        moved = -(-tokens // t.block_tokens) * t.block_tokens
        return round(moved * t.bytes_per_token / t.bytes_per_s * 1e12)

    def send(self, tokens: int, now: int) -> tuple[int, int]:
        """(when the first byte leaves, when the last byte is there) of what may leave now."""
        begin = max(now, self.taken_until) if self.transfer.one_at_a_time else now
        self.taken_until = begin + self.busy_ps(tokens)
        return begin, self.taken_until + round(self.transfer.latency_s * 1e12)


class PrefillSide(Side):
    holds = True
    link: Link

    def admit(self, r: Request, step: Step, hits: list[Unit]) -> None:
        super().admit(r, step, hits)
        if self.link.transfer.overlap and hits:
            self.link.send(r.computed, step.begin)

    def complete(self, step: Step, end: int) -> list[Request]:
        self.last_chunks = dict(step.tokens)
        finished = super().complete(step, end)
        self.leaving = finished
        if not self.holds:
            self.given_back += finished
        if not self.limits.async_scheduling:
            self.let_go()
        return finished


class DecodeSide(Side):
    def __init__(self, table: StepTable, limits: EngineLimits, play: "Play"):
        super().__init__(table, limits, 0)
        self.play = play
        self.coming: list[Travel] = []  # computed, not loaded
        self.loading: list[Travel] = []

    def complete(self, step: Step, end: int) -> list[Request]:
        finished = super().complete(step, end)
        self.given_back += finished
        self.leaving = finished
        if not self.limits.async_scheduling:
            self.let_go()
        return finished

    def attempt(self, now: int, *, knows: int) -> Step | None:
        """One planning, and more where it scheduled nothing but threw somebody out."""
        while True:
            step = Step(now)
            self.decide(step, knows)
            self.peak_blocks = max(self.peak_blocks, self.limits.kv_blocks - self.cache.free)
            if step.tokens:
                return step
            if not step.evicted or knows < now:
                return None

    def decide(self, step: Step, knows: int) -> None:
        limits, cache = self.limits, self.cache
        preempted, self.waiting = self.waiting, []
        plan_vllm(self, step)  # those that run
        self.waiting += preempted
        if step.evicted:
            return

        def full() -> bool:
            return self.seats_left == 0 or step.planned >= limits.max_num_batched_tokens

        for travel in sorted(self.loading, key=lambda t: (t.ready, t.prompt.index)):
            if travel.ready > knows:
                break
            if full():
                return
            self.loading.remove(travel)
            self.join(travel, step)
        while self.waiting:
            r = self.waiting[0]
            tokens = min(r.length, limits.max_num_batched_tokens - step.planned)
            if full() or (tokens < r.length and not limits.chunked_prefill):
                return
            if cache.pages(r.length if limits.reserve_full_isl else tokens) > cache.free:
                return
            self.admit(r, step, [])
            self.schedule(r, step, tokens)
        while self.coming:
            travel = self.coming[0]
            if self.play.enters(travel) > knows or full():
                return
            r = travel.answer
            last = self.play.by_prefill and r.output == 1  # no more to come
            tokens = r.prompt + (1 if self.play.by_prefill and not last else 0)
            if cache.pages(tokens) > cache.free:
                return
            self.coming.pop(0)
            if self.play.hold:
                self.play.begin_transfer(travel, step.begin)
            if travel.ready > step.begin:
                cache.grow(r, tokens)
                if not last:
                    self.loading.append(travel)
            elif not last:
                cache.grow(r, tokens)
                self.join(travel, step)

    def join(self, travel: Travel, step: Step) -> None:
        """The request decodes in this step: its last prompt token, or the first token that prefill sampled."""
        r = travel.answer
        travel.begun = step.begin
        self.running.append(r)
        r.computed = r.prompt - 1
        r.emitting = True
        if self.play.by_prefill:
            r.computed, r.generated, r.last_token = r.prompt, 1, r.first
        self.schedule(r, step, 1)


class Play:
    def __init__(self, requests: Requests, pools: Pools, clients: int, hold: bool):
        self.pools, self.hold = pools, hold
        self.by_prefill = pools.first_token == "prefill"
        prompts = replace(requests, output_tokens=np.ones(len(requests), np.int64))
        self.travels = [
            Travel(prompt, answer)
            for prompt, answer in zip(
                list_requests(prompts, pools.prefill.limits),
                list_requests(requests, replace(pools.decode.limits, prefix_caching=False)),
                strict=True,
            )
        ]
        unit = requests.block_tokens
        self.senders = Pool(
            pools.prefill.routing,
            [PrefillSide(pools.prefill.table, pools.prefill.limits, unit) for _ in range(pools.prefill.replicas)],
        )
        for engine in self.senders.engines:
            engine.holds = hold
            engine.link = Link(pools.transfer)
        self.receivers = Pool(
            pools.decode.routing,
            [DecodeSide(pools.decode.table, pools.decode.limits, self) for _ in range(pools.decode.replicas)],
        )
        self.load = load_of([t.answer for t in self.travels], requests, clients)
        self.arriving = [(at, r.index) for at, r in self.load.known]
        heapq.heapify(self.arriving)
        self.moving: list[tuple[int, int]] = []  # transfers: (end, request)
        self.landing: list[tuple[int, int]] = []  # what comes to the decode router: (when, request)
        self.refused = 0

    def run(self) -> "Play":
        while True:
            moments = [end for pool in (self.senders, self.receivers) for end in pool.ends if end is not None]
            moments += [queue[0][0] for queue in (self.arriving, self.moving, self.landing) if queue]
            if not moments:
                break
            self.moment(min(moments))
        for engine in self.senders.engines + self.receivers.engines:
            engine.let_go()
            assert not engine.inside
            assert engine.cache.free == engine.limits.kv_blocks
        return self

    def moment(self, now: int) -> None:
        for k, r in self.senders.complete(now):
            travel = self.travels[r.index]
            travel.prefilled = now
            whole = not self.pools.transfer.overlap
            travel.moves = r.prompt if whole else self.senders.engines[k].last_chunks[r]
            if self.hold:
                self.landing.append((now, r.index))
            else:
                travel.sent, travel.ready = self.link(travel).send(travel.moves, now)
                self.landing.append((travel.ready, r.index))
        for engine in self.senders.engines:
            if engine.ended == now and self.pools.transfer.overlap:
                for r in engine.running:  # unfinished
                    engine.link.send(engine.last_chunks[r], now)
        for _, r in self.receivers.complete(now):
            self.answered(r, now)
        for at, index in sorted(self.moving):
            if at == now:
                self.end_transfer(self.travels[index])
        self.moving = [(at, index) for at, index in self.moving if at > now]
        self.landing.sort()
        while self.landing and self.landing[0][0] == now:
            self.land(self.travels[self.landing.pop(0)[1]], now)
        self.receivers.plan(now)
        while self.arriving and self.arriving[0][0] == now:
            self.arrive(self.travels[heapq.heappop(self.arriving)[1]], now)
        self.senders.plan(now)
        self.moving.sort()
        self.landing.sort()

    def arrive(self, travel: Travel, now: int) -> None:
        travel.arrival = travel.prompt.arrival = now
        if self.senders.engines[0].never_fits(travel.prompt) or self.receivers.engines[0].never_fits(travel.answer):
            self.refused += 1
            self.answered(travel.answer, now)
            return
        travel.prompt.replica = self.senders.choose(travel.prompt.index)
        self.senders.engines[travel.prompt.replica].arrive(travel.prompt, now)

    def enters(self, travel: Travel) -> int:
        """When a request comes to its decode replica."""
        return travel.prefilled if self.hold else travel.ready

    def link(self, travel: Travel) -> Link:
        return self.senders.engines[travel.prompt.replica].link

    def land(self, travel: Travel, now: int) -> None:
        r = travel.answer
        if self.by_prefill and not self.hold:
            r.first = now
            if r.output == 1:
                r.done = now
                self.answered(r, now)
                return
        r.replica = self.receivers.choose(r.index)
        self.receivers.engines[r.replica].coming.append(travel)

    def begin_transfer(self, travel: Travel, now: int) -> None:
        travel.sent, travel.ready = self.link(travel).send(travel.moves, now)
        if self.by_prefill:
            travel.answer.first = travel.ready
        if travel.ready == now:
            self.end_transfer(travel)
        else:
            self.moving.append((travel.ready, travel.prompt.index))

    def end_transfer(self, travel: Travel) -> None:
        r = travel.answer
        self.senders.engines[travel.prompt.replica].given_back.append(travel.prompt)
        if self.by_prefill and r.output == 1:
            r.done = travel.ready
            self.receivers.inside[r.replica].discard(r.index)
            self.receivers.engines[r.replica].given_back.append(r)
            self.answered(r, travel.ready)

    def answered(self, r: Request, now: int) -> None:
        for at, following in self.load.follow_up(r, now):
            heapq.heappush(self.arriving, (at, following.index))

    def column(self, name: str, side: str = "") -> np.ndarray:
        """(n,) int64: one field of every request, of the whole or of one side."""
        return np.array([getattr(getattr(t, side) if side else t, name) for t in self.travels], np.int64)


def play(requests: Requests, pools: Pools, *, clients: int = 0, back_pressure: bool = True) -> Play:
    """Every request through both pools."""
    return Play(requests, pools, clients, back_pressure).run()


__all__ = ["Play", "Reason", "play"]
