"""The explicit kernel's schedulers: what each rank runs in its next step, by the rules of its engine."""

import numpy as np

from trilemma.sim.compiled import embedded, inlined, inner
from trilemma.sim.explicit_layout import (
    AFTER,
    ALL_RUN,
    BASE,
    BEGAN,
    CHUNK_SEATS,
    CHUNK_SUM,
    CHUNK_TOKENS,
    CHUNKS,
    COMPLETING,
    COMPUTED,
    DECODE_SPAN,
    DECODES,
    DECODING,
    EMITS,
    ENDED,
    EVICTED,
    FREE,
    GENERATED,
    HEAD,
    HELD_BACK_BY,
    LATCH,
    LATE,
    LATE_SEATS,
    LEFT,
    LENGTH,
    LOOKED,
    MILLION,
    MODE,
    NONE_RUN,
    ORDER,
    OUTPUT,
    PAIRS,
    PARTIAL_SEATS,
    PARTIALS,
    PROMPT,
    QUEUE,
    RATIO,
    REQUEST,
    ROOM,
    RUNNING,
    SEATS_LEFT,
    SOME_RUN,
    SPAN,
    TAIL,
    TARGET,
    TOP,
    WAITING,
)
from trilemma.sim.explicit_queue import goes_before, see
from trilemma.sim.explicit_seats import (
    admit,
    blocks_for,
    blocks_needed,
    evict,
    lookup,
    register,
    schedule_chunk,
    start_partial,
    take,
    vacate,
)
from trilemma.sim.layout import (
    KV,
    MAX_UTILIZATION,
    MOST_NEW_TOKENS,
    NO_EVICT,
    NOTHING,
    PEAK_BLOCKS,
    RETRACT_HEADROOM,
    SEATS,
    SGLANG,
    TOKENS,
    VLLM,
)
from trilemma.sim.stretch import pages_of


@inner
def walk(rules, load, out, state, r, now, budget, most, prompts_too):
    """Running sequences in the order of their admission, each taking its tokens and blocks, evicting where blocks are
    short; the tokens left. Needed where not everybody gets everything; fills `span` and the chunks."""
    s, page = state.scalars, rules.page
    s[r, MODE] = SOME_RUN
    for i in range(s[r, TOP]):
        state.tokens[r, SPAN, i] = 0
    seat = s[r, HEAD]
    while seat != -1 and budget > 0:
        decodes = state.tokens[r, EMITS, seat] != 0
        if not decodes and not prompts_too:
            seat = state.seats[r, AFTER, seat]
            continue
        wanted = rules.span if decodes else state.seats[r, TARGET, seat] - state.seats[r, COMPUTED, seat]
        if not decodes and most > 0:
            wanted = min(wanted, most)
        tokens = min(wanted, budget)
        wants = blocks_for(np.int64(state.tokens[r, ROOM, seat]), tokens, page)
        gone = False
        while wants > s[r, FREE]:
            victim = s[r, TAIL]
            if rules.by_priority and rules.policy == VLLM:
                other = s[r, HEAD]
                victim = other
                while other != -1:
                    if goes_before(load, 1, state.seats[r, REQUEST, victim], state.seats[r, REQUEST, other]):
                        victim = other
                    other = state.seats[r, AFTER, other]
            gone = victim == seat
            budget += evict(rules, load, out, state, r, victim, now, True)
            if gone:
                break
        if gone:
            seat = state.seats[r, AFTER, seat]
            continue
        take(rules, state, r, wants)
        state.tokens[r, ROOM, seat] += wants * page
        budget -= tokens
        if decodes:
            state.tokens[r, SPAN, seat] = tokens
        else:
            schedule_chunk(state, r, seat, tokens)
            if rules.caching:
                register(rules, load, state, r, seat, state.seats[r, COMPUTED, seat] + tokens)
        seat = state.seats[r, AFTER, seat]
    return budget


