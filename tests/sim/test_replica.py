"""The simulator's door, what a run reports, and runs that were worked out by hand: steps of a millisecond."""

from dataclasses import replace

import numpy as np
import pytest

from tests.sim.cases import constant_table, random_case
from trilemma.errors import UnsupportedError
from trilemma.sim import layout
from trilemma.sim.engine import Policy
from trilemma.sim.fleet import Fleet, Routing
from trilemma.sim.replica import LATEST_ARRIVAL_S, LONGEST_REQUEST, EngineLimits, Run, WaitReason, simulate
from trilemma.sim.speculation import Speculation
from trilemma.workload.requests import Requests

GOOD = {"max_num_batched_tokens": 8, "max_num_seqs": 4, "block_tokens": 16, "kv_blocks": 10}
LIMITS = EngineLimits(**GOOD)
TABLE = constant_table(10**9, 8, 4)
NEVER = float("inf")


def requests(n=4, first_s=0.0, **columns):
    ones = np.ones(n, np.int64)
    known = {"arrival_s": first_s + np.arange(n, dtype=float), "prompt_tokens": ones, "output_tokens": ones}
    return Requests(**known | columns)


# The door: limits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        {"max_num_seqs": 0},
        {"max_num_seqs": -1},
        {"block_tokens": 0},
        {"kv_blocks": 0},
        {"kv_blocks": -5},
        {"chunk_unit_tokens": 0},
        {"max_num_batched_tokens": 3},
        {"max_num_batched_tokens": 0},
    ],
)
@pytest.mark.parametrize("policy", Policy)
def test_limits_without_room_are_refused(policy, bad):
    with pytest.raises(ValueError, match="at least"):
        EngineLimits(**GOOD | bad, policy=policy)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"long_prefill_token_threshold": -1}, "negative"),
        ({"max_new_tokens": -1}, "negative"),
        ({"policy": Policy.SGLANG, "block_tokens": 1, "conservativeness": 0.0}, "positive"),
        ({"policy": Policy.SGLANG, "block_tokens": 1, "conservativeness": float("nan")}, "positive"),
        ({"policy": Policy.SGLANG}, "one KV page"),  # of 16 tokens, in steps of 8
        ({"policy": Policy.TRTLLM_NO_EVICT, "chunk_unit_tokens": 9}, "one chunk unit"),
        ({"policy": Policy.TRTLLM_NO_EVICT, "reserve_full_isl": False}, "vLLM's"),
        ({"policy": Policy.SGLANG, "block_tokens": 1, "long_prefill_token_threshold": 4}, "vLLM's"),
        ({"mixed_chunk": True}, "SGLang's"),
        ({"policy": Policy.TRTLLM_MAX_UTILIZATION, "ignore_eos": True}, "SGLang's"),
    ],
)
def test_limits_that_no_engine_has_are_refused(bad, says):
    with pytest.raises(ValueError, match=says):
        EngineLimits(**GOOD | bad)


@pytest.mark.parametrize("policy", Policy)
def test_one_of_everything_is_enough(policy):
    tiny = EngineLimits(max_num_batched_tokens=1, max_num_seqs=1, block_tokens=1, kv_blocks=4, policy=policy)
    assert simulate(requests(), TABLE, tiny).timings.finished.all()


# The door: step times --------------------------------------------------------------------------------------------


def test_step_times_of_nothing_are_refused():
    with pytest.raises(ValueError, match="positive time"):
        constant_table(0, 8, 4)
    with pytest.raises(ValueError, match="positive time"):
        replace(TABLE, token_ps=np.array([0, 5, 5, 0, 5, 5, 5, 5, 5]))
    assert simulate(requests(), replace(TABLE, token_ps=np.array([0, *[1] * 8])), LIMITS).span_s > 0


@pytest.mark.parametrize("column", ["prefill_ps", "decode_ps", "sequence_ps", "floor_ps"])
def test_negative_step_times_are_refused(column):
    with pytest.raises(ValueError, match="cannot be negative"):
        replace(TABLE, **{column: getattr(TABLE, column) - 1})


@pytest.mark.parametrize("slope", ["context_ps", "window_ps", "pair_fp", "window_tokens"])
def test_negative_slopes_are_refused(slope):
    with pytest.raises(ValueError, match="cannot be negative"):
        replace(TABLE, **{slope: -1})


