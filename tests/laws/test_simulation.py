"""Laws every simulated run obeys, whatever the step times, under every engine's rules, alone and in fleets."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.sim.cases import (
    ASYNC,
    CLIENTS,
    COMMON,
    FLEET,
    PLENTY_OF_BLOCKS,
    PREFIX,
    PRIORITIES,
    RANKS,
    SESSIONS,
    SHARED_EXPERTS,
    SPECULATION,
    THRESHOLD,
    Case,
    constant_table,
    feature_cases,
    in_ps,
    random_feature_case,
    whole,
)

from trilemma.latency.table import FRACTION_BITS, StepTable
from trilemma.sim import layout
from trilemma.sim.engine import EngineLimits, Policy
from trilemma.sim.fleet import Fleet, Routing
from trilemma.sim.replica import Run, simulate
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests

law = settings(max_examples=150, deadline=None)
S = 10**9  # a constant step of 1 ms
NEVER = float("inf")
STEP_BY_STEP = (THRESHOLD, PRIORITIES, SPECULATION, RANKS, SHARED_EXPERTS)  # what the explicit kernel plays
# Under these rules decodes never stand still.
STEADY = (
    {"policy": Policy.VLLM},
    {"policy": Policy.TRTLLM_NO_EVICT},
    {"policy": Policy.TRTLLM_MAX_UTILIZATION},
    {"policy": Policy.SGLANG, "mixed_chunk": True},
)


@st.composite
def a_case(draw, features=(PREFIX, SESSIONS, ASYNC, FLEET), clients=CLIENTS, always=COMMON):
    """Any engine and load, with any of the features together."""
    chosen = draw(st.sets(st.sampled_from(features))) if features else ()
    return draw(feature_cases(always.union(*chosen), clients=clients))


def alone(features=(PREFIX, SESSIONS, ASYNC), clients=CLIENTS):
    """A case of one replica."""
    return a_case(features, clients)


@st.composite
def any_case(draw, clients=CLIENTS, always=COMMON):
    """A case of anything there is."""
    if draw(st.integers(0, 2)):
        return draw(a_case(clients=clients, always=always))
    stepwise = draw(st.sampled_from(STEP_BY_STEP))
    return draw(a_case((PREFIX, SESSIONS, ASYNC), clients, always | stepwise))


def roomy(case: Case) -> Case:
    """Memory for everyone: nothing is evicted."""
    return replace(case, limits=replace(case.limits, kv_blocks=PLENTY_OF_BLOCKS))


def play(case: Case, fleet: Fleet | None = None, sample_s: float = 0.0) -> Run:
    return simulate(
        case.requests,
        case.table,
        case.limits,
        clients=case.clients,
        fleet=fleet or case.fleet,
        sample_s=sample_s,
        speculation=case.speculation,
        ranks=case.ranks,
        shared_experts=case.shared_experts,
    )


def at_ps(requests: Requests, arrival_ps: np.ndarray) -> Requests:
    return replace(requests, arrival_s=arrival_ps / PS_PER_S)


def arrival_ps(run: Run) -> np.ndarray:
    return in_ps(run.timings.arrival_s)


def times_ps(run: Run) -> np.ndarray:
    """(3, n) start, first token and done of every request, -1 where it never got there."""
    t = run.timings
    return np.stack([in_ps(x) for x in (run.queued_s + t.arrival_s, t.first_token_s, t.done_s)])


def busy_ps(run: Run) -> int:
    return round((run.prefill_s + run.decode_s) * PS_PER_S)


def in_ps_of(fleet: Fleet, change) -> Fleet:
    """The fleet with `change` (whole ps to whole ps) made to all its times but 0 and never."""

    def changed(times: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(t if t in (0.0, NEVER) else change(round(t * PS_PER_S)) / PS_PER_S for t in times)

    return replace(fleet, ready_s=changed(fleet.ready_s), drain_s=changed(fleet.drain_s), fail_s=changed(fleet.fail_s))


def different(one: Run, other: Run, *, but: tuple[str, ...] = ()) -> list[str]:
    """Names of what two runs report differently, to the bit."""
    names = ("arrival_s", "first_token_s", "done_s", "preemptions", "recomputed_tokens", "itl_counts")
    pairs = {x: (getattr(one.timings, x), getattr(other.timings, x)) for x in names}
    names = ("queued_s", "wait_reason", "replica", "hit_tokens", "replicas", "steps", "prefill_s", "decode_s", "span_s")
    names += ("peak_kv_share", "mean_running", "refused", "failed")
    pairs |= {x: (getattr(one, x), getattr(other, x)) for x in names}
    return [x for x, (a, b) in pairs.items() if x not in but and not same(a, b)]


def same(a: object, b: object) -> bool:
    one, other = np.asarray(a), np.asarray(b)
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


# The mean of running sequences counts whole microseconds of each stretch of steps: it depends on where they are cut.
CUT = ("mean_running",)


def pages(tokens, limits: EngineLimits):
    return -(-tokens // limits.block_tokens)


def never_fit(requests: Requests, limits: EngineLimits, drafts: int = 0) -> np.ndarray:
    """(n,) what can never run to its end on an empty engine, from what each engine holds for a request at the most."""
    prompt, output = requests.prompt_tokens, requests.output_tokens
    new = np.maximum(output, limits.max_new_tokens)
    computed = prompt + output - 1  # the last token is not computed again
    at_once = computed  # evicted just before its last token it comes back as one prompt
    if limits.policy is Policy.SGLANG:
        too_large = prompt + new + drafts + limits.block_tokens >= limits.kv_blocks * limits.block_tokens
        at_once = pages(computed, limits) * limits.block_tokens
    elif limits.policy is Policy.TRTLLM_NO_EVICT:
        too_large = pages(prompt + new + drafts, limits) > limits.kv_blocks
        at_once = prompt
    else:
        too_large = pages(computed + drafts, limits) > limits.kv_blocks
    return too_large | (not limits.chunked_prefill) & (at_once > limits.max_num_batched_tokens)


def most_at_once(begin: np.ndarray, end: np.ndarray, weight: np.ndarray) -> int:
    """The largest sum of the weights of those that are inside [begin, end) together."""
    at = np.concatenate([end, begin])
    change = np.concatenate([-weight, weight])
    return int(np.cumsum(change[np.lexsort((change, at))]).max(initial=0))


# Conservation and causality ------------------------------------------------------------------------------------


@law
@given(any_case())
def test_every_request_is_finished_refused_or_lost_when_the_run_ends(case):
    run = play(case)
    finished = run.timings.finished
    too_large = never_fit(case.requests, case.limits, case.speculation.draft_tokens if case.speculation else 0)
    assert finished.sum() + run.refused + run.failed == len(case.requests)
    assert not (finished & too_large).any()
    assert np.isnan(run.timings.first_token_s[~finished]).all()
    if not case.fleet.changes:
        np.testing.assert_array_equal(finished, ~too_large)
        assert np.isnan(run.queued_s[~finished]).all()
        assert run.failed == 0


@law
@given(any_case())
def test_time_runs_forward(case):
    run = play(case)
    kept = run.timings.finished
    start, first, done = times_ps(run)[:, kept]
    assert (arrival_ps(run)[kept] <= start).all()
    assert (start < first).all()
    assert (first <= done).all()
    np.testing.assert_array_equal(first == done, case.requests.output_tokens[kept] == 1)
    assert done.max(initial=0) <= round(run.span_s * PS_PER_S)


@law
@given(any_case())
def test_no_request_comes_before_it_was_sent(case):
    run = play(case)
    arrival = arrival_ps(run)
    assert (arrival >= 0).all()
    if not case.clients and case.requests.think_s is None:
        np.testing.assert_array_equal(arrival, in_ps(case.requests.arrival_s))


@law
@given(any_case())
def test_every_token_asked_for_comes_out_once(case):
    """A request's tokens are its first and one per gap, preempted or not; what is lost with a replica came out too."""
    run = play(case)
    finished = run.timings.finished
    tokens = case.requests.output_tokens[finished].sum()
    came_out = finished.sum() + run.timings.itl_counts.sum()
    assert came_out == tokens if not case.fleet.fail_s else came_out >= tokens


