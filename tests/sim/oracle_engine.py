"""The oracle's scheduler: one engine, planned and completed step by step, request by request."""

from dataclasses import dataclass, field
from enum import IntEnum

from tests.sim.oracle_cache import Cache, Unit
from trilemma.latency.table import FRACTION_BITS, StepTable
from trilemma.sim.engine import EngineLimits, Policy
from trilemma.sim.speculation import Speculation

CLIP_NEW_TOKENS = 4096  # SGLang looks no further ahead
RETRACT_STEPS = 20
MILLION = 1_000_000


class Reason(IntEnum):
    NONE = 0
    SEATS = 1
    TOKENS = 2
    BLOCKS = 3
    NO_REPLICA = 4


@dataclass(eq=False)
class Request:
    index: int
    prompt: int
    output: int
    priority: int = 0
    session: int = -1
    names: tuple[int, ...] = ()  # of its complete units, in order
    arrival: int = -1
    sent: int = -1  # when it came to its engine: later than its arrival after a wait at the router or a retry
    computed: int = 0
    generated: int = 0
    decode_steps: int = 0
    table: list[int] = field(default_factory=list)
    units: list[Unit | None] = field(default_factory=list)
    emitting: bool = False  # has emitted since its last (re)start: its next token is a decode, not a prefill
    start: int = -1
    first: int = -1
    done: int = -1
    last_token: int = -1
    preemptions: int = 0
    lost: int = 0
    hit_tokens: int = 0
    replica: int = -1
    reason: Reason = Reason.NONE

    @property
    def length(self) -> int:
        return self.prompt + self.generated

    @property
    def remaining(self) -> int:
        """Tokens to compute before it emits."""
        return self.length - self.computed

    @property
    def rank(self) -> tuple[int, int, int]:
        return self.priority, self.arrival, self.index


@dataclass(eq=False)
class Step:
    """What one engine runs: tokens per request."""

    begin: int
    tokens: dict[Request, int] = field(default_factory=dict)
    evicted: bool = False

    @property
    def decodes(self) -> list[Request]:
        return [r for r in self.tokens if r.emitting]

    @property
    def prefills(self) -> list[Request]:
        return [r for r in self.tokens if not r.emitting]

    @property
    def planned(self) -> int:
        return sum(self.tokens.values())


