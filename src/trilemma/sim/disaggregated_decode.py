"""A decode replica, compiled: requests that come with the KV of their prompts, and steps taken many at once.

The sums, the ring of finish steps and the stretches are the kernel's (see kernel.py). What differs is how requests
enter: they load their prompt's KV into blocks of their own, wait for a seat, and decode from their first step on.
"""

import numpy as np

from trilemma.latency.table import FRACTION_BITS
from trilemma.sim.coming import schedule
from trilemma.sim.compiled import inner
from trilemma.sim.disaggregated_layout import (
    AHEAD,
    ARRIVES,
    BASE_SUM,
    BEGAN,
    BEGUN,
    BEHIND,
    BLOCKED,
    DECODES,
    DONE,
    DONE_TOKENS,
    ENDED,
    ENDED_AT,
    FIRST,
    FREE,
    FREED,
    FREED_AT,
    GENERATED,
    HEAD,
    IDLE,
    KIND_BITS,
    LATE,
    LINK,
    LOADING,
    LOADING_END,
    LOST,
    MOVED,
    MOVES,
    NOW,
    OUTSTANDING,
    PREEMPTED,
    QUEUE,
    QUIET,
    READY,
    SEATS_LEFT,
    SENDER,
    SENT,
    SHORTEST_STRETCH,
    STACK,
    STEP,
    TAIL,
    TARGET,
    UNFINISHED,
    WAKE,
    YOUNG,
    YOUNG_BASE,
)
from trilemma.sim.disaggregated_prefill import leaves, transfer_begins
from trilemma.sim.layout import (
    AFTER,
    BASE,
    BEFORE,
    COMPUTED,
    DECODE_PS,
    DECODE_TOKENS,
    END_PS,
    FAR,
    FINISH,
    KV,
    LONGEST_STRETCH,
    NOTHING,
    PEAK_BLOCKS,
    PREEMPTIONS,
    PREFILL_PS,
    PREFILL_TOKENS,
    REQUEST,
    RING_NEXT,
    RING_PREV,
    SEATS,
    SEQUENCE_US,
    STEPS,
    TOKENS,
    WORD,
)
from trilemma.sim.sequences import forget_young, grown, unlink, unring
from trilemma.sim.stretch import add_gaps, bin_of, first_reaching, next_set, pages_of


@inner
def answered(rules, load, clock, request, at):
    """A request gets its last token, or is refused: a free client sends the next one, a session's user thinks first."""
    if rules.clients > 0:
        # Which request that is shows when it is sent: other clients may be free before. All of time 0 go first.
        schedule(clock.times, clock.codes, clock.counts, at, (ARRIVES << KIND_BITS) + load.prompt.size)
    elif rules.sessions:
        following = load.successor[request]
        if following >= 0:
            comes = at + load.think_ps[following]
            schedule(clock.times, clock.codes, clock.counts, comes, (ARRIVES << KIND_BITS) + following)


@inner
def loaded_tokens(rules, load, request):
    """Tokens of which a request has to have the blocks when its transfer begins: those after its first step."""
    return load.prompt[request] + (1 if rules.by_prefill and load.output[request] > 1 else 0)


@inner
def _insert_loading(seen, notes, loading, loading_end, request):
    """Put a request among those that load, in order of (end of transfer, request); the new (first, last)."""
    behind, ready = loading_end, seen[request, READY]
    while behind != -1 and (seen[behind, READY] > ready or (seen[behind, READY] == ready and behind > request)):
        behind = notes[behind, BEHIND]
    ahead = loading if behind == -1 else notes[behind, AHEAD]
    notes[request, BEHIND], notes[request, AHEAD] = behind, ahead
    if behind == -1:
        loading = request
    else:
        notes[behind, AHEAD] = request
    if ahead == -1:
        loading_end = request
    else:
        notes[ahead, BEHIND] = request
    return loading, loading_end


