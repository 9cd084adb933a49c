"""Laws every simulated run obeys, whatever the step times are."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sim.cases import PLENTY_OF_BLOCKS, Case, cases, constant_table, in_ps, open_cases, roomy_cases, whole

from trilemma.latency.table import FRACTION_BITS, StepTable
from trilemma.sim.replica import EngineLimits, simulate
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests

law = settings(max_examples=150, deadline=None)
S = 10**9  # a constant step of 1 ms


def at_ps(requests: Requests, arrival_ps: np.ndarray) -> Requests:
    return replace(requests, arrival_s=arrival_ps / PS_PER_S)


def times_ps(run) -> np.ndarray:
    """(3, n) start, first token and done of every request, -1 where refused."""
    t = run.timings
    return np.stack([in_ps(x) for x in (run.queued_s + t.arrival_s, t.first_token_s, t.done_s)])


def same_bits(one, other) -> bool:
    names = ("arrival_s", "first_token_s", "done_s", "preemptions", "recomputed_tokens", "itl_counts")
    arrays = all(
        np.array_equal(getattr(one.timings, x), getattr(other.timings, x), equal_nan=x.endswith("_s")) for x in names
    )
    scalars = ("steps", "prefill_s", "decode_s", "span_s", "peak_kv_share", "mean_running", "refused")
    return arrays and all(getattr(one, x) == getattr(other, x) for x in scalars)


# Conservation and causality ------------------------------------------------------------------------------------


@law
@given(cases())
def test_every_request_is_finished_or_refused_when_the_run_ends(case):
    run = case.play()
    too_long = -(-(case.requests.prompt_tokens + case.requests.output_tokens - 1) // case.limits.block_tokens)
    refused = too_long > case.limits.kv_blocks
    np.testing.assert_array_equal(run.timings.finished, ~refused)
    assert run.refused == refused.sum()
    assert np.isnan(run.timings.first_token_s[refused]).all()
    assert np.isnan(run.queued_s[refused]).all()


@law
@given(cases())
def test_time_runs_forward(case):
    run = case.play()
    kept = run.timings.finished
    arrival = in_ps(run.timings.arrival_s)[kept]
    start, first, done = times_ps(run)[:, kept]
    assert (arrival <= start).all()
    assert (start < first).all()
    assert (first <= done).all()
    np.testing.assert_array_equal(first == done, case.requests.output_tokens[kept] == 1)
    assert done.max(initial=0) <= round(run.span_s * PS_PER_S)


@law
@given(cases())
def test_every_token_asked_for_comes_out_once(case):
    """A request's tokens are its first and one per gap, preempted or not."""
    run = case.play()
    finished = run.timings.finished
    assert finished.sum() + run.timings.itl_counts.sum() == case.requests.output_tokens[finished].sum()


@law
@given(cases())
def test_gaps_add_up_to_the_time_between_first_and_last_tokens(case):
    t = case.play().timings
    low, high = (t.itl_counts * edges for edges in (t.itl_edges_s[:-1], t.itl_edges_s[1:]))
    decoding_s = (t.done_s - t.first_token_s)[t.finished].sum()
    assert low.sum() * (1 - 1e-9) <= decoding_s <= high.sum() * (1 + 1e-9)


@law
@given(cases())
def test_every_token_is_computed_once_and_again_after_an_eviction(case):
    """With steps that take a picosecond per token, busy time counts the tokens computed."""
    tokens = case.limits.max_num_batched_tokens
    counting = StepTable(
        token_ps=np.arange(tokens + 1),
        prefill_ps=np.zeros(tokens + 1, np.int64),
        decode_ps=np.zeros(case.limits.max_num_seqs + 1, np.int64),
        sequence_ps=np.zeros(case.limits.max_num_seqs + 1, np.int64),
        context_fp=0,
        pair_fp=0,
    )
    run = replace(case, table=counting).play()
    t = run.timings
    once = (t.prompt_tokens + t.output_tokens - 1)[t.finished].sum()
    assert round((run.prefill_s + run.decode_s) * PS_PER_S) == once + t.recomputed_tokens.sum()


@law
@given(cases())
def test_recomputed_tokens_come_from_evictions_alone(case):
    t = case.play().timings
    np.testing.assert_array_equal(t.recomputed_tokens > 0, t.preemptions > 0)
    assert (t.recomputed_tokens <= t.preemptions * (t.prompt_tokens + t.output_tokens)).all()