class Engine:
    def __init__(
        self,
        table: StepTable,
        limits: EngineLimits,
        speculation: Speculation | None,
        unit_tokens: int,
        by_priority: bool,
    ):
        self.costs, self.limits, self.speculation, self.by_priority = table, limits, speculation, by_priority
        self.draft_tokens = speculation.draft_tokens if speculation else 0
        self.cache = Cache(limits.kv_blocks, limits.block_tokens, unit_tokens if limits.prefix_caching else 0)
        self.unseen: list[Request] = []  # arrived, but the step being planned was planned before
        self.waiting: list[Request] = []
        self.running: list[Request] = []  # in the order of admission
        self.leaving: list[Request] = []  # answered, but still in their seats while the next step is planned
        self.began = self.ended = -1
        self.looked = -1  # the moment the last planning knew of
        self.held_back_by = Reason.NONE  # what kept the head of the queue out of it
        self.peak_blocks = 0
        self.gaps: list[int] = []
        # SGLang
        self.carried: Request | None = None
        self.latch = Reason.NONE  # why there are no admissions until somebody leaves
        self.ratio_ppm = limits.new_token_ratio_ppm[0]

    # What requests need ----------------------------------------------------------------------------------------

    def new_tokens(self, r: Request) -> int:
        """What the engine believes it may have to generate for a request."""
        return max(r.output, self.limits.max_new_tokens)

    def clipped_new_tokens(self, r: Request) -> int:
        return min(self.new_tokens(r), CLIP_NEW_TOKENS)

    def ahead(self, r: Request) -> int:
        """How many of them SGLang takes to be still to come."""
        return min(self.new_tokens(r) - r.generated, CLIP_NEW_TOKENS)

    def decoding(self) -> list[Request]:
        """SGLang's decode batch."""
        return [r for r in self.running if r.emitting]

    def reservation(self, r: Request) -> int:
        """Tokens TensorRT-LLM sets blocks aside for when it admits a request."""
        if self.limits.policy is Policy.TRTLLM_NO_EVICT:
            return r.prompt + self.new_tokens(r) + self.draft_tokens
        return r.length

    def never_fits(self, r: Request) -> bool:
        limits = self.limits
        longest = r.prompt + r.output - 1  # what may have to be computed after the last possible preemption
        if not limits.chunked_prefill:
            whole = r.prompt if limits.policy is Policy.TRTLLM_NO_EVICT else longest
            if limits.policy is Policy.SGLANG:
                whole = self.cache.up(whole)
            if whole > limits.max_num_batched_tokens:
                return True
        room = limits.kv_blocks * limits.block_tokens
        if limits.policy is Policy.SGLANG:
            return r.prompt + self.new_tokens(r) + self.draft_tokens + limits.block_tokens >= room
        if limits.policy is Policy.TRTLLM_NO_EVICT:
            return self.reservation(r) > room
        return longest + self.draft_tokens > room

    # The queue -------------------------------------------------------------------------------------------------

    @property
    def inside(self) -> list[Request]:
        return self.unseen + self.waiting + self.running

    @property
    def seats_left(self) -> int:
        return self.limits.max_num_seqs - len(self.running) - len(self.leaving)

    def arrive(self, r: Request, now: int) -> None:
        r.sent = now
        self.unseen.append(r)

    def see(self, until: int) -> None:
        """Those that came by then enter the queue."""
        seen = [r for r in self.unseen if r.sent <= until]
        self.unseen = [r for r in self.unseen if r.sent > until]
        self.enqueue(seen, at_front=False)

    def enqueue(self, requests: list[Request], *, at_front: bool) -> None:
        self.waiting = requests + self.waiting if at_front else self.waiting + requests
        if self.by_priority:
            self.waiting.sort(key=lambda r: r.rank)

    def evict(self, r: Request, step: Step, *, to_front: bool) -> None:
        """Out of its seat and back into the queue: computed tokens are lost, generated ones kept."""
        step.evicted = True
        self.running.remove(r)
        self.forget(r)
        r.preemptions += 1
        self.enqueue([r], at_front=to_front)

    def forget(self, r: Request) -> None:
        self.cache.name(r, r.computed)
        self.cache.release(r)
        r.lost += r.computed
        r.computed = 0
        r.emitting = False

    # One step --------------------------------------------------------------------------------------------------

    def plan(self, now: int) -> Step | None:
        """The step that starts now, None where there is nothing to do."""
        was_idle = self.ended != now
        if was_idle:
            self.ratio_ppm = self.limits.new_token_ratio_ppm[0]
        if self.limits.async_scheduling and not was_idle:
            # This step was planned when the last one began. One that planned nothing is planned again now.
            step = self.attempt(now, knows=self.began)
            self.let_go()
            return step or self.attempt(now, knows=now)
        self.let_go()
        return self.attempt(now, knows=now)

    def let_go(self) -> None:
        for r in self.leaving:
            self.cache.name(r, r.computed)
            self.cache.release(r)
        self.leaving = []

    def attempt(self, now: int, *, knows: int) -> Step | None:
        self.see(knows)
        if not self.waiting and not self.running:
            return None
        step = Step(now)
        reason = RULES[self.limits.policy](self, step)
        self.looked = knows
        self.held_back_by = Reason.BLOCKS if step.evicted else reason if self.waiting else Reason.NONE
        for r in step.prefills:
            self.cache.name(r, r.computed + step.tokens[r])
        self.peak_blocks = max(self.peak_blocks, self.limits.kv_blocks - self.cache.free)
        return step if step.tokens else None

    def admit(self, r: Request, step: Step, hits: list[Unit]) -> None:
        """Give the head of the queue a seat and the cached part of its prompt."""
        assert self.waiting.pop(0) is r
        self.running.append(r)
        self.cache.hold(r, hits)
        r.computed = len(hits) * self.cache.unit_tokens
        if r.start < 0:
            r.start = step.begin
            r.hit_tokens = r.computed
            if r.sent <= self.looked and r.reason is Reason.NONE:
                r.reason = self.held_back_by

    def schedule(self, r: Request, step: Step, tokens: int) -> None:
        """`tokens` more of a running request in this step, and the blocks for them. vLLM lets the prompts behind it
        share what it will have computed by then, the others only those of later steps."""
        assert tokens > 0
        self.cache.grow(r, r.computed + tokens)
        if self.limits.policy is Policy.VLLM and not r.emitting:
            self.cache.name(r, r.computed + tokens)
        step.tokens[r] = tokens

    def price(self, step: Step, *, with_prefills: bool = True, least_tokens: int = 0) -> int:
        """Picoseconds of a step; as if it had `least_tokens` where its experts see that many of other ranks."""
        costs, tokens, decodes = self.costs, step.tokens, step.decodes
        prefills = step.prefills if with_prefills else []
        p = sum(tokens[r] for r in prefills)
        n = len(decodes)
        sampling = n + sum(tokens[r] == r.remaining for r in prefills)
        ps = int(costs.token_ps[max(p + sum(tokens[r] for r in decodes), least_tokens)])
        ps += int(costs.prefill_ps[p] + costs.decode_ps[n] + costs.sequence_ps[sampling])
        for r in decodes:
            ps += costs.context_ps * (r.computed + 1)
            ps += costs.window_ps * min(r.computed + 1, costs.window_tokens)
        pairs = sum(tokens[r] * (2 * r.computed + tokens[r] + 1) for r in prefills)
        ps += (costs.pair_fp * pairs) >> FRACTION_BITS
        if decodes and self.speculation:
            ps += self.speculation.draft_ps
        return max(int(costs.floor_ps[n + len(prefills)]), ps)

    def complete(self, step: Step, end: int) -> list[Request]:
        """The step has run until `end`: the requests it answered, in the order of their admission."""
        self.began, self.ended = step.begin, end
        answered = []
        for r in [r for r in self.running if r in step.tokens]:
            if r.emitting:
                tokens = min(self.yielded(r), step.tokens[r], r.output - r.generated)
                r.decode_steps += 1
                r.computed += tokens
            else:
                r.computed += step.tokens[r]
                tokens = 1
                if r.computed < r.length:
                    continue
            if r.first < 0:
                r.first = end
            else:
                self.gaps.append(end - r.last_token)
            self.gaps += [0] * (tokens - 1)
            r.generated += tokens
            r.last_token = end
            r.emitting = True
            if r.generated == r.output:
                r.done = end
                answered.append(r)
                self.running.remove(r)
        if answered:
            self.latch = Reason.NONE
        self.leaving = answered
        if not self.limits.async_scheduling:
            self.let_go()
        return answered

    def yielded(self, r: Request) -> int:
        """Tokens that the next decode step of a request emits if it is long enough."""
        if not self.speculation:
            return 1
        drawn = splitmix64(splitmix64(self.speculation.seed * 2**32 + r.index) + r.decode_steps)
        share, reached = (drawn >> 11) / 2**53, 0.0
        for tokens, probability in enumerate(self.speculation.acceptance, start=1):
            reached += probability
            if share < reached:
                return tokens
        return len(self.speculation.acceptance)


