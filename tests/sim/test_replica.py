"""The simulator's door, what a run reports, and runs that were worked out by hand: steps of a millisecond."""

from dataclasses import replace

import numpy as np
import pytest

from tests.sim.cases import constant_table, random_case
from trilemma.errors import UnsupportedError
from trilemma.sim import layout
from trilemma.sim.checks import LATEST_ARRIVAL_S, MOST_REPLICAS
from trilemma.sim.door import LONGEST_REQUEST, plain
from trilemma.sim.engine import Policy
from trilemma.sim.fleet import Fleet, Routing
from trilemma.sim.replica import EngineLimits, Run, WaitReason, simulate
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
        (
            {"policy": Policy.SGLANG, "block_tokens": 1, "conservativeness": float("nan")},
            "expected a number, found nan",
        ),
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


@pytest.mark.parametrize(
    "name",
    [
        "max_num_batched_tokens",
        "max_num_seqs",
        "block_tokens",
        "kv_blocks",
        "chunk_unit_tokens",
        "long_prefill_token_threshold",
        "max_new_tokens",
    ],
)
def test_limits_are_whole_numbers_that_the_simulator_holds(name):
    for bad in (8.0, 8.5, float("nan"), float("inf"), True, "8", None, np.float64(8)):
        with pytest.raises(ValueError, match=f"{name}: expected a whole number, found"):
            EngineLimits(**GOOD | {name: bad})
    for beyond in (2**31 + 1, 2**63, 10**30):
        with pytest.raises(UnsupportedError, match=f"{name}: the simulator holds at most .*, found {beyond:,}"):
            EngineLimits(**GOOD | {name: beyond})


def test_limits_may_be_numpy_s_numbers():
    small = {name: np.int16(value) for name, value in GOOD.items()}
    limits = EngineLimits(**small, async_scheduling=np.bool_(False), conservativeness=np.float64(1))
    assert limits == LIMITS
    assert {type(getattr(limits, name)) for name in GOOD} == {int}
    assert type(limits.async_scheduling) is bool


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"chunked_prefill": 1}, "chunked_prefill: expected True or False, found 1"),
        ({"prefix_caching": None}, "prefix_caching: expected True or False, found None"),
        ({"policy": 0}, "policy: expected one of Policy.VLLM, .*, found 0"),
        ({"policy": "vllm"}, "found 'vllm'"),
        ({"conservativeness": float("inf")}, "at most 100, found inf"),
        ({"conservativeness": -1.0}, "must be positive"),
        ({"conservativeness": 101}, "at most 100"),
        ({"conservativeness": "1"}, "conservativeness: expected a number, found '1'"),
    ],
)
def test_limits_of_another_kind_are_refused(bad, says):
    with pytest.raises(ValueError, match=says):
        EngineLimits(**GOOD | bad)


def test_a_prefix_cache_too_large_to_name_its_blocks_is_refused():
    with pytest.raises(UnsupportedError, match="kv_blocks: with prefix_caching .* 1,073,741,824, found 2,147,483,648"):
        EngineLimits(**GOOD | {"kv_blocks": 2**31, "prefix_caching": True})
    assert EngineLimits(**GOOD | {"kv_blocks": 2**31}).kv_blocks == 2**31


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


@pytest.mark.parametrize("column", ["token_ps", "prefill_ps", "decode_ps", "sequence_ps", "floor_ps"])
def test_columns_of_step_times_are_rows_of_64_bit_integers(column):
    good = getattr(TABLE, column)
    for bad in (
        good.astype(float),
        np.full(good.size, np.nan),
        np.full(good.size, np.inf),
        good.astype(np.int32),
        good.astype(np.uint64),
        good.astype(">i8"),
        good[None],
        good.tolist(),
    ):
        with pytest.raises(ValueError, match=f"{column}: expected step times in a row of int64, found"):
            replace(TABLE, **{column: bad})
    with pytest.raises(ValueError, match=f"{column}: a step time term is at most 1,000,000,000,000,000 ps, found"):
        replace(TABLE, **{column: good + 10**15 + 1})


