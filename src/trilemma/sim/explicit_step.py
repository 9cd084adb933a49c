"""The explicit kernel's steps: how long they take and what comes out of them."""

import numpy as np

from trilemma.latency.table import FRACTION_BITS
from trilemma.sim.compiled import entry, inlined, inner
from trilemma.sim.draws import accepted_tokens
from trilemma.sim.explicit_layout import (
    ALL_RUN,
    BASE,
    BEGAN,
    CHUNK_SEATS,
    CHUNK_SUM,
    CHUNK_TOKENS,
    CHUNKS,
    COMPLETING,
    COMPUTED,
    CONTEXT_SUM,
    DECODE_SPAN,
    DECODES,
    DECODING,
    DONE,
    DRAWN,
    EMITS,
    ENDED,
    ENDING_SEATS,
    FIRST,
    FREE,
    FRESH,
    GENERATED,
    KEY,
    LAST,
    LATCH,
    LATE,
    LATE_SEATS,
    LEFT,
    LENGTH,
    MILLION,
    MODE,
    NEXT_SAMPLE,
    NONE_RUN,
    NOW,
    ORDER,
    OUTPUT,
    PAIRS,
    PARTIALS,
    PLANNED,
    PROMPT,
    PROMPTS_INSIDE,
    REQUEST,
    ROOM,
    RUNNING,
    SAMPLE_COLUMNS,
    SAMPLE_PS,
    SAMPLES,
    SEATS_LEFT,
    SOME_RUN,
    SPAN,
    STACKED,
    STUCK,
    TARGET,
    TOP,
    UNANSWERED,
    WAITING,
)
from trilemma.sim.explicit_plan import let_go, plan
from trilemma.sim.explicit_queue import answered, deliver, next_request
from trilemma.sim.explicit_seats import blocks_for, finish_partial, unlink
from trilemma.sim.layout import (
    DECODE_PS,
    DECODE_TOKENS,
    END_PS,
    NOTHING,
    PREFILL_PS,
    PREFILL_TOKENS,
    S_BLOCKS,
    S_DECODE_PS,
    S_DECODE_TOKENS,
    S_PREEMPTED,
    S_PREFILL_PS,
    S_PREFILL_TOKENS,
    S_RUNNING,
    S_TIME,
    SEQUENCE_US,
    STEPS,
)
from trilemma.sim.stretch import bin_of


@inner
def window_sum(left, base, runs, top, window):
    """Sum over the decodes that run of min(context + 1, window)."""
    total = np.int64(0)
    for i in range(top):
        total += (runs[i] > 0) * min(base[i] - left[i] + 1, window)
    return total


@inlined
def step_times(rules, prices, state, r, mean_tokens, mean_decode_tokens):
    """(what the rank's planned step takes, what it would take without its prefills), picoseconds."""
    s = state.scalars
    decodes = s[r, DECODING]
    context_ps = np.int64(0)
    if decodes > 0:
        context_sum = s[r, CONTEXT_SUM]
        runs = state.tokens[r, EMITS]
        if s[r, MODE] == SOME_RUN:
            runs = state.tokens[r, SPAN]
            context_sum = np.int64(0)
            for i in range(s[r, TOP]):
                if state.tokens[r, SPAN, i] > 0:
                    context_sum += state.tokens[r, BASE, i] - state.tokens[r, LEFT, i] + 1
        context_ps = prices.context_ps * context_sum + rules.draft_ps
        if prices.window > 0:
            context_ps += prices.window_ps * window_sum(
                state.tokens[r, LEFT], state.tokens[r, BASE], runs, s[r, TOP], prices.window
            )
    prefill = s[r, CHUNK_SUM]
    tokens = max(prefill + s[r, DECODE_SPAN], mean_tokens)
    whole = (
        prices.token_ps[tokens]
        + prices.prefill_ps[prefill]
        + prices.decode_ps[decodes]
        + prices.sequence_ps[decodes + s[r, COMPLETING]]
        + context_ps
        + ((prices.pair_fp * s[r, PAIRS]) >> FRACTION_BITS)
    )
    whole = max(whole, prices.floor_ps[decodes + s[r, CHUNKS]])
    if decodes == 0:
        return whole, np.int64(0)
    tokens = max(s[r, DECODE_SPAN], mean_decode_tokens)
    alone = prices.token_ps[tokens] + prices.decode_ps[decodes] + prices.sequence_ps[decodes] + context_ps
    return whole, max(alone, prices.floor_ps[decodes])


@inner
def advance_all(room, left, decoding, top, page):
    """Every decode emits a token, taking a block where it needs one; how many emitted their last."""
    finished = 0
    for i in range(top):
        runs = decoding[i]
        grown = page if room[i] == 0 else 0
        room[i] += runs * (grown - 1)
        left[i] -= runs
        finished += runs & (left[i] == 0)
    return finished