def splitmix64(x: int) -> int:
    mask = 2**64 - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    z = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


# The rules: each plans one step and says what held the head of the queue back, if anybody is left in it. An eviction
# goes before whatever they say.


def plan_vllm(engine: Engine, step: Step) -> Reason:
    limits, cache = engine.limits, engine.cache
    budget = limits.max_num_batched_tokens
    alone = len(engine.running) + len(engine.leaving) + len(engine.waiting) <= 1
    most = 0 if alone or not limits.chunked_prefill else limits.long_prefill_token_threshold

    def capped(tokens: int) -> int:
        return min(tokens, most) if most else tokens

    # A. Those that run, in the order of admission.
    position = 0
    while position < len(engine.running) and budget > 0:
        r = engine.running[position]
        wanted = 1 + engine.draft_tokens if r.emitting else capped(r.remaining)
        tokens = min(wanted, budget)
        while cache.missing(r, r.computed + tokens) > cache.free:
            victim = engine.running[-1]
            if engine.by_priority:
                victim = max(engine.running, key=lambda other: other.rank)
            if victim in step.tokens:  # by priority alone: it had its tokens already and gives them back
                budget += step.tokens.pop(victim)
                position -= 1
            engine.evict(victim, step, to_front=True)
            if victim is r:
                break
        if r in engine.running:
            engine.schedule(r, step, tokens)
            budget -= tokens
            position += 1

    # B. Those that wait.
    if step.evicted:
        return Reason.BLOCKS
    while engine.waiting:
        if engine.seats_left == 0:
            return Reason.SEATS
        if budget == 0:
            return Reason.TOKENS
        r = engine.waiting[0]
        hits = cache.hits(r)
        hit_tokens = len(hits) * cache.unit_tokens
        wanted = capped(r.length - hit_tokens)
        if wanted > budget and not limits.chunked_prefill:
            return Reason.TOKENS
        tokens = min(wanted, budget)
        if not cache.fits(hits, r.length if limits.reserve_full_isl else hit_tokens + tokens):
            return Reason.BLOCKS
        engine.admit(r, step, hits)
        engine.schedule(r, step, tokens)
        budget -= tokens
    return Reason.NONE


