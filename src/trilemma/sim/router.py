"""The router of a fleet: who gets a request, what happens when replicas come and go, and whom to run next."""

import numpy as np

from trilemma.sim import blocks as cache
from trilemma.sim.coming import answered, never_fits, unschedule
from trilemma.sim.compiled import inlined, inner
from trilemma.sim.draws import splitmix64
from trilemma.sim.layout import (
    AFTER,
    BASE,
    COMPUTED,
    ENDED,
    ENDED_AT,
    FAIL,
    FAILED,
    FAR,
    FINISH,
    HALTED,
    HEAD,
    HOMELESS,
    HOMELESS_END,
    LEAST_OUTSTANDING,
    LOOKED,
    MID_STEP,
    NEXT_ARRIVAL,
    NEXT_CHANGE,
    NEXT_EVENT,
    NO_REPLICA,
    NOW,
    OUTSTANDING,
    PARTIAL_DONE,
    POWER_OF_TWO,
    PREFIX_AWARE,
    QUEUE,
    QUEUE_END,
    READY,
    REFUSED,
    REQUEST,
    ROUTED,
    SENT,
    SERVING,
    SESSION_STICKY,
    SHORTEST,
    STACK,
    STEP,
    WAITING_ANSWERS,
)


@inner
def _seen_outstanding(board, r, at):
    """Requests of a replica that are unanswered at a time; those answered by the step in flight still count."""
    return board[OUTSTANDING, r] + (board[ENDED, r] if board[ENDED_AT, r] > at else 0)


@inner
def _least_outstanding(board, serving, count, at):
    best = serving[0]
    fewest = _seen_outstanding(board, best, at)
    for i in range(1, count):
        unanswered = _seen_outstanding(board, serving[i], at)
        if unanswered < fewest:
            best, fewest = serving[i], unanswered
    return best


@inner
def _best_prefix(board, serving, count, at, nodes, where, ids, begin, limit, balance_abs, balance_rel):
    """The serving replica that holds the longest prefix; the least outstanding where they are out of balance."""
    fewest = most = _seen_outstanding(board, serving[0], at)
    for i in range(1, count):
        unanswered = _seen_outstanding(board, serving[i], at)
        fewest, most = min(fewest, unanswered), max(most, unanswered)
    if most - fewest > balance_abs and most > balance_rel * fewest:
        return _least_outstanding(board, serving, count, at)
    best = np.int64(-1)
    longest = best_unanswered = np.int64(0)
    for i in range(count):
        r = serving[i]
        hits, _ = cache.lookup(nodes[r], where[r], ids, begin, limit)
        unanswered = _seen_outstanding(board, r, at)
        if best == -1 or hits > longest or (hits == longest and unanswered < best_unanswered):
            best, longest, best_unanswered = r, hits, unanswered
    return best