@inlined
def plan_vllm(rules, load, out, state, r, now):
    """One step of vLLM V1; what held the head of the queue back."""
    s, page, span = state.scalars, rules.page, rules.span
    budget = rules.max_tokens
    most = rules.threshold
    if rules.whole_prompts or s[r, RUNNING] + s[r, LATE] + s[r, WAITING] <= 1:
        most = 0

    # A. Those that run. Without a threshold the one unfinished prompt is the last of them and takes what is left.
    decodes, partials = s[r, DECODES], s[r, PARTIALS]
    needed = blocks_needed(state.tokens[r, ROOM], state.tokens[r, EMITS], s[r, TOP], span, page)
    tokens = decodes * span
    ordered = tokens > budget or (partials > 0 and rules.threshold > 0 and rules.caching)
    chunk = np.int64(0)
    chunk_blocks = np.int64(0)
    if not ordered:
        for i in range(partials):
            seat = state.seats[r, PARTIAL_SEATS, i]
            chunk = state.seats[r, TARGET, seat] - state.seats[r, COMPUTED, seat]
            if most > 0:
                chunk = min(chunk, most)
            if rules.threshold == 0:
                chunk = min(chunk, budget - tokens)
            tokens += chunk
            chunk_blocks += blocks_for(np.int64(state.tokens[r, ROOM, seat]), chunk, page)
        ordered = tokens > budget
    if ordered or needed + chunk_blocks > s[r, FREE]:
        budget = walk(rules, load, out, state, r, now, budget, most, True)
    else:
        take(rules, state, r, needed + chunk_blocks)
        budget -= tokens
        if decodes > 0:
            s[r, MODE] = ALL_RUN
        for i in range(partials):
            seat = state.seats[r, PARTIAL_SEATS, i]
            chunk = state.seats[r, TARGET, seat] - state.seats[r, COMPUTED, seat]
            if most > 0:
                chunk = min(chunk, most)
            if rules.threshold == 0:
                chunk = min(chunk, rules.max_tokens - decodes * span)
            if chunk > 0:
                state.tokens[r, ROOM, seat] += blocks_for(np.int64(state.tokens[r, ROOM, seat]), chunk, page) * page
                schedule_chunk(state, r, seat, chunk)
                if rules.caching:
                    register(rules, load, state, r, seat, state.seats[r, COMPUTED, seat] + chunk)

    # B. Those that wait.
    if s[r, EVICTED]:
        return KV
    while s[r, WAITING] > 0:
        if s[r, SEATS_LEFT] == 0:
            return SEATS
        if budget == 0:
            return TOKENS
        request = s[r, QUEUE]
        target = load.table[request, PROMPT] + state.notes[request, GENERATED]
        hits, idle = lookup(rules, load, state, r, request, target)
        hit = hits * rules.unit
        chunk = target - hit
        if most > 0:
            chunk = min(chunk, most)
        if chunk > budget and rules.whole_prompts:
            return TOKENS
        chunk = min(chunk, budget)
        shared = hit // page
        whole = pages_of(target if rules.reserve_full else hit + chunk, page)
        if whole - shared + idle * (rules.unit // page) > s[r, FREE]:
            return KV
        seat = admit(rules, load, out, state, r, now, hits, pages_of(hit + chunk, page) - shared)
        schedule_chunk(state, r, seat, chunk)
        if rules.caching:
            register(rules, load, state, r, seat, hit + chunk)
        if hit + chunk < target:
            start_partial(state, r, seat)
        budget -= chunk
    return NOTHING


@inlined
def trtllm_chunk(rules, remaining, budget):
    """Tokens of a context that run in a step with so many left; 0 where it has to wait."""
    if remaining <= budget:
        return remaining
    if rules.whole_prompts:
        return 0
    return budget // rules.chunk_unit * rules.chunk_unit


@inlined
def plan_trtllm(rules, load, out, state, r, now):
    """One step of TensorRT-LLM, both policies; what held the head of the queue back."""
    s, page = state.scalars, rules.page

    # Decodes, in the order of admission; under GUARANTEED_NO_EVICT their blocks are there.
    needed = 0
    if rules.policy == MAX_UTILIZATION:
        needed = blocks_needed(state.tokens[r, ROOM], state.tokens[r, EMITS], s[r, TOP], rules.span, page)
    if needed > s[r, FREE]:
        walk(rules, load, out, state, r, now, rules.max_tokens, 0, False)
    else:
        take(rules, state, r, needed)
        if s[r, DECODES] > 0:
            s[r, MODE] = ALL_RUN
    budget = rules.max_tokens - s[r, DECODES] * rules.span

    # The context that is under way.
    if s[r, PARTIALS] > 0:
        seat = state.seats[r, PARTIAL_SEATS, 0]
        remaining = state.seats[r, TARGET, seat] - state.seats[r, COMPUTED, seat]
        chunk = trtllm_chunk(rules, remaining, budget)
        if chunk > 0:
            schedule_chunk(state, r, seat, chunk)
        budget -= chunk
        if chunk < remaining:
            return TOKENS if s[r, SEATS_LEFT] > 0 else SEATS

    # Those that wait.
    if s[r, EVICTED]:
        return KV
    while s[r, WAITING] > 0:
        if s[r, SEATS_LEFT] == 0:
            return SEATS
        if budget == 0:
            return TOKENS
        request = s[r, QUEUE]
        target = load.table[request, PROMPT] + state.notes[request, GENERATED]
        hits, idle = lookup(rules, load, state, r, request, target)
        hit = hits * rules.unit
        remaining = target - hit
        chunk = trtllm_chunk(rules, remaining, budget)
        if chunk == 0:
            return TOKENS
        kept = target
        if rules.policy == NO_EVICT:
            kept = load.table[request, PROMPT] + max(load.table[request, OUTPUT], rules.max_new) + rules.span - 1
        wants = pages_of(kept, page) - hit // page
        if wants + idle * (rules.unit // page) > s[r, FREE]:
            return KV
        seat = admit(rules, load, out, state, r, now, hits, wants)
        schedule_chunk(state, r, seat, chunk)
        budget -= chunk
        if chunk < remaining:
            start_partial(state, r, seat)
            return TOKENS if s[r, SEATS_LEFT] > 0 else SEATS
    return NOTHING


@inner
def ahead(left, base, prompts_and, decoding, top, max_new):
    """Tokens that SGLang takes the decodes of a rank to have still to come."""
    total = np.int64(0)
    if max_new == 0:
        for i in range(top):
            total += decoding[i] * min(left[i], MOST_NEW_TOKENS)
    else:
        for i in range(top):
            output = base[i] + 1 - prompts_and[i]
            total += decoding[i] * min(left[i] + max(max_new - output, 0), MOST_NEW_TOKENS)
    return total


@inner
def plan_sglang_prefills(rules, load, out, state, r, now):
    """SGLang's prefill batch, if one can be built; what held the head of the queue back."""
    s, page = state.scalars, rules.page
    decodes = s[r, DECODES]
    if decodes == 0:
        s[r, LATCH] = NOTHING
    if s[r, PARTIALS] == 0 and (s[r, LATCH] != NOTHING or s[r, WAITING] == 0):
        return s[r, LATCH]
    held_back = np.int64(0)
    if decodes > 0:
        held_back = ahead(
            state.tokens[r, LEFT],
            state.tokens[r, BASE],
            state.tokens[r, LENGTH],
            state.tokens[r, EMITS],
            s[r, TOP],
            rules.max_new,
        )
        held_back = held_back * s[r, RATIO] // MILLION
    along = decodes * rules.span if rules.mixed else 0
    room = s[r, FREE] * page - held_back - along
    budget = rules.max_tokens - along
    if s[r, PARTIALS] > 0:
        seat = state.seats[r, PARTIAL_SEATS, 0]
        computed = state.seats[r, COMPUTED, seat]
        remaining = state.seats[r, TARGET, seat] - computed
        chunk = min(remaining, budget)
        if room > 0:
            chunk = min(chunk, room)
        if chunk < remaining:
            chunk = (computed + chunk) // page * page - computed
        wants = blocks_for(np.int64(state.tokens[r, ROOM, seat]), chunk, page)
        if chunk == 0 or wants > s[r, FREE]:
            return KV
        take(rules, state, r, wants)
        state.tokens[r, ROOM, seat] += wants * page
        schedule_chunk(state, r, seat, chunk)
        rounded = pages_of(chunk, page) * page
        budget -= rounded
        room -= rounded + page
        if chunk == remaining:
            room -= min(max(load.table[state.seats[r, REQUEST, seat], OUTPUT], rules.max_new), MOST_NEW_TOKENS)
        if room <= 0 or s[r, FREE] <= 0:
            s[r, LATCH] = KV
        if chunk < remaining:
            return TOKENS
    while s[r, WAITING] > 0:
        if s[r, LATCH] != NOTHING:
            return s[r, LATCH]
        if s[r, SEATS_LEFT] == 0:
            s[r, LATCH] = SEATS
            return SEATS
        if budget <= 0:
            return TOKENS
        request = s[r, QUEUE]
        target = load.table[request, PROMPT] + state.notes[request, GENERATED]
        hits, idle = lookup(rules, load, state, r, request, target)
        extend = target - hits * rules.unit
        new = max(load.table[request, OUTPUT], rules.max_new)
        unheld = idle * rules.unit
        if extend + min(new - state.notes[request, GENERATED], MOST_NEW_TOKENS) + page + unheld >= room:
            s[r, LATCH] = KV
            return KV
        chunk = extend
        if pages_of(extend, page) * page > budget:
            chunk = 0 if rules.whole_prompts else budget // page * page
        if chunk == 0:
            return TOKENS
        seat = admit(rules, load, out, state, r, now, hits, pages_of(chunk, page))
        schedule_chunk(state, r, seat, chunk)
        rounded = pages_of(chunk, page) * page
        budget -= rounded
        room -= unheld + rounded + page
        if chunk < extend:
            start_partial(state, r, seat)
        else:
            room -= min(new, MOST_NEW_TOKENS)
        if room <= 0 or s[r, FREE] <= 0:
            s[r, LATCH] = KV
        if chunk < extend:
            return TOKENS
    return NOTHING


@inner
def retract(rules, load, out, state, r, now, needed):
    """SGLang sends decodes back to the end of the queue until the others fit: fewest tokens generated first, then the
    longest prompt, then the latest admitted. The blocks needed by those that stay."""
    s = state.scalars
    while needed > s[r, FREE] and s[r, DECODES] > 1:
        victim = -1
        for i in range(s[r, TOP]):
            if state.tokens[r, EMITS, i] == 0:
                continue
            if victim == -1:
                victim = i
                continue
            fewer = (load.table[state.seats[r, REQUEST, i], OUTPUT] - state.tokens[r, LEFT, i]) - (
                load.table[state.seats[r, REQUEST, victim], OUTPUT] - state.tokens[r, LEFT, victim]
            )
            longer = state.tokens[r, LENGTH, i] - state.tokens[r, LENGTH, victim]
            later = state.seats[r, ORDER, i] > state.seats[r, ORDER, victim]
            if fewer < 0 or (fewer == 0 and (longer > 0 or (longer == 0 and later))):
                victim = i
        needed -= blocks_for(np.int64(state.tokens[r, ROOM, victim]), rules.span, rules.page)
        evict(rules, load, out, state, r, victim, now, False)
    if needed > s[r, FREE] and s[r, PARTIALS] > 0:
        evict(rules, load, out, state, r, state.seats[r, PARTIAL_SEATS, 0], now, False)
    s[r, LATCH] = NOTHING
    if not rules.keeps_ratio:
        generated = promised = np.int64(0)
        for i in range(s[r, TOP]):
            if state.tokens[r, EMITS, i]:
                output = load.table[state.seats[r, REQUEST, i], OUTPUT]
                generated += output - state.tokens[r, LEFT, i]
                promised += max(output, rules.max_new)
        ahead = generated + RETRACT_HEADROOM * s[r, DECODES]
        s[r, RATIO] = min(MILLION, ahead * MILLION // (promised + 1))
    return needed


@inlined
def plan_sglang(rules, load, out, state, r, now):
    """One step of SGLang, prefill or decode (or both, with mixed chunks); what held the head of the queue back."""
    s = state.scalars
    reason = plan_sglang_prefills(rules, load, out, state, r, now)
    prefills = s[r, CHUNKS] > 0
    if prefills and not rules.mixed:
        return reason
    needed = blocks_needed(state.tokens[r, ROOM], state.tokens[r, EMITS], s[r, TOP], rules.span, rules.page)
    short = needed > s[r, FREE]
    if short:
        if prefills:
            return reason
        if s[r, LATE] > 0:  # their blocks are about to be free: nothing now, planned again without them
            return KV
        needed = retract(rules, load, out, state, r, now, needed)
    elif not prefills and s[r, DECODES] > 0:
        s[r, RATIO] = max(rules.ratio_least, s[r, RATIO] - rules.ratio_fall)
    take(rules, state, r, needed)
    if s[r, DECODES] > 0:
        s[r, MODE] = ALL_RUN
    return reason


@embedded
def attempt(rules, load, out, state, r, now, knows):
    """Plan a rank's step, as somebody would who knows of arrivals up to `knows`; whether anything runs."""
    s = state.scalars
    see(rules, load, state, r, knows)
    s[r, MODE] = NONE_RUN
    s[r, CHUNKS] = s[r, EVICTED] = s[r, CHUNK_SUM] = s[r, PAIRS] = s[r, COMPLETING] = 0
    s[r, DECODING] = s[r, DECODE_SPAN] = 0
    if s[r, WAITING] == 0 and s[r, RUNNING] == 0:
        return False
    if rules.policy == VLLM:
        reason = plan_vllm(rules, load, out, state, r, now)
    elif rules.policy == SGLANG:
        reason = plan_sglang(rules, load, out, state, r, now)
    else:
        reason = plan_trtllm(rules, load, out, state, r, now)
    if s[r, EVICTED]:
        reason = KV
    s[r, LOOKED] = knows
    s[r, HELD_BACK_BY] = reason if s[r, WAITING] > 0 else NOTHING

    for i in range(s[r, CHUNKS]):
        seat, tokens = state.seats[r, CHUNK_SEATS, i], state.seats[r, CHUNK_TOKENS, i]
        computed = state.seats[r, COMPUTED, seat]
        s[r, CHUNK_SUM] += tokens
        s[r, PAIRS] += tokens * (2 * computed + tokens + 1)
        s[r, COMPLETING] += computed + tokens == state.seats[r, TARGET, seat]
        if rules.caching and rules.policy != VLLM:
            register(rules, load, state, r, seat, computed + tokens)
    if s[r, MODE] == ALL_RUN:
        s[r, DECODING] = s[r, DECODES]
        s[r, DECODE_SPAN] = s[r, DECODES] * rules.span
    elif s[r, MODE] == SOME_RUN:
        for i in range(s[r, TOP]):
            s[r, DECODING] += state.tokens[r, SPAN, i] > 0
            s[r, DECODE_SPAN] += state.tokens[r, SPAN, i]
    out.totals[PEAK_BLOCKS] = max(out.totals[PEAK_BLOCKS], rules.blocks - s[r, FREE])
    return s[r, CHUNKS] + s[r, DECODING] > 0


@inner
def let_go(rules, load, state, r):
    """Those who were answered give back their seats and blocks."""
    s = state.scalars
    for i in range(s[r, LATE]):
        seat = state.seats[r, LATE_SEATS, i]
        vacate(rules, load, state, r, seat, state.seats[r, COMPUTED, seat])
    s[r, LATE] = 0


@embedded
def plan(rules, load, out, state, r, now):
    """Plan the step that starts now; whether anything runs on the rank."""
    s = state.scalars
    was_idle = s[r, ENDED] != now
    if was_idle:
        s[r, RATIO] = rules.ratio_first
    # Asynchronous: this step was planned when the last one began. One that planned nothing is planned again now.
    knows = s[r, BEGAN] if rules.asynchronous and not was_idle else now
    planned = False
    while not planned:
        if knows == now and s[r, LATE] > 0:
            let_go(rules, load, state, r)
        planned = attempt(rules, load, out, state, r, now, knows)
        if s[r, LATE] > 0:
            let_go(rules, load, state, r)
        if knows == now:
            break
        knows = now
    return planned