@law
@given(cases())
def test_kv_never_exceeds_capacity_and_holds_the_longest_request(case):
    run = case.play()
    assert 0 <= run.peak_kv_share <= 1
    t = run.timings
    held = -(-(t.prompt_tokens + t.output_tokens - 1)[t.finished] // case.limits.block_tokens)
    assert run.peak_kv_share * case.limits.kv_blocks >= held.max(initial=0) - 1e-9


@law
@given(roomy_cases())
def test_nothing_is_evicted_where_memory_is_plenty(case):
    run = case.play()
    assert not run.timings.preemptions.any()
    assert run.refused == 0


# Little's law and work -----------------------------------------------------------------------------------------


def integral_in_system(arrival: np.ndarray, done: np.ndarray) -> tuple[int, int]:
    """(integral of the number in system over time, time with at least one), by walking through the events."""
    events = sorted([(int(a), 1) for a in arrival] + [(int(d), -1) for d in done])
    integral = occupied = inside = before = 0
    for at, change in events:
        integral += inside * (at - before)
        occupied += (inside > 0) * (at - before)
        inside, before = inside + change, at
    assert inside == 0
    return integral, occupied


@law
@given(cases())
def test_littles_law_is_exact(case):
    """Time-average number in system x span = rate x mean time in system x span: the integral of one is the sum of
    the other, to the picosecond."""
    run = case.play()
    kept = run.timings.finished
    arrival, done = in_ps(run.timings.arrival_s)[kept], in_ps(run.timings.done_s)[kept]
    integral, _ = integral_in_system(arrival, done)
    assert integral == int((done - arrival).sum())


@law
@given(cases())
def test_the_engine_is_busy_exactly_while_somebody_is_inside(case):
    run = case.play()
    kept = run.timings.finished
    _, occupied = integral_in_system(in_ps(run.timings.arrival_s)[kept], in_ps(run.timings.done_s)[kept])
    assert round((run.prefill_s + run.decode_s) * PS_PER_S) == occupied
    assert 0 <= run.busy_share <= 1


@law
@given(roomy_cases())
def test_littles_law_holds_for_the_running_sequences(case):
    """Without evictions a sequence runs from its start to its end; the sum is kept in whole microseconds a step."""
    run = case.play()
    start, _, done = times_ps(run)
    busy_us = (run.prefill_s + run.decode_s) * 1e6
    lost_us = run.steps * case.limits.max_num_seqs
    assert run.mean_running * busy_us <= (done - start).sum() / 1e6 * (1 + 1e-9)
    assert run.mean_running * busy_us >= (done - start).sum() / 1e6 - lost_us


@law
@given(open_cases())
def test_requests_are_first_scheduled_in_the_order_they_came(case):
    start = times_ps(case.play())[0]
    assert (np.diff(start[start >= 0]) >= 0).all()


# Invariance ----------------------------------------------------------------------------------------------------


@law
@given(open_cases(), st.integers(2, 9))
def test_scaling_arrivals_and_costs_scales_every_time(case, q):
    table = whole(case.table)
    slower = StepTable(
        token_ps=q * table.token_ps,
        prefill_ps=q * table.prefill_ps,
        decode_ps=q * table.decode_ps,
        sequence_ps=q * table.sequence_ps,
        context_fp=q * table.context_fp,
        pair_fp=q * table.pair_fp,
    )
    arrival = in_ps(case.requests.arrival_s)
    one = times_ps(replace(case, table=table).play())
    many = times_ps(replace(case, table=slower, requests=at_ps(case.requests, q * arrival)).play())
    np.testing.assert_array_equal(many, np.where(one < 0, -1, q * one))


@law
@given(open_cases(), st.integers(1, 10**12))
def test_shifting_arrivals_shifts_every_time(case, later_ps):
    one = times_ps(case.play())
    moved = at_ps(case.requests, in_ps(case.requests.arrival_s) + later_ps)
    np.testing.assert_array_equal(times_ps(replace(case, requests=moved).play()), np.where(one < 0, -1, one + later_ps))


@law
@given(cases())
def test_same_input_same_bits(case):
    arrival = case.requests.arrival_s.copy()
    assert same_bits(case.play(), case.play())
    np.testing.assert_array_equal(case.requests.arrival_s, arrival)


@law
@given(open_cases())
def test_refused_requests_change_nothing_for_the_others(case):
    run = case.play()
    kept = run.timings.finished
    alone = replace(case, requests=case.requests.take(kept)).play()
    np.testing.assert_array_equal(times_ps(run)[:, kept], times_ps(alone))
    assert run.steps == alone.steps


@law
@given(cases(clients=(0, 6)), st.integers(1, 6))
def test_round_robin_replicas_are_single_replicas_on_every_nth_request(case, replicas):
    together = case.play(replicas)
    singles = []
    for k in range(replicas):
        own = case.requests.take(slice(k, None, replicas))
        clients = len(range(k, case.clients, replicas))
        singles.append(simulate(own, case.table, case.limits, clients=clients))
        np.testing.assert_array_equal(times_ps(together)[:, k::replicas], times_ps(singles[-1]))
        np.testing.assert_array_equal(together.timings.arrival_s[k::replicas], singles[-1].timings.arrival_s)
    assert together.steps == sum(x.steps for x in singles)
    assert together.refused == sum(x.refused for x in singles)
    assert together.span_s == max(x.span_s for x in singles)
    assert together.peak_kv_share == max(x.peak_kv_share for x in singles)
    assert together.prefill_s == pytest.approx(sum(x.prefill_s for x in singles), rel=1e-12)
    np.testing.assert_array_equal(together.timings.itl_counts, sum(x.timings.itl_counts for x in singles))


# Closed forms --------------------------------------------------------------------------------------------------


@law
@given(roomy_cases(), st.integers(1, 400), st.integers(1, 60))
def test_a_request_alone_takes_the_sum_of_its_steps(case, prompt, output):
    requests = Requests(arrival_s=np.array([0.25]), prompt_tokens=np.array([prompt]), output_tokens=np.array([output]))
    run = replace(case, requests=requests).play()
    expected, computed = 0, 0
    while computed < prompt:
        chunk = min(prompt - computed, case.limits.max_num_batched_tokens)
        expected += case.table.step_ps(
            prefill_tokens=chunk,
            decodes=0,
            sampling=int(computed + chunk == prompt),
            context_sum=0,
            pair_sum=chunk * (2 * computed + chunk + 1),
        )
        computed += chunk
    assert in_ps(run.timings.ttft_s)[0] == expected
    for context in range(prompt, prompt + output - 1):
        expected += case.table.step_ps(prefill_tokens=0, decodes=1, sampling=1, context_sum=context + 1, pair_sum=0)
    assert in_ps(run.timings.e2e_s)[0] == expected


@law
@given(st.integers(1, 2000), st.integers(1, 300))
def test_attention_work_of_a_prompt_does_not_depend_on_the_chunks(prompt, budget):
    """sum of q (2 s + q + 1) over any chunks of P tokens is P (P + 1)."""
    table = replace(constant_table(1, budget, 1), pair_fp=1 << FRACTION_BITS)
    limits = EngineLimits(max_num_batched_tokens=budget, max_num_seqs=1, block_tokens=16, kv_blocks=PLENTY_OF_BLOCKS)
    one = np.ones(1, np.int64)
    run = simulate(Requests(arrival_s=np.zeros(1), prompt_tokens=prompt * one, output_tokens=one), table, limits)
    assert run.steps == -(-prompt // budget)
    assert in_ps(run.timings.done_s)[0] == run.steps + prompt * (prompt + 1)


def burst(output: np.ndarray, seats: int, *, spare_tokens: int) -> Case:
    """One-token prompts, all there at the start, with memory for everyone and steps that never change."""
    n = output.size
    limits = EngineLimits(
        max_num_batched_tokens=seats + spare_tokens, max_num_seqs=seats, block_tokens=16, kv_blocks=PLENTY_OF_BLOCKS
    )
    requests = Requests(arrival_s=np.zeros(n), prompt_tokens=np.ones(n, np.int64), output_tokens=output)
    return Case(requests, constant_table(S, seats + spare_tokens, seats), limits)


@law
@given(st.integers(1, 12), st.integers(1, 8), st.integers(1, 30), st.integers(0, 3))
def test_overload_gives_as_many_tokens_a_step_as_there_are_seats(seats, rounds, output, spare_tokens):
    run = burst(np.full(seats * rounds, output), seats, spare_tokens=spare_tokens).play()
    tokens = seats * rounds * output
    assert run.steps == rounds * output
    assert round(run.span_s * PS_PER_S) == rounds * output * S
    assert tokens / run.span_s == pytest.approx(seats / (S / PS_PER_S), rel=1e-12)
    assert run.mean_running == pytest.approx(seats, rel=1e-12)


@law
@given(st.integers(1, 12), st.lists(st.integers(1, 40), min_size=1, max_size=120))
def test_seats_stay_full_as_long_as_anybody_waits(seats, output):
    """Until the last request gets its seat every step gives a token to every seat, whatever the lengths."""
    case = burst(np.array(output), seats, spare_tokens=0)
    start, _, _ = times_ps(case.play())
    last = start.max()
    given_out = np.clip((last - start) // S, 0, case.requests.output_tokens).sum()
    assert given_out == last // S * seats


@pytest.mark.parametrize(("load", "steps_per_request"), [(0.3, 1), (0.7, 1), (0.7, 5), (0.9, 1)])
def test_one_seat_with_constant_service_waits_as_m_d_1(load, steps_per_request):
    """Pollaczek-Khinchine: Poisson arrivals at load r on one server that takes D wait r D / (2 (1 - r)) on average."""
    n, batches = 400_000, 100
    service_s = steps_per_request * S / PS_PER_S
    rng = np.random.default_rng(2024)
    requests = Requests(
        arrival_s=np.cumsum(rng.exponential(service_s / load, n)),
        prompt_tokens=np.ones(n, np.int64),
        output_tokens=np.full(n, steps_per_request),
    )
    limits = EngineLimits(max_num_batched_tokens=1, max_num_seqs=1, block_tokens=16, kv_blocks=4)
    waits = simulate(requests, constant_table(S, 1, 1), limits).queued_s.reshape(batches, -1)
    expected = load * service_s / (2 * (1 - load))
    error = waits.mean(axis=1).std(ddof=1) / np.sqrt(batches)
    assert error < 0.03 * expected
    assert abs(waits.mean() - expected) < 3 * error
    at_once = (waits < 1e-12).mean(axis=1)
    assert abs(at_once.mean() - (1 - load)) < 3 * at_once.std(ddof=1) / np.sqrt(batches)


# Closed loop ---------------------------------------------------------------------------------------------------


@law
@given(cases(clients=(1, 3, 8)))
def test_a_closed_loop_never_has_more_in_flight_than_clients(case):
    run = case.play()
    kept = run.timings.finished
    arrival, done = in_ps(run.timings.arrival_s)[kept], in_ps(run.timings.done_s)[kept]
    events = sorted([(int(d), -1) for d in done] + [(int(a), 1) for a in arrival])  # an answer goes before a request
    inside = np.cumsum([change for _, change in events])
    assert inside.max(initial=0) == min(case.clients, kept.sum())


@law
@given(cases(clients=(1, 3, 8)))
def test_each_answer_of_a_closed_loop_sends_the_next_request(case):
    run = case.play()
    kept = run.timings.finished
    arrival, done = in_ps(run.timings.arrival_s)[kept], np.sort(in_ps(run.timings.done_s)[kept])
    np.testing.assert_array_equal(arrival[: case.clients], 0)
    np.testing.assert_array_equal(arrival[case.clients :], done[: max(0, done.size - case.clients)])


@law
@given(cases(clients=(4,)))
def test_more_clients_than_requests_is_a_burst(case):
    crowd = replace(case, clients=len(case.requests) + 3).play()
    np.testing.assert_array_equal(times_ps(crowd), times_ps(replace(case, clients=0).play()))


# Refusals and bad limits ---------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("clients", [0, 2])
def test_a_run_of_refused_requests_alone_takes_no_step(clients):
    limits = EngineLimits(max_num_batched_tokens=8, max_num_seqs=2, block_tokens=1, kv_blocks=3)
    many = np.full(5, 4)
    run = simulate(
        Requests(arrival_s=np.zeros(5), prompt_tokens=many, output_tokens=many),
        constant_table(S, 8, 2),
        limits,
        clients=clients,
    )
    assert (run.refused, run.steps, run.busy_share, run.mean_running) == (5, 0, 0.0, 0.0)
    assert run.timings.itl_counts.sum() == 0


def test_no_requests_is_an_empty_run():
    none = np.empty(0, np.int64)
    run = simulate(
        Requests(arrival_s=none.astype(float), prompt_tokens=none, output_tokens=none),
        constant_table(S, 8, 2),
        EngineLimits(max_num_batched_tokens=8, max_num_seqs=2, block_tokens=1, kv_blocks=3),
    )
    assert (len(run.timings), run.steps, run.span_s, run.peak_kv_share) == (0, 0, 0.0, 0.0)
