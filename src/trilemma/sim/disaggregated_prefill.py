"""A prefill replica, compiled: steps of prompts alone, whose blocks may stay held after they are computed."""

from trilemma.latency.table import FRACTION_BITS
from trilemma.sim import blocks as cache
from trilemma.sim.coming import schedule
from trilemma.sim.compiled import inner
from trilemma.sim.disaggregated_layout import (
    BEGAN,
    BLOCKED,
    CHUNK,
    CHUNK_AT,
    ENDED,
    ENDED_AT,
    FREE,
    HITS,
    IDLE,
    KIND_BITS,
    LANDED,
    LATE_SEATS,
    LEAVING,
    LEAVING_END,
    LEAVING_LINK,
    LINK,
    LOST,
    MOVES,
    NOW,
    OUTSTANDING,
    PARTIAL,
    PARTIAL_DONE,
    PREEMPTED,
    PREFILLED,
    QUEUE,
    QUEUE_END,
    READY,
    REASON,
    SEATS_LEFT,
    SEEN_UNTIL,
    SENT,
    START,
    TAKEN_UNTIL,
    UNITS,
    WAKE,
)
from trilemma.sim.layout import (
    END_PS,
    FAR,
    KV,
    NOTHING,
    PEAK_BLOCKS,
    PREEMPTIONS,
    PREFILL_PS,
    PREFILL_TOKENS,
    SEATS,
    SEQUENCE_US,
    STEPS,
    TOKENS,
)
from trilemma.sim.stretch import pages_of


@inner
def leaves(notes, s, r, request, at):
    """The blocks of a prefilled request are given back when the replica next plans: now if it has nothing to do."""
    notes[request, LEAVING_LINK] = -1
    if s[r, LEAVING] == -1:
        s[r, LEAVING] = request
    else:
        notes[s[r, LEAVING_END], LEAVING_LINK] = request
    s[r, LEAVING_END] = request
    if s[r, IDLE]:
        s[r, WAKE] = min(s[r, WAKE], at)


@inner
def transfer_begins(rules, load, s, r, tokens, at):
    """When the KV of so many tokens, handed to a prefill replica's link at a time, begins to move."""
    if not rules.one_at_a_time:
        return at
    if s[r, CHUNK] > 0 and s[r, CHUNK_AT] <= at:  # what an unfinished prompt computed goes before
        s[r, TAKEN_UNTIL] = max(s[r, TAKEN_UNTIL], s[r, CHUNK_AT]) + load.link_ps[s[r, CHUNK]]
        s[r, CHUNK] = 0
    begins = max(at, s[r, TAKEN_UNTIL])
    s[r, TAKEN_UNTIL] = begins + load.link_ps[tokens]
    return begins


@inner
def _given_back(pool, load, notes, senders, r, request, computed):
    """A request gives its blocks back; how many are free now that were not before."""
    pages = pages_of(computed, pool.page)
    if not pool.caching:
        return pages
    per_unit = pool.unit // pool.page
    units = notes[request, UNITS]
    begin = load.chain_offsets[request]
    return cache.release(
        senders.nodes[r],
        senders.where[r],
        load.chain_ids,
        senders.held,
        begin,
        units,
        per_unit,
        pages - units * per_unit,
    )


@inner
def _let_go(pool, load, notes, senders, r):
    """Seats of those whose prompts are done, and blocks of those that are on their decode replica, are free again."""
    s = senders.scalars
    s[r, SEATS_LEFT] += s[r, LATE_SEATS]
    s[r, LATE_SEATS] = 0
    request = s[r, LEAVING]
    s[r, LEAVING] = -1
    while request != -1:
        s[r, FREE] += _given_back(pool, load, notes, senders, r, request, load.prompt[request])
        request = notes[request, LEAVING_LINK]