@inner
def remember(last, decoding, top, now):
    """Write down when decodes emitted last: at `now`, all of them."""
    for i in range(top):
        if decoding[i]:
            last[i] = now


@inlined
def advance(rules, prices, out, state, r, now, end):
    """The decodes that run emit their tokens; how many emitted their last."""
    s, histogram = state.scalars, out.histogram
    top, mode, span = s[r, TOP], s[r, MODE], rules.span
    if not rules.speculating and mode == ALL_RUN and s[r, FRESH]:
        histogram[bin_of(end - now)] += s[r, DECODES]
        s[r, CONTEXT_SUM] += s[r, DECODES]
        out.totals[DECODE_TOKENS] += s[r, DECODES]
        return advance_all(state.tokens[r, ROOM], state.tokens[r, LEFT], state.tokens[r, EMITS], top, rules.page)
    if s[r, DECODES] == 0:
        return 0
    if s[r, FRESH]:
        remember(state.seats[r, LAST], state.tokens[r, EMITS], top, now)
        s[r, FRESH] = 0
    if mode == NONE_RUN:
        return 0
    finished = emitted_all = 0
    gap, gap_bin = np.int64(-1), np.int64(0)
    for i in range(top):
        tokens = state.tokens[r, SPAN, i] if mode == SOME_RUN else state.tokens[r, EMITS, i] * span
        if tokens == 0:
            continue
        if mode == ALL_RUN and state.tokens[r, ROOM, i] < span:
            state.tokens[r, ROOM, i] += blocks_for(np.int64(state.tokens[r, ROOM, i]), span, rules.page) * rules.page
        emitted = 1
        if rules.speculating:
            emitted = accepted_tokens(state.seats[r, KEY, i], state.seats[r, DRAWN, i], prices.thresholds)
            emitted = min(emitted, tokens, state.tokens[r, LEFT, i])
            state.seats[r, DRAWN, i] += 1
        if end - state.seats[r, LAST, i] != gap:
            gap = end - state.seats[r, LAST, i]
            gap_bin = bin_of(gap)
        histogram[gap_bin] += 1
        state.seats[r, LAST, i] = end
        state.tokens[r, ROOM, i] -= emitted
        state.tokens[r, LEFT, i] -= emitted
        emitted_all += emitted
        finished += state.tokens[r, LEFT, i] == 0
    count = s[r, DECODING]
    histogram[0] += emitted_all - count
    s[r, CONTEXT_SUM] += emitted_all
    out.totals[DECODE_TOKENS] += emitted_all
    s[r, FRESH] = mode == ALL_RUN and not rules.speculating
    return finished


@inlined
def complete(rules, prices, load, out, state, r, now, end):
    """The rank's step has run until `end`."""
    s = state.scalars
    finished = advance(rules, prices, out, state, r, now, end)
    ending = 0
    if finished > 0:
        for i in range(s[r, TOP]):
            if state.tokens[r, EMITS, i] and state.tokens[r, LEFT, i] == 0:
                state.tokens[r, EMITS, i] = 0
                state.seats[r, COMPUTED, i] = state.tokens[r, BASE, i]
                s[r, DECODES] -= 1
                s[r, CONTEXT_SUM] -= state.tokens[r, BASE, i] + 1
                state.seats[r, ENDING_SEATS, ending] = i
                ending += 1
    for i in range(s[r, CHUNKS]):
        seat = state.seats[r, CHUNK_SEATS, i]
        request = state.seats[r, REQUEST, seat]
        tokens = state.seats[r, CHUNK_TOKENS, i]
        state.seats[r, COMPUTED, seat] += tokens
        state.tokens[r, ROOM, seat] -= tokens
        target = state.seats[r, TARGET, seat]
        if state.seats[r, COMPUTED, seat] < target:
            continue
        if s[r, PARTIALS] > 0:
            finish_partial(state, r, seat)
        generated = state.notes[request, GENERATED] + 1
        state.notes[request, GENERATED] = generated
        if out.seen[request, FIRST] < 0:
            out.seen[request, FIRST] = end
        else:
            out.histogram[bin_of(end - out.seen[request, DONE])] += 1
        if generated == load.table[request, OUTPUT]:
            state.seats[r, ENDING_SEATS, ending] = seat
            ending += 1
        else:
            state.tokens[r, EMITS, seat] = 1
            state.tokens[r, LEFT, seat] = load.table[request, OUTPUT] - generated
            state.tokens[r, BASE, seat] = load.table[request, PROMPT] + load.table[request, OUTPUT] - 1
            state.tokens[r, LENGTH, seat] = load.table[request, PROMPT]
            state.seats[r, LAST, seat] = end
            s[r, DECODES] += 1
            s[r, CONTEXT_SUM] += target + 1
    if s[r, DECODES] == 0 and not rules.speculating:
        s[r, FRESH] = 1
    if ending == 0:
        return
    for i in range(1, ending):  # in the order of admission
        seat = state.seats[r, ENDING_SEATS, i]
        k = i
        while k > 0 and state.seats[r, ORDER, state.seats[r, ENDING_SEATS, k - 1]] > state.seats[r, ORDER, seat]:
            state.seats[r, ENDING_SEATS, k] = state.seats[r, ENDING_SEATS, k - 1]
            k -= 1
        state.seats[r, ENDING_SEATS, k] = seat
    for i in range(ending):
        seat = state.seats[r, ENDING_SEATS, i]
        request = state.seats[r, REQUEST, seat]
        out.seen[request, DONE] = end
        s[r, UNANSWERED] -= 1
        s[r, PROMPTS_INSIDE] -= load.table[request, PROMPT]
        unlink(state, r, seat)
        state.seats[r, LATE_SEATS, i] = seat
        answered(rules, load, state, request, end)
    s[r, LATE] = ending
    s[r, LATCH] = NOTHING
    if not rules.asynchronous:
        let_go(rules, load, state, r)