@pytest.mark.parametrize("slope", ["context_ps", "window_ps", "pair_fp", "window_tokens"])
def test_slopes_are_whole_numbers(slope):
    for bad in (0.5, 1.0, float("nan"), float("inf"), True, "1"):
        with pytest.raises(ValueError, match=f"{slope}: step time terms are whole numbers, found"):
            replace(TABLE, **{slope: bad})
    for beyond in (10**12 + 1, 2**63):
        with pytest.raises(ValueError, match=f"{slope} cannot be negative or beyond .*, found {beyond:,}"):
            replace(TABLE, **{slope: beyond})
    sloped = replace(TABLE, **{"window_tokens": 1, "window_ps": 1} | {slope: np.int64(3)})
    assert type(getattr(sloped, slope)) is int


@pytest.mark.parametrize(
    ("slopes", "prompt", "says"),
    [
        ({"context_ps": 10**12}, 1000, "steps of up to 10,000 s, found up to .* 4 sequences of up to 10,001 tokens"),
        ({"window_ps": 10**12, "window_tokens": 10**6}, 1000, "steps of up to 10,000 s"),
        ({"pair_fp": 10**12}, 10**6, "steps of up to 10,000 s"),
        ({"context_ps": 10**9}, 1000, "adds up 9,002 steps to at most 2,305,843 s"),
    ],
)
def test_steps_too_long_to_add_up_are_refused(slopes, prompt, says):
    """In memory that holds the requests; in less of it no sequence grows as long."""
    long = requests(prompt_tokens=np.full(4, prompt), output_tokens=np.full(4, 9001))
    steep = replace(TABLE, **{"window_tokens": 0, "window_ps": 0} | slopes)
    roomy = replace(LIMITS, kv_blocks=10**6)
    ranked = replace(long, priority=np.zeros(4, np.int64))
    for load in (long, ranked):
        with pytest.raises(UnsupportedError, match=f"step times: the simulator .*{says}"):
            simulate(load, replace(steep, token_ps=steep.token_ps * 10**6), roomy)
        assert simulate(load, steep, LIMITS).refused == 4


@pytest.mark.parametrize("priority", [None, np.zeros(4, np.int64)])
def test_runs_that_go_on_beyond_the_clock_are_refused(priority):
    """Four requests one after the other, each for 11 or 17 days: the clock has 53. One after 46 days, for 11."""
    slowest, one = constant_table(10**15, 8, 4), replace(LIMITS, kv_blocks=10**4, max_num_seqs=1)
    long = requests(output_tokens=np.full(4, 1000), priority=priority)
    assert simulate(long, slowest, one).span_s == 4e6
    with pytest.raises(UnsupportedError, match="the simulator's clock ends after 53 days"):
        simulate(replace(long, output_tokens=np.full(4, 1500)), slowest, one)
    with pytest.raises(UnsupportedError, match="the simulator's clock ends after 53 days"):
        simulate(replace(long, arrival_s=long.arrival_s + LATEST_ARRIVAL_S - 3), slowest, one)


@pytest.mark.parametrize("priority", [None, np.zeros(1, np.int64)])
def test_a_run_may_end_with_the_clock(priority):
    """2**20 steps of 2**42 ps end exactly where the clock does: also then no sample is due that nobody asked for."""
    load = requests(1, output_tokens=np.array([2**20]), priority=priority)
    table, roomy = constant_table(2**42, 8, 4), replace(LIMITS, kv_blocks=2**17)
    assert simulate(load, table, roomy).span_s == 2**62 / 1e12
    with pytest.raises(UnsupportedError, match="clock ends after 53 days"):
        simulate(load, replace(table, token_ps=table.token_ps + 2**24), roomy)


def test_busy_time_of_many_replicas_is_added_up_beyond_the_clock():
    """Four replicas, each busy for 20 days: more picoseconds than 63 bits hold."""
    slowest, roomy = constant_table(10**15, 8, 4), replace(LIMITS, kv_blocks=10**4)
    run = simulate(requests(8, output_tokens=np.full(8, 2000)), slowest, roomy, replicas=8)
    assert run.prefill_s + run.decode_s == pytest.approx(8 * 2_000_000)
    assert run.busy_share == pytest.approx(1, rel=1e-4)


def test_windows_longer_than_any_request_take_no_memory():
    """What is played is the same as without a window, by whichever slope."""
    load = requests(prompt_tokens=np.array([3, 30, 2, 9]), output_tokens=np.array([5, 3, 8, 1]))
    far = replace(TABLE, window_tokens=10**12, window_ps=7)
    for more in ({}, {"priority": np.zeros(4, np.int64)}):
        in_window = simulate(replace(load, **more), far, LIMITS)
        in_all = simulate(replace(load, **more), replace(TABLE, context_ps=7), LIMITS)
        np.testing.assert_array_equal(in_window.timings.done_s, in_all.timings.done_s)


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
        ({"think_s": np.full(4, -np.inf), "session": np.zeros(4, np.int64)}, "think times"),
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


