"""The compiled kernel against the plain per-step oracle: equal, not close."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.cases import (
    ASYNC,
    COMMON,
    FLEET,
    PREFIX,
    SESSIONS,
    Case,
    cases,
    feature_cases,
    random_feature_case,
    table_of,
)
from tests.sim.oracle import Outcome
from tests.sim.oracle_engine import Engine
from trilemma.sim.engine import EngineLimits, Policy
from trilemma.sim.fleet import Routing
from trilemma.sim.replica import Run, WaitReason
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests

FEATURES = (PREFIX, SESSIONS, FLEET, ASYNC)
SEEDED_CASES = 2400


def differences(case: Case, run: Run, plain: Outcome) -> list[str]:
    """Names of what the kernel reports and the oracle did not see so."""
    timings = run.timings

    def seconds(name: str) -> np.ndarray:
        ps = plain.column(name)
        return np.where(ps < 0, np.nan, ps / PS_PER_S)

    gaps, _ = np.histogram(np.array(plain.gaps) / PS_PER_S, bins=timings.itl_edges_s)
    pairs = {
        "arrival": (timings.arrival_s, seconds("arrival")),
        "queued": (run.queued_s, seconds("start") - seconds("arrival")),
        "first token": (timings.first_token_s, seconds("first")),
        "done": (timings.done_s, seconds("done")),
        "preemptions": (timings.preemptions, plain.column("preemptions")),
        "recomputed": (timings.recomputed_tokens, plain.column("lost")),
        "reason": (run.wait_reason, plain.column("reason")),
        "replica": (run.replica, plain.column("replica")),
        "hits": (plain.column("hit_tokens") if run.hit_tokens is None else run.hit_tokens, plain.column("hit_tokens")),
        "gaps": (timings.itl_counts, gaps),
        "steps": (run.steps, plain.steps),
        "refused": (run.refused, plain.refused),
        "failed": (run.failed, plain.failed),
        "peak KV": (run.peak_kv_share, plain.peak_blocks / case.limits.kv_blocks),
        "decode time": (run.decode_s, plain.decode_ps / PS_PER_S),
        "prefill time": (run.prefill_s, (plain.busy_ps - plain.decode_ps) / PS_PER_S),
        "span": (run.span_s >= plain.end / PS_PER_S, True),  # it may end with a request that is refused
    }
    return [name for name, (ours, theirs) in pairs.items() if not same(ours, theirs)]


def same(a: object, b: object) -> bool:
    one, other = np.asarray(a), np.asarray(b)
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def assert_equal(case: Case) -> Run:
    """The case played by both; everything the kernel reports is what the oracle saw."""
    run, plain = case.play(), case.plain()
    assert not differences(case, run, plain), (differences(case, run, plain), case.limits, case.fleet, case.clients)
    return run


# Random cases ----------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(cases())
def test_equals_the_oracle_on_small_replicas(case):
    assert_equal(case)


@pytest.mark.parametrize("features", [COMMON, *FEATURES], ids=lambda features: "+".join(features) or "common")
def test_equals_the_oracle_feature_by_feature(features):
    @settings(max_examples=100, deadline=None)
    @given(feature_cases(features))
    def check(case):
        assert_equal(case)

    check()


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sets(st.sampled_from(FEATURES)))
def test_equals_the_oracle_with_any_features_together(data, features):
    assert_equal(data.draw(feature_cases(frozenset().union(*features))))


# The same cases everywhere ---------------------------------------------------------------------------------------


def seeded_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    features = frozenset().union(*(feature for feature in FEATURES if rng.random() < 0.4))
    return random_feature_case(seed, features)


class Watched:
    """What only somebody who looks into the oracle's steps can tell."""

    def __init__(self) -> None:
        self.chunked = self.sent_again = False
        self.inside: dict[int, Engine] = {}  # who had a request last

    def __call__(self, engine: Engine) -> None:
        self.chunked |= any(0 < r.computed < r.prompt for r in engine.running)
        for r in (*engine.running, *engine.waiting):
            self.sent_again |= self.inside.setdefault(r.index, engine) is not engine
            self.inside[r.index] = engine


