"""Both pools on one clock, and decode replicas alone, compiled."""

import numpy as np

from trilemma.sim.coming import unschedule
from trilemma.sim.compiled import entry, inner
from trilemma.sim.disaggregated_decode import answered, loaded_tokens, run_decodes
from trilemma.sim.disaggregated_layout import (
    ARRIVES,
    BLOCKED,
    CATCHES_UP,
    DONE,
    ENDED,
    ENDED_AT,
    FIRST,
    FREED,
    FREED_AT,
    HEAP_SIZE,
    IDLE,
    KIND_BITS,
    LANDED,
    LINK,
    MOVED,
    NEXT_ARRIVAL,
    NOW,
    OUTSTANDING,
    QUEUE,
    QUEUE_END,
    READY,
    RECEIVER,
    RECEIVERS_DEALT,
    RECEIVES,
    REFUSALS,
    RELEASED,
    SENDER,
    SENDERS_DEALT,
    SENDS,
    WAKE,
)
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
def _route(pool, s, notes, counts, dealt, column, request, at):
    """Send a request to a replica's queue and note which in `column`; the replica."""
    if pool.routing == LEAST_OUTSTANDING:
        r = _least_outstanding(s, at)
    else:
        r = counts[dealt] % s.shape[0]
        counts[dealt] += 1
    notes[request, column] = r
    notes[request, LINK] = -1
    if s[r, QUEUE] == -1:
        s[r, QUEUE] = request
    else:
        notes[s[r, QUEUE_END], LINK] = request
    s[r, QUEUE_END] = request
    s[r, OUTSTANDING] += 1
    return r


@inner
def _receive(pool, out, receivers, clock, request, at):
    """Route a request to a decode replica; where routers look, all of them have caught up."""
    s = receivers.scalars
    r = _route(pool, s, out.notes, clock.counts, RECEIVERS_DEALT, RECEIVER, request, at)
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
    r = _route(pool, s, out.notes, clock.counts, SENDERS_DEALT, SENDER, request, at)
    if s[r, IDLE]:
        s[r, WAKE] = min(s[r, WAKE], at)


@inner
def _moved(rules, pool, load, out, senders, receivers, clock, request, at):
    """A transfer has ended: prefill blocks are free, and all of a request with nothing to decode."""
    leaves(out.notes, senders.scalars, out.notes[request, SENDER], request, at)
    if rules.by_prefill and load.output[request] == 1:
        s, r = receivers.scalars, out.notes[request, RECEIVER]
        s[r, FREED] += pages_of(loaded_tokens(rules, load, request), pool.page)
        s[r, FREED_AT] = at
        s[r, WAKE] = min(s[r, WAKE], at)
        s[r, OUTSTANDING] -= 1
        answered(rules, load, clock, request, at)


@inner
def _landed(rules, pool, load, out, receivers, clock, request, at):
    """A prompt is computed (`hold`), or its KV has arrived: it goes to a decode replica."""
    if not rules.hold and rules.by_prefill:
        out.seen[request, FIRST] = at
        if load.output[request] == 1:
            out.seen[request, DONE] = at
            answered(rules, load, clock, request, at)
            return
    _receive(pool, out, receivers, clock, request, at)


@entry
def run_both(rules, prefill, decode, load, out, senders, receivers, clock):
    """Play a load on both pools; everything is written in place (disaggregated_setup.py makes the arrays).

    What happens at one time, in this order: transfers end; prompts are computed and routed; decode replicas plan;
    requests arrive; prefill replicas plan.
    """
    counts, times, codes = clock.counts, clock.times, clock.codes
    arrival, first_arrivals = load.arrival, load.first_arrivals
    looked_at = decode.routing == LEAST_OUTSTANDING
    while True:
        at, code = FAR, np.int64(0)
        from_heap = counts[HEAP_SIZE] > 0
        if from_heap:
            at, code = times[0], codes[0]
        if counts[NEXT_ARRIVAL] < first_arrivals.size:
            request = first_arrivals[counts[NEXT_ARRIVAL]]
            comes, other = arrival[request], (ARRIVES << KIND_BITS) + request
            if comes < at or (comes == at and other < code):
                at, code, from_heap = comes, other, False
        s = receivers.scalars
        for r in range(decode.count):
            wake = s[r, WAKE]
            if wake <= at:
                behind = looked_at and s[r, IDLE] == 0 and s[r, NOW] < wake
                other = ((CATCHES_UP if behind else RECEIVES) << KIND_BITS) + r
                if wake < at or other < code:
                    at, code, from_heap = wake, other, False
        s = senders.scalars
        for r in range(prefill.count):
            wake = s[r, WAKE]
            if wake < at or (wake == at and (SENDS << KIND_BITS) + r < code):
                at, code, from_heap = wake, (SENDS << KIND_BITS) + r, False
        if at == FAR:
            break
        kind, which = code >> KIND_BITS, code & ((1 << KIND_BITS) - 1)
        if from_heap:
            unschedule(times, codes, counts)
        if kind in (RECEIVES, CATCHES_UP):
            until = at + 1 if kind == RECEIVES else at
            run_decodes(rules, decode, load, out, senders, receivers, clock, which, until)
        elif kind == MOVED:
            _moved(rules, decode, load, out, senders, receivers, clock, which, at)
        elif kind == LANDED:
            _landed(rules, decode, load, out, receivers, clock, which, at)
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


@entry
def run_receivers(rules, pool, load, out, senders, receivers, clock, order):
    """Play decode replicas alone: the requests of `order` come with their KV, at their READY."""
    for request in order:
        at = out.seen[request, READY]
        if pool.routing == LEAST_OUTSTANDING:
            for r in range(pool.count):
                if receivers.scalars[r, WAKE] <= at:
                    run_decodes(rules, pool, load, out, senders, receivers, clock, r, at)
        _receive(pool, out, receivers, clock, request, at)
    for r in range(pool.count):
        run_decodes(rules, pool, load, out, senders, receivers, clock, r, FAR)
