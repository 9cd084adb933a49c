"""Both pools on one clock, and decode replicas alone, compiled."""

from trilemma.sim.coming import schedule, unschedule
from trilemma.sim.compiled import compiled, inner
from trilemma.sim.disaggregated_decode import answered, loaded_tokens, run_decodes
from trilemma.sim.disaggregated_layout import *
from trilemma.sim.disaggregated_prefill import leaves, run_prefills
from trilemma.sim.layout import FAR, LEAST_OUTSTANDING, NOTHING
from trilemma.sim.stretch import pages_of


@inner
def _least_outstanding(s, at):
    """The replica with the fewest unanswered requests; those answered by the step in flight still count."""
    best, fewest = 0, FAR
    for r in range(s.shape[0]):
        unanswered = s[r, OUTSTANDING] + (s[r, ENDED] if s[r, ENDED_AT] > at else 0)
        if unanswered < fewest:
            best, fewest = r, unanswered
    return best


@inner
def _enqueue(s, notes, r, request):
    notes[request, LINK] = -1
    if s[r, QUEUE] == -1:
        s[r, QUEUE] = request
    else:
        notes[s[r, QUEUE_END], LINK] = request
    s[r, QUEUE_END] = request
    s[r, OUTSTANDING] += 1


@inner
def _receive(rules, pool, load, out, senders, receivers, clock, request, at):
    """Route a request to a decode replica."""
    s = receivers.scalars
    if pool.routing == LEAST_OUTSTANDING:
        for r in range(s.shape[0]):
            if s[r, WAKE] <= at:
                run_decodes(rules, pool, load, out, senders, receivers, clock, r, at)
        r = _least_outstanding(s, at)
    else:
        r = clock.counts[RECEIVERS_DEALT] % s.shape[0]
        clock.counts[RECEIVERS_DEALT] += 1
    out.notes[request, RECEIVER] = r
    _enqueue(s, out.notes, r, request)
    if s[r, BLOCKED] == NOTHING:
        s[r, WAKE] = min(s[r, WAKE], at)


@inner
def _arrive(rules, pool, load, out, senders, clock, request, at):
    """Route a request to a prefill replica; one that fits no empty replica of either pool is refused."""
    s = senders.scalars
    load.arrival[request] = at
    if not load.fits[request]:
        clock.counts[REFUSALS] += 1
        answered(rules, load, clock, request, at)
        return
    if pool.routing == LEAST_OUTSTANDING:
        r = _least_outstanding(s, at)
    else:
        r = clock.counts[SENDERS_DEALT] % s.shape[0]
        clock.counts[SENDERS_DEALT] += 1
    out.notes[request, SENDER] = r
    _enqueue(s, out.notes, r, request)
    if s[r, IDLE]:
        s[r, WAKE] = min(s[r, WAKE], at)


@inner
def _moved(rules, prefill, decode, load, out, senders, receivers, clock, request, at):
    """A transfer has ended: prefill blocks are free, and all of a request with nothing to decode."""
    leaves(out.notes, senders.scalars, out.notes[request, SENDER], request, at)
    if rules.by_prefill and load.output[request] == 1:
        s, r = receivers.scalars, out.notes[request, RECEIVER]
        run_decodes(rules, decode, load, out, senders, receivers, clock, r, at)
        s[r, FREED] += pages_of(loaded_tokens(rules, load, request), decode.page)
        s[r, FREED_AT] = at
        s[r, QUIET] = 0
        s[r, WAKE] = min(s[r, WAKE], at)
        s[r, OUTSTANDING] -= 1
        answered(rules, load, clock, request, at)


@inner
def _landed(rules, decode, load, out, senders, receivers, clock, request, at):
    """A prompt is computed (`hold`), or its KV has arrived: it goes to a decode replica."""
    if not rules.hold:
        seen = out.seen
        seen[request, SENT] = seen[request, PREFILLED]
        seen[request, READY] = at
        if rules.by_prefill:
            seen[request, FIRST] = at
            if load.output[request] == 1:
                seen[request, DONE] = at
                answered(rules, load, clock, request, at)
                return
    _receive(rules, decode, load, out, senders, receivers, clock, request, at)


