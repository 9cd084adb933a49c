"""The explicit kernel against the plain oracle: equal, not close. And the draws that speculative decoding makes."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.cases import (
    ASYNC,
    COMMON,
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
    table_of,
)
from tests.sim.oracle_engine import splitmix64 as plain_splitmix64
from trilemma.errors import UnsupportedError
from trilemma.sim import draws, explicit, layout
from trilemma.sim.engine import EngineLimits, Policy
from trilemma.sim.explicit import ExplicitRun, play_explicit
from trilemma.sim.speculation import Speculation
from trilemma.workload.requests import Requests

EVERY = (ASYNC, THRESHOLD, PRIORITIES, SPECULATION, RANKS, SHARED_EXPERTS, PREFIX, SESSIONS)
SEEDED_CASES = 700


def arrays_of(case: Case) -> dict[str, object]:
    """The case's columns as the explicit kernel reads them."""
    requests = case.requests
    n = len(requests)
    columns: dict[str, object] = {
        "arrival_ps": in_ps(requests.arrival_s),
        "prompt_tokens": requests.prompt_tokens,
        "output_tokens": requests.output_tokens,
        "priority": requests.priority,
    }
    if requests.think_s is not None and requests.session is not None:
        successor, think_ps, last = np.full(n, -1), np.zeros(n, np.int64), {}
        for i, (session, think_s) in enumerate(zip(requests.session.tolist(), requests.think_s, strict=True)):
            if session >= 0 and session in last and not np.isnan(think_s):
                successor[last[session]] = i
                think_ps[i] = in_ps(np.array(think_s))
            last[session] = i
        columns |= {"successor": successor, "think_ps": think_ps}
    if requests.block_ids is not None:
        dense: dict[int, int] = {}
        offsets, ids, units = [0], [], []
        for i in range(n):
            tokens = int(requests.prompt_tokens[i])
            tokens += int(requests.output_tokens[i]) if requests.session is not None else 0
            chain = requests.block_ids[requests.block_offsets[i] : requests.block_offsets[i + 1]].tolist()
            chain = chain[: tokens // requests.block_tokens]
            repeated = [k for k, name in enumerate(chain) if name in chain[:k]]
            chain = chain[: repeated[0]] if repeated else chain
            ids += [dense.setdefault(name, len(dense)) for name in chain]
            offsets.append(len(ids))
            units.append(len(chain))
        columns |= {"chain_offsets": np.array(offsets), "chain_ids": np.array(ids, np.uint32)}
        columns |= {"chain_units": np.array(units), "unit_tokens": requests.block_tokens}
    return columns


def play(case: Case, **options) -> ExplicitRun:
    return play_explicit(
        **arrays_of(case),
        table=case.table,
        limits=case.limits,
        clients=case.clients,
        ranks=case.ranks,
        speculation=case.speculation,
        **({"moe_tokens_shared": case.shared_experts} | options),
    )


def histogram_of(gaps: list[int]) -> np.ndarray:
    """Bins 0.2% wide: an exponent and nine bits of mantissa; none at all in bin 0."""
    mantissa, exponent = np.frexp(np.array(gaps, np.float64))
    bins = exponent * layout.HISTOGRAM_SUBBINS + ((mantissa - 0.5) * (2 * layout.HISTOGRAM_SUBBINS)).astype(np.int64)
    return np.bincount(np.where(np.array(gaps) == 0, 0, bins).astype(np.int64), minlength=layout.HISTOGRAM_BINS)


def assert_equal(case: Case) -> ExplicitRun:
    """The case played by both; everything the kernel reports is what the oracle saw."""
    run, plain = play(case), case.plain()
    columns = {"start_ps": "start", "first_ps": "first", "done_ps": "done", "preempted": "preemptions"}
    columns |= {name: name for name in ("lost", "hit_tokens", "reason")}
    for ours, theirs in columns.items():
        np.testing.assert_array_equal(getattr(run, ours), plain.column(theirs), err_msg=ours)
    arrived = plain.column("arrival") >= 0
    np.testing.assert_array_equal(run.arrival_ps[arrived], plain.column("arrival")[arrived])
    totals = run.totals
    assert totals[layout.STEPS] == plain.steps
    assert totals[layout.REFUSED] == plain.refused
    assert totals[layout.PREEMPTIONS] == plain.column("preemptions").sum()
    assert totals[layout.PEAK_BLOCKS] == plain.peak_blocks
    assert totals[layout.DECODE_PS] == plain.decode_ps
    assert totals[layout.DECODE_PS] + totals[layout.PREFILL_PS] == plain.busy_ps
    assert totals[layout.END_PS] == plain.end
    np.testing.assert_array_equal(run.histogram, histogram_of(plain.gaps))
    return run


def assert_same(a: ExplicitRun, b: ExplicitRun) -> None:
    for name in ("arrival_ps", "start_ps", "first_ps", "done_ps", "lost", "rank", "histogram", "totals"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


# Exactness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [COMMON, *EVERY], ids=lambda features: "+".join(features) or "common")
def test_equals_the_oracle_feature_by_feature(features):
    @settings(max_examples=100, deadline=None)
    @given(feature_cases(features))
    def check(case):
        assert_equal(case)

    check()


@settings(max_examples=400, deadline=None)
@given(st.data(), st.sets(st.sampled_from(EVERY)))
def test_equals_the_oracle_with_any_features_together(data, features):
    assert_equal(data.draw(feature_cases(frozenset().union(*features))))


def test_equals_the_oracle_on_seeded_cases_of_every_kind():
    """The same cases on every machine, and enough of each kind among them for the equality to mean something."""
    kinds = Counter()
    for seed in range(SEEDED_CASES):
        rng = np.random.default_rng(seed)
        features = frozenset().union(*(feature for feature in EVERY if rng.random() < 0.4))
        case = random_feature_case(seed, features)
        run = assert_equal(case)
        kinds[case.limits.policy.name] += 1
        kinds["preempted"] += bool(run.preempted.any())
        kinds["preempted twice"] += bool((run.preempted > 1).any())
        kinds["refused"] += run.totals[layout.REFUSED] > 0
        kinds["closed loop"] += case.clients > 0
        kinds["hits"] += bool(run.hit_tokens.any())
        kinds["tokens that come together"] += run.histogram[0] > 0
        kinds["every rank used"] += case.ranks > 1 and len(set(run.rank.tolist()) - {-1}) == case.ranks
        for reason in ("SEATS", "TOKENS", "KV"):
            kinds[reason] += bool((run.reason == getattr(layout, reason)).any())
    assert min(kinds.values()) > SEEDED_CASES / 50, kinds
    assert len(kinds) == 14


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("drafts", [0, 2])
def test_equals_the_oracle_at_the_size_of_a_small_server(policy, drafts):
    """Prompts of several chunks, three ranks of 24 seats, blocks that run out: the shape of real runs, once."""
    rng = np.random.default_rng(7)
    n = 300
    requests = Requests(
        arrival_s=np.sort(rng.integers(0, 10**11, n)) / 1e12,
        prompt_tokens=np.minimum(rng.lognormal(4.5, 1.0, n), 900).astype(np.int64) + 1,
        output_tokens=np.minimum(rng.lognormal(3.5, 1.0, n), 400).astype(np.int64) + 1,
    )
    limits = EngineLimits(
        max_num_batched_tokens=256,
        max_num_seqs=24,
        block_tokens=16,
        kv_blocks=100,
        policy=policy,
        async_scheduling=True,
        conservativeness=0.1,
    )
    speculation = Speculation(draft_tokens=drafts, acceptance=(0.5, 0.3, 0.2)) if drafts else None
    run = assert_equal(Case(requests, table_of(rng, 256, 24), limits, speculation=speculation, ranks=3))
    if policy is not Policy.TRTLLM_NO_EVICT:
        assert run.totals[layout.PREEMPTIONS] > 0
    assert run.totals[layout.PEAK_BLOCKS] > 90


# Laws ------------------------------------------------------------------------------------------------------------


def busy_case(**limits) -> Case:
    rng = np.random.default_rng(3)
    n = 60
    requests = Requests(
        arrival_s=np.sort(rng.integers(0, 3 * 10**10, n)) / 1e12,
        prompt_tokens=rng.integers(1, 100, n),
        output_tokens=rng.integers(1, 60, n),
    )
    bounds = {"max_num_batched_tokens": 64, "max_num_seqs": 8, "block_tokens": 4, "kv_blocks": 90} | limits
    return Case(requests, table_of(rng, 64, 8), EngineLimits(**bounds), ranks=2)


def test_a_run_can_be_interrupted_after_any_step_and_goes_on_unchanged(monkeypatch):
    whole = play(busy_case())
    monkeypatch.setattr(explicit, "NS_A_CALL", 1)
    assert_same(play(busy_case()), whole)


def test_times_scale_with_arrivals_and_costs():
    case = busy_case()
    table = case.table
    whole_pairs = replace(table, pair_fp=table.pair_fp >> 10 << 10)
    costs = {
        name: getattr(whole_pairs, name) * 3
        for name in (
            "token_ps",
            "prefill_ps",
            "decode_ps",
            "sequence_ps",
            "floor_ps",
            "context_ps",
            "window_ps",
            "pair_fp",
        )
    }
    once = play(replace(case, table=whole_pairs))
    slower = replace(case.requests, arrival_s=in_ps(case.requests.arrival_s) * 3 / 1e12)
    thrice = play(replace(case, table=replace(table, **costs), requests=slower))
    for name in ("start_ps", "first_ps", "done_ps"):
        np.testing.assert_array_equal(getattr(thrice, name), 3 * getattr(once, name))


def test_samples_add_up_and_change_nothing():
    case = busy_case()
    plain, sampled = play(case), play(case, sample_rows=16, sample_ps=10**8)
    assert_same(plain, sampled)
    rows, totals = sampled.samples, sampled.totals
    assert 8 <= len(rows) <= 16
    assert sampled.sample_ps % 10**8 == 0
    assert (np.diff(rows, axis=0)[:, [layout.S_TIME, layout.S_PREFILL_TOKENS, layout.S_DECODE_TOKENS]] >= 0).all()
    assert (rows[:, layout.S_TIME] >= sampled.sample_ps * np.arange(1, len(rows) + 1)).all()
    assert (rows[-1, [layout.S_PREFILL_PS, layout.S_DECODE_PS]] <= totals[[layout.PREFILL_PS, layout.DECODE_PS]]).all()
    assert rows[:, layout.S_BLOCKS].max() <= 2 * case.limits.kv_blocks
    assert rows[:, layout.S_RUNNING].max() <= 2 * case.limits.max_num_seqs


def test_one_rank_has_nobody_to_share_experts_with():
    case = replace(busy_case(), ranks=1)
    assert_same(play(case), play(case, moe_tokens_shared=True))


# Worked examples -------------------------------------------------------------------------------------------------


def play_plain(prompt, output, *, arrival=None, **options) -> ExplicitRun:
    """Steps of 100 ps, plenty of everything unless `limits` say otherwise."""
    limits = {"max_num_batched_tokens": 64, "max_num_seqs": 8, "block_tokens": 4, "kv_blocks": 1000}
    limits = EngineLimits(**(limits | options.pop("limits", {})))
    return play_explicit(
        np.array(arrival or [0] * len(prompt)),
        np.array(prompt),
        np.array(output),
        table=options.pop("table", constant_table(100, 64, 8)),
        limits=limits,
        **options,
    )


def test_a_threshold_lets_short_prompts_pass_a_long_one():
    """60 tokens at 20 a step need three steps; the short prompt behind it answers after one."""
    limits = {"long_prefill_token_threshold": 20, "max_num_batched_tokens": 32}
    assert play_plain([60, 10], [1, 1], limits=limits).first_ps.tolist() == [300, 100]
    assert play_plain([60, 10], [1, 1], limits={"max_num_batched_tokens": 32}).first_ps.tolist() == [200, 300]


def test_lower_priorities_wait_and_are_evicted_first():
    """One seat: the urgent request that comes during the first step overtakes the one that has waited since 0."""
    one_seat = play_plain(
        [4, 4, 4], [2, 1, 1], arrival=[0, 0, 50], priority=np.array([1, 1, 0]), limits={"max_num_seqs": 1}
    )
    assert one_seat.done_ps.tolist() == [200, 400, 300]
    # Four blocks for two sequences of two and then three blocks: the less urgent one goes although it came first.
    short = play_plain([8, 8], [4, 4], priority=np.array([1, 0]), limits={"kv_blocks": 4})
    assert short.preempted.tolist() == [1, 0]


def test_asynchronous_scheduling_sees_an_arrival_a_step_later():
    sync = play_plain([4, 4], [5, 1], arrival=[0, 150])
    ahead = play_plain([4, 4], [5, 1], arrival=[0, 150], limits={"async_scheduling": True})
    assert sync.start_ps.tolist() == [0, 200]
    assert ahead.start_ps.tolist() == [0, 300]


def test_drafts_that_are_all_accepted_take_a_third_of_the_steps():
    run = play_plain([4], [7], speculation=Speculation(draft_tokens=2, acceptance=(0, 0, 1), draft_ps=10))
    assert run.first_ps.tolist() == [100]
    assert run.done_ps.tolist() == [100 + 2 * 110]
    assert run.histogram[0] == 4  # of six gaps, two are whole steps


def test_ranks_wait_for_the_slowest():
    """A prompt of 50 tokens on one rank holds up the decodes of the other; vLLM deals to the emptier rank."""
    table = replace(constant_table(1, 64, 8), token_ps=np.arange(65))
    run = play_plain([4, 50, 4], [3, 1, 2], table=table, ranks=2)
    assert run.rank.tolist() == [0, 1, 0]
    # Step 1: 8 tokens against 50. Step 2: two decodes. Step 3: one.
    assert run.done_ps.tolist() == [50 + 2 + 1, 50, 50 + 2]


def test_experts_that_see_the_tokens_of_all_ranks_slow_the_ranks_with_few():
    """Rank 0 computes a prompt of 41 tokens, rank 1 decodes at 100 ps of context a step: the mean is 21 tokens."""
    table = replace(constant_table(1, 64, 8), token_ps=np.arange(65), context_ps=25)
    options = {"table": table, "ranks": 2, "arrival": [0, 0, 3]}
    apart = play_plain([2, 3, 41], [1, 2, 1], **options)
    shared = play_plain([2, 3, 41], [1, 2, 1], moe_tokens_shared=True, **options)
    # Step 1: prompts of 2 and 3 tokens take 3 ps. Step 2: one decode of context 3 takes 1 + 4 x 25 = 101 ps alone.
    assert apart.rank.tolist() == shared.rank.tolist() == [0, 1, 0]
    assert apart.done_ps.tolist() == [3, 3 + 101, 3 + 101]
    assert shared.done_ps.tolist() == [3, 3 + 21 + 100, 3 + 21 + 100]


# Draws -----------------------------------------------------------------------------------------------------------


def test_splitmix64_has_its_known_answers():
    """The first outputs of the generator seeded with 0."""
    states = [k * 0x9E3779B97F4A7C15 % 2**64 for k in range(3)]
    known = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [int(draws.splitmix64(np.uint64(state))) for state in states] == known


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**31 - 1))
def test_keys_and_words_are_those_of_plain_integers(word, seed, request_index):
    assert int(draws.splitmix64(np.uint64(word))) == plain_splitmix64(word)
    assert int(draws.request_key(seed, request_index)) == plain_splitmix64(seed * 2**32 + request_index)


