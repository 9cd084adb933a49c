"""Prefill and decode pools: the compiled pools against the plain ones, and the laws of both."""

import itertools
from collections import Counter
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.sim import oracle_disaggregated as oracle
from tests.sim.cases import Chooser, Drawn, Seeded, compose, constant_table, engine, in_ps, table_of, whole
from trilemma.errors import UnsupportedError
from trilemma.latency.table import StepTable
from trilemma.sim import layout
from trilemma.sim.disaggregated import DisaggregatedRun, Pool, Pools, Transfer, simulate_disaggregated
from trilemma.sim.engine import EngineLimits, Policy
from trilemma.sim.fleet import Fleet, Routing
from trilemma.sim.replica import simulate
from trilemma.workload.requests import Requests

FEATURES = ("prefix", "sessions", "async")
SEEDED_CASES = 300
POOL_ROUTING = (Routing.ROUND_ROBIN, Routing.LEAST_OUTSTANDING)
PRICES = [field for field in fields(StepTable) if field.name != "window_tokens"]


@dataclass(frozen=True)
class Case:
    requests: Requests
    pools: Pools
    clients: int
    back_pressure: bool

    def play(self) -> DisaggregatedRun:
        return simulate_disaggregated(self.requests, self.pools, self.clients, self.back_pressure)

    def plain(self) -> oracle.Play:
        return oracle.play(self.requests, self.pools, clients=self.clients, back_pressure=self.back_pressure)


def build(choose: Chooser, rng: np.random.Generator) -> Case:
    """Any load on any two pools; what is computed and what is generated have memory of their own to run out of."""
    features = frozenset(name for name in FEATURES if choose.between(0, 3) == 0)
    case = compose(choose, rng, features, (Policy.VLLM,))
    seqs, page = choose.between(1, 12), choose.one_of((1, 3, 4, 16))
    crowded = choose.between(0, 2) == 0
    asynchronous = features & {"async"} if choose.between(0, 2) else frozenset()
    limits = engine(choose, asynchronous, Policy.VLLM, case.requests, seqs, page, None, crowded)

    overlap = choose.between(0, 2) == 0
    prompt_limits = replace(case.limits, reserve_full_isl=True) if overlap else case.limits
    pools = Pools(
        prefill=Pool(
            table=case.table, limits=prompt_limits, replicas=choose.between(1, 3), routing=choose.one_of(POOL_ROUTING)
        ),
        decode=Pool(
            table=table_of(rng, limits.max_num_batched_tokens, seqs),
            limits=limits,
            replicas=choose.between(1, 3),
            routing=choose.one_of(POOL_ROUTING),
        ),
        transfer=Transfer(
            latency_s=choose.one_of((0.0, 1e-9, 1e-4, 1e-2)),
            bytes_per_s=choose.one_of((np.inf, 1e6, 1e7, 1e9)),
            bytes_per_token=choose.one_of((0.0, 1.0, 1000.0)),
            block_tokens=choose.one_of((1, 1, 16)),
            one_at_a_time=choose.between(0, 2) > 0,
            overlap=overlap,
        ),
        first_token=choose.one_of(("prefill", "decode")),
    )
    return Case(case.requests, pools, case.clients, choose.between(0, 2) > 0)


def random_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    return build(Seeded(rng), rng)


@st.composite
def cases(draw):
    return build(Drawn(draw), np.random.default_rng(draw(st.integers(0, 2**32 - 1))))


def with_pools(case: Case, **changed) -> Case:
    return replace(case, pools=replace(case.pools, **changed))


def slower(requests: Requests, factor: int) -> Requests:
    think_s = None if requests.think_s is None else requests.think_s * factor
    return replace(requests, arrival_s=requests.arrival_s * factor, think_s=think_s)


def slower_table(table: StepTable, factor: int) -> StepTable:
    return replace(table, **{field.name: getattr(table, field.name) * factor for field in PRICES})


def histogram_of(gaps: list[int]) -> np.ndarray:
    """Bins 0.2% wide: an exponent and nine bits of mantissa."""
    mantissa, exponent = np.frexp(np.array(gaps, np.float64))
    bins = exponent * layout.HISTOGRAM_SUBBINS + ((mantissa - 0.5) * (2 * layout.HISTOGRAM_SUBBINS)).astype(np.int64)
    return np.bincount(bins.astype(np.int64), minlength=layout.HISTOGRAM_BINS)