def plan_trtllm(engine: Engine, step: Step) -> Reason:  # noqa: PLR0911 - a return for each reason
    limits, cache = engine.limits, engine.cache

    def chunk(remaining: int, budget: int) -> int:
        if remaining <= budget:
            return remaining
        return budget // limits.chunk_unit_tokens * limits.chunk_unit_tokens if limits.chunked_prefill else 0

    # Decodes, in the order of admission; under GUARANTEED_NO_EVICT their blocks are there.
    position = 0
    while position < len(engine.running):
        r = engine.running[position]
        position += 1
        if not r.emitting:
            continue
        tokens = 1 + engine.draft_tokens
        while cache.missing(r, r.computed + tokens) > cache.free:
            assert limits.policy is Policy.TRTLLM_MAX_UTILIZATION
            victim = engine.running[-1]
            engine.evict(victim, step, to_front=True)
            if victim is r:
                break
        if r in engine.running:
            engine.schedule(r, step, tokens)
    budget = limits.max_num_batched_tokens - step.planned

    # The context that is under way.
    unfinished = [r for r in engine.running if not r.emitting]
    assert len(unfinished) <= 1
    for r in unfinished:
        tokens = chunk(r.remaining, budget)
        if tokens:
            engine.schedule(r, step, tokens)
        budget -= tokens
        if tokens < r.remaining:
            return Reason.TOKENS if engine.seats_left else Reason.SEATS

    # Those that wait.
    if step.evicted:
        return Reason.BLOCKS
    while engine.waiting:
        if engine.seats_left == 0:
            return Reason.SEATS
        if budget == 0:
            return Reason.TOKENS
        r = engine.waiting[0]
        hits = cache.hits(r)
        remaining = r.length - len(hits) * cache.unit_tokens
        tokens = chunk(remaining, budget)
        if tokens == 0:
            return Reason.TOKENS
        if not cache.fits(hits, engine.reservation(r)):
            return Reason.BLOCKS
        engine.admit(r, step, hits)
        cache.grow(r, engine.reservation(r))
        engine.schedule(r, step, tokens)
        budget -= tokens
        if tokens < remaining:
            return Reason.TOKENS if engine.seats_left else Reason.SEATS
    return Reason.NONE


def plan_sglang(engine: Engine, step: Step) -> Reason:
    """Either prefill or decode; with mixed chunks the decodes go along with the prefill."""
    cache = engine.cache
    reason = sglang_prefills(engine, step)
    decodes = engine.decoding()
    tokens = 1 + engine.draft_tokens
    short = sum(cache.missing(r, r.computed + tokens) for r in decodes) > cache.free
    if step.tokens:
        if engine.limits.mixed_chunk and not short:
            for r in decodes:
                engine.schedule(r, step, tokens)
        return reason
    if short and engine.leaving:  # their blocks are about to be free: nothing now, planned again without them
        return Reason.BLOCKS
    if short:
        decodes = sglang_retract(engine, step, decodes, tokens)
    elif decodes:
        _, least, fall = engine.limits.new_token_ratio_ppm
        engine.ratio_ppm = max(least, engine.ratio_ppm - fall)
    for r in decodes:
        engine.schedule(r, step, tokens)
    return reason


