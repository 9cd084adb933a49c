"""The compiled kernel against the plain per-step oracle: equal, not close."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim import oracle
from trilemma.latency.table import StepTable
from trilemma.sim.replica import EngineLimits, simulate
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests


def table_of(rng: np.random.Generator, tokens: int, seqs: int) -> StepTable:
    return StepTable(
        token_ps=np.sort(rng.integers(1, 10**9, tokens + 1)),
        prefill_ps=np.sort(rng.integers(0, 10**8, tokens + 1)),
        sequence_ps=np.sort(rng.integers(0, 10**8, seqs + 1)),
        context_fp=int(rng.integers(0, 10**7)),
        pair_fp=int(rng.integers(0, 10**6)),
    )


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 40))
    seqs = draw(st.integers(1, 12))
    limits = EngineLimits(
        max_num_batched_tokens=seqs + draw(st.integers(0, 64)),
        max_num_seqs=seqs,
        block_tokens=draw(st.sampled_from([1, 3, 16])),
        kv_blocks=draw(st.integers(2, 60)),
    )
    scale = draw(st.sampled_from([0, 10**7, 10**9, 10**11]))  # from all at once to nearly idle
    arrival_ps = np.sort(rng.integers(0, n * scale + 1, n))
    requests = Requests(
        arrival_s=arrival_ps / PS_PER_S,
        prompt_tokens=rng.integers(1, draw(st.sampled_from([4, 30, 120])), n),
        output_tokens=rng.integers(1, draw(st.sampled_from([2, 10, 60])), n),
    )
    clients = draw(st.sampled_from([0, 0, 1, 5]))
    return requests, table_of(rng, limits.max_num_batched_tokens, seqs), limits, clients


def assert_equal(requests, table, limits, clients):
    if clients:
        requests = Requests(
            arrival_s=np.zeros(len(requests)),
            prompt_tokens=requests.prompt_tokens,
            output_tokens=requests.output_tokens,
        )
    run = simulate(requests, table, limits, clients=clients)
    arrival = [round(a * PS_PER_S) for a in requests.arrival_s]
    plain = oracle.play(
        arrival, requests.prompt_tokens.tolist(), requests.output_tokens.tolist(), table, limits, clients
    )

    def seconds(values):
        return np.array([np.nan if v < 0 else v / PS_PER_S for v in values])

    t = run.timings
    np.testing.assert_array_equal(t.first_token_s, seconds([r.first for r in plain.requests]))
    np.testing.assert_array_equal(t.done_s, seconds([r.done for r in plain.requests]))
    start = seconds([r.start for r in plain.requests]) - np.array([r.arrival / PS_PER_S for r in plain.requests])
    np.testing.assert_array_equal(run.queued_s, start)
    np.testing.assert_array_equal(t.preemptions, [r.preemptions for r in plain.requests])
    np.testing.assert_array_equal(t.recomputed_tokens, [r.lost for r in plain.requests])
    assert run.steps == plain.steps
    assert run.refused == plain.refused
    assert run.peak_kv_share == plain.peak_blocks / limits.kv_blocks
    gaps = np.array(plain.gaps) / PS_PER_S
    counted, _ = np.histogram(gaps, bins=t.itl_edges_s)
    np.testing.assert_array_equal(t.itl_counts, counted)


@settings(max_examples=600, deadline=None)
@given(cases())
def test_kernel_equals_oracle(case):
    assert_equal(*case)


@pytest.mark.parametrize("seed", range(20))
def test_kernel_equals_oracle_under_heavy_preemption(seed):
    rng = np.random.default_rng(seed)
    n = 60
    requests = Requests(
        arrival_s=np.sort(rng.uniform(0, 1e-3, n)),
        prompt_tokens=rng.integers(1, 80, n),
        output_tokens=rng.integers(1, 80, n),
    )
    limits = EngineLimits(max_num_batched_tokens=64, max_num_seqs=16, block_tokens=4, kv_blocks=60)
    table = table_of(rng, 64, 16)
    assert simulate(requests, table, limits).timings.preemptions.sum() > 0
    assert_equal(requests, table, limits, 0)