def lasted(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    return np.where(np.minimum(begin, end) < 0, -1, end - begin)


def assert_equal(case: Case) -> DisaggregatedRun:
    """The case played by both; everything the run reports is what the oracle saw."""
    run, plain = case.play(), case.plain()
    arrival, prefilled = plain.column("arrival"), plain.column("prefilled")
    sent, ready, begun = plain.column("sent"), plain.column("ready"), plain.column("begun")
    start = plain.column("start", "prompt")
    for name, ours, theirs in (
        ("first", run.timings.first_token_s, plain.column("first", "answer")),
        ("done", run.timings.done_s, plain.column("done", "answer")),
        ("prefilled", run.prefill_done_s, prefilled),
        ("queued", run.queued_s, lasted(arrival, start)),
        ("transfer wait", run.transfer_wait_s, lasted(prefilled, sent)),
        ("transfer", run.transfer_s, lasted(sent, ready)),
        ("decode wait", run.decode_wait_s, lasted(ready, begun)),
    ):
        np.testing.assert_array_equal(in_ps(ours), theirs, err_msg=name)
    arrived = arrival >= 0
    np.testing.assert_array_equal(in_ps(run.timings.arrival_s)[arrived], arrival[arrived])
    for name, ours, theirs in (
        ("prefill replica", run.prefill_replica, plain.column("replica", "prompt")),
        ("decode replica", run.replica, plain.column("replica", "answer")),
        ("reason", run.wait_reason, plain.column("reason", "prompt")),
        ("preemptions", run.timings.preemptions, sum(plain.column("preemptions", s) for s in ("prompt", "answer"))),
        ("lost", run.timings.recomputed_tokens, sum(plain.column("lost", s) for s in ("prompt", "answer"))),
    ):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    if run.hit_tokens is not None:
        np.testing.assert_array_equal(run.hit_tokens, plain.column("hit_tokens", "prompt"))
    gaps = [gap for e in plain.receivers.engines for gap in e.gaps]
    np.testing.assert_array_equal(run.timings.itl_counts, histogram_of(gaps))
    for pool, theirs in ((run.prefill_pool, plain.senders), (run.decode_pool, plain.receivers)):
        assert pool.steps == theirs.steps
        assert pool.busy_s == pytest.approx(theirs.busy_ps / 1e12, abs=0, rel=1e-15)
        assert pool.decode_s == theirs.decode_ps / 1e12
        assert pool.peak_kv_share == max(e.peak_blocks for e in theirs.engines) / theirs.engines[0].limits.kv_blocks
    assert run.refused == plain.refused
    return run


# Exactness -------------------------------------------------------------------------------------------------------


def test_equals_the_oracle_on_seeded_cases():
    """The same cases on every machine, and enough of every kind among them for the equality to mean something."""
    seen = Counter()
    for seed in range(SEEDED_CASES):
        case = random_case(seed)
        run = assert_equal(case)
        finished = run.timings.finished
        waited = finished & (run.transfer_wait_s > 0)
        seen["held back before the transfer"] += case.back_pressure and waited.any()
        seen["queued for the link"] += not case.back_pressure and waited.any()
        seen["thrown out while prompts were computed"] += run.prefill_pool.preemptions > 0
        seen["thrown out while decoding"] += run.decode_pool.preemptions > 0
        seen["waited for prefill memory"] += (run.wait_reason == layout.KV).any()
        seen["hits"] += run.hit_tokens is not None and run.hit_tokens.any()
        seen["refused"] += run.refused > 0
        seen["closed loop"] += case.clients > 0
        seen["overlap"] += case.pools.transfer.overlap and finished.any()
        seen["one step ahead"] += case.pools.decode.limits.async_scheduling and finished.any()
    assert min(seen.values()) >= SEEDED_CASES // 100
    assert len(seen) == 10


@settings(max_examples=120, deadline=None)
@given(cases())
def test_equals_the_oracle(case):
    assert_equal(case)


# Laws ------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(cases())
def test_every_request_is_answered_or_refused_in_order_and_whole(case):
    run = case.play()
    timings, n = run.timings, len(case.requests)
    finished = timings.finished
    arrived = ~np.isnan(timings.arrival_s) & (timings.arrival_s < 1e6)
    assert finished.sum() + run.refused == (arrived if case.clients else np.ones(n, bool)).sum()
    assert timings.itl_counts is not None
    assert timings.itl_counts.sum() == (case.requests.output_tokens[finished] - 1).sum()
    start = timings.arrival_s + run.queued_s
    sent = run.prefill_done_s + run.transfer_wait_s
    ready = sent + run.transfer_s
    moments = [timings.arrival_s, start, run.prefill_done_s, sent, ready, timings.first_token_s, timings.done_s]
    for before, after in itertools.pairwise(moments):
        assert (before[finished] <= after[finished] + 1e-12).all()
    for pool in (run.prefill_pool, run.decode_pool):
        assert 0 <= pool.peak_kv_share <= 1
        assert pool.busy_s <= pool.replicas * run.span_s * (1 + 1e-12)


@settings(max_examples=30, deadline=None)
@given(cases())
def test_the_same_input_gives_the_same_bits(case):
    one, two = case.play(), case.play()
    for name in ("transfer_wait_s", "transfer_s", "decode_wait_s", "replica", "prefill_replica", "wait_reason"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
    np.testing.assert_array_equal(one.timings.done_s, two.timings.done_s)
    np.testing.assert_array_equal(one.timings.itl_counts, two.timings.itl_counts)


@settings(max_examples=40, deadline=None)
@given(cases(), st.integers(2, 7))
def test_all_times_scale_together(case, factor):
    pools = case.pools
    table, other = whole(pools.prefill.table), whole(pools.decode.table)
    transfer = replace(pools.transfer, bytes_per_s=1e12 / 512)  # whole picoseconds per byte
    case = with_pools(
        case,
        prefill=replace(pools.prefill, table=table),
        decode=replace(pools.decode, table=other),
        transfer=transfer,
    )
    scaled = with_pools(
        replace(case, requests=slower(case.requests, factor)),
        prefill=replace(pools.prefill, table=slower_table(table, factor)),
        decode=replace(pools.decode, table=slower_table(other, factor)),
        transfer=replace(
            transfer, bytes_per_token=transfer.bytes_per_token * factor, latency_s=transfer.latency_s * factor
        ),
    )
    one, two = case.play(), scaled.play()
    for name in ("first_token_s", "done_s"):
        times = in_ps(getattr(one.timings, name))
        np.testing.assert_array_equal(np.where(times < 0, -1, times * factor), in_ps(getattr(two.timings, name)))


@settings(max_examples=40, deadline=None)
@given(cases())
def test_through_an_instant_link_ttft_is_that_of_replicas_that_only_compute_prompts(case):
    assume(not case.clients and case.requests.think_s is None)
    instant = Transfer(bytes_per_token=1000.0, bytes_per_s=np.inf)
    case = replace(with_pools(case, transfer=instant, first_token="prefill"), back_pressure=False)
    run = case.play()
    own = case.pools.prefill
    prompts = replace(case.requests.take(case.pools.fits(case.requests)), think_s=None)
    prompts = replace(prompts, output_tokens=np.ones(len(prompts), np.int64))
    alone = simulate(prompts, own.table, own.limits, fleet=Fleet(replicas=own.replicas, routing=own.routing))
    np.testing.assert_array_equal(run.timings.ttft_s[run.timings.finished], alone.timings.ttft_s)


@settings(max_examples=40, deadline=None)
@given(cases(), st.floats(1.0, 100.0))
def test_a_faster_link_brings_nothing_later(case, factor):
    """Without back-pressure, where nothing of the decode side comes back to the prefill side."""
    assume(not case.clients and case.requests.think_s is None)
    case = replace(case, back_pressure=False)
    transfer = replace(case.pools.transfer, bytes_per_s=1e6)
    slow = with_pools(case, transfer=transfer).play()
    fast = with_pools(case, transfer=replace(transfer, bytes_per_s=1e6 * factor)).play()
    there = slow.timings.finished
    np.testing.assert_array_equal(slow.prefill_done_s, fast.prefill_done_s)
    for run_s in (lambda run: run.transfer_s, lambda run: run.transfer_wait_s + run.transfer_s):
        assert (run_s(fast)[there] <= run_s(slow)[there] + 1e-12).all()


@settings(max_examples=40, deadline=None)
@given(cases())
def test_transfers_of_one_replica_take_turns(case):
    transfer = replace(case.pools.transfer, one_at_a_time=True, overlap=False, bytes_per_s=1e6, latency_s=0.0)
    case = with_pools(case, transfer=transfer)
    run = case.play()
    sent, lasted = in_ps(run.prefill_done_s + run.transfer_wait_s), in_ps(run.transfer_s)
    for r in range(case.pools.prefill.replicas):
        own = np.flatnonzero((run.prefill_replica == r) & run.timings.finished)
        own = own[np.lexsort((lasted[own], sent[own]))]
        assert (sent[own][1:] >= (sent + lasted)[own][:-1] - 2).all()


@settings(max_examples=40, deadline=None)
@given(cases())
def test_alone_a_request_waits_for_nothing(case):
    one = replace(case, requests=case.requests.take(slice(0, 1)), clients=0)
    safe = replace(case.pools.prefill, limits=replace(case.pools.prefill.limits, reserve_full_isl=True))
    one = with_pools(one, prefill=safe)
    whole_prompt = with_pools(one, transfer=replace(case.pools.transfer, overlap=False)).play()
    if whole_prompt.refused:
        return
    assert whole_prompt.queued_s[0] == whole_prompt.transfer_wait_s[0] == 0
    assert whole_prompt.timings.preemptions[0] == 0
    if case.pools.transfer.block_tokens == 1:  # else every chunk is rounded up to blocks of its own
        chunked = with_pools(one, transfer=replace(case.pools.transfer, overlap=True)).play()
        assert chunked.timings.done_s[0] <= whole_prompt.timings.done_s[0]
    feed_forward = replace(one, back_pressure=not one.back_pressure).play()
    assert feed_forward.timings.done_s[0] == one.play().timings.done_s[0]


# Worked examples -------------------------------------------------------------------------------------------------


STEP_PS = 10**9  # every step a millisecond
MS = 1e-3


def example(arrival_s, prompt, output, *, back_pressure=True, first_token="decode", blocks=(100, 100), seats=8, **link):
    requests = Requests(
        arrival_s=np.array(arrival_s, np.float64), prompt_tokens=np.array(prompt), output_tokens=np.array(output)
    )
    prefill, decode = (
        Pool(
            table=constant_table(STEP_PS, 64, 8),
            limits=EngineLimits(max_num_batched_tokens=64, max_num_seqs=seats, block_tokens=16, kv_blocks=own),
        )
        for own in blocks
    )
    transfer = Transfer(**({"bytes_per_token": 1000.0, "bytes_per_s": 1e6} | link))  # a millisecond a token
    pools = Pools(prefill=prefill, decode=decode, transfer=transfer, first_token=first_token)
    return simulate_disaggregated(requests, pools, back_pressure=back_pressure)


def in_ms(values: np.ndarray) -> list[float]:
    return (np.round(values / MS, 6)).tolist()


@pytest.mark.parametrize("back_pressure", [False, True])
@pytest.mark.parametrize(("first_token", "first_ms", "done_ms"), [("decode", 34, 36), ("prefill", 33, 35)])
def test_ttft_is_prefill_transfer_and_a_decode_step_where_that_samples(back_pressure, first_token, first_ms, done_ms):
    run = example([0.0], [32], [3], back_pressure=back_pressure, first_token=first_token)
    assert in_ms(run.timings.first_token_s) == [first_ms]
    assert in_ms(run.timings.done_s) == [done_ms]
    assert in_ms(run.transfer_s) == [32]


def test_an_answer_of_one_sampled_token_never_takes_a_decode_seat():
    run = example([0.0], [32], [1], first_token="prefill")
    assert in_ms(run.timings.done_s) == [33]
    assert run.decode_pool.steps == 0


def test_prompts_of_one_step_share_a_link_or_have_one_each():
    shared = example([0.0, 0.0], [20, 20], [1, 1])
    assert in_ms(shared.timings.first_token_s) == [22, 42]
    assert in_ms(shared.transfer_wait_s) == [0, 20]
    apart = example([0.0, 0.0], [20, 20], [1, 1], one_at_a_time=False)
    assert in_ms(apart.timings.first_token_s) == [22, 22]


def test_overlapping_transfers_wait_for_the_last_chunk_alone():
    """100 tokens in chunks of 64 and 36; the second one is computed a millisecond after the first."""
    assert in_ms(example([0.0], [100], [1]).transfer_s) == [100]
    assert in_ms(example([0.0], [100], [1], overlap=True, one_at_a_time=False).transfer_s) == [36]
    queued = example([0.0], [100], [1], overlap=True)
    assert in_ms(queued.transfer_s) == [36]
    assert in_ms(queued.transfer_wait_s) == [63]


def test_kv_moves_in_whole_blocks_and_latency_does_not_hold_the_link():
    run = example([0.0, 0.0], [20, 20], [1, 1], block_tokens=16, latency_s=0.005)
    assert in_ms(run.prefill_done_s + run.transfer_wait_s + run.transfer_s) == [38, 70]


def test_a_prompt_stays_in_prefill_memory_until_it_has_moved():
    """Two blocks: the second prompt has to wait for the first one's transfer."""
    run = example([0.0, 0.0], [32, 32], [1, 1], blocks=(2, 100))
    assert in_ms(run.queued_s) == [0, 33]
    assert run.prefill_pool.peak_kv_share == 1
    free = example([0.0, 0.0], [32, 32], [1, 1], blocks=(2, 100), back_pressure=False)
    assert in_ms(free.queued_s) == [0, 1]


def test_a_full_decode_pool_stops_prefill():
    """Three blocks on either side hold one request: the second moves when the first is answered, the third starts."""
    run = example([0.0] * 3, [32] * 3, [10] * 3, blocks=(3, 3), bytes_per_s=np.inf)
    assert in_ms(run.timings.done_s) == [11, 21, 31]
    assert in_ms(run.queued_s) == [0, 1, 11]
    assert in_ms(run.transfer_wait_s) == [0, 9, 9]


def test_decode_memory_is_taken_before_a_transfer_and_no_seat():
    """One seat: both requests move before either sits down, the second one when the first has ended."""
    run = example([0.0] * 2, [32] * 2, [50] * 2, seats=1, one_at_a_time=False)
    assert in_ms(run.transfer_wait_s) == [0, 0]
    assert in_ms(run.decode_wait_s) == [0, 49]
    assert run.decode_pool.peak_kv_share == pytest.approx(0.08)


def test_nobody_comes():
    run = example([], np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert len(run.timings) == run.refused == run.steps == 0
    assert run.span_s == run.prefill_pool.peak_kv_share == 0


# Bad input -------------------------------------------------------------------------------------------------------


def test_requests_that_fit_neither_pool_are_refused_and_the_others_go_on():
    run = example([0.0] * 3, [40, 10, 10], [1, 1, 40], blocks=(2, 3))
    assert run.refused == 2
    assert run.timings.finished.tolist() == [False, True, False]
    assert run.prefill_replica.tolist() == [-1, 0, -1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"bytes_per_s": 0.0},
        {"bytes_per_s": np.nan},
        {"bytes_per_token": -1.0},
        {"bytes_per_token": np.inf},
        {"latency_s": -1e-9},
        {"latency_s": np.nan},
        {"latency_s": "1"},
        {"bytes_per_s": None},
        {"block_tokens": 0},
        {"block_tokens": 16.0},
        {"overlap": 1},
    ],
)
def test_a_link_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="found"):
        Transfer(**({"bytes_per_token": 1000.0, "bytes_per_s": 1e9} | wrong))