@inlined
def _route(rules, load, state, request, at):
    """The replica of a request; -1 if none serves."""
    board, serving, events = state.board, state.serving, state.events
    count = events[SERVING]
    target = np.int64(-1)
    if count > 0:
        if rules.routing == LEAST_OUTSTANDING:
            target = _least_outstanding(board, serving, count, at)
        elif rules.routing == POWER_OF_TWO:
            drawn = splitmix64(np.uint64(rules.seed) * np.uint64(2**32) + np.uint64(request))
            one = np.int64(drawn % np.uint64(count))
            target = serving[one]
            if count > 1:
                other = (one + 1 + np.int64((drawn >> np.uint64(32)) % np.uint64(count - 1))) % count
                if _seen_outstanding(board, serving[other], at) < _seen_outstanding(board, target, at):
                    target = serving[other]
        elif rules.routing == PREFIX_AWARE:
            units = min(np.int64(load.chain_units[request]), (load.prompt[request] - 1) // rules.unit)
            target = _best_prefix(
                board, serving, count, at, state.nodes, state.where, load.chain_ids, load.chain_offsets[request], units,
                rules.balance_abs, rules.balance_rel,
            )  # fmt: skip
        else:
            session = load.session[request] if rules.routing == SESSION_STICKY else -1
            if session >= 0:
                home = load.home[session]
                for i in range(count):
                    if serving[i] == home:
                        target = home
            if target == -1:
                target = serving[events[ROUTED] % count]
                events[ROUTED] += 1
                if session >= 0:
                    load.home[session] = target
    return target


def _send_now(rules, load, out, state, request, at):
    """Route a request that has come to the router, or let it wait there for a replica to get ready."""
    board = state.board
    s, events, link = state.scalars, state.events, load.link
    target = _route(rules, load, state, request, at)
    link[request] = -1
    load.entry[request] = at
    if target == -1:
        if out.start[request] == -1:
            out.reason[request] = NO_REPLICA
        if at >= state.last_ready[0]:
            out.totals[0, FAILED] += 1
            answered(rules, load, state, request, at)
        else:
            if events[HOMELESS] == -1:
                events[HOMELESS] = request
            else:
                link[events[HOMELESS_END]] = request
            events[HOMELESS_END] = request
    else:
        out.replica[request] = target
        if never_fits(
            rules.policy,
            rules.page,
            rules.blocks,
            rules.max_new,
            rules.whole_prompts,
            rules.max_tokens,
            load.prompt[request],
            load.output[request],
        ):
            out.totals[target, REFUSED] += 1
            answered(rules, load, state, request, at)
        else:
            if s[target, QUEUE] == -1:
                s[target, QUEUE] = request
            else:
                link[s[target, QUEUE_END]] = request
            s[target, QUEUE_END] = request
            board[OUTSTANDING, target] += 1
            if s[target, MID_STEP] == 0:  # else it dies in the step under way, with the request in its queue
                s[target, SHORTEST] = min(s[target, SHORTEST], np.int64(load.output[request]))
                least = np.int64(1)
                if rules.routing != PREFIX_AWARE:
                    least = max(least, load.output[request] * rules.least_step_ps)
                board[NEXT_CHANGE, target] = min(board[NEXT_CHANGE, target], at + least)


_send = inner(_send_now)
_send_here = inlined(_send_now)


@inner
def _sort(values, count):
    """The first `count` values in rising order, in place (heapsort)."""
    for size in range(count // 2 - 1 + count, 0, -1):
        if size >= count:  # first every parent from the last one down, then the largest to the end, one by one
            parent, end = size - count, count
        else:
            values[0], values[size] = values[size], values[0]
            parent, end = 0, size
        value = values[parent]
        while 2 * parent + 1 < end:
            child = 2 * parent + 1
            if child + 1 < end and values[child + 1] > values[child]:
                child += 1
            if values[child] <= value:
                break
            values[parent] = values[child]
            parent = child
        values[parent] = value


@inner
def _inside(load, out, state, r, found, count):
    """Every request a dying replica holds goes into `found` after the `count` there (what it had computed is lost)."""
    board = state.board
    s = state.scalars
    slot = s[r, HEAD]
    while slot != -1:
        request = state.slots[slot, REQUEST]
        if state.slots[slot, FINISH] != -1:
            computed = state.slots[slot, BASE] + s[r, STEP] + (0 if s[r, MID_STEP] == 1 else 1)
        elif s[r, MID_STEP]:
            computed = state.slots[slot, COMPUTED]
        else:
            computed = s[r, PARTIAL_DONE]
        out.lost[request] += computed
        found[count] = request
        count += 1
        slot = state.slots[slot, AFTER]
    for first in (s[r, STACK], s[r, QUEUE]):
        request = first
        while request != -1:
            found[count] = request
            count += 1
            request = load.link[request]
    board[NEXT_CHANGE, r] = FAR
    s[r, HALTED] = 1
    board[OUTSTANDING, r] = 0
    board[ENDED, r] = 0
    return count


@inner
def _replica_events(rules, load, out, state, at):
    """Everything that happens to replicas at a time: they start to serve, take no more, or die with what is inside.

    Then the requests that wait at the router are sent, then those of the dead in the order of their index.
    """
    s, events, serving = state.scalars, state.events, state.serving
    serves, dead, found = state.serves, state.dead, state.inside
    serves[:] = 0
    dead[:] = 0
    for i in range(events[SERVING]):
        serves[serving[i]] = 1
    while events[NEXT_EVENT] < state.event_ps.size and state.event_ps[events[NEXT_EVENT]] == at:
        r, kind = state.event_replica[events[NEXT_EVENT]], state.event_kind[events[NEXT_EVENT]]
        serves[r] = 1 if kind == READY else 0
        if kind == FAIL:
            dead[r] = 1
        events[NEXT_EVENT] += 1
    events[SERVING] = 0
    count = 0
    for r in range(s.shape[0]):
        if serves[r]:
            serving[events[SERVING]] = r
            events[SERVING] += 1
        if dead[r]:
            count = _inside(load, out, state, r, found, count)
    request = events[HOMELESS]
    events[HOMELESS] = -1
    while request != -1:
        following = load.link[request]
        _send(rules, load, out, state, request, at)
        request = following
    _sort(found, count)
    for i in range(count):
        request = found[i]
        out.first[request] = -1
        out.done[request] = -1
        state.generated[request] = 0
        if rules.retry:
            _send(rules, load, out, state, request, at)
        else:
            out.totals[out.replica[request], FAILED] += 1
            answered(rules, load, state, request, at)


@inlined
def next_call(rules, load, out, state):
    """Handle what comes until a replica has to be run first: (replica, until when); replica -1 at the very end.

    A replica is only run as far as somebody looks at it, or as the answers of others cannot reach it.
    """
    board = state.board
    s, events = state.scalars, state.events
    replicas = s.shape[0]
    while True:
        event_at = arrival_at = FAR
        from_heap = False
        if events[NEXT_EVENT] < state.event_ps.size:
            event_at = state.event_ps[events[NEXT_EVENT]]
        if events[NEXT_ARRIVAL] < state.first_arrivals.size:
            arrival_at = load.arrival[state.first_arrivals[events[NEXT_ARRIVAL]]]
        if events[WAITING_ANSWERS] > 0:
            comes, request = state.heap_time[0], state.heap_request[0]
            first = arrival_at == FAR or rules.clients == 0 and request < state.first_arrivals[events[NEXT_ARRIVAL]]
            if comes < arrival_at or (comes == arrival_at and first):
                arrival_at = comes
                from_heap = True
        at = min(event_at, arrival_at)
        found = np.int64(-1)
        until = at
        if rules.feedback:
            earliest = FAR
            for r in range(replicas):
                if board[NEXT_CHANGE, r] < earliest:
                    if found != -1:
                        until = min(until, earliest)
                    found, earliest = r, board[NEXT_CHANGE, r]
                else:
                    until = min(until, board[NEXT_CHANGE, r])
            if earliest > at:
                found = -1
        elif rules.routing >= LEAST_OUTSTANDING or at == FAR:
            for r in range(events[LOOKED], replicas):
                if board[NEXT_CHANGE, r] <= at and board[NEXT_CHANGE, r] < FAR:
                    found = r
                    events[LOOKED] = r
                    break
        if found == -1 and event_at <= arrival_at and event_at < FAR:
            for i in range(events[NEXT_EVENT], state.event_ps.size):  # the dying live until then
                r = state.event_replica[i]
                if state.event_ps[i] > at:
                    break
                if (
                    state.event_kind[i] == FAIL
                    and s[r, NOW] < at
                    and board[NEXT_CHANGE, r] < FAR
                    and s[r, MID_STEP] == 0
                ):
                    found = r
        if found != -1 or at == FAR:
            break
        events[LOOKED] = 0
        if event_at <= arrival_at:
            _replica_events(rules, load, out, state, at)
        else:
            if from_heap:
                request = unschedule(state.heap_time, state.heap_request, events)
                if rules.clients > 0:
                    if events[SENT] == load.prompt.size:
                        continue
                    request = events[SENT]
                    events[SENT] += 1
                load.arrival[request] = at
            else:
                request = state.first_arrivals[events[NEXT_ARRIVAL]]
                events[NEXT_ARRIVAL] += 1
            _send_here(rules, load, out, state, request, at)
    return found, until
