"""The compiled kernel against the plain per-step oracle: equal, not close."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings

from tests.sim import oracle
from tests.sim.cases import Case, cases, in_ps, random_case, table_of
from trilemma.sim.replica import EngineLimits, Run
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests

SEEDED_CASES = 2400


def assert_equal(case: Case) -> Run:
    """The case played by both; everything the kernel reports is what the oracle saw."""
    run, requests = case.play(), case.requests
    plain = oracle.play(
        in_ps(requests.arrival_s).tolist(),
        requests.prompt_tokens.tolist(),
        requests.output_tokens.tolist(),
        case.table,
        case.limits,
        case.clients,
    )

    def seconds(values):
        return np.array([np.nan if v < 0 else v / PS_PER_S for v in values])

    t = run.timings
    np.testing.assert_array_equal(t.arrival_s, seconds([r.arrival for r in plain.requests]))
    np.testing.assert_array_equal(t.first_token_s, seconds([r.first for r in plain.requests]))
    np.testing.assert_array_equal(t.done_s, seconds([r.done for r in plain.requests]))
    np.testing.assert_array_equal(run.queued_s, seconds([r.start for r in plain.requests]) - t.arrival_s)
    np.testing.assert_array_equal(t.preemptions, [r.preemptions for r in plain.requests])
    np.testing.assert_array_equal(t.recomputed_tokens, [r.lost for r in plain.requests])
    assert run.steps == plain.steps
    assert run.refused == plain.refused
    assert run.peak_kv_share == plain.peak_blocks / case.limits.kv_blocks
    assert run.decode_s == plain.decode_ps / PS_PER_S
    assert run.prefill_s == (plain.busy_ps - plain.decode_ps) / PS_PER_S
    gaps = np.array(plain.gaps) / PS_PER_S
    counted, _ = np.histogram(gaps, bins=t.itl_edges_s)
    np.testing.assert_array_equal(t.itl_counts, counted)
    return run


@settings(max_examples=600, deadline=None)
@given(cases())
def test_kernel_equals_oracle(case):
    assert_equal(case)


def test_kernel_equals_oracle_on_seeded_cases_of_every_kind():
    """The same cases on every machine, and enough of each kind among them for the equality to mean something."""
    kinds = Counter()
    for seed in range(SEEDED_CASES):
        case = random_case(seed)
        run = assert_equal(case)
        longest = int(case.requests.prompt_tokens.max())
        kinds["preempted"] += bool(run.timings.preemptions.any())
        kinds["preempted twice"] += bool((run.timings.preemptions > 1).any())
        kinds["refused"] += run.refused > 0
        kinds["all refused"] += run.refused == len(case.requests)
        kinds["chunked"] += longest > case.limits.max_num_batched_tokens
        kinds["closed loop"] += case.clients > 0
        kinds["closed loop with refusals"] += case.clients > 0 and run.refused > 0
        kinds["idle between requests"] += run.busy_share < 0.5
        kinds["seats full"] += run.mean_running > 0.9 * case.limits.max_num_seqs
    assert min(kinds.values()) > SEEDED_CASES / 50, kinds
    assert len(kinds) == 9


@pytest.mark.parametrize("seed", range(20))
def test_kernel_equals_oracle_under_heavy_preemption(seed):
    rng = np.random.default_rng(seed)
    n = 60
    requests = Requests(
        arrival_s=np.sort(rng.integers(0, 10**9, n)) / PS_PER_S,
        prompt_tokens=rng.integers(1, 80, n),
        output_tokens=rng.integers(1, 80, n),
    )
    limits = EngineLimits(max_num_batched_tokens=64, max_num_seqs=16, block_tokens=4, kv_blocks=60)
    run = assert_equal(Case(requests, table_of(rng, 64, 16), limits))
    assert run.timings.preemptions.sum() > 0


@pytest.mark.parametrize("clients", [0, 40])
def test_kernel_equals_oracle_at_the_size_of_a_small_server(clients):
    """Prompts of several chunks, 32 seats, blocks of 16 tokens that run out: the shape of real runs, once."""
    rng = np.random.default_rng(7)
    n = 400
    arrival_ps = np.zeros(n, np.int64) if clients else np.sort(rng.integers(0, 10**11, n))
    requests = Requests(
        arrival_s=arrival_ps / PS_PER_S,
        prompt_tokens=np.minimum(rng.lognormal(4.5, 1.0, n), 900).astype(np.int64) + 1,
        output_tokens=np.minimum(rng.lognormal(3.5, 1.0, n), 400).astype(np.int64) + 1,
    )
    limits = EngineLimits(max_num_batched_tokens=256, max_num_seqs=32, block_tokens=16, kv_blocks=150)
    run = assert_equal(Case(requests, table_of(rng, 256, 32), limits, clients))
    assert run.timings.preemptions.sum() > 0
    assert run.peak_kv_share > 0.95