def test_a_transfer_that_never_ends_is_refused():
    with pytest.raises(ValueError, match="transfer of"):
        example([0.0], [32], [1], bytes_per_s=1e-6)


@pytest.mark.parametrize("back_pressure", [False, True])
def test_runs_that_go_on_beyond_the_clock_are_refused(back_pressure):
    """Prompts of 1,000 s and answers of 20 days, one after the other."""
    slowest, one = constant_table(10**15, 64, 8), limits_of(max_num_seqs=1, kv_blocks=1000)
    pool, transfer = Pool(table=slowest, limits=one), Transfer(bytes_per_token=1.0, bytes_per_s=1e9)
    pools = Pools(prefill=pool, decode=pool, transfer=transfer)
    long = Requests(arrival_s=np.zeros(3), prompt_tokens=np.full(3, 8), output_tokens=np.full(3, 1700))
    assert simulate_disaggregated(long.take(slice(2)), pools, 0, back_pressure).timings.finished.all()
    with pytest.raises(UnsupportedError, match="clock ends after 53 days"):
        simulate_disaggregated(long, pools, 0, back_pressure)
    prompts = Requests(arrival_s=np.zeros(5), prompt_tokens=np.full(5, 1000), output_tokens=np.ones(5, np.int64))
    tiny = limits_of(kv_blocks=1000, max_num_batched_tokens=1, max_num_seqs=1)
    crawling = replace(pool, table=replace(slowest, prefill_ps=slowest.token_ps), limits=tiny)
    with pytest.raises(UnsupportedError, match="clock ends after 53 days"):
        simulate_disaggregated(prompts, replace(pools, prefill=crawling), 0, back_pressure)