@compiled
def run_both(rules, prefill, decode, load, out, senders, receivers, clock):
    """Play a load on both pools; everything is written in place (disaggregated.py makes the arrays).

    What happens at one time, in this order: transfers end; prompts are computed and routed; decode replicas plan;
    requests arrive; prefill replicas plan.
    """
    counts = clock.counts
    while True:
        at, code = FAR, 0
        from_heap = counts[HEAP_SIZE] > 0
        if from_heap:
            at, code = clock.times[0], clock.codes[0]
        if counts[NEXT_ARRIVAL] < load.first_arrivals.size:
            request = load.first_arrivals[counts[NEXT_ARRIVAL]]
            comes, other = load.arrival[request], (ARRIVES << KIND_BITS) + request
            if comes < at or (comes == at and other < code):
                at, code, from_heap = comes, other, False
        for r in range(decode.replicas):
            wake = receivers.scalars[r, WAKE]
            if wake < at or (wake == at and (RECEIVES << KIND_BITS) + r < code):
                at, code, from_heap = wake, (RECEIVES << KIND_BITS) + r, False
        for r in range(prefill.replicas):
            wake = senders.scalars[r, WAKE]
            if wake < at or (wake == at and (SENDS << KIND_BITS) + r < code):
                at, code, from_heap = wake, (SENDS << KIND_BITS) + r, False
        if at == FAR:
            break
        kind, which = code >> KIND_BITS, code & ((1 << KIND_BITS) - 1)
        if from_heap:
            unschedule(clock.times, clock.codes, counts)
        if kind == MOVED:
            _moved(rules, prefill, decode, load, out, senders, receivers, clock, which, at)
        elif kind == LANDED:
            _landed(rules, decode, load, out, senders, receivers, clock, which, at)
        elif kind == RECEIVES:
            run_decodes(rules, decode, load, out, senders, receivers, clock, which, at + 1)
        elif kind == SENDS:
            run_prefills(rules, prefill, load, out, senders, clock, which, at)
        else:
            if not from_heap:
                counts[NEXT_ARRIVAL] += 1
            elif rules.clients > 0:
                which = counts[RELEASED]
                if which == load.prompt.size:
                    continue
                counts[RELEASED] += 1
            _arrive(rules, prefill, load, out, senders, clock, which, at)


@compiled
def run_receivers(rules, pool, load, out, senders, receivers, clock, order):
    """Play decode replicas alone: the requests of `order` come with their KV, at their READY."""
    s = receivers.scalars
    for i in range(order.size):
        request = order[i]
        if pool.routing == LEAST_OUTSTANDING:
            _receive(rules, pool, load, out, senders, receivers, clock, request, out.seen[request, READY])
        else:
            r = i % pool.replicas
            out.notes[request, RECEIVER] = r
            _enqueue(s, out.notes, r, request)
    for r in range(pool.replicas):
        run_decodes(rules, pool, load, out, senders, receivers, clock, r, FAR)


@compiled
def last_chunks(tokens, start, done, replica, max_tokens, used, ended, chunks):
    """Into `chunks`, the tokens of each prompt's last step on replicas that only compute prompts, in order of arrival.

    Steps are full but for the last of a busy period, and a prompt's first chunk is what those before it leave of the
    step; it shares their last step where it starts before that ends. `used` and `ended` are zeros, one a replica.
    """
    for i in range(tokens.size):
        r = replica[i]
        before = used[r] if start[i] < ended[r] else 0
        rest = tokens[i] - min(tokens[i], max_tokens - before)
        if rest == 0:
            chunks[i] = tokens[i]
            used[r] = before + tokens[i]
        else:
            chunks[i] = (rest - 1) % max_tokens + 1
            used[r] = chunks[i]
        ended[r] = done[i]