def test_tokens_are_accepted_as_often_as_asked():
    acceptance = (0.1, 0.0, 0.6, 0.3)
    thresholds = draws.thresholds_of(acceptance)
    key = np.uint64(draws.request_key(5, 17))
    counts = Counter(int(draws.accepted_tokens(key, step, thresholds)) for step in range(20_000))
    shares = [counts[tokens] / 20_000 for tokens in range(1, 5)]
    np.testing.assert_allclose(shares, acceptance, atol=0.015)
    assert counts[2] == 0


def test_certain_acceptance_is_certain():
    for tokens in range(1, 4):
        thresholds = draws.thresholds_of([float(k == tokens) for k in range(1, 4)])
        assert {int(draws.accepted_tokens(np.uint64(key), 0, thresholds)) for key in range(100)} == {tokens}


# Bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranks": 0}, "ranks? must be at least 1|at least one rank"),
        ({"table": constant_table(1, 63, 8)}, "cannot price"),
        (
            {
                "limits": {"policy": Policy.SGLANG, "max_num_batched_tokens": 8},
                "speculation": Speculation(draft_tokens=1, acceptance=(0.5, 0.5)),
            },
            "2 tokens of each sequence",
        ),
        (
            {
                "limits": {"prefix_caching": True},
                "chain_offsets": np.array([0, 1]),
                "chain_ids": np.zeros(1, np.uint32),
                "chain_units": np.ones(1, np.int64),
                "unit_tokens": 6,
            },
            "whole KV pages",
        ),
    ],
)
def test_what_cannot_be_played_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        play_plain(**({"prompt": [4], "output": [4]} | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": [2**31]}, "of up to 2,147,483,652 tokens"),
        ({"output": [2**31 - 4]}, "of up to 2,147,483,648 tokens"),
        (
            {"speculation": Speculation(draft_tokens=40, acceptance=(0.5, *[0.0] * 39, 0.5)), "prompt": [2**31 - 50]},
            "up to",
        ),
        ({"limits": {"max_new_tokens": 2**31 - 1}}, "of up to 2,147,483,651 tokens"),
        ({"table": replace(constant_table(1, 64, 8), context_ps=10**12), "prompt": [2000]}, "steps of up to 10,000 s"),
        ({"table": constant_table(10**15, 64, 8), "output": [8000]}, "adds up 8,001 steps to at most"),
        (
            {
                "table": constant_table(10**15, 64, 8),
                "limits": {"max_num_seqs": 1},
                "prompt": [4] * 4,
                "output": [1500] * 4,
            },
            "clock ends after 53 days",
        ),
    ],
)
def test_what_is_too_long_for_the_simulator_is_refused(options, message):
    known = {"prompt": [4], "output": [4], "limits": {"kv_blocks": 10_000}}
    with pytest.raises(UnsupportedError, match=message):
        play_plain(**(known | options))


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        ({"draft_tokens": 1.0}, ValueError, "draft_tokens: expected a whole number"),
        ({"draft_tokens": -1}, ValueError, "draft_tokens cannot be negative"),
        ({"draft_tokens": 10**6}, UnsupportedError, "draft_tokens: the simulator holds at most 65,536"),
        ({"draft_ps": 0.5}, ValueError, "draft_ps: expected a whole number"),
        ({"draft_ps": 10**15 + 1}, UnsupportedError, "draft_ps: the simulator holds at most"),
        ({"seed": 2**32}, UnsupportedError, "seed: the simulator holds at most 4,294,967,295"),
        ({"seed": True}, ValueError, "seed: expected a whole number"),
        ({"acceptance": (0.5, float("nan"))}, ValueError, "must sum to 1"),
        ({"acceptance": (0.5, float("inf"))}, ValueError, "must sum to 1"),
    ],
)
def test_guesses_that_cannot_be_are_refused(bad, error, says):
    with pytest.raises(error, match=says):
        Speculation(**{"draft_tokens": 1, "acceptance": (0.5, 0.5)} | bad)