def test_steps_too_long_to_add_up_are_refused():
    pools = Pools(
        prefill=pool_of(),
        decode=pool_of(
            table=replace(constant_table(STEP_PS, 64, 8), context_ps=10**12), limits=limits_of(kv_blocks=10**4)
        ),
        transfer=Transfer(bytes_per_token=1.0, bytes_per_s=1e9),
    )
    long = Requests(arrival_s=np.zeros(1), prompt_tokens=np.array([8]), output_tokens=np.array([9000]))
    with pytest.raises(UnsupportedError, match="step times: the simulator holds steps of up to 10,000 s"):
        simulate_disaggregated(long, pools)


def limits_of(**options) -> EngineLimits:
    return EngineLimits(
        **({"max_num_batched_tokens": 64, "max_num_seqs": 8, "block_tokens": 16, "kv_blocks": 9} | options)
    )


def pool_of(**options) -> Pool:
    return Pool(**({"table": constant_table(STEP_PS, 64, 8), "limits": limits_of()} | options))


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"replicas": 0}, ValueError, "replicas must be at least 1"),
        ({"replicas": 2.5}, ValueError, "replicas: expected a whole number"),
        ({"replicas": 32_768}, UnsupportedError, "replicas: the simulator holds at most 32,767"),
        ({"routing": 0}, ValueError, "routing: expected one of"),
        ({"table": constant_table(STEP_PS, 63, 8)}, ValueError, "63 tokens"),
        ({"table": constant_table(STEP_PS, 64, 7)}, ValueError, "7 sequences"),
        ({"routing": Routing.POWER_OF_TWO}, UnsupportedError, "POWER_OF_TWO"),
        ({"limits": limits_of(policy=Policy.SGLANG)}, UnsupportedError, "vLLM"),
        ({"limits": limits_of(long_prefill_token_threshold=8)}, UnsupportedError, "threshold"),
    ],
)
def test_a_pool_that_is_not_played_is_refused(wrong, error, says):
    with pytest.raises(error, match=says):
        pool_of(**wrong)