def kinds_of(case: Case, run: Run, watched: Watched) -> list[str]:
    """Which kinds a case is of."""
    timings, limits, fleet, requests = run.timings, case.limits, case.fleet, case.requests
    preempted, served = timings.preemptions > 0, timings.finished
    prompts, total = requests.prompt_tokens, requests.prompt_tokens + requests.output_tokens
    # A table whose floor is too low to matter gives other times where it decides.
    window, floor = case.table.window_tokens, case.table.floor_ps.any()
    bare = replace(case, table=replace(case.table, floor_ps=np.zeros_like(case.table.floor_ps)))
    found = {
        limits.policy.name: True,
        "open loop": not case.clients and requests.think_s is None,
        "closed loop": case.clients > 0,
        "turns after thinking": requests.think_s is not None,
        "preempted": preempted.any() and limits.policy is not Policy.SGLANG,
        "preempted twice": (timings.preemptions > 1).any(),
        "retracted": preempted.any() and limits.policy is Policy.SGLANG,
        "refused": run.refused > 0,
        "all refused": run.refused == len(requests),
        "chunked": watched.chunked,
        "whole prompts only": not limits.chunked_prefill and bool((prompts > 1).any()),
        "admitted by the chunk": not limits.reserve_full_isl,
        "decodes mixed in": limits.mixed_chunk,
        "asynchronous": limits.async_scheduling,
        "hits": run.hit_tokens is not None and run.hit_tokens.any(),
        "hits of a session": requests.think_s is not None and run.hit_tokens is not None and run.hit_tokens.any(),
        "windows crossed": window and bool(((prompts < window) & (total > window) & served).any()),
        "windows passed": window and bool((prompts > window).any()),
        "floor decides": floor and bool((bare.play().timings.done_s != timings.done_s)[served].any()),
        "lost with a replica": run.failed > 0,
        "sent again": watched.sent_again,
        "drained": any(t < np.inf for t in fleet.drain_s),
        "cold start": any(t > 0 for t in fleet.ready_s),
        "idle between requests": run.busy_share < 0.5,
        "seats full": run.mean_running > 0.9 * limits.max_num_seqs,
    }
    found |= {f"waited for {r.name}": bool((run.wait_reason == r).any()) for r in WaitReason if r}
    if fleet.replicas > 1:
        found[f"routed by {fleet.routing.name}"] = True
    return [name for name, is_so in found.items() if is_so]


def test_equals_the_oracle_on_seeded_cases_of_every_kind():
    """Enough of each kind among them for the equality to mean something."""
    kinds: Counter[str] = Counter()
    for seed in range(SEEDED_CASES):
        case, watched = seeded_case(seed), Watched()
        run, plain = case.play(), case.plain(watch=watched)
        assert not differences(case, run, plain), (seed, differences(case, run, plain))
        kinds.update(kinds_of(case, run, watched))
    assert min(kinds.values()) > SEEDED_CASES / 100, kinds
    assert len(kinds) == 24 + len(Policy) + len(WaitReason) - 1 + len(Routing), kinds


# Larger ones -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [Policy.VLLM, Policy.TRTLLM_MAX_UTILIZATION, Policy.SGLANG])
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_oracle_under_heavy_preemption(seed, policy):
    rng = np.random.default_rng(seed)
    n = 60
    requests = Requests(
        arrival_s=np.sort(rng.integers(0, 10**9, n)) / PS_PER_S,
        prompt_tokens=rng.integers(1, 40, n),
        output_tokens=rng.integers(1, 80, n),
    )
    limits = EngineLimits(
        max_num_batched_tokens=64,
        max_num_seqs=16,
        block_tokens=4,
        kv_blocks=60,
        policy=policy,
        conservativeness=0.05,
    )
    run = assert_equal(Case(requests, table_of(rng, 64, 16), limits))
    assert run.timings.preemptions.sum() > 0


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("clients", [0, 40])
def test_equals_the_oracle_at_the_size_of_a_small_server(clients, policy):
    """Prompts of several chunks, 32 seats, blocks of 16 tokens that run out: the shape of real runs, once."""
    rng = np.random.default_rng(7)
    n = 300
    arrival_ps = np.zeros(n, np.int64) if clients else np.sort(rng.integers(0, 10**11, n))
    requests = Requests(
        arrival_s=arrival_ps / PS_PER_S,
        prompt_tokens=np.minimum(rng.lognormal(4.5, 1.0, n), 900).astype(np.int64) + 1,
        output_tokens=np.minimum(rng.lognormal(3.5, 1.0, n), 400).astype(np.int64) + 1,
    )
    limits = EngineLimits(
        max_num_batched_tokens=256,
        max_num_seqs=32,
        block_tokens=16,
        kv_blocks=150,
        policy=policy,
        conservativeness=0.1,
    )
    run = assert_equal(Case(requests, table_of(rng, 256, 32), limits, clients))
    if policy is not Policy.TRTLLM_NO_EVICT:
        assert run.timings.preemptions.sum() > 0
    assert run.peak_kv_share > 0.9
