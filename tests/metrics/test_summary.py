"""Percentiles, goodput and verdicts from timings, measured or simulated."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trilemma.metrics.limits import LATENCIES, RequestBounds, parse_limit, request_bounds
from trilemma.metrics.summary import (
    BLOCK_BINS,
    REPORTED_QUANTILES,
    histogram_quantile,
    in_limits,
    judge,
    makespan_s,
    quantile,
    select,
    sorted_quantile,
    summarise,
    verdict,
)
from trilemma.metrics.timings import Timings

NAN = np.nan


def limits(*texts):
    return tuple(parse_limit(text, where="limits") for text in texts)


def timings(arrival, first, done, output, *, prompt=None, edges=None, counts=None):
    n = len(arrival)
    zeros = np.zeros(n, np.int64)
    return Timings(
        arrival_s=np.array(arrival, float),
        first_token_s=np.array(first, float),
        done_s=np.array(done, float),
        prompt_tokens=zeros + 1 if prompt is None else np.array(prompt),
        output_tokens=np.array(output, np.int64).reshape(n),
        preemptions=zeros,
        recomputed_tokens=zeros,
        itl_edges_s=edges,
        itl_counts=counts,
    )


NOTHING = timings([], [], [], [])
# Four requests: quick, slow to start, one token alone, refused.
FOUR = timings([0, 1, 2, 3], [0.5, 4, 2.25, NAN], [2.5, 5, 2.25, NAN], [5, 11, 1, 8])


# Quantiles -----------------------------------------------------------------------------------------------------


@given(arrays(float, st.integers(1, 60), elements=st.floats(-1e6, 1e6)), st.floats(0, 1))
def test_quantile_is_numpys_on_finite_values(values, q):
    before = values.copy()
    assert quantile(values, q) == pytest.approx(np.quantile(values, q), rel=1e-9, abs=1e-9)
    np.testing.assert_array_equal(values, before)


@given(arrays(float, st.integers(1, 40), elements=st.floats(0, 1e6)), st.integers(0, 10), st.floats(0.01, 0.99))
def test_a_missing_value_is_an_infinite_one(values, missing, q):
    with_nan = np.concatenate([values, np.full(missing, NAN)])
    position = q * (with_nan.size - 1)
    got = quantile(with_nan, q)
    assert not math.isnan(got)
    if math.ceil(position) >= values.size and position != values.size - 1:
        assert got == math.inf
    else:
        assert min(values) <= got <= max(values)


@given(arrays(float, st.integers(1, 40), elements=st.floats(0, 1e6)), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_quantile_is_never_smaller(values, one, other):
    assert quantile(values, min(one, other)) <= quantile(values, max(one, other)) * (1 + 1e-12)


def test_nothing_has_no_quantile():
    assert quantile(np.array([]), 0.5) is None
    assert histogram_quantile(np.array([0.0, 1.0]), np.array([0]), 0.5) is None


EDGES = np.ldexp(0.5 + (np.arange(513 * 40) % 512) / 1024, np.arange(513 * 40) // 512 - 30)  # bins 0.2% wide


@settings(max_examples=300)
@given(
    st.lists(st.floats(1e-6, 100), min_size=1, max_size=300),
    st.one_of(st.floats(0.001, 0.999), st.sampled_from(REPORTED_QUANTILES)),
)
def test_a_histogram_s_quantile_is_within_one_bin_of_the_value_itself(values, q):
    """The exact one is the smallest value that at least a share q of all values do not exceed."""
    counts, _ = np.histogram(values, bins=EDGES)
    exact = np.sort(values)[max(0, math.ceil(q * len(values)) - 1)]
    got = histogram_quantile(EDGES, counts, q)
    assert got == pytest.approx(exact, rel=0.002)
    assert EDGES[np.searchsorted(EDGES, exact, side="right") - 1] <= got


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=3 * BLOCK_BINS),
    st.floats(1e-3, 1),
    st.sampled_from([1, BLOCK_BINS]),
)
def test_a_histogram_s_quantile_lies_in_the_bin_that_counting_one_by_one_finds(few, q, apart):
    counts = np.zeros(apart * len(few), dtype=np.int64)
    counts[::apart] = few
    edges = np.arange(counts.size + 1.0)
    got = histogram_quantile(edges, counts, q)
    if not counts.any():
        assert got is None
        return
    rank, passed = q * int(counts.sum()), 0
    for i, count in enumerate(counts.tolist()):
        if passed + count >= rank and count:
            assert got == pytest.approx(i + (rank - passed) / count)
            return
        passed += count


@given(
    arrays(np.float64, st.integers(1, 60), elements=st.sampled_from([0.0, 0.5, 1.0, 7.25, np.inf, NAN])),
    st.floats(0, 1),
)
def test_a_quantile_is_that_of_the_values_in_order(values, q):
    assert quantile(values, q) == sorted_quantile(np.sort(values), q)


def test_a_histogram_s_quantile_is_numpys_on_many_values():
    values = np.random.default_rng(0).lognormal(-3.5, 0.5, 50_000)
    counts, _ = np.histogram(values, bins=EDGES)
    for q in REPORTED_QUANTILES:
        assert histogram_quantile(EDGES, counts, q) == pytest.approx(np.quantile(values, q), rel=0.003)


# Single requests -----------------------------------------------------------------------------------------------


def test_latencies_by_definition():
    np.testing.assert_array_equal(FOUR.ttft_s, [0.5, 3, 0.25, NAN])
    np.testing.assert_array_equal(FOUR.e2e_s, [2.5, 4, 0.25, NAN])
    np.testing.assert_array_equal(FOUR.tpot_s, [0.5, 0.1, NAN, NAN])
    np.testing.assert_array_equal(FOUR.finished, [True, True, True, False])
    assert len(FOUR) == 4


@pytest.mark.parametrize(
    ("bounds", "good"),
    [
        (RequestBounds(), [True, True, True, False]),
        (RequestBounds(ttft_s=0.5), [True, False, True, False]),
        (RequestBounds(tpot_s=0.2), [False, True, True, False]),  # one token has no TPOT to miss
        (RequestBounds(tpot_s=1e-9), [False, False, True, False]),
        (RequestBounds(e2e_s=2.5), [True, False, True, False]),
        (RequestBounds(done_s=2.5), [True, False, True, False]),
        (RequestBounds(ttft_s=0.5, tpot_s=0.2), [False, False, True, False]),
    ],
)
def test_a_request_is_good_when_it_met_every_bound_and_refused_ones_miss(bounds, good):
    np.testing.assert_array_equal(in_limits(FOUR, bounds), good)


def test_an_itl_limit_judges_single_requests_by_their_tpot():
    np.testing.assert_array_equal(
        in_limits(FOUR, request_bounds(limits("itl p99 <= 200 ms"))),
        in_limits(FOUR, request_bounds(limits("tpot p99 <= 200 ms"))),
    )


@given(st.data())
def test_goodput_never_rises_as_a_bound_tightens(data):
    n = data.draw(st.integers(1, 30))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    arrival = np.sort(rng.uniform(0, 10, n))
    first = arrival + rng.exponential(1, n)
    done = first + rng.exponential(1, n)
    refused = rng.random(n) < 0.1
    first[refused] = done[refused] = NAN
    run = timings(arrival, first, done, rng.integers(1, 50, n))
    ttft_s, tpot_s = data.draw(st.floats(0.01, 3)), data.draw(st.floats(0.001, 1))
    loose = in_limits(run, RequestBounds(ttft_s=2 * ttft_s, tpot_s=2 * tpot_s))
    tight = in_limits(run, RequestBounds(ttft_s=ttft_s, tpot_s=tpot_s))
    assert (loose | ~tight).all()
    assert not in_limits(run, RequestBounds())[refused].any()


# Summaries -----------------------------------------------------------------------------------------------------


def test_a_summary_of_four_requests():
    summary = summarise(FOUR, limits("ttft p99 <= 0.5 s", "ttft p75 <= 9 s", "goodput >= 40%"))
    assert (summary.requests, summary.finished, summary.preemptions) == (4, 3, 0)
    assert summary.span_s == 5.0
    assert summary.requests_per_s == pytest.approx(3 / 5)
    assert summary.output_tokens_per_s == pytest.approx(17 / 5)
    assert summary.goodput_share == 0.5
    assert summary.values["ttft_p50_s"] == 1.75
    assert summary.values["ttft_p99_s"] == math.inf  # of the refused one
    assert summary.values["ttft_mean_s"] == math.inf
    assert summary.values["ttft_p75_s"] == math.inf
    assert summary.values["tpot_p50_s"] == 0.5  # three requests of more than one token, the refused one infinite
    assert summary.values["makespan_s"] == math.inf
    assert summary.values["itl_p99_s"] is None
    assert summary.value(limits("goodput >= 40%")[0]) == 0.5


def test_a_summary_of_nothing_has_no_numbers_rather_than_zeros():
    summary = summarise(NOTHING, limits("ttft p99 <= 1 s", "itl p99 <= 1 s", "deadline <= 1 h", "goodput >= 95%"))
    assert (summary.requests, summary.finished) == (0, 0)
    assert set(summary.values.values()) == {None}
    assert {f"{m}_{s}_s" for m in LATENCIES for s in ("mean", "p50", "p90", "p95", "p99")} <= summary.values.keys()
    assert summary.goodput_share is None
    assert makespan_s(NOTHING) is None


def test_nothing_keeps_no_limit():
    asked = limits("ttft p99 <= 1 s", "itl mean <= 1 s", "deadline <= 1 h", "goodput >= 95%")
    assert verdict(NOTHING, asked) == {
        "ttft_p99_s": None,
        "itl_mean_s": None,
        "makespan_s": None,
        "goodput_share": None,
    }
    assert len(judge(verdict(NOTHING, asked), asked)) == 4


def test_goodput_is_unknown_without_limits():
    assert summarise(FOUR).goodput_share is None


def test_requests_of_one_token_have_no_tpot():
    ones = timings([0, 1], [1, 2], [1, 2], [1, 1])
    assert summarise(ones).values["tpot_p99_s"] is None
    assert summarise(ones).values["ttft_p99_s"] == 1.0


def test_gaps_come_from_the_histogram():
    edges, counts = np.array([0.0, 0.01, 0.02, 0.04]), np.array([0, 90, 10])
    run = timings([0], [1], [2], [101], edges=edges, counts=counts)
    values = summarise(run, limits("itl p91 <= 1 s")).values
    assert values["itl_mean_s"] == pytest.approx(0.9 * 0.015 + 0.1 * 0.03)
    assert 0.01 < values["itl_p50_s"] < 0.02
    assert 0.02 <= values["itl_p91_s"] < 0.04
    empty = timings([0], [1], [1], [1], edges=edges, counts=np.zeros(3, np.int64))
    assert summarise(empty).values["itl_mean_s"] is None
    assert summarise(empty).values["itl_p99_s"] is None


def test_makespan_runs_from_the_first_arrival_to_the_last_token():
    assert makespan_s(timings([3, 4], [5, 5], [9, 7], [2, 2])) == 6.0
    assert makespan_s(FOUR) == math.inf


def test_warm_up_can_be_left_out_of_the_statistics():
    keep = np.array([False, True, True, False])
    summary = summarise(FOUR, limits("ttft p99 <= 1 s"), keep=keep)
    assert (summary.requests, summary.goodput_share) == (2, 0.5)
    assert summary.values["e2e_p50_s"] == pytest.approx(2.125)
    assert len(select(FOUR, keep)) == 2
    np.testing.assert_array_equal(select(FOUR, keep).done_s, [5, 2.25])


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_a_verdict_says_what_the_summary_says(n, seed):
    rng = np.random.default_rng(seed)
    arrival = np.sort(rng.uniform(0, 10, n))
    first = arrival + rng.exponential(1, n)
    counts = rng.integers(0, 5, 100)
    run = timings(
        arrival, first, first + rng.exponential(1, n), rng.integers(1, 9, n), edges=np.arange(101) / 100, counts=counts
    )
    bounds = ("ttft p99 <= 1 s", "itl p90 <= 1 s", "tpot mean <= 1 s", "e2e p12.5 <= 1 s")
    asked = limits(*bounds, "goodput >= 90%", "deadline <= 1 h")
    summary = summarise(run, asked)
    assert verdict(run, asked) == {x.key: summary.value(x) for x in asked}
    assert (judge(summary.values, asked) == ()) == all(x.holds(summary.value(x)) for x in asked)