@inner
def _register(pool, load, notes, senders, r, request, tokens):
    """The units of a chain that are whole within the first `tokens` tokens are cached from now on."""
    units = min(tokens // pool.unit, load.chain_units[request])
    if units > notes[request, UNITS]:
        cache.register(
            senders.nodes[r], senders.where[r], load.chain_ids, senders.held, load.chain_offsets[request],
            notes[request, UNITS], units, pool.unit // pool.page,
        )  # fmt: skip
        notes[request, UNITS] = units


@inner
def run_prefills(rules, pool, load, out, senders, clock, r, now):
    """Plan the step that starts now, and let it run; WAKE is when the replica plans again.

    The end of a prompt goes on the clock: when it is computed (`hold`), or when it has reached its decode replica.
    """
    s, seen, notes, prices = senders.scalars, out.seen, out.notes, pool.prices
    page, caching, per_unit = pool.page, pool.caching, pool.unit // pool.page
    nodes, where = senders.nodes[r], senders.where[r]
    visible = s[r, BEGAN] if pool.asynchronous and s[r, NOW] == now else now
    s[r, NOW] = now
    transfer_begins(rules, load, s, r, 0, now)  # nothing but what the last step left for the link
    while True:
        if visible == now:
            _let_go(pool, load, notes, senders, r)
        was_blocked, blocked = s[r, BLOCKED], NOTHING
        budget = pool.max_tokens
        prefill = pairs = 0
        chunks = finishing = going_on = 0
        evicted = False

        # A. The unfinished prompt goes on.
        request = s[r, PARTIAL]
        if request != -1:
            done = s[r, PARTIAL_DONE]
            chunk = min(load.prompt[request] - done, budget)
            wants = pages_of(done + chunk, page) - pages_of(done, page)
            if wants > s[r, FREE]:  # only where a prompt need not fit whole
                evicted = True
                blocked = KV
                s[r, FREE] += _given_back(pool, load, notes, senders, r, request, done)
                s[r, SEATS_LEFT] += 1
                s[r, PARTIAL] = -1
                notes[request, PREEMPTED] += 1
                notes[request, LOST] += done
                notes[request, LINK] = s[r, QUEUE]
                if s[r, QUEUE] == -1:
                    s[r, QUEUE_END] = request
                s[r, QUEUE] = request
                out.sender_totals[r, PREEMPTIONS] += 1
            else:
                s[r, FREE] -= wants
                if caching:
                    cache.allocate(nodes, wants)
                    _register(pool, load, notes, senders, r, request, done + chunk)
                prefill = chunk
                pairs = chunk * (2 * done + chunk + 1)
                budget -= chunk
                chunks = 1
                s[r, PARTIAL_DONE] = done + chunk
                if done + chunk == load.prompt[request]:
                    notes[request, MOVES] = chunk if rules.overlap else load.prompt[request]
                    senders.completing[0] = request
                    finishing = 1
                    s[r, PARTIAL] = -1
                else:
                    going_on = chunk

        # B. Waiting prompts, in order, unless the step preempted.
        while not evicted:
            request = s[r, QUEUE]
            if request == -1 or load.arrival[request] > visible:
                break
            if s[r, SEATS_LEFT] == 0:
                blocked = SEATS
                break
            if s[r, PARTIAL] != -1 or budget == 0:
                blocked = TOKENS
                break
            prompt = load.prompt[request]
            hits = idle = hit = 0
            if caching and load.chain_units[request] > 0:
                hits, idle = cache.lookup(
                    nodes, where, load.chain_ids, load.chain_offsets[request],
                    min(load.chain_units[request], (prompt - 1) // pool.unit),
                )  # fmt: skip
                hit = hits * pool.unit
            chunk = min(prompt - hit, budget)
            if chunk < prompt - hit and pool.whole_prompts:
                blocked = TOKENS
                break
            wants = pages_of(hit + chunk, page)
            whole = pages_of(prompt, page) if pool.reserve_full else wants
            if whole - (hits - idle) * per_unit > s[r, FREE]:
                blocked = KV
                break
            s[r, QUEUE] = notes[request, LINK]
            s[r, SEATS_LEFT] -= 1
            s[r, FREE] -= wants - (hits - idle) * per_unit
            if caching:
                if hits > 0:
                    if rules.overlap:  # the cached part moves while the rest is computed
                        transfer_begins(rules, load, s, r, hit, now)
                    cache.acquire(nodes, where, load.chain_ids, senders.held, load.chain_offsets[request], hits)
                cache.allocate(nodes, wants - hits * per_unit)
                notes[request, UNITS] = hits
                _register(pool, load, notes, senders, r, request, hit + chunk)
            if seen[request, START] < 0:
                seen[request, START] = now
                notes[request, HITS] = hit
                if was_blocked != NOTHING and load.arrival[request] <= s[r, SEEN_UNTIL]:
                    notes[request, REASON] = was_blocked
            prefill += chunk
            pairs += chunk * (2 * hit + chunk + 1)
            budget -= chunk
            chunks += 1
            if hit + chunk == prompt:
                notes[request, MOVES] = chunk if rules.overlap else prompt
                senders.completing[finishing] = request
                finishing += 1
            else:
                s[r, PARTIAL] = request
                s[r, PARTIAL_DONE] = hit + chunk
                going_on = chunk

        s[r, BLOCKED] = blocked
        s[r, SEEN_UNTIL] = visible
        out.sender_totals[r, PEAK_BLOCKS] = max(out.sender_totals[r, PEAK_BLOCKS], pool.blocks - s[r, FREE])
        if visible < now:
            _let_go(pool, load, notes, senders, r)
        if prefill > 0:
            break
        if not evicted and visible == now:
            s[r, IDLE] = 1
            s[r, WAKE] = FAR
            return
        visible = now

    # C. The step runs.
    duration = max(
        prices.floor_ps[chunks],
        prices.token_ps[prefill]
        + prices.prefill_ps[prefill]
        + prices.decode_ps[0]
        + prices.sequence_ps[finishing]
        + ((prices.pair_fp * pairs) >> FRACTION_BITS),
    )
    end = now + duration
    totals = out.sender_totals
    totals[r, STEPS] += 1
    totals[r, PREFILL_PS] += duration
    totals[r, PREFILL_TOKENS] += prefill
    totals[r, SEQUENCE_US] += (pool.max_seqs - s[r, SEATS_LEFT]) * (duration // 1_000_000)
    totals[r, END_PS] = end
    s[r, BEGAN], s[r, NOW], s[r, WAKE] = now, end, end
    s[r, IDLE] = 0
    s[r, LATE_SEATS] += finishing
    for i in range(finishing):
        request = senders.completing[i]
        seen[request, PREFILLED] = end
        lands = end
        if not rules.hold:
            leaves(notes, s, r, request, end)
            moves = notes[request, MOVES]
            seen[request, SENT] = transfer_begins(rules, load, s, r, moves, end)
            lands = seen[request, READY] = seen[request, SENT] + load.link_ps[moves] + rules.latency_ps
        schedule(clock.times, clock.codes, clock.counts, lands, (LANDED << KIND_BITS) + request)
    if rules.overlap:
        s[r, CHUNK], s[r, CHUNK_AT] = going_on, end
    if finishing > 0:
        s[r, OUTSTANDING] -= finishing
        s[r, ENDED] = finishing
        s[r, ENDED_AT] = end