@inner
def _finish_ring(slots, ring, ring_bits, slot, last_step, ring0, ring_mask):
    """A decode finishes in `last_step`."""
    slots[slot, FINISH] = last_step
    bucket = ring0 + (last_step & ring_mask)
    other = ring[bucket]
    slots[slot, RING_PREV] = -1
    slots[slot, RING_NEXT] = other
    if other != -1:
        slots[other, RING_PREV] = slot
    else:
        ring_bits[bucket // WORD] |= 1 << (bucket & (WORD - 1))
    ring[bucket] = slot


@inner
def _remember_young(state, window0, window_mask, at_step):
    """A decode grows inside the window until a step."""
    at = window0 + (at_step & window_mask)
    state.window_ring[at] += 1
    state.window_bits[at // WORD] |= 1 << (at & (WORD - 1))


@inner
def _free_late(slots, seats, leaving, seat0, late, page, free, seats_left):
    """Give back what sequences that have finished still hold; the new (free, seats_left)."""
    for i in range(late):
        slot = leaving[seat0 + i]
        free += pages_of(slots[slot, BASE], page)
        seats[seat0 + seats_left] = slot
        seats_left += 1
    return free, seats_left


@inner
def _contexts(context_ps, window_ps, window, decodes, base_sum, young, young_base, step):
    """What the contexts of all decodes add to a step's time; a window's part as long as no more of them outgrow it."""
    total = context_ps * (base_sum + decodes * (step + 1))
    if window > 0:
        total += window_ps * (young_base + young * (step + 1) + window * (decodes - young))
    return total


@inner
def _steps_with_room(crossing, page0, page, decodes, free, step):
    """How many steps from one on find the blocks they need."""
    steps = free // decodes * page
    left = free % decodes
    for j in range(page):
        left -= crossing[page0 + (-(step + j)) % page]
        if left < 0:
            break
        steps += 1
    return steps


@inner
def _sit_down(slots, slot, request, head, tail):
    """A request takes a seat behind all others; the new (head, tail)."""
    slots[slot, REQUEST] = request
    slots[slot, FINISH] = -1
    slots[slot, COMPUTED] = 0
    slots[slot, BEFORE] = tail
    slots[slot, AFTER] = -1
    if tail == -1:
        head = slot
    else:
        slots[tail, AFTER] = slot
    return head, slot


@inner
def run_decodes(rules, pool, load, out, senders, receivers, clock, r, until):
    """Play the steps of a replica that start before `until`; WAKE is before anything that others could see of the rest.

    Requests come with the queue (QUEUE, by LINK), in order of `seen[:, rules.entry]`. A planning that finds room for
    the first of them begins its transfer; the blocks are taken then, a seat when the transfer has ended.
    """
    s, seen, notes, slots = receivers.scalars, out.seen, out.notes, receivers.slots
    totals, histogram, prices = out.receiver_totals, out.histogram, pool.prices
    page, max_tokens, max_seqs, window, blocks = pool.page, pool.max_tokens, pool.max_seqs, pool.window, pool.blocks
    ring_size = receivers.ring.size // s.shape[0]
    ring_mask = ring_size - 1
    window_size = receivers.window_ring.size // s.shape[0]
    window_mask = window_size - 1
    ring0, window0, seat0, page0 = r * ring_size, r * window_size, r * max_seqs, r * page
    token_ps, prefill_ps, decode_ps = prices.token_ps, prices.prefill_ps, prices.decode_ps
    sequence_ps, floor_ps = prices.sequence_ps, prices.floor_ps
    crossing, prompt, output, entry = receivers.crossing, load.prompt, load.output, rules.entry
    seats, leaving, ring, ring_bits = receivers.seats, receivers.late, receivers.ring, receivers.ring_bits
    context_ps, window_ps = prices.context_ps, prices.window_ps

    head, tail, seats_left, free = s[r, HEAD], s[r, TAIL], s[r, SEATS_LEFT], s[r, FREE]
    decodes, base_sum, step, now, began = s[r, DECODES], s[r, BASE_SUM], s[r, STEP], s[r, NOW], s[r, BEGAN]
    queue, stack, blocked = s[r, QUEUE], s[r, STACK], s[r, BLOCKED]
    idle, quiet, late, freed = s[r, IDLE] != 0, s[r, QUIET] != 0, s[r, LATE], s[r, FREED]
    partial, partial_done, partial_target = s[r, UNFINISHED], s[r, DONE_TOKENS], s[r, TARGET]
    young, young_base, loading, loading_end = s[r, YOUNG], s[r, YOUNG_BASE], s[r, LOADING], s[r, LOADING_END]
    at = FAR

    while True:
        if idle:
            at = FAR
            if loading != -1:
                at = seen[loading, READY]
            if queue != -1 and blocked == NOTHING:
                at = min(at, seen[queue, entry])
            if freed > 0:
                at = min(at, s[r, FREED_AT])
            if at >= until:
                break
            now = max(now, at)
            began = now  # nothing ran: it knows all there is
        if now >= until:
            break

        # Steps that decide nothing, taken at once.
        if (
            quiet
            and decodes > 0
            and (freed == 0 or s[r, FREED_AT] > now)
            and (
                blocked == SEATS
                or (
                    (blocked != NOTHING or queue == -1 or seen[queue, entry] > now)
                    and (loading == -1 or seen[loading, READY] > now)
                )
            )
        ):
            k = min(next_set(ring_bits, ring0 // WORD, ring_mask, step + 1), LONGEST_STRETCH)
            if k >= SHORTEST_STRETCH:
                first = token_ps[decodes] + decode_ps[decodes] + sequence_ps[decodes]
                first += _contexts(context_ps, window_ps, window, decodes, base_sum, young, young_base, step + 1)
                slope = context_ps * decodes
                if window > 0:
                    slope += window_ps * young
                    k = min(k, next_set(receivers.window_bits, window0 // WORD, window_mask, step + 1) + 1)
                if first < floor_ps[decodes]:
                    if slope > 0:
                        k = min(k, (floor_ps[decodes] - first) // slope + 1)
                        slope = 0
                    first = floor_ps[decodes]
                if decodes * (k // page + 1) > free:
                    k = min(k, _steps_with_room(crossing, page0, page, decodes, free, step + 1))
                horizon = until
                if blocked == NOTHING and queue != -1:
                    horizon = min(horizon, seen[queue, entry])
                if blocked != SEATS and loading != -1:
                    horizon = min(horizon, seen[loading, READY])
                if freed > 0:
                    horizon = min(horizon, s[r, FREED_AT])
                total = k * first + slope * (k * (k - 1) // 2)
                if k > 0 and total >= horizon - now:
                    k = min(k, first_reaching(first, slope, horizon - now)[0])
                    total = k * first + slope * (k * (k - 1) // 2)
                if k > 0:
                    free -= decodes * (k // page)
                    for j in range(k % page):
                        free -= crossing[page0 + (-(step + 1 + j)) % page]
                    add_gaps(histogram, decodes, first, slope, k)
                    now += total
                    began = now - first - slope * (k - 1)
                    step += k
                    if window > 0:
                        young, young_base = grown(receivers, window0, window_mask, step, window, young, young_base)
                    totals[r, STEPS] += k
                    totals[r, END_PS] = now
                    totals[r, DECODE_PS] += total
                    totals[r, DECODE_TOKENS] += decodes * k
                    totals[r, SEQUENCE_US] += (max_seqs - seats_left) * (total // 1_000_000)
                    totals[r, PEAK_BLOCKS] = max(totals[r, PEAK_BLOCKS], blocks - free)
                    continue

        step += 1
        visible = began if pool.asynchronous else now
        given_back = freed if freed > 0 and s[r, FREED_AT] <= now else np.int64(0)
        freed -= given_back
        let_go = late + given_back if visible < now else 0
        if visible == now:
            free += given_back
            free, seats_left = _free_late(slots, seats, leaving, seat0, late, page, free, seats_left)
            late = 0
        blocked = NOTHING
        budget = max_tokens - decodes
        prefill = pairs = np.int64(0)
        chunks = finishing = joining = 0
        evicted = False

        # A. Running requests, in the order of their admission: a token for every decode, what is left for the one that
        # is computed again after a preemption.
        need = crossing[page0 + (-step) % page]
        chunk = chunk_need = np.int64(0)
        if partial != -1:
            slots[partial, COMPUTED] = partial_done
            chunk = min(partial_target - partial_done, budget)
            chunk_need = pages_of(partial_done + chunk, page) - pages_of(partial_done, page)
        if need + chunk_need > free:
            evicted = True
            blocked = KV
            slot = head
            while slot != -1:
                wants = chunk_need if slot == partial else (1 if (slots[slot, BASE] + step) % page == 0 else 0)
                gone = False
                while free < wants:
                    victim = tail
                    request = slots[victim, REQUEST]
                    if victim == partial:
                        lost = partial_done
                        partial = -1
                    else:
                        base = slots[victim, BASE]
                        lost = base + step
                        notes[request, GENERATED] = output[request] - (slots[victim, FINISH] - step + 1)
                        seen[request, DONE] = now  # its last token, until it ends
                        crossing[page0 + base % page] -= 1
                        base_sum -= base
                        decodes -= 1
                        unring(receivers, victim, ring0, ring_mask)
                        if window > 0 and window - 1 - base >= step:
                            young, young_base = forget_young(
                                receivers, window0, window_mask, window - 1 - base, base, young, young_base
                            )
                    free += pages_of(lost, page)
                    notes[request, PREEMPTED] += 1
                    notes[request, LOST] += lost
                    totals[r, PREEMPTIONS] += 1
                    notes[request, LINK] = stack
                    stack = request
                    head, tail = unlink(slots, victim, head, tail)
                    seats[seat0 + seats_left] = victim
                    seats_left += 1
                    if victim == slot:
                        gone = True
                        break
                if gone:
                    break
                free -= wants
                slot = slots[slot, AFTER]
        else:
            free -= need + chunk_need
        if partial != -1 and chunk > 0:
            prefill += chunk
            budget -= chunk
            pairs += chunk * (2 * partial_done + chunk + 1)
            chunks += 1
            partial_done += chunk
            if partial_done == partial_target:
                receivers.completing[finishing] = partial
                finishing += 1
                slots[partial, BASE] = partial_target
                partial = -1

        # B. Unless the step preempted: who has loaded, then who was preempted, then who comes, each in order.
        while not evicted:
            again = False
            if loading != -1 and seen[loading, READY] <= visible:
                request = loading
            elif stack != -1:
                request = stack
                again = True
            else:
                request = queue
                if request == -1 or seen[request, entry] > visible:
                    break
            if seats_left == 0:
                blocked = SEATS
                break
            if partial != -1 or budget == 0:
                blocked = TOKENS
                break
            if again:
                target = prompt[request] + notes[request, GENERATED]
                chunk = min(target, budget)
                if chunk < target and pool.whole_prompts:
                    blocked = TOKENS
                    break
                wants = pages_of(chunk, page)
                if (pages_of(target, page) if pool.reserve_full else wants) > free:
                    blocked = KV
                    break
                stack = notes[request, LINK]
                free -= wants
                budget -= chunk
                prefill += chunk
                pairs += chunk * (chunk + 1)
                chunks += 1
                slot = seats[seat0 + seats_left - 1]
                head, tail = _sit_down(slots, slot, request, head, tail)
                seats_left -= 1
                if chunk == target:
                    receivers.completing[finishing] = slot
                    finishing += 1
                    slots[slot, BASE] = target
                else:
                    partial = slot
                    partial_done = chunk
                    partial_target = target
                continue
            if request == loading:
                loading = notes[request, AHEAD]
                if loading == -1:
                    loading_end = np.int64(-1)
                else:
                    notes[loading, BEHIND] = -1
            else:
                wants = pages_of(loaded_tokens(rules, load, request), page)
                if wants > free:
                    blocked = KV
                    break
                queue = notes[request, LINK]
                over = rules.by_prefill and output[request] == 1  # nothing to decode: it ends with its transfer
                if rules.hold:
                    sender, moves = notes[request, SENDER], notes[request, MOVES]
                    begins = transfer_begins(rules, load, senders.scalars, sender, moves, now)
                    ready = begins + load.link_ps[moves] + rules.latency_ps
                    seen[request, SENT] = begins
                    seen[request, READY] = ready
                    if rules.by_prefill:
                        seen[request, FIRST] = ready
                    if over:
                        seen[request, DONE] = ready
                    if ready > now:
                        free -= wants
                        schedule(clock.times, clock.codes, clock.counts, ready, (MOVED << KIND_BITS) + request)
                        if not over:
                            loading, loading_end = _insert_loading(seen, notes, loading, loading_end, request)
                        continue
                    leaves(notes, senders.scalars, sender, request, now)
                    if over:
                        s[r, OUTSTANDING] -= 1
                        answered(rules, load, clock, request, now)
                        continue
                free -= wants
            # Its KV is here: it decodes from this step on.
            budget -= 1
            seen[request, BEGUN] = now
            slot = seats[seat0 + seats_left - 1]
            head, tail = _sit_down(slots, slot, request, head, tail)
            seats_left -= 1
            receivers.joined[joining] = request
            joining += 1
            left, context = output[request], prompt[request] - 1
            if rules.by_prefill:
                left -= 1
                context += 1
            base = context - step
            slots[slot, BASE] = base
            crossing[page0 + base % page] += 1
            base_sum += base
            decodes += 1
            if window > 0 and window - 1 - base > step:
                _remember_young(receivers, window0, window_mask, window - 1 - base)
                young += 1
                young_base += base
            _finish_ring(slots, ring, ring_bits, slot, step + left - 1, ring0, ring_mask)

        totals[r, PEAK_BLOCKS] = max(totals[r, PEAK_BLOCKS], blocks - free)
        if visible < now:  # who finished in the step before is gone for the next planning
            free += given_back
            free, seats_left = _free_late(slots, seats, leaving, seat0, late, page, free, seats_left)
            late = 0
        if decodes == 0 and prefill == 0:
            step -= 1
            quiet = False
            idle = not evicted and visible == now
            began = now
            continue
        idle = False

        # C. The step runs.
        if window > 0:
            young, young_base = grown(receivers, window0, window_mask, step, window, young, young_base)
        context_part = _contexts(context_ps, window_ps, window, decodes, base_sum, young, young_base, step)
        duration = max(
            floor_ps[decodes + chunks],
            token_ps[prefill + decodes]
            + prefill_ps[prefill]
            + decode_ps[decodes]
            + sequence_ps[decodes + finishing]
            + context_part
            + ((prices.pair_fp * pairs) >> FRACTION_BITS),
        )
        end = now + duration
        decode_only = np.int64(0)
        if decodes > 0:
            alone = token_ps[decodes] + decode_ps[decodes] + sequence_ps[decodes] + context_part
            decode_only = min(duration, max(floor_ps[decodes], alone))
            histogram[bin_of(duration)] += decodes - joining
        for i in range(joining):
            request = receivers.joined[i]
            if rules.by_prefill:
                histogram[bin_of(end - seen[request, FIRST])] += 1
            else:
                seen[request, FIRST] = end
        totals[r, STEPS] += 1
        totals[r, END_PS] = end
        totals[r, DECODE_PS] += decode_only
        totals[r, PREFILL_PS] += duration - decode_only
        totals[r, PREFILL_TOKENS] += prefill
        totals[r, DECODE_TOKENS] += decodes
        totals[r, SEQUENCE_US] += (max_seqs - seats_left) * (duration // 1_000_000)
        answers = 0

        bucket = ring0 + (step & ring_mask)
        slot = np.int64(ring[bucket])
        if slot != -1:
            ring[bucket] = -1
            ring_bits[bucket // WORD] &= ~(1 << (bucket & (WORD - 1)))
        while slot != -1:
            following = slots[slot, RING_NEXT]
            request = slots[slot, REQUEST]
            seen[request, DONE] = end
            base = slots[slot, BASE]
            crossing[page0 + base % page] -= 1
            base_sum -= base
            decodes -= 1
            if window > 0 and window - 1 - base > step:
                young, young_base = forget_young(
                    receivers, window0, window_mask, window - 1 - base, base, young, young_base
                )
            head, tail = unlink(slots, slot, head, tail)
            slots[slot, BASE] = base + step + 1
            leaving[seat0 + late] = slot
            late += 1
            answers += 1
            answered(rules, load, clock, request, end)
            slot = following

        for i in range(finishing):
            slot = receivers.completing[i]
            request = slots[slot, REQUEST]
            target = slots[slot, BASE]
            notes[request, GENERATED] += 1
            histogram[bin_of(end - seen[request, DONE])] += 1
            if notes[request, GENERATED] == output[request]:
                seen[request, DONE] = end
                head, tail = unlink(slots, slot, head, tail)
                leaving[seat0 + late] = slot
                late += 1
                answers += 1
                answered(rules, load, clock, request, end)
            else:
                base = target - step - 1
                slots[slot, BASE] = base
                crossing[page0 + base % page] += 1
                base_sum += base
                decodes += 1
                if window > 0 and window - 1 - base > step:
                    _remember_young(receivers, window0, window_mask, window - 1 - base)
                    young += 1
                    young_base += base
                _finish_ring(
                    slots, ring, ring_bits, slot, step + output[request] - notes[request, GENERATED], ring0, ring_mask
                )

        began = now
        now = end
        if answers > 0:
            s[r, OUTSTANDING] -= answers
            s[r, ENDED] = answers
            s[r, ENDED_AT] = end
        if not pool.asynchronous:
            free, seats_left = _free_late(slots, seats, leaving, seat0, late, page, free, seats_left)
            late = 0
        if seats_left == 0 and blocked == NOTHING:
            blocked = SEATS  # also for who comes while the seats stay taken
        quiet = answers + let_go == 0 and partial == -1 and not evicted and blocked != TOKENS

    s[r, HEAD], s[r, TAIL], s[r, SEATS_LEFT], s[r, FREE] = head, tail, seats_left, free
    s[r, DECODES], s[r, BASE_SUM], s[r, STEP], s[r, NOW], s[r, BEGAN] = decodes, base_sum, step, now, began
    s[r, QUEUE], s[r, STACK], s[r, BLOCKED] = queue, stack, blocked
    s[r, IDLE], s[r, QUIET], s[r, LATE], s[r, FREED] = idle, quiet, late, freed
    s[r, UNFINISHED], s[r, DONE_TOKENS], s[r, TARGET] = partial, partial_done, partial_target
    s[r, YOUNG], s[r, YOUNG_BASE], s[r, LOADING], s[r, LOADING_END] = young, young_base, loading, loading_end

    # Before when nothing of the rest can be seen: no answer, no transfer, if nothing comes from outside.
    if idle:
        s[r, WAKE] = at
    else:
        s[r, WAKE] = now
        if quiet and freed == 0 and decodes > 0 and (blocked != NOTHING or queue == -1):
            k = next_set(ring_bits, ring0 // WORD, ring_mask, step + 1) + 1
            if k <= LONGEST_STRETCH and decodes * (k // page + 1) <= free:
                first = token_ps[decodes] + decode_ps[decodes] + sequence_ps[decodes]
                first += _contexts(context_ps, window_ps, window, decodes, base_sum, young, young_base, step + 1)
                s[r, WAKE] = now + k * first + context_ps * decodes * (k * (k - 1) // 2)
                if blocked != SEATS and loading != -1:
                    s[r, WAKE] = max(now, min(s[r, WAKE], seen[loading, READY]))