@pytest.mark.parametrize(("tokens", "seqs"), [(7, 4), (8, 3)])
def test_a_table_smaller_than_the_limits_is_refused(tokens, seqs):
    with pytest.raises(ValueError, match="cannot price"):
        simulate(requests(), constant_table(1, tokens, seqs), LIMITS)


# The door: requests ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"arrival_s": np.array([0.0, np.nan, 2.0, 3.0])}, "finite and in order"),
        ({"arrival_s": np.array([0.0, 1.0, 2.0, np.inf])}, "finite and in order"),
        ({"arrival_s": np.array([0.0, 2.0, 1.0, 3.0])}, "finite and in order"),
        ({"prompt_tokens": np.array([1, 0, 1, 1])}, "at least one prompt"),
        ({"output_tokens": np.array([1, 1, -1, 1])}, "at least one prompt"),
        ({"think_s": np.ones(4)}, "needs sessions"),
        ({"think_s": -np.ones(4), "session": np.zeros(4, np.int64)}, "think times"),
    ],
)
def test_requests_that_cannot_be_are_refused(bad, says):
    with pytest.raises(ValueError, match=says):
        requests(**bad)


def test_arrivals_outside_the_clock_are_refused():
    with pytest.raises(ValueError, match="count from 0"):
        simulate(requests(first_s=-0.5), TABLE, LIMITS)
    with pytest.raises(UnsupportedError, match="cut a window"):
        simulate(requests(first_s=1.7e9), TABLE, LIMITS)
    late = simulate(requests(first_s=LATEST_ARRIVAL_S - 3), TABLE, LIMITS)
    np.testing.assert_allclose(late.timings.e2e_s, 1e-3, rtol=1e-5)


