"""The simulator's semantics said plainly: one step after another, one request after another. Slow on purpose."""

from dataclasses import dataclass, field

from trilemma.latency.table import StepTable
from trilemma.sim.replica import EngineLimits


@dataclass
class Request:
    index: int
    arrival: int
    prompt: int
    output: int
    computed: int = 0
    generated: int = 0
    blocks: int = 0
    start: int = -1
    first: int = -1
    done: int = -1
    last_token: int = -1
    preemptions: int = 0
    lost: int = 0
    scheduled: int = 0  # tokens in the current step
    emitting: bool = False  # has emitted since its last (re)start: its next token is a decode, not a prefill

    @property
    def length(self) -> int:
        return self.prompt + self.generated


@dataclass
class Outcome:
    requests: list[Request]
    gaps: list[int] = field(default_factory=list)
    steps: int = 0
    refused: int = 0
    peak_blocks: int = 0
    busy_ps: int = 0
    decode_ps: int = 0  # of the busy time, what the steps would have taken without their prefill


def pages(tokens: int, page: int) -> int:
    return -(-tokens // page)


def play(arrival, prompt, output, table: StepTable, limits: EngineLimits, clients: int = 0) -> Outcome:
    everyone = [Request(i, a, p, o) for i, (a, p, o) in enumerate(zip(arrival, prompt, output, strict=True))]
    out = Outcome(everyone)
    page, total = limits.block_tokens, limits.kv_blocks
    arriving = list(everyone) if not clients else everyone[:clients]
    held_back = [] if not clients else everyone[clients:]
    waiting: list[Request] = []
    running: list[Request] = []
    now = 0

    def free() -> int:
        return total - sum(r.blocks for r in running)

    def answer(now: int) -> None:
        """A closed-loop client got its answer and sends its next request."""
        if held_back:
            request = held_back.pop(0)
            request.arrival = now
            arriving.append(request)

    def grow(r: Request, tokens: int) -> int:
        return pages(r.computed + tokens, page) - r.blocks

    while arriving or waiting or running:
        if not waiting and not running:
            now = max(now, arriving[0].arrival)
        while arriving and arriving[0].arrival <= now:
            request = arriving.pop(0)
            if pages(request.prompt + request.output - 1, page) > total:
                out.refused += 1
                answer(now)
            else:
                waiting.append(request)
        if not waiting and not running:
            continue
        budget = limits.max_num_batched_tokens
        scheduled: list[Request] = []
        preempted: list[Request] = []
        position = 0
        while position < len(running):  # A
            r = running[position]
            tokens = min(r.length - r.computed, budget)
            while grow(r, tokens) > free():
                victim = running.pop()
                victim.lost += victim.computed
                victim.computed = victim.blocks = 0
                victim.emitting = False
                victim.preemptions += 1
                preempted.append(victim)
                waiting.insert(0, victim)
                if victim is r:
                    break
            if preempted and preempted[-1] is r:
                break
            r.blocks += grow(r, tokens)
            r.scheduled = tokens
            budget -= tokens
            if tokens:
                scheduled.append(r)
            position += 1
        if not preempted:  # B
            while waiting and budget > 0 and len(running) < limits.max_num_seqs:
                r = waiting[0]
                if pages(r.length, page) > free():
                    break
                waiting.pop(0)
                tokens = min(r.length, budget)
                r.start = now if r.start < 0 else r.start
                r.blocks = pages(tokens, page)
                r.scheduled = tokens
                budget -= tokens
                running.append(r)
                scheduled.append(r)
        out.peak_blocks = max(out.peak_blocks, total - free())
        decodes = [r for r in scheduled if r.emitting]
        prefills = [r for r in scheduled if not r.emitting]
        emits = [r for r in scheduled if r.computed + r.scheduled == r.length]
        n, context_sum = len(decodes), sum(r.computed + 1 for r in decodes)
        step_ps = table.step_ps(
            prefill_tokens=sum(r.scheduled for r in prefills),
            decodes=n,
            sampling=len(emits),
            context_sum=context_sum,
            pair_sum=sum(r.scheduled * (2 * r.computed + r.scheduled + 1) for r in prefills),
        )
        end = now + step_ps
        out.steps += 1
        out.busy_ps += step_ps
        if decodes:
            alone_ps = table.step_ps(prefill_tokens=0, decodes=n, sampling=n, context_sum=context_sum, pair_sum=0)
            out.decode_ps += min(step_ps, alone_ps)
        for r in scheduled:  # C
            r.computed += r.scheduled
        for r in emits:
            r.generated += 1
            r.emitting = True
            if r.first < 0:
                r.first = end
            else:
                out.gaps.append(end - r.last_token)
            r.last_token = end
            if r.generated == r.output:
                r.done = end
                running.remove(r)
                answer(end)
        now = end
    return out
