"""One engine replica, compiled: vLLM V1's scheduler over integer picoseconds.

A step costs a constant however many sequences run: decodes live in sums (their number, their context) and in a ring
of finish steps, and only admissions, finishes and preemptions touch single requests. `tests/sim/oracle.py` says the
same semantics step by step and request by request; both must agree to the picosecond.

Semantics (vLLM 0.32, `vllm/v1/core/sched/scheduler.py`, prefix caching and async scheduling off):
A. Running requests in admission order take one token per decode and what is left of `max_num_batched_tokens` for the
   one partial prefill, which is the last admitted. A request that finds too few KV blocks preempts the tail of the
   running list until it fits: the victim's blocks are freed, its computed tokens are lost, its generated tokens kept,
   and it goes to the front of the waiting queue; a request that evicts itself ends the phase.
B. Waiting requests, not in a step that preempted, in order, while tokens and seats are left: admitted if the blocks
   of the whole sequence are free; blocks are allocated for the scheduled chunk alone.
C. A sequence whose computed tokens reach its length emits a token at the end of the step.

Needs max_num_batched_tokens >= max_num_seqs (every decode gets its token in every step).
"""

import math

import numpy as np
from numba import njit

from trilemma.latency.table import FRACTION_BITS

HISTOGRAM_SUBBINS = 512  # bins 0.2% wide
HISTOGRAM_BINS = 64 * HISTOGRAM_SUBBINS
FAR = np.int64(2**62)

# Positions in the totals array.
STEPS, PREFILL_PS, DECODE_PS, END_PS, PEAK_BLOCKS, PREEMPTIONS, SEQUENCE_US, REFUSED = range(8)
TOTALS = 8


@njit(cache=True, inline="always")
def _bin(gap_ps):
    """Histogram bin of a positive gap: exponent and 9 bits of mantissa."""
    mantissa, exponent = math.frexp(float(gap_ps))
    return exponent * HISTOGRAM_SUBBINS + int((mantissa - 0.5) * (2 * HISTOGRAM_SUBBINS))


@njit(cache=True, inline="always")
def _pages(tokens, page):
    return (tokens + page - 1) // page


@njit(cache=True, inline="always")
def _unlink(slot, head, tail, before, after):
    """Take a slot out of the admission order; the new (head, tail)."""
    prv, nxt = before[slot], after[slot]
    if prv == -1:
        head = nxt
    else:
        after[prv] = nxt
    if nxt == -1:
        tail = prv
    else:
        before[nxt] = prv
    return head, tail


@njit(cache=True, inline="always")
def _release(released, at, arrival, prompt, output, page, blocks):
    """A closed-loop client sends: the next request, and at once the one after a request that is refused."""
    while released < arrival.size:
        arrival[released] = at
        released += 1
        if _pages(prompt[released - 1] + output[released - 1] - 1, page) <= blocks:
            break
    return released