@inner
def sample(rules, out, state):
    """Write what is seen now into every row of samples that is due; when the rows are full every other one is kept."""
    g, s = state.group, state.scalars
    running = used = preempted = np.int64(0)
    for r in range(rules.ranks):
        running += s[r, RUNNING] + s[r, LATE]
        used += rules.blocks - s[r, FREE]
        preempted += s[r, STACKED]
    while g[NEXT_SAMPLE] <= g[NOW]:
        if g[SAMPLES] == out.samples.shape[0]:
            g[SAMPLES] //= 2
            for i in range(g[SAMPLES]):
                for column in range(SAMPLE_COLUMNS):
                    out.samples[i, column] = out.samples[2 * i + 1, column]
            g[SAMPLE_PS] *= 2
            g[NEXT_SAMPLE] = (g[SAMPLES] + 1) * g[SAMPLE_PS]
            continue
        row = out.samples[g[SAMPLES]]
        row[S_TIME] = g[NOW]
        row[S_RUNNING] = running
        row[S_BLOCKS] = used
        row[S_PREFILL_TOKENS] = out.totals[PREFILL_TOKENS]
        row[S_DECODE_TOKENS] = out.totals[DECODE_TOKENS]
        row[S_PREFILL_PS] = out.totals[PREFILL_PS]
        row[S_DECODE_PS] = out.totals[DECODE_PS]
        row[S_PREEMPTED] = preempted
        g[SAMPLES] += 1
        g[NEXT_SAMPLE] += g[SAMPLE_PS]


@entry
def run_steps(rules, prices, load, out, state, most_steps):
    """Play up to `most_steps` steps of the group; whether there is more to play."""
    g, s, ranks = state.group, state.scalars, rules.ranks
    for _ in range(most_steps):
        now = g[NOW]
        deliver(rules, load, out, state, now)
        total_tokens = total_decode_tokens = np.int64(0)
        any_planned = False
        for r in range(ranks):
            planned = plan(rules, load, out, state, r, now)
            s[r, PLANNED] = planned
            any_planned |= planned
            total_tokens += s[r, CHUNK_SUM] + s[r, DECODE_SPAN]
            total_decode_tokens += s[r, DECODE_SPAN]
        if not any_planned:
            request = next_request(rules, load, state)
            if request == -1:
                for r in range(ranks):
                    g[STUCK] += s[r, WAITING] + s[r, RUNNING]
                return False
            g[NOW] = load.arrival[request]
            if g[NEXT_SAMPLE] <= g[NOW]:
                sample(rules, out, state)
            continue

        duration = alone = np.int64(0)
        mean_tokens = mean_decode_tokens = np.int64(0)
        if rules.shared:
            mean_tokens = (total_tokens + ranks - 1) // ranks
            mean_decode_tokens = (total_decode_tokens + ranks - 1) // ranks
        running = np.int64(0)
        for r in range(ranks):
            if s[r, PLANNED]:
                own, own_alone = step_times(rules, prices, state, r, mean_tokens, mean_decode_tokens)
                duration = max(duration, own)
                alone = max(alone, own_alone)
                running += rules.max_seqs - s[r, SEATS_LEFT]
                out.totals[PREFILL_TOKENS] += s[r, CHUNK_SUM]
        alone = min(alone, duration)
        end = now + duration
        out.totals[STEPS] += 1
        out.totals[DECODE_PS] += alone
        out.totals[PREFILL_PS] += duration - alone
        out.totals[SEQUENCE_US] += running * (duration // MILLION)
        out.totals[END_PS] = end
        if ranks > 1:
            deliver(rules, load, out, state, end - 1)
        for r in range(ranks):
            if s[r, PLANNED]:
                complete(rules, prices, load, out, state, r, now, end)
                s[r, BEGAN] = now
                s[r, ENDED] = end
        g[NOW] = end
        if g[NEXT_SAMPLE] <= end:
            sample(rules, out, state)
    return True
