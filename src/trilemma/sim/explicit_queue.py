"""The explicit kernel's queues: requests that come, get their rank, wait, and bring about the next ones."""

import numpy as np

from trilemma.sim.compiled import inlined, inner
from trilemma.sim.explicit_layout import (
    ASSIGNED,
    EVENTS,
    FOLLOWS,
    LEFT_LINK,
    NEWS,
    NEWS_END,
    NEXT,
    OUTPUT,
    PRIORITY,
    PROMPT,
    PROMPTS_INSIDE,
    QUEUE,
    QUEUE_END,
    RANK,
    RELEASED,
    RIGHT_LINK,
    SUCCESSOR,
    THINK_PS,
    UNANSWERED,
    WAITING,
)
from trilemma.sim.layout import NO_EVICT, REFUSED, SGLANG, VLLM
from trilemma.sim.stretch import pages_of


@inlined
def goes_before(load, by_priority, a, b):
    """Whether request a comes before b: by (priority,) arrival and index."""
    if by_priority and load.table[a, PRIORITY] != load.table[b, PRIORITY]:
        return load.table[a, PRIORITY] < load.table[b, PRIORITY]
    return load.arrival[a] < load.arrival[b] or (load.arrival[a] == load.arrival[b] and a < b)


@inner
def merge(load, state, by_priority, a, b):
    """The root of two skew heaps of requests made one; -1 is the empty heap."""
    notes = state.notes
    if a == -1:
        return b
    if b == -1:
        return a
    if goes_before(load, by_priority, b, a):
        a, b = b, a
    root = a
    while True:
        rest = np.int64(notes[a, RIGHT_LINK])
        notes[a, RIGHT_LINK] = notes[a, LEFT_LINK]
        if rest == -1:
            notes[a, LEFT_LINK] = b
            return root
        if goes_before(load, by_priority, b, rest):
            rest, b = b, rest
        notes[a, LEFT_LINK] = rest
        a = rest


@inner
def enqueue(rules, load, state, r, request, at_front):
    """Put a request into a rank's queue: at its front, at its end, or where its priority belongs."""
    s, notes = state.scalars, state.notes
    s[r, WAITING] += 1
    if rules.by_priority:
        state.notes[request, LEFT_LINK] = -1
        notes[request, RIGHT_LINK] = -1
        s[r, QUEUE] = merge(load, state, 1, s[r, QUEUE], request)
    elif s[r, QUEUE] == -1:
        notes[request, RIGHT_LINK] = -1
        s[r, QUEUE] = s[r, QUEUE_END] = request
    elif at_front:
        notes[request, RIGHT_LINK] = s[r, QUEUE]
        s[r, QUEUE] = request
    else:
        notes[request, RIGHT_LINK] = -1
        notes[s[r, QUEUE_END], RIGHT_LINK] = request
        s[r, QUEUE_END] = request


@inner
def dequeue(rules, load, state, r):
    """Take the head of a rank's queue out of it."""
    s = state.scalars
    request = s[r, QUEUE]
    s[r, WAITING] -= 1
    if rules.by_priority:
        s[r, QUEUE] = merge(
            load, state, 1, np.int64(state.notes[request, LEFT_LINK]), np.int64(state.notes[request, RIGHT_LINK])
        )
    else:
        s[r, QUEUE] = state.notes[request, RIGHT_LINK]


@inner
def see(rules, load, state, r, until):
    """Those that came by `until` enter the rank's queue."""
    s = state.scalars
    while s[r, NEWS] != -1 and load.arrival[s[r, NEWS]] <= until:
        request = s[r, NEWS]
        s[r, NEWS] = state.notes[request, RIGHT_LINK]
        enqueue(rules, load, state, r, request, False)


# Arrivals ----------------------------------------------------------------------------------------------------------


@inner
def never_fits(rules, prompt, output):
    """Whether a request can never run to its end on an empty rank."""
    new, draft = max(output, rules.max_new), rules.span - 1
    longest = prompt + output - 1  # what may have to be computed after the last possible eviction
    if rules.whole_prompts:
        whole = prompt if rules.policy == NO_EVICT else longest
        if rules.policy == SGLANG:
            whole = pages_of(whole, rules.page) * rules.page
        if whole > rules.max_tokens:
            return True
    room = rules.blocks * rules.page
    if rules.policy == SGLANG:
        return prompt + new + draft + rules.page >= room
    if rules.policy == NO_EVICT:
        return prompt + new + draft > room
    return longest + draft > room


@inner
def answered(rules, load, state, request, at):
    """Somebody got an answer (or a refusal): the client's or the session's next request will come."""
    g = state.group
    if rules.clients > 0:
        if g[RELEASED] < load.arrival.size:
            load.arrival[g[RELEASED]] = at
            g[RELEASED] += 1
    elif rules.sessions:
        following = np.int64(load.table[request, SUCCESSOR])
        if following >= 0:
            load.arrival[following] = at + load.table[following, THINK_PS]
            state.notes[following, LEFT_LINK] = -1
            state.notes[following, RIGHT_LINK] = -1
            g[EVENTS] = merge(load, state, 0, g[EVENTS], following)


@inner
def next_request(rules, load, state):
    """The next request to arrive, -1 if none is known."""
    g = state.group
    bound = g[RELEASED] if rules.clients > 0 else load.arrival.size
    i = g[NEXT]
    if rules.sessions:
        while i < bound and load.table[i, FOLLOWS]:
            i += 1
        g[NEXT] = i
    event = g[EVENTS]
    if i >= bound:
        return event
    if event != -1 and goes_before(load, 0, event, i):
        return event
    return i


@inner
def deliver(rules, load, out, state, until):
    """Every request that arrives by `until` gets its rank, or is refused."""
    g, s = state.group, state.scalars
    while True:
        request = next_request(rules, load, state)
        if request == -1 or load.arrival[request] > until:
            break
        if request == g[EVENTS]:
            g[EVENTS] = merge(
                load, state, 0, np.int64(state.notes[request, LEFT_LINK]), np.int64(state.notes[request, RIGHT_LINK])
            )
        else:
            g[NEXT] = request + 1
        if never_fits(rules, load.table[request, PROMPT], load.table[request, OUTPUT]):
            out.totals[REFUSED] += 1
            answered(rules, load, state, request, load.arrival[request])
            continue
        chosen = g[ASSIGNED] % rules.ranks
        if rules.policy == VLLM:
            start = chosen
            for k in range(1, rules.ranks):
                r = (start + k) % rules.ranks
                if s[r, UNANSWERED] < s[chosen, UNANSWERED]:
                    chosen = r
        elif rules.policy != SGLANG:
            chosen = 0
            for r in range(1, rules.ranks):
                if s[r, PROMPTS_INSIDE] < s[chosen, PROMPTS_INSIDE] or (
                    s[r, PROMPTS_INSIDE] == s[chosen, PROMPTS_INSIDE] and s[r, UNANSWERED] < s[chosen, UNANSWERED]
                ):
                    chosen = r
        g[ASSIGNED] += 1
        s[chosen, UNANSWERED] += 1
        s[chosen, PROMPTS_INSIDE] += load.table[request, PROMPT]
        out.seen[request, RANK] = chosen
        state.notes[request, RIGHT_LINK] = -1
        if s[chosen, NEWS] == -1:
            s[chosen, NEWS] = request
        else:
            state.notes[s[chosen, NEWS_END], RIGHT_LINK] = request
        s[chosen, NEWS_END] = request