@pytest.mark.parametrize("output", [1, LONGEST_REQUEST // 2, LONGEST_REQUEST - 1])
def test_sequences_too_long_to_count_are_refused(output):
    long = requests(1, prompt_tokens=np.array([LONGEST_REQUEST - output]), output_tokens=np.array([output]))
    with pytest.raises(UnsupportedError, match="2,147,483,648"):
        simulate(long, TABLE, LIMITS)


def test_the_longest_sequence_that_can_be_counted_is_refused_by_the_engine():
    long = requests(1, prompt_tokens=np.array([LONGEST_REQUEST - 2]))
    assert simulate(long, TABLE, LIMITS).refused == 1


def test_prefix_caching_without_fitting_blocks_is_refused():
    caching = replace(LIMITS, prefix_caching=True)
    with pytest.raises(UnsupportedError, match="name their prefix blocks"):
        simulate(requests(), TABLE, caching)
    named = requests(block_offsets=np.arange(5), block_ids=np.arange(4), block_tokens=24)
    with pytest.raises(UnsupportedError, match="no multiple"):
        simulate(named, TABLE, caching)


# The door: fleets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [0, -1])
def test_no_replicas_are_refused(replicas):
    with pytest.raises(ValueError, match="at least one replica"):
        simulate(requests(), TABLE, LIMITS, replicas=replicas)


@pytest.mark.parametrize("name", ["ready_s", "drain_s", "fail_s"])
def test_times_that_do_not_fit_the_fleet_are_refused(name):
    with pytest.raises(ValueError, match="needs 2 times"):
        Fleet(replicas=2, **{name: (1.0,)})
    for time in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="counts from 0"):
            Fleet(replicas=2, **{name: (1.0, time)})


@pytest.mark.parametrize("clients", [1, 2, -1])
def test_fewer_clients_than_replicas_are_refused(clients):
    with pytest.raises(ValueError, match="cannot keep 3 replicas busy"):
        simulate(requests(), TABLE, LIMITS, replicas=3, clients=clients)


@pytest.mark.parametrize(
    "stepwise",
    [
        {"ranks": 2},
        {"speculation": Speculation(draft_tokens=1, acceptance=(0.5, 0.5))},
        {"limits": replace(LIMITS, long_prefill_token_threshold=4)},
        {"requests": requests(priority=np.arange(4))},
    ],
)
def test_what_is_played_step_by_step_cannot_be_behind_a_router_that_looks(stepwise):
    known = {"requests": requests(), "table": TABLE, "limits": LIMITS} | stepwise
    assert simulate(**known, fleet=Fleet(replicas=2)).timings.finished.all()
    for fleet in (Fleet(replicas=2, routing=Routing.LEAST_OUTSTANDING), Fleet(replicas=2, fail_s=(1.0, NEVER))):
        with pytest.raises(UnsupportedError, match="in turn"):
            simulate(**known, fleet=fleet)


# What a run reports ----------------------------------------------------------------------------------------------


def test_more_replicas_than_requests_leave_some_idle():
    run = simulate(requests(2), TABLE, LIMITS, replicas=5)
    assert run.timings.finished.all()
    assert run.replicas == 5
    assert run.busy_share == pytest.approx(0.002 / (1.001 * 5))


def test_histogram_bins_are_a_fifth_of_a_percent_wide_and_cover_the_clock():
    edges = simulate(requests(), TABLE, LIMITS).timings.itl_edges_s
    ratios = edges[512 * 2 :] / edges[512 * 2 - 1 : -1]
    assert ratios.min() > 1
    assert ratios.max() <= 1 + 1 / 512 + 1e-12
    assert edges[-1] >= 2**62 / 1e12


def test_busy_time_is_split_by_what_the_step_did():
    """One prompt of 8 tokens, then 3 decodes of another request while nothing else runs: constant steps."""
    two = Requests(arrival_s=np.array([0.0, 1.0]), prompt_tokens=np.array([8, 1]), output_tokens=np.array([1, 4]))
    run = simulate(two, TABLE, LIMITS)
    assert (run.prefill_s, run.decode_s) == (pytest.approx(0.002), pytest.approx(0.003))
    assert run.span_s == pytest.approx(1.004)
    assert run.mean_running == pytest.approx(1.0)


def test_a_run_reports_the_requests_it_was_given():
    case = random_case(3)
    timings = case.play().timings
    np.testing.assert_array_equal(timings.prompt_tokens, case.requests.prompt_tokens)
    np.testing.assert_array_equal(timings.output_tokens, case.requests.output_tokens)
    assert len(timings) == len(case.requests)


def test_samples_are_taken_at_the_first_step_end_at_or_after_each_multiple():
    """Steps end at 1, 2, 3 and 11 ms; what is seen at 5 is what was seen at 3 ms, when the engine fell idle."""
    run = play([0, 10], [4, 3], [3, 1], sample_s=2e-3, block_tokens=1)
    columns = [layout.S_TIME, layout.S_RUNNING, layout.S_BLOCKS, layout.S_PREFILL_TOKENS, layout.S_DECODE_TOKENS]
    rows = run.samples[0][:, columns].tolist()
    assert rows[0] == [2 * 10**9, 1, 5, 4, 1]
    assert rows[-1][:1] + rows[-1][3:] == [11 * 10**9, 7, 2]


# Worked by hand --------------------------------------------------------------------------------------------------


def play(arrival_ms, prompt, output, *, fleet=None, clients=0, sample_s=0.0, columns=None, **limits) -> Run:
    table = limits.pop("table", None)
    known = {"max_num_batched_tokens": 8, "max_num_seqs": 4, "block_tokens": 1, "kv_blocks": 100}
    engine = EngineLimits(**known | limits)
    listed = Requests(
        arrival_s=np.array(arrival_ms, float) / 1e3,
        prompt_tokens=np.array(prompt),
        output_tokens=np.array(output),
        **columns or {},
    )
    table = table or constant_table(10**9, engine.max_num_batched_tokens, engine.max_num_seqs)
    return simulate(listed, table, engine, fleet=fleet, clients=clients, sample_s=sample_s)


def ms(seconds) -> list[float]:
    return [-1 if np.isnan(s) else round(s * 1e3, 6) for s in seconds.tolist()]


def test_what_keeps_requests_out_is_reported():
    # The first takes all 8 tokens of the first step. The third waits for one of two seats, taken until 4 and 5 ms.
    run = play([0, 0, 0.5], [8, 4, 1], [4, 4, 1], max_num_seqs=2)
    assert ms(run.timings.done_s) == [4, 5, 5]
    assert run.wait_reason.tolist() == [WaitReason.NONE, WaitReason.TOKENS, WaitReason.SEATS]
    run = play([0, 0], [4, 4], [3, 3], kv_blocks=7)  # 4 blocks each, and 6 in the end
    assert (ms(run.timings.done_s), run.wait_reason.tolist()) == ([3, 6], [WaitReason.NONE, WaitReason.KV])


def test_the_last_admitted_is_evicted_and_computed_again():
    """6 blocks: both run until each holds 3; the second gives way, and comes back with its 2 tokens as its prompt."""
    run = play([0, 0], [2, 2], [3, 3], kv_blocks=6)
    assert (ms(run.timings.first_token_s), ms(run.timings.done_s)) == ([1, 1], [3, 4])
    assert (run.timings.preemptions.tolist(), run.timings.recomputed_tokens.tolist()) == ([0, 1], [0, 3])
    assert (run.steps, run.peak_kv_share) == (4, 1.0)


@pytest.mark.parametrize(
    ("policy", "options", "done"),
    [
        (Policy.VLLM, {}, [4, 4]),
        (Policy.TRTLLM_NO_EVICT, {}, [4, 4]),
        (Policy.TRTLLM_NO_EVICT, {"max_new_tokens": 90}, [4, 7]),  # both might need 93 of the 100 blocks
        (Policy.TRTLLM_MAX_UTILIZATION, {}, [4, 4]),
        (Policy.SGLANG, {}, [5, 4]),  # the first stands still while the second's prompt is computed
        (Policy.SGLANG, {"mixed_chunk": True}, [4, 4]),
    ],
)
def test_a_prompt_beside_a_decode_under_each_engine(policy, options, done):
    run = play([0, 0.5], [3, 3], [4, 3], policy=policy, **options)
    assert ms(run.timings.done_s) == done


def test_a_prefix_that_is_cached_is_not_computed_again():
    """Prompts of 8 with 6 in common, units of 2, the second when the first is done; steps take a ms per token."""
    named = {
        "block_offsets": np.array([0, 4, 8]),
        "block_ids": np.array([7, 8, 9, 10, 7, 8, 9, 11]),
        "block_tokens": 2,
    }
    tokens = replace(constant_table(1, 8, 4), token_ps=np.arange(9) * 10**9)
    run = play([0, 20], [8, 8], [1, 1], columns=named, table=tokens, prefix_caching=True)
    assert (run.hit_tokens.tolist(), ms(run.timings.ttft_s)) == ([0, 6], [8, 2])
    run = play([0, 20], [8, 8], [1, 1], columns=named, table=tokens)
    assert (run.hit_tokens, ms(run.timings.ttft_s)) == (None, [8, 8])


def test_clients_send_when_they_are_answered():
    run = play([0] * 4, [1] * 4, [2, 1, 1, 3], clients=2)
    assert (ms(run.timings.arrival_s), ms(run.timings.done_s)) == ([0, 0, 1, 2], [2, 1, 2, 5])


def test_users_think_about_an_answer():
    talk = {"session": np.array([0, 1, 0, 0]), "think_s": np.array([np.nan, np.nan, 5e-3, 0.0])}
    run = play([0, 1, 1, 1], [1] * 4, [2, 1, 1, 1], columns=talk)
    assert (ms(run.timings.arrival_s), ms(run.timings.done_s)) == ([0, 1, 7, 8], [2, 2, 8, 9])


def test_replicas_come_and_go():
    """The first dies at 2.5 ms with the third request inside; the second is ready from 1.5 ms and drains at 4."""
    fleet = Fleet(replicas=2, ready_s=(1e-3, 1.5e-3), drain_s=(NEVER, 4e-3), fail_s=(2.5e-3, NEVER))
    load = {"arrival_ms": [0, 1, 2, 2, 4], "prompt": [1] * 5, "output": [1, 1, 1, 2, 1]}
    run = play(**load, fleet=fleet)
    assert ms(run.timings.done_s) == [2, 2, -1, 4, -1]
    assert (run.replica.tolist(), run.failed, run.refused) == ([0, 0, 0, 1, -1], 2, 0)
    no = WaitReason.NO_REPLICA
    assert run.wait_reason.tolist() == [no, 0, 0, 0, no]
    again = play(**load, fleet=replace(fleet, retry_failed=True))
    assert ms(again.timings.done_s) == [2, 2, 4, 4, -1]
    assert (again.replica.tolist(), again.failed) == ([0, 0, 1, 1, -1], 1)
    assert ms(again.timings.ttft_s)[2] == 2
