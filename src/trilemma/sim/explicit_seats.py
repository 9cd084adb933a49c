"""The explicit kernel's seats and KV blocks: who comes in, who is thrown out, and what each holds."""

import numpy as np

from trilemma.sim import blocks as cache
from trilemma.sim.compiled import inlined, inner
from trilemma.sim.draws import request_key
from trilemma.sim.explicit_layout import (
    ADMITTED,
    AFTER,
    BASE,
    BEFORE,
    CHAIN,
    CHUNK_SEATS,
    CHUNK_TOKENS,
    CHUNKS,
    COMPUTED,
    CONTEXT_SUM,
    DECODES,
    DONE,
    DRAWN,
    DRAWS,
    EMITS,
    EVICTED,
    FREE,
    FREE_SEATS,
    FRESH,
    GENERATED,
    HEAD,
    HELD_BACK_BY,
    HITS,
    KEY,
    LAST,
    LEFT,
    LOOKED,
    LOST,
    MODE,
    ORDER,
    OUTPUT,
    OWN_UNITS,
    PARTIAL_SEATS,
    PARTIALS,
    PREEMPTED,
    PROMPT,
    QUEUE,
    REASON,
    REQUEST,
    ROOM,
    RUNNING,
    SEATS_LEFT,
    SOME_RUN,
    SPAN,
    STACKED,
    START,
    TAIL,
    TARGET,
    TOP,
    UNITS,
)
from trilemma.sim.explicit_queue import dequeue, enqueue
from trilemma.sim.layout import PREEMPTIONS