def sglang_retract(engine: Engine, step: Step, decodes: list[Request], tokens: int) -> list[Request]:
    """Send decodes back to the queue until the rest fits: who stays."""
    cache = engine.cache

    def short() -> bool:
        return sum(cache.missing(r, r.computed + tokens) for r in decodes) > cache.free

    while short() and len(decodes) > 1:
        r = min(decodes, key=lambda r: (r.generated, -r.prompt, -engine.running.index(r)))
        decodes.remove(r)
        engine.evict(r, step, to_front=False)
    if short() and engine.carried is not None:
        engine.evict(engine.carried, step, to_front=False)
        engine.carried = None
    engine.latch = Reason.NONE
    if not engine.limits.ignore_eos:
        decoded = sum(r.generated for r in decodes)
        promised = sum(engine.new_tokens(r) for r in decodes)
        engine.ratio_ppm = min(MILLION, (decoded + RETRACT_STEPS * len(decodes)) * MILLION // (promised + 1))
    return decodes


def sglang_prefills(engine: Engine, step: Step) -> Reason:  # noqa: PLR0911 - a return for each reason
    limits, cache, page = engine.limits, engine.cache, engine.limits.block_tokens
    decodes = engine.decoding()
    if not decodes:
        engine.latch = Reason.NONE
    if engine.carried is None and engine.latch:
        return engine.latch
    held_back = sum(engine.ahead(r) for r in decodes) * engine.ratio_ppm // MILLION
    going_along = len(decodes) * (1 + engine.draft_tokens) if limits.mixed_chunk else 0
    room = cache.free * page - held_back - going_along
    budget = limits.max_num_batched_tokens - going_along
    if engine.carried is not None:
        r = engine.carried
        tokens = min(r.remaining, budget, room if room > 0 else budget)
        if tokens < r.remaining:
            tokens = (r.computed + tokens) // page * page - r.computed
        if tokens == 0 or cache.missing(r, r.computed + tokens) > cache.free:
            assert decodes
            return Reason.BLOCKS
        engine.schedule(r, step, tokens)
        budget -= cache.up(tokens)
        room -= cache.up(tokens) + page
        if tokens == r.remaining:
            room -= engine.clipped_new_tokens(r)
            engine.carried = None
        if room <= 0 or cache.free <= 0:
            engine.latch = Reason.BLOCKS
        if engine.carried is not None:
            return Reason.TOKENS
    while engine.waiting:
        if engine.latch:
            return engine.latch
        if engine.seats_left == 0:
            engine.latch = Reason.SEATS
            return Reason.SEATS
        if budget <= 0:
            return Reason.TOKENS
        r = engine.waiting[0]
        hits = cache.hits(r)
        extend = r.length - len(hits) * cache.unit_tokens
        unheld = cache.unheld_blocks(hits) * page
        if extend + engine.ahead(r) + page + unheld >= room:
            engine.latch = Reason.BLOCKS
            return Reason.BLOCKS
        tokens = extend
        if cache.up(extend) > budget:
            tokens = budget // page * page if limits.chunked_prefill else 0
        if tokens == 0:
            return Reason.TOKENS
        engine.admit(r, step, hits)
        engine.schedule(r, step, tokens)
        budget -= cache.up(tokens)
        room -= unheld + cache.up(tokens) + page
        if tokens < extend:
            engine.carried = r
        else:
            room -= engine.clipped_new_tokens(r)
        if room <= 0 or cache.free <= 0:
            engine.latch = Reason.BLOCKS
        if engine.carried is not None:
            return Reason.TOKENS
    return Reason.NONE


RULES = {
    Policy.VLLM: plan_vllm,
    Policy.TRTLLM_NO_EVICT: plan_trtllm,
    Policy.TRTLLM_MAX_UTILIZATION: plan_trtllm,
    Policy.SGLANG: plan_sglang,
}