def asleep(*think_s, first_s=0.0):
    n = len(think_s)
    return requests(n, first_s, session=np.zeros(n, np.int64), think_s=np.array(think_s, float))


@pytest.mark.parametrize("priority", [None, np.zeros(3, np.int64)])
def test_think_times_outside_the_clock_are_refused(priority):
    def play(*think_s, first_s=0.0):
        return simulate(replace(asleep(*think_s, first_s=first_s), priority=priority), TABLE, LIMITS)

    nan = float("nan")
    with pytest.raises(ValueError, match="think_s: expected finite think times"):
        play(nan, 1.0, float("inf"))
    for think_s in ((nan, 3e6, 3e6), (nan, 5e6, 0.0), (nan, 1e300, 1e300)):
        with pytest.raises(
            UnsupportedError, match="think_s: .* holds 46 days, found think times of a session that add"
        ):
            play(*think_s)
    with pytest.raises(UnsupportedError, match="arrivals up to 35"):
        play(nan, 1e6, 1.0, first_s=3e6)
    run = play(nan, 1.9e6, 1.9e6)
    np.testing.assert_allclose(run.timings.done_s, [1e-3, 1.9e6 + 2e-3, 3.8e6 + 3e-3])
    assert simulate(replace(asleep(nan, 5e6, 5e6), priority=priority), TABLE, LIMITS, clients=1).timings.finished.all()


def test_think_times_of_different_sessions_do_not_add_up():
    load = replace(asleep(*[float("nan"), 3e6] * 3), session=np.array([0, 0, 1, 1, 2, 2]))
    assert simulate(load, TABLE, LIMITS).timings.finished.all()


def test_sessions_that_end_after_the_clock_are_refused():
    """Answers that take 20 days between times to think of 40: the third turn would come after the clock's end."""
    load = replace(asleep(float("nan"), 1.9e6, 1.9e6), output_tokens=np.full(3, 900))
    slow, roomy = constant_table(10**15, 8, 4), replace(LIMITS, kv_blocks=10**4)
    for more in ({}, {"priority": np.zeros(3, np.int64)}):
        with pytest.raises(UnsupportedError, match="clock ends after 53 days"):
            simulate(replace(load, **more), slow, roomy)