@law
@given(a_case())
def test_gaps_add_up_to_the_time_between_first_and_last_tokens(case):
    assume(not case.fleet.fail_s)
    t = play(case).timings
    low, high = (t.itl_counts * edges for edges in (t.itl_edges_s[:-1], t.itl_edges_s[1:]))
    decoding_s = (t.done_s - t.first_token_s)[t.finished].sum()
    assert low.sum() * (1 - 1e-9) <= decoding_s <= high.sum() * (1 + 1e-9)


@law
@given(a_case())
def test_every_token_is_computed_once_and_again_after_an_eviction(case):
    """With steps that take a picosecond per token, busy time counts the tokens computed. What the prefix cache has is
    not computed; after an eviction it may have some of what was lost, and more that others computed meanwhile."""
    assume(not case.fleet.fail_s)
    tokens, seqs = case.limits.max_num_batched_tokens, case.limits.max_num_seqs
    run = play(replace(case, table=replace(constant_table(1, tokens, seqs), token_ps=np.arange(tokens + 1))))
    t = run.timings
    once = int((t.prompt_tokens + t.output_tokens - 1)[t.finished].sum())
    if run.hit_tokens is not None:
        once -= int(run.hit_tokens[t.finished].sum())
    again = int(t.recomputed_tokens.sum())
    if run.hit_tokens is None or not again:
        assert busy_ps(run) == once + again
    else:
        assert busy_ps(run) <= once + again


@law
@given(alone((PREFIX, SESSIONS, ASYNC, *STEP_BY_STEP)))
def test_recomputed_tokens_come_from_evictions_alone(case):
    t = play(case).timings
    np.testing.assert_array_equal(t.recomputed_tokens > 0, t.preemptions > 0)
    assert (t.recomputed_tokens <= t.preemptions * (t.prompt_tokens + t.output_tokens)).all()


@law
@given(any_case())
def test_kv_never_exceeds_capacity_and_holds_the_longest_request(case):
    run = play(case)
    assert 0 <= run.peak_kv_share <= 1
    t = run.timings
    held = pages((t.prompt_tokens + t.output_tokens - 1)[t.finished], case.limits)
    assert run.peak_kv_share * case.limits.kv_blocks >= held.max(initial=0) - 1e-9


@law
@given(a_case((SESSIONS, ASYNC, FLEET)))
def test_those_inside_together_fit_in_seats_and_memory(case):
    """Somebody who was never evicted keeps a seat from start to end, and from the first token on the prompt's blocks.
    Where blocks are reserved to the end, the peak is what those inside have reserved."""
    assume(not case.fleet.changes)
    run, limits = play(case), case.limits
    stayed = run.timings.finished & (run.timings.preemptions == 0)
    start, first, done = times_ps(run)
    most_reserved = 0
    for r in range(run.replicas):
        here = stayed & (run.replica == r)
        held = pages(run.timings.prompt_tokens[here], limits)
        assert most_at_once(start[here], done[here], np.ones_like(held)) <= limits.max_num_seqs
        assert most_at_once(first[here], done[here], held) <= run.peak_kv_share * limits.kv_blocks + 1e-9
        new = np.maximum(run.timings.output_tokens[here], limits.max_new_tokens)
        reserved = pages(run.timings.prompt_tokens[here] + new, limits)
        most_reserved = max(most_reserved, most_at_once(start[here], done[here], reserved))
    if limits.policy is Policy.TRTLLM_NO_EVICT and not limits.async_scheduling:  # else they leave a step late
        assert run.peak_kv_share == most_reserved / limits.kv_blocks


@law
@given(any_case())
def test_nothing_is_evicted_where_memory_is_plenty_or_reserved(case):
    case = case if case.limits.policy is Policy.TRTLLM_NO_EVICT else roomy(case)
    assert not play(case).timings.preemptions.any()


# Little's law and work -----------------------------------------------------------------------------------------


def integral_inside(begin: np.ndarray, end: np.ndarray) -> tuple[int, int]:
    """(integral of the number inside over time, time with at least one), by walking through the events."""
    events = sorted([(int(a), 1) for a in begin] + [(int(d), -1) for d in end])
    integral = occupied = inside = before = 0
    for at, change in events:
        integral += inside * (at - before)
        occupied += (inside > 0) * (at - before)
        inside, before = inside + change, at
    assert inside == 0
    return integral, occupied