@inlined
def blocks_for(room, tokens, page):
    """Blocks that a sequence with `room` tokens left in its own lacks for `tokens` more."""
    return max(0, (tokens - room + page - 1) // page)


@inner
def blocks_needed(room, decoding, top, span, page):
    """Blocks that all decodes of a rank together lack for their next step."""
    needed = 0
    if span == 1:
        for i in range(top):
            needed += decoding[i] & (room[i] == 0)
    else:
        for i in range(top):
            if decoding[i] and room[i] < span:
                needed += blocks_for(np.int64(room[i]), span, page)
    return needed


@inner
def take(rules, state, r, blocks):
    """Take free blocks."""
    state.scalars[r, FREE] -= blocks
    if rules.caching:
        cache.allocate(state.nodes[r], blocks)


@inner
def register(rules, load, state, r, seat, tokens):
    """The units of a chain that are whole within the first `tokens` tokens are cached from now on."""
    request = state.seats[r, REQUEST, seat]
    units, registered = (
        min(tokens // rules.unit, load.table[request, UNITS]),
        state.seats[r, OWN_UNITS, seat],
    )
    if units > registered:
        cache.register(
            state.nodes[r], state.where[r], load.chain_ids, state.held, load.table[request, CHAIN], registered, units,
            rules.unit // rules.page,
        )  # fmt: skip
        state.seats[r, OWN_UNITS, seat] = units


@inner
def vacate(rules, load, state, r, seat, computed):
    """A sequence gives back its seat and its blocks."""
    s = state.scalars
    held = (computed + state.tokens[r, ROOM, seat]) // rules.page
    if rules.caching:
        register(rules, load, state, r, seat, computed)
        units, per_unit = state.seats[r, OWN_UNITS, seat], rules.unit // rules.page
        begin = load.table[state.seats[r, REQUEST, seat], CHAIN]
        s[r, FREE] += cache.release(
            state.nodes[r], state.where[r], load.chain_ids, state.held, begin, units, per_unit, held - units * per_unit
        )
    else:
        s[r, FREE] += held
    state.seats[r, REQUEST, seat] = -1
    state.tokens[r, SPAN, seat] = 0
    state.seats[r, FREE_SEATS, s[r, SEATS_LEFT]] = seat
    s[r, SEATS_LEFT] += 1
    while s[r, TOP] > 0 and state.seats[r, REQUEST, s[r, TOP] - 1] == -1:
        s[r, TOP] -= 1


@inner
def unlink(state, r, seat):
    """Take a sequence out of the order of admission."""
    s = state.scalars
    prv, nxt = state.seats[r, BEFORE, seat], state.seats[r, AFTER, seat]
    if prv == -1:
        s[r, HEAD] = nxt
    else:
        state.seats[r, AFTER, prv] = nxt
    if nxt == -1:
        s[r, TAIL] = prv
    else:
        state.seats[r, BEFORE, nxt] = prv
    s[r, RUNNING] -= 1


@inner
def finish_partial(state, r, seat):
    """A prompt is not unfinished any more."""
    s = state.scalars
    count, kept = s[r, PARTIALS], 0
    for i in range(count):
        if state.seats[r, PARTIAL_SEATS, i] != seat:
            state.seats[r, PARTIAL_SEATS, kept] = state.seats[r, PARTIAL_SEATS, i]
            kept += 1
    s[r, PARTIALS] = kept


@inner
def evict(rules, load, out, state, r, seat, now, at_front):
    """Back into the queue: blocks and computed tokens are lost, generated tokens kept.

    Returns the tokens that the sequence had in this step already, which it gives back.
    """
    s = state.scalars
    request = state.seats[r, REQUEST, seat]
    returned = np.int64(0)
    if state.tokens[r, EMITS, seat]:
        computed = np.int64(state.tokens[r, BASE, seat] - state.tokens[r, LEFT, seat])
        state.notes[request, GENERATED] = load.table[request, OUTPUT] - state.tokens[r, LEFT, seat]
        out.seen[request, DONE] = now if s[r, FRESH] else state.seats[r, LAST, seat]
        s[r, DECODES] -= 1
        s[r, CONTEXT_SUM] -= computed + 1
        state.tokens[r, EMITS, seat] = 0
        if rules.speculating:
            state.notes[request, DRAWS] = state.seats[r, DRAWN, seat]
        if s[r, MODE] == SOME_RUN:
            returned = np.int64(state.tokens[r, SPAN, seat])
            state.tokens[r, SPAN, seat] = 0
    else:
        computed = state.seats[r, COMPUTED, seat]
        finish_partial(state, r, seat)
        kept = 0
        for i in range(s[r, CHUNKS]):
            if state.seats[r, CHUNK_SEATS, i] == seat:
                returned = state.seats[r, CHUNK_TOKENS, i]
            else:
                state.seats[r, CHUNK_SEATS, kept] = state.seats[r, CHUNK_SEATS, i]
                state.seats[r, CHUNK_TOKENS, kept] = state.seats[r, CHUNK_TOKENS, i]
                kept += 1
        s[r, CHUNKS] = kept
    unlink(state, r, seat)
    vacate(rules, load, state, r, seat, computed)
    out.seen[request, LOST] += computed
    out.seen[request, PREEMPTED] += 1
    out.totals[PREEMPTIONS] += 1
    s[r, EVICTED] = 1
    s[r, STACKED] += 1
    enqueue(rules, load, state, r, request, at_front)
    return returned


@inner
def admit(rules, load, out, state, r, now, hits, wants):
    """Give the head of the queue a seat, the cached part of its prompt and `wants` blocks more; its seat."""
    s = state.scalars
    request = s[r, QUEUE]
    dequeue(rules, load, state, r)
    s[r, SEATS_LEFT] -= 1
    seat = state.seats[r, FREE_SEATS, s[r, SEATS_LEFT]]
    s[r, TOP] = max(s[r, TOP], seat + 1)
    s[r, RUNNING] += 1
    hit = hits * rules.unit
    state.seats[r, REQUEST, seat] = request
    state.seats[r, COMPUTED, seat] = hit
    state.seats[r, TARGET, seat] = load.table[request, PROMPT] + state.notes[request, GENERATED]
    state.tokens[r, ROOM, seat] = wants * rules.page
    state.seats[r, ORDER, seat] = s[r, ADMITTED]
    s[r, ADMITTED] += 1
    tail = s[r, TAIL]
    state.seats[r, BEFORE, seat] = tail
    state.seats[r, AFTER, seat] = -1
    if tail == -1:
        s[r, HEAD] = seat
    else:
        state.seats[r, AFTER, tail] = seat
    s[r, TAIL] = seat
    if rules.caching:
        state.seats[r, OWN_UNITS, seat] = hits
        if hits > 0:
            begin = load.table[request, CHAIN]
            taken = cache.acquire(state.nodes[r], state.where[r], load.chain_ids, state.held, begin, hits)
            s[r, FREE] -= taken * (rules.unit // rules.page)
    take(rules, state, r, wants)
    if rules.speculating:
        state.seats[r, KEY, seat] = np.int64(request_key(rules.seed, request))
        state.seats[r, DRAWN, seat] = state.notes[request, DRAWS]
    if out.seen[request, START] < 0:
        out.seen[request, START] = now
        out.seen[request, HITS] = hit
        if load.arrival[request] <= s[r, LOOKED]:
            out.seen[request, REASON] = s[r, HELD_BACK_BY]
    else:
        s[r, STACKED] -= 1
    return seat


@inner
def lookup(rules, load, state, r, request, target):
    """(units of the request that are cached, how many of them nobody holds)."""
    if not rules.caching or load.table[request, UNITS] == 0:
        return 0, 0
    most = min(np.int64(load.table[request, UNITS]), (target - 1) // rules.unit)
    return cache.lookup(state.nodes[r], state.where[r], load.chain_ids, load.table[request, CHAIN], most)


@inlined
def schedule_chunk(state, r, seat, tokens):
    """So many tokens of a prompt run in this step."""
    s = state.scalars
    state.seats[r, CHUNK_SEATS, s[r, CHUNKS]] = seat
    state.seats[r, CHUNK_TOKENS, s[r, CHUNKS]] = tokens
    s[r, CHUNKS] += 1


@inlined
def start_partial(state, r, seat):
    """A prompt will not be finished in this step."""
    s = state.scalars
    state.seats[r, PARTIAL_SEATS, s[r, PARTIALS]] = seat
    s[r, PARTIALS] += 1
