"""Bounds of the simulator and what a run reports."""

import numpy as np
import pytest

from tests.sim.cases import constant_table, random_case
from trilemma.errors import UnsupportedError
from trilemma.sim.replica import LATEST_ARRIVAL_S, EngineLimits, simulate
from trilemma.workload.requests import Requests

GOOD = {"max_num_batched_tokens": 8, "max_num_seqs": 4, "block_tokens": 16, "kv_blocks": 10}
LIMITS = EngineLimits(**GOOD)
TABLE = constant_table(10**9, 8, 4)


def requests(n=4, first_s=0.0):
    ones = np.ones(n, np.int64)
    return Requests(arrival_s=first_s + np.arange(n, dtype=float), prompt_tokens=ones, output_tokens=ones)


@pytest.mark.parametrize(
    "bad",
    [
        {"max_num_seqs": 0},
        {"max_num_seqs": -1},
        {"block_tokens": 0},
        {"kv_blocks": 0},
        {"kv_blocks": -5},
        {"max_num_batched_tokens": 3},
        {"max_num_batched_tokens": 0},
    ],
)
def test_limits_without_room_are_refused(bad):
    with pytest.raises(ValueError, match="at least"):
        EngineLimits(**GOOD | bad)


def test_one_of_everything_is_enough():
    tiny = EngineLimits(max_num_batched_tokens=1, max_num_seqs=1, block_tokens=1, kv_blocks=1)
    assert simulate(requests(), TABLE, tiny).timings.finished.all()


@pytest.mark.parametrize("replicas", [0, -1])
def test_no_replicas_are_refused(replicas):
    with pytest.raises(ValueError, match="at least one replica"):
        simulate(requests(), TABLE, LIMITS, replicas=replicas)


@pytest.mark.parametrize("clients", [1, 2, -1])
def test_fewer_clients_than_replicas_are_refused(clients):
    with pytest.raises(ValueError, match="cannot keep 3 replicas busy"):
        simulate(requests(), TABLE, LIMITS, replicas=3, clients=clients)


@pytest.mark.parametrize(("tokens", "seqs"), [(7, 4), (8, 3)])
def test_a_table_smaller_than_the_limits_is_refused(tokens, seqs):
    with pytest.raises(ValueError, match="cannot price"):
        simulate(requests(), constant_table(1, tokens, seqs), LIMITS)


def test_arrivals_outside_the_clock_are_refused():
    with pytest.raises(ValueError, match="count from 0"):
        simulate(requests(first_s=-0.5), TABLE, LIMITS)
    with pytest.raises(UnsupportedError, match="cut a window"):
        simulate(requests(first_s=1.7e9), TABLE, LIMITS)
    late = simulate(requests(first_s=LATEST_ARRIVAL_S - 3), TABLE, LIMITS)
    np.testing.assert_allclose(late.timings.e2e_s, 1e-3, rtol=1e-5)


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