@law
@given(any_case())
def test_littles_law_is_exact(case):
    """Time-average number x span = rate x mean time x span: the integral of the number inside is the sum of the times,
    to the picosecond; of those in the system and of those that wait."""
    run = play(case)
    kept = run.timings.finished
    arrival, (start, _, done) = arrival_ps(run)[kept], times_ps(run)[:, kept]
    assert integral_inside(arrival, done)[0] == int((done - arrival).sum())
    assert integral_inside(arrival, start)[0] == int((start - arrival).sum())


@law
@given(any_case())
def test_an_engine_is_busy_exactly_while_somebody_is_inside(case):
    """Busy and idle time are the span: no step without somebody, nobody inside without a step."""
    assume(not case.fleet.changes)
    run = play(case)
    kept = run.timings.finished
    arrival, done = arrival_ps(run), times_ps(run)[2]
    occupied = [integral_inside(arrival[here], done[here])[1] for here in (kept & (run.replica == r) for r in range(4))]
    assert busy_ps(run) == sum(occupied)
    assert 0 <= run.busy_share <= 1
    if run.span_s > 0:
        assert run.busy_share == pytest.approx(sum(occupied) / (run.replicas * run.span_s * PS_PER_S), rel=1e-9)


@law
@given(a_case((PREFIX, SESSIONS, FLEET)))
def test_littles_law_holds_for_the_running_sequences(case):
    """Without evictions a sequence runs from its start to its end; the sum is kept in whole microseconds a step."""
    case = replace(roomy(case), fleet=replace(case.fleet, ready_s=(), drain_s=(), fail_s=()))
    run = play(case)
    start, _, done = times_ps(run)
    lost_us = run.steps * case.limits.max_num_seqs
    counted_us = run.mean_running * busy_ps(run) / 1e6
    assert counted_us <= (done - start).sum() / 1e6 * (1 + 1e-9)
    assert counted_us >= (done - start).sum() / 1e6 - lost_us


@law
@given(alone((PREFIX, SESSIONS)), st.integers(1, 10**10))
def test_samples_agree_with_the_requests_times(case, sample_ps):
    run = play(case, sample_s=sample_ps / PS_PER_S)
    rows = run.samples[0]
    at, running, preempted = (rows[:-1, x] for x in (layout.S_TIME, layout.S_RUNNING, layout.S_PREEMPTED))
    start, _, done = times_ps(run)
    inside = (start[:, None] < at) & (at < done[:, None])
    np.testing.assert_array_equal(running + preempted, inside[start >= 0].sum(axis=0))
    assert (np.diff(at) >= 0).all()
    assert rows[:, layout.S_RUNNING].max() <= case.limits.max_num_seqs
    assert rows[:, layout.S_BLOCKS].max() <= run.peak_kv_share * case.limits.kv_blocks + 1e-9
    for counter in (layout.S_PREFILL_TOKENS, layout.S_DECODE_TOKENS, layout.S_PREFILL_PS, layout.S_DECODE_PS):
        assert (np.diff(rows[:, counter]) >= 0).all()
    t = run.timings
    assert rows[-1, layout.S_PREFILL_PS] + rows[-1, layout.S_DECODE_PS] == busy_ps(run)
    if not t.preemptions.any():
        found = 0 if run.hit_tokens is None else run.hit_tokens[t.finished].sum()
        assert rows[-1, layout.S_PREFILL_TOKENS] == t.prompt_tokens[t.finished].sum() - found
        assert rows[-1, layout.S_DECODE_TOKENS] == (t.output_tokens - 1)[t.finished].sum()


@law
@given(alone((PREFIX, ASYNC), clients=(0,)))
def test_requests_are_first_scheduled_in_the_order_they_came(case):
    start = times_ps(play(case))[0]
    assert (np.diff(start[start >= 0]) >= 0).all()


