"""Requests that have not come yet: those that can never run, and those that come when another one is answered."""

from trilemma.sim.compiled import inlined, inner
from trilemma.sim.layout import NO_EVICT, SGLANG, WAITING_ANSWERS
from trilemma.sim.stretch import pages_of


@inner
def never_fits(policy, page, blocks, max_new, whole_prompts, max_tokens, prompt, output):
    """Whether a request can never run to its end on an empty replica."""
    new = max(output, max_new)
    if policy == SGLANG:
        if prompt + new + page >= blocks * page:
            return True
    elif policy == NO_EVICT:
        if pages_of(prompt + new, page) > blocks:
            return True
    elif pages_of(prompt + output - 1, page) > blocks:
        return True
    if whole_prompts:
        longest = prompt if policy == NO_EVICT else prompt + output - 1
        if policy == SGLANG:
            longest = pages_of(longest, page) * page
        return longest > max_tokens
    return False


@inner
def schedule(times, requests, events, at, request):
    """Put a coming arrival into the heap of those that depend on answers, ordered by (time, request)."""
    i = events[WAITING_ANSWERS]
    events[WAITING_ANSWERS] = i + 1
    while i > 0:
        parent = (i - 1) >> 1
        if times[parent] < at or (times[parent] == at and requests[parent] < request):
            break
        times[i], requests[i] = times[parent], requests[parent]
        i = parent
    times[i], requests[i] = at, request


@inner
def unschedule(times, requests, events):
    """Take the first coming arrival out of the heap; its request."""
    first = requests[0]
    size = events[WAITING_ANSWERS] - 1
    events[WAITING_ANSWERS] = size
    at, request = times[size], requests[size]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        right = child + 1
        if right < size and (
            times[right] < times[child] or (times[right] == times[child] and requests[right] < requests[child])
        ):
            child = right
        if times[child] > at or (times[child] == at and requests[child] > request):
            break
        times[i], requests[i] = times[child], requests[child]
        i = child
    times[i], requests[i] = at, request
    return first


@inlined
def answered(rules, load, state, request, at):
    """A request got its answer (or its refusal): a free client sends the next one, a session's user thinks first."""
    if rules.clients > 0:
        # Which request that is shows when the client gets to it: another one may be free before.
        schedule(state.heap_time, state.heap_request, state.events, at, request)
    elif rules.sessions:
        following = load.successor[request]
        if following >= 0:
            schedule(state.heap_time, state.heap_request, state.events, at + load.think_ps[following], following)


@inner
def release_next(rules, load, released, at):
    """A closed-loop client sends: the next request, and at once the one after a request that never fits."""
    while released != -1:
        load.arrival[released] = at
        fits = not never_fits(
            rules.policy,
            rules.page,
            rules.blocks,
            rules.max_new,
            rules.whole_prompts,
            rules.max_tokens,
            load.prompt[released],
            load.output[released],
        )
        released = load.link[released]
        if fits:
            break
    return released