def test_pools_that_are_not_played_are_refused():
    transfer = Transfer(bytes_per_token=1.0, bytes_per_s=1.0)
    with pytest.raises(UnsupportedError, match="prefix cache"):
        Pools(prefill=pool_of(), decode=pool_of(limits=limits_of(prefix_caching=True)), transfer=transfer)
    with pytest.raises(UnsupportedError, match="reserve_full_isl"):
        Pools(
            prefill=pool_of(limits=limits_of(reserve_full_isl=False)),
            decode=pool_of(),
            transfer=replace(transfer, overlap=True),
        )
    with pytest.raises(ValueError, match="sampled by"):
        Pools(prefill=pool_of(), decode=pool_of(), transfer=transfer, first_token="router")


@pytest.mark.parametrize(
    ("columns", "clients", "error"),
    [
        ({}, -1, ValueError),
        ({}, 1.5, ValueError),
        ({"session": np.array([0]), "think_s": np.array([np.inf])}, 0, ValueError),
        ({"session": np.array([0]), "think_s": np.array([5e6])}, 0, UnsupportedError),
        ({"prompt_tokens": np.array([7.5])}, 0, ValueError),
        ({"arrival_s": np.array([-1.0])}, 0, ValueError),
        ({"arrival_s": np.array([4.1e6])}, 0, UnsupportedError),
        ({"prompt_tokens": np.array([2**31])}, 0, UnsupportedError),
        ({"priority": np.array([1])}, 0, UnsupportedError),
    ],
)
def test_requests_that_are_not_played_are_refused(columns, clients, error):
    fine = {"arrival_s": np.array([0.0]), "prompt_tokens": np.array([8]), "output_tokens": np.array([8])}
    pools = Pools(prefill=pool_of(), decode=pool_of(), transfer=Transfer(bytes_per_token=1.0, bytes_per_s=1e9))
    with pytest.raises(error):
        simulate_disaggregated(Requests(**(fine | columns)), pools, clients)
    caching = replace(pools, prefill=pool_of(limits=limits_of(prefix_caching=True)))
    with pytest.raises(UnsupportedError, match="prefix"):
        simulate_disaggregated(Requests(**fine), caching)