@law
@given(alone((), clients=(0,)), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_nobody_starts_before_one_of_higher_priority_that_waits(case, classes, seed):
    """Nor before one of the same priority that came earlier."""
    n = len(case.requests)
    ranked = replace(case.requests, priority=np.random.default_rng(seed).integers(0, classes, n))
    run = play(replace(case, requests=ranked))
    start, arrival = times_ps(run)[0], arrival_ps(run)
    for i in np.flatnonzero(start >= 0):
        for j in np.flatnonzero((arrival <= start[i]) & (start > start[i])):
            assert (ranked.priority[i], arrival[i], i) < (ranked.priority[j], arrival[j], j)


# Invariance ----------------------------------------------------------------------------------------------------


@law
@given(any_case(), st.integers(2, 9))
def test_scaling_arrivals_and_costs_scales_every_time(case, q):
    case = replace(case, table=whole(case.table))
    columns = ("token_ps", "prefill_ps", "decode_ps", "sequence_ps", "floor_ps", "context_ps", "window_ps", "pair_fp")
    slower = replace(case.table, **{name: q * getattr(case.table, name) for name in columns})
    later = at_ps(case.requests, q * in_ps(case.requests.arrival_s))
    if later.think_s is not None:
        think = in_ps(later.think_s)
        later = replace(later, think_s=np.where(think < 0, np.nan, q * think / PS_PER_S))
    fleet = in_ps_of(case.fleet, lambda at: q * at)
    slow = replace(case, table=slower, requests=later, fleet=fleet)
    if case.speculation:
        slow = replace(slow, speculation=replace(case.speculation, draft_ps=q * case.speculation.draft_ps))
    one, many = play(case), play(slow)
    np.testing.assert_array_equal(times_ps(many), np.where(times_ps(one) < 0, -1, q * times_ps(one)))
    np.testing.assert_array_equal(arrival_ps(many), q * arrival_ps(one))
    np.testing.assert_array_equal(many.timings.preemptions, one.timings.preemptions)
    assert busy_ps(many) == q * busy_ps(one)
    assert (many.steps, many.refused, many.failed) == (one.steps, one.refused, one.failed)


@law
@given(any_case(clients=(0,)), st.integers(1, 10**12))
def test_shifting_arrivals_shifts_every_time(case, later_ps):
    one = play(case)
    moved = at_ps(case.requests, in_ps(case.requests.arrival_s) + later_ps)
    fleet = in_ps_of(case.fleet, lambda at: at + later_ps)
    # What drains or dies at 0 would still do so before anybody comes; only what is ready at 0 is ready anyway.
    assume(0.0 not in (*fleet.drain_s, *fleet.fail_s))
    other = play(replace(case, requests=moved, fleet=fleet))
    np.testing.assert_array_equal(times_ps(other), np.where(times_ps(one) < 0, -1, times_ps(one) + later_ps))
    np.testing.assert_array_equal(other.replica, one.replica)
    np.testing.assert_array_equal(other.timings.itl_counts, one.timings.itl_counts)


@law
@given(any_case())
def test_same_input_same_bits(case):
    arrival, prompt = case.requests.arrival_s.copy(), case.requests.prompt_tokens.copy()
    assert not different(play(case), play(case))
    np.testing.assert_array_equal(case.requests.arrival_s, arrival)
    np.testing.assert_array_equal(case.requests.prompt_tokens, prompt)


@law
@given(any_case(), st.integers(1, 10**10))
def test_looking_at_a_run_along_the_way_changes_nothing(case, sample_ps):
    """Samples cut the stretches of steps that are taken at once into shorter ones."""
    assert not different(play(case), play(case, sample_s=sample_ps / PS_PER_S), but=CUT)


@law
@given(alone((ASYNC, THRESHOLD), clients=(0,)), st.integers(1, 10**9))
def test_a_load_that_comes_again_when_it_is_done_fares_the_same_again(case, idle_ps):
    """What comes to an empty engine does not know what was before: a run can be cut where nobody is inside."""
    once, requests = play(case), case.requests
    arrival = in_ps(requests.arrival_s)
    later = max(times_ps(once)[2].max(), arrival[-1]) + idle_ps
    twice = Requests(
        arrival_s=np.concatenate([arrival, arrival + later]) / PS_PER_S,
        prompt_tokens=np.tile(requests.prompt_tokens, 2),
        output_tokens=np.tile(requests.output_tokens, 2),
    )
    run = play(replace(case, requests=twice))
    first = times_ps(once)
    np.testing.assert_array_equal(times_ps(run), np.hstack([first, np.where(first < 0, -1, first + later)]))
    np.testing.assert_array_equal(run.timings.itl_counts, 2 * once.timings.itl_counts)
    assert (run.steps, run.peak_kv_share) == (2 * once.steps, once.peak_kv_share)


@law
@given(alone((PREFIX, ASYNC, THRESHOLD, PRIORITIES), clients=(0,)))
def test_refused_requests_change_nothing_for_the_others(case):
    run = play(case)
    kept = run.timings.finished
    others = play(replace(case, requests=case.requests.take(kept)))
    np.testing.assert_array_equal(times_ps(run)[:, kept], times_ps(others))
    assert run.steps == others.steps


# Fleets --------------------------------------------------------------------------------------------------------


@law
@given(alone((PREFIX, ASYNC, THRESHOLD), clients=(0, 6)), st.integers(1, 6))
def test_round_robin_replicas_are_single_replicas_on_every_nth_request(case, replicas):
    together = play(case, Fleet(replicas=replicas))
    singles = []
    for k in range(replicas):
        own = case.requests.take(slice(k, None, replicas))
        clients = len(range(k, case.clients, replicas))
        singles.append(simulate(own, case.table, case.limits, clients=clients))
        np.testing.assert_array_equal(times_ps(together)[:, k::replicas], times_ps(singles[-1]))
        np.testing.assert_array_equal(together.timings.arrival_s[k::replicas], singles[-1].timings.arrival_s)
    np.testing.assert_array_equal(together.replica, np.arange(len(case.requests)) % replicas)
    assert together.steps == sum(x.steps for x in singles)
    assert together.refused == sum(x.refused for x in singles)
    assert together.span_s == max(x.span_s for x in singles)
    assert together.peak_kv_share == max(x.peak_kv_share for x in singles)
    assert together.prefill_s == pytest.approx(sum(x.prefill_s for x in singles), rel=1e-12)
    np.testing.assert_array_equal(together.timings.itl_counts, sum(x.timings.itl_counts for x in singles))


@law
@given(alone(clients=(0, 4)), st.sampled_from(Routing))
def test_a_fleet_of_one_is_a_replica_however_requests_are_routed(case, routing):
    run = play(case)
    but = (*CUT, "span_s") if run.refused else CUT  # a span may or may not end with a refused arrival
    assert not different(play(case, Fleet(routing=routing)), run, but=but)
    in_vain = Fleet(replicas=2, routing=routing, ready_s=(0.0, NEVER))  # the second never gets ready
    assert not different(play(case, in_vain), run, but=(*but, "replicas"))


@law
@given(a_case((PREFIX, SESSIONS, ASYNC), always=FLEET))
def test_what_happens_to_a_fleet_after_the_last_answer_changes_nothing(case):
    case = replace(case, fleet=replace(case.fleet, ready_s=(), drain_s=(), fail_s=()))
    run = play(case)
    # Beyond the end of every step: a replica that dies at the very end of one has done it.
    end_s = np.nanmax([run.span_s, *run.timings.arrival_s])
    later = tuple(end_s + 1.0 + r for r in range(case.fleet.replicas))
    but = (*CUT, "span_s") if run.refused else CUT  # a span may or may not end with a refused arrival
    assert not different(play(case, replace(case.fleet, drain_s=later)), run, but=but)
    assert not different(play(case, replace(case.fleet, fail_s=later)), run, but=but)


@law
@given(a_case((PREFIX, SESSIONS, ASYNC), always=FLEET))
def test_replicas_work_between_getting_ready_and_their_end(case):
    fleet, run = case.fleet, play(case)
    served = run.timings.finished
    where = run.replica[served]
    assert (where >= 0).all()
    arrival, (_, first, done) = arrival_ps(run)[served], times_ps(run)[:, served]
    for times, holds in (
        (fleet.ready_s, lambda ready: first > ready),
        (fleet.drain_s, lambda drain: arrival < drain),
        (fleet.fail_s, lambda fail: done <= fail),
    ):
        if times:
            event = np.array([t if t == NEVER else round(t * PS_PER_S) for t in times])[where]
            assert holds(event).all()


@law
@given(a_case((PREFIX, SESSIONS, ASYNC), always=FLEET, clients=(0,)))
def test_requests_are_lost_with_a_replica_or_for_want_of_one(case):
    case = replace(case, fleet=replace(case.fleet, retry_failed=False))
    run, fleet = play(case), case.fleet
    lost = ~run.timings.finished & ~never_fit(case.requests, case.limits)
    arrival = arrival_ps(run)
    dies = np.array(fleet.fail_s or (NEVER,) * fleet.replicas)
    ends = np.minimum(np.array(fleet.drain_s or (NEVER,) * fleet.replicas), dies)
    serves = np.array(fleet.ready_s or (0.0,) * fleet.replicas) < ends
    for i in np.flatnonzero(lost):
        r = run.replica[i]
        if r >= 0:
            assert arrival[i] < dies[r] * PS_PER_S + 1
        else:
            assert not (serves & (ends * PS_PER_S > arrival[i] + 1)).any()
            assert run.wait_reason[i] == layout.NO_REPLICA


@law
@given(a_case((PREFIX, SESSIONS, ASYNC), always=FLEET))
def test_requests_sent_again_are_all_answered_while_one_replica_lasts(case):
    """They keep the time at which they first came."""
    first = {name: times and (end, *times[1:]) for name, times, end in lasting(case.fleet)}
    case = replace(case, fleet=replace(case.fleet, retry_failed=True, **first))
    run = play(case)
    np.testing.assert_array_equal(run.timings.finished, ~never_fit(case.requests, case.limits))
    assert run.failed == 0
    if not case.clients and case.requests.think_s is None:
        np.testing.assert_array_equal(arrival_ps(run), in_ps(case.requests.arrival_s))


def lasting(fleet: Fleet):
    return (("ready_s", fleet.ready_s, 0.0), ("drain_s", fleet.drain_s, NEVER), ("fail_s", fleet.fail_s, NEVER))


# Sessions ------------------------------------------------------------------------------------------------------


@law
@given(any_case(always=SESSIONS))
def test_a_turn_comes_when_its_user_has_thought_about_the_answer_before(case):
    run, requests = play(case), case.requests
    arrival, done = arrival_ps(run), times_ps(run)[2]
    given_ps, think = in_ps(requests.arrival_s), in_ps(requests.think_s)
    before: dict[int, int] = {}
    for i, session in enumerate(requests.session.tolist()):
        j = before.get(session, -1) if session >= 0 else -1
        before[session] = i
        if j < 0 or think[i] < 0:
            assert arrival[i] == given_ps[i]
        elif done[j] >= 0:
            assert arrival[i] == done[j] + think[i]
        elif case.fleet.changes:
            assert arrival[i] >= arrival[j] + think[i]  # lost, or refused once it left the router
        else:
            assert arrival[i] == arrival[j] + think[i]  # refused at once


@law
@given(a_case((PREFIX,), always=SESSIONS | FLEET))
def test_a_session_stays_where_it_began(case):
    run = play(replace(case, fleet=Fleet(replicas=3, routing=Routing.SESSION_STICKY)))
    for session in np.unique(case.requests.session[case.requests.session >= 0]):
        assert np.unique(run.replica[case.requests.session == session]).size == 1


# Prefix caching ------------------------------------------------------------------------------------------------


@law
@given(alone(()), st.sampled_from((1, 2, 5)))
def test_a_cache_of_what_nobody_asks_for_again_changes_nothing(case, blocks_per_unit):
    """Where nothing is evicted: who comes back from an eviction may find what it had computed."""
    off = play(case)
    assume(not off.timings.preemptions.any())
    unit = blocks_per_unit * case.limits.block_tokens
    offsets = np.concatenate([[0], np.cumsum(-(-case.requests.prompt_tokens // unit))])
    named = replace(case.requests, block_offsets=offsets, block_ids=np.arange(offsets[-1]), block_tokens=unit)
    on = play(replace(case, requests=named, limits=replace(case.limits, prefix_caching=True)))
    assert not on.hit_tokens.any()
    assert not different(on, off, but=(*CUT, "hit_tokens"))


@law
@given(a_case((SESSIONS, ASYNC, FLEET), always=PREFIX))
def test_hits_are_whole_units_that_somebody_else_named(case):
    run, requests = play(case), case.requests
    unit, hits = requests.block_tokens, run.hit_tokens
    assert not (hits % unit).any()
    chains = [requests.block_ids[a:b].tolist() for a, b in zip(requests.block_offsets, requests.block_offsets[1:])]  # noqa: B905
    for i in np.flatnonzero(hits):
        assert hits[i] < requests.prompt_tokens[i]
        shared = chains[i][: hits[i] // unit]
        assert any(chain[: len(shared)] == shared for j, chain in enumerate(chains) if j != i)
    assert play(replace(case, limits=replace(case.limits, prefix_caching=False))).hit_tokens is None


@law
@given(feature_cases(PREFIX, clients=(0,)))
def test_one_after_another_with_plenty_of_memory_finds_every_unit_named_before(case):
    """The hit rate is the trace's own, and what is found is not computed: the times follow."""
    case = roomy(case)
    n = len(case.requests)
    requests = at_ps(case.requests, np.arange(n) * 10**13)
    run = play(replace(case, requests=requests))
    kept, seen = run.timings.finished, set()
    done = times_ps(run)[2]
    for i in range(n):
        prompt, output, unit = int(requests.prompt_tokens[i]), int(requests.output_tokens[i]), requests.block_tokens
        chain = requests.block_ids[requests.block_offsets[i] : requests.block_offsets[i + 1]].tolist()[: prompt // unit]
        known = next((k for k, name in enumerate(chain) if name not in seen), len(chain))
        if kept[i]:
            hit = min(known, (prompt - 1) // unit) * unit
            assert run.hit_tokens[i] == hit
            assert done[i] - i * 10**13 == alone_ps(case, prompt, output, hit)[1]
            seen.update(chain)


def test_a_prefix_cache_saves_what_it_finds():
    """The same requests on and off: as much less prefill as was found, and nobody later where all share a prompt."""
    n, prompt = 50, 96
    offsets = np.arange(n + 1) * (prompt // 16)
    requests = Requests(
        arrival_s=np.arange(n) * 1e-3,
        prompt_tokens=np.full(n, prompt),
        output_tokens=np.full(n, 5),
        block_offsets=offsets,
        block_ids=np.arange(offsets[-1]) % (prompt // 16),
        block_tokens=16,
    )
    limits = EngineLimits(max_num_batched_tokens=32, max_num_seqs=8, block_tokens=16, kv_blocks=100)
    for policy in Policy:
        on, off = (
            simulate(
                requests,
                constant_table(S, 32, 8),
                replace(limits, policy=policy, prefix_caching=caching),
                sample_s=1.0,
            )
            for caching in (True, False)
        )
        computed = [int(run.samples[0, -1, layout.S_PREFILL_TOKENS]) for run in (on, off)]
        assert computed == [n * prompt - on.hit_tokens.sum(), n * prompt]
        assert on.hit_tokens.sum() >= (n - 8) * 80
        assert (on.timings.done_s <= off.timings.done_s).all()


# Closed forms: one request, one seat ---------------------------------------------------------------------------


def chunks(limits: EngineLimits, prompt: int) -> list[int]:
    """The sizes in which an engine computes a prompt that has it for itself."""
    budget, page = limits.max_num_batched_tokens, limits.block_tokens
    sizes: list[int] = []
    while (done := sum(sizes)) < prompt:
        size = min(prompt - done, budget)
        if limits.policy is Policy.SGLANG:
            # Whole if its pages fit; else, and for every further chunk but the last, up to a page's end.
            if size < prompt - done or (not done and -(-size // page) * page > budget):
                size = min((done + budget) // page * page - done, prompt - done)
        elif size < prompt - done:
            size -= size % limits.chunk_unit_tokens
        sizes.append(size)
    return sizes


def alone_ps(case: Case, prompt: int, output: int, hit: int = 0) -> tuple[int, int]:
    """(first token, done) of a request that has the engine for itself and finds `hit` tokens of its prompt: the sum of
    its steps."""
    table, now, computed = case.table, 0, hit
    for chunk in chunks(case.limits, prompt - hit):
        now += table.step_ps(
            prefill_tokens=chunk,
            decodes=0,
            sampling=int(computed + chunk == prompt),
            context_sum=0,
            pair_sum=chunk * (2 * computed + chunk + 1),
            scheduled=1,
        )
        computed += chunk
    first = now
    for length in range(prompt + 1, prompt + output):
        now += table.step_ps(
            prefill_tokens=0,
            decodes=1,
            sampling=1,
            context_sum=length,
            pair_sum=0,
            window_sum=min(length, table.window_tokens),
        )
    return first, now


def single(case: Case, arrival: int, prompt: int, output: int) -> Case:
    requests = Requests(
        arrival_s=np.array([arrival / PS_PER_S]), prompt_tokens=np.array([prompt]), output_tokens=np.array([output])
    )
    return roomy(replace(case, requests=requests, clients=0))


@law
@given(alone((ASYNC,)), st.integers(1, 400), st.integers(1, 60))
def test_a_request_alone_takes_the_sum_of_its_steps(case, prompt, output):
    case = single(case, 10**11, prompt, output)
    assume(not never_fit(case.requests, case.limits)[0])
    first, done = alone_ps(case, prompt, output)
    run = play(case)
    assert in_ps(run.timings.ttft_s)[0] == first
    assert in_ps(run.timings.e2e_s)[0] == done
    assert run.steps == len(chunks(case.limits, prompt)) + output - 1


@law
@given(alone((ASYNC,)), st.integers(1, 400), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_a_request_alone_is_never_later_on_a_faster_engine(case, prompt, output, seed):
    rng = np.random.default_rng(seed)
    columns = ("token_ps", "prefill_ps", "decode_ps", "sequence_ps", "floor_ps")
    faster = {name: (rng.random() * getattr(case.table, name)).astype(np.int64) for name in columns}
    faster["token_ps"] += 1  # still no more than it was
    slopes = ("context_ps", "pair_fp")
    faster |= {name: int(rng.integers(0, getattr(case.table, name) + 1)) for name in slopes}
    case = single(case, 0, prompt, output)
    one, other = times_ps(play(case)), times_ps(play(replace(case, table=replace(case.table, **faster))))
    assert (other <= one).all()


@law
@given(alone((), clients=(0,)))
def test_one_seat_serves_one_after_another(case):
    """Lindley's recursion: a request starts when it comes or the one before is done, and takes what it takes alone."""
    case = roomy(replace(case, limits=replace(case.limits, max_num_seqs=1)))
    run, requests = play(case), case.requests
    start, first, done = times_ps(run)
    free = 0
    for i in np.flatnonzero(run.timings.finished):
        to_first, service = alone_ps(case, int(requests.prompt_tokens[i]), int(requests.output_tokens[i]))
        begin = max(free, int(in_ps(requests.arrival_s)[i]))
        free = begin + service
        assert (start[i], first[i], done[i]) == (begin, begin + to_first, free)


@law
@given(st.integers(1, 2000), st.integers(1, 300), st.sampled_from(Policy))
def test_attention_work_of_a_prompt_does_not_depend_on_the_chunks(prompt, budget, policy):
    """sum of q (2 s + q + 1) over any chunks of P tokens is P (P + 1)."""
    table = replace(constant_table(1, budget, 1), pair_fp=1 << FRACTION_BITS)
    limits = EngineLimits(
        max_num_batched_tokens=budget, max_num_seqs=1, block_tokens=1, kv_blocks=PLENTY_OF_BLOCKS, policy=policy
    )
    one = np.ones(1, np.int64)
    run = simulate(Requests(arrival_s=np.zeros(1), prompt_tokens=prompt * one, output_tokens=one), table, limits)
    assert run.steps == -(-prompt // budget)
    assert in_ps(run.timings.done_s)[0] == run.steps + prompt * (prompt + 1)


MD1_LOADS = (0.3, 0.6, 0.9)
MD1_SEEDS = (1, 2)


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("steps_per_request", [1, 5])
def test_one_seat_with_constant_service_waits_as_m_d_1(policy, steps_per_request):
    """Pollaczek-Khinchine: Poisson arrivals at load r on one server that takes D wait r D / (2 (1 - r)) on average, and
    a share of 1 - r does not wait at all.

    Waits of neighbours go together, so the standard error is that of the means of 50 batches of 4,000 requests (at load
    0.9 waits forget each other after a few hundred). Each deviation over its error is about normal: none beyond 3, and
    their root mean square, which is 1 on average, below 1.6.
    """
    batches, each = 50, 4000
    n, service_s = batches * each, steps_per_request * S / PS_PER_S
    limits = EngineLimits(max_num_batched_tokens=1, max_num_seqs=1, block_tokens=1, kv_blocks=16, policy=policy)
    deviations = []
    for load in MD1_LOADS:
        for seed in MD1_SEEDS:
            rng = np.random.default_rng((seed, steps_per_request, int(policy)))
            requests = Requests(
                arrival_s=np.cumsum(rng.exponential(service_s / load, n)),
                prompt_tokens=np.ones(n, np.int64),
                output_tokens=np.full(n, steps_per_request),
            )
            waits = simulate(requests, constant_table(S, 1, 1), limits).queued_s.reshape(batches, each)
            for values, expected in (
                (waits, load * service_s / (2 * (1 - load))),
                (waits < 0.5 / PS_PER_S, 1 - load),
            ):
                means = values.mean(axis=1)
                error = means.std(ddof=1) / np.sqrt(batches)
                assert error < 0.05 * expected
                deviations.append((means.mean() - expected) / error)
    assert np.abs(deviations).max() < 3, deviations
    assert np.sqrt(np.mean(np.square(deviations))) < 1.6, deviations


# Closed forms: more load than fits -----------------------------------------------------------------------------


def burst(prompt: int, output: np.ndarray, table: StepTable, limits: EngineLimits) -> Run:
    n = output.size
    requests = Requests(arrival_s=np.zeros(n), prompt_tokens=np.full(n, prompt), output_tokens=output)
    return simulate(requests, table, limits)


@st.composite
def priced(draw, tokens: int, seqs: int) -> StepTable:
    """A table that is affine in every quantity, in whole picoseconds."""
    a, b, c, d, e, f, g = (draw(st.integers(0, 9 * 10**8)) for _ in range(7))
    rising = np.arange(max(tokens, seqs) + 1)
    return StepTable(
        token_ps=1 + a + b * rising[: tokens + 1],
        prefill_ps=c * rising[: tokens + 1],
        decode_ps=d * rising[: seqs + 1],
        sequence_ps=e * rising[: seqs + 1],
        context_ps=f,
        pair_fp=g << FRACTION_BITS,
    )


@law
@given(
    st.data(), st.sampled_from(Policy), st.booleans(), *(st.integers(1, k) for k in (12, 8, 5, 30)), st.integers(0, 9)
)
def test_decode_bound_overload_gives_every_seat_a_token_a_step(
    data, policy, ahead, seats, rounds, prompt, output, more
):
    """R rounds of S equal sequences: each a prefill of S P tokens and O - 1 decodes of S, whose contexts grow by one:
    S (O - 1) P + S O (O - 1) / 2 tokens of context in all. Saturation is S O tokens in that time."""
    budget = seats * prompt + more
    table = data.draw(priced(budget, seats))
    limits = EngineLimits(
        max_num_batched_tokens=budget, max_num_seqs=seats, block_tokens=1, kv_blocks=PLENTY_OF_BLOCKS, policy=policy,
        async_scheduling=ahead,
    )  # fmt: skip
    run = burst(prompt, np.full(seats * rounds, output), table, limits)
    first = table.token_ps[seats * prompt] + table.prefill_ps[seats * prompt] + table.sequence_ps[seats]
    first += (table.pair_fp >> FRACTION_BITS) * seats * prompt * (prompt + 1)
    decode = table.token_ps[seats] + table.decode_ps[seats] + table.sequence_ps[seats]
    contexts = seats * ((output - 1) * prompt + output * (output - 1) // 2)
    round_ps = int(first + (output - 1) * decode + table.context_ps * contexts)
    assert run.steps == rounds * output
    assert round(run.span_s * PS_PER_S) == rounds * round_ps
    tokens_per_s = len(run.timings) * output / run.span_s
    assert tokens_per_s == pytest.approx(seats * output / (round_ps / PS_PER_S), rel=1e-12)


@law
@given(st.data(), st.sampled_from(Policy), *(st.integers(1, k) for k in (60, 50, 80)))
def test_prefill_bound_overload_fills_every_step(data, policy, prompt, budget, n):
    """N prompts of P tokens and one answer each: ceil(N P / B) steps, all but the last of B tokens; saturation is B
    tokens in the time of such a step."""
    seats = budget  # as many prompts as tokens may begin or end in a step
    table = replace(data.draw(priced(budget, seats)), pair_fp=0)
    limits = EngineLimits(
        max_num_batched_tokens=budget, max_num_seqs=seats, block_tokens=1, kv_blocks=PLENTY_OF_BLOCKS, policy=policy
    )
    run = burst(prompt, np.ones(n, np.int64), table, limits)
    full, left = divmod(n * prompt, budget)
    expected = full * int(table.token_ps[budget] + table.prefill_ps[budget])
    expected += int(table.token_ps[left] + table.prefill_ps[left]) if left else 0
    expected += int(table.sequence_ps[1]) * n  # each samples once, whichever step it ends in
    assert run.steps == full + (left > 0)
    assert round(run.span_s * PS_PER_S) == expected
    assert busy_ps(run) == round(run.prefill_s * PS_PER_S) == expected


@law
@given(*(st.integers(1, k) for k in (6, 5, 4, 20)), st.sampled_from((1, 3, 16)), st.integers(0, 15))
def test_memory_bound_overload_runs_as_many_as_can_be_reserved(together, rounds, prompt, output, page, spare):
    """GUARANTEED_NO_EVICT: floor(K / pages(P + O)) sequences at a time, whatever the seats."""
    held = -(-(prompt + output) // page)
    limits = EngineLimits(
        max_num_batched_tokens=200, max_num_seqs=50, block_tokens=page, kv_blocks=together * held + spare % held,
        policy=Policy.TRTLLM_NO_EVICT,
    )  # fmt: skip
    run = burst(prompt, np.full(together * rounds, output), constant_table(S, 200, 50), limits)
    assert run.steps == rounds * output
    assert round(run.span_s * PS_PER_S) == rounds * output * S
    assert run.mean_running == pytest.approx(together, rel=1e-12)


@law
@given(st.integers(1, 12), st.lists(st.integers(1, 40), min_size=1, max_size=120), st.sampled_from(STEADY))
def test_seats_stay_full_as_long_as_anybody_waits(seats, output, rules):
    """Until the last request gets its seat every step gives a token to every seat, whatever the lengths."""
    limits = EngineLimits(
        max_num_batched_tokens=seats, max_num_seqs=seats, block_tokens=1, kv_blocks=PLENTY_OF_BLOCKS, **rules
    )
    run = burst(1, np.array(output), constant_table(S, seats, seats), limits)
    start = times_ps(run)[0]
    last = start.max()
    given_out = np.clip((last - start) // S, 0, run.timings.output_tokens).sum()
    assert given_out == last // S * seats


@pytest.mark.parametrize("load", [1.1, 1.5, 3.0])
@pytest.mark.parametrize("rules", STEADY)
def test_poisson_overload_is_served_at_the_saturation_rate(rules, load):
    """S seats, O tokens each, steps of a constant time: S / (O t) requests a second from when the seats are full."""
    n, seats, output = 100_000, 16, 40
    saturation = seats / (output * S / PS_PER_S)
    rng = np.random.default_rng(5)
    requests = Requests(
        arrival_s=np.cumsum(rng.exponential(1 / (load * saturation), n)),
        prompt_tokens=np.ones(n, np.int64),
        output_tokens=np.full(n, output),
    )
    limits = EngineLimits(
        max_num_batched_tokens=seats, max_num_seqs=seats, block_tokens=1, kv_blocks=PLENTY_OF_BLOCKS, **rules
    )
    run = simulate(requests, constant_table(S, seats, seats), limits)
    begin, end = requests.arrival_s[-1] / 2, requests.arrival_s[-1]
    served = int(((run.timings.done_s > begin) & (run.timings.done_s <= end)).sum())
    assert served == pytest.approx(saturation * (end - begin), abs=2 * seats)
    assert run.span_s == pytest.approx(n / saturation, rel=0.02)


# Closed loop ---------------------------------------------------------------------------------------------------


@law
@given(any_case(clients=(1, 3, 8)))
def test_a_closed_loop_never_has_more_inside_than_clients(case):
    assume(case.clients and not case.fleet.changes)
    run = play(case)
    kept = run.timings.finished
    arrival, done = arrival_ps(run)[kept], times_ps(run)[2][kept]
    assert most_at_once(arrival, done, np.ones_like(done)) == min(case.clients, kept.sum())  # answers before requests


@law
@given(any_case(clients=(1, 3, 8)))
def test_each_answer_of_a_closed_loop_sends_the_next_request(case):
    assume(case.clients and not case.fleet.changes)
    run = play(case)
    kept = run.timings.finished
    arrival, done = arrival_ps(run)[kept], np.sort(times_ps(run)[2][kept])
    np.testing.assert_array_equal(arrival[: case.clients], 0)
    np.testing.assert_array_equal(arrival[case.clients :], done[: max(0, done.size - case.clients)])


@law
@given(alone((PREFIX, ASYNC), clients=(4,)))
def test_more_clients_than_requests_is_a_burst(case):
    crowd = replace(case, clients=len(case.requests) + 3)
    assert not different(play(crowd), play(replace(case, clients=0)), but=CUT)


# Refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clients", [0, 1, 3])
def test_requests_that_never_fit_are_refused_and_the_run_ends(clients):
    limits = EngineLimits(max_num_batched_tokens=8, max_num_seqs=2, block_tokens=4, kv_blocks=5)
    requests = Requests(
        arrival_s=np.arange(6.0) if not clients else np.zeros(6),
        prompt_tokens=np.array([21, 1, 10, 20, 18, 10**9]),
        output_tokens=np.array([1, 1, 12, 1, 3, 10]),
    )
    run = simulate(requests, constant_table(S, 8, 2), limits, clients=clients)
    np.testing.assert_array_equal(run.timings.finished, [False, True, False, True, True, False])
    assert run.refused == 3


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("clients", [0, 2])
def test_a_run_of_refused_requests_alone_takes_no_step(policy, clients):
    limits = EngineLimits(max_num_batched_tokens=8, max_num_seqs=2, block_tokens=1, kv_blocks=3, policy=policy)
    many = np.full(5, 4)
    run = simulate(
        Requests(arrival_s=np.zeros(5), prompt_tokens=many, output_tokens=many),
        constant_table(S, 8, 2),
        limits,
        clients=clients,
    )
    assert (run.refused, run.steps, run.busy_share, run.mean_running) == (5, 0, 0.0, 0.0)
    assert run.timings.itl_counts.sum() == 0


@pytest.mark.parametrize("fleet", [Fleet(), Fleet(replicas=3, routing=Routing.LEAST_OUTSTANDING, fail_s=(1.0,) * 3)])
def test_no_requests_is_an_empty_run(fleet):
    none = np.empty(0, np.int64)
    run = simulate(
        Requests(arrival_s=none.astype(float), prompt_tokens=none, output_tokens=none),
        constant_table(S, 8, 2),
        EngineLimits(max_num_batched_tokens=8, max_num_seqs=2, block_tokens=1, kv_blocks=3),
        fleet=fleet,
    )
    assert (len(run.timings), run.steps, run.span_s, run.peak_kv_share) == (0, 0, 0.0, 0.0)


def test_the_cases_reach_what_the_laws_are_about():
    """Enough cases with evictions, hits, lost requests and follow-ups for the laws to say something."""
    seen = dict.fromkeys(("evicted", "hits", "failed", "refused"), 0)
    for seed in range(100):
        run = play(random_feature_case(seed, PREFIX | FLEET))
        seen["hits"] += bool(run.hit_tokens.any())
        seen["failed"] += run.failed > 0
        seen["refused"] += run.refused > 0
        seen["evicted"] += bool(play(random_feature_case(seed, SESSIONS)).timings.preemptions.any())
    assert min(seen.values()) >= 10, seen