@pytest.mark.parametrize("priority", [None, np.zeros(1, np.int64)])
@pytest.mark.parametrize("output", [1, LONGEST_REQUEST // 2, LONGEST_REQUEST - 1])
def test_sequences_too_long_to_count_are_refused(output, priority):
    """Both kernels hold as many tokens, less two KV blocks and the next token."""
    most = LONGEST_REQUEST - 2 * LIMITS.block_tokens - 2
    prompt = np.array([LONGEST_REQUEST - output])
    long = requests(1, prompt_tokens=prompt, output_tokens=np.array([output]), priority=priority)
    with pytest.raises(UnsupportedError, match="of up to 2,147,483,648 tokens; the simulator holds fewer than"):
        simulate(long, TABLE, LIMITS)
    asked = replace(LIMITS, policy=Policy.TRTLLM_NO_EVICT, max_new_tokens=2**31 - 1)
    with pytest.raises(UnsupportedError, match="the simulator holds fewer than"):
        simulate(requests(1, priority=priority), TABLE, asked)
    longest = requests(1, prompt_tokens=np.array([most - 1]), priority=priority)
    assert simulate(longest, TABLE, LIMITS).refused == 1
    with pytest.raises(UnsupportedError, match="the simulator holds fewer than"):
        simulate(replace(longest, output_tokens=np.array([2])), TABLE, LIMITS)


COLUMNS = {
    "arrival_s": np.array([0.0, 1.0, 2.0, 2.0]),
    "prompt_tokens": np.array([3, 9, 2, 4]),
    "output_tokens": np.array([2, 1, 3, 2]),
    "session": np.array([0, 1, 0, 1]),
    "think_s": np.array([np.nan, np.nan, 1.0, 0.0]),
    "priority": np.array([1, 0, 1, 0]),
    "block_offsets": np.array([0, 0, 1, 1, 1]),
    "block_ids": np.array([7]),
    "block_tokens": 16,
}


@pytest.mark.parametrize("kind", [np.int8, np.uint64, np.float64, np.float16, ">i8", ">f8", np.longdouble])
@pytest.mark.parametrize("left_out", [(), ("priority",)])
def test_columns_of_any_kind_are_read_without_loss(kind, left_out):
    columns = {name: column for name, column in COLUMNS.items() if name not in left_out}
    plain = simulate(Requests(**columns), TABLE, LIMITS)
    for name, column in columns.items():
        if name == "block_tokens" or (name == "think_s" and np.dtype(kind).kind != "f"):
            continue
        same = simulate(Requests(**columns | {name: column.astype(kind)}), TABLE, LIMITS)
        np.testing.assert_array_equal(same.timings.done_s, plain.timings.done_s)
        assert same.timings.prompt_tokens.dtype == np.int64


def test_columns_that_lie_elsewhere_or_cannot_be_written_are_read():
    plain = simulate(Requests(**COLUMNS), TABLE, LIMITS)
    for name in ("prompt_tokens", "output_tokens", "block_offsets"):
        other = np.repeat(COLUMNS[name], 2)[::2]
        other.flags.writeable = False
        same = simulate(Requests(**COLUMNS | {name: other}), TABLE, LIMITS)
        np.testing.assert_array_equal(same.timings.done_s, plain.timings.done_s)


@pytest.mark.parametrize("name", ["prompt_tokens", "output_tokens", "session", "priority", "block_ids"])
def test_columns_that_would_have_to_be_rounded_are_refused(name):
    for bad in (1.5, 2.0**60, 1e300):
        column = COLUMNS[name].astype(float)
        column[0] = bad
        with pytest.raises(ValueError, match=f"{name}: expected what int64 holds exactly, found .* at 0"):
            simulate(Requests(**COLUMNS | {name: column}), TABLE, LIMITS)
    with pytest.raises(ValueError, match=f"{name}: expected int64, found bool"):
        simulate(Requests(**COLUMNS | {name: COLUMNS[name] > -1}), TABLE, LIMITS)
    with pytest.raises(ValueError, match=f"{name}: expected what int64 holds exactly, found 18,?446"):
        simulate(Requests(**COLUMNS | {name: np.full(COLUMNS[name].size, 2**64 - 1, np.uint64)}), TABLE, LIMITS)


def test_columns_of_two_dimensions_are_refused():
    with pytest.raises(ValueError, match="prompt_tokens: expected an array of one dimension, found 2"):
        simulate(requests(prompt_tokens=np.ones((4, 1), np.int64)), TABLE, LIMITS)


def test_requests_of_the_right_kind_are_taken_as_they_are():
    load = Requests(**COLUMNS)
    assert plain(load) is load


def test_what_is_lent_may_be_read_only_and_nothing_else():
    fixed = COLUMNS["prompt_tokens"].copy()
    fixed.flags.writeable = False
    load = Requests(**COLUMNS | {"prompt_tokens": fixed})
    assert plain(load, lent=("prompt_tokens",)) is load
    assert plain(load, lent=("output_tokens",)).prompt_tokens.flags.writeable
    assert simulate(load, TABLE, LIMITS).timings.prompt_tokens.flags.writeable
    assert not fixed.flags.writeable


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
    with pytest.raises(ValueError, match="replicas must be at least 1, found"):
        simulate(requests(), TABLE, LIMITS, replicas=replicas)


def test_more_replicas_than_can_be_numbered_are_refused():
    with pytest.raises(UnsupportedError, match="replicas: the simulator holds at most 32,767, found 32,768"):
        Fleet(replicas=MOST_REPLICAS + 1)
    run = simulate(requests(), TABLE, replace(LIMITS, max_num_seqs=1), fleet=Fleet(replicas=MOST_REPLICAS))
    assert run.replica.tolist() == [0, 1, 2, 3]


def test_replicas_other_than_the_fleet_s_are_refused():
    for replicas in (1, 3):
        with pytest.raises(ValueError, match=f"replicas: expected the fleet's 2 or none, found {replicas}"):
            simulate(requests(), TABLE, LIMITS, replicas=replicas, fleet=Fleet(replicas=2))
    assert simulate(requests(), TABLE, LIMITS, replicas=2, fleet=Fleet(replicas=2)).replicas == 2
    assert simulate(requests(), TABLE, LIMITS).replicas == 1


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        ({"seed": -1}, ValueError, "seed cannot be negative"),
        ({"seed": 2**31}, UnsupportedError, "seed: .* at most 2,147,483,647, found 2,147,483,648"),
        ({"seed": 1.0}, ValueError, "seed: expected a whole number"),
        ({"replicas": 2.0}, ValueError, "replicas: expected a whole number"),
        ({"balance_abs": -1}, ValueError, "balance_abs cannot be negative"),
        ({"balance_rel": float("nan")}, ValueError, "balance_rel: expected a number"),
        ({"balance_rel": -0.5}, ValueError, "balance_rel must be finite and cannot be negative"),
        ({"balance_rel": float("inf")}, ValueError, "balance_rel must be finite"),
        ({"routing": 2}, ValueError, "routing: expected one of Routing.ROUND_ROBIN"),
        ({"retry_failed": "yes"}, ValueError, "retry_failed: expected True or False"),
    ],
)
def test_fleets_that_cannot_be_are_refused(bad, error, says):
    with pytest.raises(error, match=says):
        Fleet(**bad)


