"""Engine replicas, compiled: schedulers over integer picoseconds that skip the steps in which nothing is decided.

Decodes live in sums (their number, their context, how many still grow inside a window) and in a ring of finish steps;
only admissions, finishes and preemptions touch single requests. Where a step decides nothing (no waiting request can
enter, no prompt is half done, no KV block is missing) the steps up to the next event are taken at once: for a fixed set
of decodes the step time is affine in the step index: k steps from a, s more each, take k a + s k (k - 1) / 2, exactly.
`tests/sim/oracle.py` says the same semantics step by step and request by request; both agree to the picosecond.

The rules of each engine, with the source they were read from, are in docs/simulator.md.
"""

import numpy as np

from trilemma.latency.table import FRACTION_BITS
from trilemma.sim import blocks as cache
from trilemma.sim import router
from trilemma.sim.coming import answered, never_fits, release_next
from trilemma.sim.compiled import entry, inner
from trilemma.sim.layout import (
    ADMISSIONS,
    AFTER,
    BASE,
    BASE_SUM,
    BEFORE,
    BEGUN,
    BLOCKED,
    COHORTS,
    COMPUTED,
    DECODE_PS,
    DECODE_TOKENS,
    DECODED_AT,
    DECODES,
    END_PS,
    ENDED,
    ENDED_AT,
    FAR,
    FINISH,
    FREE,
    HEAD,
    KV,
    LATCH,
    LATE,
    LONG_NEW,
    LONGEST_STRETCH,
    MAX_UTILIZATION,
    MID_STEP,
    MOST_NEW_TOKENS,
    NEW_SUM,
    NEXT_CHANGE,
    NEXT_SAMPLE,
    NO_EVICT,
    NOTHING,
    NOW,
    OUTSTANDING,
    PARTIAL,
    PARTIAL_DONE,
    PARTIAL_TARGET,
    PEAK_BLOCKS,
    PLANNED_AT,
    PLAYED,
    PREEMPTIONS,
    PREFILL_PS,
    PREFILL_TOKENS,
    PREFIX_AWARE,
    QUEUE,
    QUIET,
    RATIO,
    REFUSED,
    RELEASED,
    REQUEST,
    RETRACT_HEADROOM,
    RING_NEXT,
    RING_PREV,
    ROUNDS,
    S_BLOCKS,
    S_DECODE_PS,
    S_DECODE_TOKENS,
    S_PREEMPTED,
    S_PREFILL_PS,
    S_PREFILL_TOKENS,
    S_RUNNING,
    S_TIME,
    SAMPLE_PS,
    SAMPLE_ROWS,
    SEATS,
    SEATS_LEFT,
    SEEN,
    SEQUENCE_US,
    SGLANG,
    SHORTEST,
    SOONEST,
    STACK,
    STACK_END,
    STACKED,
    STEP,
    STEPS,
    TAIL,
    TOKENS,
    UNITS,
    VLLM,
    WORD,
    YOUNG,
    YOUNG_BASE,
)
from trilemma.sim.sequences import forget_young, grown, unlink, unring
from trilemma.sim.stretch import add_gaps, bin_of, first_reaching, next_set, pages_of, residue

U = np.uint64  # an index that is not negative: numba then leaves out its test for that


