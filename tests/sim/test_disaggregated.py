"""Prefill and decode pools: the compiled pools against the plain ones, and the laws of both."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim import oracle_disaggregated as oracle
from tests.sim.cases import Chooser, Drawn, Seeded, compose, engine, in_ps, table_of
from trilemma.sim import layout
from trilemma.sim.disaggregated import DisaggregatedRun, Pool, Pools, Transfer, simulate_disaggregated
from trilemma.sim.engine import Policy
from trilemma.sim.fleet import Routing
from trilemma.workload.requests import Requests

FEATURES = ("prefix", "sessions", "async")
SEEDED_CASES = 400


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

    pools = Pools(
        prefill=Pool(
            table=case.table, limits=case.limits, replicas=choose.between(1, 3), routing=choose.one_of(POOL_ROUTING)
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
            overlap=choose.between(0, 2) == 0,
        ),
        first_token=choose.one_of(("prefill", "decode")),
    )
    return Case(case.requests, pools, case.clients, choose.between(0, 2) > 0)


POOL_ROUTING = (Routing.ROUND_ROBIN, Routing.LEAST_OUTSTANDING)


def random_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    return build(Seeded(rng), rng)


@st.composite
def cases(draw):
    return build(Drawn(draw), np.random.default_rng(draw(st.integers(0, 2**32 - 1))))


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


def test_equals_the_oracle_on_seeded_cases():
    for seed in range(SEEDED_CASES):
        assert_equal(random_case(seed))