@pytest.mark.parametrize("routing", Routing)
def test_the_largest_seed_draws(routing):
    assert simulate(requests(), TABLE, LIMITS, fleet=Fleet(replicas=3, routing=routing, seed=2**31 - 1)).failed == 0


@pytest.mark.parametrize("name", ["ready_s", "drain_s", "fail_s"])
def test_fleet_times_beyond_the_clock_are_refused(name):
    for time in (1e7, 4.7e6, LATEST_ARRIVAL_S + 1, 1e300):
        with pytest.raises(UnsupportedError, match=f"{name}: the simulator's clock holds 4,000,000 s, found .* s"):
            Fleet(replicas=2, **{name: (0.0, time)})
    for time in (LATEST_ARRIVAL_S, NEVER):
        run = simulate(requests(), TABLE, LIMITS, fleet=Fleet(replicas=2, **{name: (time, time)}))
        assert run.failed == (4 if name == "ready_s" and time == NEVER else 0)
        assert run.timings.finished.sum() + run.failed == 4


@pytest.mark.parametrize("name", ["ready_s", "drain_s", "fail_s"])
def test_times_that_do_not_fit_the_fleet_are_refused(name):
    with pytest.raises(ValueError, match="needs 2 times"):
        Fleet(replicas=2, **{name: (1.0,)})
    for time, says in ((-1.0, "counts from 0"), (float("nan"), "expected a number"), ("1", "expected a number")):
        with pytest.raises(ValueError, match=f"{name}:? {says}"):
            Fleet(replicas=2, **{name: (1.0, time)})


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"ranks": 0}, "ranks must be at least 1, found 0"),
        ({"ranks": -2}, "ranks must be at least 1"),
        ({"ranks": 1.0}, "ranks: expected a whole number"),
        ({"clients": -1}, "clients cannot be negative"),
        ({"clients": 2.5}, "clients: expected a whole number"),
        ({"shared_experts": 1}, "shared_experts: expected True or False"),
        ({"sample_s": -1.0}, "sample_s: expected 0 for none or 1e-12 to 100000 s, found -1 s"),
        ({"sample_s": float("nan")}, "sample_s: expected a number, found nan"),
        ({"sample_s": float("inf")}, "sample_s: expected 0 for none"),
        ({"sample_s": 1e-13}, "sample_s: expected 0 for none"),
        ({"sample_s": 2e5}, "sample_s: expected 0 for none"),
    ],
)
def test_ways_to_play_that_are_none_are_refused(bad, says):
    with pytest.raises(ValueError, match=says):
        simulate(requests(), TABLE, LIMITS, **bad)


@pytest.mark.parametrize("sample_s", [1e-12, 1e5])
@pytest.mark.parametrize("ranks", [1, 2])
def test_samples_as_fine_and_as_coarse_as_can_be(sample_s, ranks):
    late = requests(first_s=LATEST_ARRIVAL_S - 3)
    run = simulate(late, TABLE, LIMITS, sample_s=sample_s, ranks=ranks)
    assert (np.diff(run.samples[0, :, layout.S_TIME]) >= 0).all()
    assert run.samples[0, -1, layout.S_PREFILL_TOKENS] == 4


@pytest.mark.parametrize("clients", [1, 2])
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