@inner
def _sample(state, out, r, now, running, used, preempted):
    """Write what is seen now into every row of samples that is due; when the rows are full every other one is kept."""
    s = state.scalars
    rows, width = s[r, SAMPLE_ROWS], out.samples.shape[1]
    while s[r, NEXT_SAMPLE] <= now:
        if rows == width:
            for i in range(width // 2):
                for column in range(out.samples.shape[2]):
                    out.samples[r, i, column] = out.samples[r, 2 * i + 1, column]
            rows = width // 2
            s[r, SAMPLE_PS] *= 2
            s[r, NEXT_SAMPLE] = (rows + 1) * s[r, SAMPLE_PS]
            continue
        out.samples[r, rows, S_TIME] = now
        out.samples[r, rows, S_RUNNING] = running
        out.samples[r, rows, S_BLOCKS] = used
        out.samples[r, rows, S_PREFILL_TOKENS] = out.totals[r, PREFILL_TOKENS]
        out.samples[r, rows, S_DECODE_TOKENS] = out.totals[r, DECODE_TOKENS]
        out.samples[r, rows, S_PREFILL_PS] = out.totals[r, PREFILL_PS]
        out.samples[r, rows, S_DECODE_PS] = out.totals[r, DECODE_PS]
        out.samples[r, rows, S_PREEMPTED] = preempted
        rows += 1
        s[r, NEXT_SAMPLE] += s[r, SAMPLE_PS]
    s[r, SAMPLE_ROWS] = rows


@inner
def _held_pages(rules, load, request, context):
    """KV blocks of a sequence that has computed `context` tokens and is past its prefill."""
    if rules.policy == NO_EVICT:
        return pages_of(load.prompt[request] + max(load.output[request], rules.max_new), rules.page)
    return pages_of(context, rules.page)


@inner
def _leave(load, state, nodes, where, unit, per_unit, slot, context, pages):
    """A sequence gives its blocks back to the prefix cache; how many are free now that were not before."""
    request = state.slots[slot, REQUEST]
    begin = load.chain_offsets[request]
    units = min(context // unit, load.chain_units[request])
    registered = state.slots[slot, UNITS]
    if units > registered:
        cache.register(nodes, where, load.chain_ids, state.held, begin, registered, units, per_unit)
    return cache.release(nodes, where, load.chain_ids, state.held, begin, units, per_unit, pages - units * per_unit)


@inner
def _register(load, state, nodes, where, unit, per_unit, slot, tokens):
    """The units of a chain that are whole within the first `tokens` tokens are cached from now on."""
    request = state.slots[slot, REQUEST]
    units, registered = min(tokens // unit, load.chain_units[request]), state.slots[slot, UNITS]
    if units > registered:
        begin = load.chain_offsets[request]
        cache.register(nodes, where, load.chain_ids, state.held, begin, registered, units, per_unit)
        state.slots[slot, UNITS] = units


@inner
def _free_late(rules, load, state, nodes, where, seat0, late, free, seats_left):
    """Give back what sequences that have finished still hold, first admitted first; the new (free, seats_left)."""
    leaving = state.late[seat0 : seat0 + late]
    unit, caching = rules.unit, rules.caching
    per_unit = unit // rules.page
    if caching:
        for i in range(1, late):
            slot = leaving[i]
            j = i - 1
            while j >= 0 and state.admitted[leaving[j]] > state.admitted[slot]:
                leaving[j + 1] = leaving[j]
                j -= 1
            leaving[j + 1] = slot
    for slot in leaving:
        context = state.slots[slot, BASE]
        held = _held_pages(rules, load, state.slots[slot, REQUEST], context)
        if caching:
            held = _leave(load, state, nodes, where, unit, per_unit, slot, context, held)
        free += held
        state.seats[U(seat0 + seats_left)] = slot
        seats_left += 1
    return free, seats_left


@inner
def _least_decoded(slots, head, output, prompt):
    """SGLang's next victim: fewest tokens generated, then the longest prompt, then the latest admitted."""
    victim = np.int64(-1)
    fewest = longest = np.int64(0)
    slot = head
    while slot != -1:
        if slots[U(slot), FINISH] != -1:
            request = slots[U(slot), REQUEST]
            decoded = output[U(request)] - slots[U(slot), FINISH]  # less the step, the same for all
            better = victim == -1 or decoded < fewest or (decoded == fewest and prompt[U(request)] >= longest)
            if better:
                victim, fewest, longest = slot, decoded, prompt[U(request)]
        slot = slots[U(slot), AFTER]
    return victim


@inner
def _ratio_left(slots, head, output, max_new, step):
    """SGLang's new-token ratio after a retraction, from what the remaining decodes have generated; millionths."""
    decoded = new = decodes = np.int64(0)
    slot = head
    while slot != -1:
        if slots[U(slot), FINISH] != -1:
            request = slots[U(slot), REQUEST]
            decoded += output[U(request)] - (slots[U(slot), FINISH] - step + 1)
            new += max(output[U(request)], max_new)
            decodes += 1
        slot = slots[U(slot), AFTER]
    return min(1_000_000, (decoded + RETRACT_HEADROOM * decodes) * 1_000_000 // (new + 1))


@entry
def run(rules, prices, load, out, state):
    """Play some of a load on a fleet; whether there is more. The caller calls again, and can be interrupted between.

    Everything is written in place (setup.py makes the arrays and says what they hold).

    The outer loop picks a replica and a time: replicas whose requests are dealt out beforehand run once, to the end;
    others as far as the router needs to look. Then what the replica remembers is loaded into local variables, its
    steps that start before that time are played (where answers bring new requests: until one is given), and it is
    stored again.
    """
    s, slots, totals = state.scalars, state.slots, out.totals
    policy, page, max_tokens, max_seqs = rules.policy, rules.page, rules.max_tokens, rules.max_seqs
    caching, unit, window, blocks = rules.caching, rules.unit, rules.window, rules.blocks
    per_unit = unit // page
    ring_size = state.ring.size // s.shape[0]
    ring_mask = ring_size - 1
    window_size = state.window_ring.size // s.shape[0]
    window_mask = window_size - 1
    token_ps, prefill_ps, decode_ps = prices.token_ps, prices.prefill_ps, prices.decode_ps
    sequence_ps, floor_ps = prices.sequence_ps, prices.floor_ps
    context_ps, window_ps, pair_fp = prices.context_ps, prices.window_ps, prices.pair_fp
    entry, link, prompt, output = load.entry, load.link, load.prompt, load.output
    generated, crossing, histogram = state.generated, state.crossing, out.histogram
    leaves_late = rules.asynchronous or caching  # with a cache they leave in the order of their admission
    board = state.board
    chunk_unit = rules.chunk_unit
    # Whether one number says that the head of the queue cannot enter: the blocks of all of it.
    head_of_line = not (caching or rules.asynchronous or rules.whole_prompts or policy == SGLANG)
    if policy == VLLM and not rules.reserve_full:
        head_of_line = False
    replicas = s.shape[0]
    rounds = np.int64(ROUNDS)
    while rounds > 0:
        if rules.dynamic:
            rounds -= 1
            r, until = router.next_call(rules, load, out, state)
            if r == -1:
                return False
        else:
            r, until = state.events[PLAYED], FAR
            if r == replicas:
                return False
            begins = state.events[BEGUN] == r
            state.events[BEGUN] = r + 1
            if begins and rules.clients > 0:
                released = s[r, RELEASED]
                for _ in range((rules.clients - r + replicas - 1) // replicas):
                    released = release_next(rules, load, released, 0)
                s[r, RELEASED] = released

        ring0, window0 = r * ring_size, r * window_size
        nodes, where = state.nodes[r], state.where[r]
        seat0, page0, cohort0 = r * max_seqs, r * page, r * (max_seqs + 2)
        fail_at = state.fail[r]

        head, tail, seats_left, free = s[r, HEAD], s[r, TAIL], s[r, SEATS_LEFT], s[r, FREE]
        decodes, base_sum, step, now = s[r, DECODES], s[r, BASE_SUM], s[r, STEP], s[r, NOW]
        planned_at, seen, queue, stack = s[r, PLANNED_AT], s[r, SEEN], s[r, QUEUE], s[r, STACK]
        partial, partial_done, partial_target = s[r, PARTIAL], s[r, PARTIAL_DONE], s[r, PARTIAL_TARGET]
        young, young_base, blocked, quiet = s[r, YOUNG], s[r, YOUNG_BASE], s[r, BLOCKED], s[r, QUIET] != 0
        late, latch, ratio, new_sum, long_new = s[r, LATE], s[r, LATCH], s[r, RATIO], s[r, NEW_SUM], s[r, LONG_NEW]
        cohorts, decoded_at, released, next_sample = s[r, COHORTS], s[r, DECODED_AT], s[r, RELEASED], s[r, NEXT_SAMPLE]
        ended, ended_at, stacked, stack_end = board[ENDED, r], board[ENDED_AT, r], s[r, STACKED], s[r, STACK_END]
        admissions, soonest = s[r, ADMISSIONS], s[r, SOONEST]
        steps = np.int64(0)
        prefill_total = np.int64(0)
        decode_total = np.int64(0)

        while rounds > 0:
            rounds -= 1
            if late > 0 and now <= until:
                idle_now = head == -1 and stack == -1 and (queue == -1 or entry[U(queue)] > now) and now < until
                if idle_now or not rules.asynchronous:
                    free, seats_left = _free_late(rules, load, state, nodes, where, seat0, late, free, seats_left)
                    late = 0
            if next_sample <= now and (late == 0 or rules.asynchronous):
                totals[r, PREFILL_PS] += prefill_total
                totals[r, DECODE_PS] += decode_total
                prefill_total = decode_total = 0
                _sample(state, out, r, now, max_seqs - seats_left, blocks - free, stacked)
                next_sample = s[r, NEXT_SAMPLE]
            if head == -1 and stack == -1:
                if queue == -1:
                    break
                if entry[U(queue)] > now:
                    if entry[U(queue)] >= until:
                        break
                    if next_sample <= entry[U(queue)]:
                        _sample(state, out, r, entry[U(queue)], 0, 0, 0)
                        next_sample = s[r, NEXT_SAMPLE]
                    now = entry[U(queue)]
                    planned_at = now
                    ratio = rules.ratio_first
            if now >= until:
                break

            # Steps that decide nothing, taken at once: at most up to the one in which a decode may finish.
            together = np.int64(0)
            answers = prefill = chunks = finishing = was_late = np.int64(0)
            evicted = False
            if quiet and decodes > 0 and (blocked != NOTHING or queue == -1 or entry[U(queue)] > now):
                if soonest <= step:
                    soonest = step + 1 + next_set(state.ring_bits, ring0 // WORD, ring_mask, step + 1)
                finish = soonest - step
                k = min(finish, LONGEST_STRETCH)
                first = token_ps[U(decodes)] + decode_ps[U(decodes)] + sequence_ps[U(decodes)]
                first += context_ps * (base_sum + decodes * (step + 2))
                slope = context_ps * decodes
                if window > 0:
                    first += window_ps * (young_base + young * (step + 2) + window * (decodes - young))
                    slope += window_ps * young
                    k = min(k, next_set(state.window_bits, window0 // WORD, window_mask, step + 1) + 1)
                if first < floor_ps[U(decodes)]:
                    if slope > 0:
                        k = min(k, (floor_ps[U(decodes)] - first) // slope + 1)
                        slope = 0
                    first = floor_ps[U(decodes)]
                horizon = min(until, next_sample)
                if blocked == NOTHING and queue != -1:
                    horizon = min(horizon, entry[U(queue)])
                total = k * first + slope * (k * (k - 1) // 2)
                if total >= horizon - now:
                    k, total = first_reaching(first, slope, horizon - now)
                if total > fail_at - now:
                    k = first_reaching(first, slope, fail_at - now + 1)[0] - 1
                    total = k * first + slope * (k * (k - 1) // 2)
                if policy != NO_EVICT and k > 0:
                    periods, rest = pages_of(k + 1 - page, page), residue(k, page)
                    if decodes * (periods + 1) > free and decodes * periods > free:
                        periods = free // decodes
                        rest = page
                    taken = decodes * periods
                    at = page0 + residue(-(step + 1), page)
                    if taken + decodes <= free:
                        for j in range(max(at - rest + 1, page0), at + 1):
                            taken += crossing[U(j)]
                        for j in range(at - rest + 1 + page, page0 + page):
                            taken += crossing[U(j)]
                    else:
                        for j in range(rest):
                            if taken + crossing[U(at)] > free:
                                rest = j
                                break
                            taken += crossing[U(at)]
                            at = at - 1 if at > page0 else page0 + page - 1
                    if periods * page + rest < k:
                        k = periods * page + rest
                        total = k * first + slope * (k * (k - 1) // 2)
                    free -= taken
                    if caching:
                        cache.allocate(nodes, taken)
                if k > 0:
                    add_gaps(histogram, decodes, first, slope, k)
                    last = first + slope * (k - 1)
                    seen = now + total - last
                    if rules.asynchronous:
                        seen = planned_at if k == 1 else seen - (last - slope)
                    now += total
                    planned_at = now - last
                    step += k
                    steps += k
                    if window > 0:
                        young, young_base = grown(state, window0, window_mask, step, window, young, young_base)
                    decode_total += total
                    totals[r, DECODE_TOKENS] += decodes * k
                    totals[r, SEQUENCE_US] += (max_seqs - seats_left) * (total // 1_000_000)
                    totals[r, PEAK_BLOCKS] = max(totals[r, PEAK_BLOCKS], blocks - free)
                    if policy == SGLANG:
                        ratio = max(rules.ratio_least, ratio - k * rules.ratio_fall)
                        decoded_at = now
                    if k < finish:
                        continue
                    together = k
                    joined = decodes
                    end = now

            if together == 0:
                step += 1
                visible = planned_at if rules.asynchronous else now
                was_blocked, blocked = blocked, NOTHING
                joined = decodes
                budget = max_tokens - decodes
                pairs = np.int64(0)

            if together > 0:
                pass
            elif policy != SGLANG:
                # A. Running requests, in the order of their admission: a token for every decode, what is left for the
                # one unfinished prompt, which is the last of them.
                need = crossing[U(page0 + residue(-step, page))] if policy != NO_EVICT else 0
                chunk = np.int64(0)
                chunk_need = np.int64(0)
                if partial != -1:
                    slots[U(partial), COMPUTED] = partial_done
                    chunk = min(partial_target - partial_done, budget)
                    if chunk < partial_target - partial_done and rules.chunk_unit > 1:
                        chunk -= chunk % rules.chunk_unit
                    if policy == VLLM:
                        chunk_need = pages_of(partial_done + chunk, page) - pages_of(partial_done, page)
                while need + chunk_need > free:
                    # The last admitted goes until the rest has the blocks it needs, as when they ask one by one.
                    evicted = True
                    served = min(need, free)
                    need -= served
                    free -= served
                    if caching:
                        cache.allocate(nodes, served)
                    victim = tail
                    request = slots[U(victim), REQUEST]
                    if victim == partial:
                        lost = partial_done
                        held = pages_of(partial_done if policy == VLLM else partial_target, page)
                        partial = -1
                        chunk_need = chunk = np.int64(0)
                    else:
                        base = slots[U(victim), BASE]
                        lost = base + step
                        held = pages_of(lost, page)
                        if held * page == lost:
                            need -= 1
                        generated[U(request)] = output[U(request)] - (slots[U(victim), FINISH] - step + 1)
                        out.done[U(request)] = now  # its last token, until it ends
                        crossing[U(page0 + residue(base, page))] -= 1
                        base_sum -= base
                        decodes -= 1
                        unring(state, victim, ring0, ring_mask)
                        if window > 0 and window - 1 - base >= step:
                            young, young_base = forget_young(
                                state, window0, window_mask, window - 1 - base, base, young, young_base
                            )
                    if caching:
                        held = _leave(load, state, nodes, where, unit, per_unit, victim, lost, held)
                    free += held
                    out.preempted[U(request)] += 1
                    out.lost[U(request)] += lost
                    totals[r, PREEMPTIONS] += 1
                    link[U(request)] = stack
                    stack = request
                    stacked += 1
                    head, tail = unlink(slots, victim, head, tail)
                    state.seats[U(seat0 + seats_left)] = victim
                    seats_left += 1
                if need + chunk_need > 0:
                    free -= need + chunk_need
                    if caching:
                        cache.allocate(nodes, need + chunk_need)
                joined = decodes
                if partial != -1 and chunk > 0:
                    prefill += chunk
                    budget -= chunk
                    pairs += chunk * (2 * partial_done + chunk + 1)
                    chunks += 1
                    partial_done += chunk
                    if caching and policy == VLLM:
                        _register(load, state, nodes, where, unit, per_unit, partial, partial_done)
                    if partial_done == partial_target:
                        state.completing[U(finishing)] = partial
                        finishing += 1
                        slots[U(partial), BASE] = partial_target
                        partial = -1

                # B. Waiting requests, in order, unless the step preempted.
                while not evicted:
                    if stack != -1:
                        request = stack
                    else:
                        request = queue
                        if request == -1 or entry[U(request)] > visible:
                            break
                        if never_fits(
                            policy,
                            page,
                            blocks,
                            rules.max_new,
                            rules.whole_prompts,
                            max_tokens,
                            prompt[U(request)],
                            output[U(request)],
                        ):
                            totals[r, REFUSED] += 1
                            queue = link[U(request)]
                            continue
                    if seats_left == 0:
                        blocked = SEATS
                        break
                    if partial != -1 or budget == 0:
                        blocked = TOKENS
                        break
                    target = prompt[U(request)] + generated[U(request)]
                    hits = idle = hit = np.int64(0)
                    if caching and load.chain_units[request] > 0:
                        hits, idle = cache.lookup(
                            nodes, where, load.chain_ids, load.chain_offsets[request],
                            min(np.int64(load.chain_units[request]), (target - 1) // unit),
                        )  # fmt: skip
                        hit = hits * unit
                    chunk = min(target - hit, budget)
                    if chunk < target - hit:
                        if rules.whole_prompts:
                            blocked = TOKENS
                            break
                        if rules.chunk_unit > 1:
                            chunk -= chunk % rules.chunk_unit
                            if chunk == 0:
                                blocked = TOKENS
                                break
                    if policy == NO_EVICT:
                        wants = pages_of(prompt[U(request)] + max(output[U(request)], rules.max_new), page)
                    elif policy == MAX_UTILIZATION:
                        wants = pages_of(target, page)
                    else:
                        wants = pages_of(hit + chunk, page)
                    whole = pages_of(target, page) if policy == VLLM and rules.reserve_full else wants
                    if whole - (hits - idle) * per_unit > free:
                        blocked = KV
                        break
                    if stack != -1:
                        stack = link[U(request)]
                        stacked -= 1
                    else:
                        queue = link[U(request)]
                    free -= wants - (hits - idle) * per_unit
                    budget -= chunk
                    prefill += chunk
                    pairs += chunk * (2 * hit + chunk + 1)
                    chunks += 1
                    seats_left -= 1
                    slot = state.seats[U(seat0 + seats_left)]
                    slots[U(slot), REQUEST] = request
                    slots[U(slot), FINISH] = -1
                    slots[U(slot), COMPUTED] = hit
                    slots[U(slot), BEFORE] = tail
                    slots[U(slot), AFTER] = -1
                    if tail == -1:
                        head = slot
                    else:
                        slots[U(tail), AFTER] = slot
                    tail = slot
                    if caching:
                        admissions += 1
                        state.admitted[slot] = admissions
                        slots[U(slot), UNITS] = hits
                        if hits > 0:
                            cache.acquire(nodes, where, load.chain_ids, state.held, load.chain_offsets[request], hits)
                        cache.allocate(nodes, wants - hits * per_unit)
                        if policy == VLLM:
                            _register(load, state, nodes, where, unit, per_unit, slot, hit + chunk)
                    if out.start[U(request)] < 0:
                        out.start[U(request)] = now
                        if caching:
                            out.hits[request] = hit
                        if was_blocked != NOTHING and entry[U(request)] <= seen and out.reason[U(request)] == NOTHING:
                            out.reason[U(request)] = was_blocked
                    if chunk == target - hit:
                        state.completing[U(finishing)] = slot
                        finishing += 1
                        slots[U(slot), BASE] = target
                    else:
                        partial = slot
                        partial_done = hit + chunk
                        partial_target = target
            else:
                # SGLang: a prefill batch if one can be built, else a decode step.
                if decodes == 0:
                    latch = NOTHING
                blocked = latch
                waits = stack != -1 or (queue != -1 and entry[U(queue)] <= visible)
                building = partial != -1 or (latch == NOTHING and waits)
                if building:
                    reserved = np.int64(0)
                    if decodes > 0:
                        if long_new == 0:
                            reserved = new_sum - decodes * (step - 1)
                        else:
                            slot = head
                            while slot != -1:
                                if slots[U(slot), FINISH] != -1:
                                    request = slots[U(slot), REQUEST]
                                    more = max(rules.max_new - output[U(request)], 0)
                                    reserved += min(slots[U(slot), FINISH] - (step - 1) + more, MOST_NEW_TOKENS)
                                slot = slots[U(slot), AFTER]
                        reserved = reserved * ratio // 1_000_000
                    room = free * page - reserved  # tokens
                    chunk_room = max_tokens
                    if rules.mixed:
                        room -= decodes
                        chunk_room -= decodes
                    if partial != -1:
                        slots[U(partial), COMPUTED] = partial_done
                        remaining = partial_target - partial_done
                        chunk = min(remaining, chunk_room)
                        if room > 0:
                            chunk = min(chunk, room)
                        if chunk < remaining:
                            chunk = (partial_done + chunk) // page * page - partial_done
                        wants = pages_of(partial_done + max(chunk, 0), page) - pages_of(partial_done, page)
                        if chunk <= 0 or wants > free:
                            building = False
                            blocked = KV
                        else:
                            free -= wants
                            if caching:
                                cache.allocate(nodes, wants)
                            rounded = pages_of(chunk, page) * page
                            chunk_room -= rounded
                            room -= rounded + page
                            prefill += chunk
                            pairs += chunk * (2 * partial_done + chunk + 1)
                            chunks += 1
                            partial_done += chunk
                            if partial_done == partial_target:
                                request = slots[U(partial), REQUEST]
                                room -= min(max(output[U(request)], rules.max_new), MOST_NEW_TOKENS)
                                state.completing[U(finishing)] = partial
                                finishing += 1
                                slots[U(partial), BASE] = partial_target
                                partial = -1
                            else:
                                building = False
                                blocked = TOKENS
                            if room <= 0 or free <= 0:
                                latch = KV
                while building:
                    request = stack
                    if request == -1 or (queue != -1 and entry[U(queue)] <= min(visible, state.retracted_at[request])):
                        request = queue
                        if request == -1 or entry[U(request)] > visible:
                            break
                        if never_fits(
                            policy,
                            page,
                            blocks,
                            rules.max_new,
                            rules.whole_prompts,
                            max_tokens,
                            prompt[U(request)],
                            output[U(request)],
                        ):
                            totals[r, REFUSED] += 1
                            queue = link[U(request)]
                            continue
                    if latch != NOTHING:
                        blocked = latch
                        break
                    if seats_left == 0:
                        latch = blocked = SEATS
                        break
                    if chunk_room <= 0:
                        blocked = TOKENS
                        break
                    target = prompt[U(request)] + generated[U(request)]
                    hits = idle = hit = np.int64(0)
                    if caching and load.chain_units[request] > 0:
                        hits, idle = cache.lookup(
                            nodes, where, load.chain_ids, load.chain_offsets[request],
                            min(np.int64(load.chain_units[request]), (target - 1) // unit),
                        )  # fmt: skip
                        hit = hits * unit
                    extend = target - hit
                    new = max(output[U(request)], rules.max_new)
                    if extend + min(new - generated[U(request)], MOST_NEW_TOKENS) + page + idle * unit >= room:
                        latch = blocked = KV
                        break
                    chunk = extend
                    if pages_of(extend, page) * page > chunk_room:
                        if rules.whole_prompts:
                            blocked = TOKENS
                            break
                        chunk = chunk_room // page * page
                        if chunk <= 0:
                            blocked = TOKENS
                            break
                        chunk = min(chunk, extend)
                    wants = pages_of(hit + chunk, page) - hits * per_unit
                    if request == stack:
                        stack = link[U(request)]
                        stacked -= 1
                    else:
                        queue = link[U(request)]
                    free -= wants + idle * per_unit
                    rounded = pages_of(chunk, page) * page
                    chunk_room -= rounded
                    room -= rounded + page + idle * unit
                    prefill += chunk
                    pairs += chunk * (2 * hit + chunk + 1)
                    chunks += 1
                    seats_left -= 1
                    slot = state.seats[U(seat0 + seats_left)]
                    slots[U(slot), REQUEST] = request
                    slots[U(slot), FINISH] = -1
                    slots[U(slot), COMPUTED] = hit
                    slots[U(slot), BEFORE] = tail
                    slots[U(slot), AFTER] = -1
                    if tail == -1:
                        head = slot
                    else:
                        slots[U(tail), AFTER] = slot
                    tail = slot
                    if caching:
                        admissions += 1
                        state.admitted[slot] = admissions
                        slots[U(slot), UNITS] = hits
                        if hits > 0:
                            cache.acquire(nodes, where, load.chain_ids, state.held, load.chain_offsets[request], hits)
                        cache.allocate(nodes, wants)
                    if out.start[U(request)] < 0:
                        out.start[U(request)] = now
                        if caching:
                            out.hits[request] = hit
                        if was_blocked != NOTHING and entry[U(request)] <= seen and out.reason[U(request)] == NOTHING:
                            out.reason[U(request)] = was_blocked
                    if chunk == extend:
                        room -= min(new, MOST_NEW_TOKENS)
                        state.completing[U(finishing)] = slot
                        finishing += 1
                        slots[U(slot), BASE] = target
                    else:
                        partial = slot
                        partial_done = hit + chunk
                        partial_target = target
                    if room <= 0 or free <= 0:
                        latch = KV
                    if partial != -1:
                        blocked = TOKENS
                        break
                need = crossing[U(page0 + residue(-step, page))]
                if prefill > 0:
                    if rules.mixed and need <= free:
                        free -= need
                        if caching:
                            cache.allocate(nodes, need)
                    else:
                        joined = 0
                        step -= 1
                elif decodes > 0 and need > free and late > 0:
                    joined = 0  # who finished in the step before will make room
                elif decodes > 0:
                    while need > free and (decodes > 1 or partial != -1):
                        evicted = True
                        latch = NOTHING
                        blocked = KV
                        if decodes > 1:
                            victim = _least_decoded(slots, head, output, prompt)
                            request = slots[U(victim), REQUEST]
                            base = slots[U(victim), BASE]
                            lost = base + step
                            held = pages_of(lost, page)
                            generated[U(request)] = output[U(request)] - (slots[U(victim), FINISH] - step + 1)
                            emitted = max(state.since[U(victim)], decoded_at)
                            out.done[U(request)] = emitted
                            for i in range(cohorts):
                                if state.cohort_time[cohort0 + i] == emitted:
                                    state.cohort_count[cohort0 + i] -= 1
                            crossing[U(page0 + residue(base, page))] -= 1
                            base_sum -= base
                            decodes -= 1
                            more = max(rules.max_new - output[U(request)], 0)
                            new_sum -= slots[U(victim), FINISH] + more
                            if output[U(request)] + more > MOST_NEW_TOKENS:
                                long_new -= 1
                            unring(state, victim, ring0, ring_mask)
                            if window > 0 and window - 1 - base >= step:
                                young, young_base = forget_young(
                                    state, window0, window_mask, window - 1 - base, base, young, young_base
                                )
                        else:
                            victim = partial
                            request = slots[U(victim), REQUEST]
                            lost = partial_done
                            held = pages_of(lost, page)
                            partial = -1
                        if caching:
                            held = _leave(load, state, nodes, where, unit, per_unit, victim, lost, held)
                        free += held
                        out.preempted[U(request)] += 1
                        out.lost[U(request)] += lost
                        totals[r, PREEMPTIONS] += 1
                        state.retracted_at[request] = visible
                        link[U(request)] = -1
                        if stack == -1:
                            stack = request
                        else:
                            link[U(stack_end)] = request
                        stack_end = request
                        stacked += 1
                        head, tail = unlink(slots, victim, head, tail)
                        state.seats[U(seat0 + seats_left)] = victim
                        seats_left += 1
                        need = crossing[U(page0 + residue(-step, page))]
                    free -= need
                    if caching:
                        cache.allocate(nodes, need)
                    joined = decodes
                    if evicted:
                        if rules.keeps_ratio == 0:
                            ratio = _ratio_left(slots, head, output, rules.max_new, step)
                    else:
                        ratio = max(rules.ratio_least, ratio - rules.ratio_fall)

            if together == 0:
                if caching and policy != VLLM and prefill > 0:
                    for i in range(finishing):
                        _register(
                            load,
                            state,
                            nodes,
                            where,
                            unit,
                            per_unit,
                            state.completing[U(i)],
                            slots[U(state.completing[U(i)]), BASE],
                        )
                    if partial != -1:
                        _register(load, state, nodes, where, unit, per_unit, partial, partial_done)

                if evicted:
                    blocked = KV
                totals[r, PEAK_BLOCKS] = max(totals[r, PEAK_BLOCKS], blocks - free)
                was_late = late
                if late > 0:  # asynchronous scheduling: who finished in the step before is gone for the next planning
                    free, seats_left = _free_late(rules, load, state, nodes, where, seat0, late, free, seats_left)
                    late = 0
                if joined == 0 and prefill == 0:
                    # Nothing to run: every waiting request of this moment was refused, or (asynchronous) the planning
                    # was too early to see what is there now; an empty step takes no time.
                    step -= 1
                    seen = visible
                    planned_at = now
                    quiet = False
                    continue

                # C. The step runs.
                context_part = np.int64(0)
                if joined > 0:
                    if window > 0:
                        young, young_base = grown(state, window0, window_mask, step, window, young, young_base)
                        context_part = window_ps * (young_base + young * (step + 1) + window * (decodes - young))
                    context_part += context_ps * (base_sum + decodes * (step + 1))
                duration = max(
                    floor_ps[U(joined + chunks)],
                    token_ps[U(prefill + joined)]
                    + prefill_ps[U(prefill)]
                    + decode_ps[U(joined)]
                    + sequence_ps[U(joined + finishing)]
                    + context_part
                    + ((pair_fp * pairs) >> FRACTION_BITS),
                )
                end = now + duration
                if end > fail_at:
                    s[r, MID_STEP] = 2 if policy == SGLANG and joined == 0 else 1  # 2: the decodes took no part in it
                    break
                if joined > 0:
                    alone = token_ps[U(joined)] + decode_ps[U(joined)] + sequence_ps[U(joined)] + context_part
                    decode_only = min(duration, max(floor_ps[U(joined)], alone))
                    decode_total += decode_only
                    prefill_total += duration - decode_only
                    if policy == SGLANG:
                        fresh = np.int64(0)
                        for i in range(cohorts):
                            count = state.cohort_count[cohort0 + i]
                            histogram[U(bin_of(end - state.cohort_time[cohort0 + i]))] += count
                            fresh += count
                        cohorts = 0
                        if joined > fresh:
                            histogram[U(bin_of(end - decoded_at))] += joined - fresh
                        decoded_at = end
                    else:
                        histogram[U(bin_of(duration))] += joined
                else:
                    prefill_total += duration
                steps += 1
                totals[r, PREFILL_TOKENS] += prefill
                totals[r, DECODE_TOKENS] += joined
                totals[r, SEQUENCE_US] += (max_seqs - seats_left) * (duration // 1_000_000)
            if joined > 0:
                bucket = ring0 + (step & ring_mask)
                slot = state.ring[U(bucket)]
                anybody = slot != -1
                later = np.int64(-1)
                while slot != -1:
                    nxt = slots[U(slot), RING_NEXT]
                    if slots[U(slot), FINISH] != step:  # when the ring comes round again
                        slots[U(slot), RING_NEXT] = later
                        slots[U(slot), RING_PREV] = -1
                        if later != -1:
                            slots[U(later), RING_PREV] = slot
                        later = slot
                        slot = nxt
                        continue
                    request = slots[U(slot), REQUEST]
                    out.done[U(request)] = end
                    base = slots[U(slot), BASE]
                    context = base + step + 1
                    crossing[U(page0 + residue(base, page))] -= 1
                    base_sum -= base
                    decodes -= 1
                    if policy == SGLANG:
                        more = max(rules.max_new - output[U(request)], 0)
                        new_sum -= step + more
                        if output[U(request)] + more > MOST_NEW_TOKENS:
                            long_new -= 1
                    if window > 0 and window - 1 - base > step:
                        young, young_base = forget_young(
                            state, window0, window_mask, window - 1 - base, base, young, young_base
                        )
                    head, tail = unlink(slots, slot, head, tail)
                    if leaves_late:
                        slots[U(slot), BASE] = context
                        state.late[U(seat0 + late)] = slot
                        late += 1
                    else:
                        held = _held_pages(rules, load, request, context)
                        if caching:
                            held = _leave(load, state, nodes, where, unit, per_unit, slot, context, held)
                        free += held
                        state.seats[U(seat0 + seats_left)] = slot
                        seats_left += 1
                    answers += 1
                    if rules.feedback:
                        answered(rules, load, state, request, end)
                    elif rules.clients > 0:
                        released = release_next(rules, load, released, end)
                    slot = nxt
                if anybody:
                    state.ring[U(bucket)] = later
                    if later == -1:
                        state.ring_bits[U(bucket // WORD)] &= ~(1 << (bucket & (WORD - 1)))

            lasting = 0
            for i in range(finishing):
                slot = state.completing[U(i)]
                request = slots[U(slot), REQUEST]
                target = slots[U(slot), BASE]
                generated[U(request)] += 1
                if out.first[U(request)] < 0:
                    out.first[U(request)] = end
                else:
                    histogram[U(bin_of(end - out.done[U(U(request))]))] += 1
                if generated[U(request)] == output[U(request)]:
                    out.done[U(request)] = end
                    head, tail = unlink(slots, slot, head, tail)
                    if leaves_late:
                        state.late[U(seat0 + late)] = slot
                        late += 1
                    else:
                        held = _held_pages(rules, load, request, target)
                        if caching:
                            held = _leave(load, state, nodes, where, unit, per_unit, slot, target, held)
                        free += held
                        state.seats[U(seat0 + seats_left)] = slot
                        seats_left += 1
                    answers += 1
                    if rules.feedback:
                        answered(rules, load, state, request, end)
                    elif rules.clients > 0:
                        released = release_next(rules, load, released, end)
                else:
                    lasting += 1
                    last_step = step + output[U(request)] - generated[U(request)]
                    soonest = min(soonest, last_step)
                    slots[U(slot), FINISH] = last_step
                    base = target - step - 1
                    slots[U(slot), BASE] = base
                    crossing[U(page0 + residue(base, page))] += 1
                    base_sum += base
                    decodes += 1
                    if window > 0 and window - 1 - base > step:
                        at = window0 + ((window - 1 - base) & window_mask)
                        state.window_ring[at] += 1
                        state.window_bits[at // WORD] |= 1 << (at & (WORD - 1))
                        young += 1
                        young_base += base
                    if policy == SGLANG:
                        state.since[U(slot)] = end
                        more = max(rules.max_new - output[U(request)], 0)
                        new_sum += last_step + more
                        if output[U(request)] + more > MOST_NEW_TOKENS:
                            long_new += 1
                    bucket = ring0 + (last_step & ring_mask)
                    other = state.ring[U(bucket)]
                    slots[U(slot), RING_PREV] = -1
                    slots[U(slot), RING_NEXT] = other
                    if other != -1:
                        slots[U(other), RING_PREV] = slot
                    else:
                        state.ring_bits[U(bucket // WORD)] |= 1 << (bucket & (WORD - 1))
                    state.ring[U(bucket)] = slot
            if policy == SGLANG:
                if lasting > 0:
                    state.cohort_time[cohort0 + cohorts] = end
                    state.cohort_count[cohort0 + cohorts] = lasting
                    cohorts += 1
                if answers > 0:
                    latch = NOTHING

            if together == 0:
                seen = visible
                planned_at = now
                now = end
            if seats_left + (0 if rules.asynchronous else late) == 0 and blocked == NOTHING:
                blocked = SEATS  # also for who comes while the seats stay taken
            # Whether the next step has nothing to decide: nothing waits, or nothing has changed for what waits.
            if (
                stack == -1
                and (queue == -1 or entry[U(queue)] > now)
                and not (rules.asynchronous and answers + was_late)
            ):
                quiet = partial == -1 and cohorts == 0 and (policy != SGLANG or decoded_at == now)
                if answers > 0:
                    blocked = NOTHING
            elif (
                head_of_line
                and blocked == KV
                and partial == -1
                and seats_left > 0
                and max_tokens - decodes >= chunk_unit
            ):
                # It still has no room after what this step freed, and the next ones free nothing before another finish.
                request = stack if stack != -1 else queue
                whole = prompt[U(request)] + generated[U(request)]
                if policy == NO_EVICT:
                    whole = prompt[U(request)] + max(output[U(request)], rules.max_new)
                quiet = pages_of(whole, page) > free
            else:
                quiet = (
                    answers + was_late == 0
                    and partial == -1
                    and not evicted
                    and cohorts == 0
                    and (prefill == 0 or (blocked != TOKENS and not caching))
                    # What may change though nothing is freed: idle hits are forgotten, which makes a chunk fit or a
                    # prompt too long; SGLang's other tests.
                    and not (
                        blocked == KV and caching and (not rules.reserve_full or rules.whole_prompts or chunk_unit > 1)
                    )
                    and not (blocked == TOKENS and policy == SGLANG)
                )
            if answers > 0 and rules.dynamic:
                board[OUTSTANDING, r] -= answers
                ended = answers
                ended_at = end
                if rules.feedback:
                    break

        if rounds > 0 and not rules.dynamic:
            state.events[PLAYED] += 1
        totals[r, STEPS] += steps
        totals[r, PREFILL_PS] += prefill_total
        totals[r, DECODE_PS] += decode_total
        totals[r, END_PS] = now
        s[r, HEAD], s[r, TAIL], s[r, SEATS_LEFT], s[r, FREE] = head, tail, seats_left, free
        s[r, DECODES], s[r, BASE_SUM], s[r, STEP], s[r, NOW] = decodes, base_sum, step, now
        s[r, PLANNED_AT], s[r, SEEN], s[r, QUEUE], s[r, STACK] = planned_at, seen, queue, stack
        s[r, PARTIAL], s[r, PARTIAL_DONE], s[r, PARTIAL_TARGET] = partial, partial_done, partial_target
        s[r, YOUNG], s[r, YOUNG_BASE], s[r, BLOCKED], s[r, QUIET] = young, young_base, blocked, quiet
        s[r, LATE], s[r, LATCH], s[r, RATIO], s[r, NEW_SUM], s[r, LONG_NEW] = late, latch, ratio, new_sum, long_new
        s[r, COHORTS], s[r, DECODED_AT], s[r, RELEASED] = cohorts, decoded_at, released
        board[ENDED, r], board[ENDED_AT, r], s[r, STACKED], s[r, STACK_END] = ended, ended_at, stacked, stack_end
        s[r, ADMISSIONS], s[r, SOONEST] = admissions, soonest
        if not rules.dynamic:
            continue

        # When an answer can come at the earliest, if no request comes before.
        if (head == -1 and stack == -1 and queue == -1 and late == 0) or s[r, MID_STEP]:
            board[NEXT_CHANGE, r] = FAR
        else:
            # No step is shorter than the shortest, and every token of an answer takes one.
            fewest = np.int64(ROUNDS)
            if decodes > 0:
                if soonest <= step:
                    soonest = step + 1 + next_set(state.ring_bits, ring0 // WORD, ring_mask, step + 1)
                    s[r, SOONEST] = soonest
                fewest = min(fewest, soonest - step)
            if partial != -1:
                request = slots[U(partial), REQUEST]
                fewest = min(fewest, output[U(request)] - generated[U(request)])
            if queue != -1:
                fewest = min(fewest, s[r, SHORTEST])
            else:
                s[r, SHORTEST] = FAR
            least = max(1, fewest * rules.least_step_ps)
            if stack != -1 or rules.routing == PREFIX_AWARE:  # that looks at what is cached, too, which decodes change
                least = np.int64(1)
            elif quiet and decodes > 0 and (blocked != NOTHING or queue == -1):
                k = soonest - step
                if k <= LONGEST_STRETCH and (policy == NO_EVICT or decodes * (k // page + 1) <= free):
                    first = token_ps[U(decodes)] + decode_ps[U(decodes)] + sequence_ps[U(decodes)]
                    first += context_ps * (base_sum + decodes * (step + 2))
                    if window > 0:
                        first += window_ps * (young_base + young * (step + 2) + window * (decodes - young))
                    least = max(least, k * first + context_ps * decodes * (k * (k - 1) // 2))
            board[NEXT_CHANGE, r] = now if late > 0 and not rules.asynchronous else now + least
    return True