@njit(cache=True)
def run(
    arrival,
    prompt,
    output,
    clients,
    max_tokens,
    max_seqs,
    page,
    blocks,
    token_ps,
    prefill_ps,
    decode_ps,
    sequence_ps,
    context_fp,
    pair_fp,
    start,
    first,
    done,
    preempted,
    lost,
    histogram,
    totals,
):
    """Simulate one replica; all arrays int64.

    arrival (n,) ps, sorted; with clients > 0 the loop is closed: the first `clients` requests arrive at 0, each later
    one when a request is answered, and `arrival` is overwritten with those times. start (first
    scheduled), first (first token), done (last token) are written in ps, -1 for refused requests; preempted (n,)
    counts evictions, lost (n,) computed tokens thrown away; histogram (HISTOGRAM_BINS,) counts inter-token gaps.
    """
    n = arrival.size
    first[:] = -1
    done[:] = -1
    start[:] = -1
    longest = 1
    for i in range(n):
        longest = max(longest, output[i])
    ring_size = 1
    while ring_size <= longest + 1:
        ring_size *= 2
    ring_mask = ring_size - 1
    ring = np.full(ring_size, -1, np.int64)  # finish step -> a slot, chained by ring_next

    request = np.empty(max_seqs, np.int64)
    base = np.empty(max_seqs, np.int64)  # context - step: constant while decoding
    finish = np.empty(max_seqs, np.int64)  # step of the last token; -1 while prefilling
    before = np.empty(max_seqs, np.int64)  # admission order, doubly linked
    after = np.empty(max_seqs, np.int64)
    ring_next = np.empty(max_seqs, np.int64)
    ring_prev = np.empty(max_seqs, np.int64)
    seats = np.empty(max_seqs, np.int64)  # free slots
    for i in range(max_seqs):
        seats[i] = max_seqs - 1 - i
    seats_left = max_seqs
    head = -1
    tail = -1
    stack = np.empty(max_seqs + 1, np.int64)  # preempted requests, next to run on top
    stacked = 0
    generated = np.zeros(n, np.int64)  # tokens out before the current prefill of a request
    last_token = np.zeros(n, np.int64)  # when a preempted request last emitted
    completing = np.empty(max_seqs, np.int64)
    crossing = np.zeros(page, np.int64)  # decodes by base mod page: who needs a block in which step
    partial = -1  # slot of the unfinished prefill, always the tail
    partial_done = 0
    partial_target = 0

    free = blocks
    decodes = 0
    base_sum = 0
    queue = 0  # next request of the arrival order
    released = 0  # closed loop: requests sent so far
    step = 0
    now = np.int64(0)
    if clients > 0:
        arrival[:] = FAR
        for _ in range(clients):
            released = _release(released, now, arrival, prompt, output, page, blocks)

    while True:
        if head == -1 and stacked == 0:
            if queue >= n:
                break
            now = max(now, arrival[queue])
        step += 1
        budget = max_tokens - decodes
        prefill = 0
        pairs = 0
        evicted = False
        finishing = 0

        # A. Running requests.
        need = crossing[(-step) % page]
        chunk = 0
        chunk_need = 0
        if partial != -1:
            chunk = min(partial_target - partial_done, budget)
            chunk_need = _pages(partial_done + chunk, page) - _pages(partial_done, page)
        if need + chunk_need > free:
            evicted = True
            slot = head
            while slot != -1:
                wants = chunk_need if slot == partial else (1 if (base[slot] + step) % page == 0 else 0)
                gone = False
                while free < wants:
                    victim = tail
                    r = request[victim]
                    if victim == partial:
                        free += _pages(partial_done, page)
                        lost[r] += partial_done
                        partial = -1
                    else:
                        context = base[victim] + step
                        free += _pages(context, page)
                        lost[r] += context
                        generated[r] = output[r] - (finish[victim] - step + 1)
                        last_token[r] = now
                        crossing[base[victim] % page] -= 1
                        base_sum -= base[victim]
                        decodes -= 1
                        nxt, prv = ring_next[victim], ring_prev[victim]
                        if prv == -1:
                            ring[finish[victim] & ring_mask] = nxt
                        else:
                            ring_next[prv] = nxt
                        if nxt != -1:
                            ring_prev[nxt] = prv
                    preempted[r] += 1
                    totals[PREEMPTIONS] += 1
                    stack[stacked] = r
                    stacked += 1
                    head, tail = _unlink(victim, head, tail, before, after)
                    seats[seats_left] = victim
                    seats_left += 1
                    if victim == slot:
                        gone = True
                        break
                if gone:
                    break
                free -= wants
                slot = after[slot]
        else:
            free -= need + chunk_need
        if partial != -1:
            slot = partial
            prefill += chunk
            budget -= chunk
            pairs += chunk * (2 * partial_done + chunk + 1)
            partial_done += chunk
            if partial_done == partial_target:
                completing[finishing] = slot
                finishing += 1
                base[slot] = partial_target
                partial = -1

        # B. Waiting requests.
        if not evicted:
            while budget > 0 and seats_left > 0 and partial == -1:
                if stacked > 0:
                    r = stack[stacked - 1]
                elif queue < n and arrival[queue] <= now:
                    r = queue
                    if _pages(prompt[r] + output[r] - 1, page) > blocks:
                        totals[REFUSED] += 1
                        queue += 1
                        continue
                else:
                    break
                target = prompt[r] + generated[r]
                if _pages(target, page) > free:
                    break
                if stacked > 0:
                    stacked -= 1
                else:
                    queue += 1
                if start[r] < 0:
                    start[r] = now
                chunk = min(target, budget)
                free -= _pages(chunk, page)
                budget -= chunk
                prefill += chunk
                pairs += chunk * (chunk + 1)
                seats_left -= 1
                slot = seats[seats_left]
                request[slot] = r
                finish[slot] = -1
                before[slot] = tail
                after[slot] = -1
                if tail == -1:
                    head = slot
                else:
                    after[tail] = slot
                tail = slot
                if chunk == target:
                    completing[finishing] = slot
                    finishing += 1
                    base[slot] = target
                else:
                    partial = slot
                    partial_done = chunk
                    partial_target = target

        if decodes == 0 and prefill == 0:  # every waiting request of this moment was refused
            step -= 1
            continue

        # C. The step runs.
        context_sum = base_sum + decodes * (step + 1)
        variable = (context_fp * context_sum) >> FRACTION_BITS
        duration = (
            token_ps[prefill + decodes]
            + prefill_ps[prefill]
            + decode_ps[decodes]
            + sequence_ps[decodes + finishing]
            + ((context_fp * context_sum + pair_fp * pairs) >> FRACTION_BITS)
        )
        decode_only = np.int64(0)
        if decodes > 0:
            decode_only = min(duration, token_ps[decodes] + decode_ps[decodes] + sequence_ps[decodes] + variable)
            histogram[_bin(duration)] += decodes
        totals[STEPS] += 1
        totals[DECODE_PS] += decode_only
        totals[PREFILL_PS] += duration - decode_only
        totals[SEQUENCE_US] += (max_seqs - seats_left) * (duration // 1_000_000)
        totals[PEAK_BLOCKS] = max(totals[PEAK_BLOCKS], blocks - free)
        end = now + duration

        slot = ring[step & ring_mask]
        ring[step & ring_mask] = -1
        while slot != -1:
            nxt = ring_next[slot]
            r = request[slot]
            done[r] = end
            free += _pages(base[slot] + step + 1, page)
            crossing[base[slot] % page] -= 1
            base_sum -= base[slot]
            decodes -= 1
            head, tail = _unlink(slot, head, tail, before, after)
            seats[seats_left] = slot
            seats_left += 1
            if clients > 0:
                released = _release(released, end, arrival, prompt, output, page, blocks)
            slot = nxt

        for i in range(finishing):
            slot = completing[i]
            r = request[slot]
            target = base[slot]
            generated[r] += 1
            if first[r] < 0:
                first[r] = end
            else:
                histogram[_bin(end - last_token[r])] += 1
            if generated[r] == output[r]:
                done[r] = end
                free += _pages(target, page)
                head, tail = _unlink(slot, head, tail, before, after)
                seats[seats_left] = slot
                seats_left += 1
                if clients > 0:
                    released = _release(released, end, arrival, prompt, output, page, blocks)
            else:
                finish[slot] = step + output[r] - generated[r]
                base[slot] = target - step - 1
                crossing[base[slot] % page] += 1
                base_sum += base[slot]
                decodes += 1
                bucket = finish[slot] & ring_mask
                ring_prev[slot] = -1
                ring_next[slot] = ring[bucket]
                if ring[bucket] != -1:
                    ring_prev[ring[bucket]] = slot
                ring[bucket] = slot
        now = end
    totals[END_PS] = now
